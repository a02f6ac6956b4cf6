"""Every metric meets every kind of input: a number, NaN by a documented rule, or one clear line."""

import gc
import math
import os
import signal
import subprocess
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from sepbook.engine import scores
from sepbook.engine.checks import as_numbers
from sepbook.engine.outside import OUTSIDE, Died, Failed, Outside
from sepbook.metrics import (
    METRICS,
    best_permutation,
    bss_eval,
    bss_eval_v4,
    decompose,
    evaluate,
    pesq,
    project,
    score,
    si_bss_eval,
    si_sdr,
    si_sdr_improvement,
    snr,
    stoi,
    summarize,
)
from sepbook.mixtures import example_voices

RATE = 8000
VOICES = example_voices(2, 1.5, 0)
SRC = VOICES.src[:, 0]
EST = SRC + 0.1 * SRC.flip(0)


def first(wavs):
    """The first signal of several, where there are several."""
    wavs = as_numbers(wavs, "wavs")
    return wavs[0] if wavs.ndim > 1 else wavs


def mono(wavs):
    """With an axis for one channel."""
    wavs = as_numbers(wavs, "wavs")
    return wavs[..., None, :] if wavs.ndim else wavs


def improvement(est, src):
    return si_sdr_improvement(est, src, first(src))


ALL = {  # of estimates and sources (source, time)
    "snr": snr,
    "si_sdr": si_sdr,
    "si_sdr, zero mean": lambda est, src: si_sdr(est, src, zero_mean=True),
    "si_sdri": improvement,
    "si_bss_eval": lambda est, src: torch.stack(si_bss_eval(est, src)),
    "bss_eval": lambda est, src: torch.stack(bss_eval(est, src, 64)),
    "bss_eval, 512": lambda est, src: torch.stack(bss_eval(est, src)),
    "v4": lambda est, src: torch.stack(
        bss_eval_v4(
            mono(est),
            mono(src),
            4000,
            None,
            64,
        )
    ),
    "pesq": lambda est, src: pesq(est, src, RATE),
    "stoi": lambda est, src: stoi(est, src, RATE),
    "estoi": lambda est, src: stoi(est, src, RATE, extended=True),
    "project": lambda est, src: project(est, src),
    "decompose": lambda est, src: torch.stack(decompose(first(est), src)),
    "best_permutation": lambda est, src: torch.tensor(best_permutation(est, src)).double(),
}
every_metric = pytest.mark.parametrize("name", list(ALL))


def cut(samples):
    return EST[:, :samples], SRC[:, :samples]


INPUTS = {
    "empty": cut(0),
    "one sample": cut(1),
    "100 samples": cut(100),
    "2400 samples": cut(2400),
    "silent estimate": (0 * EST, SRC),
    "silent source": (EST, 0 * SRC),
    "one silent source": (EST, SRC * torch.tensor([[1.0], [0.0]])),
    "all silent": (0 * EST, 0 * SRC),
    "constant": (torch.full_like(EST, 0.2), torch.full_like(SRC, 0.1)),
    "constant estimate": (torch.full_like(EST, 0.2), SRC),
    "perfect": (SRC, SRC),
    "equal sources": (EST, SRC[:1].repeat(2, 1)),
    "faint": (1e-20 * EST.double(), 1e-20 * SRC.double()),
    "loud": (1e6 * EST, 1e6 * SRC),
    "NaN": (EST * math.nan, SRC),
    "NaN in the source": (EST, SRC * math.nan),
    "infinite": (EST, SRC / 0.0),
    "shorter estimate": (EST[:, :-1], SRC),
    "fewer sources": (EST, SRC[:1]),
    "other axes": (EST[0], SRC),
    "transposed": (EST.T, SRC.T),
    "complex": (torch.fft.fft(EST), torch.fft.fft(SRC)),
    "a number": (torch.tensor(1.0), torch.tensor(1.0)),
    "a string": ("est.wav", "src.wav"),
    "nothing": (None, None),
}
REFUSED = {"empty", "NaN", "NaN in the source", "infinite", "shorter estimate", "other axes"}
REFUSED |= {"transposed", "complex", "a number", "a string", "nothing"}


@every_metric
@pytest.mark.parametrize("given", list(INPUTS))
def test_a_number_nan_or_one_line(name, given):
    est, src = INPUTS[given]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            value = ALL[name](est, src)
        except (ValueError, TypeError) as error:
            assert type(error) in (ValueError, TypeError, scores.Unmeasurable)
            assert "\n" not in str(error) and len(str(error)) > 20
            fine = given in ("a string", "nothing") or isinstance(error, ValueError)
            assert fine and given not in ("loud", "faint", "perfect")
            return
    assert value.dtype in (torch.float32, torch.float64)
    if given in REFUSED:
        assert given == "other axes" or name in ("project", "best_permutation"), value
    if name in ("stoi", "estoi", "pesq") and given in ("one sample", "100 samples"):
        assert value.isnan().all()
    if name in ("stoi", "estoi"):
        assert value.isnan().any() or (value.abs() > 1e-4).all() or given.startswith("constant")
    if given == "one silent source" and "sdr" not in name and name != "snr":
        return
    if name in ("snr", "si_sdr", "si_sdr, zero mean", "si_sdri"):
        assert value.isfinite().all()


