#!/usr/bin/env bash
# Run a command with ROS, the Python environment and this package.
set -e
source "/opt/ros/${ROS_DISTRO}/setup.bash"
source /venv/bin/activate
source /ws/install/setup.bash
exec "$@"
