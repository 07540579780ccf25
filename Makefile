# One command for each thing a person does with this checkout. `make` alone lists them.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Long tests and benches take their numbers from variables; see CONTRIBUTING.md.
PYTEST := $(BIN)/python -m pytest

.PHONY: help install run test test-long check bench fuzz faults binary lock clean

help:
	@echo 'make install    build .venv; the command is then .venv/bin/onward'
	@echo 'make run        install, then run the appliance on 127.0.0.1:2525 and 127.0.0.1:8025'
	@echo 'make test       install what the tests need and run every check'
	@echo 'make test-long  the tests that take minutes'
	@echo 'make bench      messages per second beside smtp-sink and Postfix'
	@echo 'make fuzz       a fuzzer led by coverage, at the SMTP server'
	@echo 'make faults     put faults into a copy of the code: do the tests find them?'
	@echo 'make binary     freeze dist/onward'
	@echo 'make lock       renew the lock files'

# A stamp per lock file: a changed lock reinstalls, an unchanged one costs nothing.
$(VENV)/.installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo 'Onward needs Python 3.11 or newer; $(PYTHON) is older. Try: make PYTHON=python3.11' >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) \
		|| { echo 'No virtual environment could be made. On Debian: apt-get install python3-venv' >&2; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.installed-checks: $(VENV)/.installed requirements-checks.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: -r requirements-checks.lock
	@touch $@

install: $(VENV)/.installed

run: install
	@$(BIN)/onward run

test: check
	@PYTHON=$(BIN)/python tests/install-peers
	@# A file stays in one process: what it starts for all its tests is started once. A process that hangs ends the run.
	$(PYTEST) -m 'not long' -n $${ONWARD_PROCESSES:-2} --dist loadfile --no-loadscope-reorder --max-worker-restart 0

test-long: $(VENV)/.installed-checks
	@PYTHON=$(BIN)/python tests/install-peers
	@# Hours instead of minutes for each, before a test counts as hanging: some do as much as they are asked for.
	$(PYTEST) -m long -o faulthandler_timeout=36000

check: $(VENV)/.installed-checks
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.installed-checks
	@PYTHON=$(BIN)/python tests/install-peers
	$(BIN)/python tests/bench/forward.py

# Its own lock: there is no wheel of this fuzzer for every Python that Onward runs on.
fuzz: $(VENV)/.installed-checks
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: -r requirements-fuzz.lock
	$(BIN)/python tests/fuzz/coverage.py server -runs=$${ONWARD_FUZZ:-1000000}

faults: $(VENV)/.installed-checks
	$(BIN)/python tests/faults/seed.py

binary: $(VENV)/.installed-checks
	$(BIN)/python build/freeze.py

# Written by hand, not in CI: needs uv. The lock files name versions and hashes, never a registry.
lock:
	uv pip compile pyproject.toml --extra build --python-version 3.11 --generate-hashes --no-emit-index-url \
		--no-emit-find-links --no-annotate --no-header --quiet -o requirements.lock
	uv pip compile pyproject.toml --all-extras -c requirements.lock --python-version 3.11 --generate-hashes --no-emit-index-url \
		--no-emit-find-links --no-annotate --no-header --quiet -o requirements-checks.lock
	uv pip compile --group fuzz --python-version 3.11 --generate-hashes --no-emit-index-url \
		--no-emit-find-links --no-annotate --no-header --quiet -o requirements-fuzz.lock

clean:
	rm -rf $(VENV) dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
