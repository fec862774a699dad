# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Who follows the commands, and who else gives some."""

from pi0_ros.observation.finding import Finding
from pi0_ros.ros.links.commands import Commands


class Followers:
    """The nodes that followed when the robot was armed."""

    def __init__(self, commands: Commands) -> None:
        """Nobody yet."""
        self._commands = commands
        self._then: list[dict[str, frozenset[bytes]]] = []

    def remember(self) -> bool:
        """Remember who follows now; return whether that is the same as before."""
        before, self._then = self._then, [each.followers() for each in self._commands]
        return before == self._then

    def problem(self) -> Finding | None:
        """Return who has gone, who commands too, or what a controller answered."""
        for each, then in zip(self._commands, self._then):
            now = each.endpoints()  # by these: names are discovered later
            gone = [name for name, endpoints in then.items() if not endpoints & now]
            if gone:
                its = f" ({', '.join(each.group.joints)})" if each.group.name else ''
                return Finding('controller_gone', f"{', '.join(gone)} no longer follows "
                               f"'{each.topic}'{its}: start it, then arm again", gone[0])
            others = each.others()
            if others:
                return Finding('two_commanders', f"{', '.join(others)} also publishes on "
                               f"'{each.topic}': two nodes command one robot; stop one, then arm "
                               'again', others[0])
        return self._commands.problem()
