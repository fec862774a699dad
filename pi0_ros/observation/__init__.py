"""What the robot sees: the newest inputs, in the checkpoint's order, as one observation."""
