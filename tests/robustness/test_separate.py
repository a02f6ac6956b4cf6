"""Long recordings: exact gain, no seams, speakers in order, files whole or not at all."""

import json
import random
import subprocess
import sys
import textwrap
import warnings
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile as sf
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sepbook.classical.nmf import NMFSeparator
from sepbook.engine import files
from sepbook.engine.files import Recording, StemWriter, atomic, load, resample, save
from sepbook.engine.streams import (
    Follower,
    OverlapAdd,
    cut,
    separate,
    separate_blocks,
    separate_file,
    signature,
)
from sepbook.mixtures import example_corpus
from sepbook.separate import overlap_add, segment_starts, separate_in_segments, triangle

quick = settings(deadline=None, max_examples=120, derandomize=True)


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 0.1


def copies(sample_rate=8000, channels=1, sources=("a", "b"), **more):
    """A separator that returns its input as every source."""

    class Copies:
        def __call__(self, mix):
            return torch.stack([mix] * len(self.sources), 1)

    made = Copies()
    vars(made).update(sample_rate=sample_rate, channels=channels, sources=sources, **more)
    return made


def run(separator, mix, *args, **how):
    return separate(separator, mix, *args, progress=False, **how)


def one_line(error):
    return "\n" not in str(error.value) and len(str(error.value)) < 250


# -- gain and seams


@quick
@given(
    time=st.integers(2, 500),
    channels=st.integers(1, 2),
    length=st.integers(1, 700),
    overlap=st.floats(0, 0.95),
    batch_size=st.integers(1, 5),
)
def test_identity(time, channels, length, overlap, batch_size):
    mix = noise(channels, time, seed=time)
    how = dict(segment=length / 8000, overlap=overlap, batch_size=batch_size)
    est = run(copies(channels=channels), mix, **how)
    assert torch.equal(est, mix.expand(2, -1, -1))


@quick
@given(
    time=st.integers(20, 3000),
    rates=st.sampled_from([(44100, 8000), (8000, 44100), (48000, 44100), (11025, 8000)]),
    length=st.integers(60, 4000),
    overlap=st.floats(0, 0.9),
)
def test_identity_at_another_rate(time, rates, length, overlap):
    mix, (rate, needed) = noise(2, time, seed=time), rates
    est = run(copies(needed, 2), mix, rate, segment=length / needed, overlap=overlap)
    there_and_back = resample(resample(mix, rate, needed), needed, rate)[:, :time]
    assert est.shape == (2, 2, time)
    assert (est - there_and_back).abs().max() <= 1e-6


@quick
@given(
    sizes=st.lists(st.integers(1, 50), min_size=1, max_size=20),
    length=st.integers(1, 80),
    share=st.floats(0, 0.99),
)
def test_cut_covers_everything_with_equal_lengths(sizes, length, share):
    wav = torch.arange(float(sum(sizes)))[None]
    hop = max(1, round(length * (1 - share)))
    found = list(cut(wav.split(sizes, -1), length, hop))
    assert {s.shape[-1] for _, s in found} == {min(length, wav.shape[-1])}
    assert all(torch.equal(s, wav[:, at : at + s.shape[-1]]) for at, s in found)
    starts = [at for at, _ in found]
    assert starts[0] == 0 and starts[-1] + found[-1][1].shape[-1] == wav.shape[-1]
    assert all(0 < b - a <= hop for a, b in pairwise(starts))
    assert starts[:-1] == list(range(0, hop * (len(starts) - 1), hop))


@pytest.mark.parametrize("overlap", [0, 0.25, 0.5, 0.6, 0.75, 0.9])
def test_segments_are_weighted_by_triangles(overlap):
    """Whatever segments hold, the result is the weighted mean of those that cover a sample."""
    length, pieces, joined = 100, [], OverlapAdd()
    starts = [s for s, _ in cut([torch.zeros(1, 733)], length, round(length * (1 - overlap)))]
    total, weight, out = torch.zeros(733).double(), torch.zeros(733).double(), []
    for start in starts:
        pieces.append(noise(1, length, seed=start).double())
        total[start : start + length] += triangle(length) * pieces[-1][0]
        weight[start : start + length] += triangle(length)
        out.append(joined.add(pieces[-1], start))
    got = torch.cat([*out, joined.tail], -1)[0]
    torch.testing.assert_close(got, total / weight, atol=1e-14, rtol=1e-12)


