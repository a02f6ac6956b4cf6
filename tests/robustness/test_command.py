"""`sepbook separate` and `sepbook models` as people use them in a shell."""

import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile as sf
import torch
from click.testing import CliRunner

from sepbook import cli, zoo
from sepbook.engine import commands, files, names, weights
from sepbook.models.mask_networks import RecurrentMask
from sepbook.pit import UPIT
from sepbook.sound import load

needs_ffmpeg = pytest.mark.skipif(not shutil.which("ffmpeg"), reason="no ffmpeg on the PATH")
posix = pytest.mark.skipif(os.name == "nt", reason="descriptors of POSIX")
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Two small networks: one for two voices, one for stereo songs."""
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    how = {"sources": ("vocals", "drums", "other"), "n_fft": 256, "hop": 64, "channels": 2}
    zoo.save(UPIT(hidden=8, layers=1), folder / "voices.safetensors")
    zoo.save(RecurrentMask(hidden=8, sample_rate=8000, **how), folder / "songs.safetensors")
    return folder


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch, models):
    """An empty working folder with the two models in it."""
    monkeypatch.chdir(tmp_path)
    for path in models.iterdir():
        shutil.copy(path, tmp_path)
    return tmp_path


def sepbook(line: str, *words: str, **how):
    """Run a command in this process."""
    words = [*shlex.split(line), *map(str, words)]
    return CliRunner().invoke(cli.app, words, prog_name="sepbook", **how)


def separate(line: str, *words: str, model: str = "songs"):
    """Separate, and expect that all goes well."""
    result = sepbook(f"separate --model {model}.safetensors {line}", *words)
    assert result.exit_code == 0, result.output
    return result


def noise(seconds: float = 1.0, channels: int = 2, seed: int = 0, rate: int = 8000) -> np.ndarray:
    draw = np.random.default_rng(seed)
    return 0.1 * draw.standard_normal((round(seconds * rate), channels)).astype("float32")


def put(path: str, *args, rate: int = 8000, **how) -> np.ndarray:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    sf.write(path, wave := noise(*args, rate=rate, **how), rate)
    return wave


def refused(result, *words: str) -> str:
    """One clear line on stderr and code 2."""
    lines = result.stderr.splitlines()
    assert result.exit_code == 2 and len(lines) == 1, result.output
    assert lines[0].startswith("error: ") and len(lines[0]) < 400 and "Traceback" not in lines[0]
    for word in words:
        assert word in lines[0], f"{word!r} is not in {lines[0]!r}"
    return lines[0]


def below(folder: str) -> set[str]:
    """Every file below a folder, hidden ones too."""
    return {str(p.relative_to(folder)) for p in Path(folder).rglob("*") if p.is_file()}


# What is written


@pytest.mark.parametrize("bits,subtype", [(16, "PCM_16"), (24, "PCM_24"), (32, "FLOAT")])
def test_bits(bits, subtype):
    put("a.wav")
    separate(f"a.wav --bits {bits}")
    assert sf.info("stems/a/vocals.wav").subtype == subtype
    if bits < 32:
        separate(f"a.wav --bits {bits} --format flac -o f")
        assert sf.info("f/a/vocals.flac").subtype == subtype


@pytest.mark.parametrize("suffix", ["mp3", "ogg", "opus"])
def test_compressed(suffix):
    put("a.wav", 2.0, rate=48000)
    separate(f"a.wav --format {suffix} --only vocals")
    separate(f"a.wav --format {suffix} --only vocals --bitrate 80 -o small")
    sizes = [Path(f, "a", f"vocals.{suffix}").stat().st_size for f in ("stems", "small")]
    assert sf.info(f"stems/a/vocals.{suffix}").duration == pytest.approx(2, abs=0.1)
    assert sizes[1] < sizes[0]


def test_formats_are_read_in_any_case():
    put("a.wav")
    separate("a.wav --format .FLAC --only drums")
    assert below("stems") == {"a/drums.flac"}


def test_what_is_true_of_the_model_is_said_once():
    put("a.wav", rate=16000), put("b.wav", rate=16000)
    told = separate("a.wav b.wav --only drums").stderr.splitlines()
    assert len(told) == 1 and told[0].startswith("note: a.wav: drums ends at 4 kHz")


def test_an_address_is_no_file():
    said = refused(sepbook("separate https://a.org/b.mp3 -n songs.safetensors"), "is an address")
    assert said.count("a.org") == 1 and not Path("stems").exists()


def test_short_options():
    put("a.wav")
    result = sepbook("separate a.wav -n songs.safetensors -o out --only drums")
    assert result.exit_code == 0 and below("out") == {"a/drums.wav"}


def test_names():
    put("a.wav"), put("x/b.wav")
    separate("a.wav x/b.wav --name", "{model}/{stem}/{name}.{ext}")
    want = {f"songs/{s}/{n}.wav" for s in ("vocals", "drums", "other") for n in "ab"}
    assert below("stems") == want
    separate("a.wav -o flat --name", "{stem}")
    assert below("flat") == {"vocals.wav", "drums.wav", "other.wav"}


@pytest.mark.parametrize(
    "pattern", ["{nam}/{stem}", "all", "{stem", "../{stem}", "/tmp/{stem}", "~/{stem}", "{stem!r}"]
)
def test_names_that_are_refused(pattern):
    put("a.wav")
    refused(sepbook("separate a.wav -n songs.safetensors --name", pattern), "--name")
    assert not Path("stems").exists()


def test_karaoke_alone():
    wave = put("a.wav")
    separate("a.wav --only no_vocals -o karaoke")
    separate("a.wav --two-stems vocals -o two")
    assert below("karaoke") == {"a/no_vocals.wav"}
    assert below("two") == {"a/vocals.wav", "a/no_vocals.wav"}
    voice, band, rest = (
        load(p)[0] for p in ("two/a/vocals.wav", "two/a/no_vocals.wav", "karaoke/a/no_vocals.wav")
    )
    torch.testing.assert_close(rest, band, atol=1e-6, rtol=0)
    torch.testing.assert_close(voice + band, load("a.wav")[0], atol=1e-4, rtol=0)
    assert wave.shape[0] == band.shape[1]
    separate("a.wav --only drums,no_vocals -o some")
    assert below("some") == {"a/drums.wav", "a/no_vocals.wav"}


def test_a_passage():
    put("a.wav", 3.0)
    separate("a.wav --only drums")
    separate("a.wav --only drums --start 0:01 --duration 1.5 -o part")
    part, _ = load("part/a/drums.wav")
    assert part.shape[-1] == 12000
    separate("a.wav --only drums --start 1 -o rest")
    assert load("rest/a/drums.wav")[0].shape[-1] == 16000


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("--start soon", ("--start is soon", "1:30")),
        ("--start -1", ("--start", "-1")),
        ("--start 1:75", ("--start is 1:75",)),
        ("--duration 0", ("--duration is 0",)),
        ("--duration nan", ("--duration is nan",)),
        ("--duration 1e3", ("--duration is 1e3",)),
        ("--format aiff", ("--format is aiff", "mp3")),
        ("--format flac --bits 32", ("--bits is 32", "16 or 24")),
        ("--format mp3 --bits 16", ("--bits is 16", "--bitrate")),
        ("--bitrate 128", ("--bitrate is 128", "--bits")),
        ("--format mp3 --bitrate 5", ("--bitrate is 5",)),
        ("--only drums,drums", ("drums twice",)),
        ("--only piano", ("--only is piano", "vocals, drums, other")),
        ("--two-stems piano", ("--two-stems is piano", "vocals, drums, other")),
        ("--fill piano", ("--fill is piano",)),
        ("--shifts -1", ("--shifts is -1",)),
        ("--overlap 1", ("--overlap is 1.0",)),
        ("--segment 0", ("--segment is 0.0",)),
        ("--precision fp8", ("--precision is fp8",)),
        ("--device cuda:x", ("--device is cuda:x",)),
        ("--device cuda:99", ("--device is cuda:99",)),
        ("--out a.wav/b", ("--out", "a.wav is a file")),
        ("--model htdemuc", ("'htdemucs'",)),
    ],
)  # fmt: skip
def test_options_are_refused_in_their_own_words(line, words):
    """Before the work, and without a word of Python."""
    put("a.wav")
    said = refused(sepbook("separate a.wav --model songs.safetensors " + line), *words)
    assert not re.search(r"two_stems|[a-z]+='|sepbook\.\w|\(\)", said), said
    assert not Path("stems").exists()


def test_python_is_not_spoken():
    """Messages of the engine that advise in Python are turned around."""
    sf.write("7.1.wav", noise(channels=8), 8000)
    line = refused(sepbook("separate 7.1.wav -n songs.safetensors"), "8 channels", "7.1.wav")
    assert "mix" not in line and "ffmpeg" in line and not Path("stems").exists()
    torch.save({"a": torch.zeros(2)}, "theirs.safetensors")
    assert "read_weights" not in refused(sepbook("separate 7.1.wav -n theirs.safetensors"))
    assert (
        commands.as_options("overlap is 2; use overlap=0.25")
        == "--overlap is 2; use --overlap 0.25"
    )
    assert commands.as_options("mix, whose format is odd") == "mix, whose format is odd"


def test_the_recording_is_not_overwritten():
    put("stems/a/vocals.wav")
    before = Path("stems/a/vocals.wav").read_bytes()
    line = "separate -n songs.safetensors stems/a/vocals.wav -o stems/a --name"
    refused(sepbook(line, "{stem}.{ext}"), "is the recording itself")
    assert Path("stems/a/vocals.wav").read_bytes() == before and below("stems") == {"a/vocals.wav"}


def test_skip_existing(monkeypatch):
    put("a.wav"), put("b.wav", 0.5)
    separate("a.wav")
    times = {p: p.stat().st_mtime_ns for p in Path("stems/a").iterdir()}
    rows = separate("a.wav b.wav --skip-existing --json").stdout.splitlines()
    first, second = map(json.loads, rows)
    assert (
        first["skipped"] and "skipped" not in second and set(first["files"]) == set(second["files"])
    )
    assert times == {p: p.stat().st_mtime_ns for p in Path("stems/a").iterdir()}
    next(iter(times)).unlink()
    assert "skipped" not in json.loads(separate("a.wav --skip-existing --json").stdout)


@needs_ffmpeg
def test_tags_are_kept():
    put("a.wav")
    told = "-metadata title=Lithium -metadata artist=Somebody"
    subprocess.run(f"ffmpeg -v error -i a.wav {told} b.flac".split(), check=True)
    for suffix in ("flac", "mp3"):
        separate(f"b.flac --format {suffix} --only drums")
        probe = "ffprobe -v error -of json -show_entries format_tags:stream_tags"
        text = subprocess.run(
            [*probe.split(), f"stems/b/drums.{suffix}"], capture_output=True
        ).stdout
        assert b"Lithium" in text and b"Somebody" in text


def test_shifts_change_something():
    put("a.wav")
    separate("a.wav --only drums"), separate("a.wav --only drums --shifts 2 -o two")
    once, twice = load("stems/a/drums.wav")[0], load("two/a/drums.wav")[0]
    assert once.shape == twice.shape and not torch.equal(once, twice)


# What is read


def test_folders():
    for name in (
        "b.wav",
        "a.flac",
        "deep/c.ogg",
        ".hidden/d.wav",
        "._e.wav",
        "deep/__MACOSX/f.wav",
    ):
        put(f"album/{name}", 0.3)
    Path("album/cover.jpg").write_bytes(b"no sound")
    Path("album/list.txt").write_text("no sound")
    result = separate("album --only drums --json")
    rows = [json.loads(row) for row in result.stdout.splitlines()]
    assert [row["input"] for row in rows] == ["album/a.flac", "album/b.wav", "album/deep/c.ogg"]
    assert below("stems") == {"a/drums.wav", "b/drums.wav", "deep/c/drums.wav"}


def test_stems_inside_a_folder_are_not_separated_again():
    put("album/a.wav", 0.3)
    for _ in range(2):
        separate("album --only drums -o album/stems")
        assert below("album") == {"a.wav", "stems/a/drums.wav"}


def test_a_folder_without_sound():
    Path("empty").mkdir()
    put("a.wav", 0.3)
    result = sepbook("separate empty a.wav -n songs.safetensors")
    assert result.exit_code == 2 and below("stems") and "empty is a folder" in result.stderr


def test_a_missing_input_takes_no_name():
    """One that does not exist must not make the next `the same name`."""
    put("y/a.wav", 0.3)
    result = sepbook("separate x/a.wav y/a.wav -n songs.safetensors")
    assert "x/a.wav does not exist" in result.stderr and len(result.stderr.splitlines()) == 1
    assert below("stems")


def test_the_same_name():
    put("a.wav", 0.3), put("a.flac", 0.3), put("x/a.wav", 0.3)
    result = sepbook("separate a.wav a.wav a.flac x/a.wav -n songs.safetensors --json")
    twice, flac, other = result.stderr.splitlines()
    assert "is given twice" in twice and "a.flac has the same name as a.wav" in flac
    assert "x/a.wav has the same name" in other and len(result.stdout.splitlines()) == 4
    put("album/x/a.wav", 0.3), put("album/y/a.wav", 0.3)
    separate("album -o two --only drums")
    assert below("two") == {"x/a/drums.wav", "y/a/drums.wav"}


@posix
def test_names_of_any_bytes():
    put("a.wav", 0.3)
    odd = [
        b"--model.wav",
        b"-o.wav",
        b"~.wav",
        b"line\nbreak.wav",
        b"\xff\xfe.wav",
        b"..wav",
        b"$(x).wav",
    ]
    for name in odd:
        shutil.copy(b"a.wav", name)
    words = [os.fsdecode(name) for name in odd]
    result = sepbook("separate -n songs.safetensors --only drums --json --", *words)
    assert result.exit_code == 0, result.stderr
    assert len(below("stems")) == len(odd) and {p.name for p in Path("stems").rglob("*.wav")} == {
        "drums.wav"
    }
    missing = sepbook(
        "separate -n songs.safetensors --", "no\nsuch\x1b[31m.wav", os.fsdecode(b"\xff.wav")
    )
    assert len(missing.stderr.splitlines()) == 2 and "\x1b" not in missing.stderr


# Progress


def test_progress_says_which_file_and_how_fast(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(commands, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    screen = io.StringIO()
    bar = commands.Progress(10, True, screen)
    for _ in range(3):
        bar.begin("deep/song\x1b.mp3")
    bar(0.0, 180.0)
    first = screen.getvalue().rpartition("\r")[2]
    assert first.startswith("file 3 of 10: song?.mp3") and "real-time" not in first
    now[0] += 9
    bar(90.0, 180.0)
    line = screen.getvalue().rpartition("\r")[2]
    assert "50% of 180 s" in line and "real-time factor 0.100" in line and "9 s left" in line
    bar.clear()
    assert screen.getvalue().rpartition("\r")[2] == ""


def test_progress_says_nothing_if_it_is_not_asked():
    screen = io.StringIO()
    bar = commands.Progress(1, False, screen)
    bar.begin("a.wav"), bar(1.0, 2.0), bar.clear()
    assert screen.getvalue() == ""
    assert [*commands.Progress.figures(3.0, None, 1.0)] == ["3 s", "real-time factor 0.333"]


# Real processes and their streams


def run(line: str, shell: bool = True, **how) -> subprocess.CompletedProcess:
    """A shell's line in which $S stands for the command."""
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "S": sys.executable}
    env["HF_HUB_OFFLINE"] = "1"
    line = line.replace("sepbook", f"{shlex.quote(sys.executable)} -m sepbook")
    return subprocess.run(
        ["bash", "-c", line], capture_output=True, text=True, env=env | how, timeout=600
    )


