"""PIT on random and on bad inputs: assignments, pairwise losses, silence, the network."""

import math
from itertools import permutations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sepbook.metrics import si_sdr, snr
from sepbook.pit import (
    ACTIVATIONS,
    TARGETS,
    UPIT,
    all_pairs,
    assign,
    pairwise_l1,
    pairwise_mse,
    pairwise_neg_si_sdr,
    pairwise_neg_snr,
    pit_loss,
    reorder,
    spectral_target,
)
from sepbook.stft import stft

PAIRWISE = (pairwise_mse, pairwise_l1, pairwise_neg_snr, pairwise_neg_si_sdr)
every_pairwise = pytest.mark.parametrize("pairwise", PAIRWISE, ids=lambda f: f.__name__)


def noise(*shape: int, seed: int = 0, dtype=torch.float32) -> torch.Tensor:
    """Seeded normal numbers."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def total(costs: torch.Tensor, permutation: torch.Tensor) -> torch.Tensor:
    """The cost of a permutation for each item."""
    return costs.gather(1, permutation[:, None]).sum((1, 2))


# --- the assignment -------------------------------------------------------------------------------


@settings(max_examples=60)
@given(st.integers(2, 6), st.integers(1, 5), st.integers(0, 2**31), st.booleans())
def test_brute_force_equals_hungarian(n, batch, seed, ties):
    costs = noise(batch, n, n, seed=seed, dtype=torch.float64)
    costs = costs.round() if ties else costs
    brute, hungarian = assign(costs, "brute"), assign(costs, "hungarian")
    assert torch.allclose(total(costs, brute), total(costs, hungarian), atol=1e-12)
    if not ties:
        assert torch.equal(brute, hungarian) and torch.equal(brute, assign(costs))


@settings(max_examples=40)
@given(st.integers(1, 5), st.integers(0, 3), st.integers(0, 2**31))
def test_no_order_is_better(n_src, spare, seed):
    """Also with more estimates than sources, against a search in plain Python."""
    costs = noise(1, n_src + spare, n_src, seed=seed, dtype=torch.float64)
    table = costs[0].tolist()
    orders = permutations(range(n_src + spare), n_src)
    best = min(sum(table[i][j] for j, i in enumerate(order)) for order in orders)
    for method in ("auto", "brute", "hungarian"):
        found = assign(costs, method)
        assert found.shape == (1, n_src) and len(set(found[0].tolist())) == n_src
        assert total(costs, found).item() == pytest.approx(best, abs=1e-12)


def test_twenty_sources_are_exact():
    """The answer is planted: a permutation of zeros in a table of ones."""
    order = torch.stack(
        [torch.randperm(20, generator=torch.Generator().manual_seed(k)) for k in (1, 2)]
    )
    costs = torch.ones(2, 20, 20).scatter(1, order[:, None], 0.0) + 0.01 * noise(2, 20, 20).abs()
    assert torch.equal(assign(costs), order)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("n", [2, 6])
def test_costs_that_are_not_finite(bad, n):
    costs = noise(3, n, n)
    costs[1, 0, 1] = bad
    with pytest.raises(ValueError, match="NaN or infinity"):
        assign(costs)


def test_assign_refuses_what_it_cannot_do():
    with pytest.raises(ValueError, match="at least as many"):
        assign(noise(1, 2, 3))
    with pytest.raises(ValueError, match="must be"):
        assign(noise(2, 2))
    with pytest.raises(ValueError, match="one of auto"):
        assign(noise(1, 2, 2), "greedy")
    with pytest.raises(ValueError, match="permutations; use hungarian"):
        assign(noise(1, 20, 20), "brute")


# --- the loss -------------------------------------------------------------------------------------


@every_pairwise
@pytest.mark.parametrize("n_src", [2, 3, 5])
def test_the_permutation_means_what_it_says(pairwise, n_src):
    """est[b, permutation[b, j]] belongs to src[b, j], with another order for every item."""
    src = noise(6, n_src, 1, 400)
    draw = torch.Generator().manual_seed(3)
    orders = torch.stack([torch.randperm(n_src, generator=draw) for _ in range(6)])
    est = reorder(src, orders) + 0.05 * noise(6, n_src, 1, 400, seed=9)
    loss, permutation = pit_loss(pairwise, est, src)
    for b in range(6):
        for j in range(n_src):
            assert orders[b, permutation[b, j]] == j
    assert torch.equal(permutation, orders.argsort(1))
    costs = pairwise(reorder(est, permutation), src).diagonal(dim1=1, dim2=2)
    assert torch.allclose(loss, costs.mean(), rtol=1e-4, atol=1e-6)
    each = pit_loss(pairwise, est, src, reduction="none")[0]
    assert each.shape == (6,) and torch.allclose(each.mean(), loss)


@every_pairwise
def test_the_order_of_the_sources_does_not_matter(pairwise):
    est, src = noise(4, 4, 2, 300), noise(4, 4, 2, 300, seed=1)
    assert torch.allclose(
        pit_loss(pairwise, est, src)[0], pit_loss(pairwise, est, src[:, [3, 1, 0, 2]])[0]
    )


def test_gradients_flow_through_the_chosen_pairs_only():
    costs = noise(5, 4, 4).requires_grad_()
    dummy = torch.zeros(5, 4, 1, 1)
    loss, permutation = pit_loss(lambda est, src: costs, dummy, dummy)
    loss.backward()
    chosen = torch.zeros(5, 4, 4).scatter(1, permutation[:, None], 1.0)
    assert torch.allclose(costs.grad, chosen / 20)


@every_pairwise
def test_gradients_by_finite_differences(pairwise):
    est = noise(2, 3, 1, 12, dtype=torch.float64).requires_grad_()
    src = noise(2, 3, 1, 12, seed=1, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda e: pit_loss(pairwise, e, src)[0], (est,))


def test_other_numbers_of_estimates_and_sources():
    with pytest.raises(ValueError, match="append silent sources"):
        pit_loss(pairwise_mse, noise(1, 3, 1, 50), noise(1, 2, 1, 50))
    with pytest.raises(ValueError, match="as many outputs"):
        pit_loss(pairwise_mse, noise(1, 2, 1, 50), noise(1, 3, 1, 50))
    with pytest.raises(ValueError, match="reduction"):
        pit_loss(pairwise_mse, noise(1, 2, 1, 50), noise(1, 2, 1, 50), reduction="sum")


@every_pairwise
def test_nan_audio_is_refused(pairwise):
    est = noise(2, 2, 1, 50)
    est[1, 0, 0, 7] = math.nan
    with pytest.raises(ValueError, match="est and src"):
        pit_loss(pairwise, est, noise(2, 2, 1, 50))


@every_pairwise
@pytest.mark.parametrize(
    "shape", [(2, 3, 1, 99), (1, 3, 1, 100), (2, 3, 2, 100), (2, 100), (2, 3, 100)]
)
def test_shapes_that_do_not_match(pairwise, shape):
    with pytest.raises(ValueError, match="but both must be"):
        pairwise(noise(2, 3, 1, 100), noise(*shape))


# --- pairwise losses ------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("level", [1e-2, 1.0, 30.0])
def test_pairs_equal_the_metrics(channels, level):
    """Every pair against the chapter on metrics, whose ceiling is harder and higher."""
    src = level * noise(2, 3, channels, 500)
    est = 0.7 * src + 0.1 * level * noise(2, 3, channels, 500, seed=1)
    for pairwise, metric in ((pairwise_neg_si_sdr, si_sdr), (pairwise_neg_snr, snr)):
        costs = pairwise(est, src)
        for i in range(3):
            for j in range(3):
                want = -metric(est[:, i].flatten(1), src[:, j].flatten(1))
                assert torch.allclose(costs[:, i, j], want, atol=5e-3)


def test_pairs_equal_the_loops():
    est, src = noise(2, 4, 2, 60), noise(2, 3, 2, 60, seed=1)
    mse = all_pairs(lambda e, s: (e - s).square().mean((1, 2)))
    mae = all_pairs(lambda e, s: (e - s).abs().mean((1, 2)))
    assert torch.allclose(pairwise_mse(est, src), mse(est, src), atol=1e-6)
    assert torch.allclose(pairwise_l1(est, src), mae(est, src), atol=1e-6)


def test_a_good_estimate_is_measured_exactly():
    """The difference of large numbers: 55 dB in float32, where single precision would be off."""
    src = noise(1, 2, 1, 32000)
    est = src + 10 ** (-55 / 20) * noise(1, 2, 1, 32000, seed=1)
    error = (est.double() - src.double()).square().mean(-1)[..., 0]
    got = pairwise_mse(est, src).diagonal(dim1=1, dim2=2)
    assert torch.allclose(got.double(), error, rtol=1e-4)


def test_the_ceiling_is_soft():
    src = noise(1, 2, 1, 1000)
    perfect = src.clone().requires_grad_()
    loss, _ = pit_loss(pairwise_neg_snr, perfect, src, reduction="mean")
    loss.backward()
    assert loss.item() == pytest.approx(-60, abs=0.01) and perfect.grad.isfinite().all()


@every_pairwise
def test_half_precision_and_autocast(pairwise):
    est, src = noise(2, 2, 1, 400), noise(2, 2, 1, 400, seed=1)
    want = pairwise(est, src)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.allclose(pairwise(est, src), want, rtol=1e-4)
    half = pairwise(est.bfloat16(), src)
    assert half.isfinite().all() and torch.allclose(half.float(), want, rtol=0.05, atol=0.05)


# --- silence --------------------------------------------------------------------------------------


@every_pairwise
@pytest.mark.parametrize("factor", [1.0, 1e-3, 1e-6, 0.0])
@pytest.mark.parametrize("silent", ["none", "one", "all"])
def test_silence_has_finite_costs_and_gradients(pairwise, factor, silent):
    src = noise(3, 2, 1, 200)
    src = {"none": src, "one": src * torch.tensor([1.0, 0.0])[:, None, None], "all": 0 * src}[
        silent
    ]
    est = (factor * noise(3, 2, 1, 200, seed=1)).requires_grad_()
    costs = pairwise(est, src)
    costs.sum().backward()
    assert costs.isfinite().all() and est.grad.isfinite().all()
    pit_loss(pairwise, est, src)


@pytest.mark.parametrize("pairwise", [pairwise_neg_snr, pairwise_neg_si_sdr])
def test_a_silent_source_teaches_silence(pairwise):
    """Gradient descent turns the estimate of a silent source down; the usual epsilon would not."""
    src = torch.stack([noise(1, 800), torch.zeros(1, 800)])[None]
    est = (0.5 * noise(1, 2, 1, 800, seed=4)).requires_grad_()
    costs = pairwise(est, src)
    costs[0, 1, 1].backward()
    assert (est.grad[0, 1] * est[0, 1]).sum() > 0 and not est.grad[0, 0].any()
    louder = pairwise(2 * est, src)[0, 1, 1]
    assert louder > costs[0, 1, 1]
    levels = [pairwise(f * src[:, :1].flip(1), src)[0, 0, 1].item() for f in (1.0, 0.1, 0.0)]
    assert levels == pytest.approx([0.004, -19.59, -30.0], abs=0.01)


def test_a_silent_estimate_finds_its_source():
    """From silence, one step against the gradient gives an estimate that resembles the source."""
    src = noise(1, 2, 1, 500)
    for pairwise in (pairwise_neg_snr, pairwise_neg_si_sdr):
        est = torch.zeros(1, 2, 1, 500).requires_grad_()
        loss, permutation = pit_loss(pairwise, est, src)
        loss.backward()
        step = reorder(-est.grad, permutation)
        assert (torch.cosine_similarity(step, src, dim=-1) > 0.99).all()


# --- the network ----------------------------------------------------------------------------------


def small(**settings) -> UPIT:
    """A network that is quick to try."""
    torch.manual_seed(0)
    return UPIT(**{"hidden": 12, "layers": 1, "dropout": 0.0} | settings)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("activation", list(ACTIVATIONS))
def test_every_target_and_activation_learns(target, activation):
    net = small(target=target, activation=activation, n_src=3)
    src = noise(2, 3, 1, 2000)
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    first = net.loss(src.sum(1), src)
    for _ in range(10):
        optimizer.zero_grad()
        loss = net.loss(src.sum(1), src)
        loss.backward()
        optimizer.step()
    assert net.loss(src.sum(1), src) < first and net(src.sum(1)).isfinite().all()


@pytest.mark.parametrize("length", [1, 100, 255, 256, 257, 5001])
def test_any_length_comes_back(length):
    assert small().eval()(noise(2, 1, length)).shape == (2, 2, 1, length)


def test_softmax_masks_add_up_to_the_mixture():
    mix = noise(2, 1, 3000)
    est = small(activation="softmax", n_src=4).eval()(mix)
    assert torch.allclose(est.sum(1), mix, atol=1e-4)


def test_items_of_a_batch_do_not_meet():
    net, mix = small().eval(), noise(3, 1, 2000)
    mix = mix * torch.tensor([1.0, 1e-3, 30.0])[:, None, None]
    alone = torch.cat([net(one[None]) for one in mix])
    assert torch.allclose(net(mix), alone, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("gain", [1e-3, 1e-1, 100.0])
def test_the_level_only_scales(gain):
    net, mix, src = small().eval(), noise(2, 1, 3000), noise(2, 2, 1, 3000, seed=1)
    assert torch.allclose(net(gain * mix) / gain, net(mix), rtol=1e-3, atol=1e-5)
    assert torch.allclose(net.loss(gain * mix, gain * src), net.loss(mix, src), rtol=1e-4)


def test_silence_stays_silent():
    net, src = small(), torch.zeros(1, 2, 1, 1000)
    loss = net.loss(src.sum(1), src)
    loss.backward()
    assert loss == 0 and all(p.grad.isfinite().all() for p in net.parameters())
    assert not net.eval()(src.sum(1)).any()


def test_what_the_network_refuses():
    with pytest.raises(ValueError, match="target is 'iam', but must be one of am, psm, npsm"):
        UPIT(target="iam")
    with pytest.raises(ValueError, match="activation is 'elu'"):
        UPIT(activation="elu")
    net = small().eval()
    with pytest.raises(ValueError, match="channels"):
        net(noise(1, 2, 1000))
    with pytest.raises(ValueError, match="NaN"):
        net(torch.full((1, 1, 1000), math.nan))


def test_targets_are_what_they_say():
    src = stft(noise(2, 2, 1, 1000, dtype=torch.float64), 256, 128)
    mix = src.sum(1)
    psm = spectral_target(mix, src, "psm")
    assert torch.allclose(psm.sum(1), mix.abs())  # the parts in the mixture's phase add up
    assert torch.equal(spectral_target(mix, src, "npsm"), psm.clamp(min=0))
    assert (psm <= spectral_target(mix, src, "am") + 1e-12).all()


def test_sources_by_name():
    net = small(sources=["she", "he", "it"]).eval()
    assert net.sources == ("she", "he", "it") and net(noise(1, 1, 900)).shape == (1, 3, 1, 900)
    with pytest.raises(ValueError, match="name of its own"):
        small(sources=["she", "she"])


def test_the_names_of_the_weights():
    """Files of weights that ship, or that readers have made, must go on fitting."""
    ways = ("", "_reverse")
    lstm = {
        f"masks.rnn.{kind}_{gate}_l0{way}"
        for kind in ("weight", "bias")
        for gate in ("ih", "hh")
        for way in ways
    }
    assert set(small().state_dict()) == lstm | {"masks.out.weight", "masks.out.bias"}


def test_double_precision():
    net = small().double().eval()
    assert net(noise(1, 1, 900, dtype=torch.float64)).dtype == torch.float64
