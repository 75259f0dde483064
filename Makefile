# What a newcomer types: `make demo`, `make test`. What CI runs: `make test` and `make check`.
VENV := .venv
PYTHON ?= python3
BIN := $(VENV)/bin
# faiss-gpu where an NVIDIA driver answers, faiss-cpu everywhere else; choose by hand with FAISS=cpu|gpu
FAISS ?= $(shell nvidia-smi -L >/dev/null 2>&1 && echo gpu || echo cpu)

.PHONY: help install demo test tools check bench detection-table detection-learners field-study kafka faults serving-faults soak format protos clean
help: ## list these targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

install: $(VENV)/.installed ## make .venv and install Headrace into it
$(VENV)/.installed: pyproject.toml constraints.txt
	@echo "installing into $(VENV) (torch is large: a few minutes the first time)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Headrace needs Python 3.11 or newer, this is " + sys.version.split()[0])'
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[$(FAISS)]' --group dev
	@touch $@

demo: install ## stream a world with a change of taste through everything, and print what happened
	$(BIN)/headrace demo

test: install tools ## the whole test suite
	$(BIN)/python -m pytest

tools: ## look for the programs that some tests drive; a CI machine gets them
	@sh deploy/test_tools.sh

check: install ## ruff, ruff format and mypy strict
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: install ## every benchmark, on its small size
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --group bench
	@for file in benchmarks/bench_*.py; do echo "== $$file"; $(BIN)/python $$file --quick || exit 1; done

detection-table: install ## which drift detector finds what, how soon, and how often it is wrong
	$(BIN)/python -m app.detection_run

detection-learners: install ## which false signals the real learners give on days without news
	$(BIN)/python -m app.detection_learners

field-study: install ## what choosing, masking and weighing fields is worth (STUDY=selection|masks|drift DATA=DIR)
	$(BIN)/python -m app.field_study $(or $(STUDY),drift) $(if $(DATA),--path $(DATA))

kafka: install ## a real Kafka on 127.0.0.1:9092, or NODES=3 on free ports (Java 17, Maven), until Ctrl-C
	$(BIN)/python deploy/kafka/broker.py --nodes $(or $(NODES),1) $(if $(PORT),--port $(PORT))

faults: install ## kill trainers, producers and a real broker (KILLS=200 SEED=1), and count what was lost
	$(BIN)/python -m tests.faults.campaign --kills $(or $(KILLS),200) --seed $(or $(SEED),1) $(if $(TABLE),--table $(TABLE))

serving-faults: install ## restart servers, kill trainer and broker under load (MINUTES=10); 10,000 idle connections
	$(BIN)/python -m tests.faults.idle_connections --connections $(or $(CONNECTIONS),10000)
	$(BIN)/python -m tests.faults.serving_campaign --minutes $(or $(MINUTES),10)

soak: install ## trainer and server on a real broker (MINUTES=60 RATE=500), memory and lag watched
	$(BIN)/python -m benchmarks.soak --minutes $(or $(MINUTES),60) --rate $(or $(RATE),500)

format: install ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

protos: install ## generate protos/headrace/v1/*_pb2*.py again
	$(BIN)/python -m grpc_tools.protoc -I . --python_out=. --pyi_out=. --grpc_python_out=. protos/headrace/v1/*.proto

clean: ## remove the virtual environment and caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .hypothesis *.egg-info
