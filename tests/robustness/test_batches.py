"""Batches: workers that are killed, asleep, too many; sounds that are none; a disk that is full."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from course import ROOT

from sepbook.engine import batches
from sepbook.engine.batches import (
    Claims,
    Job,
    Report,
    batch_command,
    find_recordings,
    is_done,
    publish,
    separate_folder,
    work_on,
)
from sepbook.engine.files import load, save
from sepbook.engine.streams import separate_file
from sepbook.engine.weights import save as save_model
from sepbook.models import ConvTasNet

SMALL = dict(n_filters=16, bottleneck=8, hidden=8, skip=8, blocks=1, repeats=1)
RATE, FRAMES = 8000, 1600


class Halves:
    """Two sources, each half of the mixture; `pause` is called first."""

    sample_rate, channels, sources = RATE, 1, ("a", "b")

    def __init__(self, pause=lambda mix: None, share=0.5):
        self.pause, self.share = pause, share

    def __call__(self, mix):
        self.pause(mix)
        return torch.stack([mix * self.share, mix * (1 - self.share)], 1)


def recordings(folder, count=4):
    """Short noise in two folders; the names, sorted."""
    draw = torch.Generator().manual_seed(0)
    names = sorted(f"day{k % 2}/{k:03}.wav" for k in range(count))
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        save(folder / name, 0.1 * torch.randn(1, FRAMES, generator=draw), RATE, "FLOAT")
    return names


@pytest.fixture
def model(tmp_path):
    """The file of a tiny network."""
    torch.manual_seed(0)
    path = tmp_path / "tiny.safetensors"
    save_model(ConvTasNet(**SMALL), path, {"data": "none", "licence": "CC0-1.0"})
    return path


def published(out):
    """How often each recording was published, as the workers' logs have it."""
    lines = [x for p in out.glob(".sepbook-batch/log/*.jsonl") for x in p.read_text().splitlines()]
    return sorted(json.loads(line)["item"] for line in lines)


def check_whole(out, names, sources=("s1", "s2"), frames=FRAMES):
    """Every recording has all its stems, of full length, and there is nothing else."""
    found = sorted(p.relative_to(out).as_posix() for p in out.rglob("*.wav") if p.is_file())
    assert found == sorted(f"{name}/{stem}.wav" for name in names for stem in sources)
    for name in found:
        wav, rate = load(out / name)
        assert rate == RATE and wav.shape == (1, frames) and bool(wav.isfinite().all())
    assert not list(out.glob(".sepbook-batch/work/*"))


def one_line(error):
    text = str(error.value)
    assert "\n" not in text and len(text) < 260, text
    return text


# The bar


def test_two_hundred_recordings_two_workers_one_killed(tmp_path, model):
    """`kill -9` in the middle of a recording: all results are whole, none was made twice."""
    names, began, killed = recordings(tmp_path / "in", 200), [], []

    def kill(event):
        if event["event"] == "begin":
            began.append(event)
            if len(began) == 80:
                os.kill(event["pid"], signal.SIGKILL)
                killed.append(event)

    out = tmp_path / "out"
    report = separate_folder(model, tmp_path / "in", out, workers=2, on_event=kill, lease=600)
    assert len({event["pid"] for event in began}) == 2
    check_whole(out, names)
    made = published(out)
    assert made == sorted(set(made)), "some recording was published twice"
    held = killed[0]["item"]  # its worker may have died after publishing, before it said so
    assert set(names) - set(made) <= {held} and len(report.done) >= 199
    assert (report.lost, report.failed, report.others + len(report.done)) == (1, {}, 200)
    assert report.took < 300  # nobody waited for a lease
    want = separate_file(model, tmp_path / "in" / held, tmp_path / "again", progress=False)
    for stem, path in want.items():
        assert torch.equal(load(out / held / f"{stem}.wav")[0], load(path)[0])


