"""What the command `sepbook` does with bad files and options, with interruptions, and its work."""

import csv
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import torch
from click.testing import CliRunner

from sepbook import cli, zoo
from sepbook.engine import experiments, weights
from sepbook.mixtures import example_corpus
from sepbook.models.mask_networks import RecurrentMask
from sepbook.pit import UPIT
from sepbook.sound import load

needs_ffmpeg = pytest.mark.skipif(not shutil.which("ffmpeg"), reason="no ffmpeg on the PATH")
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Two small networks: one for two voices, one for stereo songs."""
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    voices = UPIT(hidden=8, layers=1)
    songs = RecurrentMask(
        hidden=8, sources=("vocals", "drums"), sample_rate=8000, n_fft=256, hop=64, channels=2
    )
    for name, network in {"voices": voices, "songs": songs}.items():
        zoo.save(network, folder / f"{name}.safetensors", {"scores": {"si_sdri": -1.0}})
    return folder


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch, models):
    """An empty working folder with the two models in it."""
    monkeypatch.chdir(tmp_path)
    for path in models.iterdir():
        shutil.copy(path, tmp_path)
    return tmp_path


def sepbook(line: str, *words: str):
    """Run a command in this process."""
    return CliRunner().invoke(cli.app, [*shlex.split(line), *map(str, words)], prog_name="sepbook")


def noise(frames: int = 8000, channels: int = 1, seed: int = 0) -> np.ndarray:
    return 0.1 * np.random.default_rng(seed).standard_normal((frames, channels)).astype("float32")


def ffmpeg(*words) -> None:
    subprocess.run(["ffmpeg", "-v", "error", "-y", *map(str, words)], check=True)


def refused(result, *words: str, code: int = 2) -> None:
    """One clear line on stderr, the exit code, and no traceback."""
    lines = result.stderr.splitlines()
    assert result.exit_code == code, result.output
    assert len(lines) == 1 and lines[0].startswith("error: ") and len(lines[0]) < 400, lines
    assert "Traceback" not in result.output
    for word in words:
        assert word in lines[0], f"{word!r} is not in {lines[0]!r}"


def files(folder: Path = Path()) -> set[str]:
    """Every file below a folder, hidden ones too, without the models."""
    found = {str(p.relative_to(folder)) for p in folder.rglob("*")}
    return {name for name in found if not name.endswith(".safetensors")}


# Bad input


def make_text(path):
    path.write_text("This is not a sound.\n" * 99)


def make_cut_flac(path):
    sf.write(path, noise(), 8000)
    path.write_bytes(path.read_bytes()[:3000])


def make_nan(path):
    sf.write(path, np.full((999, 1), np.nan), 8000, "FLOAT")


def make_silent_video(path):
    ffmpeg("-f", "lavfi", "-i", "testsrc=d=1:s=64x64", path)


BAD = {
    "empty.wav": (lambda path: path.touch(), "empty"),
    "corrupt.wav": (lambda path: path.write_bytes(np.random.default_rng(0).bytes(5000)), "sound"),
    "text.mp3": (make_text, "sound"),
    "cut.flac": (make_cut_flac, ""),
    "no-samples.wav": (lambda path: sf.write(path, noise(0), 8000), "no samples"),
    "nan.wav": (make_nan, "NaN"),
    "folder.wav": (lambda path: path.mkdir(), "folder"),
    "silent.mp4": (make_silent_video, "no audio stream"),
    "missing.wav": (lambda path: None, "does not exist"),
}


@needs_ffmpeg
@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line_and_code_2(name):
    make, word = BAD[name]
    make(Path(name))
    before = files()
    result = sepbook("separate --model voices.safetensors", name)
    refused(result, name, word)
    assert files() == before, "something was left behind"


def test_c_libraries_stay_silent(capfd):
    make_text(Path("text.mp3"))
    refused(sepbook("separate --model voices.safetensors text.mp3"), "text.mp3")
    assert capfd.readouterr().err == ""


# Odd input that works


def make_video(path):
    ffmpeg("-f", "lavfi", "-i", "testsrc=d=1:s=64x64", "-f", "lavfi", "-i", "sine=d=1", path)


ODD = {
    "8-bit.wav": (lambda path: sf.write(path, noise(), 8000, "PCM_U8"), 8000),
    "24-bit.wav": (lambda path: sf.write(path, noise(channels=2), 48000, "PCM_24"), 48000),
    "7.1.wav": (lambda path: sf.write(path, noise(channels=8), 48000), 48000),
    "one-sample.wav": (lambda path: sf.write(path, noise(1), 8000), 8000),
    "silence.wav": (lambda path: sf.write(path, noise() * 0, 8000), 8000),
    "talk.mp4": (make_video, 44100),
    "Ünïcödé mit Leerzeichen/лето 夏.wav": (lambda p: sf.write(p, noise(), 44100), 44100),
}


@needs_ffmpeg
@pytest.mark.parametrize("name", ODD)
def test_odd_input_works(name):
    make, rate = ODD[name]
    Path(name).parent.mkdir(exist_ok=True)
    make(Path(name))
    result = sepbook("separate --model voices.safetensors --out", "my stems", name)
    assert result.exit_code == 0, result.output
    assert all("end at 4 kHz" in line for line in result.stderr.splitlines()), result.stderr
    target = Path("my stems") / Path(name).stem
    assert result.stdout.splitlines() == [str(target / "s1.wav"), str(target / "s2.wav")]
    wav, _ = load(name)
    for path in target.iterdir():
        est, est_rate = load(path)
        assert est_rate == rate and est.shape[-1] == wav.shape[-1] and est.isfinite().all()
    assert not [name for name in files() if ".part" in name or ".sepbook" in name]


def test_one_bad_among_good():
    for name in ("a.wav", "b.wav", "c.wav"):
        sf.write(name, noise(), 8000)
    result = sepbook("separate --model voices.safetensors a.wav missing.wav b.wav gone.wav c.wav")
    assert result.exit_code == 2
    assert [line.split()[1] for line in result.stderr.splitlines()] == ["missing.wav", "gone.wav"]
    assert {p.name for p in Path("stems").iterdir()} == {"a", "b", "c"}


def test_json_lines():
    sf.write("Ж a.wav", noise(), 8000)
    result = sepbook("separate --json --model voices.safetensors", "Ж a.wav", "missing.wav")
    good, bad = map(json.loads, result.stdout.splitlines())
    assert good["input"] == "Ж a.wav" and set(good["files"]) == {"s1", "s2"}
    assert all(Path(file).is_file() for file in good["files"].values())
    assert "does not exist" in bad["error"] and "files" not in bad


def test_only_and_two_stems_and_flac():
    sf.write("a.wav", noise(channels=2), 8000)
    assert sepbook("separate --model songs.safetensors a.wav --only drums").exit_code == 0
    assert files(Path("stems")) == {"a", "a/drums.wav"}
    line = "separate --model songs.safetensors a.wav --two-stems drums --format flac --out two"
    assert sepbook(line).exit_code == 0
    assert files(Path("two")) == {"a", "a/drums.flac", "a/no_drums.flac"}
    parts = [load(f"two/a/{name}.flac")[0] for name in ("drums", "no_drums")]
    torch.testing.assert_close(sum(parts), load("a.wav")[0], atol=1e-6, rtol=0)
    torch.testing.assert_close(parts[0], load("stems/a/drums.wav")[0], atol=1e-6, rtol=0)


# Bad options


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("separate a.wav --model nobody", ("nobody",)),
        ("separate a.wav --model nothing/here.safetensors", ("here.safetensors",)),
        ("separate a.wav --model a.wav", ("safetensors",)),
        ("separate a.wav --model songs.safetensors --segment soon", ("--segment", "is no number")),
        ("separate a.wav --model songs.safetensors --shifts 1.5", ("'1.5' is no whole number",)),
        ("separate a.wav --model songs.safetensors --device tpu", ("tpu", "cpu")),
        ("separate a.wav --modle songs.safetensors", ("--modle", "separate --help")),
        ("separate", ("IN", "separate --help")),
        ("seperate a.wav", ("seperate", "separate")),
        ("--bogus", ("--bogus",)),
        ("models nobody", ("nobody",)),
        ("evaluate", ("--model",)),
        ("evaluate --model voices.safetensors --data nowhere", ("nowhere",)),
        ("evaluate --model voices.safetensors --speakers nina", ("nina", "ada")),
        ("evaluate --model voices.safetensors --speakers no.txt", ("no.txt",)),
        ("evaluate --model voices.safetensors --metrics loudness", ("loudness",)),
        ("evaluate --model voices.safetensors --out table.txt", (".json or .csv",)),
        ("evaluate --model voices.safetensors --out no/table.csv", ("can't write to no",)),
        ("evaluate --model voices.safetensors --size 0", ("size",)),
        ("evaluate --model voices.safetensors --as-card", ("--as-card",)),
        ("evaluate --model songs.safetensors", ("vocals, drums",)),
        ("train --data example --model upit", ("--out",)),
        ("train --data example --model upit --out here.pt --steps 1", (".safetensors",)),
        ("train --data example --model upit --out no/a.safetensors --steps 1", ("no",)),
        ("train --data example --model transformer --out a.safetensors", ("UPIT", "transformer")),
        ("train --data example --out a.safetensors --steps 1", ("UPIT",)),
        ("train --data nowhere --model upit --out a.safetensors", ("nowhere",)),
        ("train --data example --model upit --set width=9 --out a.safetensors", ("hidden",)),
        ("train --data example --model upit --set hidden=x --out a.safetensors", ("hidden=x",)),
        ("train --data example --model upit --set hidden=8 --out a.safetensors", ("minutes",)),
        ("train --data example --model upit --init a.safetensors --out b.safetensors", ("--init",)),
    ],
)  # fmt: skip
def test_bad_options(line, words):
    sf.write("a.wav", noise(), 8000)
    before = files()
    refused(sepbook(line), *words)
    assert files() == before and not Path("a.safetensors").exists()


def test_no_words_at_all_show_the_help():
    result = sepbook("")
    assert result.exit_code == 2 and "separate" in result.output and "Exit codes" in result.output


# Folders that can't be written


@pytest.mark.parametrize("out", ["a.wav", "file", "file/deep", "/proc/nowhere"])
def test_unwritable_folder(out, monkeypatch):
    """Refused before the model is loaded."""
    if out.startswith("/proc") and not sys.platform.startswith("linux"):
        pytest.skip("/proc is Linux's")
    sf.write("a.wav", noise(), 8000)
    Path("file").write_text("in the way")
    monkeypatch.setattr(zoo, "load", lambda *args: pytest.fail("loaded"))
    refused(sepbook("separate --model voices.safetensors a.wav --out", out), "--out")
    assert files() == {"a.wav", "file"} and Path("file").read_text() == "in the way"


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere"
)
def test_folder_without_permission():
    sf.write("a.wav", noise(), 8000)
    Path("locked").mkdir(mode=0o500)
    refused(sepbook("separate --model voices.safetensors a.wav --out locked"), "locked")


def test_folder_without_permission_as_the_system_reports_it(monkeypatch):
    sf.write("a.wav", noise(), 8000)
    Path("locked").mkdir()

    def forbidden(*args, **kwargs):
        raise PermissionError(13, "Permission denied", "locked")

    monkeypatch.setattr("tempfile.mkdtemp", forbidden)
    monkeypatch.setattr("tempfile.TemporaryFile", forbidden)
    refused(sepbook("separate --model voices.safetensors a.wav --out locked"), "locked")
    refused(sepbook("evaluate --model voices.safetensors --out locked/a.csv"), "Permission denied")
    assert files() == {"a.wav", "locked"}


def test_disk_full_in_the_middle(monkeypatch):
    sf.write("a.wav", noise(), 8000)

    def full(self, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(sf.SoundFile, "write", full)
    refused(sepbook("separate --model voices.safetensors a.wav"), "a.wav")
    assert files() == {"a.wav"}


# What an error is worth


def test_ctrl_c_leaves_nothing(monkeypatch):
    sf.write("a.wav", noise(), 8000)

    def stop(self, mix):
        raise KeyboardInterrupt

    monkeypatch.setattr(UPIT, "forward", stop)
    refused(sepbook("separate --model voices.safetensors a.wav"), "interrupted", code=130)
    assert files() == {"a.wav"}


def test_a_fault_of_ours_has_another_code(monkeypatch):
    monkeypatch.setattr(zoo, "load", lambda *args, **kwargs: {}["s1"])
    refused(sepbook("separate a.wav"), "KeyError", "--debug", code=1)
    result = sepbook("separate a.wav --debug")
    assert isinstance(result.exception, KeyError)


def test_debug_shows_the_traceback():
    for line in ("--debug separate a.wav --model voices.safetensors", "models nobody --debug"):
        result = sepbook(line)
        assert isinstance(result.exception, ValueError | FileNotFoundError)


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (ValueError("two\n  lines"), 2, "two lines"),
        (MemoryError(), 2, "out of memory"),
        (torch.OutOfMemoryError("CUDA out of memory."), 2, "--segment"),
        (PermissionError(13, "Permission denied", "a.wav"), 2, "a.wav: Permission denied"),
        (RuntimeError("a.mp4 can't be read without ffmpeg; install it"), 2, "install it"),
        (FloatingPointError("the loss is nan"), 2, "the loss is nan"),
        (IndexError("9"), 1, "IndexError: 9"),
        (AssertionError(), 1, "AssertionError"),
    ],
)
def test_explain(error, code, words):
    line, given = cli.explain(error)
    assert given == code and words in line and "\n" not in line


def caught(code: str) -> Exception:
    """What a piece of code raises, with a traceback to its file."""
    try:
        exec(compile(code, "code", "exec"), {})
    except Exception as error:
        return error


def test_what_slipped_is_told_from_what_was_raised():
    raised = caught("raise TypeError('mix is int, but must be a tensor')")
    assert cli.explain(raised) == ("mix is int, but must be a tensor", 2)
    slipped = cli.explain(caught("1 + 'a'"))
    assert slipped[1] == 1 and slipped[0].startswith("TypeError: unsupported operand")
    assert cli.explain(caught("open('nowhere.txt')"))[1] == 2
    worker = "Caught ValueError in DataLoader worker process 0.\nOriginal Traceback (most recent "
    worker += "call last):\n  File a.py\nValueError: 'a.flac' is cut short"
    assert cli.explain(ValueError(worker)) == ("'a.flac' is cut short", 2)


def test_lists_that_are_no_text():
    Path("names.txt").write_bytes(b"ada\n\xff\xfe\n")
    refused(sepbook("evaluate --model voices.safetensors --speakers names.txt"), "UTF-8")
    Path("bad").mkdir()
    Path("bad/index.csv").write_bytes(bytes(range(256)))
    refused(sepbook("evaluate --model voices.safetensors --data bad"))


def test_only_the_first_process_speaks(monkeypatch):
    monkeypatch.setenv("RANK", "1")
    result = sepbook("models nobody")
    assert result.exit_code == 2 and result.stderr == ""


# models


def test_models_with_and_without_shipped_weights(monkeypatch, models):
    assert sepbook("models").exit_code == 0
    monkeypatch.setattr(weights, "shipped", lambda: {p.stem: p for p in sorted(models.iterdir())})
    monkeypatch.setattr(weights, "defaults", lambda: {"speech": "voices", "music": "songs"})
    result = sepbook("models")
    assert all(len(line) <= 80 for line in result.stdout.splitlines())
    assert "vocals, drums" in result.stdout and "htdemucs" in result.stdout
    rows = json.loads(sepbook("models --json").stdout)
    assert [row["model"] for row in rows if row["ships"]] == ["songs", "voices"]
    sf.write("a.wav", noise(channels=2), 8000)
    assert sepbook("separate a.wav").stdout.split() == ["stems/a/vocals.wav", "stems/a/drums.wav"]


def test_models_prints_a_card():
    text = sepbook("models voices.safetensors").stdout
    assert "class: sepbook.pit.UPIT" in text and "  hidden: 8" in text
    assert all(len(line) <= 80 for line in text.splitlines())
    card = json.loads(sepbook("models voices.safetensors --json").stdout)
    assert card["config"]["hidden"] == 8


def test_models_lists_the_networks():
    listed = sepbook("models --classes").stdout
    assert all(len(line) <= 80 for line in listed.splitlines())
    names = [line.split()[0] for line in listed.splitlines()[1:]]
    assert {"UPIT", "OpenUnmix", "DeepClustering"} <= set(names)
    assert "MaskNetwork" not in names and not any(name.startswith("_") for name in names)


# evaluate


EVALUATE = "evaluate --model voices.safetensors --size 4 --seconds 1"


def test_evaluate_twice_is_the_same():
    first, second = sepbook(EVALUATE), sepbook(EVALUATE)
    assert first.exit_code == 0 and first.stdout == second.stdout
    assert sepbook(EVALUATE + " --seed 1").stdout != first.stdout
    assert sepbook(EVALUATE + " --speakers ada,ben").stdout != first.stdout


def test_evaluate_writes_tables():
    for name in ("table.json", "table.csv"):
        assert sepbook(f"{EVALUATE} --metrics SI-SDR --out {name}").exit_code == 0
    rows = json.loads(Path("table.json").read_text())
    with open("table.csv", newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["source"] for row in rows] == ["s1", "s2", "all"] == [r["source"] for r in table]
    assert float(table[2]["mean"]) == pytest.approx(rows[2]["mean"])
    assert files() == {"table.json", "table.csv"}


def test_evaluate_is_what_metrics_say():
    from sepbook.metrics import evaluate
    from sepbook.mixtures import MixtureDataset

    sepbook(EVALUATE + " --metrics si_sdri --levels 10 --out table.json")
    data = MixtureDataset(example_corpus(), 2, seconds=1, size=4, level_range=(-31, -21))
    want = evaluate(zoo.load("./voices.safetensors"), data, ["si_sdri"])["si_sdri"].mean()
    got = json.loads(Path("table.json").read_text())[-1]["mean"]
    assert got == pytest.approx(want, abs=1e-6)


def write_pairs(names=("mix", "s1", "s2")) -> None:
    wavs = [noise(8000, seed=1), noise(8000, seed=2)]
    for name, wav in zip(names, [wavs[0] + wavs[1], *wavs]):
        Path("pairs", name).mkdir(parents=True)
        sf.write(f"pairs/{name}/first.wav", wav, 8000, "FLOAT")


def test_evaluate_pairs_of_folders():
    write_pairs()
    result = sepbook("evaluate --model voices.safetensors --data pairs --metrics si_sdr")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-1].split()[-2:] == ["1", "0"]  # clips, and missing ones
    Path("pairs/s2/first.wav").unlink()
    refused(sepbook("evaluate --model voices.safetensors --data pairs"), "first.wav")


def test_files_of_unequal_lengths_are_refused_by_name():
    write_pairs()
    sf.write("pairs/s2/first.wav", noise(6400), 8000, "FLOAT")
    words = ("mix/first.wav has 8000 samples", "s2/first.wav has 6400 samples")
    refused(sepbook("evaluate --model voices.safetensors --data pairs"), *words)


def test_evaluate_pairs_with_an_accompaniment():
    write_pairs(("mixture", "bass", "vocals"))
    song = RecurrentMask(
        hidden=8, sources=("vocals", "rest"), sample_rate=8000, n_fft=256, hop=64, channels=1
    )
    zoo.save(song, "rest.safetensors", {})
    result = sepbook("evaluate --model rest.safetensors --data pairs --metrics si_sdr")
    assert result.exit_code == 0 and "rest" in result.stdout, result.output


def test_short_and_silent_mixtures_cost_one_line(recwarn):
    """No word of the packages that measure, in Python or on the descriptor."""
    sounds = {"short": noise(400), "long": noise(16000), "silent": np.zeros((16000, 1))}
    for name, first in sounds.items():
        second = noise(len(first), seed=5)
        for place, wav in {"mix": first + second, "s1": first, "s2": second}.items():
            Path("odd", place).mkdir(parents=True, exist_ok=True)
            sf.write(f"odd/{place}/{name}.wav", wav, 8000, "FLOAT")
    words = ["evaluate", "-n", "voices.safetensors", "--data", "odd", "--metrics", "sdr,stoi,pesq"]
    out, err = (process := start(*words)).communicate(timeout=300)
    assert process.returncode == 0 and "stoi" in out, err
    want = "note: no value of sdr, sir, sar, stoi, pesq for a source in up to 2 of 3 mixtures; "
    assert err == want + "it is silent there, too short, or without speech\n", err


# train


TRAIN = (
    "train --data example --model upit --set hidden=8 --set layers=1 --seconds 0.5 --size 16 "
    "--valid-size 4 --valid-seconds 1 --batch-size 4 --quiet"
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A network after three steps, in half precision."""
    path = tmp_path_factory.mktemp("trained") / "tiny.safetensors"
    more = ["--steps", "3", "--dtype", "float16", "--licence", "CC0", "--out", str(path)]
    result = CliRunner().invoke(
        cli.app, [*TRAIN.split(), *more, "--folder", str(path.parent / "run")]
    )
    assert result.exit_code == 0, result.output
    return path


