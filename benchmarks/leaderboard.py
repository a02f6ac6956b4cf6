"""Every system on the same unseen clips, conversations, songs, made songs and noisy speech.

    python benchmarks/leaderboard.py DATA                 whatever has no row yet
    python benchmarks/leaderboard.py DATA --sets songs --systems nmf    these, anew

DATA holds `speech-train`, `music-stems` and `noise`, corpora as `sepbook.mixtures.Corpus` reads
them; sepbook/data lists the readers (speech_validation.txt) and the noises (noise_validation.txt)
that no training uses. Made songs of unseen styles are made in `--made` (DATA/made-unseen), where
the tools for it are. A system is a bound, a classical one, or the name of weights that ship. Rows
go to results/leaderboard.json after each measurement, so that it may be interrupted; one thread.

A song that a network was trained on, by its card, has no score in its row. Systems with a stem
"bass" are scored on the sum of bass and other, too, and the mean is over vocals, drums and that
sum, so that systems of three and of four stems compare.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import cached_property, partial
from itertools import permutations
from pathlib import Path

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import numpy as np  # noqa: E402
import torch  # noqa: E402
from torch import Tensor  # noqa: E402

import sepbook  # noqa: E402
from sepbook.conversations import Conversations, sa_sdr  # noqa: E402
from sepbook.engine.corpora import Corpus, preload  # noqa: E402
from sepbook.engine.files import resample  # noqa: E402
from sepbook.engine.race import compact  # noqa: E402
from sepbook.leaderboard import SETS, interval, statistic  # noqa: E402
from sepbook.masks import oracle  # noqa: E402
from sepbook.metrics import bss_eval_v4, si_sdr  # noqa: E402
from sepbook.zoo import available, read_card  # noqa: E402

HERE = Path(__file__).resolve().parent
READERS = HERE.parent / "sepbook" / "data" / "speech_validation.txt"
NOISES = READERS.with_name("noise_validation.txt")
OUT = HERE.parent / "results" / "leaderboard.json"
SEED, CLIPS, TALKS, NOISY, MADE = 21, 100, 4, 63, 8
TALK, PART = 120, (15, 45)  # seconds of a conversation; seconds of a song's excerpt that count
SPEECH, STEMS = ("clips", "conversations", "three voices"), ("vocals", "drums", "other")
BOUNDS = {"binary mask (oracle)": "ibm", "ratio mask (oracle)": "irm"}
BOUNDS |= {"phase-sensitive mask (oracle)": "psm"}
CHAPTERS = {"ConvTasNet": "43", "DPRNN": "44", "SepFormer": "45", "TasNet": "42", "UPIT": "23"}
CHAPTERS |= {"DeepClustering": "22", "Chimera": "22", "SecondLook": "49", "BSRNN": "61"}
CHAPTERS |= dict.fromkeys(("FeedForwardMask", "RecurrentMask", "OpenUnmix"), "21")
CHAPTERS |= dict.fromkeys(("Demucs", "HDemucs", "HTDemucs"), "46")
CHAPTERS |= {"LiveDenoiser": "30", "UNet": "24", "Spleeter": "24", "WaveUNet": "41"}


# What is measured on


@dataclass
class Item:
    """A mixture, its sources, and who is heard in it."""

    mix: Tensor  # (1, time)
    src: Tensor  # (source, 1, time)
    groups: tuple[str, ...]  # speakers, or the song


@dataclass
class Set:
    """Items that every system is asked to separate."""

    name: str
    rate: int  # Hz
    sources: tuple[str, ...]
    make: Callable[[], list[Item]]
    told: str  # how the items are drawn

    @cached_property
    def items(self) -> list[Item]:
        return self.make()

    @property
    def songs(self) -> bool:
        return SETS[self.name][2] == "songs"


def names_in(path: Path) -> list[str]:
    """The lines of a file, without remarks."""
    lines = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def readers(data: Path, rate: int) -> Corpus:
    """The readers that no training used."""
    kept = names_in(READERS)
    corpus = Corpus(data / "speech-train", sample_rate=rate, channels=1)
    return preload(corpus.subset(lambda row: row["speaker"] in kept), level=None)


def talk(data: Path, seconds: float, size: int, together: float, n_src: int = 2) -> list[Item]:
    """Unseen readers, who speak all along or in turns."""
    how = {"together": together, "alone": 0, "n_src": n_src}
    made, items = Conversations(readers(data, 8000), seconds, size, SEED, **how), []
    for i in range(size):
        rng = np.random.default_rng([SEED, 0, i])
        rng.random()  # the kind of the item
        items.append(Item(*made[i], made.draw_people(rng)))
    return items


def real_songs(data: Path) -> list[Item]:
    """The excerpts of real songs."""
    corpus, found = Corpus(data / "music-stems", sample_rate=22050, channels=1), {}
    for k, row in enumerate(corpus.rows):
        found.setdefault((row["excerpt"], row["song"]), {})[row["stem"]] = k
    a, b = (22050 * second for second in PART)
    whole = [song(corpus, stems, name) for (_, name), stems in found.items()]
    return [Item(one.mix[..., a:b], one.src[..., a:b], one.groups) for one in whole]


def song(corpus: Corpus, stems: dict[str, int], name: str) -> Item:
    """Vocals, drums, and the sum of whatever else there is."""
    rest = sum(corpus[k] for stem, k in stems.items() if stem not in STEMS[:2])
    src = torch.stack([corpus[stems["vocals"]], corpus[stems["drums"]], rest])
    return Item(src.sum(0), src, (name,))


def made_songs(data: Path, folder: Path) -> list[Item]:
    """Songs made of styles, sounds and voices that no training has; made here if need be."""
    if not (folder / "index.csv").is_file():
        from sepbook.songs import write_songs

        write_songs(folder, MADE, readers(data, 16000), unseen=True, progress=False)
    corpus, found = Corpus(folder, sample_rate=22050, channels=1), {}
    for k, row in enumerate(corpus.rows):
        found.setdefault(row["excerpt"], {})[row["stem"]] = k
    return [song(corpus, stems, name) for name, stems in list(found.items())[:MADE]]


def noisy(data: Path) -> list[Item]:
    """Four seconds of an unseen reader in an unseen noise, -5 to 10 dB below or above it."""
    voices, items = readers(data, 16000), []
    kept = names_in(NOISES)
    noises = Corpus(data / "noise", sample_rate=16000, channels=1)
    noises = noises.subset(lambda row: row["file"] in kept)
    for i in range(NOISY):
        rng, frames, both = np.random.default_rng([SEED, 1, i]), 64000, []
        for corpus, k in ((voices, i % len(voices)), (noises, i % len(noises))):
            spare = corpus.length(k) - frames
            wav = corpus.read(k, int(rng.integers(spare + 1)) if spare > 0 else 0, frames)
            wav = torch.from_numpy(np.resize(wav.numpy(), (1, frames)))
            both.append(wav * (0.05 / wav.square().mean().sqrt()))
        src = torch.stack([both[0], both[1] * 10 ** (-rng.uniform(-5, 10) / 20)])
        items.append(Item(src.sum(0), src, (voices.rows[i % len(voices)]["speaker"],)))
    return items


def all_sets(data: Path, made: Path) -> dict[str, Set]:
    """Every set, unread."""
    two, three = ("s1", "s2"), ("s1", "s2", "s3")
    clip = f"{CLIPS} pairs of unseen readers, 4 s, levels within 5 dB, as many pairs of one sex"
    turns = f"{TALKS} conversations of unseen readers, {TALK // 60} min, turns, pauses and overlaps"
    more = f"{CLIPS} times three unseen readers, 4 s, levels within 5 dB, half of one sex"
    real = f"{PART[1] - PART[0]} s of eight excerpts of five real songs (CC0), bass in other"
    new = f"{MADE} songs of styles, sounds and singers that no training has, bass in other"
    noise = f"{NOISY} clips of unseen readers, 4 s, in four unseen noises, -5 to 10 dB"
    sets = [
        Set("clips", 8000, two, partial(talk, data, 4, CLIPS, 1), clip),
        Set("conversations", 8000, two, partial(talk, data, TALK, TALKS, 0), turns),
        Set("three voices", 8000, three, partial(talk, data, 4, CLIPS, 1, 3), more),
        Set("songs", 22050, STEMS, partial(real_songs, data), real),
        Set("made songs", 22050, STEMS, partial(made_songs, data, made), new),
        Set("noisy speech", 16000, ("speech", "noise"), partial(noisy, data), noise),
    ]
    return {one.name: one for one in sets}


# What is measured


@dataclass
class System:
    """Something that separates, and what is known of it."""

    name: str
    kind: str
    run: Callable[[Item, Set], dict[str, Tensor] | Tensor]  # estimates in order, or by name
    sets: tuple[str, ...]
    chapter: str = ""
    about: dict = field(default_factory=dict)  # parameters, megabytes, minutes, ...
    seen: frozenset[str] = frozenset()  # songs that it was trained on


def by_mask(mask: str, n_fft: int, item: Item, one: Set) -> Tensor:
    """An oracle: the mask is made of the true sources."""
    return oracle(item.mix, item.src, mask, n_fft=n_fft)


def repeating(item: Item, one: Set) -> dict[str, Tensor]:
    """Drums are what is percussive; in the rest, vocals are what does not come again."""
    from sepbook.classical.repet import HPSSRepet

    model = HPSSRepet(one.rate, channels=1)
    return dict(zip(model.sources, model(item.mix[None])[0]))


def by_gain(rule: str, item: Item, one: Set) -> Tensor:
    """A denoiser that needs no training: a gain for each cell, from an estimate of the noise."""
    from sepbook.classical.denoising import Denoiser

    return Denoiser(rule, sample_rate=one.rate)(item.mix[None])[0]


class Factors:
    """NMF with a dictionary for each stem, learnt from the songs that are not separated."""

    def __init__(self, real: Set):
        self.real, self.known = real, {}

    def __call__(self, item: Item, one: Set) -> Tensor:
        from sepbook.classical.nmf import NMFSeparator

        (name,) = item.groups
        if name not in self.known:
            rest = [one for one in self.real.items if one.groups != item.groups]
            parts = [one.src[..., 5 * 22050 : 11 * 22050] for one in rest]  # 6 s of each
            nmf = NMFSeparator(22050, 1, STEMS, rank=30, n_iter=50)
            self.known[name] = nmf.fit(torch.cat(parts, -1))
        return self.known[name].separate(item.mix)


def at_rate(model, mix: Tensor, rate: int) -> dict[str, Tensor]:
    """A network's estimates of a mono mixture at a rate that need not be its own."""
    wav = resample(mix, rate, model.sample_rate).expand(model.channels, -1)
    with torch.no_grad():
        est = model(wav[None])[0].mean(1, keepdim=True)
    est = resample(est, model.sample_rate, rate)
    est = torch.nn.functional.pad(est, (0, max(0, mix.shape[-1] - est.shape[-1])))
    return dict(zip(model.sources, est[..., : mix.shape[-1]]))


