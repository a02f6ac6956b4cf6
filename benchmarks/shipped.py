"""The models that ship, on sounds that they have never heard.

    python benchmarks/shipped.py            writes results/shipped.json

The packaged voices are synthetic, and no model was trained on them or on the packaged song. The
figures on the readers and the song that were kept apart from training stand on each model's card;
`sepbook evaluate --as-card` repeats them where the data is.
"""

import time

import torch
from bench import ROOT, figure, save

from sepbook.metrics import evaluate
from sepbook.mixtures import Mixture, MixtureDataset, example_corpus, example_song
from sepbook.zoo import available, load, read_card

SIZE, SECONDS, SEED = 100, 4.0, 0


def voices(model) -> list:
    """Fixed mixtures of the packaged voices, levels within five decibels."""
    how = {"level": "active", "level_range": (-27.5, -22.5)}
    data = MixtureDataset(example_corpus(), len(model.sources), SECONDS, SIZE, SEED, **how)
    return [data[i] for i in range(SIZE)]


def song(model) -> list:
    """The packaged song in seconds 0 to 2, 2 to 4 and 4 to 6; what has no name counts as other."""
    whole = example_song(model.sample_rate, mono=model.channels == 1)
    stems = dict(zip(whole.sources, whole.src))
    rest = [stems[name] for name in stems if name not in model.sources]
    src = torch.stack([stems[n] + (sum(rest) if n == "other" else 0) for n in model.sources])
    parts = src.split(2 * model.sample_rate, -1)
    return [Mixture(part.sum(0), part, model.sources, model.sample_rate) for part in parts]


def row(name: str) -> dict:
    """One model: what it is, what it cost, what it gains, and how fast it is."""
    model, card = load(name), read_card(name)
    test = (song if "drums" in model.sources else voices)(model)
    length = sum(item[0].shape[-1] for item in test) / model.sample_rate
    started = time.perf_counter()
    gain = evaluate(model, test, ("si_sdri",), sample_rate=model.sample_rate)["si_sdri"]
    seconds = time.perf_counter() - started
    size = (ROOT / "sepbook/weights" / f"{name}.safetensors").stat().st_size
    return {
        "model": name,
        "sources": ", ".join(model.sources),
        "parameters": sum(p.numel() for p in model.parameters()),
        "megabytes": round(size / 1e6, 2),
        "trained on": card.get("data"),
        "minutes": round(card.get("seconds_trained", 0) / 60, 1),
        "device": card.get("device"),
        "seed": card.get("seed"),
        "kept apart: SI-SDR gain": round(card["scores"]["si_sdri"], 2),
        "packaged: SI-SDR gain": round(float(gain.mean()), 2),
        "seconds per minute of audio": round(seconds * 60 / length, 2),
    }


def headline(r: dict) -> list[dict]:
    """What the home page says of a model."""
    name, scores = r["model"], read_card(r["model"])["scores"]
    told = [(f"{name}: SI-SDR gain on sounds kept apart", r["kept apart: SI-SDR gain"], "")]
    if "drums" in r["sources"]:
        for stem in r["sources"].split(", "):
            gain, ci = scores[f"{stem}_sdri"], scores[f"{stem}_sdri_ci"]
            told.append((f"the same: SDR gain of the {stem} (± {ci:.1f} dB)", gain, "above 0"))
    return [figure(what, round(value, 2), "dB", bar) for what, value, bar in told]


def main() -> None:
    torch.set_num_threads(2)
    rows = [row(name) for name in available().index]
    for line in rows:
        print(*line.values(), sep="\t")
    save(
        "The models that ship: SI-SDR gain on sounds unseen in training",
        [told for r in rows for told in headline(r)],
        "python benchmarks/shipped.py",
        "2 CPU cores",
        mixtures=f"voices: {SIZE} of {SECONDS:g} s, seed {SEED}, levels within 5 dB",
        rows=rows,
    )


if __name__ == "__main__":
    main()