def test_the_card_of_a_trained_network(trained):
    card = zoo.read_card(trained)
    assert card["steps"] == 3 and card["licence"] == "CC0" and card["data"] == "example"
    assert card["dtype"] == "float16" and card["scores"]["items"] == 4
    assert str(trained.parent) not in json.dumps(card) and "--folder run" in card["command"]
    held = set(card["evaluation"]["names"])
    assert len(held) == 2 and held < {row["speaker"] for row in example_corpus().rows}


def test_evaluate_gives_the_figure_on_the_card_again(trained):
    result = sepbook(f"evaluate --model {trained} --as-card")
    assert result.exit_code == 0, result.output
    card = zoo.read_card(trained)
    names = ",".join(card["evaluation"]["names"])
    sepbook(f"evaluate --model {trained} --speakers {names} --size 4 --seconds 1 --out t.json")
    table = {row["metric"]: row["mean"] for row in json.loads(Path("t.json").read_text())[-2:]}
    for name in ("si_sdr", "si_sdri"):
        assert table[name] == pytest.approx(card["scores"][name], abs=0.01)


def test_another_figure_than_on_the_card_is_an_error(trained):
    network = zoo.load(trained)
    card = network.card | {"scores": {"si_sdri": network.card["scores"]["si_sdri"] + 0.02}}
    zoo.save(network, "boast.safetensors", card)
    refused(sepbook("evaluate --model boast.safetensors --as-card"), "si_sdri is not that")


