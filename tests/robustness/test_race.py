"""The race of equal budget: its files, what chapters show of it, and the table that ranks it."""

import importlib
import itertools
import json
import os
import re
import subprocess
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
from course import ROOT

from sepbook.engine.experiments import read_config
from sepbook.engine.files import load
from sepbook.engine.race import (
    ENTRANTS,
    TRACKS,
    Run,
    check_run,
    curve_alt,
    curve_figure,
    excerpt_table,
    find_results,
    how_to_train,
    race_excerpt,
    read_race,
    setbacks,
    show_estimate,
    show_training,
    standing,
    standing_line,
    thinned,
    tracks,
    write_run,
)
from sepbook.engine.weights import defaults
from sepbook.leaderboard import FIELDS, SETS, race_alt, race_figure, race_state, read, statistic
from sepbook.metrics import si_sdr

CONFIGS = ROOT / "benchmarks" / "budget"
RACE = ROOT / "results" / "race"
LOG = [{"step": s, "loss": 9 - s / 100, "valid": None} for s in range(10, 801, 10)]
LOG[-1]["valid"] = 1.25


def invented(folder, name, noise=0.02, **more):
    """A training that nobody made."""
    heard = race_excerpt(ENTRANTS[name].track)
    rough = torch.randn(heard.src.shape, generator=torch.Generator().manual_seed(0))
    est = heard.src + noise * rough
    scored = lambda wav: {
        n: float(si_sdr(e, s).mean()) for n, e, s in zip(heard.sources, wav, heard.src)
    }
    training = {"command": f"sepbook train --config {name}.toml", "data": "none", "steps": 800}
    training |= {"parameters": 1234567, "megabytes": 2.5, "best_step": 700, "batch_size": 4}
    training |= {"seconds": 3.0, "lr": 1e-3, "schedule": "cosine", "minutes": 60.2}
    training |= {"date": "2026-11-29", "licence": "CC0"}
    told = {"title": "invented", "command": how_to_train(name, 800), "date": "2026-11-29"}
    told |= {"device": "none", "headline": [], "training": training, "curve": thinned(LOG, 60.2)}
    told["excerpt"] = {
        "mixture": scored(heard.mix.expand_as(heard.src)),
        "estimate": scored(est),
    }
    row = {"low": None, "high": None, "minutes": 60.2, "parameters": 1234567, "speed": 9.0}
    row |= {"system": ENTRANTS[name].system, "kind": ENTRANTS[name].kind, "parts": {}}
    row |= {"score": 5 - 50 * noise, "chapter": ENTRANTS[name].chapter}
    told["rows"] = [row | {"set": which} for which in TRACKS[ENTRANTS[name].track]]
    return write_run(folder, name, told | more, dict(zip(heard.sources, est)))


@pytest.fixture
def shown(monkeypatch):
    """What a page displays."""
    import IPython.display

    found = []
    monkeypatch.setattr(IPython.display, "display", lambda *things, **_: found.extend(things))
    return found


# Who takes part


def test_entrants_are_the_configs():
    """Names, tracks and chapters are those of the files that train them."""
    files = {path.stem: path for path in CONFIGS.glob("*.toml")}
    assert files.keys() == ENTRANTS.keys()
    lessons = {path.name[:2] for path in (ROOT / "nbs").glob("[1-6]_*/[0-9][0-9]_*.ipynb")}
    for name, path in files.items():
        options, _ = read_config(path)
        track = "speech" if options["data"] == "speech-train" else "music"
        assert ENTRANTS[name].track == track and ENTRANTS[name].chapter in lessons, name
        (chapter,) = re.findall(r"chapter (\d\d)", path.read_text(), re.I)
        assert ENTRANTS[name].chapter == chapter, name
    assert [n for n, e in ENTRANTS.items() if e.kind != "equal budget"] == ["control_torchaudio"]
    order = [int(e.chapter) for e in ENTRANTS.values()]
    assert order == sorted(order) and len({e.system for e in ENTRANTS.values()}) == len(ENTRANTS)


def test_every_command_is_one_of_budget_py():
    """The options that a page tells are options of the script."""
    known = (ROOT / "benchmarks" / "budget.py").read_text()
    for name in ENTRANTS:
        words = how_to_train(name, 7).split()
        assert words[:2] == ["python", "benchmarks/budget.py"] and name in words
        assert all(f'"{word}"' in known for word in words if word.startswith("--"))
        assert ("--songs" in words) == (ENTRANTS[name].track == "music")


