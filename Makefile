# `make demo` runs the main job on a fresh machine, `make test` runs the tests. Both set up what they need.
PYTHON ?= python3
BIN := .venv/bin
# a process a core, one thread each; the tests of a file stay together
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile
CHECKED := nlnet.layers,nlnet.ops,nlnet.axes,nlnet.block,nlnet.insertion,nlnet.attention.observe,nlnet.block_stats,nlnet.models,nlnet.weights,nlnet.zoo,nlnet.compatibility,nlnet.data,beartype.beartype

INSTALL := $(BIN)/python -m pip install -q --disable-pip-version-check --no-compile -c constraints.txt

.PHONY: setup demo test test-slow lint docs clean

setup: .venv/.dev

.venv/.made:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "nlnet needs Python 3.11 or later; run make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	touch $@

# What the command needs, and what tests and lint need besides.
.venv/.video: .venv/.made pyproject.toml constraints.txt
	$(INSTALL) -e '.[video]'
	touch $@

.venv/.dev: .venv/.video
	$(INSTALL) -e '.[dev]'
	touch $@

demo: .venv/.video
	$(BIN)/nlnet demo

# The second call runs without the runtime shape checker, which torch.compile cannot trace.
test: setup
	$(PYTEST) -m "not unhooked and not slow" --jaxtyping-packages=$(CHECKED)
	$(PYTEST) -m "unhooked and not slow"
	@command -v chromium >/dev/null || command -v google-chrome >/dev/null || test -n "$$NLNET_CHROMIUM" || \
	  echo 'SKIPPED: tests/apps/explorer/test_explorer_page.py, the explorer in a browser: no Chromium here (apt-get install chromium)'

# One after the other: some of these measure time and memory, on a machine that does nothing else.
test-slow: setup
	$(BIN)/python -m pytest -m slow

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The pages that are made of docstrings and result files; tests hold them equal.
docs: setup
	$(BIN)/python docs/make_api.py
	$(BIN)/python docs/publish.py
	$(BIN)/python benchmarks/publish.py

clean:
	rm -rf .venv build dist *.egg-info