def test_training_goes_on_and_nobody_is_heard_twice(trained):
    line = f"{TRAIN} --folder run --out a.safetensors --valid-speakers ada,ben"
    Path("out.txt").write_text("cal  # left out\n\ndee\n")
    names = {row["speaker"] for row in example_corpus().rows}
    assert {"ada", "ben", "cal", "dee"} <= names
    assert sepbook(line + " --exclude-speakers out.txt --steps 2").exit_code == 0
    again = sepbook(line + " --exclude-speakers out.txt --steps 5")
    assert again.exit_code == 0, again.output
    card = zoo.read_card("a.safetensors")
    assert card["steps"] == 5 and set(card["evaluation"]["names"]) == {"ada", "ben"}
    left = [
        row for row in example_corpus().rows if row["speaker"] not in {"ada", "ben", "cal", "dee"}
    ]
    assert card["sounds"] == len(left)
    refused(sepbook(line + " --steps 9 --batch-size 8"), "run", "another folder")


def test_fine_tuning_starts_where_the_file_ends(trained):
    line = f"train --data example --init {trained} --seconds 0.5 --size 8 --batch-size 8 --quiet "
    line += "--steps 1 --lr 1e-12 --valid-size 4 --valid-seconds 1 --out b.safetensors"
    assert sepbook(line).exit_code == 0
    old, new = zoo.load(trained).state_dict(), zoo.load("./b.safetensors").state_dict()
    for name in old:
        torch.testing.assert_close(new[name], old[name], atol=1e-6, rtol=0)
    first, second = zoo.read_card(trained), zoo.read_card("./b.safetensors")
    assert second["before"]["command"] == first["command"]
    assert second["seconds_trained"] >= first["seconds_trained"]
    third = line.replace("--out b", "--out c").replace(str(trained), "./b.safetensors")
    assert sepbook(third).exit_code == 0
    before = zoo.read_card("./c.safetensors")["before"]
    assert before["command"] == second["command"] and before["before"] == second["before"]


