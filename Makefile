# `make demo` and `make test` need nothing but Python 3.11 or 3.12 and a C++ compiler: each builds what is missing.
.PHONY: demo test lint env clean

demo: env
	@.venv/bin/python tools/demo.py

test: env
	@echo "Tests: the whole suite, about 10 minutes on 2 cores."
	@.venv/bin/ruff check . && .venv/bin/ruff format --check .
	@.venv/bin/python -m pytest

lint: env
	@.venv/bin/ruff check --fix . && .venv/bin/ruff format .

env:
	@bash requirements/setup_env.sh

clean:
	rm -rf .venv build *.egg-info bnet_mm/.mim
