# Every target works on a fresh clone with Python 3.11 or later, pip and make. "make help" lists them.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/installed
# Bytecode is kept, whatever the environment says: the tests start hundreds of processes that read the same sources.
export PYTHONDONTWRITEBYTECODE :=
QUICK := tests/payloads tests/memory tests/wire/test_wire_golden.py tests/wire/test_wire_round_trip.py \
  tests/compressors/test_compressor_contract.py tests/exchanges/test_exchange_contract.py tests/methods/test_method_laws.py

.PHONY: help demo test quick test-gpu check docs bench reproduce-quick clean
help:
	@echo "make demo   compare methods on real data; writes runs/demo/report.html"
	@echo "make test   all tests and doctests"
	@echo "make quick  the laws most likely to break, without processes"
	@echo "make test-gpu  the laws of models on devices, on a CUDA device where there is one"
	@echo "make check  format, lint, types, floors, the documentation site"
	@echo "make reproduce-quick  answer 44 questions of reviewers at reduced size; writes runs/reproduce/evidence.md"
	@echo "make docs   the documentation site, in site/"
	@echo "make bench  what is timed, as ratios (benchmarks/)"

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("thinwire needs Python 3.11 or later, this is " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

demo: $(INSTALLED)
	$(BIN)/thinwire compare sgd bf16-sgd local-sgd:every=8 qsgd:bits=4 qsgd:bits=2 ef-signsgd topk:density=1% \
	  mem-sgd:select=random,density=1% qsparse:density=2%,levels=7,every=4 signtopk:density=2%,every=8 \
	  --task digits --workers 8 --steps 300 --tune-steps 150 --target 0.95 --network 100Mbit,20ms --out runs/demo

test: $(INSTALLED)
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder --max-worker-restart 0

quick: $(INSTALLED)
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder -k "not law_of_the_mean and not law_of_the_error" $(QUICK)

# Kernels are compiled there, and launches are not waited for. Warnings of versions other than ours are no errors. Left
# out is what watches kernels in the interpreter.
test-gpu: $(INSTALLED)
	env -u TRITON_INTERPRET -u CUDA_LAUNCH_BLOCKING PYTHONPATH=$(CURDIR)/src $(BIN)/python -m pytest -n 8 --dist loadfile \
	  --no-loadscope-reorder --durations 30 -W default \
	  $(filter-out %/apart_path.py,$(wildcard tests/devices/apart_*.py))

check: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/test_layers.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

reproduce-quick: $(INSTALLED)
	$(BIN)/thinwire reproduce --page runs/reproduce/evidence.md

docs: $(INSTALLED)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

bench: $(INSTALLED)
	$(BIN)/python benchmarks/simulator_overhead.py

clean:
	rm -rf .venv .mypy_cache .ruff_cache runs site
