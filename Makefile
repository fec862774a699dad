# Two commands for a fresh machine: `make demo` and `make test`. They set up what they need.
ROS ?= jazzy
VENV ?= $(if $(and $(ROS_DISTRO),$(AMENT_PREFIX_PATH)),.venv-ros,$(if $(filter jazzy,$(ROS)),.venv,.venv-$(ROS)))
PYTHON = $(VENV)/bin/python
WORKERS ?= auto --maxprocesses 4

ROBOT ?= so101

.PHONY: help demo sim test stops fuzz mutants setup clean

help:
	@echo 'make demo              a simulated robot takes the blocks it is told to take'
	@echo 'make demo ARGS=--live  the same, and you give the instructions'
	@echo 'make sim ROBOT=aloha   a robot in physics (MuJoCo), so101 or aloha, is driven with its profile'
	@echo 'make test              all tests; ARGS="-k plan" for some'
	@echo "make test ARGS=\"-m 'not live'\"  without those that run whole programs"
	@echo 'make test ROS=kilted    on the wheels of another ROS 2 than Jazzy'
	@echo 'make stops             all tests, while random processes of theirs stand still for a moment'
	@echo 'make fuzz              ten million control ticks of random lives, hours'
	@echo 'make mutants           sixty faults in control and motion: do the tests notice?'

setup:
	@scripts/setup $(VENV) $(ROS)

demo: setup
	@PYTHONPATH="$(CURDIR):$$PYTHONPATH" $(PYTHON) -m pi0_ros demo $(ARGS)

sim: setup
	@$(PYTHON) -c 'import mujoco, glfw' 2>/dev/null || $(PYTHON) -m pip install -q \
		--disable-pip-version-check --no-deps -r requirements/mujoco.txt
	@PYTHONPATH="$(CURDIR):$$PYTHONPATH" $(PYTHON) -m pi0_ros demo --robot $(ROBOT) $(ARGS)

test: setup
	@PYTHONPATH="$(CURDIR):$$PYTHONPATH" $(PYTHON) -m pytest -n $(WORKERS) --dist loadgroup $(ARGS)

stops: setup
	@PYTHONPATH="$(CURDIR):$$PYTHONPATH" $(PYTHON) test/stops.py -n $(WORKERS) --dist loadgroup $(ARGS)

fuzz: setup
	@PYTHONPATH="$(CURDIR):$$PYTHONPATH" $(PYTHON) test/fuzz.py $(ARGS)

mutants: setup
	@PYTHONPATH="$(CURDIR):$$PYTHONPATH" $(PYTHON) test/mutants.py $(ARGS)

clean:
	rm -rf .venv .venv-* out build install log
