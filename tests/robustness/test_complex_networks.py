"""Complex networks: arithmetic, bounds, silence, streams, and settings that can't be."""

import re
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from nets import check_precisions, check_stream, noise, refused, run

from sepbook.engine.show import draw_network
from sepbook.models.complex_networks import (
    BOUNDS,
    DCCRN,
    DCUNET_SIZES,
    MASKINGS,
    NORMS,
    OBJECTIVES,
    PHASEN,
    ComplexBatchNorm,
    ComplexConv2d,
    ComplexConvTranspose2d,
    ComplexLSTM,
    CoveringSTFT,
    DCUNet,
    compressed_mse,
    joined,
    polar_bound,
    stacked,
    unstacked,
    weighted_sdr,
)

SMALL_CRN = {"widths": (3, 4, 5), "hidden": 6, "n_fft": 64, "win_length": 50, "hop": 13}
SMALL_U = {"layers": ((4, 7, 5, 2, 2), (6, 5, 3, 2, 1), (6, 5, 3, 2, 2)), "n_fft": 64, "hop": 16}
SMALL_P = {"loud": 4, "turn": 3, "blocks": 1, "hidden": 6, "n_fft": 64, "win_length": 50, "hop": 20}
KINDS = {"dcunet": (DCUNet, SMALL_U), "dccrn": (DCCRN, SMALL_CRN), "phasen": (PHASEN, SMALL_P)}
VARIANTS = [
    *((name, {}) for name in KINDS),
    *(("dcunet", {"bound": bound}) for bound in BOUNDS),
    *(("dccrn", {"mask": mask}) for mask in MASKINGS),
    *((name, {"norm": "whiten"}) for name in ("dcunet", "dccrn")),
    ("dccrn", {"look_ahead": False}),
    ("dccrn", {"variant": "asteroid"}),
    *((name, {"sources": ("a", "b", "rest")}) for name in KINDS),
    *((name, {"sources": ("speech",)}) for name in KINDS),
]
every_variant = pytest.mark.parametrize(("name", "how"), VARIANTS)


def small(name: str, warm: bool = True, **how) -> torch.nn.Module:
    """A small network whose running statistics have seen noise."""
    torch.manual_seed(0)
    kind, sizes = KINDS[name]
    network = kind(**sizes | how)
    if warm:
        for seed in range(3):
            run(network.train(), noise(2, 1, 1500, seed=seed))
    return network.eval()


def complex_noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.complex(noise(*shape, seed=seed), noise(*shape, seed=seed + 1))


# Arithmetic


@pytest.mark.parametrize("bias", [True, False])
def test_convolutions_are_pytorchs_complex_ones(bias):
    z = complex_noise(2, 3, 9, 8)
    conv = ComplexConv2d(3, 4, (5, 3), (2, 1), (2, 1), bias)
    up = ComplexConvTranspose2d(3, 4, (5, 3), (2, 1), (2, 1), (1, 0), bias)
    for layer, f, how in (
        (conv, F.conv2d, ((2, 1), (2, 1))),
        (up, F.conv_transpose2d, ((2, 1), (2, 1), (1, 0))),
    ):
        shift = None
        if bias:
            torch.nn.init.normal_(layer.bias)
            shift = torch.complex(*layer.bias.detach().chunk(2))
        want = f(z, torch.complex(layer.real, layer.imag), shift, *how)
        torch.testing.assert_close(unstacked(layer(stacked(z))), want, rtol=1e-5, atol=1e-5)


def test_stacking_is_undone_and_joins_parts():
    z, w = complex_noise(2, 3, 4, 5), complex_noise(2, 2, 4, 5, seed=3)
    torch.testing.assert_close(unstacked(stacked(z)), z)
    torch.testing.assert_close(unstacked(joined(stacked(z), stacked(w))), torch.cat([z, w], 1))


