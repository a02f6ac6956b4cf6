"""Train the live denoiser on noisy speech that is made on the way, and write its weights.

    python benchmarks/train_denoiser.py --speech speech-train --noise noise --minutes 45
        --readers-out readers.txt --noises-out noises.txt --out denoiser-16k.safetensors

`--speech` and `--noise` are corpora of mono sound at 16 kHz; the readers and noises that the two
lists name are left out, and serve as validation. `benchmarks/folds` holds four lists of noises that
are about equally hard for DTLN and GTCRN, for training in folds; related noises share a list. Of
several corpora of noise each is drawn from equally often, however many it holds
(`benchmarks/noises.py` makes two), and so with speech, unless `--often` says otherwise
(`benchmarks/recorded_voices.py` and `benchmarks/morphed_readers.py` make more corpora); validation
hears the first alone. `--music` may name a corpus of stems, whose drums,
bass and other serve as noise, too. A folder makes it resumable: the same command goes on. The
network is trained without its floor, and written with it.
"""

import argparse
import math
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soxr
import torch
from bench.recipe import LONG
from torch import Tensor
from torch.utils.data import Dataset

import sepbook
from sepbook.engine.corpora import Corpus
from sepbook.engine.weights import save
from sepbook.learner import Learner
from sepbook.models.denoiser import LiveDenoiser

RATE, SPEEDS = 16000, (1.0, 0.82, 0.9, 1.1, 1.22)


def integers(wav: np.ndarray) -> np.ndarray:
    """16 bits, which take half the room."""
    return (32767 * wav.clip(-1, 1)).astype(np.int16)


def rms(wav: np.ndarray) -> float:
    """Root of the mean square."""
    return float(np.sqrt(np.mean(np.square(wav, dtype=np.float64)))) + 1e-9


def voices(corpus: Corpus, speeds: tuple[float, ...]) -> list[np.ndarray]:
    """Every reading at several speeds, by resampling: pitch and vocal tract change with it."""
    waves = [corpus[i][0].numpy() for i in range(len(corpus))]
    waves = [0.7 * wav / np.abs(wav).max() for wav in waves]
    return [
        integers(wav if s == 1 else soxr.resample(wav, RATE * s, RATE))
        for s in speeds
        for wav in waves
    ]


def convolved(wav: np.ndarray, response: np.ndarray) -> np.ndarray:
    """The same length, filtered."""
    n = len(wav) + len(response)
    return np.fft.irfft(np.fft.rfft(wav, n) * np.fft.rfft(response, n), n)[: len(wav)]


def coloured(wav: np.ndarray, rng: np.random.Generator, spread: float) -> np.ndarray:
    """A random smooth equaliser; `spread` in dB."""
    spec = np.fft.rfft(wav)
    gain = np.interp(
        np.linspace(0, 1, len(spec)) ** 0.5, np.linspace(0, 1, 9), rng.normal(0, spread, 9)
    )
    return np.fft.irfft(spec * 10 ** (gain / 20), len(wav))


def spectrum(wav: np.ndarray) -> np.ndarray:
    """The power of 257 frequencies, smooth: a mean over the time."""
    frames = np.lib.stride_tricks.sliding_window_view(wav, 512)[::256] * np.hanning(512)
    power = np.square(np.abs(np.fft.rfft(frames))).mean(0)
    return np.convolve(np.pad(power, 4, "edge"), np.ones(9) / 9, "valid") + 1e-12


def recoloured(wav: np.ndarray, other: np.ndarray) -> np.ndarray:
    """What happens in one noise, with the spectrum of another; no frequency moves by over 24 dB."""
    wav, other = wav / rms(wav), other / rms(other)
    gain = np.clip(10 * np.log10(spectrum(other) / spectrum(wav)), -24, 24)
    spec = np.fft.rfft(wav)
    gain = np.interp(np.linspace(0, 256, len(spec)), np.arange(257), gain)
    return np.fft.irfft(spec * 10 ** (gain / 20), len(wav))


