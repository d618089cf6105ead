# Each target first installs its requirements into .venv.
# make repro   the whole comparison of params.yaml
# make test    the fast tests, in 4 to 5 minutes on 2 cores: all but those that are marked slow
# make test-all  the slow ones too (make test-slow: only those)
# make test-kills  runs and studies that are killed again and again
# make test-cluster  jobs on a Slurm and a Ray of this machine
# make lint    formatter, linter and type checker
# make docs    the documentation with its API pages, in docs/_build/html
# make bench   benchmarks, as ratios measured in one run
# make soak    30 minutes of training runs killed at random (MINUTES=5 for fewer)
# make ui      MLflow and ZenML's dashboard on 127.0.0.1, until Ctrl-C
# make extras  Slurm, Ray and S3 for stages on other machines (docs/cluster.md)
# make slurm   a Slurm of two nodes on this machine, as root on Debian; make slurm-stop ends it
# make ray     a Ray of two nodes on this machine; make ray-stop ends it
# make lock    resolve the lock files again
PYTHON ?= python3
BIN := .venv/bin
unexport PYTHONDONTWRITEBYTECODE
export PATH := $(CURDIR)/$(BIN):$(PATH)
export DVC_NO_ANALYTICS := 1
export MLFLOW_DISABLE_TELEMETRY := true
export GX_ANALYTICS_ENABLED := false
export ZENML_ANALYTICS_OPT_IN := false
export DO_NOT_TRACK := 1

.PHONY: repro test test-slow test-kills test-all test-cluster lint docs bench soak ui extras slurm slurm-packages slurm-stop ray ray-stop lock

repro: .venv/ready
	@python -m pipelines run

# Two processes with one thread each: more threads than cores would spin while they wait for each
# other, and take ten times as long.
PYTEST := OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE python -m pytest -n 2 --dist loadfile --no-loadscope-reorder
test: .venv/dev
	$(PYTEST) -m "not slow"

test-slow: .venv/dev
	$(PYTEST) -m "slow and not cluster and not kills"

test-kills: .venv/dev
	$(PYTEST) -m kills

test-all: .venv/dev
	$(PYTEST) -m "not cluster"

# One process: the nodes share these cores. K=lock_file: only tests with this in their names.
test-cluster: .venv/dev .venv/extras
	OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE python -m pytest -m cluster $(if $(K),-k $(K))

soak: .venv/dev
	python -m tests.stress --minutes $(or $(MINUTES),30)

# The dashboard is the extra `server`, which is in requirements-dev.lock.
ui: .venv/dev
	@python -m pipelines ui

extras: .venv/extras

SLURM := slurmctld slurmd slurm-client munge
slurm: .venv/extras slurm-packages
	@python -m tests.cluster.slurm start

# A policy-rc.d keeps the packages from starting services of their own.
slurm-packages:
	@command -v slurmctld > /dev/null || { \
		test -e /usr/sbin/policy-rc.d || { printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d; \
			chmod +x /usr/sbin/policy-rc.d; trap 'rm -f /usr/sbin/policy-rc.d' EXIT; }; \
		apt-get -qq update && apt-get -qq install -y --no-install-recommends $(SLURM); }

ray: .venv/extras
	@python -m tests.cluster.ray start

slurm-stop ray-stop:
	@python -m tests.cluster.$(@:-stop=) stop

bench: .venv/dev .peers/ready
	PYTHONPATH=.peers python -m benchmarks

lint: .venv/dev
	ruff check .
	ruff format --check .
	mypy

docs: .venv/dev
	python -m sphinx --fail-on-warning --keep-going --quiet docs docs/_build/html
	@echo docs/_build/html/index.html

# The locks hold versions and hashes for Python 3.11 to 3.13 on Linux and macOS, and name no
# registry. requirements.lock is what a run needs, requirements-dev.lock adds tests, lint, docs and
# the extras that tests need, requirements-extras.lock what stages on other machines need,
# requirements-uv.lock is uv, which installs them. The larger set is resolved first, since it
# has more bounds; uv then keeps the versions that it finds in the output file. (As `--constraint`,
# the lock's markers split the resolution by machine names for which there are no wheels.)
LOCK := uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-header --quiet --no-annotate
lock: $(BIN)/uv
	echo uv | $(BIN)/uv pip compile - --universal --python-version 3.11 --generate-hashes --no-header \
		--quiet --no-annotate --upgrade --output-file requirements-uv.lock
	$(LOCK) --extra pipeline --extra s3 --extra server --group dev --upgrade \
		--output-file requirements-dev.lock
	cp requirements-dev.lock requirements-extras.lock
	$(LOCK) --extra pipeline --extra slurm --extra ray --extra s3 --extra onnx --extra heif --extra tensorboard \
		--output-file requirements-extras.lock
	cp requirements-dev.lock requirements.lock
	$(LOCK) --extra pipeline --output-file requirements.lock

INSTALL := $(BIN)/uv pip install --python $(BIN)/python --quiet --require-hashes --compile-bytecode
.venv/ready: requirements.lock | $(BIN)/uv
	$(INSTALL) -r requirements.lock
	@touch $@

.venv/dev: requirements-dev.lock .venv/ready
	$(INSTALL) -r requirements-dev.lock
	@touch $@

.venv/extras: requirements-extras.lock .venv/ready
	$(INSTALL) -r requirements-extras.lock
	@touch $@

# Common implementations that `bench` compares with; nothing else imports them.
.peers/ready: benchmarks/peers.lock | $(BIN)/uv
	$(BIN)/uv pip install --quiet --no-deps --require-hashes --python $(BIN)/python --target .peers -r benchmarks/peers.lock
	@touch $@

$(BIN)/uv:
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; v in [(3, 11), (3, 12), (3, 13)] or sys.exit(f"python {v[0]}.{v[1]} found; 3.11, 3.12 or 3.13 expected: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-uv.lock