def through_separate(model, mix: Tensor, rate: int) -> dict[str, Tensor]:
    """A long recording, as the package separates it."""
    return sepbook.separate(model, mix, sample_rate=rate, progress=False)


def network(
    weights: str | Path,  # a name, or a file
    kind: str,
    sets: dict[str, Set],
    name: str | None = None,
    cls: type | None = None,  # of a network that is not part of sepbook
) -> System:
    """A trained network, with what its card says."""
    model, card = sepbook.load(str(weights), cls=cls).eval(), read_card(str(weights))
    where = Path(weights)
    file = where if where.suffix else HERE.parent / "sepbook/weights" / f"{weights}.safetensors"
    speech = "vocals" not in model.sources and "noise" not in model.sources
    fit = ("clips", "conversations") if speech else ("songs", "made songs")
    fit = ("three voices",) if speech and len(model.sources) == 3 else fit
    fit = ("noisy speech",) if "noise" in model.sources else fit
    seconds = card.get("seconds_trained", 0) + earlier_network(card)
    about = {"model": where.stem, "parameters": sum(p.numel() for p in model.parameters())}
    about |= {"megabytes": round(file.stat().st_size / 1e6, 2), "minutes": round(seconds / 60, 1)}
    about |= {"device": card.get("device"), "trained on": card.get("data")}
    chapter = CHAPTERS.get(type(model).__name__, "")
    # a network that is made for segments of one length gets them, as everywhere
    parts = {"conversations"} if getattr(model, "segment", None) is None else set(fit)
    how = lambda one: through_separate if one.name in parts else at_rate
    run = lambda item, one: how(one)(model, item.mix, one.rate)
    seen = seen_songs(card, sets["songs"]) if fit[0] == "songs" else frozenset()
    if speech:
        check_unseen(card, where.stem)
    return System(name or where.stem, kind, run, fit, chapter, about, seen)


