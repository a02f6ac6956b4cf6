"""NMF against scikit-learn: the same spectrogram, start, type and iterations, side by side.

    python benchmarks/nmf.py              writes results/nmf.json
    python benchmarks/nmf.py --quick      one rank, one repeat, writes nothing

Ours is `sepbook.classical.nmf.nmf`; theirs is the estimator's `fit_transform` with `solver="mu"`,
`init="custom"` and `tol=0`, and its own settings otherwise. Both get two threads. Runs alternate,
and the fastest of each counts. Before each there is a pause: the threads of the library that ran
last wait for more work by spinning, and would take the processor from the other.
"""

import argparse
import json
import os
import sys
import time
import warnings
from datetime import date
from pathlib import Path

THREADS, PAUSE = 2, 0.3  # pause in seconds
for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[name] = str(THREADS)

import torch  # noqa: E402
from sklearn.decomposition import NMF  # noqa: E402

from sepbook.classical.nmf import beta_divergence, nmf  # noqa: E402
from sepbook.mixtures import example_song  # noqa: E402
from sepbook.stft import stft  # noqa: E402

RESULT = Path(__file__).resolve().parent.parent / "results" / "nmf.json"
NAMES = {2: "Euclidean", 1: "Kullback-Leibler", 0: "Itakura-Saito"}


def spectrogram(beta: float, dtype: torch.dtype) -> torch.Tensor:
    """The song's magnitudes (powers for beta = 0), channels end to end, mean one, above 1e-6."""
    mag = stft(example_song().mix, 2048, 512).abs().double()
    V = torch.cat(list(mag), 1)
    V = V.square() if beta == 0 else V
    return (V / V.mean()).clamp(min=1e-6).to(dtype)


def ours(V, W, H, beta, n_iter):
    """Our factors."""
    return nmf(V, W=W, H=H, beta=beta, n_iter=n_iter)[:2]


def theirs(V, W, H, beta, n_iter):
    """Scikit-learn's factors; it overwrites its start, so it gets copies."""
    model = NMF(len(H), solver="mu", init="custom", beta_loss=beta, tol=0, max_iter=n_iter)
    W = model.fit_transform(V.numpy(), W=W.numpy().copy(), H=H.numpy().copy())
    return torch.from_numpy(W), torch.from_numpy(model.components_)


def case(beta: float, dtype: torch.dtype, rank: int, n_iter: int, repeats: int) -> dict:
    """Time both, alternating; compare the costs in float64."""
    V = spectrogram(beta, dtype)
    draw = torch.Generator().manual_seed(0)
    W = torch.rand(V.shape[0], rank, generator=draw, dtype=torch.float64).to(dtype) + 0.1
    H = torch.rand(rank, V.shape[1], generator=draw, dtype=torch.float64).to(dtype) + 0.1
    best, cost = {}, {}
    for _ in range(repeats):
        for solver in (ours, theirs):
            time.sleep(PAUSE)
            started = time.perf_counter()
            factors = solver(V, W, H, beta, n_iter)
            seconds = time.perf_counter() - started
            best[solver.__name__] = min(seconds, best.get(solver.__name__, seconds))
            model = factors[0].double() @ factors[1].double()
            cost[solver.__name__] = beta_divergence(V.double(), model, beta).item()
    return {
        "beta": beta,
        "cost_function": NAMES[beta],
        "dtype": str(dtype).removeprefix("torch."),
        "rank": rank,
        "seconds_sepbook": round(best["ours"], 4),
        "seconds_scikit_learn": round(best["theirs"], 4),
        "ratio": round(best["theirs"] / best["ours"], 2),
        "relative_cost_difference": abs(cost["ours"] / cost["theirs"] - 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--repeats", type=int, default=8)
    args = parser.parse_args()
    torch.set_num_threads(THREADS)
    warnings.simplefilter("ignore")  # scikit-learn warns that tol=0 is never reached
    ranks, n_iter, repeats = ((16,), 5, 1) if args.quick else ((8, 16, 32, 64), 100, args.repeats)
    rows = []
    for dtype in (torch.float64, torch.float32):
        for beta in (2, 1, 0):
            for rank in ranks:
                rows.append(case(beta, dtype, rank, n_iter, repeats))
                print(*rows[-1].values(), sep="\t", flush=True)
    if args.quick:
        return
    RESULT.parent.mkdir(exist_ok=True)
    name = "NMF, {cost_function}, rank 16, {dtype}: scikit-learn's time over ours"
    report = {
        "title": "NMF: seconds of scikit-learn's multiplicative updates over ours",
        "headline": [
            {
                "what": name.format(**r),
                "value": r["ratio"],
                "unit": "x",
                "bar": "at least 2",
            }
            for r in rows
            if r["rank"] == 16
        ],
        "command": " ".join(["python benchmarks/nmf.py", *sys.argv[1:]]),
        "date": date.today().isoformat(),
        "device": f"{THREADS} CPU cores",
        "data": "example_song mixture, stereo end to end, n_fft 2048, hop 512",
        "shape": list(spectrogram(1, torch.float64).shape),
        "iterations": n_iter,
        "repeats": repeats,
        "statistic": "minimum over repeats, solvers alternating",
        "rows": rows,
    }
    RESULT.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
