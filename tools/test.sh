#!/usr/bin/env bash
# Every chapter (nbdev_test), then tests/; both run whatever the first says, and the summary comes last.
# As many at once as there are cores, four at most, with one thread each: two threads on each of two
# networks that train side by side take twice as long as one.
set -uo pipefail
cd "$(dirname "$0")/.."
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
unset PYTHONDONTWRITEBYTECODE  # what is imported is compiled once, not in each process
cores=$(getconf _NPROCESSORS_ONLN)
workers=$((cores < 4 ? cores : 4))
started=$SECONDS
echo "== chapters and solutions"
.venv/bin/nbdev_test --n_workers "$workers" --timing
chapters=$?
after=$SECONDS
echo "== tests"
.venv/bin/python -m pytest tests --ignore tests/e2e -n "$workers" --dist worksteal -q -rs
tests=$?
verdict() { [ "$1" = 0 ] && echo passed || echo FAILED; }
echo "== chapters: $(verdict $chapters) in $((after - started)) s; tests: $(verdict $tests) in $((SECONDS - after)) s"
exit $((chapters || tests))
