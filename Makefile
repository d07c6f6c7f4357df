# `make demo` runs the main job on a fresh machine, `make test` runs the tests. Both set up what they need.
PYTHON ?= python3
BIN := .venv/bin
CHECKED := nlnet.ops,nlnet.norms,nlnet.block,nlnet.surgery,nlnet.attention,nlnet.models,nlnet.data,beartype.beartype

.PHONY: setup demo test test-slow lint clean

setup: .venv/.ok

.venv/.ok: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "nlnet needs Python 3.11 or later; run make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

demo: setup
	$(BIN)/nlnet demo

# The second call runs without the runtime shape checker, which torch.compile cannot trace.
test: setup
	$(BIN)/python -m pytest -m "not unhooked and not slow" --jaxtyping-packages=$(CHECKED)
	$(BIN)/python -m pytest -m "unhooked and not slow"

test-slow: setup
	$(BIN)/python -m pytest -m slow

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf .venv build dist *.egg-info
