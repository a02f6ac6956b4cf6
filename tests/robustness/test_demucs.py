"""Demucs: what is special to these networks; the rest is in test_networks.py."""

import math

import pytest
import torch
from nets import noise, refused, run
from torch import nn
from torch.nn import functional as F

from sepbook.engine.fused import MultiheadAttention, conv_norm, filter_bank
from sepbook.models.demucs import (
    STEMS,
    VERSIONS,
    Demucs,
    HDemucs,
    HTDemucs,
    LocalAttention,
    Shifted,
    change_rate,
    positions,
    rescale,
)

SMALL = {
    "v1": (Demucs, VERSIONS["v1"] | {"hidden": 4, "depth": 3}),
    "v2": (Demucs, {"hidden": 4, "depth": 3}),
    "v3 wave": (Demucs, VERSIONS["v3_wave"] | {"hidden": 8, "depth": 3, "compress": 2, "deep": 1}),
    "hybrid": (HDemucs, {"hidden": 8, "depth": 4, "n_fft": 128, "compress": 2, "deep": 2}),
    "transformer": (
        HTDemucs,
        {"hidden": 8, "depth": 2, "n_fft": 256, "bottom": 16, "layers": 2, "segment": 0},
    ),
}
every = pytest.mark.parametrize("name", SMALL)


def small(name: str, **how) -> nn.Module:
    """A small network, the same each time, whose branches do something."""
    torch.manual_seed(0)
    kind, sizes = SMALL[name]
    return kind(**sizes | how).eval()


def test_parameter_counts():
    with torch.device("meta"):
        counts = {name: Demucs(**how).n_params for name, how in VERSIONS.items()}
        assert counts == {"v1": 648_548_208, "v2": 265_679_496, "v3_wave": 133_753_064}
        assert HDemucs().n_params == 83_637_832
        assert HTDemucs().n_params == 41_984_456
        six = (*STEMS, "guitar", "piano")
        assert HTDemucs(six, bottom=0).n_params == 27_414_996


@every
@pytest.mark.parametrize("length", [1, 2, 31, 32, 33, 100, 777])
def test_any_length(name, length):
    est = run(small(name), noise(2, 2, length))
    assert est.shape == (2, 4, 2, length) and est.isfinite().all()


@every
def test_mono_and_other_stems(name):
    network = small(name, channels=1, sources=("vocals", "rest"))
    assert run(network, noise(3, 1, 500)).shape == (3, 2, 1, 500)
    with refused("2 channels"):
        network(noise(1, 2, 500))


@every
def test_silence(name):
    est = run(small(name), torch.zeros(1, 2, 500))
    assert est.isfinite().all() and est.abs().max() < 1 + 0.5 * (name == "v1")
    network, mix = small(name).train(), torch.zeros(1, 2, 500, requires_grad=True)
    network.loss(mix, torch.zeros(1, 4, 2, 500)).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in network.parameters())


@pytest.mark.parametrize("name", [name for name in SMALL if name != "v1"])
def test_silence_in_is_almost_silence_out(name):
    """What is standardised comes back at the level of what went in."""
    assert run(small(name), torch.zeros(1, 2, 500)).abs().max() == 0


@pytest.mark.parametrize("name", [name for name in SMALL if name != "v1"])
@pytest.mark.parametrize("factor", [0.1, 100.0])
def test_level_scales_through(name, factor):
    network, mix = small(name), noise(1, 2, 2000)
    got, want = run(network, factor * mix) / factor, run(network, mix)
    torch.testing.assert_close(got, want, rtol=1e-3, atol=1e-3 * float(want.abs().max()))


@every
def test_items_of_a_batch_are_alone(name):
    network, mix = small(name), noise(3, 2, 700)
    alone = torch.cat([run(network, one[None]) for one in mix])
    torch.testing.assert_close(run(network, mix), alone, rtol=1e-4, atol=1e-5)


@every
def test_double_precision(name):
    network, mix = small(name), noise(1, 2, 700)
    want = run(network, mix)
    wide = run(network.double(), mix.double())
    assert wide.dtype == torch.float64
    torch.testing.assert_close(wide.float(), want, rtol=1e-3, atol=1e-4 * float(want.abs().max()))


@every
def test_bfloat16_is_near(name):
    network, mix = small(name), noise(1, 2, 700)
    want = run(network, mix)
    with torch.autocast("cpu", torch.bfloat16):
        got = run(network, mix)
    assert got.dtype == torch.float32
    assert (got - want).abs().max() < 0.15 * want.abs().max()


@every
def test_no_mixture_is_changed(name):
    network, mix = small(name).train(), noise(1, 2, 500)
    before = mix.clone()
    network(mix)
    assert torch.equal(mix, before)


def test_training_length_is_filled_up_in_evaluation_only():
    network, mix = small("transformer", segment=0.05), noise(1, 2, 1000)
    filled = torch.cat([mix, torch.zeros(1, 2, 1205)], -1)
    torch.testing.assert_close(run(network, mix), run(network, filled)[..., :1000])
    seen = []
    network.encoder[0].register_forward_pre_hook(lambda _, x: seen.append(x[0].shape[-1]))
    run(network, mix), run(network.train(), mix), run(network.eval(), noise(1, 2, 3000))
    assert seen == [math.ceil(2205 / 64), math.ceil(1000 / 64), math.ceil(3000 / 64)]


def gradients(f, inputs) -> list:
    """What f returns, and its gradients with regard to the inputs, for the same probe each time."""
    out = f()
    probe = noise(*out.shape, seed=3, dtype=out.dtype)
    return [out, *torch.autograd.grad((out * probe).sum(), inputs)]


