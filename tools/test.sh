#!/usr/bin/env bash
# Every chapter (nbdev_test), then tests/; both run whatever the first says, and the summary comes last.
set -uo pipefail
cd "$(dirname "$0")/.."
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-2}"
started=$SECONDS
echo "== chapters and solutions"
.venv/bin/nbdev_test --n_workers 2 --timing
chapters=$?
after=$SECONDS
echo "== tests"
.venv/bin/python -m pytest tests --ignore tests/e2e -q -rs
tests=$?
verdict() { [ "$1" = 0 ] && echo passed || echo FAILED; }
echo "== chapters: $(verdict $chapters) in $((after - started)) s; tests: $(verdict $tests) in $((SECONDS - after)) s"
exit $((chapters || tests))
