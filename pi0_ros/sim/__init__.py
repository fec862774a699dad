"""A robot in a box: arm, blocks, cameras and controller, in pure Python without ROS."""