def test_fine_tuning_with_another_setting(trained):
    line = f"train --data example --init {trained} --seconds 0.5 --size 8 --batch-size 8 --quiet "
    line += "--steps 1 --valid-size 4 --valid-seconds 1 --out b.safetensors --set"
    assert sepbook(line, "dropout=0.25").exit_code == 0
    assert zoo.read_card("./b.safetensors")["config"]["dropout"] == 0.25
    refused(sepbook(line, "hidden=9"), "hidden=9", "--init")


def write_album() -> None:
    rows = ["excerpt,song"]
    for k, song in enumerate(("one", "two", "three")):
        Path("album", song).mkdir(parents=True)
        rows.append(f"{song},{song}")
        for j, stem in enumerate(("drums", "vocals", "other")):
            sf.write(f"album/{song}/{stem}.wav", noise(16000, seed=3 * k + j), 8000)
    Path("album/index.csv").write_text("\n".join(rows))


SONG = (
    "train --data album --model recurrent-mask --set hidden=8 --set sample_rate=8000 "
    "--set channels=1 --set n_fft=256 --set hop=64 --seconds 0.5 --size 8 --batch-size 4 "
    "--steps 2 --valid-size 2 --valid-seconds 1 --remix 0.5 --valid-songs two --quiet "
    "--out song.safetensors"
)