CALL = """
import sys
from sepbook.engine.batches import separate_folder

def tell(event):
    print(event["event"], event.get("item", "-"), event.get("pid", "-"), flush=True)

model, source, out, lease = sys.argv[1:]
print(separate_folder(model, source, out, workers=1, lease=float(lease), on_event=tell), flush=True)
"""
ALONE = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}"}


def start(model, source, out, lease):
    """A batch as a script starts it in the background: deaf to interrupts."""
    call = [sys.executable, "-c", CALL, *map(str, (model, source, out, lease))]
    deaf = lambda: signal.signal(signal.SIGINT, signal.SIG_IGN)
    return subprocess.Popen(call, env=ALONE, stdout=subprocess.PIPE, text=True, preexec_fn=deaf)


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_for(condition, seconds=300):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if condition():
            return True
        time.sleep(0.05)
    return False


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs /proc")
def test_a_machine_that_dies_is_replaced(tmp_path, model):
    """Two calls on one folder, as on two machines; one of them vanishes with all its processes."""
    names, out = recordings(tmp_path / "in", 12), tmp_path / "out"
    for name in names:  # long enough that one is held when the machine dies
        save(tmp_path / "in" / name, 0.1 * torch.randn(1, 20 * RATE), RATE, "FLOAT")
    first = start(model, tmp_path / "in", out, 2)
    for line in first.stdout:
        if not line.startswith("begin"):
            continue
        held, pid = line.split()[1:]
        os.kill(int(pid), signal.SIGSTOP)
        if not is_done(out / held):  # else the news of it came too late: take the next
            break
        os.kill(int(pid), signal.SIGCONT)
    os.kill(first.pid, signal.SIGSTOP)  # the parent can't tell anybody any more
    second = start(model, tmp_path / "in", out, 2)
    os.kill(int(pid), signal.SIGKILL)
    os.kill(first.pid, signal.SIGKILL)
    told, _ = second.communicate(timeout=600)
    assert second.returncode == 0 and f"done {held} " in told
    check_whole(out, names, frames=20 * RATE)
    made = published(out)
    assert made == sorted(set(made)) and set(names) - set(made) <= {held}
    assert (out / ".sepbook-batch/claims" / f"{held}.2").exists()
    first.wait()


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs /proc")
def test_workers_end_with_their_parent(tmp_path):
    model = tmp_path / "slow.safetensors"  # twenty seconds for what follows
    slow = ConvTasNet(**SMALL | {"n_filters": 64, "hidden": 64, "blocks": 6, "repeats": 2})
    save_model(slow, model, {"data": "none", "licence": "CC0-1.0"})
    recordings(tmp_path / "in", 2)
    for path in (tmp_path / "in").rglob("*.wav"):
        save(path, 0.1 * torch.randn(1, 2000 * RATE), RATE, "FLOAT")
    process = start(model, tmp_path / "in", tmp_path / "out", 60)
    while not (line := process.stdout.readline()).startswith("begin"):
        pass
    item, pid = line.split()[1], int(line.split()[2])
    assert alive(pid)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert wait_for(lambda: not alive(pid))
    over = json.loads((tmp_path / "out/.sepbook-batch/claims" / f"{item}.1.over").read_text())
    assert over["why"] == "returned"
    assert not list((tmp_path / "out").rglob("*.wav/*"))


# Claims


def test_only_one_can_claim(tmp_path):
    claims, got = [Claims(tmp_path) for _ in range(8)], []
    gate = threading.Barrier(8)

    def run(mine):
        for k in range(40):
            gate.wait()
            if mine.take(f"{k}.wav"):
                got.append(k)

    threads = [threading.Thread(target=run, args=(c,)) for c in claims]
    [t.start() for t in threads], [t.join() for t in threads]
    assert sorted(got) == list(range(40))


