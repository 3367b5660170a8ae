# Each target works alone on a fresh machine: it makes .venv once and installs the project from its own files.
# Both targets install in editable mode, so that demo and test can share .venv and neither goes stale.

VENV ?= .venv
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11 python3.10; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null && echo $$p && break; done)
OUT ?= runs/demo
# What `make test` runs, after "python"; .ci/run reads this line, so the two cannot differ.
TEST := -m pytest -n auto --maxprocesses 4 --dist worksteal
TYPED := ogenlib generators distill benchmarks

.PHONY: help demo test test-fast lint docs clean

help:
	@echo "make demo       install what is missing, run the benchmark, write $(OUT)/report.html"
	@echo "make test       install what is missing, run the tests"
	@echo "make test-fast  the same without the slow ones, for work in between"
	@echo "make lint       ruff and mypy"
	@echo "make docs       write the documentation to build/docs"
	@echo "make clean      remove $(VENV), build products and caches (runs/ is kept)"

demo: $(VENV)/.demo-installed
	$(VENV)/bin/ogen bench --out $(OUT)
	@echo "The report is $(OUT)/report.html"

test: $(VENV)/.test-installed
	$(VENV)/bin/python $(TEST)

test-fast: $(VENV)/.test-installed
	$(VENV)/bin/python $(TEST) -m "not slow"

lint: $(VENV)/.test-installed
	$(VENV)/bin/python -m ruff check .
	$(VENV)/bin/python -m ruff format --check .
	$(VENV)/bin/python -m mypy $(TYPED)

docs: $(VENV)/.docs-installed
	$(VENV)/bin/python -m benchmarks.docs.methods
	$(VENV)/bin/python -m mkdocs build --strict --config-file docs/site/mkdocs.yml
	@echo "The documentation is build/docs/index.html"

$(VENV)/bin/pip:
	@test -n "$(PYTHON)" || { echo "No Python >= 3.10 found; install one, or name it: make demo PYTHON=/path/to/python3" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV) || { echo "$(PYTHON) could not make a virtual environment; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }

# The tests' extras hold the demo's: after `make test`, `make demo` has nothing to install.
$(VENV)/.test-installed: pyproject.toml | $(VENV)/bin/pip
	$(VENV)/bin/python -m pip install -e '.[dev]'
	@touch $@ $(VENV)/.demo-installed

$(VENV)/.demo-installed: pyproject.toml | $(VENV)/bin/pip
	$(VENV)/bin/python -m pip install -e '.[plot]'
	@touch $@

$(VENV)/.docs-installed: pyproject.toml | $(VENV)/bin/pip
	$(VENV)/bin/python -m pip install -e '.[docs]'
	@touch $@

clean:
	rm -rf $(VENV) build dist ogenlib.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
