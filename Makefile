# `make demo` and `make test` need nothing but Python 3.11 or 3.12 and a C++ compiler: each builds what is missing.
.PHONY: demo test compat docs lint format env wheels release clean

WORKERS ?= $(shell nproc 2>/dev/null || echo 2)

demo: env
	@.venv/bin/python tools/demo.py

test: lint
	@echo "Tests: the whole suite in $(WORKERS) processes, 20 to 25 minutes on 2 cores."
	@.venv/bin/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

# ROWS: names of the files of tests/compat/rows, all of them by default. BUILT=1: the wheels are in dist/
# already, and .venv is not needed.
compat: $(if $(BUILT),,env)
	@bash tests/compat/run.sh $(ROWS)

lint: env
	@echo "Lint: style, formats, imports from room to room, types (under a minute)."
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/clang-format --dry-run -Werror bnet_mm/kernels/csrc/*
	@.venv/bin/lint-imports --no-cache >/dev/null || .venv/bin/lint-imports --no-cache
	@.venv/bin/mypy

# The site, in site/; it needs no .venv.
docs:
	@bash requirements/build_docs.sh

wheels: env
	@bash requirements/build_wheels.sh

# All of a release but the upload; release/run.sh says which variables it takes.
release: env
	@ROWS="$(ROWS)" TAG="$(TAG)" bash release/run.sh

format: env
	@.venv/bin/ruff check --fix . && .venv/bin/ruff format .
	@.venv/bin/clang-format -i bnet_mm/kernels/csrc/*

env:
	@bash requirements/setup_env.sh

clean:
	rm -rf .venv .venv-docs build site *.egg-info bnet_mm/.mim
