# make herd [DATA=../shared/assets] [WORKDIR=runs/herd]: the whole recipe and its report.
# make test: all tests. Each does its own set-up; Python 3.11 to 3.13 is all it needs.
# make prove: the long proofs; writes docs/proofs.md.
# make lint: ruff. make clean: removes .venv and what was built.

PYTHON ?= python3
WORKDIR ?= runs/herd
DATA ?=
CONFIG ?=
BIN := .venv/bin

help:  # what there is to make
	@sed -n 's/^# make/make/p' Makefile

.PHONY: help herd test prove lint clean

herd: .venv/ready
	$(BIN)/python -m experiment --config=configs/herd.py:tiny --workdir=$(WORKDIR) \
	  $(if $(DATA),--data=$(DATA)) $(CONFIG)

test: .venv/ready
	$(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder tests

prove: .venv/ready
	$(BIN)/python -m pytest -q tests/prove --proofs=docs/proofs.md

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# The stamp is older than setup.cfg when the dependencies may have changed.
.venv/ready: setup.cfg pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $@

clean:
	rm -rf .venv .pytest_cache .ruff_cache build *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