def test_no_seam_where_segments_end():
    """Impulses at every border, a constant and a sine come out as they went in."""
    time = torch.arange(8000) / 8000
    combs = torch.zeros(8000)
    combs[torch.tensor([b + d for b in range(0, 8000, 750) for d in (0, 1) if b + d < 8000])] = 1
    for wav in (combs, torch.ones(8000), torch.sin(2 * torch.pi * 100 * time)):
        for overlap in (0, 0.25, 0.5, 0.75):
            est = run(copies(), wav[None], segment=1000 / 8000, overlap=overlap)
            assert torch.equal(est[0, 0], wav)


def test_neighbours_that_disagree_cross_over_smoothly():
    """Each segment has a level of its own; the joined signal must not jump."""
    levels = iter([0.0, 1.0] * 100)
    separator = lambda mix: torch.full_like(mix, next(levels))[:, None]
    steps = {}
    for overlap in (0, 0.25, 0.5):
        est = run(separator, torch.zeros(1, 8000), 8000, segment=0.1, overlap=overlap)
        steps[overlap] = est.diff().abs().max().item()
    assert steps[0] == 1 and steps[0.25] <= 1 / 200 and steps[0.5] <= 1 / 400


@quick
@given(time=st.integers(1, 3000), length=st.integers(1, 1500), share=st.floats(0, 0.9))
def test_the_plain_form_of_the_lesson_gives_the_same(time, length, share):
    """Cut, call and join in a few plain lines, against the stream: any separator, any segment."""
    hop = max(1, round(length * (1 - share)))
    starts = [s for s, _ in cut([torch.zeros(1, time)], length, hop)]
    assert segment_starts(time, length, hop) == starts
    pieces = [noise(2, min(length, time), seed=s) for s in starts]
    joined = OverlapAdd()
    streamed = torch.cat([*(joined.add(p, s) for p, s in zip(pieces, starts)), joined.tail], -1)
    torch.testing.assert_close(overlap_add(pieces, starts), streamed, atol=1e-6, rtol=1e-5)


def test_the_plain_form_runs_a_separator_and_follows_speakers():
    net, mix = Net().eval(), noise(1, 30000)
    mix64 = mix.double()
    want = run(net, mix64, segment=0.7, overlap=0.4)
    plain = separate_in_segments(net, mix64, segment=0.7, overlap=0.4)
    torch.testing.assert_close(plain, want, atol=1e-12, rtol=0)
    oracle = Oracle(torch.stack([talk(n, 20, (0, 0.3), random.Random(0)) for n in ("ada", "gus")]))
    est = separate_in_segments(oracle, oracle.mix, segment=2.0)
    assert len(oracle.orders) > 1 and errors(est, oracle).min(1).values.max() < 1e-5


def test_levels_are_kept():
    """No peak normalisation: loud stays loud, quiet stays quiet, silence stays silence."""
    for level in (0.0, 1e-6, 5.0):
        mix = torch.full((1, 20000), level)
        assert torch.equal(run(copies(), mix, segment=0.5, overlap=0.75)[1], mix)


# -- speakers


def talk(who, seconds, pauses, draw):
    """Sentences of one packaged voice, with pauses before them."""
    corpus, parts = example_corpus(), []
    clips = [i for i, row in enumerate(corpus.rows) if row["speaker"] == who]
    while sum(p.shape[-1] for p in parts) < seconds * 8000:
        clip = corpus[draw.choice(clips)]
        parts += [torch.zeros(1, round(draw.uniform(*pauses) * 8000)), 0.05 * clip / clip.std()]
    return torch.cat(parts, -1)[:, : seconds * 8000]


