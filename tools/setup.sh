#!/usr/bin/env bash
# Make .venv from requirements.lock, install sepbook in it, see to ffmpeg, register the kernel.
#   tools/setup.sh           PYTHON=python3.12 tools/setup.sh   to choose the interpreter
set -euo pipefail
cd "$(dirname "$0")/.."

supported='import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))'

choose_python() {
  local candidate
  for candidate in ${PYTHON:-} python3.12 python3.13 python3.11 python3 python; do
    if command -v "$candidate" >/dev/null 2>&1 && "$candidate" -c "$supported" 2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
  echo "sepbook needs Python 3.11, 3.12 or 3.13. Install one, then: PYTHON=/path/to/python3.12 make setup" >&2
  exit 1
}

# Install system packages where that needs no password; otherwise say exactly what to type.
#   system_packages APT_NAMES BREW_NAMES WHAT_FOR
system_packages() {
  local apt=$1 brew=$2 why=$3 run=()
  if command -v apt-get >/dev/null 2>&1; then
    if [ "$(id -u)" = 0 ]; then run=(env); elif sudo -n true 2>/dev/null; then run=(sudo -n); fi
    if [ ${#run[@]} -gt 0 ]; then
      echo "Installing $apt ($why)"
      "${run[@]}" apt-get update -qq >/dev/null && \
        "${run[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $apt >/dev/null && return
    fi
    echo "sepbook needs $why. Type:  sudo apt-get install $apt   and start again." >&2
  elif command -v brew >/dev/null 2>&1; then
    if [ -z "$brew" ]; then
      echo "sepbook needs $why. Type:  xcode-select --install   and start again." >&2
    else
      echo "Installing $brew ($why)"
      brew install -q $brew && return
      echo "sepbook needs $why. Type:  brew install $brew   and start again." >&2
    fi
  else
    echo "sepbook needs $why. Install $apt with your system's package manager and start again." >&2
  fi
  exit 1
}

python=$(choose_python)
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')

command -v ffmpeg >/dev/null 2>&1 && command -v ffprobe >/dev/null 2>&1 ||
  system_packages ffmpeg ffmpeg "ffmpeg and ffprobe, to read compressed audio and the example song"
"$python" -c 'import ensurepip, venv' 2>/dev/null ||
  system_packages "python$version-venv" "" "Python's venv module"
command -v cc >/dev/null 2>&1 || command -v gcc >/dev/null 2>&1 ||
  system_packages build-essential "" "a C compiler, to build the pesq package"
"$python" -c 'import os, sysconfig, sys; sys.exit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))' ||
  system_packages "python$version-dev" "" "Python's C headers, to build the pesq package"

if [ -x .venv/bin/python ] && ! .venv/bin/python -c "$supported" 2>/dev/null; then
  rm -rf .venv
fi
[ -x .venv/bin/python ] || { echo "Making .venv with $python ($version)"; "$python" -m venv .venv; }

echo "Installing the course's environment from requirements.lock (the first time: several minutes, about 6 GB on Linux)"
# uv fetches and unpacks several packages at once; where it can't be had, pip does the same. None of the 17,000 files is
# compiled here: Python compiles those that are imported, when they are.
pip=(.venv/bin/python -m pip install -q --no-compile --disable-pip-version-check)
{ "${pip[@]}" uv && .venv/bin/uv pip install -q --python .venv/bin/python -r requirements.lock; } ||
  "${pip[@]}" -r requirements.lock
.venv/bin/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
.venv/bin/python -m ipykernel install --sys-prefix --name sepbook --display-name "sepbook" >/dev/null 2>&1
# JupyterLab asks whether it may fetch news; the course needs no network.
.venv/bin/jupyter labextension disable "@jupyterlab/apputils-extension:announcements" >/dev/null 2>&1
# librosa compiles some functions when it is first imported. Two processes that do so at once spoil each other's cache,
# and whoever reads it later crashes; so it happens here, once.
.venv/bin/python - <<'COMPILE'
import importlib, pkgutil
import librosa
for module in pkgutil.walk_packages(librosa.__path__, "librosa."):
    importlib.import_module(module.name)
COMPILE
touch .venv/.ready
echo "Ready."
