"""Mask networks on inputs that are short, silent, loud, broken, or of an unusual kind."""

import pytest
import torch

from sepbook.models.mask_networks import (
    FeedForwardMask,
    OpenUnmix,
    RecurrentMask,
    discriminative_loss,
    em_step,
    features,
    input_statistics,
    joint_mask,
    umxhq,
    umxl,
    wiener_em,
)

SMALL = {"n_fft": 256, "hop": 64}
MAKERS = {
    "feed-forward": lambda **k: FeedForwardMask(context=5, hidden=16, **(SMALL | k)),
    "feed-forward, averaged": lambda **k: FeedForwardMask(6, 4, 16, 1, **(SMALL | k)),
    "feed-forward, binary": lambda **k: FeedForwardMask(3, hidden=16, threshold=0.3, **(SMALL | k)),
    "recurrent": lambda **k: RecurrentMask(hidden=16, **(SMALL | k)),
    "recurrent, all layers": lambda **k: RecurrentMask(hidden=16, recurrent=0, **(SMALL | k)),
    "open-unmix": lambda **k: OpenUnmix(hidden=16, n_layers=2, **(SMALL | k)),
    "open-unmix, residual": lambda **k: OpenUnmix(hidden=16, residual=True, **(SMALL | k)),
    "open-unmix, no filter": lambda **k: OpenUnmix(hidden=16, n_iter=0, **(SMALL | k)),
}
every = pytest.mark.parametrize("name", MAKERS)


@pytest.fixture(autouse=True)
def one_seed():
    torch.manual_seed(0)


@every
@pytest.mark.parametrize("length", [1, 2, 63, 64, 128, 129, 1000, 4097])
@torch.no_grad()
def test_any_length(name, length):
    net = MAKERS[name]().eval()
    est = net(0.1 * torch.randn(1, 2, length))
    assert est.shape == (1, len(net.sources), 2, length) and est.isfinite().all()


@every
@pytest.mark.parametrize("level", [0.0, 1e-30, 1e-6, 1.0, 1e4])
@torch.no_grad()
def test_any_level(name, level):
    est = MAKERS[name]().eval()(level * torch.randn(2, 2, 700))
    assert est.isfinite().all()
    assert level or (est == 0).all()


@pytest.mark.parametrize("name", ["feed-forward", "recurrent"])
@torch.no_grad()
def test_volume_does_not_matter(name):
    net, mix = MAKERS[name]().eval(), torch.randn(1, 2, 2000)
    torch.testing.assert_close(net(0.01 * mix), 0.01 * net(mix), atol=1e-6, rtol=1e-4)