class Oracle:
    """Knows the sources of one mixture, and returns them in a random order for each segment."""

    sample_rate, channels = 8000, 1

    def __init__(self, src, leak=0.0, seed=0):
        self.src, self.leak, self.draw = src, leak, random.Random(seed)
        self.mix = src.sum(0)
        self.bytes, self.sources = self.mix.numpy().tobytes(), [f"s{j}" for j in range(len(src))]
        self.orders = set()

    def __call__(self, mix):
        return torch.stack([self.one(item.numpy()) for item in mix])

    def one(self, mix):
        at = self.bytes.find(mix.tobytes()) // 4
        src = self.src[..., at : at + mix.shape[-1]]
        order = self.draw.sample(range(len(src)), len(src))
        self.orders.add(tuple(order))
        return ((1 - self.leak) * src + self.leak * (src.sum(0) - src) / (len(src) - 1))[order]


def errors(est, oracle):
    """The largest error of each estimate against each source, were nothing ever swapped."""
    leak = oracle.leak / (len(oracle.src) - 1)
    want = (1 - oracle.leak - leak) * oracle.src + leak * oracle.mix
    return (est[:, None] - want).abs().amax((-2, -1))


@pytest.mark.parametrize("leak", [0.0, 0.2])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    "who, pauses",
    [
        (("ada", "gus"), (0, 0.3)),
        (("ben", "gus"), (0, 0.3)),
        (("ada", "fay"), (2, 6)),
        (("cal", "hal"), (2, 6)),
        (("ada", "ben", "cal"), (0, 0.3)),
    ],
)
def test_no_speaker_is_swapped_in_a_minute(who, pauses, seed, leak):
    draw = random.Random(seed)
    oracle = Oracle(torch.stack([talk(name, 60, pauses, draw) for name in who]), leak, seed)
    est = run(oracle, oracle.mix, segment=4.0, batch_size=1 + seed)
    assert len(oracle.orders) > 1, "the oracle never swapped, so nothing was tested"
    wrong = errors(est, oracle)
    order = wrong.argmin(1)
    assert sorted(order.tolist()) == list(range(len(who)))
    assert wrong.min(1).values.max() < 1e-5


def test_without_following_the_test_above_would_fail():
    draw = random.Random(0)
    oracle = Oracle(torch.stack([talk(name, 60, (0, 0.3), draw) for name in ("ada", "gus")]))
    oracle.sources = ("one", "two")
    est = run(oracle, oracle.mix, segment=4.0)
    assert errors(est, oracle).min(1).values.min() > 0.1


@pytest.mark.parametrize("n_src", [2, 3, 5])
def test_the_waves_decide_where_spectra_are_alike(n_src):
    """White noises, one of them 20 dB below the others."""
    gains = torch.ones(n_src, 1, 1)
    gains[-1] = 0.1
    oracle = Oracle(gains * noise(n_src, 1, 160000), 0.05)
    est = run(oracle, oracle.mix, segment=1.0)
    assert len(oracle.orders) > 1
    assert errors(est, oracle).min(1).values.max() < 1e-5


def test_speakers_are_known_again_after_silence():
    clips = example_corpus()
    pair = lambda i: torch.stack([clips[i][:, :20000], clips[i + 32][:, :20000]])
    for flipped in (False, True):
        follow = Follower(8000)
        follow(None, pair(0))
        later = torch.cat([torch.zeros(2, 1, 8000), pair(1)], -1)
        got = follow(torch.zeros(2, 1, 8000), later.flip(0) if flipped else later)
        assert torch.equal(got, later)


def test_a_new_voice_gets_a_free_place_and_a_known_one_its_own():
    """One speaker so far; after a pause comes another one, or the same again, in any output."""
    clips, silent = example_corpus(), torch.zeros(1, 20000)
    for comes, place in ((32, 1), (1, 0)):
        for first in (True, False):
            follow = Follower(8000)
            follow(None, torch.stack([clips[0][:, :20000], silent]))
            pair = [clips[comes][:, :20000], silent]
            got = follow(torch.zeros(2, 1, 8000), torch.stack(pair if first else pair[::-1]))
            assert got[place].abs().max() > 0 and got[1 - place].abs().max() == 0


def test_silence_all_along():
    src = torch.zeros(2, 1, 64000)
    est = run(Oracle(src), src.sum(0), segment=2.0)
    assert est.abs().max() == 0
    assert torch.isfinite(signature(src[..., :10], 8000)).all()