@posix
def test_standard_input():
    put("a.wav")
    done = run("cat a.wav | sepbook separate - -n songs.safetensors --only drums")
    assert done.returncode == 0 and done.stdout == "stems/stdin/drums.wav\n", done.stderr
    separate("a.wav --only drums")
    there, again = load("stems/a/drums.wav")[0], load("stems/stdin/drums.wav")[0]
    torch.testing.assert_close(there, again)
    done = run("sepbook separate - - -n songs.safetensors < a.wav")
    assert done.returncode == 2 and "- is given twice" in done.stderr
    for line in ("sepbook separate - -n songs.safetensors <&-", "sepbook separate - < /dev/null"):
        done = run(line)
        assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr


@posix
@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&-", "<&- >&- 2>&-", "| true"])
def test_closed_streams(closed):
    """No traceback, and the stems are there."""
    put("a.wav", 0.3), put("b.wav", 0.3)
    line = "sepbook separate a.wav b.wav missing.wav -n songs.safetensors --only drums"
    done = run(f"set -o pipefail; {line} {closed}")
    assert done.returncode == 2 and "Traceback" not in done.stderr + done.stdout
    assert "Exception" not in done.stderr and "BrokenPipe" not in done.stderr
    assert below("stems") == {"a/drums.wav", "b/drums.wav"}
    assert below(".") == {
        *("a.wav", "b.wav", "songs.safetensors", "voices.safetensors"),
        *("stems/a/drums.wav", "stems/b/drums.wav"),
    }  # fmt: skip


