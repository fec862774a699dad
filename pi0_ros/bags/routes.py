# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Which topic of a bag is which input of the node."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
import re

from pi0_ros.bags import actions
from pi0_ros.bags.bag import Bag, BagError
from pi0_ros.configuration.configuration import Configuration
from pi0_ros.control.controllers import lags_ns, TRAJECTORY
from pi0_ros.observation.observation import Freshness

RAW, PACKED = 'sensor_msgs/msg/Image', 'sensor_msgs/msg/CompressedImage'
TEXT, CLOCK = 'std_msgs/msg/String', 'rosgraph_msgs/msg/Clock'
JOINTS = 'sensor_msgs/msg/JointState'
CAMERAS = tuple(f'camera_{slot}' for slot in (1, 2, 3))
NAMES = (*CAMERAS, 'joint_states', 'joint_trajectory', 'position_commands', 'instruction',
         'robot_description', 'inference')

# How the topic of a text may end, where it has another name. What is said once may come before a
# recorder listens; the node repeats what it took on ~/active_instruction.
ENDINGS = {'instruction': ('/instruction', '/active_instruction'),
           'robot_description': ('/robot_description',), 'inference': ('/inference',)}
TOPIC = 'joint_trajectory'  # of a controller, below its name
NO_COMMANDS = re.compile(r'/action_chunk$|/dry_run/')  # trajectories that nobody follows


@dataclass(frozen=True)
class Part:
    """Joints of a robot that are told, or commanded, on a topic of their own."""

    topic: str               # as the node calls it
    joints: tuple[str, ...]
    prefix: str = ''         # that the names in its messages lack


@dataclass(frozen=True)
class Wanted:
    """What a node takes from a bag."""

    commanded: tuple[str, ...]    # joints
    observed: tuple[str, ...]     # joints, the commanded ones first
    cameras: tuple[str, ...]      # the checkpoint's for every slot, '' for none
    freshness: Freshness
    compressed: bool = False      # rather than raw, where a bag has both
    trajectories: bool = True     # rather than positions
    unstamped: frozenset[str] = frozenset()  # inputs whose stamps do not count
    turns: Mapping[str, int] = field(default_factory=dict)  # right angles a camera is turned
    lags_ns: Mapping[str, int] = field(default_factory=dict)  # of joints that are told seldom
    told: tuple[Part, ...] = ()  # topics of joint states, where there are several
    parts: tuple[Part, ...] = ()  # topics of trajectories, where there are several controllers

    @staticmethod
    def of(config: Configuration) -> 'Wanted':
        """Return what a node that is configured so takes."""
        robot, inputs = config.robot, config.inputs
        return Wanted(robot.commanded, robot.observed, robot.cameras, inputs.freshness,
                      inputs.image_transport == 'compressed',
                      any(group.interface == TRAJECTORY for group in config.groups),
                      inputs.unstamped(robot.cameras), inputs.turns(robot.cameras),
                      lags_ns(config.groups), _told(config), _commanded(config))


def _told(config: Configuration) -> tuple[Part, ...]:
    """Return the topics of joint states, () where there is one without a prefix."""
    groups, observed = config.groups, config.robot.observed
    apart: dict[tuple[str, str], tuple[str, ...]] = {}
    for group in groups:
        if group.joint_states:
            key = group.joint_states, group.prefix
            apart[key] = apart.get(key, ()) + group.joints
    rest = tuple(name for name in observed if name not in sum(apart.values(), ()))
    parts = [Part(topic, joints, prefix) for (topic, prefix), joints in apart.items()]
    return tuple(parts + ([Part('joint_states', rest)] if rest else [])) if parts else ()


def _commanded(config: Configuration) -> tuple[Part, ...]:
    """Return the topics of trajectories where controllers have names."""
    return tuple(Part(group.topic or f'{group.name}/{TOPIC}', group.joints, group.prefix)
                 for group in config.groups if group.name and group.interface == TRAJECTORY)


