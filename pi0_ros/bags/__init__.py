"""Recordings: read without ROS, and played as the node would hear them."""