def test_too_little_overlap_for_speakers():
    oracle = Oracle(noise(2, 1, 40000))
    for overlap in (0, 0.01):
        with pytest.raises(ValueError, match="too little to follow speakers") as error:
            run(oracle, oracle.mix, segment=1.0, overlap=overlap)
        assert one_line(error)
    run(oracle, oracle.mix, overlap=0)  # a single segment needs none


# -- channels, devices, modes, types


def test_channels():
    mix = noise(2, 30000)
    assert torch.equal(run(copies(channels=1), mix, segment=1.0), mix.expand(2, 2, -1))
    assert torch.equal(run(copies(channels=2), mix[:1], segment=1.0)[0], mix[:1])
    speakers = run(copies(channels=1, sources=("s1", "s2")), mix, segment=1.0)
    assert torch.equal(speakers[0], mix.mean(0, keepdim=True))
    with pytest.raises(ValueError, match="takes 2") as error:
        run(copies(channels=2), noise(6, 30000))
    assert one_line(error)


def test_batches_functions_and_types():
    batch = noise(3, 2, 9000)
    assert torch.equal(run(copies(), batch, segment=0.3), batch[:, None].expand(-1, 2, -1, -1))
    plain = lambda mix: torch.stack([mix, -mix, 2 * mix], 1)
    assert run(plain, batch[0], 16000, segment=0.1).shape == (3, 2, 9000)
    exact = batch[0].double() + 1e-12
    assert torch.equal(run(copies(), exact, segment=0.3)[0], exact)
    assert run(copies(), batch[0].numpy(), segment=0.3).shape == (2, 2, 9000)
    assert run(copies(), batch[0].half(), segment=0.3).dtype == torch.float16
    assert torch.equal(run(copies(), batch.mT.contiguous().mT[0]), batch[0].expand(2, -1, -1))


class Sum(torch.nn.Module):
    """A product that bfloat16 rounds, and what it was given."""

    sources, sample_rate, channels, level_db = ("a",), 8000, 1, None

    def __init__(self):
        super().__init__()
        self.weight, self.seen = torch.nn.Parameter(torch.ones(1, 1)), []

    def forward(self, mix):
        self.seen.append((mix.dtype, torch.is_autocast_enabled("cpu")))
        return (mix.mT @ self.weight).mT[:, None]


def test_half_precision_is_the_networks_alone(tmp_path):
    net, mix = Sum(), 1 + noise(1, 9000).abs() * 1e-4
    seen = []
    for block in separate_blocks(net, [mix], segment=0.3, precision="bf16"):
        seen.append(torch.is_autocast_enabled("cpu"))
        assert block.dtype == torch.float32
    assert not any(seen) and set(net.seen) == {(torch.float32, True)}
    rough = run(net, mix, segment=0.3, precision="bf16")
    assert not torch.equal(rough[0], mix) and torch.allclose(rough[0], mix, rtol=2**-8)
    assert torch.equal(run(net, mix, segment=0.3)[0], mix)
    file = save(tmp_path / "a.wav", mix / 2, 8000, "FLOAT")
    est = load(separate_file(net, file, tmp_path, precision="bf16", progress=False)["a"])[0]
    assert torch.equal(est, run(net, mix / 2, precision="bf16")[0])
    for separator, precision, words in (
        (net, "fp8", "'no' or 'bf16'"),
        (copies(), "bf16", "no network"),
    ):
        with pytest.raises(ValueError, match=words) as error:
            run(separator, mix, precision=precision)
        assert one_line(error)


def test_the_mixture_is_not_touched():
    def spoils(mix):
        return mix.mul_(0)[:, None]

    mix = noise(1, 9000)
    before = mix.clone()
    run(spoils, mix, 8000, segment=0.1)
    assert torch.equal(mix, before)


class Net(torch.nn.Module):
    sample_rate, channels, sources, level_db = 8000, 1, ("a", "b"), None

    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv1d(1, 2, 9, padding=4).double()
        self.drop, self.frozen = torch.nn.Dropout(0.5), torch.nn.BatchNorm1d(1).eval().double()
        self.seen = []

    def forward(self, mix):
        self.seen.append((self.drop.training, torch.is_grad_enabled(), mix.dtype))
        return self.drop(self.conv(mix))[:, :, None]


