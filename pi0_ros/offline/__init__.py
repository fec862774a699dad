"""Without the robot: one inference from a file, what a checkpoint is, recordings."""