def test_the_excerpts_are_unseen():
    """The readers are kept apart by every config; the song is real, and the race trains on none."""
    from sepbook.engine.examples import example_readers

    speakers = np.random.default_rng([11, 4]).permutation(sorted(_readers()))[:2]
    again = example_readers(2, seconds=4.0, readers=list(speakers), sample_rate=8000)
    assert torch.equal(again.mix, race_excerpt("speech").mix)
    for name, entrant in ENTRANTS.items():
        options, _ = read_config(CONFIGS / f"{name}.toml")
        if entrant.track == "speech":
            assert set(speakers) <= set(options["valid_speakers"].split(",")), name
    song = race_excerpt("music")
    assert torch.allclose(song.src.sum(0), song.mix) and song.sources[:2] == ("vocals", "drums")


def _readers():
    from sepbook.engine.examples import READERS

    return READERS


# The files


@pytest.mark.parametrize("length", [1, 7, 80, 81, 5000])
def test_a_curve_is_short_and_ends_where_the_log_ends(length):
    rows = [
        {
            "step": 10 * k,
            "loss": float(k),
            "valid": float(-k) if k % 3 == 0 or k == length else None,
        }
        for k in range(1, length + 1)
    ]
    curve = thinned(rows, 60.0)
    assert 1 <= len(curve["loss"]) <= 80 and 1 <= len(curve["valid"]) <= 80
    assert len(curve["loss"]) == len(curve["minutes"])
    assert curve["valid_minutes"][-1] == 60 and curve["valid"][-1] == -length
    assert sorted(curve["minutes"]) == curve["minutes"] and curve["minutes"][-1] <= 60
    if length % len(curve["loss"]) == 0:
        assert abs(np.mean(curve["loss"]) - (length + 1) / 2) < 1e-2 * length


def test_a_curve_leaves_out_what_is_not_finite():
    rows = [{"step": 10, "loss": float("nan"), "valid": float("inf")}, {"step": 20, "loss": 2.0}]
    assert thinned(rows, 1.0) == {"minutes": [1.0], "loss": [2.0], "valid_minutes": [], "valid": []}
    for empty in ([], rows[:1]):
        with pytest.raises(ValueError, match="no loss"):
            thinned(empty, 1.0)


def test_a_file_comes_back(tmp_path):
    invented(tmp_path, "unet", 0.03)
    (run,) = read_race(tmp_path).values()
    assert (
        isinstance(run, Run)
        and run.entrant.system == "U-Net"
        and set(run.rows) == set(TRACKS["music"])
    )
    excerpt = run.told["excerpt"]
    want = np.mean(
        [excerpt["estimate"][n] - excerpt["mixture"][n] for n in ("vocals", "drums", "other")]
    )
    assert abs(run.gain - want) < 1e-9
    heard = race_excerpt("music")
    for (name, wav), src in zip(run.estimate().items(), heard.src):
        assert wav.shape == src.shape
        assert abs(float(si_sdr(wav, src)) - excerpt["estimate"][name]) < 0.5  # noise loses most


def test_loud_estimates_are_not_clipped(tmp_path):
    heard = race_excerpt("speech")
    path = invented(tmp_path, "upit")
    told = json.loads(path.read_text())
    loud = dict(zip(heard.sources, 300 * heard.src))
    write_run(tmp_path, "upit", told, loud)
    for wav, src in zip(read_race(tmp_path)["upit"].estimate().values(), heard.src):
        assert wav.abs().max() <= 1.01 and si_sdr(wav, src) > 20


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"training": None}, "no 'training'"),
        ({"training": {"steps": 3}}, "no 'command'"),
        ({"rows": []}, "no rows"),
        ({"rows": [{"set": "clips"}]}, "no rows"),
        ({"reason": 3}, "reason is 3"),
        ({"title": True}, "title is True"),
        ({"excerpt": {"mixture": {"s1": 1.0}, "estimate": {}, "files": {}}}, "sources differ"),
        (
            {"curve": {"minutes": [1], "loss": [], "valid": [], "valid_minutes": []}},
            "differ in length",
        ),
    ],
)
def test_a_file_that_no_page_can_show_is_refused(tmp_path, change, said):
    path = invented(tmp_path, "upit")
    told = json.loads(path.read_text())
    check_run(told, "upit")
    path.write_text(json.dumps(told | change))
    with pytest.raises(ValueError, match=said) as error:
        read_race(tmp_path)
    assert "\n" not in str(error.value) and "upit.json" in str(error.value)