def test_networks_are_called_in_evaluation_mode_and_restored():
    net = Net()
    est = run(net, noise(1, 9000), segment=0.5, device="cpu")
    assert set(net.seen) == {(False, False, torch.float64)}
    assert est.dtype == torch.float32 and not est.requires_grad and not est.is_inference()
    assert net.training and net.drop.training and not net.frozen.training
    (est.clone().requires_grad_() ** 2).sum().backward()
    net.forward = lambda mix: 1 / 0
    with pytest.raises(ZeroDivisionError):
        run(net, noise(1, 9000))
    assert net.drop.training and not net.frozen.training


def test_batch_size_changes_nothing():
    net = Net().eval()
    one, four = (run(net, noise(1, 30000), segment=0.3, batch_size=n) for n in (1, 4))
    torch.testing.assert_close(one, four, atol=1e-6, rtol=0)


def test_a_classical_separator():
    src = noise(2, 1, 16000)
    nmf = NMFSeparator(8000, 1, ("a", "b"), rank=2, n_fft=256, hop=64, n_iter=5).fit(src)
    est = run(nmf, src.sum(0), segment=0.5, overlap=0.5)
    torch.testing.assert_close(est.sum(0), src.sum(0), atol=1e-5, rtol=0)


def test_the_separator_may_say_how_long_its_segments_are():
    seen = []

    def spy(separator):
        called = lambda mix: seen.append(mix.shape[-1]) or separator(mix)
        vars(called).update(vars(separator))
        return called

    mix = noise(1, 11 * 8000)
    run(spy(copies(segment=0.5)), mix[:, :8000])
    run(spy(copies(segment=0.5)), mix[:, :8000], segment=0.25, overlap=0)
    run(spy(copies()), mix)
    run(spy(copies()), mix[:, :70000])
    run(spy(copies()), mix, segment=float("inf"))
    assert seen == [4000] * 3 + [2000] * 4 + [80000] * 2 + [70000, 88000]


def test_wrong_arguments():
    mix = noise(1, 9000)
    for how, match in [
        ({"segment": 0}, "segment is 0"),
        ({"segment": float("nan")}, "segment is nan"),
        ({"overlap": 1.0}, "overlap is 1.0"),
        ({"overlap": -0.1}, "overlap is -0.1"),
        ({"batch_size": 0}, "batch_size is 0"),
    ]:
        with pytest.raises(ValueError, match=match) as error:
            run(copies(), mix, **how)
        assert one_line(error)
    with pytest.raises(ValueError, match="pass sample_rate"):
        run(lambda mix: mix[:, None], mix)
    with pytest.raises(ValueError, match="sample rate is -1"):
        run(copies(), mix, -1)
    with pytest.raises(ValueError, match="NaN"):
        run(copies(), mix / 0)
    with pytest.raises(ValueError, match=r"\(channel, time\)"):
        run(copies(), mix[None, None])
    with pytest.raises(ValueError, match="0 blocks"):
        list(separate_blocks(copies(), []))


def test_wrong_separators():
    mix = noise(1, 9000)
    for separator, match in [
        (lambda mix: mix, r"returned shape \(1, 1, 9000\)"),
        (lambda mix: mix[:, None, :, :-1], "8999"),
        (lambda mix: None, r"returned shape \(\)"),
        (lambda mix: mix[:, None] / 0, "NaN or infinity for source number 1"),
    ]:
        with pytest.raises(ValueError, match=match) as error:
            run(separator, mix, 8000)
        assert one_line(error)
    silent_b = copies()
    silent_b = SimpleNamespace(**vars(silent_b))
    broken = lambda mix: torch.stack([mix, mix + float("nan")], 1)
    broken.sources = silent_b.sources
    with pytest.raises(ValueError, match="for source b"):
        run(broken, mix, 8000)


# -- files


