# Two commands matter: `make demo` and `make test`. Each sets everything up by itself, in .venv.

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
NEXT := .cache/datasette1
# setuptools' notice to everybody who installs a checkout in place.
QUIET := "ignore:Editable installation"

.PHONY: demo test lint types docs docs-write bench campaign lock clean

demo: $(READY)
	@$(BIN)/leadledger demo

test: $(READY) $(NEXT)/.tried
	$(BIN)/pytest

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# `cli` and `migrations` are looked at where they are installed, as parts of `ledger`.
types: $(READY)
	@rm -rf .cache/types && mkdir -p .cache/types/ledger
	@ln -s $(CURDIR)/ledger/* $(CURDIR)/cli $(CURDIR)/migrations .cache/types/ledger/
	MYPYPATH=.cache/types $(BIN)/mypy

# The generated blocks of the README and docs/ must be what the code says now.
docs: $(READY)
	$(BIN)/cog --check -p "import sys; sys.path.insert(0, 'docs')" README.md docs/*.md

docs-write: $(READY)
	$(BIN)/cog -r -p "import sys; sys.path.insert(0, 'docs')" README.md docs/*.md

bench: $(READY)
	$(BIN)/python tests/benchmarks/run.py

# Hours of it: kills, power cuts, a full disk, I/O errors, clock steps, signals and races, a hostile wire, simulated
# worlds, forged webhooks, readers beside a writer. `make campaign-power` runs one; `make -k campaign` goes on after
# one that failed. Each goes on where it was stopped, on the same commit. Needs strace, and root for the full disk.
# The results go to tests/campaigns/results.jsonl.
TWO_AT_ONCE := kill statements power disk_full io_errors clock_steps
CAMPAIGN_LOGS = .cache/campaigns/$(shell git rev-parse --short HEAD)
ONE_BY_ONE := processes wire world webhooks readers
CAMPAIGNS := $(TWO_AT_ONCE:%=campaign-%) $(ONE_BY_ONE:%=campaign-%)
.PHONY: $(CAMPAIGNS)
campaign: $(CAMPAIGNS)

$(TWO_AT_ONCE:%=campaign-%): CAMPAIGN_OPTIONS := --jobs 2
$(CAMPAIGNS): campaign-%: $(READY)
	@mkdir -p $(CAMPAIGN_LOGS)
	$(BIN)/python tests/campaigns/$*.py --record --log $(CAMPAIGN_LOGS)/$*.jsonl $(CAMPAIGN_OPTIONS)

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11))" \
		|| { echo "leadledger needs Python 3.11 or newer; name one with: make PYTHON=python3.12 …"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	PYTHONWARNINGS=$(QUIET) $(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $(READY)

# The newest alpha of Datasette, for the tests of the browser pages only. Without it they are skipped, saying so.
$(NEXT)/.tried: requirements-datasette1.lock pyproject.toml $(READY)
	@rm -rf $(NEXT) && mkdir -p .cache && $(PYTHON) -m venv $(NEXT)
	@$(NEXT)/bin/pip install --quiet --disable-pip-version-check --require-hashes \
			-r requirements-datasette1.lock \
		&& PYTHONWARNINGS=$(QUIET) $(NEXT)/bin/pip install --quiet --disable-pip-version-check --no-deps \
			--no-build-isolation -e . \
		&& touch $(NEXT)/.ready || echo "Datasette 1.0 could not be installed: its tests are skipped"
	@touch $(NEXT)/.tried

# Needs uv; the lock names no registry host and is good for every platform and Python from 3.11 on.
lock:
	uv pip compile -q pyproject.toml --extra dev --universal --python-version 3.11 \
		--generate-hashes --no-emit-index-url --no-header -o requirements.lock
	printf '%s\n' 'datasette==1.0a41' hypothesis pytest pytest-randomly pytest-timeout pytest-xdist \
		'setuptools>=80' | uv pip compile -q pyproject.toml - --universal --python-version 3.11 \
		--generate-hashes --no-emit-index-url --no-header -o requirements-datasette1.lock

clean:
	rm -rf .venv build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis demo
