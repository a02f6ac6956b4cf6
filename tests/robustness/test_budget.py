"""The configs of equal budget, the queue that runs them, and the leaderboard's measuring."""

import importlib.util
import json
import sys

import numpy as np
import pytest
import soundfile as sf
import torch
from course import ROOT

from sepbook.engine.experiments import SECTIONS, Lessons, Net, network_to_train, read_config

CONFIGS = sorted((ROOT / "benchmarks" / "budget").glob("*.toml"))
SPEECH = {"deep_clustering", "chimera", "upit", "tasnet", "conv_tasnet", "dprnn", "sepformer"}
MUSIC = {"feed_forward", "recurrent", "open_unmix", "unet", "spleeter", "wave_unet"}
MUSIC |= {"demucs", "hdemucs", "htdemucs", "bsrnn"}


def script(name):
    """A module out of benchmarks/."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        spec = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / f"{name}.py")
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.pop(0)
    return module


@pytest.fixture(scope="module")
def board():
    return script("leaderboard")


@pytest.fixture(scope="module")
def budget(board):
    return script("budget")


def test_every_system_has_a_config():
    assert {path.stem for path in CONFIGS} == SPEECH | MUSIC


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_config_builds_and_learns(path):
    """The network that a file means takes a step that changes its weights, and is small."""
    options, arguments = read_config(path)
    own = {name for group in SECTIONS.values() for name in group.__dataclass_fields__}
    assert set(options) <= own and options["schedule"] == "cosine" and options["seed"] == 0
    network = network_to_train(Net(options["model"]), arguments, Lessons("example"), 0)
    names = ("s1", "s2") if path.stem in SPEECH else ("vocals", "drums", "bass", "other")
    assert network.sources == names and network.channels == 1
    assert network.sample_rate == (8000 if path.stem in SPEECH else 22050)
    count = sum(p.numel() for p in network.parameters())
    assert 0.2e6 < count < 4.1e6, f"{count:,} parameters: 8 MB in half precision at most"
    torch.manual_seed(0)
    src = 0.1 * torch.randn(1, len(names), 1, network.sample_rate)
    before = [p.detach().clone() for p in network.parameters()]
    adam = torch.optim.Adam(network.parameters(), lr=options["lr"])
    loss = network.train().loss(src.sum(1), src)
    loss.backward()
    adam.step()
    assert loss.isfinite()
    assert any(not torch.equal(a, b) for a, b in zip(before, network.parameters()))


def test_the_same_readers_everywhere(board):
    kept = board.names_in(board.READERS)
    assert len(kept) == 21
    for path in CONFIGS:
        options, _ = read_config(path)
        if path.stem in SPEECH:
            assert options["valid_speakers"].split(",") == kept, path.stem


@pytest.fixture
def data(tmp_path):
    """Two real songs with three stems, six made ones with four: noise, each at its own level."""
    rng = np.random.default_rng(0)
    for folder, songs, stems in (
        ("music-stems", ["a-1", "a-2", "b-1"], ("vocals", "drums", "other")),
        ("made", [f"made-{k}" for k in range(6)], ("vocals", "drums", "bass", "other")),
    ):
        rows = ["excerpt,song"]
        for name in songs:
            place = tmp_path / folder / name
            place.mkdir(parents=True)
            rows.append(f"{name},{name[0] if folder == 'music-stems' else name}")
            for stem in stems:
                wav = 0.05 * rng.standard_normal(3 * 22050)
                sf.write(place / f"{stem}.flac", wav, 22050)
        (tmp_path / folder / "index.csv").write_text("\n".join(rows) + "\n")
    return tmp_path


def test_a_fold_leaves_its_song_out(budget, data):
    folder = budget.songs_folder(data, data / "made", "a", data / "work")
    names = {p.name for p in folder.iterdir() if p.is_dir()}
    assert names == {f"made-{k}" for k in range(6)} | {"real-b-1"}
    real = folder / "real-b-1"
    same = lambda x, y: (real / f"{x}.flac").read_bytes() == y.read_bytes()
    assert same("vocals", data / "music-stems" / "b-1" / "vocals.flac")
    assert same("drums", data / "music-stems" / "b-1" / "drums.flac")
    assert any(same("bass", data / "made" / f"made-{k}" / "bass.flac") for k in range(6))
    alone = budget.songs_folder(data, data / "made", None, data / "work")
    assert {p.name for p in alone.iterdir() if p.is_dir()} == {f"made-{k}" for k in range(6)}


def test_one_row_of_several_folds(budget):
    row = {
        "set": "songs",
        "system": "X, fold a",
        "fold": "a",
        "minutes": 2.0,
        "kind": "equal budget",
    }
    row |= {"scores": [1.0, None], "parts": {"drums": 2.0}, "items": 1, "groups": 1, "speed": 3.0}
    other = row | {"fold": "b", "scores": [None, 3.0], "parts": {"drums": 4.0}}
    merged = budget.merged([row, other], [["a"], ["b"]], "X")
    assert merged["scores"] == [1.0, 3.0] and merged["score"] == 2.0 and merged["items"] == 2
    assert merged["parts"] == {"drums": 3.0} and merged["system"] == "X, one song left out"
    assert merged["minutes"] == 2.0 and merged["low"] is None
    with pytest.raises(ValueError, match="two folds"):
        budget.merged([row, row], [["a"], ["b"]], "X")


def test_the_best_order_is_one_for_all(board):
    torch.manual_seed(0)
    src = torch.randn(2, 1, 800)
    item = board.Item(src.sum(0), src, ("p", "q"))
    one = board.Set("clips", 8000, ("s1", "s2"), lambda: [item], "")
    assert board.speech_score(one, src.flip(0), item)["all"] > 60
    swapped = torch.cat([src[..., :400], src.flip(0)[..., 400:]], -1)
    assert board.speech_score(one, swapped, item)["all"] < 3


def test_bass_counts_with_the_rest(board):
    torch.manual_seed(0)
    src = torch.randn(3, 1, 3 * 22050)
    item = board.Item(src.sum(0), src, ("a",))
    one = board.Set("songs", 22050, board.STEMS, lambda: [item], "")
    est = {"vocals": src[0], "drums": src[1], "bass": 0.3 * src[2], "other": 0.7 * src[2]}
    assert board.song_score(one, est, item)["all"] > 60
    silent = est | {"bass": torch.zeros_like(src[2])}
    assert board.song_score(one, silent, item)["other"] < 15


def test_a_song_without_drums_has_two_stems(board):
    src = torch.randn(3, 1, 22050, generator=torch.Generator().manual_seed(0))
    src[1] = 0
    items = [board.Item(src.sum(0), src, (name,)) for name in "ab"]
    one = board.Set("songs", 22050, board.STEMS, lambda: items, "")
    system = board.System("x", "bound", lambda item, one: item.src, ("songs",))
    row = board.measure(system, one)
    assert set(row["parts"]) == {"vocals", "other"} and row["score"] > 60


def test_songs_seen_in_training_have_no_score(board):
    src = torch.randn(3, 1, 22050, generator=torch.Generator().manual_seed(0))
    items = [board.Item(src.sum(0), src, (name,)) for name in ("a", "a", "b", "c", "d")]
    one = board.Set("songs", 22050, board.STEMS, lambda: items, "")
    run = lambda item, one: item.mix.expand_as(item.src)
    system = board.System("x", "shipped", run, ("songs",), seen=frozenset("a"))
    row = board.measure(system, one)
    assert row["scores"][0] is None and None not in row["scores"][1:]
    assert (row["items"], row["groups"], len(row["scores"])) == (3, 3, 4)
    assert set(row["parts"]) == {"vocals", "drums", "other"}


def test_a_row_replaces_its_older_self(board, tmp_path):
    from sepbook.leaderboard import read

    items = [
        board.Item(torch.ones(1, 9), torch.ones(2, 1, 9), (a, b)) for a, b in ("pq", "qr", "pr")
    ]
    one = board.Set("clips", 8000, ("s1", "s2"), lambda: items, "three")
    path = tmp_path / "leaderboard.json"
    row = {"set": "clips", "system": "x", "chapter": "", "kind": "bound", "model": None}
    row |= dict.fromkeys(("parameters", "megabytes", "minutes", "device", "trained on", "speed"))
    row |= {"score": 1.0, "low": None, "high": None, "statistic": "", "items": 3, "groups": 3}
    row |= {"scores": [1.0, 1.0, 1.0], "parts": {}, "command": "make", "date": "2026-11-29"}
    board.keep(path, "t", "make", row, one)
    board.keep(path, "t", "make", row | {"system": "y"}, one)
    board.keep(path, "t", "make", row | {"score": 2.0}, one)
    found = read(tmp_path)
    assert list(found.rows["system"]) == ["x", "y"] and list(found.rows["score"]) == [2.0, 1.0]
    assert found.groups["clips"] == [["p", "q"], ["q", "r"], ["p", "r"]]
    stored = json.loads(path.read_text())
    assert stored["headline"] and not list(tmp_path.glob("*.part"))


def test_a_model_that_knows_the_readers_is_refused(board):
    with pytest.raises(SystemExit, match="apart"):
        board.check_unseen({"evaluation": {"names": ["78"]}}, "x")


def test_a_training_stopped_halfway_is_resumed(budget, monkeypatch, tmp_path):
    """The number of steps is decided once; a network that is there is not trained again."""
    calls = []
    monkeypatch.setattr(budget, "steps_for", lambda *a: 7)
    done = lambda words, log, **told: calls.append(words) or 0
    monkeypatch.setattr(budget, "run_logged", done)
    job = budget.Job(CONFIGS[0], None)
    budget.train(job, tmp_path, tmp_path, 60.0, "cpu")
    monkeypatch.setattr(budget, "steps_for", lambda *a: 99)
    budget.train(job, tmp_path, tmp_path, 60.0, "cpu")
    assert [words[words.index("--steps") + 1] for words in calls] == ["7", "7"]
    job.weights(tmp_path).write_bytes(b"x")
    budget.train(job, tmp_path, tmp_path, 60.0, "cpu")
    assert len(calls) == 2
