# Two commands matter:  make lab  and  make test.  `make help` lists the rest.
VENV := .venv
PY := $(VENV)/bin/python
NBDEV := $(VENV)/bin
CHAPTER ?= all
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: help setup lab test parity e2e bench step check site run-notebooks export lock clean

help:            ## this list
	@grep -hE '^[a-z-]+:.*##' Makefile | sed -E 's/:[^#]*##/ -/' | sort

setup: $(VENV)/.ready  ## make .venv from requirements.lock and install sepbook in it

$(VENV)/.ready: requirements.lock settings.ini setup.py tools/setup.sh
	@tools/setup.sh

lab: setup       ## open JupyterLab at the first chapter (prints the address where there is no screen)
	@tools/lab.sh nbs/1_foundations/01_sound.ipynb

test: setup      ## run every chapter and every test
	@tools/test.sh

parity: setup    ## compare with the field's reference implementations (installs them into .peers)
	@tools/parity.sh

e2e: setup       ## open every chapter in JupyterLab in a real browser and run all its cells
	@$(PY) -m pytest tests/e2e -q -rs

NEED_DATA := average_% band_above.py budget.py denoise% leaderboard.py morphed_% music.py noises.py shipped.py heard_% recorded_% songs% speech_% synthetic_% train_% voices_%
bench: setup     ## measure speed again, alone on the machine; writes results/*.json (scripts that need data: see each one)
	@for script in $(filter-out $(addprefix benchmarks/,$(NEED_DATA)),$(wildcard benchmarks/*.py)); do echo "== $$script"; $(PY) $$script || exit 1; done

run-notebooks: setup  ## execute CHAPTER (a number such as 02, a path, or all) and store its outputs
	@$(PY) tools/notebooks.py run $(if $(filter all,$(CHAPTER)),--all,$(CHAPTER))
	@$(MAKE) -s export

export: setup    ## write the package and README.md from the notebooks, and clean the notebooks
	@$(NBDEV)/nbdev_export
	@$(PY) tools/notebooks.py clean --all
	@$(PY) tools/readme.py

step: setup      ## notebooks, package and README in step; ruff
	@$(MAKE) -s export
	@git diff --exit-code --stat || { echo "Not in step: commit what 'make export' changed."; exit 1; }
	@$(NBDEV)/ruff check sepbook nbs tests tools benchmarks setup.py
	@$(NBDEV)/ruff format --check nbs tests tools benchmarks setup.py

check: step      ## the same, and the lint of the chapters
	@$(PY) -m pytest tests/chapters -q

site: setup      ## build the Quarto site into _docs and try it in a browser (says so where Quarto is missing)
	@tools/site.sh

lock: setup      ## compile requirements.lock again from settings.ini (Linux and macOS, Python 3.11-3.13)
	@tools/lock.sh

clean:           ## remove what was built, the environment too
	@rm -rf $(VENV) .peers _proc _docs *.egg-info .pytest_cache .ruff_cache .hypothesis
