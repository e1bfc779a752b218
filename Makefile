# The same commands for people and for CI. `make demo` and `make test` need only Python 3.11 or newer and make:
# deploy/setup.sh makes .venv and installs missing packages.

ARGS ?=
PYTHON := .venv/bin/python
SETUP := @sh deploy/setup.sh

# mosquitto lives in sbin, which a plain user's PATH lacks.
export PATH := $(PATH):/usr/local/sbin:/usr/sbin:/sbin:/opt/homebrew/sbin

# The tests start the bridge some hundred times: where this is set, each start would compile the package again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo test test-postgres test-console test-homeassistant test-nodered test-sparkplug image check format vendor lock soak mutants bench audit
.PHONY: sbom asyncapi dist clean
.NOTPARALLEL:
.DEFAULT_GOAL := help

help:  ## this list
	@echo "make TARGET [ARGS='…']"
	@sed -n 's/^\([a-z-]*\):[a-z ]*## /  \1\t/p' Makefile

demo:  ## simulator, broker and bridge, without configuration: make demo ARGS='--terminals 50 --duration 60s'
	$(SETUP) demo
	@$(PYTHON) -m oneweb_bridge demo $(ARGS)

test:  ## all tests, with a real broker: make test ARGS='-k journal -x'
	$(SETUP) test
	@$(PYTHON) -m pytest $(ARGS)

test-postgres:  ## tests with a PostgreSQL and a NATS cluster of their own, which apt-get installs where they are missing
	@sh deploy/setup.sh postgres
	@$(PYTHON) -m pytest -m "postgres or nats" $(ARGS)

test-nodered:  ## tests of the flows in deploy/node-red with a real Node-RED, which npm installs
	@sh deploy/setup.sh nodered
	@$(PYTHON) -m pytest -n 0 -m nodered tests/nodered $(ARGS)

test-sparkplug:  ## decodes all Sparkplug payloads with npm's sparkplug-payload and with pysparkplug, which it installs
	@sh deploy/setup.sh sparkplug
	@$(PYTHON) -m pytest -n 0 -m decoders tests/sparkplug/decoders $(ARGS)

test-console:  ## tests of the console's page in a real Chromium, which apt-get installs: make test-console ARGS='-k fleet'
	$(SETUP) test
	$(SETUP) console
	@$(PYTHON) -m pytest -n 2 -m browser tests/console $(ARGS)

image:  ## draws docs/images/console.png anew, with the same Chromium
	$(SETUP) test
	$(SETUP) console
	@$(PYTHON) -m tests.console.image docs/images/console.png

test-homeassistant:  ## tests with a real Home Assistant, which is first installed into .venv-homeassistant (minutes)
	$(SETUP) test
	$(SETUP) homeassistant
	@$(PYTHON) -m pytest -m homeassistant -n 0 tests/homeassistant $(ARGS)

check:  ## format, lint, types and imports, without changing anything
	$(SETUP) check
	@$(PYTHON) -m ruff format --check .
	@$(PYTHON) -m ruff check .
	@$(PYTHON) -m mypy
	@.venv/bin/lint-imports --no-logo

format:  ## formats the code, and corrects what ruff can correct
	$(SETUP) check
	@$(PYTHON) -m ruff format .
	@$(PYTHON) -m ruff check --fix .

soak:  ## the long fault campaign
	$(SETUP) test
	@$(PYTHON) -m tests.soak $(ARGS)

mutants:  ## removes each guard in turn, and prints which test notices: make mutants ARGS='removal'
	$(SETUP) test
	$(SETUP) console
	$(SETUP) postgres
	@$(PYTHON) -m tests.mutants $(ARGS)

bench:  ## measures throughput, latency and memory, about half an hour: make bench ARGS='--rows 1,3 --scale 0.1'
	$(SETUP) test
	@sh deploy/setup.sh nodered || echo "bench: without Node-RED; its rows will say so" >&2
	@sh deploy/setup.sh console || echo "bench: without Chromium; its rows will say so" >&2
	@$(PYTHON) -m bench.run $(ARGS)

vendor:  ## copies what the console takes from npm packages, after a version was changed in vendor.toml
	$(SETUP) check
	@$(PYTHON) deploy/vendor.py

lock:  ## writes both lock files from pyproject.toml
	$(SETUP) lock

audit:  ## asks the advisory service for known vulnerabilities, and npm whether the console's files are still its own
	$(SETUP) tools
	@build/tools/bin/pip-audit --strict --no-deps --disable-pip --progress-spinner off -r requirements.lock
	@$(PYTHON) deploy/vendor.py --compare

sbom:  ## writes dist/sbom.json, a CycloneDX list of the packages that the bridge runs with
	$(SETUP) tools
	@mkdir -p dist
	@PYTHONWARNINGS=ignore build/tools/bin/cyclonedx-py requirements requirements.lock --pyproject pyproject.toml --of JSON --output-reproducible -o dist/sbom.json

asyncapi:  ## writes dist/asyncapi.yaml, the AsyncAPI document of all topics with the default configuration
	$(SETUP) check
	@mkdir -p dist
	@cd dist && ../$(PYTHON) -m oneweb_bridge asyncapi >asyncapi.yaml

dist: asyncapi sbom  ## writes what a release attaches to dist/: the wheel, asyncapi.yaml and sbom.json
	@$(PYTHON) -m pip --disable-pip-version-check -q wheel --no-deps --wheel-dir dist .

clean:  ## removes everything that these commands made
	@rm -rf .venv .venv-homeassistant .node .sparkplug .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
