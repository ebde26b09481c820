# make herd [DATA=FOLDER] [WORKDIR=runs/herd]: the whole recipe and its report.
# make chat [MODEL=smollm2]: a chat in the terminal.
# make own TEXT=FOLDER [WORKDIR=runs/own]: trains a model on your text.
# make sft FILES=rows.jsonl [MODEL=smollm2] [WORKDIR=runs/sft]: finetunes a model on your rows.
# make evaluate FILES=qa.jsonl [MODEL=smollm2] [WORKDIR=runs/eval]: asks it your questions.
# make test: all tests. Each does its own set-up; Python 3.11 to 3.13 is all it needs.
# make prove: the long proofs; writes docs/proofs.md.
# make docs: the documentation as a site, build/site/index.html.
# make lint: ruff. make clean: removes .venv and what was built.
# CONFIG="--steps=200 --lora=8" adds flags to the commands above.

PYTHON ?= python3
MODEL ?= smollm2
WORKDIR ?=
DATA ?=
CONFIG ?=
BIN := .venv/bin
RUN = $(BIN)/python -m experiment

help:  # what there is to make
	@sed -n 's/^# make/make/p; s/^# CONFIG/CONFIG/p' Makefile

.PHONY: help herd chat own sft evaluate test prove docs lint clean

herd: .venv/ready
	$(RUN) --config=configs/herd.py:tiny --workdir="$(or $(WORKDIR),runs/herd)" \
	  $(if $(DATA),--data="$(DATA)") $(CONFIG)

chat: .venv/ready
	$(RUN) --config=chat --init_from="$(MODEL)" $(CONFIG)

own: given-TEXT .venv/ready
	$(RUN) --config=own --text="$(TEXT)" --workdir="$(or $(WORKDIR),runs/own)" $(CONFIG)

sft: given-FILES .venv/ready
	$(RUN) --config=sft --init_from="$(MODEL)" --files="$(FILES)" \
	  --workdir="$(or $(WORKDIR),runs/sft)" $(CONFIG)

evaluate: given-FILES .venv/ready
	$(RUN) --config=evaluate --init_from="$(MODEL)" --files="$(FILES)" \
	  --workdir="$(or $(WORKDIR),runs/eval)" $(CONFIG)

# What a target cannot do without, said before anything is installed.
given-%:
	@$(if $($*),:,$(error $* is missing: make $(MAKECMDGOALS) $*=PATH (make help)))

test: .venv/ready
	$(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder tests

prove: .venv/ready
	$(BIN)/python -m pytest -q tests/prove --proofs=docs/proofs.md

docs: .venv/docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build
	@echo build/site/index.html

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# The stamp is older than setup.cfg when the dependencies may have changed.
.venv/ready: setup.cfg pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $@

.venv/docs: setup.cfg pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[docs]'
	touch $@

clean:
	rm -rf .venv .pytest_cache .ruff_cache build *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