class NoisySpeech(Dataset):
    """Items (mix, (speech, noise)); `plain` ones have recorded noise only, and nothing changed.

    `speech` holds the waves of each corpus, `noise` the noises; a corpus is drawn from as often as
    any other.
    """

    sample_rate, channels, sources = RATE, 1, ("speech", "noise")

    def __init__(
        self, speech, noise, music=(), seconds=3.0, size=800, seed=0, snr=(-5, 20), plain=False
    ):
        self.speech, self.noise, self.music = speech, noise, music
        self.n, self.size, self.seed, self.snr, self.plain = (
            round(seconds * RATE),
            size,
            seed,
            snr,
            plain,
        )
        self.epoch = 0

    def __len__(self) -> int:
        return self.size

    def set_epoch(self, epoch: int) -> None:
        """Other items from now on."""
        self.epoch = epoch

    def cut(self, wav: np.ndarray, rng, n: int | None = None) -> np.ndarray:
        """A random passage; what is too short is repeated."""
        n = n or self.n
        wav = np.tile(wav, n // len(wav) + 1) if len(wav) < n else wav
        start = int(rng.integers(len(wav) - n + 1))
        return wav[start : start + n].astype(np.float32) / 32768

    def voice(self, rng) -> np.ndarray:
        """A reader, with pauses where the reading is short."""
        corpus = self.speech[rng.integers(len(self.speech))]
        wav = corpus[rng.integers(len(corpus))]
        if len(wav) >= self.n:
            return self.cut(wav, rng)
        gap = np.zeros(int(rng.integers(8000)), np.int16)
        line = np.concatenate([wav, gap])
        line = np.tile(line, self.n // len(line) + 1)[: self.n]
        return np.roll(line, int(rng.integers(self.n))).astype(np.float32) / 32768

    def passage(self, rng, n: int | None = None) -> np.ndarray:
        """Of a noise of one of the corpora."""
        corpus = self.noise[rng.integers(len(self.noise))]
        return self.cut(corpus[rng.integers(len(corpus))], rng, n)

    def recorded(self, rng) -> np.ndarray:
        """A recorded noise: slower or faster, backwards, coloured, or as another noise is."""
        if self.plain:
            return self.passage(rng)
        speed = rng.uniform(0.7, 1.4)
        wav = self.passage(rng, math.ceil(self.n * speed) + 1)
        wav = np.interp(np.arange(self.n) * speed, np.arange(len(wav)), wav)
        wav = wav[::-1] if rng.random() < 0.3 else wav
        draw = rng.random()
        if draw < 0.3:
            wav = recoloured(wav, self.passage(rng))
        return coloured(wav, rng, 5) if 0.2 < draw < 0.8 else wav

    def made(self, rng) -> np.ndarray:
        """Coloured noise, hum, knocks or babble."""
        kind, where = rng.choice(4), np.arange(self.n)
        if kind == 0:
            wav = coloured(rng.normal(size=self.n), rng, 14)
            points = int(rng.integers(2, 40))
            level = np.interp(where, np.linspace(0, self.n, points), rng.normal(0, 6, points))
            return wav * 10 ** (level / 20) if rng.random() < 0.6 else wav
        if kind == 1:
            drift = np.interp(where, np.linspace(0, self.n, 6), rng.normal(size=6))
            phase = 2 * np.pi * np.cumsum(rng.uniform(40, 400) * (1 + 0.02 * drift)) / RATE
            tilt = rng.uniform(0.3, 1.5)
            tones = [
                rng.exponential() / h**tilt * np.sin(h * phase + rng.uniform(0, 6))
                for h in range(1, 13)
            ]
            return sum(tones) + 0.1 * rng.normal(size=self.n)
        if kind == 2:
            wav, count = np.zeros(self.n), int(rng.integers(3, 60))
            wav[rng.integers(0, self.n, count)] = rng.normal(size=count) * rng.exponential(
                size=count
            )
            decay = np.exp(-np.arange(3200) / rng.uniform(30, 900)) * rng.normal(size=3200)
            wav = coloured(convolved(wav, decay), rng, 10)
            return wav + 10 ** rng.uniform(-3, -1.5) * rng.normal(size=self.n)
        return sum(self.voice(rng) for _ in range(rng.integers(3, 9)))

    def noises(self, rng) -> np.ndarray:
        """One noise, or two."""
        draw = rng.random()
        if self.plain or draw < 0.6:
            wav = self.recorded(rng)
        elif draw < 0.92 or not self.music:
            wav = self.made(rng)
        else:
            wav = self.cut(self.music[rng.integers(len(self.music))], rng)
        if not self.plain and rng.random() < 0.25:
            other = self.recorded(rng)
            wav = wav / rms(wav) + other / rms(other) * 10 ** rng.uniform(-1, 0)
        return wav

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        rng = np.random.default_rng([self.seed, self.epoch, i])
        speech, noise = self.voice(rng), self.noises(rng)
        if not self.plain and rng.random() < 0.3:
            speech = coloured(speech, rng, 3)
        if not self.plain and rng.random() < 0.2:  # a room
            room = np.exp(-np.arange(8000) / rng.uniform(400, 2500)) * rng.normal(size=8000) * 0.06
            room[0] = 1
            speech = convolved(speech, room)
        speech = speech * (10 ** (rng.uniform(-32, -18) / 20) / rms(speech))
        snr = 40.0 if not self.plain and rng.random() < 0.04 else rng.uniform(*self.snr)
        noise = noise / rms(noise) * rms(speech) * 10 ** (-snr / 20)
        src = torch.from_numpy(np.stack([speech, noise]).astype(np.float32))[:, None]
        return src.sum(0), src


def recordings(corpus: Corpus, wanted: Callable[[dict], bool]) -> list[np.ndarray]:
    """The sounds of the rows that are wanted."""
    chosen = corpus.subset(wanted)
    return [integers(chosen[i][0].numpy()) for i in range(len(chosen))]


def accompaniments(path: Path | None, most: int = 30) -> list[np.ndarray]:
    """What plays behind the singer, at 16 kHz."""
    if path is None:
        return []
    corpus, songs = Corpus(path, sample_rate=RATE, channels=1), {}
    for i, row in enumerate(corpus.rows):
        if row["stem"] != "vocals" and (row["excerpt"] in songs or len(songs) < most):
            songs.setdefault(row["excerpt"], []).append(corpus[i][0].numpy())
    return [integers(sum(parts)) for parts in songs.values()]


def validation(speech: Corpus, noise: list[Corpus], people: set[str], kinds: set[str]) -> list:
    """Sixty mixtures of the readers and noises that are kept apart."""
    unseen = voices(speech.subset(lambda row: row["speaker"] in people), (1.0,))
    apart = [recordings(corpus, lambda row: row["file"] in kinds) for corpus in noise]
    apart = list(filter(None, apart))
    items = NoisySpeech([unseen], apart, seconds=4.0, size=60, seed=7, snr=(0, 10), plain=True)
    return [items[i] for i in range(60)]


def grown(small: LiveDenoiser, hidden: int) -> LiveDenoiser:
    """The same function in a wider network: nothing old reads the new units, which start at random.

    What they say counts as soon as `back` and the old units have learned to read them (the idea of
    Net2Net: Chen, Goodfellow and Shlens, 2016, arXiv:1511.05641).
    """
    large = LiveDenoiser(**small.config | {"hidden": hidden})
    old, new = small.state_dict(), large.state_dict()
    had = small.config["hidden"]
    if hidden < had:
        raise ValueError(
            f"hidden is {hidden}, but the network has {had} units; give as many or more"
        )
    for name, weight in new.items():
        if name.startswith("rnn."):  # (gate and unit, what is read)
            gates, before = weight.unflatten(0, (4, hidden)), old[name].unflatten(0, (4, had))
            if weight.ndim == 2:
                gates[:, :had] = 0
                gates[:, :had, : before.shape[-1]] = before
            else:
                gates[:, :had] = before
        elif name == "back.weight":
            weight.zero_()[:, :had] = old[name]
        else:
            weight.copy_(old[name])
    return large


def main() -> None:
    """Train, resume, save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--speech", type=Path, nargs="+", required=True, help="corpora")
    parser.add_argument(
        "--often",
        type=int,
        nargs="+",
        default=[],
        help="how often each corpus of speech is drawn (1)",
    )
    parser.add_argument("--noise", type=Path, nargs="+", required=True, help="one or more corpora")
    parser.add_argument("--music", type=Path)
    parser.add_argument("--readers-out", type=Path, required=True, help="a list of speakers")
    parser.add_argument("--noises-out", type=Path, required=True, help="a list of files")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--init", help="weights to go on with")
    parser.add_argument("--hidden", type=int, help="units of a recurrent layer; it may grow")
    parser.add_argument(
        "--spectral", type=float, default=30.0, help="weight of the spectra in the loss"
    )
    parser.add_argument("--floor", type=float, default=0.03, help="of the network that is written")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--batch", type=int, default=8, help="items of a step")
    parser.add_argument("--minutes", type=float, default=45)
    parser.add_argument("--folder", default=None, help="of checkpoints")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    people, kinds = (set(p.read_text().split()) for p in (args.readers_out, args.noises_out))
    speech = [Corpus(path, sample_rate=RATE, channels=1) for path in args.speech]
    noise = [Corpus(path, sample_rate=RATE, channels=1) for path in args.noise]
    known = [recordings(corpus, lambda row: row["file"] not in kinds) for corpus in noise]
    known = list(filter(None, known))
    heard = [corpus.subset(lambda row: row["speaker"] not in people) for corpus in speech]
    if len(args.often) > len(heard):
        parser.error(f"--often has {len(args.often)} numbers for {len(heard)} corpora of speech")
    often = args.often + [1] * (len(heard) - len(args.often))
    seen = [waves for n, c in zip(often, heard) for waves in n * [voices(c, SPEEDS)]]
    model = sepbook.load(args.init) if args.init else LiveDenoiser(hidden=args.hidden or 256)
    if args.hidden and args.hidden != model.config["hidden"]:
        model = grown(model, args.hidden)
    model.floor = 0.0  # learning is to get along without
    model.to(memory_format=torch.channels_last)  # a tenth faster, the same numbers
    learner = Learner(
        model,
        NoisySpeech(seen, known, accompaniments(args.music), seed=args.seed),
        validation(speech[0], noise, people, kinds),
        batch_size=args.batch,
        loss=lambda model, mix, src: model.loss(mix, src, args.spectral),
        lr=args.lr,
        seed=args.seed,
        folder=args.folder,
        **LONG,
    )
    learner.fit(minutes=args.minutes)
    recorded = f"{sum(map(len, known))} recorded noises"
    readers, *others = (len({row["speaker"] for row in corpus.rows}) for corpus in heard)
    others = f" and {sum(others)} other voices" if others else ""
    data = f"{readers} readers{others} at {len(SPEEDS)} speeds, {recorded}, made noises"
    story = {"data": data, "licence": "CC BY 4.0", "command": "python " + " ".join(sys.argv)}
    story["attribution"] = "LibriSpeech (c) 2014 Vassil Panayotov, from LibriVox recordings"
    for what, corpora in (("noises", noise), ("other voices", speech[1:])):
        licences = {row.get("licence") or "none stated" for c in corpora for row in c.rows}
        if licences:
            story[f"licences of the {what}"] = "; ".join(sorted(licences))
    best = type(model)(**model.config | {"floor": args.floor})
    best.load_state_dict(learner.best().state_dict())
    save(best, args.out, learner.card() | story, dtype="float16")


if __name__ == "__main__":
    main()