@posix
def test_a_reader_who_goes_and_a_disk_that_is_full():
    for line in (
        "sepbook models | true",
        "sepbook --help | true",
        "sepbook separate --help | true",
    ):
        done = run(line)
        assert done.stderr == "", done.stderr
    if Path("/dev/full").exists():
        done = run("sepbook models > /dev/full")
        assert done.returncode == 2 and done.stderr.startswith("error: standard output: No space")
        assert len(done.stderr.splitlines()) == 1


@posix
@pytest.mark.skipif(not shutil.which("script"), reason="no script command, which makes a terminal")
def test_on_a_terminal():
    put("a.wav", 0.3), put("b.wav", 0.3)
    inner = "sepbook separate a.wav b.wav -n songs.safetensors"
    for more, shown in (("", True), ("-q", False)):
        done = run(f"script -qec '{inner} {more}' /dev/null", NO_COLOR="1", FORCE_COLOR="1")
        assert ("file 2 of 2: b.wav" in done.stdout) is shown, done.stdout
        assert "\x1b[" not in done.stdout and "8631" not in done.stdout


# models


def test_models_lists_what_ships_and_what_can_be_fetched():
    result = sepbook("models")
    assert all(len(line) <= 80 for line in result.stdout.splitlines())
    rows = json.loads(sepbook("models --json").stdout)
    ships = [row["model"] for row in rows if row["ships"]]
    assert ships == list(weights.shipped())
    fetched = {row["model"]: row for row in rows if not row["ships"]}
    assert set(fetched) == set(names.SHORT) and len(fetched) >= 26
    for row in rows:
        assert row["model"] in result.stdout and row["licence"]
        assert row["kind"] in ("music", "speech", "enhancement") and row["sample_rate"] >= 8000
        assert row["sources"] and row["parameters"] > 1e5
    assert fetched["htdemucs"]["sources"] == ["drums", "bass", "other", "vocals"]
    default = {row["default_for"]: row for row in rows if row.get("default_for")}
    kinds = {word: row["kind"] for word, row in default.items()}
    voices = {"speech": "speech", "speech3": "speech"}
    assert kinds == {"music": "music", "denoise": "enhancement"} | voices
    assert all(row["ships"] and f"-n {word}" in result.stdout for word, row in default.items())


