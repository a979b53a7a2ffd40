PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python

ENV ?= CartPole-v1
SEED ?= 0
RUNS ?= runs
WATCHED := [{'sb3_dqn_ext.callbacks.DiagnosticsCallback':{'every':2500,'calibration':{'every':10000},'video':{'every':25000}}}]
EXAMPLES ?= 5000

.DEFAULT_GOAL := help
.PHONY: help train train-seeds screenshots bench bench-learning bench-diagnostics faults tutorials tutorials-questions test test-slow test-suites test-ecosystem smoke fuzz lint format docs docs-links clean

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-20s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

train: $(VENV)/installed-train  ## train a DQN with the RL Zoo, e.g. make train ENV=MountainCar-v0 SEED=1 RUNS=/tmp/runs
	$(PY) -m rl_zoo3.train --algo dqn_ext --env $(ENV) --seed $(SEED) --num-threads 1 --progress \
		-f $(RUNS) --tensorboard-log $(RUNS)/tensorboard --eval-freq 2500 --eval-episodes 10 \
		--hyperparams "callback:$(WATCHED)"
	$(PY) -m benchmarks.summary $(RUNS) --env $(ENV) --seed $(SEED)

train-seeds: $(VENV)/installed-train  ## train on several seeds and report how many learn
	$(PY) -m benchmarks.seeds

screenshots: $(VENV)/installed-dev  ## train for the pictures in the documentation, and take them in a browser
	OMP_NUM_THREADS=1 $(PY) -m tests.tensorboard_pages docs/images

bench: $(VENV)/installed-bench  ## measure the speed beside SB3, SBX and sb3-contrib, on a machine with nothing else to do
	$(PY) -m benchmarks.speed

bench-learning: $(VENV)/installed-train  ## train eagerly and compiled on several seeds: does the quicker learn as soon?
	$(PY) -m benchmarks.compiled

bench-diagnostics: $(VENV)/installed-train  ## measure what diagnostics cost, on a machine with nothing else to do: some hours
	$(PY) -m benchmarks.diagnostics_cost

faults: $(VENV)/installed-train  ## kill runs, damage their checkpoints, time them; a quiet hour, as it is timed at the end
	$(PY) -m benchmarks.reliability

tutorials: $(VENV)/installed-train  ## run the five tutorials, faithful and improved, on ten seeds each: an hour or two
	$(PY) -m benchmarks.tutorials

tutorials-questions: $(VENV)/installed-train  ## measure what the tutorial on Monte-Carlo returns asks at its end: half an hour
	$(PY) -m benchmarks.tutorials.questions

test: lint  ## all that must pass before a change is merged
	OMP_NUM_THREADS=1 $(PY) -m pytest -n 2

test-slow: $(VENV)/installed-dev  ## the tests that take minutes
	OMP_NUM_THREADS=1 $(PY) -m pytest -n 2 -m slow

test-suites: $(VENV)/installed-dev  ## the tests of SB3, sb3-contrib and the RL Zoo, from their sources, with our classes in place of theirs
	OMP_NUM_THREADS=1 $(PY) -m pytest -m slow tests/project/test_suites_of_others.py

test-ecosystem: .venv-pygame/installed .venv-pygame-ce/installed  ## environments of others, in two virtual environments: their needs exclude each other
	OMP_NUM_THREADS=1 .venv-pygame/bin/python -m pytest -m slow tests/project/test_ecosystem.py
	OMP_NUM_THREADS=1 .venv-pygame-ce/bin/python -m pytest -m slow tests/project/test_ecosystem.py

smoke:  ## train, save, load, go on, enjoy with another Python, e.g. make smoke PYTHON=python3.13
	rm -rf .venv-smoke
	$(MAKE) .venv-smoke/installed
	OMP_NUM_THREADS=1 .venv-smoke/bin/python -m pytest -m slow tests/project/test_ecosystem.py -k CartPole

fuzz: $(VENV)/installed-dev  ## load files that are damaged at random, EXAMPLES of each kind: some minutes
	OMP_NUM_THREADS=1 FUZZ_EXAMPLES=$(EXAMPLES) $(PY) -m pytest -n 2 tests/saved_model/test_hostile_files.py -k "damaged or harmless"

lint: $(VENV)/installed-dev  ## check style, types, imports between packages, and words
	$(PY) -m ruff check
	$(PY) -m ruff format --check
	$(PY) -m mypy --strict sb3_dqn_ext envs tests
	$(PY) -m mypy --strict --python-version 3.10 sb3_dqn_ext envs tests
	$(VENV)/bin/lint-imports
	$(PY) -m tests.words

format: $(VENV)/installed-dev  ## rewrite the files in the style
	$(PY) -m ruff check --fix
	$(PY) -m ruff format

docs: $(VENV)/installed-docs  ## build the documentation: site/index.html
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict

docs-links: $(VENV)/installed-docs  ## ask each link to the net whether it leads somewhere
	$(PY) docs/site_tools/links.py README.md docs sb3_dqn_ext envs

clean:  ## remove the environments, builds and caches, but no runs
	rm -rf $(VENV) .venv-* build dist site .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The environment is kept until something changes that decides what is in it. The start-up files are copied into it, not linked.
INSTALLED_FROM := pyproject.toml constraints.txt hatch_build.py sb3_dqn_ext/zoo/_start_hook.py sb3_dqn_ext/zoo/_start_hook.pth

$(VENV)/installed-train: EXTRAS := zoo,plots,box2d
$(VENV)/installed-bench: EXTRAS := bench
$(VENV)/installed-dev: EXTRAS := dev
$(VENV)/installed-docs: EXTRAS := docs
$(VENV)/installed-%: $(INSTALLED_FROM)
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[$(EXTRAS)]"
	touch $@

.venv-%/installed: tests/requirements-%.txt $(INSTALLED_FROM)
	test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -r $<
	touch $@