def test_train_on_songs():
    write_album()
    result = sepbook(SONG)
    assert result.exit_code == 0, result.output
    card = zoo.read_card("song.safetensors")
    assert set(card["sources"]) == {"vocals", "drums", "other"} and card["sounds"] == 6
    assert {"sdri", "si_sdri", "drums_sdri", "drums_sdri_ci"} <= set(card["scores"])
    result = sepbook("evaluate --model song.safetensors --data album --as-card")
    assert result.exit_code == 0, result.output


def test_train_on_two_of_three_stems():
    write_album()
    assert sepbook(SONG + " --set sources=vocals,accompaniment").exit_code == 0
    assert zoo.read_card("song.safetensors")["sources"] == ["vocals", "accompaniment"]
    refused(sepbook(SONG + " --set sources=piano,guitar"), "piano, guitar", "vocals, drums, other")


def test_a_single_song_is_too_few():
    for k, stem in enumerate(("vocals", "drums")):
        Path("one/a").mkdir(parents=True, exist_ok=True)
        sf.write(f"one/a/{stem}.wav", noise(16000, seed=k), 8000)
    line = SONG.replace("album", "one").replace("--valid-songs two ", "")
    refused(sepbook(line), "one of them to validate on, but there is only 'a'; add some")


class Song(list):
    """A data set of one item."""

    sources, sample_rate = ("vocals", "drums", "bass"), 8000