def test_only_one_takes_over(tmp_path):
    Claims(tmp_path).take("a.wav")
    others, got = [Claims(tmp_path, lease=0.2) for _ in range(8)], []
    assert not any(c.take("a.wav") for c in others)
    time.sleep(0.3)
    gate = threading.Barrier(8)

    def run(mine):
        gate.wait()
        got.append(mine.take("a.wav"))

    threads = [threading.Thread(target=run, args=(c,)) for c in others]
    [t.start() for t in threads], [t.join() for t in threads]
    assert [p.name for p in got if p] == ["a.wav.2"]


def test_nobody_takes_over_before_the_lease_has_passed(tmp_path):
    Claims(tmp_path).take("a.wav")
    other, began = Claims(tmp_path, lease=1.0), time.monotonic()
    while other.take("a.wav") is None:
        time.sleep(0.05)
    assert time.monotonic() - began >= 1.0


def test_no_clock_is_compared(tmp_path):
    """A machine whose clock is a year off keeps its claim as long as it changes."""
    mine, other = Claims(tmp_path, lease=0.3), Claims(tmp_path, lease=0.3)
    claim = mine.take("a.wav")
    for k in range(8):
        os.utime(claim, (1e9 + k, 1e9 + k))
        assert other.take("a.wav") is None
        time.sleep(0.1)


def test_a_recording_that_kills_is_given_up(tmp_path):
    for k in range(1, 4):
        claim = Claims(tmp_path).take("bomb.wav")
        assert claim.name == f"bomb.wav.{k}"
        Claims(tmp_path).end(claim, "died")
    claims = Claims(tmp_path)
    assert claims.take("bomb.wav") is None
    assert claims.failure("bomb.wav").startswith("3 workers died of it")


def test_what_is_returned_does_not_count(tmp_path):
    for _ in range(9):
        claims = Claims(tmp_path)
        claims.end(claims.take("a.wav"), "returned")
    assert Claims(tmp_path).take("a.wav").name == "a.wav.10"


def test_a_name_as_long_as_names_may_be(tmp_path):
    name = "x" * 251 + ".wav"
    save(tmp_path / "in.wav", torch.zeros(1, 800), RATE)
    (tmp_path / "in").mkdir()
    os.rename(tmp_path / "in.wav", tmp_path / "in" / name)
    report = separate_folder(Halves(), tmp_path / "in", tmp_path / "out", workers=0)
    assert report.done == [name] and is_done(tmp_path / "out" / name)


def test_a_worker_that_was_asleep_publishes_nothing(tmp_path, monkeypatch):
    """Its claim was taken over meanwhile, so its results come too late, and are thrown away."""
    (name,) = recordings(tmp_path / "in", 1)
    monkeypatch.setattr(Claims, "kept_alive", lambda self, claim: nullcontext())
    asleep, woken, events = threading.Event(), threading.Event(), []

    def sleep(mix):
        asleep.set()
        assert woken.wait(30)

    jobs = [
        Job(Halves(pause, share), str(tmp_path / "in"), str(tmp_path / "out"), [name], lease=0.3)
        for pause, share in ((sleep, 0.9), (lambda mix: None, 0.5))
    ]
    slow = threading.Thread(target=lambda: events.extend(work_on(jobs[0])))
    slow.start()
    assert asleep.wait(30)
    assert [e["event"] for e in work_on(jobs[1])] == ["begin", "done"]
    woken.set()
    slow.join()
    assert [e["event"] for e in events] == ["begin", "late"]
    a, b = (load(tmp_path / "out" / name / f"{s}.wav")[0] for s in "ab")
    assert torch.equal(a, b) and published(tmp_path / "out") == [name]
    assert not (tmp_path / f"out/.sepbook-batch/claims/{name}.2.over").exists()


def test_of_two_that_publish_one_wins(tmp_path):
    """Even where both believe that they hold the claim."""
    for k in range(2):
        (tmp_path / f"made{k}").mkdir()
        (tmp_path / f"made{k}" / "a.wav").write_bytes(bytes([k]))
    assert publish(tmp_path / "made0", tmp_path / "out" / "x.wav")
    assert not publish(tmp_path / "made1", tmp_path / "out" / "x.wav")
    assert (tmp_path / "out" / "x.wav" / "a.wav").read_bytes() == b"\0"


# What can go wrong with recordings and places


def test_bad_recordings_cost_a_line_each(tmp_path, model):
    names = recordings(tmp_path / "in", 3)
    (tmp_path / "in" / "empty.wav").write_bytes(b"")
    (tmp_path / "in" / "text.mp3").write_text("no sound at all\n" * 99)
    report = separate_folder(model, tmp_path / "in", tmp_path / "out", workers=1)
    assert sorted(report.failed) == ["empty.wav", "text.mp3"] and sorted(report.done) == names
    assert all("\n" not in line for line in report.failed.values())
    again = separate_folder(model, tmp_path / "in", tmp_path / "out", workers=0)
    assert (again.there, again.done, sorted(again.failed)) == (3, [], ["empty.wav", "text.mp3"])
    save(tmp_path / "in" / "empty.wav", torch.zeros(1, FRAMES), RATE)
    mended = separate_folder(model, tmp_path / "in", tmp_path / "out", workers=0, retry=True)
    assert mended.done == ["empty.wav"] and list(mended.failed) == ["text.mp3"]
    assert str(mended).count("failed") == 1


