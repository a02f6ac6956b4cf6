"""Independent components on what recordings hold: silence, equal channels, odd lengths."""

import pytest
import torch

from sepbook.classical.ica import (
    ICASeparator,
    ISASeparator,
    RoomSeparator,
    align_bands,
    auxiva,
    decorrelate,
    fast_ica,
    fdica,
    group,
    ilrma,
    image_spectra,
    infomax,
    isa,
    ixegram,
    kurtosis,
    project_back,
    source_images,
    whiten,
)
from sepbook.engine.demixing import OuterProducts, separable_bands, update_row
from sepbook.engine.examples import Mixture, example_readers
from sepbook.metrics import evaluate
from sepbook.separate import separate

METHODS = ["fdica", "auxiva", "ilrma"]


def noise(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def spectrum(bands=20, channels=2, frames=60, seed=0):
    """Loud and quiet frames of independent sources, mixed in every band."""
    src = noise(bands, channels, frames, seed=seed, dtype=torch.complex128)
    src = src * noise(channels, frames, seed=seed + 1, dtype=torch.float64).pow(2)
    return noise(bands, channels, channels, seed=seed + 2, dtype=torch.complex128) @ src


def small(method="ilrma", **changes):
    return RoomSeparator(**(dict(method=method, n_fft=256, hop=64, n_iter=5) | changes))


def one_line(error):
    return "\n" not in str(error.value) and len(str(error.value)) < 200


def cost(X, W, model):
    """The negative log-likelihood whose majoriser the iterations minimise."""
    power = (W @ X).abs().square()
    log_det = 2 * torch.linalg.det(W).abs().log().sum()
    if model == "laplace":
        return power.sum(0).sqrt().mean(-1).sum() - log_det
    if model == "bands":
        return power.sqrt().mean(-1).sum() - log_det
    return (len(X) * power.mean(0).log()).mean(-1).sum() - log_det


# --- instantaneous mixtures


@pytest.mark.parametrize("channels", [2, 3, 5])
def test_whitening_is_exact(channels):
    X = noise(channels, channels, seed=1).double() @ noise(channels, 4000).double() + 3
    Z, K = whiten(X)
    assert torch.allclose(Z @ Z.T / 4000, torch.eye(channels).double(), atol=1e-10)
    torch.testing.assert_close(K @ (X - X.mean(1, keepdim=True)), Z)


def test_decorrelation_is_the_nearest_orthonormal_matrix():
    W = noise(4, 4).double()
    got, (U, _, Vh) = decorrelate(W), torch.linalg.svd(W)
    torch.testing.assert_close(got, U @ Vh)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("method", [fast_ica, infomax])
def test_planted_sources_come_back(method, seed):
    src = noise(3, 20000, seed=seed, dtype=torch.float64).pow(3)
    A = noise(3, 3, seed=seed + 10, dtype=torch.float64)
    P = (method(A @ src) @ A * src.std(1)).abs()
    rows = P.sort(1).values
    assert (rows[:, -2] < 0.05 * rows[:, -1]).all()
    assert len(set(P.argmax(1).tolist())) == 3


def test_kurtosis_of_known_densities():
    u = torch.rand(10**6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert abs(kurtosis(u) + 1.2) < 0.01 and abs(kurtosis(noise(10**6).double())) < 0.03
    laplace = (u - 0.5).sign() * (1 - 2 * (u - 0.5).abs()).log()
    assert abs(kurtosis(7 * laplace + 2) - 3) < 0.15


def test_images_add_up_and_ignore_the_scale():
    X, W = noise(3, 500).double(), noise(3, 3, seed=4).double()
    got = source_images(W, X)
    torch.testing.assert_close(got.sum(0), X)
    scaled = torch.tensor([[2.0], [-0.1], [30.0]]).double() * W
    torch.testing.assert_close(source_images(scaled, X), got)


@pytest.mark.parametrize("mix", [torch.zeros(1, 2, 900), noise(1, 1, 900).expand(1, 2, 900)])
def test_nothing_to_tell_apart_is_shared(mix):
    est = ICASeparator()(mix)
    torch.testing.assert_close(est, (mix / 2)[:, None].expand(-1, 2, -1, -1))


def test_whiten_refuses_what_depends_on_others():
    X = noise(2, 500)
    for bad in (torch.cat([X, X[:1] - 2 * X[1:]]), torch.stack([X[0], 0 * X[1]])):
        with pytest.raises(ValueError, match="silent or a sum") as error:
            whiten(bad)
        assert one_line(error)


def test_single_precision_sees_a_sum_of_others():
    X = noise(2, 20000)
    with pytest.raises(ValueError, match="silent or a sum"):
        whiten(torch.cat([X, X[:1] + X[1:]]))
    Z, K = whiten(X)
    assert Z.dtype == K.dtype == torch.float32


# --- subspaces


@pytest.mark.parametrize("seed", range(3))
def test_planted_subspaces_are_found(seed):
    draw = torch.Generator().manual_seed(seed)
    bursts = torch.rand(3, 3000, generator=draw).pow(12) * 6
    steady = torch.rand(3, 3000, generator=draw) * 2
    basis = torch.rand(60, 6, generator=draw).pow(4)
    truth = torch.stack([basis[:, :3] @ bursts, basis[:, 3:] @ steady])
    models, Y = isa(truth.sum(0), 2, 6, seed=seed)
    errors = [(models - t).square().mean() for t in (truth, truth.flip(0))]
    assert min(errors) < 0.02 * truth.square().mean()
    assert sorted(group(ixegram(Y), 2).bincount().tolist()) == [3, 3]


def test_the_ixegram_is_a_divergence():
    Y = noise(5, 4000).double()
    Y[0] = torch.rand(4000, generator=torch.Generator().manual_seed(1)).double()
    D = ixegram(Y)
    torch.testing.assert_close(D, D.T)
    assert (D.diagonal() == 0).all() and D[0, 1:].min() > 2 * D[1:, 1:].max()
    mirrored = Y * torch.tensor([1, -1, 1, -1, 1.0])[:, None].double()
    torch.testing.assert_close(ixegram(mirrored), D, atol=0.02, rtol=0)


def test_groups_are_those_of_the_distances():
    place = torch.tensor([0.0, 10, 0.1, 10.2, 0.2, 30])
    label = group((place[:, None] - place[None]).abs(), 3).tolist()
    assert label[0] == label[2] == label[4] and label[1] == label[3]
    assert len({label[0], label[1], label[5]}) == 3


@pytest.mark.parametrize("length", [1, 100, 3000, 9001])
def test_isa_takes_any_length_and_adds_up(length):
    mix = noise(1, 1, length)
    est = ISASeparator(n_fft=256, hop=64, rank=4)(mix)
    assert est.shape == (1, 2, 1, length) and est.isfinite().all()
    torch.testing.assert_close(est.sum(1), mix, atol=1e-4, rtol=0)
    assert ISASeparator(n_fft=256, hop=64)(mix * 0).abs().max() == 0


# --- rooms


@pytest.mark.parametrize("model", ["laplace", "gauss", "bands"])
@pytest.mark.parametrize("channels", [2, 3])
def test_the_cost_never_rises(model, channels):
    X = spectrum(channels=channels)
    run = (lambda n: fdica(X, n)) if model == "bands" else (lambda n: auxiva(X, n, model))
    costs = torch.stack([cost(X, run(n), model) for n in range(12)])
    assert (costs[1:] <= costs[:-1] + 1e-9 * costs[0].abs()).all() and costs[-1] < costs[0] - 1


@pytest.mark.parametrize("method", [auxiva, fdica, ilrma])
@pytest.mark.parametrize("channels", [2, 3])
def test_planted_mixtures_are_demixed(method, channels):
    bands, frames = 30, 400
    loud = noise(channels, frames, seed=9, dtype=torch.float64).pow(2)
    src = noise(bands, channels, frames, dtype=torch.complex128) * loud
    A = noise(bands, channels, channels, seed=3, dtype=torch.complex128)
    W = method(A @ src, 60)
    P = (W @ A).abs().sort(-1).values
    assert (P[..., -2] / P[..., -1]).median() < 0.15


def test_joint_density_keeps_the_order():
    bands, frames = 40, 400
    loud = noise(2, frames, seed=9, dtype=torch.float64).pow(2)
    src = noise(bands, 2, frames, dtype=torch.complex128) * loud
    A = noise(bands, 2, 2, seed=3, dtype=torch.complex128)
    order = lambda W: (W @ A).abs().argmax(-1)[:, 0]
    apart, joint = order(fdica(A @ src, 60)), order(auxiva(A @ src, 60))
    assert 0.1 < apart.double().mean() < 0.9 and len(joint.unique()) == 1
    W = fdica(A @ src, 60)
    best = align_bands((W @ A @ src).abs().square().transpose(0, 1))
    assert len(order(W.gather(1, best[..., None].expand_as(W))).unique()) == 1


@pytest.mark.parametrize("method", [auxiva, fdica, ilrma])
def test_bad_bands_leave_the_others_alone(method):
    X = spectrum()
    good = method(X, 8)
    spoiled = torch.cat([X, 0 * X[:1], X[:1, :1].expand(-1, 2, -1), 1e-9 * X[:1]])
    if method is ilrma:
        T = torch.rand(2, 23, 2, generator=torch.Generator().manual_seed(0)) + 0.1
        H = torch.rand(2, 2, 60, generator=torch.Generator().manual_seed(1)) + 0.1
        good, W = ilrma(X, 8, T=T[:, :20], H=H), ilrma(spoiled, 8, T=T, H=H)
    else:
        W = method(spoiled, 8)
    torch.testing.assert_close(W[:20], good)
    assert torch.equal(W[20:], torch.eye(2, dtype=W.dtype).expand(3, 2, 2))
    est = image_spectra(W, spoiled)
    torch.testing.assert_close(
        est[:, :, 20:], (spoiled[20:] / 2).transpose(0, 1).expand(2, -1, -1, -1)
    )
    torch.testing.assert_close(est.sum(0), spoiled.transpose(0, 1))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("length", [2, 255, 256, 1000, 4001])
def test_any_length_adds_up(method, length):
    mix = noise(2, 2, length)
    est = small(method)(mix)
    assert est.shape == (2, 2, 2, length) and est.dtype == mix.dtype
    torch.testing.assert_close(est.sum(1), mix, atol=1e-4, rtol=0)


@pytest.mark.parametrize("method", METHODS)
def test_silence_equal_channels_and_gaps(method):
    sep, mix = small(method), noise(1, 2, 6000)
    gap = mix.clone()
    gap[..., 2000:4000] = 0
    dead = mix.clone()
    dead[:, 1] = 0
    for case in (mix * 0, mix[:, :1].expand(1, 2, -1), gap, dead, mix + 5):
        est = sep(case)
        assert est.isfinite().all()
        torch.testing.assert_close(est.sum(1), case, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_level_only_scales(method):
    mix = noise(1, 2, 6000)
    for level in (1e-6, 1e4):
        est = small(method)(mix * level) / level
        torch.testing.assert_close(est, small(method)(mix), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("channels", [2, 3, 4])
@pytest.mark.parametrize("method", METHODS)
def test_as_many_sources_as_microphones(method, channels):
    names = tuple("abcd"[:channels])
    est = small(method, channels=channels, sources=names)(noise(1, channels, 3000))
    assert est.shape == (1, channels, channels, 3000) and est.isfinite().all()


def test_inputs_are_left_alone():
    X = spectrum()
    W, kept = torch.eye(2).to(X).repeat(20, 1, 1), X.clone()
    for method in (auxiva, fdica, ilrma):
        method(X, 2, W=W)
        assert torch.equal(X, kept) and torch.equal(W, torch.eye(2).to(X).repeat(20, 1, 1))


def test_single_precision_agrees_with_double():
    X = spectrum()
    single = auxiva(X.to(torch.complex64), 5)
    torch.testing.assert_close(single, auxiva(X, 5), atol=1e-4, rtol=1e-4)


def test_least_squares_leave_nothing_to_gain():
    X = spectrum()
    Y = project_back(auxiva(X, 5) @ X, X[:, 0])
    rest = X[:, :1] - Y
    inner = (rest * Y.conj()).sum(-1).abs() / Y.abs().square().sum(-1)
    assert inner.max() < 1e-10
    assert (project_back(0 * Y, X[:, 0]) == 0).all()


def test_a_band_without_solution_keeps_its_row():
    W = noise(3, 2, 2, dtype=torch.complex128)
    kept, V = W.clone(), torch.zeros(3, 2, 2, dtype=torch.complex128)
    V[1:] = torch.eye(2)
    update_row(W, V, 0)
    assert torch.equal(W[0], kept[0]) and not torch.equal(W[1], kept[1])


def test_separable_bands_at_any_level():
    X = spectrum()
    for level in (1e-100, 1e100):
        assert separable_bands(X * level).all()
    assert not separable_bands(0 * X).any()


def test_outer_products_of_loud_and_quiet_frames():
    X = spectrum(channels=3) * torch.logspace(-6, 3, 60)
    W = noise(20, 3, 3, seed=8, dtype=torch.complex128)
    want = (W @ X).abs().square().transpose(0, 1)
    torch.testing.assert_close(OuterProducts(X).powers(W), want, rtol=1e-8, atol=0)


def test_separate_and_evaluate_take_them():
    src = example_readers(2, 2.0).src
    images = src * torch.tensor([[1.0, 0.6], [0.5, 1.0]])[..., None]
    scene = Mixture(images.sum(0), images, ("s1", "s2"), 16000)
    for separator in (ICASeparator(), RoomSeparator(n_iter=5)):
        table = evaluate(separator, scene)
        assert len(table) == 2 and table["si_sdri"].notna().all()
        est = separate(separator, scene.mix, 16000)
        assert est.shape == (2, 2, 32000)
        torch.testing.assert_close(est.sum(0), scene.mix, atol=1e-4, rtol=0)
    assert evaluate(ICASeparator(), scene)["si_sdri"].min() > 15


@pytest.mark.parametrize(
    ("call", "kind", "words"),
    [
        (lambda: auxiva(noise(20, 2, 30)), TypeError, "complex"),
        (lambda: auxiva(spectrum()[0]), ValueError, "frequency, channel, frame"),
        (lambda: auxiva(spectrum()[:, :1]), ValueError, "two microphones"),
        (lambda: auxiva(spectrum() * torch.nan), ValueError, "NaN"),
        (lambda: auxiva(spectrum().permute(1, 0, 2)), ValueError, "channels"),
        (lambda: auxiva(spectrum(), model="student"), ValueError, "laplace, gauss"),
        (lambda: auxiva(spectrum(), W=torch.eye(2)), ValueError, "W has shape"),
        (lambda: ilrma(spectrum(), rank=0), ValueError, "rank"),
        (lambda: ilrma(spectrum(), T=torch.ones(2, 3)), ValueError, "T has shape"),
        (lambda: ilrma(spectrum(), H=-torch.ones(2, 2, 60)), ValueError, "positive"),
        (lambda: isa(torch.rand(5, 9), rank=6), ValueError, "rank"),
        (lambda: whiten(noise(1, 2, 500)), ValueError, "channel, time"),
        (lambda: whiten(noise(2, 500).int()), ValueError, "floating-point"),
        (lambda: fast_ica(torch.full((2, 500), torch.nan)), ValueError, "NaN"),
        (lambda: fast_ica(noise(2, 500), torch.ones(2, 2)), ValueError, "depend"),
        (lambda: fast_ica(noise(2, 500), torch.eye(3)), ValueError, "W has shape"),
        (lambda: infomax(noise(2, 500), torch.zeros(2, 2)), ValueError, "depend"),
        (lambda: infomax(noise(2, 500).pow(3), step=30.0), ValueError, "smaller"),
        (lambda: auxiva(spectrum(), W=[1.0]), TypeError, "W is list"),
        (lambda: isa(torch.rand(2, 20, 30)), ValueError, "frequency, frame"),
        (lambda: isa(torch.full((20, 30), torch.nan)), ValueError, "NaN"),
        (lambda: ISASeparator(rank=1), ValueError, "rank"),
        (lambda: ISASeparator(channels=2), ValueError, "channels"),
        (lambda: RoomSeparator(n_iter=-1), ValueError, "n_iter"),
        (lambda: RoomSeparator("ilrma", rank=0), ValueError, "rank"),
        (lambda: RoomSeparator("mvdr"), ValueError, "fdica"),
        (lambda: RoomSeparator(channels=3), ValueError, "3 microphones"),
        (lambda: RoomSeparator(channels=1, sources=("s1",)), ValueError, "at least 2"),
        (lambda: RoomSeparator()(noise(1, 1, 9000)), ValueError, "2"),
        (lambda: RoomSeparator()(noise(2, 9000)), ValueError, "mix\\[None\\]"),
        (lambda: RoomSeparator()(torch.full((1, 2, 9000), torch.nan)), ValueError, "NaN"),
    ],
)
def test_wrong_input_is_refused_in_one_line(call, kind, words):
    with pytest.raises(kind, match=words) as error:
        call()
    assert one_line(error)
