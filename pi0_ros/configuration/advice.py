"""What to do about a finding, for those who set parameters: the front door's half of it."""

GRIPPER = "if that is how the policy moves a gripper, name it in parameter 'gripper_joints'"
NAMES = "check parameter 'joint_names'"
ADVICE = {
    'chunk_start': GRIPPER,
    'chunk_jump': GRIPPER,
    'chunk_limits': 'the units, zeros and names of its joints may not be those of '
                    "robot_description (parameters 'conversions', 'joint_names')",
    'chunk_late': "parameter 'max_chunk_age' is what is allowed",
    'tracking': GRIPPER,
    'limits_unknown': "publish robot_description, or set parameter 'joint_limits', or "
                      "'allow_missing_limits'",
    'speed_scaling': "parameter 'speed_scaling' names the topic that says so, or none",
    'joint_unknown': NAMES,
    'joint_kind': NAMES,
    'joint_mimics': "put that one in parameter 'joint_names'",
    'joint_room': "check robot_description and parameter 'joint_limits'",
}


def advised(found: object) -> str:
    """Return the sentence of a finding, or of an error with a ``reason``, and what to do."""
    advice = ADVICE.get(getattr(found, 'reason', ''))
    return f'{found}; {advice}' if advice else str(found)