@pytest.fixture
def song(tmp_path):
    """Three seconds of stereo noise at 22.05 kHz, in a file."""
    return save(tmp_path / "in" / "a song.wav", noise(2, 66150), 22050, "FLOAT")


@pytest.fixture(autouse=True)
def _folder(tmp_path):
    (tmp_path / "in").mkdir()


def files_in(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*"))


@pytest.mark.parametrize("sample_rate", [22050, 8000, 44100])
@pytest.mark.parametrize("how", [{}, {"segment": 0.37, "overlap": 0.6, "batch_size": 3}])
def test_a_file_gives_the_same_samples(song, tmp_path, sample_rate, how):
    separator = copies(sample_rate, 2, ("vocals", "rest"))
    paths = separate_file(separator, song, tmp_path / "out", progress=False, **how)
    assert list(paths) == ["vocals", "rest"]
    assert files_in(tmp_path / "out") == ["a song", "a song/rest.wav", "a song/vocals.wav"]
    want = run(separator, *load(song), **how)
    for path, est in zip(paths.values(), want):
        got, rate = load(path)
        assert rate == 22050 and torch.equal(got, est) and sf.info(path).subtype == "FLOAT"


@pytest.mark.parametrize(
    "how, subtype, step",
    [
        ({"format": "flac"}, "PCM_24", 2**-23),
        ({"format": "flac", "subtype": "PCM_16"}, "PCM_16", 2**-15),
        ({"subtype": "PCM_24"}, "PCM_24", 2**-23),
        ({"subtype": "PCM_16"}, "PCM_16", 2**-15),
    ],
)
def test_formats(song, tmp_path, how, subtype, step):
    paths = separate_file(copies(22050, 2), song, tmp_path, progress=False, **how)
    assert sf.info(paths["a"]).subtype == subtype
    assert paths["a"].suffix == f".{how.get('format', 'wav')}"
    assert (load(paths["b"])[0] - load(song)[0]).abs().max() <= step


def test_speakers_from_stereo(song, tmp_path):
    separator = copies(8000, 1, ("s1", "s2"))
    paths = separate_file(separator, song, tmp_path, segment=1.0, progress=False)
    want = run(separator, *load(song), segment=1.0)
    assert torch.equal(load(paths["s2"])[0], want[1]) and want.shape == (2, 1, 66150)


@pytest.mark.parametrize("suffix, codec", [("m4a", "aac"), ("mp4", "aac"), ("mka", "flac")])
def test_what_only_ffmpeg_reads(song, tmp_path, suffix, codec):
    other = tmp_path / "in" / f"other.{suffix}"
    convert = ["ffmpeg", "-v", "error", "-i", str(song), "-c:a", codec, str(other)]
    subprocess.run(convert, check=True)
    paths = separate_file(copies(22050, 2), other, tmp_path / "out", segment=1.0, progress=False)
    assert torch.equal(load(paths["a"])[0], load(other)[0])


@pytest.mark.parametrize("damage", ["cut off", "overwritten"])
def test_damaged_files_give_what_load_gives(tmp_path, damage):
    path = save(tmp_path / "in" / "noise.flac", noise(2, 200000), 44100)
    held = bytearray(path.read_bytes())
    middle = len(held) // 2
    held[middle : middle + 5000] = bytes(random.Random(0).randbytes(5000))
    path.write_bytes(held[:middle] if damage == "cut off" else held)
    want, _ = load(path)
    assert 50000 < want.shape[-1] < 200000
    paths = separate_file(copies(44100, 2), path, tmp_path, segment=1.0, progress=False)
    assert torch.equal(load(paths["a"])[0], want)


def test_reading_in_blocks_is_reading(song):
    with Recording(song) as file:
        assert (file.sample_rate, file.channels, file.seconds) == (22050, 2, 3.0)
        assert torch.equal(torch.cat(list(file.blocks(1000)), -1), load(song)[0])


def test_names_of_a_plain_function_and_only(song, tmp_path):
    paths = separate_file(lambda mix: mix[:, None], song, tmp_path / "out", progress=False)
    assert list(paths) == ["s1"]
    only = separate_file(copies(), song, tmp_path / "o", progress=False, only=["b"])
    assert list(only) == ["b"] and files_in(tmp_path / "o") == ["a song", "a song/b.wav"]


def test_overs_are_kept_in_float_and_counted_in_integers(tmp_path):
    wav = torch.full((1, 9000), 0.5)
    wav[:, 100:103] = torch.tensor([1.5, -2.0, 1.0])
    path = save(tmp_path / "in" / "loud.wav", wav, 8000, "FLOAT")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kept = separate_file(copies(), path, tmp_path, progress=False)
    assert torch.equal(load(kept["a"])[0], wav)
    with pytest.warns(UserWarning, match="2 samples of a, 2 samples of b passed full scale"):
        cut_off = separate_file(copies(), path, tmp_path, format="flac", progress=False)
    assert (load(cut_off["a"])[0] - wav.clamp(-1, 1)).abs().max() < 1e-6


def test_long_wav_is_written_as_rf64(song, tmp_path, monkeypatch):
    monkeypatch.setitem(files.BYTES, "FLOAT", 10**9)
    monkeypatch.setattr(StemWriter, "_check_space", lambda *_: None)
    paths = separate_file(copies(22050, 2), song, tmp_path, progress=False)
    assert paths["a"].read_bytes()[:4] == b"RF64"
    assert torch.equal(load(paths["a"])[0], load(song)[0])


def test_progress_is_told_and_shown(song, tmp_path, capsys):
    seen = []
    tell = lambda done, total: seen.append((done, total))
    separate_file(copies(), song, tmp_path, segment=0.5, progress=tell)
    done = [d for d, _ in seen]
    assert done == sorted(done) and done[-1] == 3.0 and {t for _, t in seen} == {3.0}
    separate_file(copies(), song, tmp_path, segment=0.5)
    assert "real-time factor" in capsys.readouterr().err
    separate_file(copies(), song, tmp_path, segment=0.5, progress=False)
    assert capsys.readouterr() == ("", "")


def test_temporary_names_are_never_shared(tmp_path):
    """Threads of one process write the same file; each has a temporary file of its own."""
    with atomic(tmp_path / "a") as one, atomic(tmp_path / "a") as two:
        assert one != two and one.parent == two.parent == tmp_path
        one.write_text("1"), two.write_text("2")
    assert (tmp_path / "a").read_text() == "1" and files_in(tmp_path) == ["a", "in"]


# -- failures


def fails_after(n, error):
    """A separator that raises when it is called for the n-th time."""
    calls = iter(range(n - 1))
    separator = copies()

    def call(mix):
        if next(calls, None) is None:
            raise error
        return separator(mix)

    vars(call).update(vars(separator))
    return call


@pytest.mark.parametrize("error", [RuntimeError("no"), KeyboardInterrupt(), MemoryError()])
@pytest.mark.parametrize("n", [1, 5])
def test_a_failure_leaves_nothing(song, tmp_path, error, n):
    before = files_in(tmp_path)
    with pytest.raises(type(error)):
        separate_file(
            fails_after(n, error), song, tmp_path / "new" / "out", segment=0.3, progress=False
        )
    assert files_in(tmp_path) == before


def test_a_failure_leaves_older_results(song, tmp_path):
    paths = separate_file(copies(), song, tmp_path / "out", progress=False)
    before = {p: p.read_bytes() for p in paths.values()}

    def cancel(done, total):
        if done > 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        separate_file(copies(), song, tmp_path / "out", segment=0.3, progress=cancel)
    assert {p: p.read_bytes() for p in paths.values()} == before
    assert files_in(tmp_path / "out") == ["a song", "a song/a.wav", "a song/b.wav"]


def test_files_that_cannot_be_read_are_refused_as_load_does(tmp_path):
    bad = tmp_path / "in"
    (bad / "empty.wav").touch()
    (bad / "text.wav").write_text("no sound at all")
    save(bad / "short.wav", torch.zeros(1, 1), 8000)
    sf.write(bad / "none.wav", np.zeros((0, 2)), 8000)
    nan = np.zeros(200000, "f4")
    nan[150000] = np.nan
    sf.write(bad / "nan.wav", nan, 8000, subtype="FLOAT")
    for name in ("missing.wav", ".", "empty.wav", "text.wav", "none.wav", "nan.wav"):
        with pytest.raises((ValueError, FileNotFoundError)) as ours:
            separate_file(copies(), bad / name, tmp_path / "out", progress=False)
        with pytest.raises(type(ours.value)) as loads:
            load(bad / name)
        assert str(ours.value) == str(loads.value)
        assert not (tmp_path / "out").exists()
    paths = separate_file(copies(), bad / "short.wav", tmp_path / "out", progress=False)
    assert load(paths["a"])[0].shape == (1, 1)


def test_wrong_targets(song, tmp_path):
    for separator, how, match in [
        (copies(), {"suffix": "aac"}, "suffix is 'aac'"),
        (copies(), {"subtype": "PCM_99"}, "can't hold"),
        (copies(), {"format": "flac", "subtype": "FLOAT"}, "can't hold"),
        (copies(), {"only": ["c"]}, "no source is called 'c'; there are a, b"),
        (copies(sources=("a/b", "c")), {}, "can't be part of a file name"),
        (copies(), {"out": song}, "is a file; give the folder"),
    ]:
        out = how.pop("out", tmp_path / "out")
        with pytest.raises(ValueError, match=match) as error:
            separate_file(separator, song, out, progress=False, **how)
        assert one_line(error) and not (tmp_path / "out").exists()


def test_the_recording_is_never_overwritten(tmp_path):
    path = tmp_path / "a" / "a.wav"
    path.parent.mkdir()
    save(path, noise(1, 9000), 8000)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="is the recording itself"):
        separate_file(copies(), path, tmp_path, progress=False)
    assert path.read_bytes() == before and files_in(tmp_path / "a") == ["a.wav"]


