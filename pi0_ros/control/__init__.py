"""What the robot does: action queue, limits, and the trajectory that is published."""
