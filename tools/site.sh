#!/usr/bin/env bash
# Build the site into _docs from the outputs stored in the notebooks.
set -euo pipefail
cd "$(dirname "$0")/.."
if ! command -v quarto >/dev/null 2>&1; then
  echo "Quarto is not installed here, so no site was built. Get it from https://quarto.org/docs/get-started and run 'make site' again."
  exit 0
fi
rm -rf _proc
touch README.md # made by tools/readme.py: nbdev renders its own only when this one is older than the home page
PATH="$PWD/.venv/bin:$PATH" nbdev_docs
