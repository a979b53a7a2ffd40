PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python

ENV ?= CartPole-v1
SEED ?= 0
RUNS ?= runs
EXAMPLES ?= 5000

DIAGNOSTICS := [{'sb3_dqn_ext.callbacks.DiagnosticsCallback':{'video':True}}]
OPTIONS := --eval-freq 2500 --eval-episodes 10
EPISODES := 50
INSTALLED := train
# A game of MinAtar makes a million steps.
ifneq ($(findstring MinAtar,$(ENV)),)
  OPTIONS := --eval-freq 50000 --eval-episodes 10
endif
# A game of ALE is trained in its vector form, and is played less often, as games are long.
ifeq ($(dir $(ENV)),ALE/)
  OPTIONS := --eval-freq 50000 --eval-episodes 5 -conf sb3_dqn_ext.presets.atari
  EPISODES := 5
  INSTALLED := atari
endif

.DEFAULT_GOAL := help
.PHONY: help train train-seeds screenshots bench bench-cuda bench-learning bench-diagnostics benchmark-quick benchmark-page games fault-injection tutorials tutorials-questions test test-slow test-ray test-golden test-cuda test-suites test-ecosystem test-wandb smoke fuzz lint format docs docs-links clean

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-20s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

train: $(VENV)/installed-$(INSTALLED)  ## train a DQN with the RL Zoo, e.g. make train ENV=ALE/Pong-v5 SEED=1 RUNS=/tmp/runs
	@$(PY) -m rl_zoo3.train --algo dqn_ext --env $(ENV) --seed $(SEED) --num-threads 1 --progress --verbose 0 \
		-f $(RUNS) --tensorboard-log $(RUNS)/tensorboard $(OPTIONS) --hyperparams "callback:$(DIAGNOSTICS)"
	@$(PY) -m benchmarks.summary $(RUNS) --env $(ENV) --seed $(SEED) --episodes $(EPISODES)

train-seeds: $(VENV)/installed-train  ## train DQNExt and SB3's DQN on ten seeds, and compare them
	$(PY) -m sb3_dqn_ext.sweep benchmarks/sweeps/cartpole.yml --variants sb3_dqn_ext 'stock SB3 DQN' --jobs 2
	$(PY) -m benchmarks.overview

screenshots: $(VENV)/installed-dev  ## make the pictures of the documentation in a browser
	OMP_NUM_THREADS=1 $(PY) -m tests.tensorboard_pages docs/images

bench: $(VENV)/installed-bench  ## compare the speed with SB3, SBX and sb3-contrib, on an idle machine
	$(PY) -m benchmarks.speed
	$(PY) -m benchmarks.overview

bench-cuda: $(VENV)/installed-bench  ## compare the speed with SB3 on a GPU (at most 8 minutes)
	$(PY) -m benchmarks.speed.cuda

bench-learning: $(VENV)/installed-train  ## compare learning in eager and in compiled mode on ten seeds
	$(PY) -m sb3_dqn_ext.sweep benchmarks/sweeps/compiled.yml --jobs 2

bench-diagnostics: $(VENV)/installed-train  ## measure the cost of diagnostics, on an idle machine (hours)
	$(PY) -m benchmarks.diagnostics_cost

benchmark-quick: $(VENV)/installed-train  ## compare DQNExt with SB3's DQN in two environments (7 minutes on two cores)
	$(PY) -m sb3_dqn_ext.sweep benchmarks/sweeps/quick.yml --jobs 2

benchmark-page: $(VENV)/installed-train  ## write docs/results/benchmark.md from the rows of all sweeps, without training
	$(PY) -m benchmarks.benchmark_page

games: $(VENV)/installed-train  ## make the films of the small games and measure their steps (a few minutes)
	$(PY) -m benchmarks.games

fault-injection: $(VENV)/installed-train  ## kill runs, damage checkpoints, time checkpoints, on an idle machine (an hour)
	$(PY) -m benchmarks.reliability

tutorials: $(VENV)/installed-train  ## train the five tutorials, faithful and improved, on ten seeds (one or two hours)
	$(PY) -m benchmarks.tutorials

