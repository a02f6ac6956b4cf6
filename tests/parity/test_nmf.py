"""NMF equals scikit-learn's multiplicative updates from the same start."""

import warnings

import pytest
import torch
from sklearn.decomposition import NMF

from sepbook.classical.nmf import beta_divergence, nmf
from sepbook.mixtures import example_song
from sepbook.stft import stft


def theirs(V, W, H, beta, n_iter):
    """Scikit-learn's factors and its own cost."""
    model = NMF(len(H), solver="mu", init="custom", beta_loss=beta, tol=0, max_iter=n_iter)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        W = model.fit_transform(V.numpy(), W=W.numpy().copy(), H=H.numpy().copy())
    cost = model.reconstruction_err_**2 / 2  # it reports sqrt(2 * cost)
    return torch.from_numpy(W), torch.from_numpy(model.components_), float(cost)


def start(V, rank, seed):
    draw = torch.Generator().manual_seed(seed)
    rand = lambda *shape: torch.rand(*shape, generator=draw, dtype=torch.float64).to(V.dtype)
    return rand(V.shape[0], rank) + 0.05, rand(rank, V.shape[1]) + 0.05


def song(beta):
    """One channel of the song: magnitudes, or powers for beta = 0."""
    mag = stft(example_song().mix[:1, :132300], 1024, 512)[0].abs().double()
    V = mag.square() if beta == 0 else mag
    return (V / V.mean()).clamp(min=1e-6)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("beta", [2, 1, 0, 0.5, 1.5, 3])
def test_factors_and_cost_on_random_matrices(beta, seed):
    V = torch.rand(40, 50, generator=torch.Generator().manual_seed(seed)).double() + 0.01
    W, H = start(V, 6, seed)
    want_W, want_H, want = theirs(V, W, H, beta, 100)
    got = nmf(V, beta=beta, W=W, H=H, n_iter=100)
    torch.testing.assert_close(got.W, want_W, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(got.H, want_H, rtol=1e-8, atol=1e-10)
    assert abs(got.cost.item() / want - 1) < 1e-6


@pytest.mark.parametrize("beta", [2, 1, 0])
@pytest.mark.parametrize("rank", [5, 40])
def test_cost_on_the_song(beta, rank):
    V = song(beta)
    W, H = start(V, rank, 0)
    want_W, want_H, _ = theirs(V, W, H, beta, 50)
    want = beta_divergence(V, (want_W @ want_H).clamp(min=1e-30), beta).item()
    assert abs(nmf(V, beta=beta, W=W, H=H, n_iter=50).cost.item() / want - 1) < 1e-6


@pytest.mark.parametrize("beta", [2, 1, 0])
def test_cost_in_single_precision(beta):
    V = song(beta).float()
    W, H = start(V, 8, 0)
    got, want = nmf(V, beta=beta, W=W, H=H, n_iter=30), theirs(V, W, H, beta, 30)
    assert got.W.dtype == got.H.dtype == torch.float32
    cost = [
        beta_divergence(V.double(), w.double() @ h.double(), beta) for w, h in (got[:2], want[:2])
    ]
    assert abs(cost[0] / cost[1] - 1) < 1e-4


def test_the_order_of_the_updates_matters():
    """The comparison can fail: the other order, H first, gives another cost."""
    V = torch.rand(20, 30, generator=torch.Generator().manual_seed(0)).double() + 0.01
    W, H = start(V, 4, 0)
    other = nmf(V.T.contiguous(), beta=1, W=H.T.contiguous(), H=W.T.contiguous(), n_iter=20)
    assert abs(other.cost.item() / theirs(V, W, H, 1, 20)[2] - 1) > 1e-6
