# `make` lists the targets. Options of a target's tool go into ARGS: make test ARGS="tests/unit -x"

VENV := .venv
BIN := $(VENV)/bin
ARGS ?=

# The first Python of at least 3.11 that can make virtual environments; PYTHON=/path/to/python chooses another.
PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11 python; do \
	"$$python" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && { echo "$$python"; break; }; done)

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1

.DEFAULT_GOAL := help
.PHONY: help venv demo test check docs bench format clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

venv: $(VENV)/.dev ## set up .venv with everything needed for development

demo: $(VENV)/.core ## run a real job on two workers, and kill one (ARGS="--no-kill", ARGS="FOLDER", …)
	@$(BIN)/mognet demo $(ARGS)

test: $(VENV)/.dev ## run the tests
	@$(BIN)/pytest $(ARGS)

check: $(VENV)/.dev ## formatting, lint, types, layers, news fragments, docs
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pyright
	$(BIN)/lint-imports --no-logo
	$(BIN)/towncrier build --draft --version next >/dev/null
	$(BIN)/zensical build --strict --clean

docs: $(VENV)/.dev ## build the documentation into site/
	$(BIN)/zensical build --strict --clean

bench: $(VENV)/.dev ## run the benchmarks
	$(BIN)/python -m benchmarks $(ARGS)

format: $(VENV)/.dev ## format the code, and mend what lint can mend
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

clean: ## remove the environment, caches and build output
	rm -rf $(VENV) build dist site .cache .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamps say what is installed: .core what a user gets, .dev the tools as well. (An old pip does not know --group.)
$(VENV)/.core: pyproject.toml
	@[ -n "$(PYTHON)" ] || { echo "no Python of at least 3.11 (with venv) found; name one: make PYTHON=/path/to/python" >&2; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || { echo "setting up $(VENV) with $(PYTHON)"; "$(PYTHON)" -m venv --clear $(VENV); }
	@$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.core pyproject.toml
	@echo "installing the development tools into $(VENV)"
	@$(BIN)/python -m pip install --quiet "pip>=25.1"
	@$(BIN)/python -m pip install --quiet --group dev
	@touch $@
