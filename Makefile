# Two commands do everything: make demo, make test. Each installs what it needs first.
RECIPE ?= mandarin
STACK ?= auto
VENV ?= .venv
# test processes: the whole suite is bound by its cores
JOBS ?= 2

SHELL := /bin/bash
export SPEECHEQ_VENV := $(abspath $(VENV))
.NOTPARALLEL:
.PHONY: help demo test faults lint

help:
	@echo 'make demo   install into $(VENV), then run a recipe (RECIPE=mandarin|iemocap|mtl_aug) on synthesised mini corpora'
	@echo 'make test   install into $(VENV), then run the tests'
	@echo 'make faults  install into $(VENV), then end a recipe at 50 moments and each stage at 20 places; takes an hour'
	@echo 'make lint   shellcheck over every shell file'
	@echo 'STACK=auto|k2|modern and VENV=DIR choose what is installed and where (see utils/install.sh --help)'

demo:
	@utils/install.sh --stack $(STACK) --venv $(VENV) --extras demo
	@cd egs/$(RECIPE) && ./run.sh --mini true --train-jobs 2 --stage 0 --stop-stage 5

test:
	@utils/install.sh --stack $(STACK) --venv $(VENV) --extras test
	@. ./path.sh && python -m pytest -n $(JOBS) --dist loadscope

faults:
	@utils/install.sh --stack $(STACK) --venv $(VENV) --extras test
	@. ./path.sh && SPEECHEQ_KILLS=50 python -m pytest tests/faults

lint:
	@command -v shellcheck >/dev/null || \
		{ echo 'error: shellcheck is not installed (Debian: apt-get install shellcheck).' >&2; exit 1; }
	@shellcheck -x .ci/run $$(find . -path './.venv*' -prune -o -name '*.sh' -type f -print)
	@echo 'shellcheck: nothing to say'
