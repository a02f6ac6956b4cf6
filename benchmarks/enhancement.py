"""Denoising and repetition beside the fastest peers with equal outputs: who takes less time?

    python benchmarks/enhancement.py [--rounds 7] [--only NAME ...]

writes results/enhancement.json. log-MMSE beside `logmmse`, from the same noise; harmonic and
percussive masks, and the model of REPET-SIM, beside librosa; DCUNet and DCCRN with the weights of
asteroid. Processor time of one thread, in turns within one process; a ratio is the median over the
rounds. Networks hear 2 s at 16 kHz. A peer that is not installed (requirements-peers.lock) is left
out, and its row stays.
"""

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[name] = "1"

import numpy as np  # noqa: E402
import torch  # noqa: E402
from bench import ROOT, figure, save  # noqa: E402

from sepbook.classical.denoising import GAINS, decision_directed  # noqa: E402
from sepbook.classical.repet import (  # noqa: E402
    harmonic_percussive_masks,
    similar_frames,
    similar_model,
)
from sepbook.engine.examples import example_noisy, example_track  # noqa: E402
from sepbook.models.complex_networks import DCCRN, DCUNET_SIZES, DCUNet  # noqa: E402
from sepbook.stft import stft  # noqa: E402
from sepbook.zoo import import_weights  # noqa: E402

RESULT = ROOT / "results" / "enhancement.json"
Pair = tuple[Callable, Callable, float]  # ours, theirs, and how far their outputs may differ


