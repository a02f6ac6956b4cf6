"""NMF and its separator on what recordings hold: silence, zeros, NaN, odd lengths, wrong shapes."""

import pytest
import torch

import sepbook.engine.factorize as module
from sepbook.classical.nmf import NMFSeparator, beta_divergence, learn_dictionary, nmf, normalise
from sepbook.engine.examples import Mixture
from sepbook.metrics import evaluate

BETAS = [2, 1.5, 1, 0.5, 0, -0.5, 3]
draw = lambda *shape, seed=0: torch.rand(
    *shape, generator=torch.Generator().manual_seed(seed)
).double()


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 0.1


def small(**changes):
    """A quick separator for two sources in mono."""
    how = dict(
        sample_rate=8000, channels=1, sources=("a", "b"), rank=3, n_fft=256, hop=64, n_iter=5
    )
    return NMFSeparator(**(how | changes))


def one_line(error):
    return "\n" not in str(error.value) and len(str(error.value)) < 200


@pytest.mark.parametrize("beta", BETAS)
def test_cost_never_rises(beta):
    for seed in range(5):
        V = draw(15, 20, seed=seed) + 0.01
        cost = nmf(V, 3, beta, 40, seed=seed, track=True).cost
        assert len(cost) == 41 and cost[-1] < cost[0]
        assert (cost[1:] <= cost[:-1] + 1e-12 * cost[0].abs()).all()


@pytest.mark.parametrize("beta", [2, 1, 0])
def test_cost_never_rises_with_held_templates(beta):
    V, W = draw(15, 20) + 0.01, draw(15, 5, seed=1) + 0.1
    for hold in (2, 5):
        got = nmf(V, beta=beta, W=W, hold=hold, n_iter=40, track=True)
        assert (got.cost[1:] <= got.cost[:-1] * (1 + 1e-12)).all()
        assert torch.equal(got.W[:, :hold], W[:, :hold])


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_zeros_and_silence_stay_finite(beta, dtype):
    V = draw(12, 15).to(dtype)
    V[:, 3:6], V[4] = 0, 0
    for data in (V, torch.zeros(12, 15, dtype=dtype), V * 1e-12, V * 1e12):
        got = nmf(data, 4, beta, 50)
        assert all(x.isfinite().all() for x in got)
        assert got.W.dtype == got.H.dtype == dtype
        assert (got.W >= 0).all() and (got.H >= 0).all()


@pytest.mark.parametrize("beta", [2, 1, 0])
def test_zero_start_and_dead_templates(beta):
    V, W, H = draw(12, 15), draw(12, 4), draw(4, 15)
    W[:, 1], H[2] = 0, 0
    got = nmf(V, beta=beta, W=W, H=H, n_iter=30)
    assert all(x.isfinite().all() for x in got)
    held = nmf(V, beta=beta, W=W, H=H, hold=4, n_iter=30)
    assert torch.equal(held.W, W) and held.H.isfinite().all()


def test_normalise_keeps_the_product_and_survives_dead_templates():
    W, H = draw(12, 4), draw(4, 15)
    W[:, 1] = 0
    got = normalise(W, H)
    torch.testing.assert_close(got[0] @ got[1], W @ H)
    torch.testing.assert_close(got[0].sum(0), torch.ones(4).double())
    assert (got[1][1] == 0).all()


@pytest.mark.parametrize("rank", [1, 30])
def test_any_rank(rank):
    got = nmf(draw(12, 3), rank)
    assert got.W.shape == (12, rank) and got.H.shape == (rank, 3)
    assert all(x.isfinite().all() for x in got)


def test_inputs_are_left_alone():
    V, W, H = draw(12, 15), draw(12, 4), draw(4, 15)
    kept = [x.clone() for x in (V, W, H)]
    nmf(V, W=W, H=H, n_iter=3)
    assert all(torch.equal(a, b) for a, b in zip(kept, (V, W, H)))


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("hold", [0, 2])
def test_both_ways_of_multiplying_agree(beta, hold, monkeypatch):
    V, W = (draw(70, 90) + 0.01).float(), (draw(70, 5, seed=1) + 0.1).float()
    runs = []
    for fast in (module.ONEDNN, None):
        monkeypatch.setattr(module, "ONEDNN", fast)
        runs.append(nmf(V, 5, beta, 20, W=W, hold=hold))
    for one, other in zip(*runs):
        torch.testing.assert_close(one, other, rtol=2e-3, atol=1e-5)
    exact = nmf(V.double(), 5, beta, 20, W=W.double(), hold=hold)
    torch.testing.assert_close(runs[0].W.double(), exact.W, rtol=2e-3, atol=1e-5)


