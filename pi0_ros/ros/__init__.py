"""The shell: nodes, parameters and conversions. Only this folder imports ROS."""