def test_arranged_adds_up_what_is_not_named():
    src = torch.randn(3, 1, 10, generator=torch.Generator().manual_seed(0))
    mix, got = cli.Arranged(Song([(src.sum(0), src)]), ("rest", "bass"))[0]
    torch.testing.assert_close(got, torch.stack([src[:2].sum(0), src[2]]))
    torch.testing.assert_close(got.sum(0), mix)
    assert cli.Arranged(Song([(mix, src)]), Song.sources)[0][1] is src
    with pytest.raises(ValueError, match="piano, guitar"):
        cli.Arranged(Song(), ("piano", "guitar"))


def test_values_of_set():
    meant = {"12": 12, "1e-3": 1e-3, "True": True, "none": None, "relu": "relu", "1,2": (1, 2)}
    assert {text: experiments.value_of(text) for text in meant} == meant


# Real processes


def start(*words: str, **how):
    call = [sys.executable, "-m", "sepbook.cli", *words]
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | how.pop("env", {})
    return subprocess.Popen(
        call, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env, **how
    )


def test_help_is_quick_and_fits_80_columns():
    before = os.times()
    out, _ = start("--help", env={"COLUMNS": "80"}).communicate()
    now = os.times()
    took = now.children_user + now.children_system - before.children_user - before.children_system
    assert took < 1.0 and "evaluate" in out
    for command in ("separate", "models", "evaluate", "train", "export"):
        text = sepbook(f"{command} --help").stdout
        assert text.startswith(f"Usage: sepbook {command}")
        assert all(len(line) <= 80 for line in text.splitlines())