def earlier_network(card: dict) -> float:
    """Seconds of other networks that this one began with.

    A network's own count shrinks further back in its story; where it grows, another one's begins.
    """
    seconds, last = 0, card.get("seconds_trained", 0)
    while card := card.get("before"):
        now = card.get("seconds_trained", 0)
        seconds += now if now > last else 0
        last = now
    return seconds


def seen_songs(card: dict, songs: Set) -> frozenset[str]:
    """The real songs that a network may have been trained on: all but those kept apart."""
    apart = set(card.get("evaluation", {}).get("names", ()))
    apart |= set(card.get("left_out", ()))
    said = str(card.get("data", ""))
    names = {item.groups[0] for item in songs.items}
    if card.get("songs_seen") is not None:
        return frozenset(card["songs_seen"])
    return frozenset(name for name in names if name not in apart and f"apart: {name}" not in said)


def check_unseen(card: dict, name: str) -> None:
    """Stop if a card does not say that the readers here were kept apart."""
    apart = set(card.get("evaluation", {}).get("names", ()))
    if missing := sorted(set(names_in(READERS)) - apart):
        sys.exit(f"{name}: its card does not keep reader {missing[0]} apart; leave it out")


def all_systems(sets: dict[str, Set]) -> dict[str, Callable[[], System]]:
    """Every system by name, made when it is measured."""
    speech, music = (*SPEECH, "noisy speech"), ("songs", "made songs")
    same = lambda item, one: item.mix.expand_as(item.src)
    found = {"mixture": lambda: System("the mixture itself", "bound", same, tuple(SETS))}
    for name, mask in BOUNDS.items():
        for fit, n_fft in ((speech, 512), (music, 2048)):
            key = f"{mask} of {'speech' if fit is speech else 'music'}"
            run = partial(by_mask, mask, n_fft)
            found[key] = partial(System, name, "bound", run, fit, "03")
    found["hpss-repet"] = lambda: System("HPSS + REPET-SIM", "classical", repeating, music, "11")
    nmf = "NMF, dictionaries of other songs"
    found["nmf"] = lambda: System(nmf, "classical", Factors(sets["songs"]), music, "13")
    for key, rule in {"wiener": "Wiener filter", "log-mmse": "log-MMSE"}.items():
        found[key] = partial(
            System, rule, "classical", partial(by_gain, key), ("noisy speech",), "10"
        )
    for name in available().index:
        if (HERE.parent / "sepbook/weights" / f"{name}.safetensors").exists():
            found[name] = partial(network, name, "shipped", sets)
    return found