def test_a_folder_that_is_not_whole_is_refused(tmp_path):
    assert read_race(tmp_path / "nothing") == {}
    path = invented(tmp_path, "upit")
    (tmp_path / "upit.s2.mp3").unlink()
    with pytest.raises(ValueError, match=r"upit\.s2\.mp3, which is missing"):
        read_race(tmp_path)
    path.write_text("{")
    with pytest.raises(ValueError, match="no JSON"):
        read_race(tmp_path)
    path.rename(tmp_path / "u_pit.json")
    with pytest.raises(ValueError, match="belongs to no system"):
        read_race(tmp_path)


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = invented(tmp_path, "upit", reason="short")
    before = path.read_bytes()
    told = json.loads(before)
    with pytest.raises(ValueError, match="no rows"):
        write_run(tmp_path, "upit", told | {"rows": []}, read_race(tmp_path)["upit"].estimate())
    assert path.read_bytes() == before
    told.pop("reason")
    write_run(tmp_path, "upit", told, read_race(tmp_path)["upit"].estimate())
    assert json.loads(path.read_text())["reason"] == "short"


# Progress


def test_a_setback_is_found(tmp_path):
    """Later and worse than the slack allows; a control, and one's own chapter, don't count."""
    for name, noise in (("upit", 0.01), ("chimera", 0.05), ("deep_clustering", 0.02)):
        invented(tmp_path, name, noise)
    assert not setbacks(read_race(tmp_path))  # 22 and 22 and then the best, 23
    invented(tmp_path, "unet", 0.2)  # another track
    invented(tmp_path, "control_torchaudio", 0.2)
    invented(tmp_path, "conv_tasnet", 0.0105)  # 0.4 dB
    assert not setbacks(read_race(tmp_path))
    invented(tmp_path, "conv_tasnet", 0.02, reason="half the minutes")
    (back,) = setbacks(read_race(tmp_path))
    assert (back.name, back.earlier, back.reason) == ("conv_tasnet", "upit", "half the minutes")
    assert 5.5 < back.loss < 6.5
    invented(tmp_path, "dprnn", 0.012)
    assert {b.name for b in setbacks(read_race(tmp_path))} == {"conv_tasnet", "dprnn"}
    assert {b.name for b in setbacks(read_race(tmp_path), slack=3)} == {"conv_tasnet"}


def test_progression_is_heard():
    """A later chapter is not worse by more than 1 dB, or its file and its page say why."""
    for back in setbacks(read_race(RACE)):
        told = f"{back.name} is {back.loss:.1f} dB worse than {back.earlier} on the same seconds"
        assert back.reason, f"{told}; give a reason in results/race/{back.name}.json"
        pages = [text for names, text in pages_of("show_estimate") if back.name in names]
        assert pages, f"{told}; no chapter shows {back.name}"
        assert all(back.reason in text for text in pages), f"{told}; run its chapter again"


# What is stored


def stored():
    return sorted(RACE.glob("*.json"))


@pytest.mark.parametrize("path", stored(), ids=lambda p: p.stem)
def test_a_stored_training_is_whole(path):
    """Small, with its origin; its clips are what they are said to be; its command repeats it."""
    run = read_race(RACE)[path.stem]
    assert path.stat().st_size < 40_000
    heard, said = race_excerpt(run.entrant.track), run.told["excerpt"]
    for name, src in zip(heard.sources, heard.src):
        file = RACE / said["files"][name]
        assert file.stat().st_size < 60_000
        assert abs(float(si_sdr(heard.mix, src)) - said["mixture"][name]) < 0.01
        wav, rate = load(file)
        assert rate == heard.sample_rate and wav.shape == src.shape
        assert abs(float(si_sdr(wav, src)) - said["estimate"][name]) < 0.3
    card = run.told["training"]
    assert (
        f"--steps {card['steps']}" in run.told["command"]
        and f"--steps {card['steps']} " in card["command"]
    )
    assert f"benchmarks/budget/{path.stem}.toml" in card["command"]
    options, _ = read_config(CONFIGS / f"{path.stem}.toml")
    for key in ("batch_size", "lr", "schedule", "warmup", "ema", "seed", "seconds"):
        assert card[key] == options[key], key
    assert set(run.rows) == set(TRACKS[run.entrant.track])
    for row in run.rows.values():
        assert row["minutes"] == card["minutes"] and row["kind"] == run.entrant.kind
        assert row["parameters"] == card["parameters"] and row["system"] == run.entrant.system
    assert 30 < card["minutes"] < 120, "an hour of one core, roughly"
    text = path.read_text()
    assert not re.search(r"/tmp|/root|/home/\w|/work/", text)