def test_help_and_refusals_import_nothing_heavy():
    code = (
        "import sys; from sepbook.cli import app\n"
        "for line in (['--help'], ['train', '--help'], ['separate', '--bogus'], ['--version']):\n"
        "    try: app(line)\n"
        "    except SystemExit: pass\n"
        "heavy = {'torch', 'numpy', 'pandas', 'soundfile', 'accelerate', 'rich'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, capture_output=True)


def test_a_real_process_refuses_in_one_line():
    process = start("separate", "missing.wav", "--model", "voices.safetensors")
    out, err = process.communicate(timeout=600)
    assert process.returncode == 2 and out == "" and err.startswith("error: missing.wav")
    assert len(err.splitlines()) == 1


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.parametrize(
    "number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_signal_ends_a_training_with_a_checkpoint(number, code):
    words = [w for w in TRAIN.split() if w != "--quiet"]
    process = start(*words, "--minutes", "9", "--folder", "run", "--out", "a.safetensors")
    while not Path("run/log.jsonl").exists() or not Path("run/log.jsonl").read_text():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    process.send_signal(number)
    _, err = process.communicate(timeout=600)
    assert process.returncode == code and "Traceback" not in err, err
    assert number != signal.SIGINT or "error: interrupted" in err.splitlines()[-1]
    assert Path("run/checkpoint.safetensors").exists() and not Path("a.safetensors").exists()


@pytest.mark.skipif(os.name == "nt", reason="a folder in use can't be removed there")
def test_a_folder_that_was_removed():
    code = "import os; os.mkdir('gone'); os.chdir('gone'); os.rmdir('../gone'); "
    code += "from sepbook.cli import main; main()"
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code, "separate", "/a.wav"], env=env, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr == "error: the current folder was removed; go to another one\n"


def test_version():
    from sepbook import __version__

    assert sepbook("--version").stdout == f"sepbook {__version__}\n"
