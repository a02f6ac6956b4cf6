"""What TasNet, Conv-TasNet, the dual-path RNN and SepFormer keep to alike.

What every network of the package keeps to is in test_networks.py; what is special to one, in its
own file.
"""

import copy

import pytest
import torch
from nets import noise, refused, run

from sepbook.engine.weights import translators
from sepbook.learner import Learner
from sepbook.models.conv_tasnet import ConvTasNet
from sepbook.models.dprnn import DPRNN
from sepbook.models.sepformer import SepFormer
from sepbook.models.tasnet import TasNet
from sepbook.separate import separate
from sepbook.zoo import import_weights, load, save

TCN = {"bottleneck": 12, "hidden": 20, "skip": 8, "blocks": 3, "repeats": 2}
SMALL = {
    "tasnet": (TasNet, {"stride": 16, "hidden": 12, "layers": 3}),
    "conv_tasnet": (ConvTasNet, TCN),
    "dprnn": (DPRNN, {"bottleneck": 12, "hidden": 8, "chunk": 10, "blocks": 2}),
    "sepformer": (SepFormer, {"chunk": 10, "layers": 1, "heads": 4, "hidden": 32}),
}
VARIANTS = [
    *((name, {}) for name in SMALL),
    ("tasnet", {"stride": 4}),
    ("tasnet", {"norm": "cLN"}),
    ("tasnet", {"norm": "gLN"}),
    ("tasnet", {"unit": False}),
    ("conv_tasnet", {"rescale": True}),
    *(("conv_tasnet", {"norm": norm}) for norm in ("cLN", "frame", "BN")),
    ("dprnn", {"norm": "frame"}),
    ("dprnn", {"edge": "whole"}),
    ("dprnn", {"head": "plain"}),
]
every_network = pytest.mark.parametrize("name", SMALL)
every_variant = pytest.mark.parametrize(("name", "how"), VARIANTS)


def small(name: str, **how) -> torch.nn.Module:
    """A small network, the same each time."""
    torch.manual_seed(0)
    kind, sizes = SMALL[name]
    return kind(**{"n_filters": 24, "kernel": 16} | sizes | how).eval()


@pytest.mark.parametrize("pad", [True, False])
@pytest.mark.parametrize("length", [1, 7, 8, 15, 16, 17, 100, 777])
@every_variant
def test_any_length(name, how, length, pad):
    est = run(small(name, pad=pad, **how), noise(3, 1, length))
    assert est.shape == (3, 2, 1, length) and est.isfinite().all()


@pytest.mark.parametrize("objective", ["si_sdr", "snr"])
@every_variant
def test_silence_gives_silence_and_finite_gradients(name, how, objective):
    network, mix = small(name, objective=objective, **how), torch.zeros(1, 1, 300)
    assert run(network, mix).abs().max() == 0
    mix.requires_grad_()
    network.train().loss(mix, torch.zeros(1, 2, 1, 300)).backward()
    given = [mix.grad, *(p.grad for p in network.parameters() if p.grad is not None)]
    assert all(g.isfinite().all() for g in given)


LEVEL_FREE = [v for v in VARIANTS if v[1] not in ({"norm": "BN"}, {"unit": False})]


@pytest.mark.parametrize("factor", [8, 1e3])
@pytest.mark.parametrize(("name", "how"), LEVEL_FREE)  # the others hear how loud it is
def test_level_scales_through(name, how, factor):
    network, mix = small(name, **how), noise(1, 1, 800)
    got, want = run(network, factor * mix) / factor, run(network, mix)
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


@every_network
def test_rescaled_estimates_explain_the_mixture_as_well_as_they_can(name):
    plain, mix = small(name), noise(2, 1, 800)
    with torch.no_grad():
        plain.decoder *= -50  # upside down and too loud: SI-SDR does not care
    est, got = run(plain, mix), run(small(name, rescale=True), mix)
    again = small(name, rescale=True)
    again.load_state_dict(plain.state_dict())
    torch.testing.assert_close(run(again, mix), got, rtol=1e-4, atol=1e-6)
    assert ((got * mix[:, None]).sum(-1) > 0).all() and got.abs().max() < est.abs().max() / 3
    torch.testing.assert_close(
        (got * (mix[:, None] - got)).sum(-1), torch.zeros(2, 2, 1), rtol=0, atol=1e-2
    )