def test_too_little_room_is_told_before_anything_is_written(song, tmp_path, monkeypatch):
    monkeypatch.setattr(files.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(OSError, match="GB free; make room") as error:
        separate_file(copies(), song, tmp_path / "out", progress=False)
    assert one_line(error) and not (tmp_path / "out").exists()


def child(code, *args):
    """What a script prints, in a Python of its own."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, args)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(sys.platform == "win32", reason="limits are POSIX")
@pytest.mark.parametrize("format", ["wav", "flac"])
def test_a_full_disk(tmp_path, format):
    save(tmp_path / "in" / "long.wav", noise(2, 44100 * 10), 44100)
    code = """
        import resource, signal, sys, torch
        from sepbook.engine.streams import separate_file
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
        try:
            separate_file(lambda m: m[:, None], sys.argv[1], sys.argv[2], segment=1.0,
                          progress=False, format=sys.argv[3])
        except OSError as error:
            print(error)
        """
    said = child(code, tmp_path / "in" / "long.wav", tmp_path / "out", format)
    assert "can't be written" in said and "make room" in said and said.count("\n") == 1
    assert files_in(tmp_path) == ["in", "in/long.wav"]


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_memory_does_not_grow_with_the_length(tmp_path):
    with sf.SoundFile(tmp_path / "in" / "long.wav", "w", 44100, 2, "PCM_16") as file:
        for _ in range(20):
            file.write(noise(441000, 2).numpy())
    save(tmp_path / "in" / "short.wav", noise(2, 441000), 44100)
    code = """
        import json, sys, torch
        from pathlib import Path
        from sepbook.engine.streams import separate_file
        torch.set_num_threads(1)
        status = Path("/proc/self/status")  # getrusage would count the parent's memory
        peak = lambda: int(status.read_text().split("VmHWM:")[1].split()[0])
        separator = lambda mix: torch.stack([mix, -mix], 1)
        peaks = []
        for path in sys.argv[1:3]:
            separate_file(separator, path, sys.argv[3], segment=2.0, progress=False)
            peaks.append(peak())
        print(json.dumps(peaks))
        """
    files = tmp_path / "in" / "short.wav", tmp_path / "in" / "long.wav"
    short, long = json.loads(child(code, *files, tmp_path))
    whole = 200 * 44100 * 2 * 4 * 2 / 1e6  # MB of the two estimates, were they held
    assert (long - short) / 1000 < 20 < whole
