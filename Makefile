# make demo   explain the sample scenes with the built-in bundle     make test       what must hold before anything lands
# make check  lint and types                                         make test-slow  the rest: full-size networks
# make bundle train and export the built-in bundle anew              make clean      remove what make made
PYTHON ?= python3

.PHONY: help demo test test-slow check bundle clean

help:
	@sed -n '1,/^$$/s/^# //p' Makefile

demo: .venv/done
	.venv/bin/camrt explain shapes models/shapes/samples/*.png --top 2 -o demo
	@echo "Look at $(CURDIR)/demo/*.png"

test: .venv-test/done
	.venv-test/bin/python -m pytest -m "not slow" -n 2 --dist loadfile

test-slow: .venv-test/done
	.venv-test/bin/python -m pytest -m slow

check: .venv-test/done
	.venv-test/bin/python -m ruff check camrt exporters tests models
	.venv-test/bin/python -m mypy

# Draws scenes, trains the network (about 25 minutes on 2 cores) and exports it.
bundle: .venv-test/done
	.venv-test/bin/python models/shapes/train.py --weights build/shapes.safetensors
	PYTHONPATH=models/shapes .venv-test/bin/camrt export network:shapenet --weights build/shapes.safetensors --size 96 \
	    --labels models/shapes/labels.txt --resize letterbox --mean 0.5,0.5,0.5 --std 0.5,0.5,0.5 --name shapes -o build/shapes --force
	cp build/shapes/* models/shapes/

# The runtime alone: no torch, no onnx.
.venv/done: pyproject.toml
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check -e '.[cpu]'
	@touch $@

.venv-test/done: pyproject.toml tests/constraints.txt
	$(PYTHON) -m venv .venv-test
	.venv-test/bin/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	.venv-test/bin/python -m pip install --quiet -c tests/constraints.txt -e '.[cpu,export,torch,sklearn,cpp,evaluate,serve,batch,ray]' --group test --group lint
	@touch $@

clean:
	rm -rf .venv .venv-test build dist demo
