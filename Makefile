PYTHON ?= .venv/bin/python

.PHONY: check format test slow soak

check:
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m ruff check .
	$(PYTHON) -m pyright --pythonpath $(PYTHON)
	$(PYTHON) -m pytest

format:
	$(PYTHON) -m ruff format .
	$(PYTHON) -m ruff check --fix .

slow:
	$(PYTHON) -m pytest -m slow

# Takes about twenty minutes on an otherwise idle machine.
soak:
	$(PYTHON) -m benchmarks.soak --json soak.json