def test_models_lists_the_score_on_each_card():
    lines = sepbook("models").stdout.splitlines()
    place = lines[1].index("SI-SDRi")
    told = {line.split()[0]: line[place:].split()[0] for line in lines[2 : lines.index("")]}
    for row in json.loads(sepbook("models --json").stdout):
        if row["ships"]:
            gain = (weights.read_card(row["model"])["scores"] or {}).get("si_sdri")
            assert row["si_sdri"] == gain
            assert told[row["model"]] == ("-" if gain is None else f"{gain:.1f}")
    assert set(told.values()) != {"-"}


def test_models_shows_the_card_of_a_published_one():
    text = sepbook("models htdemucs").stdout
    assert "licence: MIT" in text and "hf:adefossez/HTDemucs" in text and "huggingface.co" in text
    card = json.loads(sepbook("models sepformer_wsj02mix --json").stdout)
    assert card["sample_rate"] == 8000 and card["sources"] == ["s1", "s2"]
    refused(sepbook("models sepfomer-wsj02mix"), "sepformer-wsj02mix")


def test_a_published_model_without_a_network():
    put("a.wav", 0.3)
    done = run("sepbook separate a.wav --model htdemucs")
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert "huggingface.co/adefossez/HTDemucs" in done.stderr and "no network" in done.stderr


