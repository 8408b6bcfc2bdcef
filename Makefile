# Everything a person types. `make` alone lists it.
# Where no terminal is there to ask on, calling make is the consent to install PostgreSQL with TimescaleDB.

.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TIDEMARK := $(BIN)/tidemark
YES := $(shell test -t 0 || echo --yes)
SUDO := $(shell test "$$(id -u)" = 0 || echo sudo)
HAS_URL := $(shell test -n "$$DATABASE_URL" || grep -qs '^DATABASE_URL=.' .env && echo yes)

.PHONY: help
help: ## List the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 12

# A virtual environment knows its own path: a checkout that was renamed gets a new one.
MOVED := $(shell test "$$(cat $(VENV)/installed 2>/dev/null)" = "$(CURDIR)" || echo moved)
moved: ;

$(VENV)/installed: pyproject.toml $(MOVED)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Tidemark needs Python 3.11 or newer"; exit 2; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { echo "installing the package python3-venv" >&2; $(SUDO) sh -c \
		'apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq $(YES) python3-venv >&2'; } \
		|| { echo "python3-venv could not be installed, for the reason above: Tidemark needs Python's venv module" >&2; exit 2; }
	@$(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[archive,calendar,charts,dev]' \
		|| { echo "pip could not install what Tidemark needs, for the reason above (no network? a full disk?)" >&2; exit 2; }
	@$(BIN)/python -c 'from tidemark import drawing; drawing.runtime()' # a second that the first chart is spared
	@printf '%s\n' "$(CURDIR)" >$@

.PHONY: install
install: $(VENV)/installed ## Make the virtual environment

.PHONY: server
server: install ## Start this checkout's own server, unless DATABASE_URL names another
ifneq ($(HAS_URL),yes)
	@$(TIDEMARK) up $(YES) >/dev/null
endif

.PHONY: migrate
migrate: server ## Bring the database to the state of schema/
	@$(TIDEMARK) migrate

.PHONY: demo
demo: migrate ## Load real daily bars and show what the database makes of them
	@$(TIDEMARK) seed
	@for question in daily_bars weekly_bars latest_prices coverage; do \
		echo; sed -n '1s/^-- //p' queries/$$question.sql; $(TIDEMARK) query $$question; \
	done

.PHONY: test
test: install ## Run the contract tests on servers of their own, one per processor; ARGS go to pytest
	@$(TIDEMARK) up --install-only $(YES)
	@$(BIN)/pytest --numprocesses=auto --dist=loadfile $(ARGS)

.PHONY: prove
prove: install ## Break one guard after the other and see its test turn red; ARGS choose, e.g. --number 8
	@$(TIDEMARK) up --install-only $(YES)
	@$(BIN)/python -m tests.mutations $(ARGS)

# CREATE OR REPLACE in public is how logic is deployed (PS002, PS015); outside functions the runner fixes the
# search_path itself (PS001, PS009, PS016, PS017). Procedures that control transactions cannot pin a search_path and one
# function is meant to be inlined (PS005): tests/test_conventions.py refuses any other. PS004 wants nothing but
# pg_catalog and pg_temp, while some definers look up TimescaleDB's operators in public, where nobody else may create.
# Its parser takes the fields of a row variable (v_bar public.candles) for unknown variables.
PGSPOT_CANNOT_READ := schema/logic/510_quality/548_quality_memory.sql \
	$(addprefix schema/logic/790_applications/,800_buddy_ai.sql 810_cryptovolt.sql 830_hyperliquid.sql)
PGSPOT_IGNORED := PS001 PS002 PS004 PS005 PS009 PS015 PS016 PS017

.PHONY: lint
lint: install ## Check the style of SQL and Python, and the safety of functions and migrations
	@$(BIN)/ruff check .
	@$(BIN)/sqlfluff lint --disable-progress-bar schema queries
	@$(BIN)/squawk --assume-in-transaction schema/state/*.sql
	@$(BIN)/pgspot $(addprefix --ignore=,$(PGSPOT_IGNORED)) $(filter-out $(PGSPOT_CANNOT_READ),$(wildcard schema/logic/*/*.sql))

.PHONY: bench
bench: install ## Measure what scoring, history, the record and alerts cost; ARGS='quality --rows 200000' some of it
	@$(TIDEMARK) up --install-only $(YES)
	@$(BIN)/python -m bench $(ARGS)

.PHONY: docs
docs: migrate ## Write docs/reference.md and docs/pictures/ from the database; pictures need Graphviz
	@$(BIN)/python -m tidemark.reference
	@$(BIN)/python -m tidemark.pictures

.PHONY: release
release: install ## Freeze the state files of the version in pyproject.toml, and keep a copy to migrate from
	@$(BIN)/python -m tidemark.release

.PHONY: up
up: ## Start TimescaleDB Community in Docker and wait until it is healthy
	@docker compose up --detach --wait

# From here and not from the environment, which a renamed checkout has lost.
.PHONY: clean
clean: ## Stop this checkout's own servers and remove the virtual environment; data stay
	@test ! -d $(VENV) || { mkdir -p $(VENV)/here && ln -sfn ../../runner $(VENV)/here/tidemark \
		&& PYTHONPATH=$(VENV)/here $(BIN)/python -c 'from tidemark.cli import main; main()' down; } \
		|| echo "servers of this checkout that run could not be stopped: make migrate, then make clean" >&2
	@rm -rf $(VENV)