# Scores


def in_order(est: Tensor, src: Tensor) -> Tensor:
    """Voices in the one order that suits the whole recording."""
    orders = [est[list(order)] for order in permutations(range(len(est)))]
    return max(orders, key=lambda est: float(sa_sdr(est, src)))


def speech_score(one: Set, est: dict | Tensor, item: Item) -> dict[str, float]:
    """SI-SDR gain: of all voices in one order, or of the speech in noise."""
    if isinstance(est, dict):
        est = torch.stack([torch.as_tensor(wav).reshape(1, -1) for wav in est.values()])
    if one.sources[0] == "s1":
        est, part = in_order(est, item.src), slice(None)
    else:
        part = slice(0, 1)
    src = item.src[part]
    gain = si_sdr(est[part], src) - si_sdr(item.mix.expand_as(src), src)
    return {"all": float(gain.mean())}


def song_score(one: Set, est: dict | Tensor, item: Item) -> dict[str, float]:
    """SDR of vocals, drums and the rest: the median over frames in which all of them sound.

    A song without drums is a song of two stems.
    """
    if isinstance(est, dict):
        rest = sum(wav for name, wav in est.items() if name not in STEMS[:2])
        est = torch.stack([est["vocals"], est["drums"], rest])
    heard = [k for k, wav in enumerate(item.src) if wav.any()]
    frames = bss_eval_v4(est[heard], item.src[heard], one.rate, filter_length=1)[0]
    found = dict(zip([STEMS[k] for k in heard], frames.nanmedian(1).values.tolist()))
    return {"all": sum(found.values()) / len(found)} | found


def mean_of(values: Sequence[float | None]) -> float | None:
    """The mean of what is there."""
    there = [value for value in values if value is not None]
    return sum(there) / len(there) if there else None


def per_song(one: Set, values: Sequence) -> list:
    """Items of one song become one, by their mean; other items stay."""
    found = {}
    for item, value in zip(one.items, values):
        found.setdefault(item.groups if one.songs else id(item), []).append(value)
    return [mean_of(v) for v in found.values()]


def groups_of(one: Set) -> list[list[str]]:
    """Who is heard in each item that has a score."""
    groups = [list(item.groups) for item in one.items]
    return [list(g) for g in dict.fromkeys(map(tuple, groups))] if one.songs else groups