def test_only_what_belongs_is_stored():
    known = {path.name for path in stored()}
    for run in read_race(RACE).values():
        known |= set(run.told["excerpt"]["files"].values())
    assert {path.name for path in RACE.glob("*")} - {"README.md"} == known


def pages_of(function):
    """(names, text of all outputs) of every chapter's cell that calls a function of the race."""
    found = []
    for path in sorted((ROOT / "nbs").glob("[1-6]_*/*.ipynb")):
        for cell in nbformat.read(path, 4).cells:
            call = re.search(rf"^{function}\(([^)]*)\)", cell.source, re.M)
            if cell.cell_type == "code" and call:
                out = [o.get("text", "") or str(o.get("data", {})) for o in cell.outputs]
                found.append((re.findall(r'"(\w+)"', call[1]), " ".join(map(str, out))))
    return found


def test_the_pages_show_what_is_stored():
    """A chapter that was not run again after a training arrived still says 'not trained yet'."""
    runs, called = read_race(RACE), pages_of("show_training") + pages_of("show_estimate")
    assert any("conv_tasnet" in names for names, _ in called)
    for names, text in called:
        for name in names:
            line = f"{ENTRANTS[name].system}: not trained yet; command: {how_to_train(name)}"
            assert (line in text) == (name not in runs), f"run the chapter of {name} again"
    for names, text in pages_of("show_training"):
        for name in set(names) & set(runs):
            assert f"{runs[name].told['training']['steps']:,} of" in text, name
    for names, text in pages_of("show_estimate"):
        for name in set(names) & set(runs):
            score = runs[name].rows[TRACKS[ENTRANTS[name].track][0]]["score"]
            assert f"{score:.2f}" in text, name


def test_the_leaderboard_page_counts_what_is_stored():
    page = nbformat.read(ROOT / "nbs" / "6_practice" / "82_leaderboard.ipynb", 4)
    out = [o.get("text", "") for cell in page.cells for o in cell.get("outputs", [])]
    line = f"{len(stored())} of {len(ENTRANTS)} have run"
    assert any(line in text for text in out), "run chapter 82 again"


# Pages with none, some and all


def test_what_has_not_run_is_one_line(tmp_path, capsys, shown):
    show_training("demucs", "hdemucs", folder=tmp_path)
    show_estimate("demucs", folder=tmp_path)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 and not shown
    assert all("not trained yet; command: python benchmarks/budget.py" in line for line in lines)
    for wrong in (("u-net",), ("upit", "unet"), ()):
        with pytest.raises(ValueError) as error:
            show_training(*wrong, folder=tmp_path)
        assert "\n" not in str(error.value)


def test_a_page_with_one(tmp_path, capsys, shown):
    invented(tmp_path, "conv_tasnet")
    show_training("conv_tasnet", "control_torchaudio", folder=tmp_path)
    frame, image = shown
    assert list(frame) == ["Conv-TasNet"] and "800 of 4 x 3 s" in frame.to_string()
    assert 'alt="Loss against CPU minutes. Conv-TasNet: the loss in training' in image.data
    out = capsys.readouterr().out
    assert "torchaudio: not trained yet" in out and "sepbook train --config conv_tasnet" in out
    shown.clear()
    show_estimate("conv_tasnet", folder=tmp_path)
    player, scores, places = shown
    assert player.data.count("<audio") == 5  # mixture, two estimates, two targets
    assert list(scores.index) == ["mixture", "Conv-TasNet"] and list(places.index) == ["1"]
    assert "place 1 on clips, where 1 of 7 systems have run" in capsys.readouterr().out
    shown.clear()
    show_estimate("conv_tasnet", sources=["s2"], folder=tmp_path)
    assert shown[0].data.count("<audio") == 3