@every_metric
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_precision(name, dtype):
    """Half precision is what the numbers were rounded to, not what is computed in."""
    est, src = EST.to(dtype), SRC.to(dtype)
    want = ALL[name](est.float(), src.float())
    got = ALL[name](est, src)
    assert got.dtype in (torch.float32, torch.float64)
    torch.testing.assert_close(got.double(), want.double(), rtol=1e-3, atol=2e-3, equal_nan=True)
    for mixed in (ALL[name](est, src.float()), ALL[name](est.float(), src)):
        torch.testing.assert_close(mixed.double(), want.double(), rtol=1e-3, atol=2e-3)


@every_metric
def test_integers_and_arrays(name):
    """16-bit samples are numbers like others; arrays of any byte order and strides are read."""
    est, src = (32767 * EST).to(torch.int16), (32767 * SRC).to(torch.int16)
    want = ALL[name](est.double(), src.double())
    torch.testing.assert_close(ALL[name](est, src).double(), want.double())
    if name in ("v4", "decompose"):  # these tests index tensors themselves
        return
    for form in (">f4", "<f8", np.longdouble):
        arrays = [np.flip(np.flip(x.numpy(), 1).copy(), 1).astype(form) for x in (EST, SRC)]
        got = ALL[name](*(np.flip(np.flip(x, 1), 1) for x in arrays))
        torch.testing.assert_close(got.double(), ALL[name](EST, SRC).double(), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_learns(dtype):
    est = EST.to(dtype).requires_grad_()
    loss = -si_sdr(est, SRC.to(dtype)).mean()
    loss.backward()
    assert loss.dtype == torch.float32 and est.grad.dtype == dtype and est.grad.isfinite().all()


def test_long_signals_in_half_precision():
    """Sums over a minute overflow and stall in half precision."""
    x = 0.5 * torch.randn(480_000, generator=torch.Generator().manual_seed(0))
    noisy = x + 0.05 * torch.randn(480_000, generator=torch.Generator().manual_seed(1))
    for dtype in (torch.float16, torch.bfloat16):
        for metric in (snr, si_sdr):
            assert abs(metric(noisy.to(dtype), x.to(dtype)) - 20) < 0.1


# Too short, and counted


def test_stoi_needs_speech():
    voice = SRC[:1]
    assert stoi(voice[:, :100], voice[:, :100], RATE).isnan().all()
    sparse = torch.zeros(1, 5 * RATE)
    sparse[0, RATE : RATE + 2000] = voice[0, :2000]
    assert stoi(sparse, sparse, RATE).isnan().all()
    assert stoi(voice, voice, RATE) > 0.99
    assert stoi(1e-18 * voice.double(), voice.double(), RATE) > 0.99
    for rate in (0, -1, "8000", 44100.5):
        with pytest.raises(ValueError, match="sample rate"):
            stoi(voice, voice, rate)


class Half:
    """A separator that gives each of two sources half of the mixture."""

    sample_rate, channels, sources = RATE, 1, ("a", "b")

    def __call__(self, mix):
        return torch.stack([mix / 2, mix / 2], 1)


def test_evaluate_counts_what_has_no_value():
    noise = 0.1 * torch.randn(2, 1, 100, generator=torch.Generator().manual_seed(0))
    items = [(VOICES.mix, VOICES.src), (noise.sum(0), noise)]
    table = evaluate(Half(), items, METRICS)
    missing = table.attrs["missing"]
    assert missing["snr"] == missing["si_sdri"] == 0
    assert {missing[k] for k in ("sdr", "sir", "sar", "sdri", "v4_sdr", "pesq", "stoi")} == {1}
    assert table.loc[table.item == 0].notna().all(axis=None)
    summary = summarize(table).set_index(["source", "metric"])
    assert summary.loc[("all", "stoi"), "missing"] == 1 == summary.loc[("a", "stoi"), "items"]
    assert summary.loc[("a", "snr"), "missing"] == 0 and summary.loc[("a", "stoi"), "mean"] > 0.1


def test_wrong_settings_are_still_refused():
    item = [(VOICES.mix, VOICES.src)]
    with pytest.raises(ValueError, match="8000 and 16000"):
        score(VOICES.src, VOICES.src, VOICES.mix, ("pesq",), 44100)
    with pytest.raises(ValueError, match="no metric"):
        evaluate(Half(), item, ("stoy",))
    with pytest.raises(ValueError, match="mix holds NaN"):
        score(VOICES.src, VOICES.src, VOICES.mix * math.nan)


# Foreign code outside


def bursts(count, rate=RATE):
    draw = torch.Generator().manual_seed(0)
    parts = [0.1 * torch.randn(int(0.6 * rate), generator=draw), torch.zeros(int(0.5 * rate))]
    src = torch.cat(parts).repeat(count)
    return src + 0.001 * torch.randn(len(src), generator=draw), src


@pytest.mark.parametrize("rate", [8000, 16000])
@pytest.mark.parametrize("count", [52, 60])
def test_pesq_of_many_pauses_has_no_value(count, rate):
    """At 52 utterances the program's tables overflow, and its number is wrong; at 60 it crashes."""
    assert pesq(*bursts(count, rate), rate).isnan()
    est, src = bursts(12, rate)
    assert 1 < pesq(est, src, rate) < 5


def test_pesq_crash_is_survived(monkeypatch):
    monkeypatch.setattr(scores, "MOST_UTTERANCES", 10**9)
    assert pesq(*bursts(80), RATE).isnan()
    assert 1 < pesq(EST[0], SRC[0], RATE) < 5


def test_pesq_equals_the_package():
    import pesq as package

    for k in range(2):
        want = package.pesq(RATE, SRC[k].numpy(), EST[k].numpy(), "nb")
        assert pesq(EST[k], SRC[k], RATE) == pytest.approx(want, abs=1e-4)


def test_a_call_outside_is_cheap_after_the_first():
    OUTSIDE.call("math", "sqrt", 4.0)
    pid, started = OUTSIDE.child.pid, time.process_time()
    for _ in range(50):
        OUTSIDE.call("math", "sqrt", 4.0)
    assert OUTSIDE.child.pid == pid and time.process_time() - started < 0.5


def test_outside_says_what_happened():
    box = Outside()
    with pytest.raises(Failed) as error:
        box.call("math", "sqrt", -1)
    assert error.value.kind == "ValueError"
    pid = box.child.pid
    with pytest.raises(Died, match="took its process down"):
        box.call("os", "abort")
    assert box.child is None and not alive(pid)
    assert box.call("math", "sqrt", 4) == 2
    pid = box.child.pid
    os.kill(pid, signal.SIGKILL)  # between two calls
    time.sleep(0.1)
    assert box.call("math", "sqrt", 9) == 3 and not alive(pid)
    pid = box.child.pid
    box.close()
    assert not alive(pid)


def alive(pid):
    """Whether there is such a process, a zombie included."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_outside_from_threads():
    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(lambda n: OUTSIDE.call("math", "isqrt", n * n), range(100)))
    assert got == list(range(100))


class Scored(torch.utils.data.Dataset):
    def __len__(self):
        return 4

    def __getitem__(self, k):
        return float(pesq(EST[k % 2], SRC[k % 2], RATE)), OUTSIDE.child.pid


def test_outside_in_workers_of_a_loader():
    """Each worker has a child of its own, which is gone when the worker is."""
    first = pesq(EST, SRC, RATE)
    loader = torch.utils.data.DataLoader(Scored(), batch_size=None, num_workers=2)
    found = list(loader)
    assert [round(v, 3) for v, _ in found] == [round(float(first[k % 2]), 3) for k in range(4)]
    assert len({pid for _, pid in found} | {OUTSIDE.child.pid}) == 3
    del loader
    gc.collect()
    deadline = time.time() + 120
    pids = {pid for _, pid in found}
    while time.time() < deadline and any(running(pid) for pid in pids):
        time.sleep(0.1)
    assert not any(running(pid) for pid in pids)
    assert round(float(pesq(EST[0], SRC[0], RATE)), 3) == round(float(first[0]), 3)


def running(pid):
    """Whether such a process runs (one that ended and waits for init doesn't)."""
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


SCRIPT = """
import sys, torch
from sepbook.metrics import pesq
from sepbook.engine.outside import OUTSIDE
torch.manual_seed(0)
x = torch.randn(8000)
print(float(pesq(x, x, 8000)), OUTSIDE.child.pid, flush=True)
{end}
"""


@pytest.mark.parametrize(
    "end",
    ["", "import os; os._exit(3)", "import os; os.kill(os.getpid(), 9)", "raise SystemExit(1)"],
)
def test_nothing_is_left_behind(end):
    """A script without a guard; however it ends, its child ends, and nobody complains."""
    done = subprocess.run(
        [sys.executable, "-W", "error::ResourceWarning", "-c", SCRIPT.format(end=end)],
        capture_output=True,
        text=True,
    )
    value, pid = done.stdout.split()
    assert float(value) > 4 and not done.stderr
    deadline = time.time() + 120
    while time.time() < deadline and running(int(pid)):
        time.sleep(0.05)
    assert not running(int(pid))
