# One entry point for people and for CI. Needs python3 (3.11 or newer) and make; interop and bench say what else.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: up test check format interop bench lock proto clean venv

up: $(STAMP)  ## run name server and broker in the foreground (ARGS="--store DIR ...")
	$(BIN)/firearrow up $(ARGS)

test: $(STAMP)  ## the whole Python test suite
	$(BIN)/pytest -n auto $(ARGS)

check: $(STAMP)  ## lint, format, types, import directions
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

interop: $(STAMP)  ## unmodified official clients against `firearrow up` (JDK with Maven, Go, Node)
	$(BIN)/python interop/run.py $(ARGS)

bench: $(STAMP)  ## speed and size, side by side with the Java broker (gcc, JDK with Maven)
	$(BIN)/python bench/run.py $(ARGS)

venv: $(STAMP)

$(STAMP): requirements.lock pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $(STAMP)

lock: ## renew requirements.lock from pyproject.toml
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile pyproject.toml --group dev --universal --python-version 3.11 \
	  --generate-hashes --quiet -o requirements.lock

proto: $(STAMP)  ## generate the gRPC message classes from their .proto files
	PATH=$(BIN):$$PATH $(BIN)/python tools/generate_proto.py

clean:
	rm -rf .venv build dist bench/build
