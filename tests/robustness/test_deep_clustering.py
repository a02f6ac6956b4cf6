"""Deep clustering: the loss against its definition, its memory, k-means, and hard inputs."""

import copy
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.nn.functional import normalize, one_hot

from sepbook.metrics import evaluate
from sepbook.mixtures import Mixture
from sepbook.models.deep_clustering import (
    Chimera,
    DeepClustering,
    active_bins,
    affinity_loss,
    bin_weights,
    cluster_masks,
    deep_clustering_loss,
    dominant_source,
    kmeans,
    log_magnitude,
    mask_loss,
    whitened_loss,
)

TINY = dict(n_fft=64, hop=32, hidden=8, layers=1, dim=5)
NETWORKS = [DeepClustering, Chimera]


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def bins(batch=2, n=150, dim=7, n_src=2, seed=0, dtype=torch.float64):
    draw = torch.Generator().manual_seed(seed)
    V = normalize(torch.randn(batch, n, dim, generator=draw, dtype=dtype), dim=-1)
    Y = one_hot(torch.randint(0, n_src, (batch, n), generator=draw), n_src)
    return V, Y, torch.rand(batch, n, generator=draw, dtype=dtype)


def build(cls, **changes):
    torch.manual_seed(0)
    return cls(**(TINY | changes))


def one_line(error):
    return "\n" not in str(error.value) and len(str(error.value)) < 200


def gradient(loss, V, *rest):
    V = V.clone().requires_grad_()
    return torch.autograd.grad(loss(V, *rest), V)[0]


@pytest.mark.parametrize("n_src", [1, 2, 3, 5])
@pytest.mark.parametrize("weighted", [True, False])
def test_equal_to_the_definition(n_src, weighted):
    for seed in range(4):
        V, Y, w = bins(n_src=n_src, seed=seed)
        rest = (Y, w) if weighted else (Y,)
        torch.testing.assert_close(
            deep_clustering_loss(V, *rest), affinity_loss(V, *rest), rtol=1e-12, atol=1e-14
        )
        got, want = (gradient(f, V, *rest) for f in (deep_clustering_loss, affinity_loss))
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-15)


def test_definition_by_loops():
    V, Y, w = bins(1, 12, 3)
    pairs = [
        w[0, i] * w[0, j] * ((V[0, i] @ V[0, j]) - float((Y[0, i] * Y[0, j]).sum())) ** 2
        for i in range(12)
        for j in range(12)
    ]
    want = sum(pairs) / w.sum() ** 2
    assert deep_clustering_loss(V, Y, w).item() == pytest.approx(want.item(), rel=1e-12)


def test_single_precision_keeps_five_digits():
    V, Y, w = bins(1, 3000, 40, dtype=torch.float32)
    got, want = deep_clustering_loss(V, Y, w), affinity_loss(V.double(), Y, w)
    assert abs(got.item() - want.item()) < 1e-6
    labels = torch.arange(129 * 501) % 7 % 2  # 4 s at 8 kHz: one long sum would lose digits
    for V in (torch.eye(40)[labels][None], bins(1, len(labels), 40, dtype=torch.float32)[0]):
        got, want = (deep_clustering_loss(x, one_hot(labels)[None]).item() for x in (V, V.double()))
        assert abs(got - want) < 5e-6


def test_gradient_of_the_whitened_loss():
    V, Y, w = bins(2, 20, 4)
    V = (2 * V).requires_grad_()
    assert torch.autograd.gradcheck(lambda v: whitened_loss(v, Y, w), (V,))
    assert 0 < whitened_loss(V, Y, w) < 1


def test_whitening_is_indifferent_to_linear_maps():
    V, Y, w = bins(2, 200, 4)
    mapped = V @ noise(4, 4).double()
    got, want = (whitened_loss(x, Y, w, floor=1e-12) for x in (mapped, V))
    torch.testing.assert_close(got, want, rtol=1e-6, atol=0)


