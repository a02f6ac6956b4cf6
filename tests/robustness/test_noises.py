"""Noises out of packages, and the training that draws from several corpora of them."""

import csv
import io
import shutil
import subprocess
import sys
import zipfile
from collections import Counter

import numpy as np
import pytest
import soundfile as sf
import torch
from course import ROOT

from sepbook.engine.corpora import Corpus
from sepbook.models.denoiser import LiveDenoiser

sys.path.insert(0, str(ROOT / "benchmarks"))
noises = pytest.importorskip("noises")
train_denoiser = pytest.importorskip("train_denoiser")
average_denoisers = pytest.importorskip("average_denoisers")
RNG = np.random.default_rng(3)


def wav(seconds: float, rate: int = 8000, level: float = 0.1) -> bytes:
    """A WAV file of noise."""
    file = io.BytesIO()
    sf.write(file, level * RNG.normal(size=(round(seconds * rate), 2)), rate, format="WAV")
    return file.getvalue()


def cat(titles: list[str], sounds: list[bytes]) -> bytes:
    """A sound set of OpenTTD."""
    entries = [
        bytes([len(title) + 1]) + title.encode("latin-1") + b"\0" + sound
        for title, sound in zip(titles, sounds)
    ]
    table, place = b"", 8 * len(entries)
    for entry, sound in zip(entries, sounds):
        table += (place | 1 << 31).to_bytes(4, "little") + len(sound).to_bytes(4, "little")
        place += len(entry)
    return table + b"".join(entries)


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="needs Debian's dpkg-deb")
def test_a_package_becomes_recordings_and_effects(tmp_path, monkeypatch):
    tree, steps = tmp_path / "tree", [wav(0.6), wav(0.8)]
    place, control = tree / "usr/share/game/sounds", tree / "DEBIAN/control"
    for folder in (place, control.parent):
        folder.mkdir(parents=True)
    control.write_text(
        "Package: game\nVersion: 1-2\nArchitecture: all\nMaintainer: a <a@b>\nDescription: x\n"
    )
    told = {"rain_01.wav": wav(12), "forest.wav": wav(70), "step1.wav": steps[0]}
    told |= {"step2.wav": steps[1], "step3.wav": steps[0], "click.wav": wav(0.2)}
    told |= {"silence.wav": wav(2, level=0), "music-1.wav": wav(11), "broken.wav": b"RIFF"}
    for name, data in told.items():
        (place / name).write_bytes(data)
    with zipfile.ZipFile(place / "more.pk3", "w") as archive:
        archive.writestr("Doors/openGate3.wav", wav(1))
    (place / "set.cat").write_bytes(cat(['"Bus start/stop". By X.'], [wav(0.5)]))
    build = ["dpkg-deb", "--build", str(tree), str(tmp_path / "game_1-2_all.deb")]
    subprocess.run(build, check=True, capture_output=True)
    monkeypatch.setattr(
        noises, "PACKAGES", {"game": noises.Package("1-2", "CC0 1.0", "sounds/", "music")}
    )
    out = tmp_path / "out"
    monkeypatch.setattr(sys, "argv", ["noises.py", str(out), "--packages", str(tmp_path)])
    noises.main()

    long = Corpus(out / "recordings", sample_rate=16000, channels=1)
    seconds = {row["content"].split(".")[0]: float(row["seconds"]) for row in long.rows}
    assert seconds == {"rain": pytest.approx(12, abs=0.1), "forest": pytest.approx(60, abs=0.1)}
    short = Corpus(out / "effects", sample_rate=16000, channels=1)
    assert {row["content"] for row in short.rows} == {"step", "open", "bus-start-stop"}
    for i, row in enumerate(short.rows):
        track = short[i][0]
        assert len(track) == 20 * 16000 and row["licence"] == "CC0 1.0"
        assert 20 * track.square().mean().sqrt().log10() == pytest.approx(-26, abs=0.1)
    with open(out / "effects" / "sources.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    used = Counter(row["file"].split(".")[1] for row in rows)
    assert used == {"step": 2, "open": 1, "bus-start-stop": 1}  # nothing twice
    assert all((row["package"], row["version"]) == ("game", "1-2") for row in rows)


def test_a_track_of_effects_holds_each_of_them_and_is_filled():
    clips = [np.full(n, k, float) for k, n in ((1, 4000), (2, 9000))]
    track = noises.track(clips, np.random.default_rng(0))
    assert len(track) == noises.LEAST * noises.RATE
    silent = np.flatnonzero(np.diff(np.flatnonzero(track)) > 0.25 * noises.RATE + 1)
    assert not len(silent) and (track != 0).mean() > 0.7
    twice = noises.track(clips, np.random.default_rng(0))
    assert (track == twice).all()


def test_every_corpus_is_drawn_from_equally_often():
    corpora = [[np.full(9000, k, np.int16)] * size for k, size in ((3000, 1), (9000, 40))]
    items = train_denoiser.NoisySpeech(corpora, corpora, seconds=0.5, plain=True)
    rng = np.random.default_rng(1)
    for draw in (items.recorded, items.voice):
        levels = Counter(round(float(draw(rng)[0]) * 32768) for _ in range(400))
        assert set(levels) == {3000, 9000} and abs(levels[3000] - 200) < 50


def test_a_grown_network_is_the_same_function_and_can_use_its_new_units():
    torch.manual_seed(0)
    small = LiveDenoiser(hidden=12, floor=0.03).eval()
    large, mix = train_denoiser.grown(small, 20).eval(), torch.randn(1, 1, 8000)
    with torch.no_grad():
        torch.testing.assert_close(large(mix), small(mix), rtol=0, atol=0)
    assert large.config == small.config | {"hidden": 20}
    large.loss(mix, torch.stack([mix, 0 * mix], 1)).backward()
    assert large.back.weight.grad[:, 12:].abs().min() > 0
    with pytest.raises(ValueError, match="12 units"):
        train_denoiser.grown(small, 8)


def test_the_folds_of_noises_hold_each_noise_once():
    lists = [path.read_text().split() for path in sorted((ROOT / "benchmarks/folds").glob("*.txt"))]
    named = [name for names in lists for name in names]
    assert len(lists) == 4 and len(named) == len(set(named)) == 21
    apart = (ROOT / "sepbook/data/noise_validation.txt").read_text().split()
    assert set(apart) <= set(named)


def test_a_noise_takes_on_the_spectrum_of_another():
    rng = np.random.default_rng(3)
    loud = np.repeat(rng.uniform(0.2, 2, 30), 1600)  # what happens
    wav = rng.normal(size=48000) * loud
    other = np.convolve(rng.normal(size=48000), 0.9 ** np.arange(50), "same")
    made = train_denoiser.recoloured(wav, other)
    assert len(made) == len(wav)
    decibels = [10 * np.log10(train_denoiser.spectrum(w / w.std())) for w in (wav, other, made)]
    away = [np.abs(one - decibels[1]).mean() for one in (decibels[0], decibels[2])]
    assert away[1] < 0.4 * away[0]  # no frequency moves by more than 24 dB
    power = np.square(made.reshape(30, 1600)).mean(1)
    assert np.corrcoef(power, loud[::1600] ** 2)[0, 1] > 0.9


def test_a_corpus_is_drawn_from_as_often_as_it_is_named():
    low, high = [np.full(4000, 1000, np.int16)], [np.full(4000, 9000, np.int16)]
    items = train_denoiser.NoisySpeech([low, low, high, low], [low], seconds=0.25)
    rng = np.random.default_rng(0)
    share = np.mean([items.voice(rng).max() > 0.1 for _ in range(400)])
    assert 0.18 < share < 0.32


@torch.no_grad()
def test_weights_are_averaged_and_judged_without_the_floor():
    torch.manual_seed(0)
    sizes = {"filters": (4, 4), "hidden": 8, "layers": 1, "window": 64, "hop": 32, "memory": 4}
    models = [LiveDenoiser(**sizes, floor=0.5).eval() for _ in range(3)]
    mean = average_denoisers.averaged(models)
    for name, value in mean.state_dict().items():
        parts = torch.stack([model.state_dict()[name].double() for model in models])
        torch.testing.assert_close(value.double(), parts.mean(0), rtol=1e-5, atol=1e-6)
    mix, noise = torch.randn(1, 800), torch.randn(1, 800)
    items = [(mix + noise, torch.stack([mix, noise]))]
    loss = average_denoisers.judged(mean, items, 10.0)
    assert mean.floor == 0.5
    mean.floor = 0.0
    assert loss == pytest.approx(float(mean.loss(items[0][0][None], items[0][1][None], 10.0)))
    mean.floor = 0.5
    assert loss != pytest.approx(float(mean.loss(items[0][0][None], items[0][1][None], 10.0)))