def test_turning_the_input_turns_the_output():
    """Without biases a complex convolution commutes with a phase; a part-wise norm doesn't."""
    z, turn = complex_noise(1, 2, 9, 8), torch.polar(torch.tensor(1.0), torch.tensor(0.7))
    conv = ComplexConv2d(2, 3, (3, 3), bias=False)
    a, b = (unstacked(conv(stacked(x))) for x in (z * turn, z))
    torch.testing.assert_close(a, b * turn, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("channels", [1, 3])
def test_whitened_parts_are_uncorrelated(channels):
    norm = ComplexBatchNorm(channels)
    mixed = torch.tensor([[2.0, 0.5], [1.5, 1.0]])
    parts = torch.einsum("qp, pcbft -> qcbft", mixed, noise(2, channels, 4, 8, 9)) + 3
    x = parts.permute(2, 0, 1, 3, 4).reshape(4, 2 * channels, 8, 9)
    y = norm.train()(x).reshape(4, 2, channels, -1).permute(2, 1, 0, 3).flatten(2)
    torch.testing.assert_close(y.mean(-1), torch.zeros(channels, 2), rtol=0, atol=1e-5)
    cov = y @ y.mT / y.shape[-1]
    torch.testing.assert_close(cov, torch.eye(2).expand(channels, 2, 2) / 2, rtol=0, atol=1e-4)
    for _ in range(200):
        norm(x)
    torch.testing.assert_close(norm.eval()(x), norm.train()(x), rtol=1e-3, atol=1e-3)
    assert norm.num_batches_tracked == 202


def test_whitening_survives_parts_that_are_alike_or_silent():
    for x in (noise(2, 1, 5, 6).repeat(1, 2, 1, 1), torch.zeros(2, 2, 5, 6)):
        norm, x = ComplexBatchNorm(1), x.requires_grad_()
        y = norm(x)
        y.square().sum().backward()
        assert y.isfinite().all() and x.grad.isfinite().all()


def test_complex_lstm_against_four_plain_ones():
    net, x = ComplexLSTM(3, 5), noise(2, 4, 7, 3)
    (rr, ri), (ir, ii) = ([part(z)[0] for z in x] for part in (net.real, net.imag))
    torch.testing.assert_close(net(x), torch.stack([rr - ii, ri + ir]), rtol=1e-5, atol=1e-6)


# Masks and losses


def test_bounds():
    mask = 3 * complex_noise(100)
    polar, parts = BOUNDS["polar"](mask), BOUNDS["parts"](mask)
    assert polar.abs().max() < 1.00001 and parts.real.abs().max() <= 1 < parts.abs().max()
    torch.testing.assert_close(polar.angle(), mask.angle(), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(polar.abs(), mask.abs().tanh(), rtol=1e-4, atol=1e-5)
    assert BOUNDS["none"](mask) is mask


def test_a_mask_of_zero_has_gradients():
    part = torch.zeros(5, requires_grad=True)
    polar_bound(torch.complex(part, part)).real.sum().backward()
    torch.testing.assert_close(part.grad, torch.ones(5), rtol=1e-4, atol=1e-4)


def test_weighted_sdr():
    src, rest = noise(3, 500), noise(3, 500, seed=1)
    assert (weighted_sdr(src, src, src + rest) + 1).abs().max() < 1e-5
    assert (weighted_sdr(-src, src, src + rest) > -0.5).all()
    silent = torch.zeros(3, 500)
    assert weighted_sdr(silent, silent, silent).isfinite().all()
    # where the speech is silent, all that counts is that the noise stays noise
    assert (weighted_sdr(silent, silent, rest) + 1).abs().max() < 1e-5


def test_compressed_mse():
    src = complex_noise(2, 9, 8)
    turned = src * torch.polar(torch.tensor(1.0), torch.tensor(1.0))
    assert compressed_mse(src, src) == 0
    assert compressed_mse(turned, src, share=0.0) < 1e-9 < compressed_mse(turned, src)
    want = (src.abs() ** 0.3 * torch.sgn(src) - turned.abs() ** 0.3 * torch.sgn(turned)).abs()
    torch.testing.assert_close(compressed_mse(turned, src, share=1.0), want.square().mean())
    est = torch.zeros(4, dtype=torch.complex64, requires_grad=True)
    compressed_mse(est, torch.zeros(4, dtype=torch.complex64)).backward()
    assert est.grad.isfinite().all()


@pytest.mark.parametrize("length", [1, 13, 49, 50, 51, 1000])
@pytest.mark.parametrize(("n_fft", "win", "hop"), [(64, 50, 13), (64, 64, 16), (60, 41, 20)])
def test_the_stft_covers_all(n_fft, win, hop, length):
    transform = CoveringSTFT(n_fft, hop, win)
    wav = noise(2, length)
    spec = transform(wav)
    assert spec.shape[-1] == (length - 1 + win - hop) // hop + 1
    torch.testing.assert_close(transform.inverse(spec, length), wav, rtol=1e-4, atol=1e-5)


# Networks


def test_parameter_counts():
    want = {"DCUNet-10": 1_421_890, "DCUNet-16": 2_375_490, "DCUNet-20": 3_527_850}
    want["Large-DCUNet-20"] = 7_662_304
    with torch.device("meta"):
        assert {name: DCUNet(**how).n_params for name, how in DCUNET_SIZES.items()} == want
        assert DCUNet().n_params == want["DCUNet-20"]
        assert DCCRN().n_params == 3_671_053
        assert DCCRN(variant="asteroid").n_params == 3_669_336


@pytest.mark.parametrize("length", [1, 12, 13, 50, 777])
@every_variant
def test_any_length(name, how, length):
    network = small(name, warm=False, **how)
    est = run(network, noise(3, 1, length))
    assert est.shape == (3, len(network.sources), 1, length) and est.isfinite().all()


@every_variant
def test_what_the_masks_leave_is_the_last_source(name, how):
    network, mix = small(name, **how), noise(2, 1, 500)
    if len(network.sources) > 1:
        torch.testing.assert_close(run(network, mix).sum(1), mix, rtol=1e-4, atol=1e-5)
    items = torch.cat([run(network, one[None]) for one in mix])
    torch.testing.assert_close(run(network, mix), items, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("objective", OBJECTIVES)
@every_variant
def test_every_parameter_learns_and_silence_is_safe(name, how, objective):
    network = small(name, warm=False, objective=objective, **how).train()
    for level in (0.0, 1.0):
        mix, src = level * noise(2, 1, 500), level * noise(2, len(network.sources), 1, 500, seed=1)
        network.zero_grad()
        network.loss(mix, src).backward()
        for key, p in network.named_parameters():
            assert p.grad.isfinite().all(), key
            assert level == 0 or p.grad.abs().max() > 0, key


@every_variant
def test_other_precisions(name, how):
    check_precisions(small(name, **how), noise(2, 1, 500))


@pytest.mark.parametrize("block", [1, 13, 50, 200, 3000])
@pytest.mark.parametrize("how", [{}, {"look_ahead": False}, {"norm": "whiten"}, {"mask": "R"}])
def test_stream_equals_recording(how, block):
    network = small("dccrn", **how)
    check_stream(network, noise(2, 1, 1503), block, latency=50 + 13 * network.ahead)


@pytest.mark.parametrize(("look_ahead", "frames"), [(True, 3), (False, 0)])
def test_how_far_it_looks_ahead(look_ahead, frames):
    network = small("dccrn", look_ahead=look_ahead)
    mix = noise(1, 1, 1000).requires_grad_()
    reach = []
    for t in range(500, 513):
        (grad,) = torch.autograd.grad(network(mix)[0, 0, 0, t], mix)
        reach.append(int(grad[0, 0].abs().gt(1e-12).nonzero().max()) - t)
    latency = network.stream().latency
    assert network.ahead == frames and latency - 3 <= max(reach) < latency


def test_waiting_is_what_looking_ahead_is_from_later():
    """The published form: every layer of the way up drops its first frame, and no skip waits."""
    network, spec = small("dccrn"), complex_noise(1, 33, 20)
    padded, seen = F.pad(spec, (0, network.ahead)), []
    x = stacked(padded[:, None, 1:])
    with torch.no_grad():
        for block in network.down:
            x = block(F.pad(x, (1, 0)))
            seen.append(x)
        x = network.recurrent(x)
        for layer in network.up:
            x = layer.conv(joined(x, seen.pop()))[..., 1:]
        got = network.masks(padded)[..., network.ahead :]
    want = unstacked(F.pad(x, (0, 0, 1, 0)))[..., : spec.shape[-1]]
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-6)


def test_streams_refuse_in_one_line():
    for network in (small("dcunet"), small("phasen"), small("dccrn", variant="asteroid")):
        with refused("causal"):
            network.stream()
    stream = small("dccrn").stream()
    with refused("nothing was streamed"):
        stream.flush()
    with refused("channels"):
        stream(noise(1, 2, 100))


@pytest.mark.parametrize(
    ("kind", "how", "words"),
    [
        (DCUNet, {"bound": "tanh"}, "polar"),
        (DCUNet, {"norm": "BN"}, "whiten"),
        (DCUNet, {"n_fft": 1000}, "multiple of 512"),
        (DCUNet, {"up": (3,)}, "one less"),
        (DCUNet, {"hop": 600}, "hop"),
        (DCCRN, {"mask": "D"}, "one of E"),
        (DCCRN, {"n_fft": 500}, "multiple of 128"),
        (DCCRN, {"win_length": 513}, "win_length"),
        (DCCRN, {"variant": "espnet"}, "authors"),
        (DCCRN, {"variant": "asteroid", "look_ahead": False}, "authors"),
        (PHASEN, {"objective": "mse"}, "si_sdr"),
        (PHASEN, {"sources": ()}, "source"),
    ],
)
def test_bad_settings_are_refused_in_one_line(kind, how, words):
    with refused(words):
        kind(**how)


def test_norms_are_known():
    assert set(NORMS) == {"parts", "whiten"}


@pytest.mark.parametrize(("dtype", "near"), [(torch.float64, 1e-12), (torch.bfloat16, 0.1)])
def test_stream_in_other_precisions(dtype, near):
    network, mix = small("dccrn").to(dtype), noise(2, 1, 300).to(dtype)
    stream = network.stream()
    est = torch.cat([*(stream(piece) for piece in mix.split(40, -1)), stream.flush()], -1)
    assert est.dtype == dtype and est.shape == (2, 2, 1, 300)
    torch.testing.assert_close(est, run(network, mix), rtol=near, atol=near)


def test_no_label_is_printed_over_another():
    drawing = draw_network(small("dccrn"), noise(1, 1, 500), shape="U")._repr_svg_()
    spots = re.findall(r'<text x="([\d.]+)" y="([\d.]+)"[^>]*>([^<]+)', drawing)
    spots = sorted((float(y), float(x), text) for x, y, text in set(spots))
    assert len(spots) > 20
    for (y, x, text), (below, right, other) in pairwise(spots):
        assert below - y > 8 or abs(right - x) > 40, (text, other)
