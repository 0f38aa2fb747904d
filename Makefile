# make app    start the dashboard           make test   run the whole test suite
# make env    only prepare the environment of the tests and linters
#
# Both create $(VENV) first where it is missing, and install again only when the requirements
# change. It needs Python 3.11 or newer; name one with PYTHON=... where it is not found by itself.

VENV ?= .venv
PYTHON ?= $(shell for python in python3.13 python3.12 python3.11 python3 python; do \
	"$$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' \
	>/dev/null 2>&1 && { command -v "$$python"; break; }; done)
RUN := $(VENV)/bin/python
GET_CHROMIUM := install your system's chromium package, or run '$(VENV)/bin/playwright install \
chromium', or set CHROMIUM to its path

.PHONY: app test env lint-js

app: $(VENV)/app.stamp
	$(RUN) -m streamlit run streamlit_app.py

# Files in their order: by the number of their tests the longest, of one test each, would come last
# and alone.
test: env
	@if CHROMIUM=$$($(RUN) -m tests.browser.chromium); then export CHROMIUM; without=; \
	elif [ "$$CI" = true ]; then echo "make test: Chromium is missing; $(GET_CHROMIUM)." >&2; exit 1; \
	else without=--ignore=tests/browser; \
	echo "Chromium is missing, so tests/browser is left out; to run it too, $(GET_CHROMIUM)."; fi; \
	OMP_NUM_THREADS=1 $(RUN) -m pytest -n 2 --dist loadfile --no-loadscope-reorder $$without

env: $(VENV)/dev.stamp

lint-js: env
	$(VENV)/bin/oxlint --deny-warnings dashboard/components

$(VENV)/app.stamp: requirements.txt | $(RUN)
	$(RUN) -m pip install -r requirements.txt
	@touch $@

$(VENV)/dev.stamp: requirements-dev.txt requirements.txt | $(RUN)
	$(RUN) -m pip install -r requirements-dev.txt
	@touch $@ $(VENV)/app.stamp

$(RUN):
	@test -n "$(PYTHON)" || { echo "make: found no Python 3.11 or newer with venv and pip; install \
	one (on Debian and Ubuntu: apt-get install python3-venv) or set PYTHON to its path." >&2; exit 1; }
	"$(PYTHON)" -m venv $(VENV)
