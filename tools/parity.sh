#!/usr/bin/env bash
# Install the peers beside the environment, without their own pins, and compare with them.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ ! -f .peers/.ready ] || [ requirements-peers.lock -nt .peers/.ready ]; then
  echo "Installing the reference implementations from requirements-peers.lock into .peers"
  rm -rf .peers
  .venv/bin/python -m pip install -q --disable-pip-version-check --no-deps --target .peers -r requirements-peers.lock
  touch .peers/.ready
fi
.venv/bin/python -m pytest tests/parity -q -rs
