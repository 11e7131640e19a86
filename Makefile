# make demo   the demonstration: set up .venv with what a run needs, recover the physics of a video
# make test   every test (sets up the development extras and Open3D's system libraries)
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SYSTEM_PACKAGES := libusb-1.0-0 libgl1
# Two processes share the tests, as kernels run on one thread for much of the time; `make test WORKERS=` takes one.
WORKERS ?= -n 2 --dist worksteal

.PHONY: demo test test-fast lint bench system-libraries clean
.DEFAULT_GOAL := demo

demo: $(VENV)/.installed-runtime
	$(BIN)/diffvc run experiment=pendulum_video

test: $(VENV)/.installed-dev system-libraries
	$(BIN)/python -m pytest $(WORKERS)

test-fast: $(VENV)/.installed-dev
	$(BIN)/python -m pytest $(WORKERS) -m "not slow"

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.installed-bench
	@found=0; for file in benchmarks/*.py; do \
	    if [ -e "$$file" ]; then found=1; echo "== $$file"; $(BIN)/python "$$file" || exit 1; fi; \
	done; if [ $$found = 0 ]; then echo "no benchmarks/*.py yet"; fi

# The stamps make a second call skip the installation; a changed pyproject.toml repeats it.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 10) or sys.exit("make: expected Python >= 3.10, got %d.%d; remedy: make PYTHON=python3.11 ..." % v[:2])'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed-runtime: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet -e .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet -e '.[dev]'
	@touch $(VENV)/.installed-runtime $@

$(VENV)/.installed-bench: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet -e '.[bench]'
	@touch $(VENV)/.installed-runtime $@

# Open3D's wheels load two libraries that come from the system. Installed where that is possible (root on Debian or
# Ubuntu); elsewhere the command is printed, and the tests that need Open3D say why they skip.
system-libraries:
	@if [ "$$(uname)" != Linux ]; then exit 0; fi; \
	libraries=$$(PATH="$$PATH:/sbin:/usr/sbin" ldconfig -p 2>/dev/null); \
	case "$$libraries" in *libusb-1.0.so.0*libGL.so.1*|*libGL.so.1*libusb-1.0.so.0*) exit 0;; esac; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    echo "installing Open3D's system libraries: $(SYSTEM_PACKAGES)"; \
	    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $(SYSTEM_PACKAGES); } >/dev/null && exit 0; \
	fi; \
	echo "Open3D needs libusb-1.0.so.0 and libGL.so.1 from the system; on Debian or Ubuntu:"; \
	echo "    sudo apt-get install -y $(SYSTEM_PACKAGES)"

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