@dataclass(frozen=True)
class Routes:
    """Topics of a bag; '' where there is none."""

    cameras: dict[str, str] = field(default_factory=dict)  # checkpoint camera -> topic
    joints: str = ''
    instruction: str = ''
    description: str = ''
    actions: str = ''    # what was commanded; '': what the joints did
    inference: str = ''
    clock: str = ''
    notes: tuple[str, ...] = ()  # what was chosen without being told
    turns: Mapping[str, int] = field(default_factory=dict)  # right angles a camera is turned
    told: Mapping[str, Part] = field(default_factory=dict)  # several topics of joint states
    parts: Mapping[str, Part] = field(default_factory=dict)  # several topics of commands

    @property
    def topics(self) -> set[str]:
        """Return all topics but those of single inferences."""
        return {topic for topic in (*self.cameras.values(), self.joints, *self.told,
                                    self.instruction, self.description, self.actions, *self.parts,
                                    self.clock) if topic}

    @property
    def roles(self) -> dict[str, str]:
        """Return which topic is what."""
        return {**{f'camera {name}': topic for name, topic in self.cameras.items()},
                'joints': ', '.join(self.told) or self.joints, 'instruction': self.instruction,
                'actions': ', '.join(self.parts) or self.actions,
                'description': self.description, 'clock': self.clock}

    def table(self, bag: Bag) -> str:
        """Return which topic feeds what."""
        rows = [(f"camera '{name}'", topic) for name, topic in self.cameras.items()]
        rows += [('joint states', topic) for topic in self.told or [self.joints]]
        rows += [('instruction', self.instruction or 'none'),
                 *(('actions', topic) for topic in self.parts or [
                     self.actions or f'{self.joints}, what comes after']),
                 ('description', self.description or 'none')]
        return '\n'.join(f'  {name:22} {topic}' + (
            f'  {bag.topics[topic].count} messages' if topic in bag.topics else '')
            for name, topic in rows)


def parse_remaps(given: Sequence[str]) -> dict[str, str]:
    """
    Return input -> topic for texts such as camera_1:=/wrist/image_raw.

    :raises ValueError: one is of another form, or names no input.
    """
    out = {}
    for text in given:
        name, separator, topic = text.partition(':=')
        name = name.strip('/').removesuffix('/image_raw')
        if not separator or name not in NAMES or not topic:
            raise ValueError(f"--remap '{text}' is not INPUT:=TOPIC with one of "
                             f"{', '.join(NAMES)}")
        out[name] = '/' + topic.strip('/')
    return out


def resolve(bag: Bag, wanted: Wanted, remaps: dict[str, str], chosen: str = '',
            needs_instruction: bool = True) -> Routes:
    """
    Return the topics of ``bag`` that feed a node that wants ``wanted``.

    Each input is the topic that ``remaps`` says, else the one of its own name; else, where that
    leaves no doubt, the only one that it can be.

    :param chosen: topic of the actions; '': the node's command topics, else the joint states;
        'joint_states': these in any case.
    :param needs_instruction: whether a bag without one is an error.
    :raises BagError: a topic is missing or of another type; the text has those that exist.
    """
    notes: list[str] = []

    def one(name: str, kind: str, needed: bool, hint: str = '') -> str:
        topic = remaps.get(name, f'/{name}')
        if topic in bag.topics and (bag.topics[topic].count or name in remaps):
            _require(bag, topic, (kind,))
            return topic
        if name not in remaps:
            for ending in ENDINGS.get(name, ('',)):
                others = [found for found, of in bag.topics.items()
                          if of.kind == kind and found.endswith(ending) and found != chosen
                          and of.count]
                if len(others) == 1:
                    notes.append(f'{name} is {others[0]}, the only one that it can be')
                    return others[0]
        if not needed and name not in remaps:
            return ''
        raise BagError(f"bag '{bag.path}' has no topic '{topic}' for the {name}: name the right "
                       f'one with --remap {name}:=TOPIC{hint}. It has:\n{bag.table()}')

    def instruction() -> str:
        """
        Return where instructions are: what the node repeated, if that has all of them.

        What is said once may come before a recorder has found who says it.
        """
        found = one('instruction', TEXT, needs_instruction, ', or say --instruction TEXT')
        repeated = [topic for topic, of in bag.topics.items() if of.kind == TEXT and of.count
                    and topic.endswith('/active_instruction')]
        if 'instruction' in remaps or len(repeated) != 1 or repeated[0] == found:
            return found
        said: dict[str, set[str]] = {found: set(), repeated[0]: set()}
        for topic, _, message in bag.messages(said):
            said[topic].add(message.data.strip())
        if said[found] - {''} <= said[repeated[0]] != {''}:
            notes.append(f'instruction is {repeated[0]}: what the node took')
            return repeated[0]
        return found

    cameras = _cameras(bag, wanted, remaps, notes)
    told = _parts(bag, wanted.told, JOINTS)
    if wanted.told and len(told) < len(wanted.told):
        lost = [part.topic for part in wanted.told if part not in told.values()]
        raise BagError(f"bag '{bag.path}' has no joint states on {', '.join(lost)}, as 'commands' "
                       f'has them. It has:\n{bag.table()}')
    joints = next(iter(told)) if told else one('joint_states', JOINTS, True)
    parts = {} if chosen else _parts(bag, wanted.parts, actions.TRAJECTORY)
    return Routes(cameras, joints,
                  instruction(),
                  one('robot_description', TEXT, False),
                  next(iter(parts)) if parts else _actions(bag, wanted, remaps, chosen, joints,
                                                           notes),
                  one('inference', TEXT, False),
                  '/clock' if '/clock' in bag.topics and bag.topics['/clock'].count else '',
                  tuple(notes), wanted.turns, told, parts)


