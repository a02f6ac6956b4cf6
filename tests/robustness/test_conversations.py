"""Conversations: what holds for every seed, setting and corpus, and what is refused."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from sepbook.conversations import (
    Conversations,
    activity,
    draw_turns,
    leakage,
    median_pitch,
    sa_sdr,
    sa_sdr_loss,
    swaps,
)
from sepbook.mixtures import example_corpus


class Constant:
    """A corpus whose sounds are constants or sines, so that a test can tell who speaks."""

    sample_rate, channels = 8000, 1

    def __init__(self, *people: str, seconds: float = 1.0, **columns: list):
        self.rows = [{"speaker": p} for p in people]
        for name, values in columns.items():
            for row, value in zip(self.rows, values, strict=True):
                row[name] = value
        self.frames = round(seconds * 8000)

    def __len__(self) -> int:
        return len(self.rows)

    def length(self, i: int) -> int:
        return self.frames

    def read(self, i: int, start: int, frames: int) -> torch.Tensor:
        time = torch.arange(start, min(start + frames, self.frames)) / 8000
        hz = 100 if self.rows[i]["speaker"].startswith("m") else 250
        return sum(torch.cos(2 * math.pi * hz * k * time) / k for k in range(1, 6))[None]


PEOPLE = Constant("m1", "m2", "f1", "f2")


@pytest.mark.parametrize("seconds", [0.5, 1.3, 7.0, 20.0])
@pytest.mark.parametrize("seed", range(4))
def test_turns_stay_inside_and_nobody_interrupts_herself(seconds, seed):
    frames = round(seconds * 8000)
    turns = draw_turns(np.random.default_rng(seed), frames, 8000)
    for who in (0, 1):
        mine = [t for t in turns if t.who == who]
        assert all(0 <= t.start < t.stop <= frames for t in mine)
        assert all(a.stop <= b.start for a, b in pairwise(mine))


def test_without_interruptions_nobody_speaks_at_once_and_pauses_end():
    longest = 0
    for seed in range(200):
        how = {"interruptions": 0.0, "longest_pause": 2.0}
        active = activity(draw_turns(np.random.default_rng(seed), 160000, 8000, **how), 160000)
        assert not active.all(0).any()
        edges = np.flatnonzero(np.diff(np.r_[1, active.any(0), 1].astype(int)))
        longest = max([longest, *np.diff(edges)[::2]])
    assert 12000 < longest <= 16000


def test_alone_is_one_person_and_the_other_source_is_zero():
    for mix, src in Conversations(PEOPLE, 3, 20, together=0, alone=1):
        assert ((src == 0).all(-1).sum() == 1) and torch.allclose(mix, src.sum(0), atol=1e-6)


def test_pitch_stands_in_for_a_missing_column():
    data = Conversations(PEOPLE)
    assert dict(zip(data.people, data.high)) == {"f1": True, "f2": True, "m1": False, "m2": False}
    told = Conversations(Constant("m1", "m2", sex=["F", "M"]), same_sex=0)
    assert dict(zip(told.people, told.high)) == {"m1": True, "m2": False}


def test_weights_decide_who_is_drawn():
    corpus = Constant("m1", "m2", "m3", "m4", weight=[10, 10, 1, 1])
    data = Conversations(corpus, same_sex=1)
    pairs = [data.draw_people(np.random.default_rng(k)) for k in range(500)]
    first = [a for a, _ in pairs]
    assert 0.85 < np.mean([a in ("m1", "m2") for a in first]) < 0.97
    assert all(a != b for a, b in pairs)


def test_three_people_at_a_table():
    data = Conversations(PEOPLE, 4, 40, together=0.5, alone=0, same_sex=0, n_src=3, rooms=0.5)
    assert data.sources == ("s1", "s2", "s3")
    for k in range(40):
        first, *others = data.draw_people(np.random.default_rng(k))
        assert len({first, *others}) == 3
        assert all((first[0] == "f") != (name[0] == "f") for name in others)
    mix, src = data[0]
    assert src.shape == (3, 1, 32000) and torch.allclose(mix, src.sum(0), atol=1e-5)
    sound = torch.stack([src.abs().amax((1, 2)) > 0 for _, src in data]).sum(1)
    assert (sound == 3).sum() >= 20 and (sound >= 1).all()
    with pytest.raises(ValueError, match="no 3 people of alike voices"):
        Conversations(PEOPLE, same_sex=1, n_src=3)


def test_three_people_take_turns():
    turns = draw_turns(np.random.default_rng(0), 600 * 8000, 8000, people=3)
    order = [t.who for t in turns]
    assert set(order) == {0, 1, 2}
    after = {(a, b) for a, b in pairwise(order) if a != b}
    assert len(after) == 6  # anybody may follow anybody


def test_items_are_the_same_whatever_came_before():
    data = Conversations(PEOPLE, 2, 8, seed=5, rooms=0.5, noise=Constant("n"), noise_share=0.5)
    forward = [data[i][0] for i in range(8)]
    assert all(torch.equal(data[i][0], forward[i]) for i in reversed(range(8)))
    data.set_epoch(3)
    assert not any(torch.equal(data[i][0], forward[i]) for i in range(8))
    assert all(mix.abs().max() <= 0.9 + 1e-6 for mix in forward)


def test_noise_is_in_the_mixture_only_and_at_its_level():
    how = dict(seconds=2, size=30, together=1, alone=0, level_range=(0, 0))
    noisy = Conversations(PEOPLE, **how, noise=Constant("n"), noise_share=1, noise_snr=(10, 10))
    for mix, src in noisy:
        noise = mix - src.sum(0)
        snr = 10 * (src.square().mean((1, 2)).max() / noise.square().mean()).log10()
        assert abs(float(snr) - 10) < 0.3


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"together": 1.2}, "together"),
        ({"together": 0.7, "alone": 0.7}, "together"),
        ({"seconds": 0}, "seconds"),
        ({"size": 0}, "size"),
        ({"level_range": (3, 1)}, "level_range"),
        ({"corpus": Constant("m1", "m2")}, "different"),
        ({"corpus": Constant("m1", "f1")}, "alike"),
        ({"corpus": Constant("m1"), "same_sex": 1}, "alike"),
    ],
)
def test_what_is_refused(wrong, told):
    with pytest.raises(ValueError, match=told) as error:
        Conversations(**{"corpus": PEOPLE} | wrong)
    assert "\n" not in str(error.value)


def test_noise_at_another_rate_is_refused():
    noise = Constant("n")
    noise.sample_rate = 16000
    with pytest.raises(ValueError, match="sample_rate"):
        Conversations(PEOPLE, noise=noise)


def test_an_index_out_of_range():
    with pytest.raises(IndexError):
        Conversations(PEOPLE, size=3)[3]


def test_packaged_voices_serve():
    mix, src = Conversations(example_corpus(), 1.0, 2)[1]
    assert mix.shape == (1, 8000) and src.shape == (2, 1, 8000)
    assert mix.dtype == src.dtype == torch.float32


@pytest.mark.parametrize("rate", [8000, 16000, 44100])
@pytest.mark.parametrize("hz", [80, 110, 220, 350])
def test_pitch_of_known_tones(rate, hz):
    time = torch.arange(rate) / rate
    voice = sum(torch.cos(2 * math.pi * hz * k * time) / k for k in range(1, 8))[None]
    assert abs(median_pitch(voice, rate) - hz) < 0.05 * hz


def test_no_pitch_in_noise_and_in_silence():
    noise = torch.randn(1, 16000, generator=torch.Generator().manual_seed(0))
    assert math.isnan(median_pitch(noise, 8000)) and math.isnan(median_pitch(0 * noise, 8000))
    with pytest.raises(ValueError, match="80 ms"):
        median_pitch(noise[:, :100], 8000)


def test_sa_sdr_is_the_snr_of_all_sources_laid_end_to_end():
    draw = torch.Generator().manual_seed(1)
    src, noise = torch.randn(2, 5, 3, 1, 300, generator=draw)
    want = 10 * (src.square().sum((1, 2, 3)) / (0.3 * noise).square().sum((1, 2, 3))).log10()
    assert torch.allclose(sa_sdr(src + 0.3 * noise, src), want, atol=1e-4)
    assert torch.allclose(sa_sdr(src, src, 30), torch.full((5,), 30.0), atol=1e-3)
    assert torch.allclose(sa_sdr(7 * src + noise, 7 * src, 30), sa_sdr(src + noise / 7, src, 30))


def test_loss_prefers_one_order_for_the_whole():
    src = torch.randn(1, 2, 1, 400, generator=torch.Generator().manual_seed(2))
    swapped = torch.cat([src[..., :200], src.flip(1)[..., 200:]], -1)
    assert sa_sdr_loss(src.flip(1), src) == sa_sdr_loss(src, src)
    assert sa_sdr_loss(swapped, src) > sa_sdr_loss(src, src) + 20


def test_swaps_ignore_pauses_and_ties():
    src = torch.randn(2, 1, 5000, generator=torch.Generator().manual_seed(3))
    src[..., 1000:2000] = 0
    crossed = torch.cat([src[..., :2000], src.flip(0)[..., 2000:]], -1)
    assert swaps(crossed, src, 1000) == (1, 4)
    tie = src.sum(0, keepdim=True).expand_as(src)
    assert swaps(tie, src, 1000) == (0, 0)
    with pytest.raises(ValueError, match="two"):
        swaps(src[:1], src[:1], 1000)


def test_leakage_is_relative_to_what_is_spoken():
    src = torch.zeros(2, 1, 1000)
    src[0] = torch.randn(1, 1000, generator=torch.Generator().manual_seed(4))
    for gain in (0.01, 100.0):
        level = leakage(gain * torch.stack([src[0], 0.05 * src[0]]), gain * src)
        assert level[0].isnan() and abs(float(level[1]) - 20 * math.log10(0.05)) < 1e-3
