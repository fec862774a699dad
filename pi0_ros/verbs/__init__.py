"""The verbs of the command line, without ROS."""