def test_level_only_scales():
    V = draw(12, 15)
    for beta in (2, 1, 0):
        a, b = nmf(V, 3, beta), nmf(V * 4, 3, beta)
        torch.testing.assert_close(a.W @ a.H * 4, b.W @ b.H, rtol=1e-9, atol=0)
        torch.testing.assert_close(a.cost * 4**beta, b.cost, rtol=1e-9, atol=0)


def test_beta_divergence_is_zero_at_the_data_only():
    V = draw(12, 15) + 0.1
    for beta in BETAS:
        assert abs(beta_divergence(V, V, beta)) < 1e-10
        assert beta_divergence(V, V * 1.1, beta) > 1e-3 and beta_divergence(V, V * 0.9, beta) > 1e-3


@pytest.mark.parametrize(
    ("V", "how", "words"),
    [
        (-torch.ones(3, 4), {"rank": 2}, "negative"),
        (torch.full((3, 4), torch.nan), {"rank": 2}, "NaN"),
        (torch.full((3, 4), torch.inf), {"rank": 2}, "infinity"),
        (torch.ones(3), {"rank": 2}, "shape"),
        (torch.ones(3, 0), {"rank": 2}, "empty"),
        (torch.ones(3, 4, dtype=torch.complex64), {"rank": 2}, "real"),
        (torch.ones(3, 4), {"rank": 0}, "rank"),
        (torch.ones(3, 4), {}, "rank"),
        (torch.ones(3, 4), {"rank": 2, "hold": 3}, "hold"),
        (torch.ones(3, 4), {"rank": 2, "W": torch.ones(2, 2)}, "W has shape"),
        (torch.ones(3, 4), {"rank": 2, "H": -torch.ones(2, 4)}, "negative"),
    ],
)
def test_wrong_input_is_refused_in_one_line(V, how, words):
    with pytest.raises(ValueError, match=words) as error:
        nmf(V, **how)
    assert one_line(error)


@pytest.mark.parametrize("length", [1, 200, 256, 1000, 1023, 4001])
def test_any_length_adds_up(length):
    sep = small().fit(noise(2, 1, 2000))
    mix = noise(2, 1, length, seed=1)
    est = sep(mix)
    assert est.shape == (2, 2, 1, length)
    torch.testing.assert_close(est.sum(1), mix, atol=1e-5, rtol=0)


@pytest.mark.parametrize("beta", [2, 1, 0])
def test_silence_and_stereo(beta):
    sep = small(channels=2, beta=beta).fit(noise(2, 2, 2000))
    assert sep(torch.zeros(1, 2, 1000)).abs().max() == 0
    mix = noise(1, 2, 1000)
    mix[:, 1] = 0  # one silent channel
    est = sep(mix)
    assert est.isfinite().all() and est[:, :, 1].abs().max() == 0
    mix = noise(1, 2, 1000).double()
    assert sep(mix).dtype == torch.float64


def test_unknown_source_learns_from_the_mixture():
    sep = small().fit({"b": noise(1, 2000)})
    est = sep(noise(1, 1, 1500, seed=2))
    assert est.shape == (1, 2, 1, 1500) and est.abs().amin(dim=(0, 2)).isfinite().all()
    assert set(sep.dictionaries) == {"b"}


def test_several_recordings_make_one_dictionary():
    clips = [noise(1, n, seed=n) for n in (300, 2000)]
    W = learn_dictionary(clips, rank=3, n_fft=256, hop=64, n_iter=3)
    assert W.shape == (129, 3)
    torch.testing.assert_close(W.sum(0), torch.ones(3))


def test_works_through_evaluate():
    src = noise(2, 1, 4000)
    data = [Mixture(src.sum(0), src, ("a", "b"), 8000)]
    table = evaluate(small().fit(src), data)
    assert len(table) == 2 and table.si_sdr.notna().all()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: small()(noise(1, 1, 1000)), "fit"),
        (lambda: small().fit({"b": noise(1, 2000)})(noise(1, 2, 1000)), "channel"),
        (lambda: small().fit({"b": noise(1, 2000)})(noise(1, 1000)), "batch"),
        (lambda: small().fit({"b": noise(1, 2000)})(noise(1, 1, 1000) * torch.nan), "NaN"),
        (lambda: small().fit({"c": noise(1, 2000)}), "not among"),
        (lambda: small().fit(noise(3, 1, 2000)), "3 sources"),
        (lambda: small().fit({"a": torch.zeros(1, 2000)}), "silent"),
    ],
)
def test_separator_refuses_in_one_line(call, words):
    with pytest.raises(ValueError, match=words) as error:
        call()
    assert one_line(error)