@pytest.mark.parametrize("loss", [deep_clustering_loss, whitened_loss])
def test_order_scale_and_batch(loss):
    V, Y, w = bins(3)
    value = loss(V, Y, w)
    shuffle = torch.randperm(V.shape[1], generator=torch.Generator().manual_seed(1))
    close = dict(rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(loss(V, Y.flip(-1), w), value, **close)  # other names
    torch.testing.assert_close(loss(V[:, shuffle], Y[:, shuffle], w[:, shuffle]), value, **close)
    torch.testing.assert_close(loss(V, Y, 1000 * w), value, **close)  # scale of the weights
    twice = (torch.cat([x, x], 1) for x in (V, Y, w))
    torch.testing.assert_close(loss(*twice), value, **close)  # the length
    alone = torch.stack([loss(V[k : k + 1], Y[k : k + 1], w[k : k + 1]) for k in range(3)])
    torch.testing.assert_close(alone.mean(), value, **close)


@pytest.mark.parametrize("loss", [deep_clustering_loss, whitened_loss])
def test_bins_without_weight_do_not_count(loss):
    V, Y, w = bins()
    w[:, :50] = 0
    other = V.clone()
    other[:, :50] = normalize(noise(2, 50, 7, seed=9).double(), dim=-1)
    torch.testing.assert_close(loss(other, Y, w), loss(V, Y, w), rtol=1e-12, atol=0)
    assert not gradient(loss, V, Y, w)[:, :50].any()


@pytest.mark.parametrize("loss", [deep_clustering_loss, whitened_loss])
def test_no_weight_at_all(loss):
    V, Y, w = bins(dtype=torch.float32)
    w[0] = 0
    assert loss(V, Y, w).isfinite()
    slope = gradient(loss, V, Y, w)
    assert slope.isfinite().all() and not slope[0].any() and slope[1].any()
    assert deep_clustering_loss(V[:1], Y[:1], w[:1]) == 0


def test_a_source_that_never_dominates():
    V, Y, w = bins()
    padded = torch.cat([Y, torch.zeros_like(Y[..., :1])], -1)
    assert torch.equal(deep_clustering_loss(V, padded, w), deep_clustering_loss(V, Y, w))
    explained = [n * (1 - whitened_loss(V, y, w)) for n, y in ((3, padded), (2, Y))]
    torch.testing.assert_close(*explained)


def test_loss_leaves_autocast():
    V, Y, w = bins(dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        inside = deep_clustering_loss(V, Y, w), whitened_loss(V, Y, w)
    outside = deep_clustering_loss(V, Y, w), whitened_loss(V, Y, w)
    assert inside == outside
    assert deep_clustering_loss(V.bfloat16(), Y, w).dtype == torch.float32


def test_wrong_shapes_are_one_line():
    V, Y, w = bins()
    for loss in (deep_clustering_loss, affinity_loss, whitened_loss):
        for given in ((V, Y[:, 1:], w), (V[0], Y[0], w), (V, Y, w[:, 1:]), (V, Y.mT, w)):
            with pytest.raises(ValueError) as error:
                loss(*given)
            assert one_line(error)


MEMORY = """
import sys, torch
from pathlib import Path
from torch.nn.functional import normalize, one_hot
from sepbook.models.deep_clustering import deep_clustering_loss
torch.set_num_threads(1)
def once(n):
    V = normalize(torch.randn(1, n, 40), dim=-1).requires_grad_()
    deep_clustering_loss(V, one_hot(torch.arange(n)[None] % 2, 2).float()).backward()
def peak():  # in kB; getrusage would count the parent's memory too
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
once(1000)
before = peak()
once(int(sys.argv[1]))
print(peak() - before)
"""


def peak_kilobytes(n):
    run = [sys.executable, "-c", MEMORY, str(n)]
    return int(subprocess.run(run, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_memory_is_linear_in_the_bins():
    """4 s at 8 kHz, D = 40: the process grows by megabytes where the pairs would take 17 GB."""
    n = 129 * 501
    grown, doubled = peak_kilobytes(n), peak_kilobytes(4 * n)
    assert grown < 150_000, f"{grown} kB"
    assert doubled < 5 * max(grown, 40_000), f"{grown} and {doubled} kB"


def test_kept_tensors_are_linear_in_the_bins():
    def kept(n):
        V, found = torch.rand(1, n, 40, requires_grad=True), {}
        pack = lambda t: found.update({t.data_ptr(): t.numel()}) or t
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            value = deep_clustering_loss(V, torch.eye(2)[torch.arange(n) % 2][None])
        assert value.requires_grad
        return sum(found.values())

    assert kept(4000) < 4.05 * kept(1000) and kept(4000) < 100 * 4000


# --- k-means -------------------------------------------------------------------------------------


def blobs(batch=2, k=3, each=60, dim=6, spread=0.15, seed=0):
    centres = 3 * noise(batch, k, dim, seed=seed)
    return centres.repeat_interleave(each, 1) + spread * noise(batch, k * each, dim, seed=seed + 1)


def inertia(points, found, weight):
    at = torch.take_along_dim(found.centres, found.labels[..., None], 1)
    return (weight * (points - at).square().sum(-1)).sum(1)


def test_kmeans_finds_blobs_and_is_consistent():
    points = blobs()
    found = kmeans(points, 3)
    for labels in found.labels:
        parts = labels.reshape(3, 60)
        assert all(part.unique().numel() == 1 for part in parts) and labels.unique().numel() == 3
    torch.testing.assert_close(found.inertia, inertia(points, found, torch.ones(2, 180)))
    nearest = torch.cdist(points, found.centres).argmin(-1)
    assert torch.equal(nearest, found.labels)


def test_kmeans_as_good_as_sklearn():
    from sklearn.cluster import KMeans

    for seed in range(5):
        points, weight = noise(1, 400, 5, seed=seed), torch.rand(1, 400)
        ours = kmeans(points, 4, weight, n_iter=300, restarts=10).inertia.item()
        best = KMeans(4, n_init=10, random_state=0)
        best.fit(points[0].numpy(), sample_weight=weight[0].numpy())
        assert ours < best.inertia_ * 1.02


def test_kmeans_is_the_same_every_time_alone_or_in_a_batch():
    points = noise(3, 200, 5)
    state = torch.get_rng_state()
    once = kmeans(points, 3)
    assert torch.equal(torch.get_rng_state(), state)  # nobody else's random numbers are touched
    torch.manual_seed(5)
    again, alone = kmeans(points, 3), kmeans(points[1:2], 3)
    assert all(torch.equal(a, b) for a, b in zip(once, again))
    assert torch.equal(alone.labels[0], once.labels[1])


def test_kmeans_rotation_and_weights():
    points = blobs(1)
    turn = torch.linalg.qr(noise(6, 6, seed=3)).Q
    together = [
        x[0][:, None] == x[0] for x in (kmeans(points @ turn, 3).labels, kmeans(points, 3).labels)
    ]
    assert torch.equal(*together)
    weight = torch.ones(1, 180)
    weight[0, 7] = 0
    far = points.clone()
    far[0, 7] = 1e3  # a point without weight pulls no centre
    torch.testing.assert_close(kmeans(far, 3, weight).centres, kmeans(points, 3, weight).centres)
    twice = kmeans(torch.cat([points, points[:, :60]], 1), 3)
    weight = 1 + (torch.arange(180) < 60).float()[None]
    doubled = kmeans(points, 3, weight)
    torch.testing.assert_close(doubled.inertia, twice.inertia)
    torch.testing.assert_close(doubled.centres[:, 0], twice.centres[:, 0])


def test_kmeans_heaviest_cluster_first():
    points = blobs(2)
    weight = torch.ones(2, 180)
    weight[0, 60:120], weight[1, 120:] = 5, 5
    labels = kmeans(points, 3, weight).labels
    assert not labels[0, 60:120].any() and not labels[1, 120:].any()


@pytest.mark.parametrize("n", [1, 2])
def test_kmeans_with_fewer_points_than_clusters(n):
    found = kmeans(noise(2, n, 4), 5)
    assert found.labels.shape == (2, n) and found.labels.max() < 5
    assert all(x.isfinite().all() for x in found)
    assert torch.allclose(found.inertia, torch.zeros(2), atol=1e-5)


def test_kmeans_with_fewer_active_points_than_clusters():
    points, weight = noise(2, 50, 4), torch.zeros(2, 50)
    weight[0, 3] = 1
    found = kmeans(points, 3, weight)
    assert all(x.isfinite().all() for x in found)
    assert torch.allclose(found.centres[0], points[0, 3].expand(3, 4))  # nowhere else to go


def test_kmeans_of_equal_points():
    found = kmeans(torch.ones(1, 30, 4), 3)
    assert found.labels.unique().numel() == 1 and found.inertia.item() == 0


def test_kmeans_refuses_nonsense():
    for given in ((noise(20, 4), 2), (noise(1, 20, 4), 0), (noise(1, 0, 4), 2)):
        with pytest.raises(ValueError) as error:
            kmeans(*given)
        assert one_line(error)


# --- bins, features, masks -----------------------------------------------------------------------


def test_bin_order_is_frequency_then_frame():
    """One loud bin must be the same one in the weights, the targets and the embeddings."""
    mag = torch.zeros(1, 5, 3)
    mag[0, 4, 1] = 1
    for kind in ("active", "ratio"):
        assert bin_weights(mag, kind)[0].nonzero().item() == 4 * 3 + 1
    src = torch.stack([torch.full((5, 3), 0.5), mag[0]])[None]
    assert dominant_source(src)[0, :, 1].nonzero().item() == 4 * 3 + 1
    model = build(DeepClustering)
    states = noise(1, 3, 16)
    vectors = model.embedding(states).reshape(33, 3, 5)
    rows = model.embedding.linear(states)[0, 1].reshape(33, 5)
    torch.testing.assert_close(vectors[:, 1], normalize(rows.tanh(), dim=-1))


def test_active_bins_and_weights():
    mag = torch.tensor([[[1.0, 0.011, 0.009, 0.0]]])
    assert active_bins(mag).tolist() == [[[True, True, False, False]]]
    assert not active_bins(torch.zeros(2, 3, 4)).any()
    assert bin_weights(mag, "none").tolist() == [[1, 1, 1, 1]]
    with pytest.raises(ValueError) as error:
        bin_weights(mag, "loud")
    assert one_line(error)


def test_features_know_no_level():
    spec = torch.complex(noise(2, 33, 20), noise(2, 33, 20, seed=1))
    features = log_magnitude(spec)
    assert features.shape == (2, 20, 33)
    for gain in (1e-5, 1e3):
        torch.testing.assert_close(log_magnitude(gain * spec), features, rtol=1e-3, atol=1e-4)
    assert log_magnitude(torch.zeros(1, 33, 20, dtype=torch.complex64)).isfinite().all()
    loud = features.mT[active_bins(spec.abs())]
    assert abs(loud.mean()) < 0.05 and 0.7 < loud.std() < 1


def test_mask_loss_takes_the_better_order():
    src = torch.complex(noise(2, 3, 9, 8), noise(2, 3, 9, 8, seed=1))
    mix = src.sum(1)
    mask = torch.rand(2, 3, 9, 8)
    value = mask_loss(mask, mix, src)
    torch.testing.assert_close(mask_loss(mask[:, [2, 0, 1]], mix, src), value)
    torch.testing.assert_close(mask_loss(mask, mix, src[:, [1, 2, 0]]), value)
    ratio = (src / mix[:, None]).real.clamp(0, 1)
    assert mask_loss(ratio, mix, src) < 1e-6
    assert mask_loss(mask, 0 * mix, 0 * src) == 0


# --- the networks --------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", NETWORKS)
@pytest.mark.parametrize("n_src", [2, 3])
@pytest.mark.parametrize("time", [1, 40, 64, 1000, 1001])
def test_any_length(cls, n_src, time):
    # float64: an untrained network's clusters hang on the last digits, and those on the batch
    model = build(cls, n_src=n_src).eval().double()
    mix = noise(2, 1, time).double()
    est = model(mix)
    assert est.shape == (2, n_src, 1, time) and model.sources == ("s1", "s2", "s3")[:n_src]
    assert torch.allclose(est.sum(1), mix, atol=1e-5)  # the masks add up to one
    assert torch.allclose(model(mix[:1]), est[:1], atol=1e-5)  # whatever else is in the batch


def test_both_heads():
    model = build(Chimera).eval()
    mix = noise(1, 1, 2000)
    soft = model(mix)
    model.head = "cluster"
    hard = model(mix)
    spec = model.body.spectrum(mix)
    mask = cluster_masks(model.embed(mix), spec.abs(), 2)
    assert set(mask.unique().tolist()) == {0, 1} and (mask.sum(1) == 1).all()
    assert not torch.allclose(soft, hard)
    torch.testing.assert_close(hard, model.body.waves(mask, spec, 2000))
    assert build(Chimera, head="cluster").head == "cluster"


@pytest.mark.parametrize("cls", NETWORKS)
def test_sources_by_name(cls):
    model = build(cls, sources=["she", "he", "it"]).eval()
    assert model.sources == ("she", "he", "it") and cls(**model.config).sources == model.sources
    assert model(noise(1, 1, 500)).shape == (1, 3, 1, 500)
    for bad in (["she"], ["she", "she"], "she"):
        with pytest.raises(ValueError) as error:
            build(cls, sources=bad)
        assert one_line(error)


def test_the_names_of_the_weights():
    """Files of weights that ship, or that readers have made, must go on fitting."""
    body = {
        f"body.lstm.{kind}_{gate}_l0{way}"
        for kind in ("weight", "bias")
        for gate in ("ih", "hh")
        for way in ("", "_reverse")
    }
    body |= {"embedding.linear.weight", "embedding.linear.bias"}
    assert set(build(DeepClustering).state_dict()) == body
    assert set(build(Chimera).state_dict()) == body | {"mask.weight", "mask.bias"}


def test_clustering_into_another_number():
    model = build(DeepClustering).eval()
    assert model(noise(1, 1, 500), n_src=4).shape == (1, 4, 1, 500)
    assert model.embed(noise(1, 1, 500)).norm(dim=-1).allclose(torch.ones(1, 33 * 16))


@pytest.mark.parametrize("cls", NETWORKS)
@pytest.mark.parametrize("how", [{}, {"whitened": True}, {"weights": "ratio"}])
def test_silence(cls, how):
    model = build(cls, **how)
    silent = torch.zeros(2, 1, 800)
    assert not model.eval()(silent).any()
    model.train()
    mix = torch.stack([noise(1, 800), silent[0]])
    src = torch.stack([mix, torch.zeros_like(mix)], 1)  # the second voice says nothing
    for value in (model.loss(mix, src), model.loss(silent, torch.zeros(2, 2, 1, 800))):
        model.zero_grad()
        value.backward()
        assert value.isfinite()
        assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("cls", NETWORKS)
def test_loss_ignores_order_and_level(cls):
    model = build(cls)
    src = noise(2, 2, 1, 800)
    value = model.loss(src.sum(1), src)
    torch.testing.assert_close(model.loss(src.sum(1), src.flip(1)), value)
    torch.testing.assert_close(model.loss(0.01 * src.sum(1), 0.01 * src), value, rtol=1e-4, atol=0)


def test_alpha_weighs_the_heads():
    src = noise(1, 2, 1, 800)
    values = [build(Chimera, alpha=a).loss(src.sum(1), src) for a in (0.0, 1.0, 0.3)]
    torch.testing.assert_close(values[2], 0.7 * values[0] + 0.3 * values[1])


def test_number_of_sources():
    mix, three = noise(1, 1, 800), noise(1, 3, 1, 800)
    assert build(DeepClustering).loss(mix, three).isfinite()  # any number of voices
    with pytest.raises(ValueError) as error:
        build(Chimera).loss(mix, three)
    assert one_line(error) and "n_src" in str(error.value)
    for cls in NETWORKS:
        with pytest.raises(ValueError) as error:
            build(cls).loss(mix, three[..., :700])
        assert one_line(error)


@pytest.mark.parametrize("cls", NETWORKS)
def test_refuses_nonsense(cls):
    choices = {"n_src": 1, "weights": "loud"}
    choices |= {"activation": "relu"} if cls is DeepClustering else {"squash": "relu", "head": "x"}
    for key, value in choices.items():
        with pytest.raises(ValueError) as error:
            build(cls, **{key: value})
        assert one_line(error)
    model = build(cls).eval()
    bad = noise(1, 1, 800)
    bad[0, 0, 5] = torch.nan
    for wrong in (bad, noise(1, 2, 800), noise(1, 800), noise(1, 1, 800).double()):
        for call in (model, model.embed):
            with pytest.raises((ValueError, TypeError)) as error:
                call(wrong)
            assert one_line(error)


@pytest.mark.parametrize("cls", NETWORKS)
def test_double_copy_pickle_config(cls):
    model = build(cls).eval()
    mix = noise(1, 1, 800)
    want = model(mix)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(twin(mix), want)
    fresh = cls(**model.config).eval()
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(fresh(mix), want)
    assert model.double()(mix.double()).dtype == torch.float64


@pytest.mark.parametrize("cls", NETWORKS)
def test_trains_under_autocast(cls):
    model = build(cls)
    src = noise(2, 2, 1, 800)
    with torch.autocast("cpu", torch.bfloat16):
        value = model.loss(src.sum(1), src)
    value.backward()
    assert abs(value.item() - model.loss(src.sum(1), src).item()) < 0.05
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_published_sizes():
    with torch.device("meta"):
        assert DeepClustering().n_params == 18_355_560
        assert DeepClustering(hidden=300, layers=4).n_params == 10_629_960
        assert Chimera().n_params == 32_866_038


@pytest.mark.parametrize("cls", NETWORKS)
def test_every_parameter_learns(cls):
    model = build(cls)
    src = noise(2, 2, 1, 800)
    model.loss(src.sum(1), src).backward()
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())


def test_overfits_one_mixture():
    """Two chirps that cross: no band belongs to one of them, but both heads tell them apart."""
    t = torch.arange(4000) / 8000
    src = torch.stack(
        [torch.sin(6.28 * (300 + 1500 * t) * t), torch.sin(6.28 * (1800 - 1500 * t) * t)]
    )
    src = 0.3 * src[None, :, None]
    torch.manual_seed(0)
    model = Chimera(n_fft=128, hop=32, hidden=24, layers=1, dim=6)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        model.loss(src.sum(1), src).backward()
        optimizer.step()
    item = Mixture(src.sum(1)[0], src[0], ("s1", "s2"), 8000)
    for model.eval().head in ("mask", "cluster"):
        assert evaluate(model, item)["si_sdri"].mean() > 8
