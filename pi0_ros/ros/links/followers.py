"""Who follows the commands, and who else gives some."""

from pi0_ros.observation.finding import Finding
from pi0_ros.ros.links.commands import CommandPublisher


class Followers:
    """The nodes that followed when the robot was armed."""

    def __init__(self, command: CommandPublisher) -> None:
        """Nobody yet."""
        self._command = command
        self._then: dict[str, frozenset[bytes]] = {}

    def remember(self) -> bool:
        """Remember who follows now; return whether that is the same as before."""
        before, self._then = self._then, self._command.followers()
        return before == self._then

    def problem(self) -> Finding | None:
        """Return who has gone, or who commands too."""
        topic, now = self._command.topic, self._command.followers()
        gone = [name for name, endpoints in self._then.items()
                if not endpoints & now.get(name, frozenset())]
        if gone:
            return Finding('controller_gone', f"{', '.join(gone)} no longer follows '{topic}': "
                           'start it, then arm again', gone[0])
        others = self._command.others()
        if others:
            return Finding('two_commanders', f"{', '.join(others)} also publishes on '{topic}': "
                           'two nodes command one robot; stop one, then arm again', others[0])
        return None
