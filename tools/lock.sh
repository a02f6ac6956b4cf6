#!/usr/bin/env bash
# Compile requirements.lock from the requirement lists in settings.ini: one lock for Linux and macOS, Python 3.11-3.13.
set -euo pipefail
cd "$(dirname "$0")/.."
{
  .venv/bin/python - <<'PY'
from configparser import ConfigParser
config = ConfigParser(delimiters=["="])
config.read("settings.ini")
for key in (key for key in config["DEFAULT"] if key.endswith("requirements")):
    print("\n".join(config["DEFAULT"][key].split()))
PY
  # One version of each for all three Pythons; setuptools and wheel build the editable install.
  printf '%s\n' 'numpy<2.5' 'scipy<1.18' 'setuptools' 'wheel'
} > .venv/requirements.in
.venv/bin/python -m pip install -q uv
.venv/bin/uv pip compile --quiet --universal --python-version 3.11 --no-header --no-annotate \
  .venv/requirements.in -o requirements.lock.new
{ echo "# Compiled by 'make lock' from settings.ini, for Linux and macOS, Python 3.11-3.13. Install with pip."; cat requirements.lock.new; } > requirements.lock
rm requirements.lock.new