def measure(system: System, one: Set) -> dict:
    """Everything of a row but its command."""
    scores, spent, length = [], 0.0, 0.0
    score = song_score if one.songs else speech_score
    for item in one.items:
        if one.name == "songs" and item.groups[0] in system.seen:
            scores.append(None)
            continue
        started = time.process_time()
        est = system.run(item, one)
        spent += time.process_time() - started
        length += item.mix.shape[-1] / one.rate
        scores.append(score(one, est, item))
    if not length:
        sys.exit(f"{system.name} was trained on all items of {one.name}; leave it out")
    names = dict.fromkeys(n for s in scores if s is not None for n in s)
    every = {n: per_song(one, [s and s.get(n) for s in scores]) for n in names}
    groups, values = groups_of(one), every.pop("all")
    low, high = interval(values, groups)
    had = [g for g, v in zip(groups, values) if v is not None]
    about = dict.fromkeys(("model", "parameters", "megabytes", "minutes", "device", "trained on"))
    row = {"set": one.name, "system": system.name, "chapter": system.chapter}
    row |= {"kind": system.kind} | about | system.about
    bound = system.kind == "bound"
    row |= {"speed": None if bound else round(length / max(spent, 1e-9), 1)}
    row |= {"score": round(mean_of(values), 3), "low": low and round(low, 3)}
    row |= {"high": high and round(high, 3), "statistic": statistic(one.name)}
    row |= {"items": len(had), "groups": len({n for g in had for n in g})}
    row |= {"scores": [v if v is None else round(v, 3) for v in values]}
    row |= {"parts": {n: round(mean_of(v), 2) for n, v in every.items()}}
    return row | {"command": "", "date": date.today().isoformat()}


# The file


def told(one: Set) -> dict:
    """What the file says of a set."""
    return {"items": one.told, "seed": SEED, "groups": groups_of(one), "of": SETS[one.name][2]}


def keep(path: Path, title: str, command: str, row: dict, one: Set) -> None:
    """Add a row to a file, in place of an older one of the same system, set and fold."""
    found = json.loads(path.read_text()) if path.exists() else {}
    same = lambda r: all(r.get(k) == row.get(k) for k in ("set", "system", "kind", "fold"))
    rows = [r for r in found.get("rows", []) if "set" in r and not same(r)] + [row]
    rows.sort(key=lambda r: (list(SETS).index(r["set"]), -r["score"]))
    sets = found.get("sets", {}) | {one.name: told(one)}
    lines = []
    for name in [n for n in SETS if n in sets]:
        own = [r for r in rows if r["set"] == name and r["kind"] != "bound"]
        if own:
            best = max(own, key=lambda r: r["score"])
            what = f"{name}: best {SETS[name][0]}, {best['system']}"
            lines.append({"what": what, "value": best["score"], "unit": "dB", "bar": ""})
    if not lines:
        lines = [{"what": "rows", "value": len(rows), "unit": "", "bar": ""}]
    out = {"title": title, "headline": lines, "command": command}
    out |= {"date": date.today().isoformat(), "device": "one CPU core", "sets": sets, "rows": rows}
    part = path.with_suffix(".part")
    part.write_text(compact(out), encoding="utf-8")
    part.replace(path)


def main() -> None:
    """Measure what is asked for, or what is missing."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder of the corpora")
    parser.add_argument("--sets", nargs="*", choices=list(SETS), help="only these")
    parser.add_argument("--systems", nargs="*", help="only these, anew")
    parser.add_argument("--made", type=Path, help="folder of made songs (DATA/made-unseen)")
    parser.add_argument("--out", type=Path, default=OUT, help="where the rows go")
    args = parser.parse_args()
    torch.set_num_threads(1)
    sets = all_sets(args.data, args.made or args.data / "made-unseen")
    known = all_systems(sets)
    if unknown := sorted(set(args.systems or ()) - set(known)):
        sys.exit(f"no system {unknown[0]!r}; there are {', '.join(known)}")
    rows = json.loads(args.out.read_text()).get("rows", []) if args.out.exists() else []
    have = {(r.get("set"), r.get("key")) for r in rows}
    for name in args.sets or SETS:
        for key in args.systems or known:
            if not args.systems and (name, key) in have:
                continue
            system = known[key]()
            if name not in system.sets:
                continue
            row = measure(system, sets[name])
            quoted = f'"{name}"' if " " in name else name
            asked = f'"{key}"' if " " in key else key
            row["command"] = (
                f"python benchmarks/leaderboard.py DATA --sets {quoted} --systems {asked}"
            )
            title = "Every system on the same unseen recordings"
            keep(
                args.out,
                title,
                "python benchmarks/leaderboard.py DATA",
                row | {"key": key},
                sets[name],
            )
            print(
                name, row["system"], row["score"], row["low"], row["high"], row["speed"], flush=True
            )


if __name__ == "__main__":
    main()
