# make repro   environment, then the whole comparison of params.yaml
# make test    environment, then all tests
# make soak    environment, then 30 minutes of trainings killed at random (MINUTES=5 for fewer)
# make ui      environment, then MLflow and ZenML's dashboard on 127.0.0.1, until Ctrl-C
# make bench   environment, then what the parts cost beside each other
PYTHON ?= python3
BIN := .venv/bin
unexport PYTHONDONTWRITEBYTECODE
export PATH := $(CURDIR)/$(BIN):$(PATH)
export DVC_NO_ANALYTICS := 1
export MLFLOW_DISABLE_TELEMETRY := true
export GX_ANALYTICS_ENABLED := false
export ZENML_ANALYTICS_OPT_IN := false
export DO_NOT_TRACK := 1

.PHONY: repro test soak ui lint bench lock

repro: .venv/ready
	dvc repro
	@cat reports/table.txt; echo; echo reports/report.html

# Two at a time, a thread each: threads that spin for each other on two cores take ten times as long.
test: .venv/ready
	OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

soak: .venv/ready
	python -m tests.stress --minutes $(or $(MINUTES),30)

ui: .venv/ready
	@python -m pipelines ui

bench: .venv/ready .peers/ready
	PYTHONPATH=.peers python -m benchmarks

lint: .venv/ready
	ruff check .
	ruff format --check .
	mypy

# The lock holds versions and hashes for Python 3.11 to 3.13 on Linux and macOS, and names no registry.
lock: $(BIN)/uv
	uv pip compile pyproject.toml --group dev --extra s3 --extra server --universal --python-version 3.11 --generate-hashes --no-header \
		--quiet --no-annotate --upgrade --output-file requirements.lock

.venv/ready: requirements.lock | $(BIN)/uv
	VIRTUAL_ENV=$(CURDIR)/.venv $(BIN)/uv pip install --quiet --require-hashes --compile-bytecode -r requirements.lock
	@touch $@

# What people use today, beside which `bench` measures; none of it is imported elsewhere.
.peers/ready: benchmarks/peers.lock | $(BIN)/uv
	$(BIN)/uv pip install --quiet --no-deps --require-hashes --python $(BIN)/python --target .peers -r benchmarks/peers.lock
	@touch $@

$(BIN)/uv:
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; v in [(3, 11), (3, 12), (3, 13)] or sys.exit(f"python {v[0]}.{v[1]} found; 3.11, 3.12 or 3.13 expected: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv

