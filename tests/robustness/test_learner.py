"""The learner: killed, resumed, spread over processes, fed with nonsense."""

import copy
import importlib.util
import itertools
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from course import ROOT
from safetensors.torch import load_file
from torch import nn
from torch.utils.data import Dataset

import sepbook.learner as learner_module
from sepbook.engine import training as engine
from sepbook.engine.files import atomic
from sepbook.engine.training import (
    Checkpoint,
    EarlyStopping,
    Log,
    TensorBoard,
    curve_svg,
    epoch_order,
    load_state,
    save_state,
)
from sepbook.learner import EMA, Learner, Network, Objective, lr_factor
from sepbook.mixtures import MixtureDataset, example_corpus, preload


class Small(Network):
    """Two convolutions with dropout."""

    def __init__(self, hidden: int = 8, dropout: float = 0.2, sources=("s1", "s2")):
        super().__init__()
        self.sample_rate, self.channels, self.sources = 8000, 1, tuple(sources)
        layers = [nn.Conv1d(1, hidden, 9, padding=4), nn.ReLU(), nn.Dropout(dropout)]
        self.net = nn.Sequential(*layers, nn.Conv1d(hidden, len(sources), 1))

    def forward(self, mix):
        return (self.net(self.check(mix)).sigmoid() * mix)[:, :, None]


PATH = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(ROOT)]))
ALONE = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": PATH}


def items(n=12, frames=200, seed=0):
    draw = torch.Generator().manual_seed(seed)
    src = [torch.randn(2, 1, frames, generator=draw) * 0.1 for _ in range(n)]
    return [(s.sum(0), s) for s in src]


def make(data=None, valid=None, loss=None, model=None, **how):
    torch.manual_seed(0)
    how = dict(batch_size=4, lr=0.01, log_every=1) | how
    return Learner(model or Small(), items() if data is None else data, valid, loss, **how)


def fit(*args, steps=7, **how):
    made = make(*args, **how)
    made.fit(steps=steps, progress=False)
    return made


def weights(made):
    return torch.cat([p.detach().flatten() for p in made.model.parameters()])


def one_line(error):
    return "\n" not in str(error.value) and len(str(error.value)) < 220


# Killed and resumed


KILLS = """
import json, os, signal, sys, time
from pathlib import Path
import accelerate, pandas, safetensors.torch, torch
from torch import nn
from sepbook.learner import Learner, Network
from sepbook.mixtures import MixtureDataset, example_corpus, preload

torch.set_num_threads(1)
root = Path(sys.argv[1])
corpus = preload(example_corpus())

class Small(Network):
    def __init__(self, hidden: int = 8):
        super().__init__()
        self.sample_rate, self.channels, self.sources = 8000, 1, ("s1", "s2")
        layers = [nn.Conv1d(1, hidden, 9, padding=4), nn.ReLU(), nn.Dropout(0.2)]
        self.net = nn.Sequential(*layers, nn.Conv1d(hidden, 2, 1))

    def forward(self, mix):
        return (self.net(self.check(mix)).sigmoid() * mix)[:, :, None]

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def die_with_half_a_checkpoint():
    write, count = safetensors.torch.save_file, iter(range(100))
    def save_file(tensors, path, meta=None):
        write(tensors, path, meta)
        if "identity" in meta["state"] and next(count) == 6:
            os.truncate(path, os.path.getsize(path) // 2)
            die()
    safetensors.torch.save_file = save_file

def die_before_it_has_its_name():
    replace, count = os.replace, iter(range(100))
    def renamed(a, b):
        if "checkpoint" in str(b) and next(count) == 8:
            die()
        replace(a, b)
    os.replace = renamed

def train(folder, how, seed):
    if how == "half":
        die_with_half_a_checkpoint()
    if how == "unnamed":
        die_before_it_has_its_name()
    data = MixtureDataset(corpus, seconds=0.25, size=20)
    valid = MixtureDataset(corpus, seconds=0.25, size=4, seed=9)
    torch.manual_seed(seed)
    options = dict(batch_size=4, ema=0.9, schedule="cosine", warmup=3, lr=0.01)
    options |= dict(log_every=3, checkpoint_minutes=0)
    learner = Learner(Small(), data, valid, folder=folder, **options)
    (folder / "from.txt").write_text(str(learner.where.step))
    learner.fit(steps=16, progress=False)

def start(name, how="", seed=0):
    pid = os.fork()
    if pid:
        return pid
    try:
        train(root / name, how, seed)
        os._exit(0)
    except BaseException as error:
        print(repr(error), file=sys.stderr, flush=True)
        os._exit(1)

def ended(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

codes = {"whole": ended(start("whole"))}
codes |= {name: ended(start(name, name)) for name in ("half", "unnamed")}
for name, rows in (("early", 2), ("late", 5)):
    pid, log, late = start(name), root / name / "log.jsonl", time.monotonic() + 600
    while not log.exists() or log.read_text().count("\\n") < rows:
        if time.monotonic() > late:
            break
        time.sleep(0.001)
    os.kill(pid, signal.SIGKILL)
    codes[name] = ended(pid)
left = [path.name for path in (root / "half").glob(".*.tmp")]
names = ("half", "unnamed", "early", "late")
again = {name: ended(start(name, seed=1)) for name in names}
print(json.dumps({"codes": codes, "again": again, "left": left}))
"""


def result(folder):
    """What must be equal: everything in the checkpoint but the time, and the log but the time."""
    state = load_state(folder / "checkpoint.safetensors")
    state["where"].pop("seconds")
    tensors = {}
    tree = engine.flatten(state, "", tensors)
    log = pd.read_json(folder / "log.jsonl", lines=True).drop(columns="seconds")
    return json.dumps(tree), tensors, log, load_file(folder / "best.safetensors")


def assert_equal(a, b):
    assert a[0] == b[0]
    for one, two in ((a[1], b[1]), (a[3], b[3])):
        assert one.keys() == two.keys()
        assert all(torch.equal(one[name], two[name]) for name in one)
    pd.testing.assert_frame_equal(a[2], b[2], check_exact=True)


def test_killed_with_signal_9_and_resumed(tmp_path):
    """Half a checkpoint, one without its name, kills from outside: the same weights."""
    (script := tmp_path / "kills.py").write_text(KILLS)
    call = [sys.executable, str(script), str(tmp_path)]
    done = subprocess.run(call, env=ALONE, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-1000:]
    told = json.loads(done.stdout)
    assert told["codes"].pop("whole") == 0
    assert set(told["codes"].values()) == {-signal.SIGKILL}, told
    assert told["left"]  # it did die while it was writing
    for name, code in told["again"].items():
        assert code == 0, done.stderr[-1000:]
        assert 0 < int((tmp_path / name / "from.txt").read_text()) < 16
        assert_equal(result(tmp_path / name), result(tmp_path / "whole"))
        assert not list((tmp_path / name).glob(".*"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_end_the_training_after_a_checkpoint(number, tmp_path, capsys):
    undisturbed = fit(steps=9)
    calls = iter(range(100))

    def loss(model, mix, src):
        if next(calls) == 4:
            os.kill(os.getpid(), number)
        return model.loss(mix, src)

    handler = signal.getsignal(number)
    interrupted = make(loss=loss, folder=tmp_path / "run")
    with pytest.raises(KeyboardInterrupt if number == signal.SIGINT else SystemExit):
        interrupted.fit(steps=9, progress=False)
    assert signal.getsignal(number) == handler
    step = load_state(tmp_path / "run" / "checkpoint.safetensors")["where"]["step"]
    assert step == 4 and "after step 4, saved in run" in capsys.readouterr().err
    assert torch.equal(weights(fit(steps=9, folder=tmp_path / "run")), weights(undisturbed))
    interrupted.fit(steps=9, progress=False)  # or in the same process
    assert torch.equal(weights(interrupted), weights(undisturbed))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("phase", ["data", "training", "validation"])
def test_signals_do_not_wait(number, phase, tmp_path, capsys):
    """However long an item, a step or a validation takes; and then it goes on to the bit."""
    came = []

    def send():
        came.append(time.process_time())
        os.kill(os.getpid(), number)

    def slow():
        if not came:
            threading.Timer(0.2, send).start()
            time.sleep(60)
            came.append("waited")

    class Slow(Dataset):
        data = items(12)
        calls = 0

        def __len__(self):
            return 12

        def __getitem__(self, i):
            self.calls += 1
            if phase == "data" and self.calls > 6 + 7:  # the first six make the fingerprint
                slow()
            return self.data[i]

    def loss(model, mix, src):
        if phase == "training" and model.training and learner.where.step == 4:
            slow()
        if phase == "validation" and not model.training:
            slow()
        return model.loss(mix, src)

    how = dict(folder=tmp_path, ema=0.9)
    learner = make(Slow(), items(4), loss, **how)
    with pytest.raises(KeyboardInterrupt if number == signal.SIGINT else SystemExit):
        learner.fit(steps=6, progress=False)
    assert len(came) == 1 and time.process_time() - came[0] < 1
    step = {"data": 1, "training": 4, "validation": 3}[phase]
    assert f"after step {step}, saved in {tmp_path.name}" in capsys.readouterr().err
    assert load_state(tmp_path / "checkpoint.safetensors")["where"]["step"] == step
    resumed, whole = fit(Slow(), items(4), steps=6, **how), fit(items(), items(4), steps=6, ema=0.9)
    assert torch.equal(weights(resumed), weights(whole))
    left, right = (made.log.drop(columns="seconds") for made in (resumed, whole))
    pd.testing.assert_frame_equal(left, right, check_exact=True)


def test_a_signal_waits_for_the_step_to_be_whole(tmp_path):
    """It comes in the middle of the optimiser's step, and again while the checkpoint is written."""

    class Hurried(torch.optim.Adam):
        def step(self, *args, **kwargs):
            os.kill(os.getpid(), signal.SIGTERM)
            super().step(*args, **kwargs)

    class Impatient:
        def after_interrupt(self, learner):
            os.kill(os.getpid(), signal.SIGTERM)

    learner = make(optimizer=Hurried, folder=tmp_path, callbacks=[Impatient()])
    with pytest.raises(SystemExit):
        learner.fit(steps=5, progress=False)
    state = load_state(tmp_path / "checkpoint.safetensors")
    assert state["where"]["step"] == 1
    assert torch.equal(weights(learner), weights(fit(steps=1)))


def test_signals_in_a_thread_are_no_business_of_ours():
    learner = make()
    thread = threading.Thread(target=lambda: learner.fit(steps=2, progress=False))
    thread.start(), thread.join()
    assert learner.where.step == 2


@pytest.mark.parametrize("stop", range(1, 9))
def test_resumes_from_every_step_with_every_schedule(stop, tmp_path):
    """Also in the middle of an epoch, with momentum, halvings, and averages."""
    schedules = ["constant", "cosine", "plateau", "halving", lambda done: 1 - done / 2]
    how = dict(schedule=schedules[stop % 5], warmup=2, ema=0.8, halve_after=1)
    how["optimizer"] = [torch.optim.AdamW, "sgd", "rmsprop", "adam"][stop % 4]
    calls = []

    def loss(model, mix, src):
        calls.append(model.training)
        if sum(calls) > stop and model.training:
            raise RuntimeError("power cut")
        return model.loss(mix, src)

    whole = fit(items(14), items(3, seed=1), steps=9, **how)
    with pytest.raises(RuntimeError, match="power cut"):
        fit(
            items(14), items(3, seed=1), loss, steps=9, folder=tmp_path, checkpoint_minutes=0, **how
        )
    torch.manual_seed(5)
    resumed = make(items(14), items(3, seed=1), folder=tmp_path, **how)
    assert resumed.where.step == stop
    resumed.fit(steps=9, progress=False)
    assert torch.equal(weights(resumed), weights(whole))
    left, right = (made.log.drop(columns="seconds") for made in (resumed, whole))
    pd.testing.assert_frame_equal(left, right, check_exact=True)
    assert resumed.where.best == whole.where.best


def test_resume_does_not_decode_what_was_used(tmp_path):
    seen = []

    class Watched(Dataset):
        data = items(12)

        def __len__(self):
            return 12

        def __getitem__(self, i):
            seen.append(i)
            return self.data[i]

    for steps, used in ((2, 8), (3, 12)):
        made = make(Watched(), folder=tmp_path)
        del seen[8 * (steps - 2) :]  # a few items were read to recognise the data
        made.fit(steps=steps, progress=False)
        assert len(seen) == used
    assert sorted(seen) == list(range(12))


# The same every time


def test_the_same_with_any_number_of_workers():
    data = MixtureDataset(preload(example_corpus()), seconds=0.3, size=10)
    alone = fit(data, items(2), steps=6)
    helped = fit(data, items(2), steps=6, workers=2)
    assert torch.equal(weights(alone), weights(helped))
    assert not torch.equal(weights(alone), weights(fit(data, items(2), steps=6, seed=1)))


def test_random_items_repeat():
    class Random(Dataset):
        """Uses all three global generators, and an epoch in a plain attribute."""

        epoch = 0

        def __len__(self):
            return 8

        def set_epoch(self, epoch):
            self.epoch = epoch

        def __getitem__(self, i):
            import random

            scale = 0.1 * (1 + self.epoch) * (1 + random.random()) * (1 + np.random.rand())
            src = scale * torch.randn(2, 1, 100)
            return src.sum(0), src

    runs = [fit(Random(), steps=5, workers=workers) for workers in (0, 0, 2)]
    assert torch.equal(weights(runs[0]), weights(runs[1]))
    assert torch.equal(weights(runs[0]), weights(runs[2]))


def test_the_callers_randomness_is_left_alone():
    import random

    made = make(items(), items(2))
    torch.manual_seed(3), np.random.seed(3), random.seed(3)
    want = torch.rand(1), np.random.rand(), random.random()
    torch.manual_seed(3), np.random.seed(3), random.seed(3)
    made.fit(steps=4, progress=False)
    assert (torch.rand(1), np.random.rand(), random.random()) == want


def test_epochs_are_permutations():
    orders = [epoch_order(50, epoch, seed) for epoch in range(3) for seed in range(3)]
    assert all(sorted(order) == list(range(50)) for order in orders)
    assert len({tuple(order) for order in orders}) == 9
    assert epoch_order(5, 2, shuffle=False) == [0, 1, 2, 3, 4]


def test_two_processes_make_the_same_steps_as_one(tmp_path):
    """Gloo on the CPU, five steps with clipping and averaging, the joined batch shared.

    The third run also cuts each batch in two parts, whose gradients are accumulated.
    """
    spec = importlib.util.spec_from_file_location("bench", ROOT / "benchmarks" / "learner.py")
    spec.loader.exec_module(bench := importlib.util.module_from_spec(spec))
    (script := tmp_path / "two.py").write_text(bench.TWO)
    started = {
        name: subprocess.Popen(
            [sys.executable, *launch, script, tmp_path / f"{name}.safetensors"]
            + [tmp_path / f"run-{name}", number, parts],
            env=ALONE | {"ACCELERATE_USE_CPU": "true"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for name, launch, number, parts in (
            ("one", [], "1", "1"),
            ("two", bench.LAUNCH, "2", "1"),
            ("parts", bench.LAUNCH, "2", "2"),
        )
    }
    for process in started.values():
        error = process.communicate(timeout=300)[1]
        assert process.returncode == 0, error[-800:]
    torch.manual_seed(0)
    start = nn.Conv1d(1, 32, 17, padding=8).weight
    one = load_file(tmp_path / "one.safetensors")
    assert (one["net.0.weight"] - start).abs().max() > 1e-3  # they did move
    alone = load_state(tmp_path / "run-one" / "checkpoint.safetensors")
    logs = [pd.read_json(tmp_path / f"run-{n}" / "log.jsonl", lines=True) for n in started]
    for k, name in enumerate(started):
        two = load_file(tmp_path / f"{name}.safetensors")
        for key in one:
            torch.testing.assert_close(one[key], two[key], atol=1e-6, rtol=0)
        shared = load_state(tmp_path / f"run-{name}" / "checkpoint.safetensors")
        assert shared["where"]["step"] == 5
        assert shared["where"]["best"] == pytest.approx(alone["where"]["best"], rel=1e-5)
        kept = [dict(state["callbacks"])["Log"] for state in (alone, shared)]
        for key in ("losses", "norms"):  # the log's numbers are the joined batch's
            assert kept[1][key] == pytest.approx(kept[0][key], rel=1e-5)
        columns = ["step", "loss", "valid", "norm"]
        pd.testing.assert_frame_equal(logs[0][columns], logs[k][columns], rtol=1e-4)


# Numbers


def test_equal_to_a_loop_by_hand():
    """Clipping, warm-up and Adam, written out."""
    data = items(8)
    made = fit(data, steps=6, clip=0.01, warmup=3, model=Small(dropout=0.0))
    torch.manual_seed(0)
    model = Small(dropout=0.0)
    torch.manual_seed(0)
    made_again = make(data, clip=0.01, warmup=3, model=Small(dropout=0.0))
    model.load_state_dict(made_again.model.state_dict())
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for step in range(6):
        order = epoch_order(8, step // 2)[4 * (step % 2) : 4 * (step % 2) + 4]
        mix, src = (torch.stack(part) for part in zip(*[data[i] for i in order]))
        optimizer.param_groups[0]["lr"] = 0.01 * min(1, (step + 1) / 4)
        optimizer.zero_grad()
        model.loss(mix, src).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.01)
        optimizer.step()
    assert made_again.where.step == 0 and made.where.step == 6
    mine = torch.cat([p.detach().flatten() for p in model.parameters()])
    made_again.fit(steps=6, progress=False)
    assert torch.equal(weights(made_again), mine)


@pytest.mark.parametrize("parts", [2, 3])
def test_accumulated_batches_are_one_large_batch(parts):
    """Gradients of several batches averaged: the same steps to 1e-6, the same log."""
    data, how = items(26), dict(model=None, lr=0.01, clip=0.01, ema=0.9)
    runs = []
    for options in (dict(batch_size=6), dict(batch_size=6 // parts, accumulate=parts)):
        torch.manual_seed(0)
        made = make(data, items(4), **(how | options | {"model": Small(dropout=0.0)}))
        made.fit(steps=9, progress=False)
        runs.append(made)
    one, many = runs
    assert len(one.feed) == len(many.feed) == 4
    assert (weights(one) - weights(many)).abs().max() < 1e-6
    pd.testing.assert_frame_equal(
        one.log.drop(columns="seconds"), many.log.drop(columns="seconds"), rtol=1e-4
    )
    with pytest.raises(ValueError, match="lower accumulate"):
        make(items(5), batch_size=4, accumulate=2)


def test_accumulation_does_not_depend_on_that_of_accelerate():
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
    try:
        made = fit(steps=4, accelerator=accelerator)
        assert (weights(made) - weights(fit(steps=4))).abs().max() < 1e-6
    finally:
        accelerator.gradient_accumulation_steps = 1


# Callbacks


def test_callbacks_hear_everything_in_order():
    class Ear:
        """A method for each event."""

    heard = []
    for event in engine.EVENTS:
        setattr(Ear, event, lambda self, learner, event=event: heard.append(event))
    fit(items(8), items(2), steps=3, callbacks=[Ear()])
    step, check = ["before_batch", "after_backward", "after_step"], []
    check = ["before_validation", "after_validation"]
    want = ["setup", "before_fit", *step, *step, *check, "after_epoch", *step, *check]
    assert heard == [*want, "after_fit", "cleanup_fit"]


def test_a_callback_remembers(tmp_path):
    class Counter:
        count = 0

        def after_step(self, learner):
            self.count += 1
            if self.count == 3:
                raise RuntimeError("power cut")

        def state_dict(self):
            return {"count": self.count}

        def load_state_dict(self, state):
            self.count = 10 * state["count"]

    with pytest.raises(RuntimeError):
        fit(steps=5, callbacks=[Counter()], folder=tmp_path, checkpoint_minutes=0)
    resumed = fit(steps=5, callbacks=[counter := Counter()], folder=tmp_path)
    assert resumed.where.step == 5 and counter.count == 23


def test_callbacks_of_the_caller_take_the_place_of_ours(tmp_path):
    own = [Checkpoint(tmp_path, minutes=0), Log(every=3), EarlyStopping(1)]
    data = items(4)
    worse = iter(range(100))
    loss = lambda model, mix, src: model.loss(mix, src) + (0 if model.training else next(worse))
    made = make(data, data, loss, callbacks=own, patience=7)
    made.fit(epochs=20, progress=False)
    assert made.where.step == 2 and made.history is own[1] and made.find(Checkpoint) is own[0]
    assert sum(isinstance(c, EarlyStopping) for c in made.callbacks) == 1
    best = made.best()
    again = make(data, data, loss, callbacks=[Checkpoint(tmp_path), Log(every=3), EarlyStopping(1)])
    assert again.where.step == 2 and len(again.log) == len(made.log)
    assert all(map(torch.equal, best.parameters(), again.best().parameters()))


def test_callbacks_that_would_never_be_called():
    class Misspelt:
        def after_stp(self, learner):
            """Nobody calls this."""

    for wrong, word in ((Misspelt(), "after_stp"), (object(), "events are"), (Misspelt, "class")):
        with pytest.raises((TypeError, ValueError), match=word) as raised:
            make(callbacks=[wrong])
        assert "\n" not in str(raised.value)


def test_fingerprints():
    corpus = preload(example_corpus())
    one = engine.fingerprint(MixtureDataset(corpus, seconds=0.25, size=20))
    assert engine.alike(one, engine.fingerprint(MixtureDataset(corpus, seconds=0.25, size=20)))
    fewer = corpus.subset(lambda row: row["speaker"] != corpus.rows[0]["speaker"])
    for other in (
        MixtureDataset(corpus, seconds=0.3, size=20),
        MixtureDataset(corpus, seconds=0.25, size=21),
        MixtureDataset(corpus, seconds=0.25, size=20, seed=1),
        MixtureDataset(fewer, seconds=0.25, size=20),
        MixtureDataset(corpus, n_src=3, seconds=0.25, size=20),
    ):
        assert not engine.alike(one, engine.fingerprint(other))
    parts = [torch.utils.data.Subset(items(9), chosen) for chosen in ([0, 1, 2, 8], [0, 1, 3, 8])]
    assert not engine.alike(*map(engine.fingerprint, parts))

    class Different(Dataset):
        """Another item each time."""

        def __len__(self):
            return 3

        def __getitem__(self, i):
            src = torch.from_numpy(np.random.default_rng().standard_normal((2, 1, 9)))
            return src.sum(0), src

    assert engine.fingerprint(Different())["sketches"] == [None, None, None]


def test_ema_is_the_weighted_mean():
    layer = nn.Linear(2, 1, bias=False)
    ema, values = EMA(layer, 0.75), [layer.weight.detach().clone()]
    for _ in range(20):
        layer.weight.data = torch.randn(1, 2)
        values.append(layer.weight.detach().clone())
        ema.update()
    want = values[0]
    for t, value in enumerate(values[1:], 1):
        beta = min(0.75, t / (t + 9))
        want = beta * want + (1 - beta) * value
    torch.testing.assert_close(ema.average["weight"], want)
    live = layer.weight.detach().clone()
    with pytest.raises(RuntimeError), ema.applied():
        assert torch.equal(layer.weight, ema.average["weight"])
        raise RuntimeError
    assert torch.equal(layer.weight, live)


def test_schedules():
    assert [lr_factor(s, s / 4, "constant", 3) for s in range(5)] == [0.25, 0.5, 0.75, 1, 1]
    assert lr_factor(50, 0.5, "cosine") == pytest.approx(0.5)
    assert lr_factor(50, 2.0, "cosine") == pytest.approx(0.0)
    assert lr_factor(50, 0.5, "plateau", halvings=3) == 0.125
    assert lr_factor(50, 0.5, lambda done: done**2) == 0.25
    log = fit(steps=6, schedule="halving", halve_after=1).log
    assert log.lr.tolist() == [0.01] * 3 + [0.005] * 3
    assert fit(steps=8, schedule="cosine").log.lr.is_monotonic_decreasing


def test_plateau_and_patience():
    data = items(4)
    worse = iter(range(100))

    def loss(model, mix, src):
        here = model.loss(mix, src)
        return here if model.training else here * 0 + next(worse)

    made = make(data, data, loss, schedule="plateau", halve_after=2, patience=5)
    made.fit(epochs=50, progress=False)
    assert made.where.step == 6 and made.where.best_step == 1
    assert made.log.lr.dropna().tolist()[:6] == [0.01, 0.01, 0.01, 0.005, 0.005, 0.0025]
    assert len(made.fit(epochs=50, progress=False)) == len(made.log)  # patience stays at its end
    assert made.where.step == 6


def test_best_weights_are_kept(tmp_path):
    for folder in (None, tmp_path / "run"):
        made = make(items(4), items(4), folder=folder, lr=1.0, ema=0.5)
        made.fit(steps=6, progress=False)
        best = made.best()
        assert not best.training and best is not made.model
        with torch.no_grad():
            mix, src = (torch.stack(part) for part in zip(*items(4)))
            assert float(best.loss(mix, src)) == pytest.approx(made.where.best, rel=1e-5)
        assert made.where.best == made.log.valid.min()
    plain = fit(steps=3)
    assert torch.equal(torch.cat([p.flatten() for p in plain.best().parameters()]), weights(plain))


def test_validation_counts_every_item_once():
    """Also when lengths differ and the last batch is not full; without dropout."""
    valid = items(5, 200) + items(2, 90, seed=3)
    made = fit(items(4), valid, steps=1)
    with torch.no_grad():
        each = [float(made.model.loss(mix[None], src[None])) for mix, src in valid]
    assert made.log.valid.iloc[-1] == pytest.approx(np.mean(each), rel=1e-5)


def test_bf16_learns_the_same():
    exact, half = (fit(items(4), steps=20, precision=p, model=None) for p in ("no", "bf16"))
    assert half.model.net[0].weight.dtype == torch.float32
    assert not torch.equal(weights(exact), weights(half))
    assert half.log.loss.iloc[-1] == pytest.approx(exact.log.loss.iloc[-1], rel=0.02)


def test_one_batch_is_learned_by_heart():
    data = [(mix, torch.stack([0.9 * mix, 0.1 * mix])) for mix, _ in items(4)]
    made = make(data, lr=0.05, model=Small(dropout=0.0))
    log = made.fit(steps=60, progress=False)
    assert log.loss.iloc[-1] < 0.1 * log.loss.iloc[0]


def test_log_rows(tmp_path):
    made = fit(items(12), items(2), steps=7, folder=tmp_path, log_every=2)
    log = pd.read_json(tmp_path / "log.jsonl", lines=True)
    assert list(log.columns) == list(engine.COLUMNS)
    assert log.step.tolist() == [2, 3, 4, 6, 7]
    assert log.epoch.tolist() == [1, 1, 2, 2, 3]
    assert log.valid.notna().tolist() == [False, True, False, True, True]
    pd.testing.assert_frame_equal(log, made.log, check_dtype=False)


def test_minutes_and_what_was_used_before(tmp_path, monkeypatch):
    clock = SimpleNamespace(perf_counter=map(float, itertools.count(5)).__next__)
    monkeypatch.setattr(learner_module, "time", clock)  # each look at it takes a second
    made = make(folder=tmp_path)
    made.fit(minutes=0.1, progress=False)
    step = made.where.step
    assert 3 <= step <= 6 <= made.where.seconds < 9
    again = make(folder=tmp_path)
    again.fit(minutes=0.1, progress=False)
    assert again.where.step == step
    again.fit(minutes=1, steps=step + 2, progress=False)
    assert again.where.step == step + 2
    assert again.fit(epochs=0.5, progress=False).step.iloc[-1] == step + 2


def test_card_is_json(tmp_path):
    made = fit(items(), items(2), steps=4, folder=tmp_path)
    card = json.loads(json.dumps(made.card(), allow_nan=False))
    assert card["config"] == {"hidden": 8, "dropout": 0.2, "sources": ["s1", "s2"]}
    assert card["class"].endswith(".Small") and card["steps"] == 4
    assert card["scores"]["valid"] == made.where.best
    for key in ("seconds_trained", "device", "seed", "versions", "parameters", "epochs"):
        assert card[key] is not None
    made.fit(steps=5, progress=False)
    assert load_state(tmp_path / "best.safetensors")["card"]["class"] == card["class"]
    assert "step" in repr(made)


# Nonsense


@pytest.mark.parametrize(
    "how, error, word",
    [
        (dict(schedule="cosin"), ValueError, "schedule"),
        (dict(optimizer="adan"), ValueError, "optimizer"),
        (dict(precision="fp8"), ValueError, "precision"),
        (dict(batch_size=0), ValueError, "batch_size"),
        (dict(lr=0), ValueError, "lr"),
        (dict(lr=math.nan), ValueError, "lr"),
        (dict(ema=1.0), ValueError, "ema"),
        (dict(clip=0.0), ValueError, "clip"),
        (dict(patience=3), ValueError, "valid"),
        (dict(schedule="plateau"), ValueError, "valid"),
        (dict(data=[]), ValueError, "empty"),
        (dict(valid=[]), ValueError, "empty"),
        (dict(data=iter(())), TypeError, "length"),
        (dict(model=Small().requires_grad_(False)), ValueError, "gradient"),
        (dict(tensorboard=True), ValueError, "folder"),
    ],
)
def test_options_that_mean_nothing(how, error, word):
    with pytest.raises(error, match=word) as raised:
        make(**how)
    assert one_line(raised)


@pytest.mark.parametrize("goal", [{}, dict(steps=0), dict(minutes=-1), dict(epochs=math.nan)])
def test_goals_that_mean_nothing(goal):
    with pytest.raises(ValueError) as raised:
        make().fit(**goal)
    assert one_line(raised)


def test_items_that_do_not_fit():
    uneven = items(2) + items(2, 150)
    with pytest.raises(ValueError, match="batch_size=1"):
        fit(uneven, steps=1)
    fit(uneven, steps=2, batch_size=1)
    with pytest.raises(ValueError, match="takes 1; pass mono=True") as raised:
        fit([(torch.zeros(2, 50), torch.zeros(2, 2, 50))], steps=1)
    assert one_line(raised)

    class Broken(Dataset):
        def __len__(self):
            return 3

        def __getitem__(self, i):
            raise OSError("no such file")

    with pytest.raises(OSError, match="no such file") as raised:
        fit(Broken(), steps=1)
    assert "item" in raised.value.__notes__[0]


def test_losses_that_can_not_be_trained_with():
    for loss, word in (
        (lambda model, mix, src: (model(mix) - src).abs(), "mean"),
        (lambda model, mix, src: 0.0, "float"),
        (lambda model, mix, src: model(mix).detach().mean(), "detach"),
    ):
        with pytest.raises(ValueError, match=word) as raised:
            fit(loss=loss)
        assert one_line(raised)


def test_a_loss_that_is_not_finite_stops(tmp_path):
    data = items(12)
    data[5] = (data[5][0] * math.nan, data[5][1])
    made = make(data, folder=tmp_path, checkpoint_minutes=0, shuffle=False)
    with pytest.raises(FloatingPointError, match=r"step 2, epoch 1.*items \[5\]") as raised:
        made.fit(steps=9, progress=False)
    assert one_line(raised)
    state = load_state(tmp_path / "checkpoint.safetensors")
    assert state["where"]["step"] == 1
    assert all(bool(t.isfinite().all()) for t in state["weights"].values())


def test_a_network_that_refuses_nan_is_not_to_blame():
    data = items(12)
    data[5] = (data[5][0] * math.nan, data[5][1])

    def loss(model, mix, src):
        if not bool(mix.isfinite().all()):
            raise ValueError("what is this?")
        return model.loss(mix, src)

    with pytest.raises(FloatingPointError, match=r"items \[5\]") as raised:
        fit(data, loss=loss, steps=9)
    assert one_line(raised)


def broken_gradients(steps):
    calls = iter(range(10000))

    def loss(model, mix, src):
        value = model.loss(mix, src)
        if model.training and next(calls) in steps:
            value.register_hook(lambda gradient: gradient * math.inf)
        return value

    return loss


def test_a_single_bad_gradient_is_skipped_and_counted():
    made = fit(loss=broken_gradients({2, 4}), steps=7)
    assert made.where.skipped == 2 and made.where.step == 7
    assert made.log.skipped.tolist() == [0, 0, 1, 1, 2, 2, 2]
    assert bool(weights(made).isfinite().all())
    assert made.card()["skipped"] == 2
    assert torch.equal(weights(fit(loss=broken_gradients({2}), steps=3)), weights(fit(steps=2)))


def test_many_bad_gradients_stop():
    with pytest.raises(FloatingPointError, match="ten gradients") as raised:
        fit(loss=broken_gradients(range(3, 30)), steps=40)
    assert one_line(raised) and "step 13" in str(raised.value)


@pytest.mark.parametrize(
    "change, word",
    [
        (dict(model=Small(hidden=9)), "hidden = 8, this learner 9"),
        (dict(seed=1), "seed"),
        (dict(batch_size=3), "batch_size"),
        (dict(data=items(13)), "12 items"),
        (dict(data=items(seed=1)), "other train data"),
        (dict(accumulate=2), "accumulate"),
        (dict(ema=0.5), "ema"),
        (dict(optimizer="sgd"), "optimizer"),
        (dict(model=nn.Conv1d(1, 2, 1), loss=lambda m, x, y: m(x).mean()), "model"),
    ],
)
def test_a_checkpoint_of_another_training_is_refused(change, word, tmp_path):
    fit(steps=2, folder=tmp_path)
    before = (tmp_path / "checkpoint.safetensors").read_bytes()
    with pytest.raises(ValueError, match=word) as raised:
        make(folder=tmp_path, **change)
    assert one_line(raised)
    assert (tmp_path / "checkpoint.safetensors").read_bytes() == before
    make(folder=tmp_path, lr=0.1, schedule="cosine", clip=None, warmup=5, workers=1)


def damaged(raw):
    yield b""
    yield raw[: len(raw) // 2]
    yield raw[:-1]
    yield b"not a checkpoint at all"
    for place in (3, 40, len(raw) // 2, len(raw) - 5):
        yield raw[:place] + bytes([raw[place] ^ 255]) + raw[place + 1 :]


def test_damaged_checkpoints_are_refused(tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    fit(steps=2, folder=tmp_path)
    for bad in damaged(path.read_bytes()):
        path.write_bytes(bad)
        with pytest.raises(ValueError, match=r"checkpoint\.safetensors is") as raised:
            make(folder=tmp_path)
        assert one_line(raised)
    save_state({"step": 3}, path)
    with pytest.raises(ValueError, match="no checkpoint of a Learner"):
        make(folder=tmp_path)


def test_checkpoints_of_an_older_version_are_refused(tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    fit(steps=2, folder=tmp_path)
    state = load_state(path)
    del state["format"]
    save_state(state, path)
    with pytest.raises(ValueError, match="older version") as raised:
        make(folder=tmp_path)
    assert one_line(raised)


def test_folders_that_can_not_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "inside", "/proc/nowhere"):
        with pytest.raises(PermissionError, match="can't write") as raised:
            make(folder=folder)
        assert one_line(raised)


def test_the_log_survives_half_a_line(tmp_path):
    fit(steps=4, folder=tmp_path)
    with open(tmp_path / "log.jsonl", "a") as file:
        file.write('{"step": 5, "loss": 1}\n{"step": 6, "lo')
    made = make(folder=tmp_path)
    assert made.log.step.tolist() == [1, 2, 3, 4]
    made.fit(steps=6, progress=False)
    assert pd.read_json(tmp_path / "log.jsonl", lines=True).step.tolist() == [1, 2, 3, 4, 5, 6]


def test_states_come_back(tmp_path):
    base = torch.arange(6.0)
    state = {
        "a": [1, 2.5, None, True, "x", (1, [2])],
        3: {"t": base[::2], "same": base, "view": base.view(2, 3), "b": torch.tensor(True)},
        "empty": torch.zeros(0, 2),
        "half": torch.ones(2, dtype=torch.bfloat16),
        "infinite": math.inf,
    }
    save_state(state, tmp_path / "s.safetensors")
    back = load_state(tmp_path / "s.safetensors")
    assert back["a"] == state["a"] and back["infinite"] == math.inf
    for name, tensor in state[3].items():
        assert torch.equal(back[3][name], tensor)
    assert back["empty"].shape == (0, 2) and back["half"].dtype == torch.bfloat16
    with pytest.raises(TypeError, match="tensors and numbers"):
        save_state({"f": print}, tmp_path / "s.safetensors")
    assert load_state(tmp_path / "s.safetensors")["a"] == state["a"]
    with pytest.raises(OSError):
        save_state(state, tmp_path / "none" / "s.safetensors")


def test_atomic_leaves_nothing_behind(tmp_path):
    path = tmp_path / "file"
    with atomic(path) as part:
        part.write_text("new")
        assert not path.exists()
    with pytest.raises(KeyError), atomic(path) as part:
        part.write_text("newer")
        raise KeyError
    assert path.read_text() == "new" and list(tmp_path.iterdir()) == [path]


# Networks


def test_networks_remember_how_they_were_built():
    net = Small(3, sources=["a", "b"])
    assert net.config == {"hidden": 3, "dropout": 0.2, "sources": ["a", "b"]}
    assert json.loads(json.dumps(net.config)) == net.config
    twin = copy.deepcopy(net)
    assert twin.config == net.config and twin.n_params == net.n_params == 3 * 9 + 3 + 2 * 3 + 2

    class Wider(Small):
        def __init__(self, wide: bool = True, **kwargs):
            super().__init__(**kwargs)

    assert Wider(hidden=5).config == {"wide": True, "hidden": 5}
    with pytest.raises(TypeError, match="numbers, strings and lists"):
        Small(sources=print)
    with pytest.raises(TypeError, match="argument"):
        Small(nonsense=1)
    with torch.device("meta"):
        assert Small().net[0].weight.is_meta


@pytest.mark.parametrize(
    "mix, error, word",
    [
        (torch.zeros(1, 100), ValueError, r"mix\[None\]"),
        (torch.zeros(2, 1, 0), ValueError, "batch, channel, time"),
        (torch.zeros(1, 2, 100), ValueError, "mono=True"),
        (torch.zeros(1, 1, 100).double(), ValueError, "float64"),
        (torch.full((1, 1, 100), math.inf), ValueError, "NaN or infinity"),
        (torch.zeros(1, 1, 100).long(), TypeError, "floating-point"),
        (np.zeros((1, 1, 100), np.float32), TypeError, "tensor"),
    ],
)
def test_wrong_inputs_are_named(mix, error, word):
    with pytest.raises(error, match=word) as raised:
        Small().eval()(mix)
    assert one_line(raised)


def test_check_is_silent_where_it_must_be():
    Small().train()(torch.full((1, 1, 100), math.nan))
    assert Small().double().eval()(torch.zeros(1, 1, 100).double()).dtype == torch.float64
    exported = torch.export.export(Small().eval(), (torch.randn(1, 1, 100),))
    assert exported.module()(torch.randn(1, 1, 100)).shape == (1, 2, 1, 100)


def test_objective_returns_one_float32():
    mix, src = (torch.stack(part) for part in zip(*items(2)))
    assert Objective(Small(), bf16=True)(mix, src).dtype == torch.float32
    assert Objective(Small().double())(mix.double(), src.double()).dtype == torch.float64


# What is shown


def test_the_bar_shows_the_loss(capsys):
    made = make(items(12), items(2))
    made.fit(steps=5)
    assert "5/5" in (shown := capsys.readouterr().err) and "loss=" in shown
    made.fit(steps=8, progress=False)
    assert capsys.readouterr() == ("", "")


def test_the_curve_is_small_and_finite():
    rows = [
        {"step": s, "loss": 1 / s, "valid": None if s % 5 else math.nan} for s in range(1, 5000)
    ]
    assert len(picture := curve_svg(rows)) < 5000 and "nan" not in picture
    assert "<svg" in curve_svg([])


def test_tensorboard(tmp_path):
    pytest.importorskip("tensorboard")
    made = fit(steps=3, folder=tmp_path, tensorboard=True)
    assert list((tmp_path / "tensorboard").glob("events*"))
    assert made.find(TensorBoard).board is not None


def test_tensorboard_that_is_missing(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ImportError, match="pip install tensorboard") as raised:
        make(folder=tmp_path, tensorboard=True)
    assert one_line(raised)


def test_two_trainings_never_share_a_folder(tmp_path):
    from sepbook.engine.training import only_one

    lock = only_one(tmp_path)
    with pytest.raises(ValueError, match="another training is at work"):
        only_one(tmp_path)
    os.close(lock)
    os.close(only_one(tmp_path))


def test_a_hundred_thousand_workers_are_refused():
    from sepbook.pit import UPIT

    with pytest.raises(ValueError, match="workers is 100000, but must be at most 256"):
        Learner(
            UPIT(hidden=4, layers=1), [(torch.zeros(1, 8), torch.zeros(2, 1, 8))], workers=10**5
        )
