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
# Whoever shares memory with the host's nodes should be the same user there.
ARG UID=1000

SHELL ["/bin/bash", "-o", "pipefail", "-c"]
WORKDIR /ws
# The dependencies first: they are kept while only the code changes.
COPY package.xml src/pi0_ros/package.xml
COPY pi0_interfaces src/pi0_ros/pi0_interfaces
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3-venv \
    && rosdep update --rosdistro "${ROS_DISTRO}" \
    && rosdep install -y --from-paths src/pi0_ros src/pi0_ros/pi0_interfaces --ignore-src \
        --dependency-types=build --dependency-types=build_export --dependency-types=buildtool \
        --dependency-types=exec --skip-keys rviz2 \
    && rm -rf /var/lib/apt/lists/*

RUN python3 -m venv --system-site-packages /venv \
    && /venv/bin/pip install --no-cache-dir "torch==${TORCH}" \
        --index-url "${TORCH_INDEX}" --extra-index-url https://pypi.org/simple
COPY requirements src/pi0_ros/requirements
# Names of more files of requirements/: ray for docker/fleet.yaml.
ARG EXTRAS=
RUN /venv/bin/pip install --no-cache-dir colcon-common-extensions \
        -r src/pi0_ros/requirements/with-ros.txt \
        $(for one in ${EXTRAS}; do echo -r "src/pi0_ros/requirements/${one}.txt"; done)

COPY . src/pi0_ros
RUN source "/opt/ros/${ROS_DISTRO}/setup.bash" && source /venv/bin/activate \
    && python -m colcon build --paths src/pi0_ros/pi0_interfaces src/pi0_ros

COPY docker/entrypoint.sh /entrypoint.sh
# The base image of Ubuntu 24.04 has a user 1000 already.
RUN (id -nu "${UID}" >/dev/null 2>&1 || useradd --create-home --uid "${UID}" robot)
USER ${UID}
ENV HOME=/tmp
ENTRYPOINT ["/entrypoint.sh"]
CMD ["ros2", "launch", "pi0_ros", "demo.launch.py"]
