"""AuxIVA and ILRMA against pyroomacoustics, FastICA against scikit-learn: gains and times.

    python benchmarks/ica.py              writes results/ica.json
    python benchmarks/ica.py --quick      one pair, one repeat, writes nothing

Two readers, two microphones 20 cm apart, in simulated rooms. Both sides get the same spectra and
the same start, and take turns. Times are processor seconds of one thread, and the fastest run of
each counts. The gain is that of SDR (BSS Eval, 512 taps) over the mixture at the first microphone.
"""

import argparse
import json
import os
import statistics
import sys
import time
import warnings
from datetime import date
from itertools import product
from pathlib import Path

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[name] = "1"

import numpy as np  # noqa: E402
import torch  # noqa: E402
from sklearn.decomposition import FastICA  # noqa: E402

from sepbook.classical.ica import (  # noqa: E402
    RoomSeparator,
    auxiva,
    fast_ica,
    ilrma,
    project_back,
    spectra,
)
from sepbook.engine.examples import Mixture, example_readers  # noqa: E402
from sepbook.metrics import best_permutation, bss_eval  # noqa: E402
from sepbook.sound import mix_linear, room_responses, source_images  # noqa: E402
from sepbook.stft import istft  # noqa: E402

warnings.simplefilter("ignore")
import pyroomacoustics as pra  # noqa: E402

RESULT = Path(__file__).resolve().parent.parent / "results" / "ica.json"
ROOM, N_FFT, HOP, N_ITER = (4.4, 3.8, 2.6), 4096, 1024, 50
SPEAKERS, MICROPHONES = [(1.8, 2.4, 1.5), (3.3, 2.3, 1.6)], [(2.4, 1.6, 1.4), (2.6, 1.6, 1.4)]


def scene(seed: int, rt60: float) -> Mixture:
    """Two readers, as two microphones hear them."""
    src = example_readers(2, 6.0, seed).src
    images = source_images(src, room_responses(ROOM, SPEAKERS, MICROPHONES, 16000, rt60))
    return Mixture(images.sum(0), images, ("s1", "s2"), 16000)


def gain(est: torch.Tensor, room: Mixture) -> float:
    """Mean SDR gained at the first microphone, dB; est (source, time)."""
    src = room.src[:, 0]
    est = est[best_permutation(est, src)]
    before = bss_eval(room.mix[:1].expand_as(src), src)[0]
    return (bss_eval(est, src)[0] - before).mean().item()


def waves(Y: torch.Tensor, room: Mixture) -> torch.Tensor:
    """Outputs (source, time) of spectra (frequency, source, frame)."""
    return istft(Y.transpose(0, 1), n_fft=N_FFT, hop=HOP)[:, : room.mix.shape[-1]].float()


def pair_up(X: torch.Tensor, seed: int) -> dict[str, tuple]:
    """For each method a function of ours and one of theirs, with the same start."""
    theirs = X.permute(2, 0, 1).contiguous().numpy()
    draw = np.random.RandomState(seed)
    T = torch.from_numpy(0.1 + 0.9 * draw.rand(2, len(X), 2))
    H = torch.from_numpy(0.1 + 0.9 * draw.rand(2, X.shape[-1], 2)).mT.contiguous()
    start = auxiva(X, N_ITER)
    back = lambda W: project_back(W @ X, X[:, 0])
    turn = lambda Y: torch.from_numpy(Y).permute(1, 2, 0)

    def their_ilrma():
        np.random.seed(seed)
        return turn(pra.bss.ilrma(theirs, n_iter=N_ITER, W0=start.numpy().copy()))

    made = {
        f"AuxIVA, {model}": (
            lambda model=model: back(auxiva(X, N_ITER, model)),
            lambda model=model: turn(pra.bss.auxiva(theirs, n_iter=N_ITER, model=model)),
        )
        for model in ("laplace", "gauss")
    }
    return made | {"ILRMA": (lambda: back(ilrma(X, N_ITER, 2, start, T, H)), their_ilrma)}


