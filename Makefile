# Each target does its own set-up; PYTHON names the interpreter that makes the virtual environment.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: report test bench lint clean

report: $(READY)
	$(BIN)/python hw2-q1.py
	for set in kuzushiji_mnist octmnist fashion_mnist; do \
		$(BIN)/python hw2-q2.py -dataset $$set -scale quick -resume || exit; done
	$(BIN)/python hw2-q2.py -dataset octmnist -no_maxpool -scale quick -resume

test: $(READY)
	$(BIN)/python -m pytest -n auto

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

$(READY): requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --requirement requirements.txt
	touch $@

clean:
	rm -rf $(VENV) report/runs data/cache
