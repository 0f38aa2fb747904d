# make app          start the dashboard
# make test         run the test suite; make test-long: its long tests
# make test-avx2    run the tests whose results depend on the CPU, as on one without AVX-512 and AMX
# make test-outside hold the mathematics against outside code, in an environment of its own
# make gpu          check and measure everything on the GPU, in 8 minutes
# make lint         ruff, mypy, import-linter and oxlint (JavaScript)
# make env          only prepare the environment of the tests and linters
# make constraints  renew constraints.txt with the newest versions that the requirements allow
#
# All create $(VENV) first where it is missing, and install again only when the requirements change.
# They need Python 3.11 to 3.14; name one with PYTHON=... where it is not found by itself.

VENV ?= .venv
PYTHON ?= $(shell for python in python3.13 python3.14 python3.12 python3.11 python3 python; do \
	"$$python" -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' \
	>/dev/null 2>&1 && { command -v "$$python"; break; }; done)
RUN := $(VENV)/bin/python
INSTALL := $(RUN) -m pip install -c constraints.txt setuptools
INSTALL_PROJECT := $(RUN) -m pip install --no-build-isolation --no-deps -e .
# The tests start hundreds of processes, which would each compile the sources anew.
unexport PYTHONDONTWRITEBYTECODE
PYTEST := OMP_NUM_THREADS=1 $(RUN) -m pytest
GET_CHROMIUM := install your system's chromium package, or run '$(VENV)/bin/playwright install \
chromium', or set CHROMIUM to its path
# Sets CHROMIUM, and `without` to leave out tests/browser where there is none; in CI there must be.
FIND_CHROMIUM = if CHROMIUM=$$($(RUN) -m tests.browser.chromium); then export CHROMIUM; without=; \
	elif [ "$$CI" = true ]; then echo "make $@: Chromium is missing; $(GET_CHROMIUM)." >&2; exit 1; \
	else without=--ignore=tests/browser; \
	echo "Chromium is missing, so tests/browser is left out; to run it too, $(GET_CHROMIUM)."; fi

.PHONY: app test test-long test-avx2 test-outside gpu lint env constraints

app: $(VENV)/app.stamp
	$(RUN) -m streamlit run streamlit_app.py --server.address localhost

# Three workers keep two cores busy: many tests wait for a browser or a process. Files in their order:
# by the number of their tests the longest, of one test each, would come last and alone.
test: env
	@$(FIND_CHROMIUM); $(PYTEST) -n 3 --dist loadfile --no-loadscope-reorder $$without

test-long: env
	@$(FIND_CHROMIUM); $(PYTEST) -m long -n 2 $$without

# oneDNN's and PyTorch's own kernels; both round otherwise with wider instructions.
test-avx2: env
	ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 $(PYTEST) -n 2 \
	tests/core/models tests/core/sampling tests/core/training

test-outside: | $(RUN)
	$(RUN) -m venv $(VENV)-outside
	$(VENV)-outside/bin/python -m pip install -c constraints.txt -r tests/outside/requirements.txt
	OMP_NUM_THREADS=1 $(VENV)-outside/bin/python -m pytest tests/outside

gpu: $(VENV)/app.stamp
	$(RUN) -m benchmarks.gpu

lint: env
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports --no-cache
	$(VENV)/bin/oxlint --deny-warnings dashboard/components diffusion_core/review

env: $(VENV)/dev.stamp

$(VENV)/app.stamp: requirements.txt constraints.txt pyproject.toml | $(RUN)
	$(INSTALL) -r requirements.txt
	$(INSTALL_PROJECT)
	@touch $@

$(VENV)/dev.stamp: requirements-dev.txt requirements-auth.txt requirements-images.txt requirements-onnx.txt requirements.txt constraints.txt pyproject.toml | $(RUN)
	$(INSTALL) -r requirements-dev.txt
	$(INSTALL_PROJECT)
	@touch $@ $(VENV)/app.stamp

# Names and versions only: no addresses, and without what differs from platform to platform.
constraints: | $(RUN)
	$(RUN) -m pip install --upgrade --upgrade-strategy eager -r requirements-dev.txt
	$(RUN) -m pip freeze --exclude-editable \
	| sed -n 's/^\([A-Za-z0-9._-]*==[^+ ]*\).*/\1/p' \
	| grep -Eiv '^(pip|setuptools|wheel|triton|nvidia-[^m].*|cuda-.*)==' >$(VENV)/constraints.txt
	{ echo '# The tested set of versions, written by `make constraints`.'; \
	cat $(VENV)/constraints.txt; } >constraints.txt

$(RUN):
	@test -n "$(PYTHON)" || { echo "make: found no Python 3.11 to 3.14 with venv and pip; install \
	one (on Debian and Ubuntu: apt-get install python3-venv) or set PYTHON to its path." >&2; exit 1; }
	"$(PYTHON)" -m venv $(VENV)
