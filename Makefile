# Two commands do everything: make demo, make test. Each installs what it needs first.
RECIPE ?= mandarin
STACK ?= auto
VENV ?= .venv
# test processes
JOBS ?= 2
# what pytest is given besides, such as ARGS='-k seqm'
ARGS ?=
# linters and the documentation site: an environment of their own
TOOLS ?= .venv-tools

SHELL := /bin/bash
export SPEECHEQ_VENV := $(abspath $(VENV))
.NOTPARALLEL:
.PHONY: help demo test test-all coverage faults lint format docs

help:
	@echo 'make demo      install into $(VENV), then run a recipe (RECIPE=mandarin|iemocap|mtl_aug) on mini corpora'
	@echo 'make test      install into $(VENV), then run the fast tests (about five minutes on two cores)'
	@echo 'make test-all  install into $(VENV), then run all tests: also recipes end to end, Slurm, browser, faults'
	@echo 'make coverage  the fast tests, and which lines they run; fails below 85 %'
	@echo 'make faults    install into $(VENV), then end a recipe at 50 moments and each stage at 20 places; an hour'
	@echo 'make lint      ruff, import-linter, mypy (with the modern stack in $(VENV)), shellcheck'
	@echo 'make format    ruff, changing files'
	@echo 'make docs      the documentation site, into build/site'
	@echo 'STACK=auto|k2|modern and VENV=DIR choose what is installed and where (see utils/install.sh --help)'

demo:
	@utils/install.sh --stack $(STACK) --venv $(VENV) --extras demo
	@cd egs/$(RECIPE) && ./run.sh --mini true --train-jobs 2 --stage 0 --stop-stage 5

# tests of one module stay in one process: they share what its fixtures make (tests/conftest.py has their order)
PYTEST = . ./path.sh && python -m pytest -n $(JOBS) --dist loadscope --no-loadscope-reorder

test:
	@utils/install.sh --stack $(STACK) --venv $(VENV) --extras test
	@$(PYTEST) -m 'not slow' $(ARGS)

test-all:
	@utils/install.sh --stack $(STACK) --venv $(VENV) --extras test
	@$(PYTEST) $(ARGS)

coverage:
	@utils/install.sh --stack $(STACK) --venv $(VENV) --extras test
	@$(PYTEST) -m 'not slow' --cov=speecheq --cov-report=term:skip-covered --cov-fail-under=85 $(ARGS)

faults:
	@utils/install.sh --stack $(STACK) --venv $(VENV) --extras test
	@. ./path.sh && SPEECHEQ_KILLS=50 python -m pytest tests/faults

$(TOOLS)/installed: utils/requirements/tools.txt
	@rm -rf $(TOOLS); PATH=$$(sed 's#$(CURDIR)/\.venv[^/:]*/bin:##g' <<<"$$PATH") python3 -m venv $(TOOLS)  # not path.sh's
	@$(TOOLS)/bin/pip install -q --disable-pip-version-check --no-deps -r $<
	@touch $@

lint: $(TOOLS)/installed
	@$(TOOLS)/bin/ruff check . && $(TOOLS)/bin/ruff format --check .
	@$(TOOLS)/bin/ruff check --quiet --preview --select PLC2701 speecheq local  # no private name across modules
	@PYTHONPATH=. $(TOOLS)/bin/lint-imports --no-logo
	@if grep -qsx modern $(VENV)/speecheq-stack; then $(TOOLS)/bin/mypy --python-executable $(VENV)/bin/python; \
	  else echo 'mypy: skipped, it reads the types of the modern stack (make lint VENV=...)'; fi
	@command -v shellcheck >/dev/null || \
		{ echo 'error: shellcheck is not installed (Debian: apt-get install shellcheck).' >&2; exit 1; }
	@shellcheck -x .ci/run $$(find . -path './.venv*' -prune -o -name '*.sh' -type f -print)
	@echo 'shellcheck: nothing to say'

format: $(TOOLS)/installed
	@$(TOOLS)/bin/ruff check --fix . ; $(TOOLS)/bin/ruff format .

docs: $(TOOLS)/installed
	@NO_MKDOCS_2_WARNING=1 $(TOOLS)/bin/mkdocs build --strict --quiet
	@echo 'the site is in build/site'