def test_a_page_says_why_it_is_worse(tmp_path, capsys, shown):
    invented(tmp_path, "upit", 0.01)
    invented(tmp_path, "conv_tasnet", 0.03, reason="fewer steps fit")
    show_estimate("conv_tasnet", folder=tmp_path)
    out = capsys.readouterr().out
    assert "uPIT of chapter 23 is 9." in out and "fewer steps fit" in out
    show_estimate("upit", folder=tmp_path)
    assert "Why" not in capsys.readouterr().out


def test_places_with_all(tmp_path):
    """The best first; a control stands in its place without a number, and moves nobody."""
    noises = itertools.count(1)
    for name in ENTRANTS:
        invented(tmp_path, name, 0.001 * next(noises))
    runs = read_race(tmp_path)
    assert list(runs) == list(ENTRANTS)
    for track, number in (("speech", 7), ("music", 10)):
        board = standing(runs, track)
        score = board.iloc[:, 3].str.extract(r"^([-\d.]+)")[0].astype(float)
        assert (score.diff().dropna() <= 0).all()
        places = [p for p in board["place"] if p != "control"]
        assert places == [str(k + 1) for k in range(number)]
    assert "place 5 on clips, where 7 of 7 systems have run" in standing_line(runs, "conv_tasnet")
    assert "not yet" not in standing_line(runs, "conv_tasnet")
    assert "a control, where 7 of 7" in standing_line(runs, "control_torchaudio")
    three = [runs[name] for name in ("demucs", "hdemucs", "htdemucs")]
    assert len(curve_figure(three).axes) == 3 and curve_alt(three).count("in validation") == 3
    assert len(tracks(three, ["drums"])) == 5 and len(excerpt_table(three)) == 4


def whole_row(name, which, **more):
    row = dict.fromkeys(FIELDS) | {"set": which, "system": ENTRANTS[name].system}
    row |= {"kind": ENTRANTS[name].kind, "chapter": ENTRANTS[name].chapter, "score": 3.0}
    row |= {
        "statistic": statistic(which),
        "items": 3,
        "groups": 3,
        "parts": {},
    }
    row |= {"parameters": 10**6, "minutes": 60.0, "speed": 5.0, "command": "make", "date": "today"}
    row |= {"low": 2.0, "high": 4.0} | more
    return row | {"scores": [row["score"]] * 3}


def results(folder, names):
    """A folder of results with some trainings, a system that ships, and the mixture."""
    import matplotlib.pyplot as plt

    plt.close("all")
    groups = {"groups": [["a"], ["b"], ["c"]]}
    sets = dict.fromkeys(("clips", "conversations", "songs", "made songs"), groups)
    rows = [
        whole_row("upit", which, system=system, kind=kind, **more)
        for which in sets
        for system, kind, more in (
            ("ours", "shipped", {}),
            ("the mixture itself", "bound", {"minutes": None, "parameters": None, "score": 0.0}),
        )
    ]
    folder.mkdir(exist_ok=True)
    (folder / "leaderboard.json").write_text(json.dumps({"sets": sets, "rows": rows}))
    for k, name in enumerate(names):
        own = TRACKS[ENTRANTS[name].track]
        lines = [whole_row(name, which, score=float(k)) for which in own]
        invented(folder / "race", name, rows=lines, sets={which: groups for which in own})
    return folder


@pytest.mark.parametrize("names", [[], ["conv_tasnet"], ["conv_tasnet", "unet"], list(ENTRANTS)])
def test_the_leaderboard_with_none_some_and_all(tmp_path, names):
    import matplotlib.pyplot as plt

    folder = results(tmp_path / "results", names)
    board = read(folder)
    mine = board.rows[board.rows["kind"].isin(("equal budget", "control"))]
    assert len(mine) == 2 * len(names) and set(mine["set"]) <= set(SETS)
    state = race_state(folder)
    assert len(state) == len(ENTRANTS) and (state["trained"] != "not yet").sum() == len(names)
    assert state["command"].is_unique
    figure = race_figure(board.rows)
    seen = {label for ax in figure.axes for label in ax.get_legend_handles_labels()[1]}
    assert seen == {ENTRANTS[name].system for name in names} | {"ours"}
    alt, counted = race_alt(board.rows), {track: 0 for track in TRACKS}
    for name in names:
        counted[ENTRANTS[name].track] += ENTRANTS[name].kind == "equal budget"
    assert f"Clips: {counted['speech']} trained" in alt
    assert f"Made songs: {counted['music']} trained" in alt
    plt.close(figure)


