"""The search for the best order: what it costs beyond the losses of all pairs, and from when on the
Hungarian method is quicker than brute force.

    python benchmarks/pit.py              writes results/pit.json
    python benchmarks/pit.py --quick      few sources, few repeats, writes nothing

Signals are 4 s at 8 kHz in batches of 16. The pairwise loss is SI-SDR. The fastest of the repeats
counts. Both ways are checked against each other on the way.
"""

import argparse
import json
import math
import os
import sys
import time
from datetime import date
from pathlib import Path

THREADS = 2
for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[name] = str(THREADS)

import torch  # noqa: E402

from sepbook.pit import assign, pairwise_neg_si_sdr, pit_loss  # noqa: E402

RESULT = Path(__file__).resolve().parent.parent / "results" / "pit.json"
BATCH, LENGTH = 16, 32000


def fastest(call, repeats: int) -> float:
    """Milliseconds of the fastest call."""
    best = float("inf")
    for _ in range(repeats + 1):
        started = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - started)
    return best * 1e3


def crossover(n: int, repeats: int) -> dict:
    """Both searches on the same random costs."""
    costs = torch.randn(BATCH, n, n, generator=torch.Generator().manual_seed(n))
    best = {m: assign(costs, m) for m in ("hungarian", *(("brute",) if n <= 10 else ()))}
    assert all(torch.equal(best["hungarian"], found) for found in best.values())
    row = {"sources": n, "orders": math.factorial(n)}
    for method in best:
        slow = method == "brute" and n > 7
        row[f"{method} (ms)"] = round(
            fastest(lambda m=method: assign(costs, m), 1 if slow else repeats), 3
        )
    return row


def beyond(n: int, repeats: int) -> dict:
    """The whole loss, forwards and backwards, against the pairwise costs alone."""
    draw = torch.Generator().manual_seed(0)
    src = torch.randn(BATCH, n, 1, LENGTH, generator=draw)
    est = (src.flip(1) + 0.3 * torch.randn(src.shape, generator=draw)).requires_grad_()
    costs = pairwise_neg_si_sdr(est, src).detach().requires_grad_()

    def search() -> None:
        pit_loss(lambda est, src: costs, est, src)[0].backward()

    return {
        "sources": n,
        "pairwise costs, forward (ms)": round(
            fastest(lambda: pairwise_neg_si_sdr(est, src), repeats), 2
        ),
        "order, loss and its gradient (ms)": round(fastest(search, repeats), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--repeats", type=int, default=30)
    args = parser.parse_args()
    torch.set_num_threads(THREADS)
    repeats = 2 if args.quick else args.repeats
    table = [
        crossover(n, repeats) for n in (range(2, 5) if args.quick else (*range(2, 11), 15, 20))
    ]
    for row in table:
        print(*row.values(), sep="\t", flush=True)
    costs = [beyond(n, repeats) for n in ((2, 5) if args.quick else (2, 3, 5, 10, 20))]
    for row in costs:
        print(*row.values(), sep="\t", flush=True)
    if args.quick:
        return
    slower = [r["sources"] for r in table if r.get("brute (ms)", 0) > r["hungarian (ms)"]]
    report = {
        "title": "PIT: the search for the best order, batch of 16",
        "headline": [
            {
                "what": "20 sources, batch 16: order, loss and gradient beyond the pairwise costs",
                "value": costs[-1]["order, loss and its gradient (ms)"],
                "unit": "ms",
                "bar": "under 10",
            },
            {
                "what": "brute force is slower than the Hungarian method from so many sources on",
                "value": next(n for n in slower if all(k in slower for k in range(n, 11))),
                "unit": "sources",
            },
        ],
        "command": " ".join(["python benchmarks/pit.py", *sys.argv[1:]]),
        "date": date.today().isoformat(),
        "device": f"{THREADS} CPU cores",
        "repeats": repeats,
        "statistic": "minimum over repeats",
        "crossover": table,
        "beyond the pairwise costs": costs,
    }
    RESULT.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
