#!/usr/bin/env bash
# Install the peers beside the environment, without their own pins, and compare with them.
#   tools/parity.sh --install   the first half only: `make test` compares then, too
set -euo pipefail
cd "$(dirname "$0")/.."
if [ ! -f .peers/.ready ] || [ requirements-peers.lock -nt .peers/.ready ]; then
  echo "Installing the reference implementations from requirements-peers.lock into .peers"
  rm -rf .peers
  what=(-q --no-deps --target .peers -r requirements-peers.lock)
  .venv/bin/uv pip install --python .venv/bin/python "${what[@]}" ||
    .venv/bin/python -m pip install --disable-pip-version-check "${what[@]}"
  touch .peers/.ready
fi
[ "${1:-}" = --install ] || exec .venv/bin/python -m pytest tests/parity -q -rs