# Help


@pytest.mark.parametrize("command", ["", "separate", "models", "evaluate"])
def test_help_is_one_screen_with_examples(command):
    text = sepbook(f"{command} --help").stdout
    lines = text.splitlines()
    assert len(lines) <= 48 and all(len(line) <= 80 for line in lines)
    assert "sepbook separate" in text or "Examples:" in text
    if command:
        assert lines[-1].startswith("  ") and "sepbook" in lines[-1]


def test_help_has_every_option_in_a_group():
    text = sepbook("separate --help").stdout
    for option in (
        (
            "-n, --model -o, --out -q, --quiet --start --duration --format --bits --bitrate --only "
            "--two-stems "
            "--fill --name --skip-existing --device --shifts --segment --overlap --precision --json"
        )
        .replace(", ", ",")
        .split()
    ):
        assert option.replace(",", ", ") in text
    assert text.index("Which part") < text.index("What is written") < text.index("How it is")


def test_what_the_command_knows_of_formats():
    """The table that spares an import is that of the writer."""
    have = {suffix: tuple(files.BITS.get(suffix, ())) for suffix in files.STEM_FORMATS}
    assert have == commands.BITS


# The package


def closure(wanted: list[str]) -> set[str]:
    """All packages that some packages take, as they are installed here; without torch's own."""
    from importlib.metadata import PackageNotFoundError, requires

    from packaging.requirements import Requirement

    found, todo = set(), list(wanted)
    while todo:
        rule = Requirement(todo.pop())
        name = re.sub(r"[-_.]+", "-", rule.name).lower()
        if name in found or (rule.marker and not rule.marker.evaluate({"extra": ""})):
            continue
        found.add(name)
        if name != "torch" and not name.startswith(("nvidia", "cuda")):
            try:
                todo += requires(name) or []
            except PackageNotFoundError:
                pytest.skip(f"{name} is not installed")
    return found