@pytest.mark.parametrize("frames", [5, 50])  # fewer and more than channels
@pytest.mark.parametrize("rows", [1, 7])
def test_widening_and_norm_in_one_step(rows, frames):
    torch.manual_seed(0)
    wide, norm = nn.Conv1d(6, 20, 1).double(), nn.GroupNorm(1, 20).double()
    nn.init.normal_(norm.weight), nn.init.normal_(norm.bias)
    h = noise(rows, 6, frames, dtype=torch.float64).requires_grad_()
    inputs = (h, *wide.parameters(), *norm.parameters())
    got = gradients(lambda: conv_norm(wide, norm, h), inputs)
    torch.testing.assert_close(got, gradients(lambda: norm(wide(h)), inputs))
    assert torch.autograd.gradgradcheck(lambda h: conv_norm(wide, norm, h), h[:1, :, :9])


def test_widening_and_norm_of_loud_constants():
    """An offset far above the signal must not eat the digits of the variance."""
    torch.manual_seed(0)
    wide, norm = nn.Conv1d(6, 20, 1), nn.GroupNorm(1, 20)
    h = 1e-2 * noise(2, 6, 50) + 1
    want = norm.double()(wide.double()(h.double()))
    got = conv_norm(wide.float(), norm.float(), h)
    torch.testing.assert_close(got.double(), want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("taps", "stride"), [(53, 1), (106, 2), (7, 3), (1, 1)])
@pytest.mark.parametrize("time", [106, 107, 200, 3000])
def test_filter_bank_is_conv1d(taps, stride, time):
    wav = noise(2, 3, time, dtype=torch.float64).requires_grad_()
    filters = noise(4, taps, seed=1, dtype=torch.float64).requires_grad_()
    plain = lambda: F.conv1d(wav.flatten(0, 1)[:, None], filters[:, None], stride=stride)
    got = gradients(lambda: filter_bank(wav, filters, stride), (wav, filters))
    want = gradients(lambda: plain().unflatten(0, (2, 3)), (wav, filters))
    torch.testing.assert_close(got, want)


def test_attention_without_its_table():
    torch.manual_seed(0)
    ours, theirs = MultiheadAttention(8, 2), nn.MultiheadAttention(8, 2, batch_first=True)
    for p in ours.parameters():
        nn.init.normal_(p)
    theirs.load_state_dict(ours.state_dict())
    ours, theirs = ours.double(), theirs.double()
    query, other = (noise(2, n, 8, dtype=torch.float64).requires_grad_() for n in (5, 9))
    got = gradients(lambda: ours(query, other, other)[0], (query, other, *ours.parameters()))
    want = gradients(lambda: theirs(query, other, other)[0], (query, other, *theirs.parameters()))
    torch.testing.assert_close(got, want)


def test_attention_fades_with_distance():
    torch.manual_seed(0)
    layer = LocalAttention(8).double()
    for p in (layer.query, layer.key):
        nn.init.zeros_(p.weight), nn.init.zeros_(p.bias)
    nn.init.constant_(layer.decay.bias, 2.0)
    x = noise(1, 8, 21, dtype=torch.float64).requires_grad_()
    layer(x)[0, :, 10].sum().backward()
    reach = (x.grad[0] - torch.eye(21, dtype=torch.float64)[10]).abs().sum(0)
    assert (reach[11:20] > reach[12:21]).all() and reach[20] < 1e-3 * reach[11]


def test_resampling():
    wav = noise(2, 2, 1001)
    assert change_rate(wav, 1, 2).shape[-1] == 2002 and change_rate(wav, 2, 1).shape[-1] == 500
    t = torch.arange(2000) / 8000
    tone = torch.sin(2 * torch.pi * 440 * t)[None, None]
    there = change_rate(change_rate(tone, 1, 2), 2, 1)
    assert (there - tone)[..., 100:-100].abs().max() < 1e-3


def test_rescaling_draws_weights_to_the_reference():
    torch.manual_seed(0)
    layer = nn.Sequential(nn.Conv2d(64, 64, (1, 8)))
    layer[0].weight.data *= 10
    before = float(layer[0].weight.detach().std())
    rescale(layer, 0.1)
    assert float(layer[0].weight.detach().std()) == pytest.approx(math.sqrt(before * 0.1), rel=1e-4)


def test_positions_are_told_apart():
    table = positions(100, 16, torch.zeros(1))
    apart = torch.cdist(table, table) + 10 * torch.eye(100)
    assert table.shape == (100, 16) and apart.min() > 0.1


def test_shifts_average_and_need_no_luck():
    network, mix = small("v2"), noise(1, 2, 900)
    one, four = Shifted(network, 1), Shifted(network, 4, seconds=0.005)
    assert (one.sources, one.sample_rate, one.channels) == (STEMS, 44100, 2)
    est = run(four, mix)
    assert est.shape == (1, 4, 2, 900) and torch.equal(est, run(four, mix))
    assert not torch.allclose(est, run(one, mix))


class Delay(nn.Module):
    """A separator that moves nothing."""

    sources, channels, sample_rate = ("a", "b"), 1, 1000

    def forward(self, mix):
        return torch.stack([mix, -mix], 1)


def test_shifts_put_everything_back():
    mix = noise(2, 1, 500)
    est = Shifted(Delay(), 5, seconds=0.1)(mix)
    torch.testing.assert_close(est, torch.stack([mix, -mix], 1))


def test_wrong_settings_are_named():
    with refused("branches"):
        Demucs(branches="all")
    with refused("power of two"):
        HDemucs(n_fft=1000)
    with refused("sources"):
        HTDemucs(())
    with refused("shifts"):
        Shifted(Delay(), 0)
    with refused("heads"):
        HTDemucs(bottom=20, heads=3)
