# Each target does its own set-up; PYTHON names the interpreter that makes the virtual environment, DATA_DIR the data folder.
PYTHON ?= python3
DATA_DIR ?= data
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: report report-full setup test fuzz fault bench gpu lint clean check-zip

report: $(READY)
	@exec $(BIN)/python report/make_runs.py -scale quick -data_dir "$(DATA_DIR)"

report-full: $(READY)
	@exec $(BIN)/python report/make_runs.py -scale full -data_dir "$(DATA_DIR)"

# Only the virtual environment.
setup: $(READY)

test: $(READY)
	$(BIN)/python -m pytest -n auto

# 30,000 damaged files, each of which must end in a value or in one line.
fuzz: $(READY)
	$(BIN)/python -m tests.fuzz

# Every training script is ended again and again, and resumed, and must finish with the same bytes.
fault: $(READY)
	$(BIN)/python -m tests.fault

bench: $(READY)
	$(BIN)/python benchmarks/bench_q2.py
	$(BIN)/python benchmarks/bench_q3.py
	$(BIN)/python benchmarks/bench_asr.py
	$(BIN)/python benchmarks/bench_captioning.py
	$(BIN)/python benchmarks/bench_start.py
	$(BIN)/python benchmarks/bench_scaling.py
	$(BIN)/python benchmarks/bench_threads.py

# On a machine with a CUDA GPU: the same bits twice, resuming, the losses of the CPU, and how fast.
gpu: $(READY)
	$(BIN)/python benchmarks/gpu.py

# What a course hands out: the check of a student's own solution, which needs nothing else of this project.
check-zip:
	git archive --output check.zip HEAD check.py checks docs/check.md

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

$(READY): requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --requirement requirements.txt
	touch $@

# The trained runs in report/runs stay.
clean:
	rm -rf $(VENV) report/*.pdf data/cache
