"""What can be set: one source, checked, and given to each room whole."""
