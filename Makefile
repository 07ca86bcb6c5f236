# On a machine with Python >= 3.11 and make, each of these does its own set-up:
#   make demo   compare three strategies on the embedded benchmark and write a report
#   make test   build the wheel, install it into .venv and run the tests against it
#   make lint   format, style, types (on the installed wheel) and import rules
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check
SOURCES := $(shell find harness benchmarks optimizers proxies predictors -type f \
             \( -name '*.py' -o -name '*.j2' -o -name '*.css' -o -name 'py.typed' -o -name '*.safetensors' \)) \
           pyproject.toml README.md LICENSE benchmarks/data/README.md predictors/data/README.md

.PHONY: demo test test-slow lint format bench wheel clean

demo: $(VENV)/.wheel
	$(BIN)/nasharness compare --benchmark digits201 --optimizers random_search,regularized_evolution,local_search \
	  --repetitions 100 --out build/demo

test: $(VENV)/.test
	$(BIN)/pytest tests -m "not slow"

test-slow: $(VENV)/.test
	$(BIN)/pytest tests -m slow

bench: $(VENV)/.test
	$(BIN)/pytest tests/performance --benchmark-enable

lint: $(VENV)/.lint
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	cd build && ../$(BIN)/mypy --config-file ../pyproject.toml -p nasharness
	cd build && ../$(BIN)/lint-imports --config ../.importlinter --no-cache

format: $(VENV)/.lint
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

wheel: $(VENV)/.wheel

# Built through the source distribution, from a clean folder, so that nothing stale gets in.
$(VENV)/.wheel: $(SOURCES) $(VENV)/.dependencies
	rm -rf build/wheel *.egg-info
	$(BIN)/python -m build --outdir build/wheel . > build/wheel.log 2>&1 || { tail -40 build/wheel.log; exit 1; }
	rm -rf *.egg-info
	$(PIP) install --quiet --no-deps --force-reinstall build/wheel/*.whl
	touch $@

$(VENV)/.dependencies: pyproject.toml constraints.txt
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	mkdir -p build
	$(PIP) install --quiet --constraint constraints.txt build torch
	$(BIN)/python -c "import tomllib; print('\n'.join(tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies']))" > build/dependencies.txt
	$(PIP) install --quiet --constraint constraints.txt --requirement build/dependencies.txt
	touch $@

$(VENV)/.test: $(VENV)/.wheel
	$(BIN)/python -c "import tomllib; print('\n'.join(tomllib.load(open('pyproject.toml', 'rb'))['project']['optional-dependencies']['test']))" > build/test.txt
	$(PIP) install --quiet --constraint constraints.txt --requirement build/test.txt
	touch $@

$(VENV)/.lint: $(VENV)/.wheel
	$(BIN)/python -c "import tomllib; print('\n'.join(tomllib.load(open('pyproject.toml', 'rb'))['project']['optional-dependencies']['lint']))" > build/lint.txt
	$(PIP) install --quiet --constraint constraints.txt --requirement build/lint.txt
	touch $@

clean:
	rm -rf build $(VENV) *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