def _parts(bag: Bag, wanted: Sequence[Part], kind: str) -> dict[str, Part]:
    """
    Return the topics of a bag that have messages, of those that are wanted.

    One below a namespace counts, if there is no other of that ending.
    """
    out = {}
    for part in wanted:
        name = '/' + part.topic.strip('/')
        found = [topic for topic, of in bag.topics.items() if of.kind == kind and of.count
                 and topic.endswith(name)]
        found = [topic for topic in found if topic == name] or found
        if len(found) == 1:
            out[found[0]] = part
    return out


def _require(bag: Bag, topic: str, kinds: Sequence[str]) -> None:
    if bag.topics[topic].kind not in kinds:
        raise BagError(f"topic '{topic}' of bag '{bag.path}' is {bag.topics[topic].kind}, "
                       f"expected {' or '.join(kinds)}")


def _actions(bag: Bag, wanted: Wanted, remaps: dict[str, str], chosen: str, joints: str,
             notes: list[str]) -> str:
    if chosen:
        if chosen == 'joint_states':
            return ''
        topic = '/' + chosen.strip('/')
        if topic not in bag.topics:
            raise BagError(f"bag '{bag.path}' has no topic '{topic}', which --actions names. It "
                           f'has:\n{bag.table()}')
        _require(bag, topic, actions.KINDS)
        return '' if topic == joints else topic
    names = ['joint_trajectory', 'position_commands']
    for name in names if wanted.trajectories else names[::-1]:
        topic = remaps.get(name, f'/{name}')
        if topic in bag.topics and bag.topics[topic].count:
            _require(bag, topic, actions.KINDS)
            return topic
        if name in remaps:
            raise BagError(f"bag '{bag.path}' has no topic '{topic}' for the {name}. It has:\n"
                           f'{bag.table()}')
    others = sorted(found for found, of in bag.topics.items()
                    if of.kind == actions.TRAJECTORY and of.count
                    and not NO_COMMANDS.search(found))
    if len(others) == 1:
        notes.append(f'actions are {others[0]}, the only one that they can be')
        return others[0]
    if others:
        notes.append(f"commands may be {' or '.join(others)}: choose with --actions; what the "
                     'joints did is taken')
    return ''


def _cameras(bag: Bag, wanted: Wanted, remaps: dict[str, str], notes: list[str]
             ) -> dict[str, str]:
    """Return the topic of every camera, raw or compressed, whatever the bag has."""
    suffixes = ['', '/compressed']
    if wanted.compressed:
        suffixes.reverse()
    images = {topic for topic, of in bag.topics.items() if of.kind in (RAW, PACKED)}
    found, missing = {}, False
    for slot, name in zip(CAMERAS, wanted.cameras):
        if not name:
            continue
        base = remaps.get(slot, f'/{slot}/image_raw').removesuffix('/compressed')
        candidates = [base + suffix for suffix in suffixes if base + suffix in images]
        if not candidates and slot not in remaps:
            bases = {topic.removesuffix('/compressed') for topic in images
                     if name.lower() in topic.lower().split('/')}
            if len(bases) == 1:
                base = bases.pop()
                candidates = [base + suffix for suffix in suffixes if base + suffix in images]
                notes.append(f"camera '{name}' is {candidates[0]}, by its name")
        if candidates:
            found[name] = candidates[0]
        missing |= not candidates
    doubled = [topic for topic in found.values() if list(found.values()).count(topic) > 1]
    if missing or doubled:
        raise BagError(_camera_table(bag, wanted, found, sorted(images), doubled))
    return found


def _camera_table(bag: Bag, wanted: Wanted, found: dict[str, str],
                  images: Sequence[str], doubled: Sequence[str]) -> str:
    rows = [f"  {slot:10} {name:24} {found.get(name, 'nothing')}"
            for slot, name in zip(CAMERAS, wanted.cameras) if name]
    free = [topic for topic in images if topic not in found.values()]
    what = (f"feeds two cameras with '{doubled[0]}'" if doubled else
            'does not have an image topic for every camera')
    return (f"bag '{bag.path}' {what}: say which with --remap camera_1:=TOPIC\n"
            f"  {'slot':10} {'checkpoint camera':24} topic of the bag\n" + '\n'.join(rows)
            + '\n  other image topics: ' + (', '.join(free) or 'none'))