def test_a_training_measured_on_other_clips_is_refused(tmp_path):
    folder = results(tmp_path / "results", ["upit"])
    path = folder / "race" / "upit.json"
    told = json.loads(path.read_text())
    told["sets"]["clips"] = {"groups": [["a"], ["b"], ["x"]]}
    path.write_text(json.dumps(told))
    with pytest.raises(ValueError, match=r"upit\.json has other clips"):
        read(folder)
    assert find_results(folder / "race") == folder


# What is claimed elsewhere


def test_the_eight_rows_of_the_readme_are_the_files():
    """Each row has its file's whole command; the figures of `speech` are those of heard_speech."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([^|]+) \| ([^|]+) \| `(python benchmarks/(\w+)\.py[^`]*)`", text, re.M)
    assert len(rows) == 8
    for what, value, command, script in rows:
        told = json.loads((ROOT / "results" / f"{script}.json").read_text())
        known = {told["command"], *(row.get("command") for row in told.get("rows", ()))}
        assert command in known and re.match(r"-?\d", value), what
    heard = json.loads((ROOT / "results" / "heard_speech.json").read_text())["models"]
    clips = heard[defaults()["speech"]]["clips"]
    gain = f"{clips['gain']:.1f} ± {clips['ci']:.1f} dB"
    assert rows[0][1] == gain and f"over {clips['items']} pairs: {gain}" in text
    board = json.loads((ROOT / "results" / "leaderboard.json").read_text())["rows"]
    for which, use in (("made songs", "music"), ("noisy speech", "denoise")):
        (row,) = [r for r in board if r["set"] == which and r["model"] == defaults()[use]]
        (value,) = [v for _, v, command, _ in rows if command == row["command"]]
        assert value == f"{row['score']:.1f} dB"


DATA = Path(os.environ.get("SEPBOOK_DATA", "no corpora here"))


@pytest.mark.skipif(not (DATA / "speech-train").is_dir(), reason="needs the corpora: SEPBOOK_DATA")
def test_cheap_rows_repeat(monkeypatch):
    """Bounds and classical methods give the stored scores again, to 0.01 dB, item by item."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    board = importlib.import_module("leaderboard")
    for name, size in (("CLIPS", 4), ("NOISY", 3)):
        monkeypatch.setattr(board, name, size)
    whole, sets = board.real_songs, board.all_sets(DATA, DATA / "none")
    sets["songs"].make = lambda: [one for one in whole(DATA) if one.groups == ("3.Sodium",)]
    stored = json.loads((ROOT / "results" / "leaderboard.json").read_text())
    known, compared = board.all_systems(sets), 0
    for which in ("clips", "noisy speech", "songs"):
        groups = stored["sets"][which]["groups"]
        for row in [r for r in stored["rows"] if r["set"] == which]:
            if row["kind"] not in ("bound", "classical") or row["key"] == "nmf":
                continue  # its dictionaries are of the other songs
            found = board.measure(known[row["key"]](), sets[which])["scores"]
            places = [groups.index(g) for g in board.groups_of(sets[which])]
            places = places if which == "songs" else range(len(found))
            want = [row["scores"][k] for k in places]
            assert np.abs(np.array(found) - want).max() < 0.01, (which, row["system"])
            compared += len(found)
    assert compared > 30


def test_no_training_is_stored_twice():
    """Rows of the race stand in results/race alone."""
    for path in (ROOT / "results").glob("*.json"):
        rows = [r for r in json.loads(path.read_text()).get("rows", []) if isinstance(r, dict)]
        assert not [r for r in rows if r.get("kind") == "equal budget"], path.name


def test_all_files_are_tracked():
    """A clip that git does not know would be missing in a clone."""
    done = subprocess.run(
        ["git", "ls-files", "results/race"], cwd=ROOT, capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip("no git here")
    assert set(done.stdout.split()) == {p.relative_to(ROOT).as_posix() for p in RACE.glob("*")}


def test_minutes_are_those_of_a_network_and_of_those_that_it_holds(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    earlier = importlib.import_module("leaderboard").earlier_network

    def card(*counts):
        """A card and what came before it, with the seconds that each of them counts."""
        return {"seconds_trained": counts[0]} | (
            {"before": card(*counts[1:])} if counts[1:] else {}
        )

    assert earlier(card(30)) == earlier(card(30, 20, 10)) == earlier({}) == 0
    assert earlier(card(5, 40)) == 40  # a count that grows is another network's
    assert earlier(card(9, 5, 40, 25)) == 40
