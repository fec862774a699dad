"""The demo: a simulated robot, the node, and who speaks to it."""
