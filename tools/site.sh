#!/usr/bin/env bash
# Build the site into _docs from the outputs stored in the notebooks, and try it in a browser (tests/site/test_browser.py).
set -euo pipefail
cd "$(dirname "$0")/.."
if ! command -v quarto >/dev/null 2>&1; then
  echo "Quarto is not installed here, so no site was built. Get it from https://quarto.org/docs/get-started and run 'make site' again."
  [ -z "${SITE_WHOLE:-}" ]
  exit
fi
rm -rf _proc
PYTHONPATH=tools .venv/bin/python -m sitemaker render
if command -v npm >/dev/null 2>&1; then
  .venv/bin/python tools/try_it.py _docs/assets
else
  echo "npm is not installed here, so the page 'Try it here' has no networks."
fi
[ "${SITE_BROWSER:-}" = no ] || SITE=_docs .venv/bin/python -m pytest tests/site/test_browser.py -q -rs -p no:cacheprovider