@every
@torch.no_grad()
def test_items_of_a_batch_do_not_touch(name):
    net, mix = MAKERS[name]().eval(), 0.3 * torch.randn(3, 2, 1500)
    alone = torch.cat([net(item[None]) for item in mix])
    torch.testing.assert_close(net(mix), alone, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("name", [n for n in MAKERS if "no filter" not in n and "binary" not in n])
@torch.no_grad()
def test_estimates_add_up(name):
    mix = 0.3 * torch.randn(1, 2, 3000)
    torch.testing.assert_close(MAKERS[name]().eval()(mix).sum(1), mix, atol=2e-3, rtol=0)


@every
@torch.no_grad()
def test_double_precision(name):
    net, mix = MAKERS[name]().eval(), 0.3 * torch.randn(1, 2, 900)
    est = net.double()(mix.double())
    assert est.dtype == torch.float64
    if "binary" not in name:
        torch.testing.assert_close(est.float(), net.float()(mix), atol=1e-3, rtol=0)


@every
def test_refuses_what_is_not_a_mixture(name):
    net = MAKERS[name]().eval()
    for bad, words in {
        "3 channels": (torch.zeros(1, 3, 500), "channels"),
        "no batch": (torch.zeros(2, 500), r"mix\[None\]"),
        "no samples": (torch.zeros(1, 2, 0), "shape"),
        "NaN": (torch.full((1, 2, 500), torch.nan), "NaN"),
    }.values():
        with pytest.raises(ValueError, match=words) as error:
            net(bad)
        assert "\n" not in str(error.value)
    with pytest.raises(TypeError):
        net(torch.zeros(1, 2, 500, dtype=torch.int16))


@every
def test_gradients_reach_every_weight_and_the_mixture(name):
    net = MAKERS[name]().train()
    mix = (0.3 * torch.randn(2, 2, 2000)).requires_grad_()
    src = 0.1 * torch.randn(2, len(net.sources), 2, 2000)
    net.loss(mix, src).backward()
    for key, weight in [("mix", mix), *net.named_parameters()]:
        assert weight.grad is not None and weight.grad.isfinite().all(), key
        assert weight.grad.abs().sum() > 0, key


@every
def test_training_on_silence_stays_finite(name):
    net, optimizer = MAKERS[name]().train(), None
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(3):
        optimizer.zero_grad()
        loss = net.loss(torch.zeros(2, 2, 800), torch.zeros(2, len(net.sources), 2, 800))
        loss.backward()
        optimizer.step()
        assert loss.isfinite() and all(p.isfinite().all() for p in net.parameters())


@pytest.mark.parametrize("name", ["open-unmix", "open-unmix, residual"])
def test_gradients_pass_the_wiener_filter(name):
    net, mix = MAKERS[name]().train(), 0.3 * torch.randn(1, 2, 2000)
    net(mix).square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
    mix = torch.cat([mix, torch.zeros_like(mix)], -1)  # with silence
    net.zero_grad()
    net(mix).square().mean().backward()
    assert all(p.grad.isfinite().all() for p in net.parameters())


@every
@pytest.mark.parametrize("channels", [1, 3])
@torch.no_grad()
def test_other_channel_counts(name, channels):
    est = MAKERS[name](channels=channels).eval()(torch.randn(2, channels, 1000))
    assert est.shape[2:] == (channels, 1000) and est.isfinite().all()


@every
@torch.no_grad()
def test_config_makes_the_same_network(name):
    net = MAKERS[name]()
    twin = type(net)(**net.config)
    twin.load_state_dict(net.state_dict())
    mix = torch.randn(1, 2, 1000)
    assert torch.equal(net.eval()(mix), twin.eval()(mix))


def test_two_sources_need_one_probability():
    net = FeedForwardMask(5, hidden=8, sources=("vocals", "rest"), **SMALL)
    assert net.head.out_channels == 129
    mag = torch.rand(1, 2, 129, 7)
    torch.testing.assert_close(net.masks(mag).sum(1), torch.ones(1, 2, 129, 7))


def test_one_source_is_not_filtered():
    """One estimate that explains all of the mixture would be the mixture."""
    net = OpenUnmix(("vocals",), hidden=8, **SMALL).eval()
    mix = torch.randn(1, 2, 2000)
    assert (net(mix)[:, 0] - mix).abs().max() > 0.1


def test_input_statistics():
    items = [3 + 2 * torch.randn(2, 5, 4000), 3 + 2 * torch.randn(2, 5, 100)]
    items = [x[:1].expand(2, -1, -1) for x in items]
    mean, std = input_statistics(iter(items))
    x = torch.cat([x[0] for x in items], -1).double()
    torch.testing.assert_close(mean, x.mean(-1))
    torch.testing.assert_close(std, x.std(-1, correction=0))
    assert (input_statistics([torch.zeros(2, 5, 10)])[1] > 0).all()
    with pytest.raises(ValueError, match="no mixtures"):
        input_statistics([])


@every
@torch.no_grad()
def test_fit_input(name):
    net = MAKERS[name]()
    before = {k: v.clone() for k, v in net.state_dict().items() if "input" in k}
    assert net.fit_input([torch.randn(2, 5000), torch.randn(2, 777)]) is net
    after = net.state_dict()
    assert before and all(
        (after[k] != v).any() and after[k].isfinite().all() for k, v in before.items()
    )


def test_features_do_not_care_about_volume():
    mag = torch.rand(2, 1, 9, 7) + 0.1
    torch.testing.assert_close(features(50 * mag), features(mag), atol=1e-5, rtol=0)
    assert features(torch.zeros(1, 1, 4, 4)).isfinite().all()


def test_joint_mask_and_loss():
    y = torch.randn(2, 3, 5)
    mask = joint_mask(y)
    torch.testing.assert_close(mask.sum(1), torch.ones(2, 5))
    torch.testing.assert_close(joint_mask(-1e4 * y), mask, atol=1e-4, rtol=0)
    est, src = torch.rand(2, 2, 6), torch.rand(2, 2, 6)
    want = sum(
        (est[:, j] - src[:, j]).square().mean() - 0.1 * (est[:, j] - src[:, 1 - j]).square().mean()
        for j in (0, 1)
    )
    torch.testing.assert_close(discriminative_loss(est, src, 0.1), want / 2)


@pytest.mark.parametrize(
    "bad",
    [{"context": 0}, {"n_out": 12}, {"n_out": 0}, {"target": "phase"}, {"sources": ("voice",)}],
)
def test_feed_forward_settings(bad):
    with pytest.raises(ValueError, match=rf"{next(iter(bad))}.*must be") as error:
        FeedForwardMask(**bad)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "bad", [{"recurrent": 1}, {"recurrent": 4}, {"gamma": 1.0}, {"context": 0}]
)
def test_recurrent_settings(bad):
    with pytest.raises(ValueError, match=rf"{next(iter(bad))} is .*must be"):
        RecurrentMask(**bad)


