"""The second look: it begins with nothing, keeps its first network, and takes what others take."""

import math

import pytest
import torch

from sepbook.conversations import sa_sdr
from sepbook.models.conv_tasnet import ConvTasNet
from sepbook.models.second_look import SecondLook, deal

SMALL = {"n_filters": 16, "kernel": 16, "bottleneck": 8, "hidden": 16, "skip": 8}
SMALL |= {"blocks": 3, "repeats": 1, "rescale": True}


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def network(n_src: int = 2, **options) -> SecondLook:
    """A small one whose second look does something."""
    torch.manual_seed(0)
    net = SecondLook(n_src, hidden=8, first=SMALL, **options)
    torch.nn.init.normal_(net.out.weight, std=0.1)
    return net.eval()


@pytest.mark.parametrize("n_src", [1, 2, 3])
def test_a_new_one_is_its_first_network(n_src):
    torch.manual_seed(1)
    net = SecondLook(n_src, hidden=8, first=SMALL).eval()
    twin = ConvTasNet(n_src, **SMALL).eval()
    twin.load_state_dict(net.first.state_dict())
    mix = noise(2, 1, 4321)
    with torch.no_grad():
        assert (sa_sdr(net(mix), twin(mix)) > 50).all()


@pytest.mark.parametrize("frames", [1, 63, 128, 1000, 8001])
def test_any_length(frames):
    est = network()(noise(1, 1, frames))
    assert est.shape == (1, 2, 1, frames) and est.isfinite().all()


@pytest.mark.parametrize("db", [-60, -40, 20])
def test_level_only_scales(db):
    net, mix, gain = network(), noise(2, 1, 4000), 10 ** (db / 20)
    with torch.no_grad():
        assert (sa_sdr(net(gain * mix) / gain, net(mix)) > 50).all()


def test_silence_stays_silent():
    assert network()(torch.zeros(1, 1, 4000)).abs().max() < 1e-3


def test_items_of_a_batch_are_separated_each_for_itself():
    net, mix = network(), noise(3, 1, 4000)
    with torch.no_grad():
        together, single = net(mix), torch.cat([net(one[None]) for one in mix])
    assert torch.allclose(together, single, atol=1e-5)


def test_frozen_keeps_the_first_network_and_trains_the_second():
    src = noise(2, 2, 1, 4000)
    for frozen in (True, False):
        net = network(frozen=frozen).train()
        net.loss(src.sum(1), src).backward()
        first = [p.grad for p in net.first.parameters()]
        assert all(g is None for g in first) if frozen else any(g is not None for g in first)
        assert net.rnn.weight_ih_l0.grad.abs().sum() > 0


def test_the_first_step_moves_only_the_last_layer():
    """Zero weights let no gradient through to the layers before, but have one of their own."""
    torch.manual_seed(2)
    net = SecondLook(hidden=8, first=SMALL)
    src = noise(1, 2, 1, 4000)
    net.loss(src.sum(1), src).backward()
    assert net.out.weight.grad.abs().sum() > 0
    assert net.rnn.weight_ih_l0.grad.abs().sum() == 0


def test_loss_has_no_order_and_takes_silent_sources():
    net, src = network(), noise(2, 2, 1, 4000)
    torch.testing.assert_close(
        net.loss(src.sum(1), src), net.loss(src.sum(1), src.flip(1)), rtol=1e-4, atol=1e-5
    )
    src[:, 1] = 0
    loss = net.loss(src.sum(1), src)
    loss.backward()
    assert loss.isfinite() and all(p.grad.isfinite().all() for p in net.rnn.parameters())


def test_deal_is_equation_1():
    masks, guess = torch.randn(1, 2, 4, 3, 5), torch.randn(1, 2, 3, 5, dtype=torch.cfloat)
    mix, est = (
        torch.randn(1, 1, 3, 5, dtype=torch.cfloat),
        torch.zeros(1, 2, 3, 5, dtype=torch.cfloat),
    )
    for k in range(2):
        for j in range(2):
            est[:, k] += masks[:, k, j] * guess[:, j]
        est[:, k] += torch.complex(masks[:, k, 2], masks[:, k, 3]) * mix[:, 0]
    assert torch.allclose(deal(masks, guess, mix), est, atol=1e-5)


def test_ratios_stay_within_one():
    net = network()
    spec = noise(1, 1, 129, 20) + 1j * noise(1, 1, 129, 20, seed=1)
    for gain in (1e-3, 1.0, 1e3):
        guess = gain * (noise(1, 2, 129, 20, seed=2) + 1j * noise(1, 2, 129, 20, seed=3))
        ratio = net.features(spec, guess)[..., 3 * 129 :]
        assert ratio.abs().max() <= 1 and not math.isnan(float(ratio.sum()))


def test_what_is_refused():
    with pytest.raises((TypeError, ValueError)):
        network()(noise(1, 2, 4000))
    with pytest.raises((TypeError, ValueError)):
        SecondLook(first={"colour": "red"})
