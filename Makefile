# SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
#
# The front door. The work is in scripts/ and tests/; see `make help`.

# kbuild reads the file named Kbuild beside this one; everything else starts here.
export KDIR KERNEL_SRC AVIO_ROOT AVIO_ACCEL DESTDIR PREFIX
PYTHON ?= python3
AVIO := $(PYTHON) scripts/avio.py

all: python
	@$(AVIO) all

# The only thing that must be here before the scripts can run.
python:
	@command -v $(PYTHON) >/dev/null || { \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    echo "Installing python3 …" && apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends python3 >/dev/null; \
	  else echo "python3 is missing. As root: apt-get install python3" >&2; exit 1; fi; }

setup modules userspace check install clean purge: python
	@$(AVIO) $@

demo: python
	@$(PYTHON) tests/demo.py

test: python
	@$(PYTHON) tests/run.py

test-debug: python
	@$(PYTHON) tests/run.py --flavour debug

fuzz: python
	@$(PYTHON) tests/fuzz/run.py

bench: python
	@$(PYTHON) tests/bench.py

shell: python
	@$(AVIO) run

help:
	@grep -v SPDX scripts/help.txt

.PHONY: all python setup modules userspace check install clean purge demo test test-debug fuzz bench shell help
