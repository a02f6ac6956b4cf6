"""FullSubNet: lengths, levels, silence, streams, and settings that can't be."""

import pytest
import torch
from nets import check_precisions, check_stream, noise, refused, run

from sepbook.masks import complex_ratio_mask
from sepbook.models.fullsubnet import (
    ChannelAttention,
    FullSubNet,
    FullSubNetPlus,
    LaplaceNorm,
    TCNBlock,
    chosen_bands,
    compress,
    decompress,
    neighbourhoods,
)

SIZES = {"full_hidden": 8, "sub_hidden": 6, "neighbours": 3, "n_fft": 64, "hop": 32}
VARIANTS = [
    (FullSubNet, {}),
    (FullSubNet, {"norm": "cumulative"}),
    (FullSubNet, {"look_ahead": 0, "neighbours": 0}),
    (FullSubNet, {"sources": ("speech",)}),
    (FullSubNet, {"sources": ("a", "b", "rest")}),
    (FullSubNetPlus, {}),
    (FullSubNetPlus, {"sources": ("a", "b", "rest")}),
]
every_variant = pytest.mark.parametrize(("kind", "how"), VARIANTS)


def small(kind, **how) -> torch.nn.Module:
    """A small network, the same each time."""
    torch.manual_seed(0)
    return kind(**SIZES | how).eval()


def test_parameter_counts():
    count = lambda module: sum(p.numel() for p in module.parameters())
    with torch.device("meta"):
        network, plus = FullSubNet(), FullSubNetPlus()
    assert (count(network.full), count(network.sub)) == (3_812_097, 1_825_538)
    assert network.n_params == 5_637_635 and plus.n_params == 8_675_102
    assert [count(net) for net in plus.full] == [2_210_586] * 3
    assert [count(net) for net in plus.attention] == [71_578] * 3


def test_compression_is_undone_up_to_the_clip():
    mask = torch.linspace(-60, 60, 400, dtype=torch.float64)
    inside = mask.abs() < 52.9
    back = decompress(compress(mask))
    torch.testing.assert_close(back[inside], mask[inside])
    edge = decompress(torch.tensor([-20.0, 20.0]))
    torch.testing.assert_close(
        edge, torch.tensor([-1.0, 1.0]) * 10 * torch.log(torch.tensor(199.0))
    )
    plain = 10 * (1 - torch.exp(-0.1 * mask)) / (1 + torch.exp(-0.1 * mask))
    torch.testing.assert_close(compress(mask), plain)
    assert compress(torch.tensor([1e30, -1e30])).tolist() == [10.0, -10.0]


def test_neighbours_are_mirrored():
    mag = torch.arange(6.0).view(1, 6, 1)
    seen = neighbourhoods(mag, 2)[0, :, 0]
    assert seen.shape == (6, 5) and seen[3].tolist() == [1, 2, 3, 4, 5]
    assert seen[0].tolist() == [2, 1, 0, 1, 2] and seen[5].tolist() == [3, 4, 5, 4, 3]


@pytest.mark.parametrize("rows", [(), (5,)])
def test_cumulative_norm_against_a_loop(rows):
    x = noise(2, *rows, 4, 9, dtype=torch.float64).abs() + 0.1
    want = [x[..., t] / x[..., : t + 1].mean((-2, -1))[..., None] for t in range(9)]
    torch.testing.assert_close(LaplaceNorm("cumulative")(x), torch.stack(want, -1))
    whole = x / x.flatten(1).mean(1).view(-1, *[1] * (x.ndim - 1))
    torch.testing.assert_close(LaplaceNorm("offline")(x), whole)


def test_bands_that_are_chosen():
    bands = chosen_bands(5, 9, 2)
    assert bands.shape == (5, 4)
    assert bands[0].tolist() == [0, 2, 4, 6] and bands[3].tolist() == [1, 3, 5, 7]
    assert chosen_bands(2, 9, 1).tolist() == [list(range(9))] * 2