@pytest.mark.parametrize("bad", [{"hop": 3000}, {"hop": 0}, {"sources": ()}, {"channels": 0}])
def test_spectrum_settings(bad):
    with pytest.raises(ValueError, match=rf"{next(iter(bad))}.*must be"):
        OpenUnmix(hidden=8, **bad)


def test_bandwidth():
    assert OpenUnmix(hidden=8).targets[0].max_bin == 1487
    assert OpenUnmix(hidden=8, bandwidth=None).targets[0].max_bin == 2049
    with pytest.raises(ValueError, match="bandwidth"):
        OpenUnmix(hidden=8, bandwidth=-1)


@pytest.mark.parametrize("make, count", [(umxhq, 8_893_348), (umxl, 28_257_188)])
def test_parameter_counts(make, count):
    with torch.device("meta"):
        assert make(sources=("vocals",)).n_params == count
        assert make().n_params == 4 * count


def _scene(channels: int = 2, n_src: int = 3):
    mag = torch.rand(n_src, channels, 17, 50, dtype=torch.float64)
    return mag, torch.randn(channels, 17, 50, dtype=torch.complex128)


@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("n_iter", [1, 3])
def test_wiener_adds_up(channels, residual, n_iter):
    mag, mix = _scene(channels)
    est = wiener_em(mag, mix, n_iter, residual=residual)
    torch.testing.assert_close(est.sum(0), mix, atol=5e-3, rtol=0)  # but for the white noise


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_wiener_is_the_formula_bin_by_bin(channels):
    mag, mix = _scene(channels)
    est = mag * mix / mix.abs()
    est = est * torch.polar(torch.ones(3, channels, 1, 1), torch.rand(3, channels, 1, 1)).to(est)
    want, eps = torch.zeros_like(est), 1e-10
    for f in range(17):
        y = est[:, :, f]
        v = y.abs().square().mean(1)
        R = [y[j] @ y[j].mH / (eps + v[j].sum()) for j in range(3)]
        for t in range(50):
            cov = sum(v[j, t] * R[j] for j in range(3)) + eps**0.5 * torch.eye(channels)
            for j in range(3):
                want[j, :, f, t] = v[j, t] * R[j] @ torch.linalg.inv(cov) @ mix[:, f, t]
    torch.testing.assert_close(em_step(est, mix, eps), want, atol=1e-7, rtol=1e-6)


def test_wiener_of_three_channels_is_that_of_two():
    """A third channel that repeats nothing and holds nothing changes nothing."""
    mag, mix = _scene(2)
    more = torch.cat([mag, torch.zeros_like(mag[:, :1])], 1)
    est = wiener_em(more, torch.cat([mix, torch.zeros_like(mix[:1])]))
    torch.testing.assert_close(est[:, :2], wiener_em(mag, mix), atol=1e-6, rtol=1e-6)


def test_wiener_windows_are_separate():
    mag, mix = _scene()
    parts = [wiener_em(mag[..., k : k + 20], mix[..., k : k + 20]) for k in (0, 20, 40)]
    torch.testing.assert_close(wiener_em(mag, mix, window=20), torch.cat(parts, -1))
    batch = wiener_em(torch.stack([mag, 2 * mag]), torch.stack([mix, 3 * mix]))
    torch.testing.assert_close(batch[1], wiener_em(2 * mag, 3 * mix))


def test_wiener_in_silence():
    mag, mix = _scene()
    for m, x in ((mag, 0 * mix), (0 * mag, mix), (0 * mag, 0 * mix)):
        for softmask in (False, True):
            assert wiener_em(m, x, 2, softmask).isfinite().all()


def test_wiener_settings():
    mag, mix = _scene()
    for bad in ((mag[..., :-1], mix), (mag, mix.real), (mag[0], mix)):
        with pytest.raises(ValueError, match="give"):
            wiener_em(*bad)
    with pytest.raises(ValueError, match="window 0"):
        wiener_em(mag, mix, window=0)
