# `make demo` and `make test` work on a bare machine: each creates .venv and installs what it needs.
PYTHON ?= python3
VENV := .venv
RUN := OMP_WAIT_POLICY=passive $(VENV)/bin
# Two test processes of one thread each: torch's threads on top of them would only get in each other's way.
WORKERS ?= 2
UV := $(shell command -v uv 2>/dev/null)

.PHONY: demo test lint coverage docs clean

# The stamp changes when the requirements do, so an unchanged environment is not installed again.
$(VENV)/.installed: setup.cfg pyproject.toml
ifneq ($(UV),)
	[ -x $(VENV)/bin/python ] || uv venv --python $(PYTHON) $(VENV)
	uv pip install --python $(VENV)/bin/python -e ".[test]"
else
	[ -x $(VENV)/bin/python ] || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --upgrade pip
	$(VENV)/bin/python -m pip install -e ".[test]"
endif
	touch $@

demo: $(VENV)/.installed
	$(RUN)/posesyn demo --out runs/demo

# COVERAGE=1 counts lines in the same run: a quarter slower, and no second run of the suite.
COUNTED = $(if $(COVERAGE),--cov --cov-report term:skip-covered)

test: $(VENV)/.installed lint
	OMP_NUM_THREADS=1 $(RUN)/python -m pytest -m "not slow" -n $(WORKERS) --dist worksteal $(COUNTED) $(PYTEST_ARGS)

lint: $(VENV)/.installed
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .
	$(RUN)/codespell
	$(RUN)/lint-imports
	$(RUN)/python tools/check_types.py

# Without the long tests; the floor in pyproject.toml is that of all tests.
coverage: COVERAGE = 1
coverage: $(VENV)/.installed
	OMP_NUM_THREADS=1 $(RUN)/python -m pytest -m "not slow and not integration" -n $(WORKERS) --dist loadfile \
		$(COUNTED) --cov-fail-under=0 $(PYTEST_ARGS)

docs: $(VENV)/.installed
ifneq ($(UV),)
	uv pip install -q --python $(VENV)/bin/python -e ".[docs]"
else
	$(VENV)/bin/python -m pip install -q -e ".[docs]"
endif
	$(RUN)/sphinx-build -W -b html docs docs/_build/html

clean:
	rm -rf $(VENV) build dist *.egg-info runs