@pytest.mark.parametrize("batch", [1, 2, 3, 5])
@pytest.mark.parametrize("kind", [FullSubNet, FullSubNetPlus])
def test_dropped_bands_train_the_same_masks(kind, batch):
    """In training the loss is that of the chosen bands; in use no band is ever missing."""
    network = small(kind)
    mix, src = noise(batch, 1, 500), noise(batch, 2, 1, 500, seed=1)
    spec, true = network.spectrum(mix[:, 0]), network.spectrum(src[:, 0, 0])
    got = network.compressed(torch.nn.functional.pad(spec, (0, 2)))[:, 0, :, 2:]
    ideal = complex_ratio_mask(true[:, None, None], spec[:, None])[:, 0, 0]
    want = compress(torch.stack([ideal.real, ideal.imag], -1))
    error = (got - want).square().mean((2, 3))
    torch.testing.assert_close(network.loss(mix, src), error.mean())
    some = torch.stack([row[k % 2 :: 2][:16].mean() for k, row in enumerate(error)]).mean()
    torch.testing.assert_close(network.train().loss(mix, src), some)
    assert run(network.eval(), mix).shape == (batch, 2, 1, 500)


@pytest.mark.parametrize("length", [1, 31, 32, 33, 64, 777])
@every_variant
def test_any_length(kind, how, length):
    network = small(kind, **how)
    est = run(network, noise(3, 1, length))
    assert est.shape == (3, len(network.sources), 1, length) and est.isfinite().all()
    if len(network.sources) > 1:
        torch.testing.assert_close(est.sum(1), noise(3, 1, length), rtol=1e-4, atol=1e-5)


@every_variant
def test_items_of_a_batch_are_alone(kind, how):
    network, mix = small(kind, **how), noise(4, 1, 500)
    alone = torch.cat([run(network, one[None]) for one in mix])
    torch.testing.assert_close(run(network, mix), alone, rtol=1e-3, atol=1e-4)


@every_variant
def test_silence_and_gradients(kind, how):
    network = small(kind, **how).train()
    n = len(network.sources)
    assert run(network, torch.zeros(1, 1, 300)).abs().max() == 0
    for level in (0.0, 1.0):
        network.zero_grad()
        network.loss(level * noise(3, 1, 900), level * noise(3, n, 1, 900, seed=1)).backward()
        for name, p in network.named_parameters():
            assert p.grad.isfinite().all(), name
            assert level == 0 or p.grad.abs().max() > 0, name


@every_variant
def test_other_precisions(kind, how):
    check_precisions(small(kind, **how), noise(2, 1, 500))


@pytest.mark.parametrize("factor", [1e-3, 1e3])
def test_plus_is_free_of_level(factor):
    network, mix = small(FullSubNetPlus), noise(1, 1, 900)
    got, want = run(network, factor * mix) / factor, run(network, mix)
    torch.testing.assert_close(got, want, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("block", [1, 32, 50, 3000])
@pytest.mark.parametrize("look_ahead", [0, 2, 5])
def test_stream_equals_recording(look_ahead, block):
    network = small(FullSubNet, norm="cumulative", look_ahead=look_ahead)
    check_stream(network, noise(2, 1, 1503), block, latency=64 + 32 * look_ahead)


def test_what_looks_at_the_future_does_not_stream():
    for network in (small(FullSubNet), small(FullSubNetPlus)):
        with refused("causal"):
            network.stream()


def test_how_far_it_looks_ahead():
    network, mix = small(FullSubNet, norm="cumulative"), noise(1, 1, 1500)
    other = mix.clone()
    other[..., 1000:] = 0
    change = (run(network, mix) - run(network, other))[0, 0, 0]
    first = int((change != 0).nonzero().min())
    assert 1000 - 128 < first <= 1000 - 64


def test_attention_of_short_recordings():
    attention = ChannelAttention(5)
    for frames in (1, 3, 9, 10, 40):
        y = attention(noise(2, 5, frames))
        assert y.shape == (2, 5, frames) and y.isfinite().all()


def test_a_block_adds_to_its_input():
    block, x = TCNBlock(5, 8, 9), noise(2, 30, 5)
    torch.nn.init.zeros_(block.out.weight), torch.nn.init.zeros_(block.out.bias)
    torch.testing.assert_close(block(x), x)


@pytest.mark.parametrize(
    ("kind", "how", "words"),
    [
        (FullSubNet, {"norm": "gaussian"}, "offline"),
        (FullSubNet, {"neighbours": 257}, "neighbours"),
        (FullSubNet, {"look_ahead": -1}, "look_ahead"),
        (FullSubNet, {"drop": 0}, "drop"),
        (FullSubNetPlus, {"signed": "rms"}, "size"),
        (FullSubNetPlus, {"hop": 512}, "hop"),
    ],
)
def test_bad_settings_are_refused_in_one_line(kind, how, words):
    with refused(words):
        kind(**how)