@every_variant
def test_items_of_a_batch_are_alone(name, how):
    network, mix = small(name, **how), noise(4, 1, 500)
    alone = torch.cat([run(network, one[None]) for one in mix])
    torch.testing.assert_close(run(network, mix), alone, rtol=1e-4, atol=1e-6)


@every_variant
def test_other_precisions(name, how):
    network, mix = small(name, **how), noise(2, 1, 500)
    want = run(network, mix)
    wide = run(copy.deepcopy(network).double(), mix.double())
    torch.testing.assert_close(wide.float(), want, rtol=1e-4, atol=1e-5)
    for kind, part in ((torch.bfloat16, 0.1), (torch.float16, 0.02)):
        narrow = run(copy.deepcopy(network).to(kind), mix.to(kind))
        error = (narrow.float() - want).abs().max()
        assert narrow.dtype == kind and error < part * want.abs().max()


@every_variant
def test_mixed_precision_trains_on_the_cpu(name, how):
    network, mix = small(name, **how), noise(1, 1, 500)
    want = run(network, mix)
    with torch.autocast("cpu", torch.bfloat16):
        est = network(mix)
        loss = network.train().loss(mix, noise(1, 2, 1, 500, seed=1))
    loss.backward()
    assert loss.isfinite() and (est.float() - want).abs().max() < 0.1 * want.abs().max()
    assert all(p.grad is None or p.grad.isfinite().all() for p in network.parameters())


@pytest.mark.parametrize(
    ("mix", "words"),
    [
        (noise(1, 2, 100), "2 channels"),
        (noise(1, 100), "batch, channel, time"),
        (noise(1, 1, 0), "shape"),
        (noise(0, 1, 100), "shape"),
        (noise(1, 1, 100) * torch.nan, "NaN"),
        (noise(1, 1, 100).double(), "float64"),
        (noise(1, 1, 100).half(), "float16"),
        (torch.ones(1, 1, 100, dtype=torch.int16), "floating-point"),
    ],
)
@every_network
def test_bad_input_is_refused_in_one_line(name, mix, words):
    with refused(words):
        small(name)(mix)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"mask": "tanh"}, "sigmoid"),
        ({"encoder": "tanh"}, "linear"),
        ({"objective": "mse"}, "si_sdr"),
    ],
)
@every_network
def test_bad_settings_are_refused_in_one_line(name, how, words):
    with refused(words):
        small(name, **how)


@every_network
def test_foreign_weights_that_do_not_fit(name):
    network = small(name)
    for peer in translators(network):
        for state in ({"a": torch.ones(3)}, network.state_dict()):
            with refused(peer):
                import_weights(network, state, peer)
    with refused("openunmix"):
        import_weights(network, {"a": torch.ones(3)}, "openunmix")


@every_network
def test_saves_loads_and_learns(name, tmp_path):
    network = small(name, n_src=3, objective="snr")
    save(network, tmp_path / "net.safetensors", {"data": "noise"})
    again = load(tmp_path / "net.safetensors")
    assert again.config == network.config and again.sources == ("s1", "s2", "s3")
    mix = noise(1, 1, 300)
    torch.testing.assert_close(run(again, mix), run(network, mix))
    before = copy.deepcopy(network.state_dict())
    data = list(zip(noise(4, 1, 300), noise(4, 3, 1, 300, seed=1)))
    log = Learner(network, data, batch_size=2).fit(steps=2, progress=False)
    assert log.loss.notna().any()
    moved = {n for n, p in network.named_parameters() if not torch.equal(p, before[n])}
    unused = {"blocks.5.out.weight", "blocks.5.out.bias"} if name == "conv_tasnet" else set()
    assert moved >= {n for n, p in network.named_parameters()} - unused


@every_network
def test_long_recordings_in_pieces(name):
    est = separate(small(name), noise(1, 8000 * 6), segment=2.0, progress=False)
    assert est.shape == (2, 1, 48_000) and est.isfinite().all()
