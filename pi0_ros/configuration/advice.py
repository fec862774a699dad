# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""What to do about a finding, for those who set parameters: the front door's half of it."""

import re

from pi0_ros.configuration.table import BY_NAME

GRIPPER = "if that is how the policy moves a gripper, name it in parameter 'gripper_joints'"
NAMES = "check parameter 'joint_names'"
TOOLS = "check parameter 'end_effectors'"
ADVICE = {
    'chunk_start': GRIPPER,
    'chunk_jump': GRIPPER,
    'chunk_unreachable': "check parameters 'end_effectors' and 'actions'; 'tool_tolerance' and "
                         "'turn_tolerance' are what is allowed",
    'unlike_training': "check parameter 'end_effectors', or bring the tool to where training "
                       'began',
    'no_pinocchio': 'or use a checkpoint whose actions are joints',
    'link_unknown': TOOLS, 'link_apart': TOOLS, 'joint_elsewhere': TOOLS, 'joint_more': TOOLS,
    'frame_moves': TOOLS,
    'chunk_limits': 'the units, zeros and names of its joints may not be those of '
                    "robot_description (parameters 'conversions', 'joint_names')",
    'camera_silent': "parameters 'max_image_age' and 'max_skew' are what is allowed",
    'camera_skew': "parameter 'max_skew' is what is allowed; 'ignore_stamps' lets the time of "
                   'receipt count',
    'joints_silent': "parameter 'max_joint_age' is what is allowed",
    'chunk_late': "parameter 'max_chunk_age' is what is allowed",
    'tracking': GRIPPER,
    'limits_unknown': "publish robot_description, or set parameter 'joint_limits', or "
                      "'allow_missing_limits'",
    'description_refused': 'correct the description, or remap robot_description to another; '
                           "parameters 'joint_limits' (complete), 'replace_limits' and "
                           "'joint_names' mend single joints",
    'speed_scaling': "parameter 'speed_scaling' names the topic that says so, or none",
    'joint_kind': NAMES,
    'joint_mimics': "put that one in parameter 'joint_names'",
    'joint_unknown': NAMES + ", or give all its limits in parameter 'joint_limits'",
    'joint_room': "check robot_description and parameter 'joint_limits'",
}


# A setting that a room speaks of is a parameter here.
SETTING = re.compile(r"(?:(?<=set )|(?<=with )|(?<=needs )|(?<=; )|(?<=: )|^)'(?:%s)'"
                     % '|'.join(BY_NAME))


def advised(found: object) -> str:
    """Return the sentence of a finding, or of an error, and what to do; it names parameters."""
    text = SETTING.sub(lambda name: f'parameter {name.group()}', str(found))
    advice = ADVICE.get(getattr(found, 'reason', ''))
    return f'{text}; {advice}' if advice else text
