# `make` lists what there is. Every target sets up what it needs, so each works from a fresh clone.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
JARS := .jars
LANDING := data/landing
READY := $(VENV)/.ready
BENCH := $(VENV)/.bench
FETCHED := $(JARS)/.fetched
AIRFLOW := .airflow
WORKERS ?= 2
S3 := .s3
S3_JARS := .jars-s3
PEERS := .peers
DIST := dist
RELEASE := $(DIST)/release

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help run test test-fast test-s3 check bench bench-fast report shop setup java browser land dist cluster airflow peers clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: setup land ## the main job, daily_sales, on a grocery chain's 2017; a second time does only what is new
	$(BIN)/microbatch run daily_sales
	$(BIN)/microbatch audit daily_sales

test: setup browser ## all tests
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

test-fast: setup ## the tests that take seconds
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "not slow and not s3"

test-s3: setup $(S3)/.ready $(S3_JARS)/.fetched ## the tests on an S3 server of this machine; fetches 690 MB of jars, once
	$(BIN)/python -m pytest -m s3

check: $(READY) ## format, lint, types, import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: setup land $(BENCH) ## every goal of speed with its benchmark, an hour or more; writes benchmarks/README.md
	$(BIN)/python -m benchmarks --keep

bench-fast: setup $(BENCH) ## the benchmarks of every day, some minutes; writes nothing
	$(BIN)/python -m benchmarks --size fast

report: setup ## the HTML report of what the jobs did; prints where it is
	@$(BIN)/microbatch report

shop: setup ## the web_shop job with its three servers: PostgreSQL, Kafka and an HTTP API, fed while it runs
	$(BIN)/python -m benchmarks.shop

setup: java $(READY) $(FETCHED) ## .venv with the exact versions of constraints.txt, Java, and Delta's jars; once

dist: setup ## the wheel, and the release folder that is submitted, in dist/
	rm -rf $(DIST) build && mkdir -p $(RELEASE)/jars
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir $(DIST) .
	for wheel in $(DIST)/*.whl; do \
		cp "$$wheel" $(RELEASE)/ && name=$${wheel##*/} && cp "$$wheel" "$(RELEASE)/$${name%-py3-none-any.whl}.zip"; done
	cp -R jobs transforms conf expectations run.py constraints.txt $(RELEASE)/
	cp $(JARS)/*.jar $(RELEASE)/jars/
	$(BIN)/python -m microbatch.libraries $(RELEASE)/environment.tar.gz $(DIST)/*.whl
	find $(RELEASE) -name __pycache__ -prune -exec rm -rf {} +
	cd $(RELEASE) && find . -type f ! -name MANIFEST | LC_ALL=C sort | xargs sha256sum > MANIFEST

cluster: dist land ## daily_sales, and orders from PostgreSQL, by spark-submit on a master and two workers on this machine
	SALES_LANDING=$(CURDIR)/$(LANDING) SALES_ROOT=$(CURDIR)/data/cluster $(BIN)/python -m tests.cluster $(RELEASE)

airflow: $(AIRFLOW)/.ready ## Airflow in an environment of its own, for the tests of dags/

peers: $(PEERS)/.ready ## what the benchmarks of rules are compared with besides, in an environment of its own

$(PEERS)/.ready: benchmarks/peers.txt | $(READY)
	$(PYTHON) -m venv $(PEERS)
	$(BIN)/python -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])' \
		> "$$($(PEERS)/bin/python -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')/lent.pth"
	$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check -r benchmarks/peers.txt
	@touch $@

$(AIRFLOW)/.ready: dags/constraints.txt
	$(PYTHON) -m venv $(AIRFLOW)
	$(AIRFLOW)/bin/python -m pip install --quiet --disable-pip-version-check --no-compile -c dags/constraints.txt apache-airflow
	@touch $@

$(S3)/.ready: tests/servers/constraints.txt
	$(PYTHON) -m venv $(S3)
	$(S3)/bin/python -m pip install --quiet --disable-pip-version-check -r tests/servers/constraints.txt
	@touch $@

$(S3_JARS)/.fetched: microbatch/jars.py | $(READY) java
	$(BIN)/python -m microbatch.jars $(S3_JARS) s3
	@touch $@

clean: ## remove what runs and tools made (data/ too); .venv, .jars, .s3, .airflow and .peers stay
	rm -rf data dist build *.egg-info spark-warehouse metastore_db derby.log
	rm -rf .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -not -path './$(VENV)/*' -not -path './$(AIRFLOW)/*' -not -path './$(S3)/*' -not -path './$(PEERS)/*' -prune -exec rm -rf {} +

land: $(READY)
	$(BIN)/python -m benchmarks.complete_journey $(LANDING)

java:
	@if [ -n "$$JAVA_HOME" ] || command -v java >/dev/null; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends openjdk-17-jre-headless; \
	else echo "Java 17 is missing: sudo apt-get install openjdk-17-jre-headless" >&2; exit 1; fi

browser: # for the tests of the report's page
	@if command -v chromium >/dev/null || command -v chromium-browser >/dev/null; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends chromium; \
	else echo "Chromium is missing, tests that need it are left out: sudo apt-get install chromium" >&2; fi

$(READY): constraints.txt setup.cfg pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.10 or newer is needed: make PYTHON=python3.11" if sys.version_info < (3, 10) else 0)'
	@if [ -x $(BIN)/pip ] || $(PYTHON) -m venv $(VENV); then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -q -y python3-venv && $(PYTHON) -m venv $(VENV); \
	else echo "Python cannot make environments here: sudo apt-get install python3-venv" >&2; exit 1; fi
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[data,test]'
	@touch $@

$(BENCH): constraints.txt setup.cfg | $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	@touch $@

$(FETCHED): microbatch/jars.py | $(READY) java
	$(BIN)/python -m microbatch.jars $(JARS)
	$(BIN)/python -m microbatch.classes $(JARS)
	@touch $@
