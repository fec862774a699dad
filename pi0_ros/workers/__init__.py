"""Where is it decided: in a thread, or in a process of its own."""
