# make demo | make test | make check: the first one on a machine sets it up (virtual environment,
# pinned packages, system GL libraries). PYTHON, VENV and TEST_ARGS may be given on the command line.

PYTHON ?= python3
VENV ?= .venv
TEST_ARGS ?= -n 2
BIN := $(VENV)/bin
READY := $(VENV)/.ready
export MUJOCO_GL ?= egl
export HF_HUB_OFFLINE ?= 1

.PHONY: demo test check setup browser pins clean

demo: $(READY)
	$(BIN)/wam demo

test: $(READY) browser
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(TEST_ARGS)

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 -m "not slow and not browser" tests/test_floors.py \
		$(wildcard tests/conformance)

setup: $(READY)

$(READY): pyproject.toml constraints.txt tools/set_up.py
	$(PYTHON) tools/set_up.py $(VENV)

# Optional: the tests that open the report in a browser skip themselves without one.
browser: $(READY)
	@$(PYTHON) tools/set_up.py --browser

# Resolves every dependency anew on this machine and rewrites constraints.txt.
pins:
	$(PYTHON) tools/pin.py

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache build dist *.egg-info