def required() -> list[str]:
    from configparser import ConfigParser

    config = ConfigParser(delimiters=["="])
    config.read(ROOT / "settings.ini", encoding="utf-8")
    return config["DEFAULT"]["requirements"].split()


def test_few_packages_are_required():
    """Ten with torch; its CPU build takes nine more, that of PyPI for CUDA 28: with sepbook, 39."""
    pytest.importorskip("packaging")
    ours = closure(required()) - {"typing-extensions"}  # which torch takes, too
    assert len(ours) <= 10, sorted(ours)


def test_separating_imports_nothing_but_what_is_required():
    """`separate` and the README's lines run without all else; what needs more says so."""
    put("a.wav", 0.3)
    code = """
import sys
BANNED = {"pandas", "librosa", "matplotlib", "IPython", "ipywidgets", "accelerate", "stempeg",
          "huggingface_hub", "torchaudio", "pooch", "sklearn", "museval", "pesq", "nbdev", "tqdm",
          "typer", "rich", "tomli_w", "tensorboard", "onnx", "onnxscript", "onnxruntime"}
class Guard:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BANNED:
            raise ModuleNotFoundError(f"No module named {name!r}")
sys.meta_path.insert(0, Guard())
from sepbook.cli import app
try:
    app(["separate", "a.wav", "-n", "songs.safetensors", "-q"])
except SystemExit as end:
    assert not end.code, end.code
try:
    app(["models"])
except SystemExit as end:
    assert not end.code, end.code
import re, torch, sepbook
first, second = re.findall(r"```python\\n(.*?)```", open(sys.argv[1]).read(), re.S)
exec(first.rpartition("sepbook.evaluate")[0])
exec(second)
assert clean.shape == mix.shape
wav = torch.zeros(2, 800)
est = sepbook.separate("./songs.safetensors", wav, progress=True)
assert set(est) == {"vocals", "drums", "other"}
for name, package, call in (
    ("evaluate", "pandas", lambda: sepbook.evaluate(lambda mix: mix[:, None], [(wav, wav[None])])),
    ("evaluate", "pandas", lambda: sepbook.available()),
):
    try:
        call()
    except ModuleNotFoundError as error:
        assert str(error) == f"this needs {package}; pip install 'sepbook[{name}]'", error
    else:
        raise AssertionError(package)
for line in (
    "evaluate --model songs.safetensors",
    "train --model upit --data example --out a.safetensors",
):
    try:
        app(line.split())
    except SystemExit as end:
        assert end.code == 2
assert not BANNED & set(sys.modules)
"""
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    call = [sys.executable, "-c", code, str(ROOT / "README.md")]
    done = subprocess.run(call, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines() == [
        "error: this needs pandas; pip install 'sepbook[evaluate]'",
        "error: this needs accelerate; pip install 'sepbook[train]'",
    ]


# -- nothing overwritten that was given


def test_other_inputs_of_the_same_call_are_never_overwritten(here):
    put("a.wav")
    put("vocals.wav", seed=1)
    before = Path("vocals.wav").read_bytes()
    line = "separate --model songs.safetensors a.wav vocals.wav -o . --name {stem}.{ext}"
    result = sepbook(line)
    assert result.exit_code == 2
    assert "a.wav: vocals.wav is an input, too; use another --out or --name" in result.stderr
    assert Path("vocals.wav").read_bytes() == before and not Path("drums.wav").exists()


def test_results_of_the_same_call_are_never_overwritten(here):
    for name in "pq":
        put(f"album/{name}/x.wav", seed=ord(name))
    os.makedirs("out/p")
    os.symlink("p", "out/q")  # two names of one place, as P and p are on some disks
    result = sepbook("separate --model songs.safetensors album -o out --json")
    refused(result, "out/q/x/vocals.wav is a result of this run, too; use another --out or --name")
    first = json.loads(result.stdout.splitlines()[0])["files"]
    assert sf.info(first["vocals"]).frames == 8000


def test_a_folder_that_is_its_own_out(here):
    put("album/a.wav")
    refused(sepbook("separate --model songs.safetensors album -o album"), "lies in --out")


# -- export


def test_export_writes_a_file_that_gives_the_same(here):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    result = sepbook("export voices.safetensors voices.onnx --seconds 0.2 --json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert told["file"] == "voices.onnx" and told["difference"] < 1e-3
    session = onnxruntime.InferenceSession("voices.onnx", providers=["CPUExecutionProvider"])
    network, mix = zoo.load("./voices.safetensors"), torch.from_numpy(noise(0.2, 1).T.copy())[None]
    (est,) = session.run(["est"], {"mix": mix.numpy()})
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(est), network(mix), atol=1e-4, rtol=1e-3)


def test_export_from_python_by_name(here):
    pytest.importorskip("onnxscript")
    import sepbook

    done = sepbook.export("./voices.safetensors", "p.onnx", seconds=0.2, compare=False)
    assert done.path == Path("p.onnx") and Path("p.onnx").stat().st_size > 1000
    for path, seconds in (("p.wav", 1.0), ("no/p.onnx", 1.0), ("p.onnx", float("nan"))):
        with pytest.raises((ValueError, FileNotFoundError)):
            sepbook.export("./voices.safetensors", path, seconds=seconds)


@pytest.mark.parametrize(
    "line, words",
    [
        ("nobody a.onnx", "no model 'nobody'"),
        ("voices.safetensors a.pt", "--out is a.pt, but must end in .onnx"),
        ("voices.safetensors no/a.onnx", "can't write to no"),
        ("voices.safetensors a.onnx --seconds nan", "--seconds is nan"),
        ("voices.safetensors", "Missing argument 'OUT'"),
        ("mine.py:Net a.onnx", "a class without weights"),
    ],
)
def test_export_refuses_in_one_line(here, line, words):
    pytest.importorskip("onnxscript")
    refused(sepbook(f"export {line}"), words)
    assert not list(Path().glob("*.onnx"))


@posix
def test_pipes_where_files_are_needed(here):
    """Neither waited for nor replaced."""
    for name in ("m.safetensors", "t.csv", "o.onnx", "c.toml"):
        os.mkfifo(name)
    put("a.wav", 0.3)
    for line in (
        "separate a.wav -n m.safetensors",
        "models m.safetensors",
        "evaluate -n voices.safetensors --out t.csv",
        "train --model upit --data example --steps 1 --config c.toml --out b.safetensors",
        "train --init m.safetensors --data example --steps 1 --out b.safetensors",
        "export voices.safetensors o.onnx",
    ):
        refused(sepbook(line), "no ")
    assert all(Path(name).is_fifo() for name in ("m.safetensors", "t.csv", "o.onnx", "c.toml"))
