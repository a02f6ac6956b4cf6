"""Open-Unmix against openunmix: same weights, same song, forward pass and training step.

    python benchmarks/openunmix.py              writes results/openunmix.json
    python benchmarks/openunmix.py --quick      small layers, one repeat, writes nothing

Forward: six seconds of stereo through all four targets and one step of the Wiener filter.
Training: forward without the filter, mean squared error of the four magnitude spectrograms,
backward, Adam; theirs trains one target after the other, as its recipe does, on one spectrogram of
the mixture. Both get two threads. Runs alternate, and the fastest of each counts. `make parity`
installs openunmix.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

THREADS = 2
for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[name] = str(THREADS)
ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / ".peers"))  # before this folder, whose file has the same name

import torch  # noqa: E402
from openunmix.model import OpenUnmix as Target  # noqa: E402
from openunmix.model import Separator  # noqa: E402

from sepbook.mixtures import example_song  # noqa: E402
from sepbook.models.mask_networks import OpenUnmix  # noqa: E402
from sepbook.zoo import import_weights  # noqa: E402

RESULT = ROOT / "results" / "openunmix.json"
SECONDS = 6


def pair(hidden: int) -> tuple[OpenUnmix, Separator]:
    """Ours and theirs with the same random weights."""
    torch.manual_seed(0)
    ours = OpenUnmix(hidden=hidden)
    nets = {name: Target(2049, 2, hidden, max_bin=1487) for name in ours.sources}
    theirs = Separator(nets, niter=1, n_fft=4096, n_hop=1024)
    return import_weights(ours, theirs.state_dict(), "openunmix"), theirs


def time_both(first: Callable, second: Callable, repeats: int) -> tuple[float, float]:
    """Seconds of the fastest run of each; they take turns."""
    best = [float("inf")] * 2
    for _ in range(repeats + 1):  # one more to warm up
        for k, run in enumerate((first, second)):
            start = time.perf_counter()
            run()
            best[k] = min(best[k], time.perf_counter() - start)
    return best[0], best[1]


def forward(hidden: int, repeats: int) -> dict:
    """Separate the song."""
    ours, theirs = pair(hidden)
    mix = example_song().mix[None, :, : SECONDS * 44100]
    with torch.inference_mode():
        difference = (ours.eval()(mix) - theirs.eval()(mix)).abs().max().item()
        mine, other = time_both(lambda: ours(mix), lambda: theirs(mix), repeats)
    return {"hidden": hidden, "ours_s": mine, "theirs_s": other, "difference": difference}


def train(hidden: int, repeats: int) -> dict:
    """One training step of all four targets."""
    ours, theirs = pair(hidden)
    song = example_song()
    mix, src = (x[None, ..., : SECONDS * 44100] for x in (song.mix, song.src))
    mine = torch.optim.Adam(ours.train().parameters())
    other = [torch.optim.Adam(net.parameters()) for net in theirs.train().target_models.values()]

    def step_ours() -> None:
        mine.zero_grad()
        ours.loss(mix, src).backward()
        mine.step()

    def step_theirs() -> None:
        mag = theirs.complexnorm(theirs.stft(mix))
        for k, (net, adam) in enumerate(zip(theirs.target_models.values(), other)):
            adam.zero_grad()
            wanted = theirs.complexnorm(theirs.stft(src[:, k]))
            torch.nn.functional.mse_loss(net(mag), wanted).backward()
            adam.step()

    mine_s, other_s = time_both(step_ours, step_theirs, repeats)
    return {"hidden": hidden, "ours_s": mine_s, "theirs_s": other_s}


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small layers, write nothing")
    quick = parser.parse_args().quick
    torch.set_num_threads(THREADS)
    rows, headline = [], []
    for name, hidden in {"small": 32}.items() if quick else {"umxhq": 512, "umxl": 1024}.items():
        for kind, measure in (("forward", forward), ("training step", train)):
            row = {"what": f"{name}, {kind}"} | measure(hidden, 1 if quick else 7)
            ratio = row["theirs_s"] / row["ours_s"]
            times = f"ours {row['ours_s']:.3f} s, theirs {row['theirs_s']:.3f} s"
            print(f"{row['what']:<24} {times}, {ratio:.2f} x", flush=True)
            rows.append(row)
            what = f"{row['what']}: openunmix's time over ours"
            headline.append(
                {"what": what, "value": round(ratio, 2), "unit": "x", "bar": "at least 1"}
            )
    if not quick:
        told = {
            "title": "Open-Unmix: seconds of openunmix over ours",
            "headline": headline,
            "command": "python benchmarks/openunmix.py",
            "date": date.today().isoformat(),
            "device": f"{THREADS} CPU cores",
            "versions": {"torch": torch.__version__},
            "rows": rows,
        }
        RESULT.write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
