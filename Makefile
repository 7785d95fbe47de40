# Everything runs from `.venv`, which `make install` creates. Needs Python 3.11 or newer and make, nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# Tests start dozens of processes: what each of them imports is compiled once, not every time.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: install demo test suite test-slow test-lower-bounds lint format benchmarks docs security audit coverage mutants clean

install: $(VENV)/.installed

# uv resolves and installs in parallel; where it cannot be had or fails, pip does the same work more slowly.
$(VENV)/.installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed; set PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	($(BIN)/python -m pip install --quiet uv && $(BIN)/uv pip install --quiet --python $(BIN)/python -e '.[offline,text,heic,excel,aggregation,studies,neuro,onnx,openvino,serve,cluster,docs,peers,quality,dev]') \
	  || $(BIN)/python -m pip install --quiet -e '.[offline,text,heic,excel,aggregation,studies,neuro,onnx,openvino,serve,cluster,docs,peers,quality,dev]'
	touch $@

demo: install
	$(BIN)/comodulate demo

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

# Lint and types beside the tests, whose processes wait now and then.
test: install
	@$(MAKE) --no-print-directory --jobs=2 lint suite

# A process a core and one more, since they wait now and then, with one thread each. The doctests of the package come with them. What
# was skipped is said at the end, and why.
WORKERS = $$($(BIN)/python -c 'import os; print(1 + (os.cpu_count() or 1))')
suite: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder -rs

test-slow: install
	$(BIN)/python -m pytest -m slow

# The oldest versions that pyproject.toml admits, in an environment of their own.
test-lower-bounds: install
	$(BIN)/python -m venv .venv-lower
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip install --quiet --python .venv-lower/bin/python --resolution lowest-direct -e '.[offline,text,heic,excel,aggregation,studies,neuro,onnx,openvino,serve,cluster,docs,peers,quality,dev]'
	OMP_NUM_THREADS=1 .venv-lower/bin/python -m pytest -n auto --dist loadfile --no-loadscope-reorder -rs -W default

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The site, in build/site. Nothing is fetched; a warning is an error. `make test` builds it too.
docs: install
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# What bandit finds in the library; tests/test_security.py looks for more, in more places. Without a network.
security: install
	$(BIN)/bandit --quiet --recursive --configfile pyproject.toml src
	$(BIN)/python -m pytest tests/test_security.py

# Known vulnerabilities of what is installed. Needs a network: it asks the advisory database of the Python package index.
audit: install
	$(BIN)/pip-audit --local --skip-editable --progress-spinner off

# Branch coverage of the mathematics, of training and of the store, by their own tests. Fails below 90% in all.
coverage: install
	$(BIN)/python -m pytest --cov --cov-report= tests/mathematics tests/evaluation tests/training tests/networks/attached tests/processes/test_together.py \
	  tests/runs/test_resume.py tests/test_files_and_tensors.py tests/test_locks.py tests/networks/test_adapters_hostile.py
	$(BIN)/coverage report --show-missing --fail-under=90

# Mutants of the mathematics that no test notices; an hour or more. docs/testing.md judges them.
mutants: install
	$(BIN)/mutmut run --max-children 1
	$(BIN)/mutmut results

benchmarks: install
	$(BIN)/python benchmarks/estimators.py
	$(BIN)/python benchmarks/startup.py

clean:
	rm -rf $(VENV) .venv-lower .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage mutants