tutorials-questions: $(VENV)/installed-train  ## measure answers to the questions of the tutorial on Monte-Carlo returns (half an hour)
	$(PY) -m sb3_dqn_ext.sweep benchmarks/sweeps/questions.yml --jobs 2
	$(PY) -m benchmarks.tutorials.questions

test: lint  ## run the checks and tests that each change has to pass
	OMP_NUM_THREADS=1 $(PY) -m pytest -n 2

test-slow: $(VENV)/installed-dev  ## run the tests that take minutes
	OMP_NUM_THREADS=1 $(PY) -m pytest -n 2 -m slow

test-ray: $(VENV)/installed-dev  ## sweep on Ray clusters while processes are killed and nodes join and leave (40 minutes on two busy cores)
	OMP_NUM_THREADS=1 $(PY) -m pytest tests/sweep/test_ray.py -m "slow or not slow"

test-golden: $(VENV)/installed-dev  ## compare learning with recorded learning curves (18 minutes of processor time)
	OMP_NUM_THREADS=1 $(PY) -m pytest -n 2 -m slow tests/golden

test-cuda: $(VENV)/installed-dev  ## run the tests that need a GPU; without one, they are skipped
	OMP_NUM_THREADS=1 $(PY) -m pytest -m cuda -n 4

test-suites: $(VENV)/installed-dev  ## run the tests of SB3, sb3-contrib and the RL Zoo with our classes in place of theirs
	OMP_NUM_THREADS=1 $(PY) -m pytest -m slow tests/project/test_suites_of_others.py

test-ecosystem: .venv-pygame/installed .venv-pygame-ce/installed  ## test environments of other packages, in two virtual environments, as their requirements conflict
	OMP_NUM_THREADS=1 .venv-pygame/bin/python -m pytest -m slow tests/project/test_ecosystem.py
	OMP_NUM_THREADS=1 .venv-pygame-ce/bin/python -m pytest -m slow tests/project/test_ecosystem.py

test-wandb: .venv-wandb/installed  ## test the integration of Weights & Biases, offline (two minutes)
	OMP_NUM_THREADS=1 .venv-wandb/bin/python -m pytest -m slow tests/project/test_wandb.py

smoke:  ## train, save, load, resume and play with another Python, e.g. make smoke PYTHON=python3.13
	rm -rf .venv-smoke
	$(MAKE) .venv-smoke/installed
	OMP_NUM_THREADS=1 .venv-smoke/bin/python -m pytest -m slow tests/project/test_ecosystem.py -k CartPole

fuzz: $(VENV)/installed-dev  ## load randomly damaged files, EXAMPLES of each kind (minutes)
	OMP_NUM_THREADS=1 FUZZ_EXAMPLES=$(EXAMPLES) $(PY) -m pytest -n 2 tests/saved_model/test_hostile_files.py -k "damaged or harmless"

lint: $(VENV)/installed-dev  ## check style, types, imports between packages, and words
	$(PY) -m ruff check
	$(PY) -m ruff format --check
	$(PY) -m mypy --strict sb3_dqn_ext envs tests
	$(PY) -m mypy --strict --python-version 3.10 sb3_dqn_ext envs tests
	$(VENV)/bin/lint-imports
	$(PY) -m tests.words

format: $(VENV)/installed-dev  ## format the code
	$(PY) -m ruff check --fix
	$(PY) -m ruff format

docs: $(VENV)/installed-docs  ## build the documentation: site/index.html
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict

docs-links: $(VENV)/installed-docs  ## check that all links to the web work
	$(PY) docs/site_tools/links.py README.md docs sb3_dqn_ext envs

clean:  ## remove environments, builds and caches, but keep runs
	rm -rf $(VENV) .venv-* build dist site .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The environment is installed again if one of these files changes. The start-up files are copied into it, not linked.
INSTALLED_FROM := pyproject.toml constraints.txt hatch_build.py sb3_dqn_ext/zoo/_start_hook.py sb3_dqn_ext/zoo/_start_hook.pth

$(VENV)/installed-train: EXTRAS := zoo,plots,box2d,minatar
$(VENV)/installed-atari: EXTRAS := zoo,plots,box2d,minatar,atari
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
