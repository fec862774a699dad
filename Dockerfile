# pi0_ros on a ROS 2 of your choice.
#
#   docker build -t pi0_ros .
#   docker build -t pi0_ros:cuda --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu130 .
#   docker run --rm -it pi0_ros                     # the simulated robot, the node beside it
#
# The CUDA build needs the NVIDIA Container Toolkit and --gpus all; its libraries come with torch.
ARG ROS_DISTRO=jazzy
FROM ros:${ROS_DISTRO}-ros-base
# Of the base image, whose environment has it.
ARG ROS_DISTRO
ARG TORCH=2.13.0
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu

SHELL ["/bin/bash", "-o", "pipefail", "-c"]
RUN apt-get update \
    && apt-get install -y --no-install-recommends \
        python3-venv \
        "ros-${ROS_DISTRO}-control-msgs" \
        "ros-${ROS_DISTRO}-controller-manager-msgs" \
        "ros-${ROS_DISTRO}-pinocchio" \
    && rm -rf /var/lib/apt/lists/*

RUN python3 -m venv --system-site-packages /venv \
    && /venv/bin/pip install --no-cache-dir "torch==${TORCH}" \
        --index-url "${TORCH_INDEX}" --extra-index-url https://pypi.org/simple
WORKDIR /ws
COPY requirements src/pi0_ros/requirements
RUN /venv/bin/pip install --no-cache-dir colcon-common-extensions \
        -r src/pi0_ros/requirements/with-ros.txt -r src/pi0_ros/requirements/test.txt

COPY . src/pi0_ros
RUN apt-get update \
    && rosdep update --rosdistro "${ROS_DISTRO}" \
    && rosdep install -y --from-paths src/pi0_ros src/pi0_ros/pi0_interfaces --ignore-src \
    && rm -rf /var/lib/apt/lists/* \
    && source "/opt/ros/${ROS_DISTRO}/setup.bash" && source /venv/bin/activate \
    && python -m colcon build --paths src/pi0_ros/pi0_interfaces src/pi0_ros

RUN useradd --create-home --shell /bin/bash robot && chown -R robot /ws
USER robot
COPY docker/entrypoint.sh /entrypoint.sh
ENTRYPOINT ["/entrypoint.sh"]
CMD ["ros2", "launch", "pi0_ros", "demo.launch.py"]