def test_no_two_recordings_want_one_place(tmp_path):
    for name in ("talk.wav", "talk.flac", "talk/talk.wav", "talk/s1.wav"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        save(tmp_path / "in" / name, torch.zeros(1, 800), RATE)
    report = separate_folder(Halves(), tmp_path / "in", tmp_path / "out", workers=0)
    assert len(report.done) == 4
    found = {p.relative_to(tmp_path / "out").as_posix() for p in tmp_path.glob("out/**/a.wav")}
    assert "talk.wav/a.wav" in found and "talk/talk.wav/a.wav" in found and len(found) == 4


def test_results_below_the_recordings_are_no_recordings(tmp_path):
    names = recordings(tmp_path, 2)
    for _ in range(2):
        separate_folder(Halves(), tmp_path, tmp_path / "out", workers=0)
    assert find_recordings(tmp_path, tmp_path / "out") == names
    check_whole(tmp_path / "out", names, "ab")


def test_a_full_disk_stops_the_batch(tmp_path, monkeypatch):
    recordings(tmp_path / "in", 4)
    monkeypatch.setattr(batches, "can_write", lambda folder: False)

    def full(mix):
        raise OSError("the disk is full; make room")

    with pytest.raises(OSError, match="the disk is full"):
        separate_folder(Halves(full), tmp_path / "in", tmp_path / "out", workers=0)
    overs = list((tmp_path / "out").rglob("*.over"))
    assert [json.loads(p.read_text())["why"] for p in overs] == ["returned"]
    report = separate_folder(Halves(), tmp_path / "in", tmp_path / "out", workers=0)
    assert len(report.done) == 4


def test_other_settings_are_refused(tmp_path, model):
    recordings(tmp_path / "in", 1)
    where = (tmp_path / "in", tmp_path / "out")
    separate_folder(model, *where, workers=0, suffix="flac")
    for call, words in (
        (lambda: separate_folder(model, *where, workers=0), "suffix = flac, now None"),
        (lambda: separate_folder(Halves(), *where, workers=0), "model = tiny.safetensors"),
    ):
        with pytest.raises(ValueError, match=words) as error:
            call()
        one_line(error)
    again = separate_folder(model, *where, workers=0, suffix="flac", device="cpu")
    assert again.there == 1


@pytest.mark.parametrize(
    ("how", "words"),
    [
        (dict(workers=-1), "workers is -1"),
        (dict(workers=1.5), "workers is 1.5"),
        (dict(lease=0), "lease is 0"),
        (dict(engine="dask"), "engine is 'dask'"),
        (dict(engine="ray", workers=0), "give at least 1 worker"),
        (dict(workers=1), "save it and give its file"),
        (dict(workers=0, overlapp=0.5), "no option 'overlapp'"),
        (dict(workers=0, template="{stem}"), "template can't be given"),
    ],
)
def test_refusals_say_what_to_do(tmp_path, how, words):
    recordings(tmp_path / "in", 1)
    with pytest.raises((ValueError, TypeError), match=words) as error:
        separate_folder(Halves(), tmp_path / "in", tmp_path / "out", **how)
    one_line(error)
    assert not (tmp_path / "out").exists()


def test_places_that_will_not_do(tmp_path):
    recordings(tmp_path / "in", 1)
    (tmp_path / "bare").mkdir()
    (tmp_path / "file").touch()
    for source, out, words in (
        ("nowhere", "out", "there is no folder"),
        ("bare", "out", "no recording in"),
        ("in", "in", "holds the recordings"),
        ("in", "file", "is a file"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=words) as error:
            separate_folder(Halves(), tmp_path / source, tmp_path / out, workers=0)
        one_line(error)


def test_a_model_that_cannot_be_loaded_stops_all(tmp_path):
    recordings(tmp_path / "in", 2)
    with pytest.raises(RuntimeError, match=r"2 of 2 recordings are not done: .*nonsense") as error:
        separate_folder("nonsense", tmp_path / "in", tmp_path / "out", workers=1)
    assert "\n" not in str(error.value)


def test_the_command(tmp_path, model, capsys):
    names = recordings(tmp_path / "in", 2)
    where = (tmp_path / "in", tmp_path / "out")
    assert batch_command(*where, str(model), workers=0, suffix=None) == 0
    said = capsys.readouterr().out.splitlines()
    assert sorted(said[:2]) == [str(tmp_path / "out" / name) for name in names]
    assert said[2].startswith("2 separated")
    (tmp_path / "in" / "bad.wav").write_bytes(b"RIFF")
    assert batch_command(*where, str(model), workers=0, as_json=True) == 2
    said = capsys.readouterr()
    assert json.loads(said.out)["item"] == "bad.wav"
    assert said.err.startswith(f"error: {tmp_path}/in/bad.wav ") and said.err.count("bad.wav") == 1
    assert batch_command(*where, str(model), workers=0) == 2
    said = capsys.readouterr()  # an exit code without a word would be a riddle
    assert "bad.wav" in said.err and "--retry" in said.err and len(said.err.splitlines()) == 1


def test_the_report_speaks():
    report = Report(done=["a"], there=2, others=1, failed={"b": "c"}, lost=1, seconds=36, took=2)
    assert str(report) == (
        "1 separated (0.01 h of audio, 18.0 times real time), 2 there before, 1 done by others, "
        "1 failed, 1 workers died"
    )


# On an existing engine


def test_ray_does_the_same(tmp_path, model):
    """A batch that was begun by processes is finished by Ray, with equal results."""
    pytest.importorskip("ray", reason="Ray is not installed: pip install sepbook[ray]")
    names = recordings(tmp_path / "in", 12)
    separate_folder(model, tmp_path / "in", tmp_path / "plain", workers=1)
    begun = tmp_path / "out"
    job = Job(str(model), str(tmp_path / "in"), str(begun), names[:3])
    (begun / ".sepbook-batch").mkdir(parents=True)
    list(work_on(job))
    report = separate_folder(model, tmp_path / "in", begun, workers=2, engine="ray")
    assert (report.there, sorted(report.done)) == (3, names[3:])
    check_whole(begun, names)
    assert published(begun) == names
    for path in begun.rglob("*.wav/*.wav"):
        other = tmp_path / "plain" / path.relative_to(begun)
        assert torch.equal(load(path)[0], load(other)[0])
