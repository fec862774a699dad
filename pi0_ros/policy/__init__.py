"""What the robot decides: checkpoint, preprocessing, PI0, and the thread that runs it."""