def log_mmse() -> Pair:
    """Frames of 20 ms, the gains, and overlap-add, all in double precision."""
    from logmmse.logmmse import logmmse

    np.seterr(all="warn")  # the package lets every underflow raise
    mix = example_noisy("boiler").mix[0].double().numpy()
    told = logmmse(mix, 16000, eta=-1e9)[1]["noise_mu2"]  # no frame but the first counts as noise
    noise, window = (
        torch.from_numpy(told)[:321, None],
        np.hanning(320) * 160 / np.hanning(320).sum(),
    )
    n = 160 * (len(mix) // 160 - 2)

    def ours() -> np.ndarray:
        frames = torch.from_numpy(mix).unfold(0, 320, 160)[: n // 160] * torch.from_numpy(window)
        spec = torch.fft.rfft(frames, 640).T
        how = {"least": 10**-2.5, "most": 40.0}
        gains = decision_directed(spec.abs().square(), noise, GAINS["log-mmse"], **how)
        blocks = torch.fft.irfft((gains * spec).T, 640)[:, :320]
        out = torch.zeros(n + 320, dtype=torch.float64)
        out[:n].view(-1, 160).add_(blocks[:, :160])
        out[160 : n + 160].view(-1, 160).add_(blocks[:, 160:])
        return out[:n].numpy()

    return ours, lambda: logmmse(mix, 16000, eta=-1e9)[0][:n], 1e-6


def magnitudes() -> torch.Tensor:
    """A song's (frequency, frame)."""
    return stft(example_track().mix.mean(0), 2048, 512).abs()


def hpss() -> Pair:
    """Medians along time and along frequency, and two soft masks."""
    import librosa

    mag = magnitudes()
    theirs = lambda: np.stack(librosa.decompose.hpss(mag.numpy(), mask=True))
    return lambda: torch.stack(harmonic_percussive_masks(mag)).numpy(), theirs, 1e-6


def repet_sim() -> Pair:
    """For each frame the median over its nearest frames, 2 s or more away from each other."""
    import librosa

    mag = magnitudes()
    apart = int(librosa.time_to_frames(2, sr=22050, hop_length=512))
    apart = min(apart, (mag.shape[-1] - 1) // 2 - 1)
    near = {"metric": "cosine", "width": apart, "mode": "distance", "aggregate": np.median}
    theirs = lambda: librosa.decompose.nn_filter(mag.numpy(), **near)
    return lambda: similar_model(mag, similar_frames(mag, apart)).numpy(), theirs, 1e-5


def network(ours: torch.nn.Module, theirs: torch.nn.Module) -> Pair:
    """With the same weights, on the same frames: theirs gets the silence that ours adds itself."""
    import_weights(ours.eval(), theirs.eval().state_dict(), "asteroid")
    form, mix = ours.spectrum, example_noisy("boiler").mix[None, :, :32000]
    start = form.win_length - form.hop
    end = (mix.shape[-1] - 1 + start) // form.hop * form.hop + form.win_length
    padded = torch.nn.functional.pad(mix, (start, end - mix.shape[-1] - start))
    cut = slice(start, start + mix.shape[-1])
    return lambda: ours(mix)[:, 0].numpy(), lambda: theirs(padded)[..., cut].numpy(), 3e-5


def dcunet() -> Pair:
    """DCUNet-16 of asteroid."""
    from asteroid.models import DCUNet as Theirs

    torch.manual_seed(0)
    theirs = Theirs("DCUNet-16", fix_length_mode="pad", mask_bound="tanh")
    return network(DCUNet(**DCUNET_SIZES["DCUNet-16"], sources=("speech",)), theirs)


def dccrn() -> Pair:
    """DCCRN-CL of asteroid, which hands a NumPy integer to an LSTM that wants a Python one."""
    from asteroid.masknn import recurrent
    from asteroid.models import DCCRNet

    rnn = recurrent.DCCRMaskNetRNN
    recurrent.DCCRMaskNetRNN = lambda n: rnn(int(n))
    torch.manual_seed(0)
    return network(DCCRN(variant="asteroid", sources=("speech",)), DCCRNet("DCCRN-CL"))


PAIRS = {
    "log-MMSE": ("logmmse", log_mmse),
    "HPSS masks": ("librosa", hpss),
    "REPET-SIM model": ("librosa", repet_sim),
    "DCUNet-16": ("asteroid", dcunet),
    "DCCRN": ("asteroid", dccrn),
}


def compare(name: str, rounds: int) -> dict:
    """Seconds of both in turns, and how far apart their outputs are."""
    peer, make = PAIRS[name]
    ours, theirs, tolerance = make()
    got, want = ours(), theirs()
    error = np.abs(got - want) / np.abs(want).max()
    unequal = float((error > tolerance).mean())  # a tie of neighbours may fall the other way
    if unequal > (1e-3 if name == "REPET-SIM model" else 0):
        raise SystemExit(f"{name} differs from {peer} by {error.max():.1e}; mend one of them first")
    seconds = [], []
    for _ in range(rounds):
        for run, kept in zip((ours, theirs), seconds):
            begin = time.process_time()
            run()
            kept.append(time.process_time() - begin)
    ratio = statistics.median(b / a for a, b in zip(*seconds))
    mine, other = (round(statistics.median(kept), 4) for kept in seconds)
    row = {"peer": peer, "ratio": round(ratio, 2), "seconds": mine, "seconds_peer": other}
    return row | {"unequal_share": unequal, "largest_difference": float(f"{error.max():.1e}")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", nargs="+", choices=PAIRS, default=[*PAIRS])
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    rows = json.loads(RESULT.read_text())["pairs"] if RESULT.exists() else {}
    for name in args.only:
        try:
            rows[name] = compare(name, args.rounds)
        except ImportError as error:
            print(f"{name} is left out: {error}", file=sys.stderr)
            continue
        print(name, rows[name], flush=True)
    what = "{0}, equal outputs: {1}'s processor time over ours"
    headline = [
        figure(what.format(name, row["peer"]), row["ratio"], "x", ">= 1")
        for name, row in rows.items()
    ]
    title = "Denoising and repetition: times beside peers with equal outputs"
    command = "python benchmarks/enhancement.py"
    save(title, headline, command, "CPU, one thread of a busy machine", pairs=rows)


if __name__ == "__main__":
    main()
