"""The configs of equal budget, the queue that runs them, and the leaderboard's measuring."""

import importlib.util
import json
import sys
from types import SimpleNamespace

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
CONTROL = {"control_torchaudio"}  # of speech


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
    assert {path.stem for path in CONFIGS} == SPEECH | MUSIC | CONTROL


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_config_builds_and_learns(path, monkeypatch):
    """The network that a file means takes a step that changes its weights, and is small."""
    monkeypatch.chdir(ROOT)
    if path.stem in CONTROL:
        pytest.importorskip("torchaudio")
    options, arguments = read_config(path)
    own = {name for group in SECTIONS.values() for name in group.__dataclass_fields__}
    assert set(options) <= own and options["schedule"] == "cosine" and options["seed"] == 0
    network = network_to_train(Net(options["model"]), arguments, Lessons("example"), 0)
    names = ("s1", "s2") if path.stem not in MUSIC else ("vocals", "drums", "bass", "other")
    assert network.sources == names and network.channels == 1
    assert network.sample_rate == (22050 if path.stem in MUSIC else 8000)
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
        if path.stem not in MUSIC:
            assert options["valid_speakers"].split(",") == kept, path.stem


def test_the_control_is_the_same_network(monkeypatch):
    """Torchaudio's class has our sizes, data, rates and, with our weights, our output."""
    pytest.importorskip("torchaudio")
    from sepbook.engine.weights import import_weights

    monkeypatch.chdir(ROOT)
    pair = []
    for name in ("conv_tasnet", "control_torchaudio"):
        options, arguments = read_config(ROOT / "benchmarks" / "budget" / f"{name}.toml")
        pair.append(network_to_train(Net(options["model"]), arguments, Lessons("example"), 0))
        told = {k: v for k, v in options.items() if k not in ("model", "out")}
        pair.append(told)
    ours, how, theirs, same = pair
    assert how == same and ours.sources == theirs.sources
    assert sum(p.numel() for p in theirs.parameters()) == ours.n_params
    import_weights(ours, theirs.net.state_dict(), "torchaudio")
    mix = 0.1 * torch.randn(2, 1, 8000, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.allclose(ours.eval()(mix), theirs.eval()(mix), atol=1e-5)


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
    from sepbook.leaderboard import read, statistic

    items = [
        board.Item(torch.ones(1, 9), torch.ones(2, 1, 9), (a, b)) for a, b in ("pq", "qr", "pr")
    ]
    one = board.Set("clips", 8000, ("s1", "s2"), lambda: items, "three")
    path = tmp_path / "leaderboard.json"
    row = {"set": "clips", "system": "x", "chapter": "", "kind": "bound", "model": None}
    row |= dict.fromkeys(("parameters", "megabytes", "minutes", "device", "trained on", "speed"))
    row |= {"score": 1.0, "low": None, "high": None, "items": 3, "groups": 3}
    row |= {"statistic": statistic("clips")}
    row |= {"scores": [1.0, 1.0, 1.0], "parts": {}, "command": "make", "date": "2026-11-29"}
    board.keep(path, "t", "make", row, one)
    board.keep(path, "t", "make", row | {"system": "y"}, one)
    board.keep(path, "t", "make", row | {"score": 2.0, "scores": [2.0] * 3}, one)
    found = read(tmp_path)
    assert list(found.rows["system"]) == ["x", "y"] and list(found.rows["score"]) == [2.0, 1.0]
    assert found.groups["clips"] == [["p", "q"], ["q", "r"], ["p", "r"]]
    stored = json.loads(path.read_text())
    assert stored["headline"] and not list(tmp_path.glob("*.part"))


def test_a_model_that_knows_the_readers_is_refused(board):
    with pytest.raises(SystemExit, match="apart"):
        board.check_unseen({"evaluation": {"names": ["78"]}}, "x")


def test_a_network_of_segments_gets_segments(board, monkeypatch):
    """What is trained on three seconds with places of its own is never asked for thirty."""
    told = {"evaluation": {"names": []}, "songs_seen": []}
    one = board.Set("songs", 22050, board.STEMS, lambda: [], "")
    calls = []
    for word in ("at_rate", "through_separate"):
        monkeypatch.setattr(board, word, lambda *a, w=word: calls.append(w))
    for segment in (None, 3.0):
        model = torch.nn.Linear(1, 1)
        model.sources, model.segment = ("vocals", "drums"), segment
        monkeypatch.setattr(board, "sepbook", SimpleNamespace(load=lambda *a, m=model, **k: m))
        monkeypatch.setattr(board, "read_card", lambda *a: told)
        system = board.network(ROOT / "benchmarks" / "budget.py", "equal budget", {"songs": one})
        system.run(board.Item(torch.zeros(1, 9), torch.zeros(2, 1, 9), ("a",)), one)
    assert calls == ["at_rate", "through_separate"]


@pytest.fixture(scope="module")
def trained(budget, tmp_path_factory):
    """A working folder as the queue leaves it: a network of two steps, its logs, its scores."""
    work = tmp_path_factory.mktemp("work")
    text = (ROOT / "benchmarks" / "budget" / "upit.toml").read_text()
    text = text.replace("hidden = 256", "hidden = 8").replace("size = 2000", "size = 16")
    text = text.replace("valid_size = 60", "valid_size = 2").replace(
        "seconds = 3.0", "seconds = 1.0"
    )
    lines = text.splitlines()
    first = next(k for k, line in enumerate(lines) if line.startswith("valid_speakers"))
    last = next(k for k, line in enumerate(lines[first:], first) if line == "]")
    lines[first : last + 1] = ['valid_speakers = ["ada", "hal"]']
    config = work / "upit.toml"
    config.write_text("\n".join(lines))
    job = budget.Job(config, None)
    budget.train(job, "example", work, 60.0, "cpu", 4)
    row = {"set": "clips", "system": "uPIT", "kind": "equal budget", "chapter": "23", "score": 1.5}
    row |= {"low": None, "high": None, "minutes": 0, "fold": None, "command": "old"}
    row["date"] = "2026-11-29"
    rows = [row, row | {"set": "conversations"}, row | {"system": "TasNet"}]
    sets = {"clips": {"groups": []}, "conversations": {"groups": []}, "songs": {"groups": []}}
    (work / "budget.json").write_text(json.dumps({"rows": rows, "sets": sets}))
    return job, work


def test_what_is_trained_and_scored_gets_a_file(budget, trained, tmp_path):
    from sepbook.engine.race import race_excerpt, read_race, show_training

    job, work = trained
    path = budget.collect(job, work, work / "budget.json", tmp_path)
    told = json.loads(path.read_text())
    assert list(read_race(tmp_path)) == ["upit"]
    assert [row["set"] for row in told["rows"]] == ["clips", "conversations"]
    assert set(told["sets"]) == {"clips", "conversations"}
    assert told["command"] == "python benchmarks/budget.py DATA --work WORK --only upit --steps 4"
    assert {row["command"] for row in told["rows"]} == {told["command"]}
    card = told["training"]
    assert card["steps"] == 4 and card["seconds"] == 1.0 and card["batch_size"] == 8
    assert card["minutes"] == told["rows"][0]["minutes"] > 0
    assert told["curve"]["valid"] and told["curve"]["minutes"][-1] <= card["minutes"]
    heard, model = race_excerpt("speech"), budget.load(str(job.weights(work)))
    with torch.no_grad():
        est = model(heard.mix[None])[0]
    both = [budget.si_sdr(e, heard.src).mean() for e in (est, est.flip(0))]
    assert abs(float(max(both)) - np.mean(list(told["excerpt"]["estimate"].values()))) < 0.01
    show_training("upit", folder=tmp_path)
    assert str(work) not in path.read_text()


def test_what_is_not_scored_gets_none(budget, trained, tmp_path):
    job, work = trained
    assert budget.collect(job, work, tmp_path / "none.json", tmp_path) is None
    other = budget.Job(job.config.with_name("tasnet.toml"), None)
    assert budget.collect(other, work, work / "budget.json", tmp_path) is None  # no weights
    assert not list(tmp_path.glob("*.json"))


def test_minutes_of_a_run_that_was_killed_count(budget, tmp_path):
    """Half of the training's own clock is in the log; the rest was as busy."""
    job = budget.Job(CONFIGS[0], None)
    row = {"name": job.name, "started": "2026-11-29T10:00:00", "ended": "2026-11-29T10:30:00"}
    (tmp_path / "log.jsonl").write_text(json.dumps(row | {"cpu_minutes": 24.0}) + "\n")
    own = tmp_path / f"run-{job.name}"
    own.mkdir()
    (own / "log.jsonl").write_text(json.dumps({"seconds": 1750.0}) + "\n")
    assert budget.spent_on(job, tmp_path) == 24.0
    (own / "log.jsonl").write_text(json.dumps({"seconds": 3600.0}) + "\n")
    assert budget.spent_on(job, tmp_path) == 48.0
    (tmp_path / "log.jsonl").write_text("")
    with pytest.raises(SystemExit, match="does not tell"):
        budget.spent_on(job, tmp_path)


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
