# make demo | test | test-fast | test-learn | test-lerobot | test-openpi | test-triton
# make bench | bench-peers | lint | eval | clean
#
# Everything runs in .venv, which these targets make and keep up to date themselves.

PYTHON ?= python3
INSTRUCTION ?= pick up the red cube
SEED ?= 0
EPISODES ?= 100

VENV := .venv
BIN := $(VENV)/bin
LEROBOT := .venv-lerobot
PEERS := .venv-peers
SOURCES := setup.py setup.cfg standalone/pyproject.toml

.PHONY: demo test test-fast test-learn test-lerobot test-openpi test-triton bench bench-peers lint eval clean

demo: $(VENV)/.demo
	@$(BIN)/vla_ros demo --instruction "$(INSTRUCTION)" --seed $(SEED)

test: $(VENV)/.test
	@$(BIN)/python -m pytest -q

test-fast: $(VENV)/.test
	@$(BIN)/python -m pytest -q -m "not slow and not demo"

# The openpi project's own client against `vla_ros serve`, and ours against a server with its frames.
test-openpi: $(VENV)/.test .venv-openpi/.done
	@$(BIN)/python -m pytest -q test/policy/backends/test_openpi_client.py

# A real tritonserver, from the wheel nvidia-pytriton.
test-triton: .venv-triton/.done
	@.venv-triton/bin/python -m pytest -q test/policy/backends/test_triton.py test/policy/backends/test_triton_repository.py

# Training and export too, which need torch (requirements/learn.txt).
test-learn: $(VENV)/.learn
	@$(BIN)/python -m pytest -q test/learn test/export test/policy/backends/test_torch.py

# Export of LeRobot's checkpoints, in an environment of its own (requirements/lerobot.txt).
test-lerobot: $(LEROBOT)/.made
	@$(LEROBOT)/bin/python -m pytest -q test/export test/policy/test_lerobot.py \
	    test/policy/decoders/test_noise_schedule.py

bench: $(VENV)/.test
	@$(BIN)/python bench/run.py

# Beside LeRobot's async inference and openpi, in an environment of their own.
bench-peers: $(VENV)/.test $(PEERS)/.made
	@$(BIN)/python bench/peers.py --python $(PEERS)/bin/python

eval: $(VENV)/.demo
	@$(BIN)/vla_ros eval --episodes $(EPISODES) --seed 1000 --json runs/eval.json

lint: $(VENV)/.test
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@for file in launch/*.launch.xml; do \
	    $(BIN)/vla_ros_launch $$file --show-args >/dev/null || exit 1; \
	done; echo "launch files: all read"

clean:
	rm -rf $(VENV) $(LEROBOT) $(PEERS) .venv-openpi .venv-triton build install log dist *.egg-info

# The apt line for headless rendering is said, or run as root, by the script.
$(VENV)/.demo: requirements/demo.txt $(SOURCES)
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; ok = (3, 10) <= v <= (3, 13); sys.exit(0 if ok else "make: %s is Python %d.%d; 3.10 to 3.13 is needed: make PYTHON=python3.11 ..." % (sys.executable, *v))'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { echo "make: no venv module: apt-get install python3-venv" >&2; rm -rf $(VENV); exit 1; }
	@echo "Installing the pinned packages of requirements/demo.txt into $(VENV) ..."
	@# The pip that comes with Python 3.10 takes more than ten minutes to resolve MuJoCo's needs.
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check "pip==25.3"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements/demo.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e ./standalone -e .
	@$(BIN)/vla_ros safety compile
	@touch $@

$(VENV)/.test: requirements/test.txt $(VENV)/.demo
	@echo "Installing the pinned packages of requirements/test.txt into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements/test.txt
	@touch $@

$(VENV)/.learn: requirements/learn.txt $(VENV)/.test
	@echo "Installing the pinned packages of requirements/learn.txt into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements/learn.txt
	@touch $@

.venv-openpi/.done: requirements/openpi.txt
	@test -x .venv-openpi/bin/python || $(PYTHON) -m venv .venv-openpi
	@echo "Installing the pinned packages of requirements/openpi.txt into .venv-openpi ..."
	@.venv-openpi/bin/python -m pip install --quiet --disable-pip-version-check -r requirements/openpi.txt
	@touch $@

# Of Debian's own Python: the server's stub of Python needs a standard library of its very version.
.venv-triton/.done: requirements/triton.txt
	@test -x .venv-triton/bin/python || /usr/bin/python3 -m venv .venv-triton
	@echo "Installing the pinned packages of requirements/triton.txt into .venv-triton ..."
	@.venv-triton/bin/python -m pip install --quiet --disable-pip-version-check -r requirements/triton.txt
	@touch $@

$(PEERS)/.made: requirements/peers.txt
	@test -x $(PEERS)/bin/python || $(PYTHON) -m venv $(PEERS) || { echo "make: no venv module: apt-get install python3-venv" >&2; rm -rf $(PEERS); exit 1; }
	@echo "Installing the pinned packages of requirements/peers.txt into $(PEERS) ..."
	@$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check "pip==25.3"
	@$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements/peers.txt
	@$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps lerobot==0.4.4 openpi-client==0.1.2
	@touch $@

# lerobot asks for versions that its policies do not need, hence --no-deps.
.PHONY: $(LEROBOT)
$(LEROBOT): $(LEROBOT)/.made

$(LEROBOT)/.made: requirements/lerobot.txt setup.py setup.cfg
	@test -x $(LEROBOT)/bin/python || $(PYTHON) -m venv $(LEROBOT) || { echo "make: no venv module: apt-get install python3-venv" >&2; rm -rf $(LEROBOT); exit 1; }
	@echo "Installing the pinned packages of requirements/lerobot.txt into $(LEROBOT) ..."
	@$(LEROBOT)/bin/python -m pip install --quiet --disable-pip-version-check "pip==25.3"
	@$(LEROBOT)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements/lerobot.txt
	@$(LEROBOT)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps lerobot==0.4.4 -e .
	@touch $@