def compare(pairs: int, repeats: int) -> list[dict]:
    """Gains and times of both sides at RT60 0.2 s."""
    rows = {}
    for seed, start in product(range(pairs), range(3)):
        room = scene(seed, 0.2)
        for name, both in pair_up(spectra(room.mix, N_FFT, HOP), start).items():
            if start and name != "ILRMA":  # nothing is random in AuxIVA
                continue
            row = rows.setdefault(name, {"gain": ([], []), "seconds": ([], []), "difference": []})
            seconds, out = [np.inf, np.inf], [None, None]
            for _ in range(repeats):
                for side, method in enumerate(both):
                    begin = time.process_time()
                    out[side] = method()
                    seconds[side] = min(seconds[side], time.process_time() - begin)
            for side in (0, 1):
                row["gain"][side].append(gain(waves(out[side], room), room))
                row["seconds"][side].append(seconds[side])
            apart = (out[0] - out[1]).abs().max() / out[1].abs().max()
            row["difference"].append(apart.item())
            print(seed, name, row["gain"][0][-1], row["gain"][1][-1], seconds, flush=True)
    return [
        {
            "method": name,
            "gain_sepbook_db": [round(g, 2) for g in row["gain"][0]],
            "gain_pyroomacoustics_db": [round(g, 2) for g in row["gain"][1]],
            "median_of_differences_db": round(
                statistics.median(a - b for a, b in zip(*row["gain"], strict=True)), 3
            ),
            "largest_relative_difference_of_outputs": max(row["difference"]),
            "time_ratio": round(sum(row["seconds"][1]) / sum(row["seconds"][0]), 2),
        }
        for name, row in rows.items()
    ]


def against_rt60(pairs: int, times: list[float]) -> list[dict]:
    """Mean gain of the separators of chapter 12 at each RT60."""
    rows = []
    for rt60 in times:
        rooms = [scene(seed, rt60) for seed in range(pairs)]
        row = {"rt60_s": rt60}
        for method in ("fdica", "auxiva", "ilrma"):
            gains = [gain(RoomSeparator(method)(r.mix[None])[0, :, 0], r) for r in rooms]
            row[method] = round(statistics.mean(gains), 2)
        rows.append(row)
        print(row, flush=True)
    return rows


def fast_ica_times(repeats: int) -> dict:
    """FastICA from one start on three mixtures: the largest difference, and the times' ratio."""
    src = example_readers(3, 6.0).src
    draw = torch.Generator().manual_seed(0)
    A, start = torch.randn(2, 3, 3, generator=draw, dtype=torch.float64)
    X = mix_linear(src.double(), A)
    how = {"whiten": "unit-variance", "w_init": start.numpy(), "tol": 1e-4}
    rows, seconds = X.T.contiguous().numpy(), [np.inf, np.inf]
    for _ in range(repeats):
        begin = time.process_time()
        W = fast_ica(X, start)
        middle = time.process_time()
        want = FastICA(**how).fit(rows).components_
        end = time.process_time()
        seconds = [min(seconds[0], middle - begin), min(seconds[1], end - middle)]
    apart = (W - torch.from_numpy(want)).abs().max() / np.abs(want).max()
    return {
        "relative_difference": apart.item(),
        "time_ratio": round(seconds[1] / seconds[0], 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--pairs", type=int, default=4)
    args = parser.parse_args()
    torch.set_num_threads(1)
    pairs, repeats = (1, 1) if args.quick else (args.pairs, 2)
    peers, fast = compare(pairs, repeats), fast_ica_times(repeats)
    curve = against_rt60(pairs, [0.2] if args.quick else [0.1, 0.2, 0.3, 0.4, 0.5])
    if args.quick:
        return
    what = "two voices, two microphones, RT60 0.2 s: {method}, {of}"
    headline = [
        {
            "what": what.format(method=row["method"], of=of),
            "value": row[key],
            "unit": unit,
            "bar": bar,
        }
        for row in peers
        for of, key, unit, bar in (
            (
                "SDR gain above pyroomacoustics'",
                "median_of_differences_db",
                "dB",
                "at least -0.2",
            ),
            ("pyroomacoustics' time over ours", "time_ratio", "x", "at least 1"),
        )
    ]
    headline.append(
        {
            "what": "FastICA, three mixtures: scikit-learn's time over ours",
            "value": fast["time_ratio"],
            "unit": "x",
            "bar": "at least 1",
        }
    )
    report = {
        "title": "Independent components: gains and times beside pyroomacoustics and scikit-learn",
        "headline": headline,
        "command": " ".join(["python benchmarks/ica.py", *sys.argv[1:]]),
        "date": date.today().isoformat(),
        "device": "1 CPU core of a busy machine",
        "data": f"{pairs} pairs of example_readers, 6 s, simulated rooms of {ROOM} m",
        "settings": {"n_fft": N_FFT, "hop": HOP, "iterations": N_ITER},
        "statistic": "processor time, fastest of 2, in turns; ILRMA from 3 random starts a pair",
        "against_peers": peers,
        "fast_ica": fast,
        "gain_against_rt60_db": curve,
    }
    RESULT.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
