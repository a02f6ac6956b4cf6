#!/usr/bin/env bash
# Open JupyterLab at a notebook; where there is no screen, print the address instead of opening a browser.
#   tools/lab.sh nbs/1_foundations/01_sound.ipynb [more jupyter lab options]
set -euo pipefail
cd "$(dirname "$0")/.."
notebook=$1
shift
options=(
  --ServerApp.root_dir="$PWD"
  --LabApp.default_url="/lab/tree/$notebook"
  --LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate
)
[ "$(id -u)" = 0 ] && options+=(--allow-root)
if [ "$(uname)" != Darwin ] && [ -z "${DISPLAY:-}${WAYLAND_DISPLAY:-}" ]; then
  echo "No screen here: open the address below in a browser."
  options+=(--no-browser)
fi
exec .venv/bin/jupyter lab "${options[@]}" "$@"
