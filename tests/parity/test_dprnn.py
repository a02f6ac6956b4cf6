"""The dual-path RNN with asteroid's weights: the same chunks, the same outputs."""

import io
import warnings

import pytest
import torch
from nets import peer, same_outputs, shaken, signals

from sepbook.engine.names import PUBLISHED
from sepbook.engine.weights import translate, translators
from sepbook.models.dprnn import DPRNN, merge, segment
from sepbook.zoo import import_weights, read_weights

ASTEROID_NORMS = {"gLN": "gLN", "frame": "cLN"}
SMALL = {
    "n_filters": 24,
    "kernel": 16,
    "bottleneck": 20,
    "hidden": 12,
    "chunk": 18,
    "blocks": 2,
}
AS_ASTEROID = {"edge": "whole", "pad": False}


def asteroid(norm: str = "gLN", mask: str = "sigmoid", n_src: int = 2, both: bool = True, **size):
    """Asteroid's network with our names for the sizes; skipped where it is not installed."""
    return peer("asteroid.models").DPRNNTasNet(
        n_src,
        n_filters=size["n_filters"],
        kernel_size=size["kernel"],
        stride=size["kernel"] // 2,
        bn_chan=size["bottleneck"],
        hid_size=size["hidden"],
        chunk_size=size["chunk"],
        n_repeats=size["blocks"],
        norm_type=ASTEROID_NORMS[norm],
        mask_act=mask,
        bidirectional=both,
    )


@pytest.mark.parametrize("norm", ["gLN", "frame"])
@pytest.mark.parametrize("both", [True, False])
def test_asteroid(norm, both):
    theirs = shaken(asteroid(norm, both=both, **SMALL))
    ours = DPRNN(**SMALL, norm=norm, both=both, **AS_ASTEROID).eval()
    import_weights(ours, theirs.state_dict(), "asteroid")
    same_outputs(ours, theirs)


@pytest.mark.parametrize(("mask", "n_src"), [("relu", 3), ("relu", 2), ("sigmoid", 1)])
def test_asteroid_masks(mask, n_src):
    """Not softmax: asteroid shares it among the filters of a mask, ours among the sources."""
    theirs = shaken(asteroid(mask=mask, n_src=n_src, **SMALL))
    ours = DPRNN(n_src, **SMALL, mask=mask, **AS_ASTEROID).eval()
    import_weights(ours, theirs.state_dict(), "asteroid")
    same_outputs(ours, theirs)


def test_asteroid_gradients():
    """In double precision, where nothing hides behind rounding; our names for both."""
    theirs = shaken(asteroid(**SMALL)).double()
    ours = DPRNN(**SMALL, **AS_ASTEROID).double()
    import_weights(ours, theirs.state_dict(), "asteroid")
    mix = signals()["voices"][..., :1501].double()
    draw = torch.Generator().manual_seed(2)
    weight = torch.randn(3, 2, mix.shape[-1], generator=draw, dtype=torch.float64)
    (ours(mix)[:, :, 0] * weight).sum().backward()
    (theirs(mix) * weight).sum().backward()
    want = translate(ours, {k: p.grad for k, p in theirs.named_parameters()}, "asteroid")
    for name, p in ours.named_parameters():
        error = (p.grad - want[name]).abs().max() / want[name].abs().max().clamp(min=1e-12)
        assert error < 1e-5, (name, error)


@pytest.mark.parametrize(
    ("kernel", "chunk", "bottleneck", "count"),
    [(2, 250, 64, 2_608_065), (16, 100, 64, 2_609_857), (16, 100, 128, 3_652_865)],
)
def test_asteroid_at_the_paper_size(kernel, chunk, bottleneck, count):
    size = {"n_filters": 64, "kernel": kernel, "bottleneck": bottleneck}
    size |= {"hidden": 128, "chunk": chunk, "blocks": 6}
    theirs = shaken(asteroid(**size))
    ours = DPRNN(kernel=kernel, chunk=chunk, bottleneck=bottleneck, **AS_ASTEROID).eval()
    assert ours.n_params == sum(p.numel() for p in theirs.parameters()) == count
    import_weights(ours, theirs.state_dict(), "asteroid")
    same_outputs(ours, theirs, *(["odd"] if kernel == 2 else ["odd", "voices"]))


def test_asteroid_reads_the_file_that_it_writes(tmp_path):
    """A checkpoint as asteroid's serialize() makes it, with more in it than tensors."""
    theirs = shaken(asteroid(**SMALL))
    buffer = io.BytesIO()
    story = {"model_name": "DPRNNTasNet", "model_args": {"n_src": 2}, "infos": {}}
    torch.save({"state_dict": theirs.state_dict()} | story, buffer)
    (tmp_path / "pytorch_model.bin").write_bytes(buffer.getvalue())
    ours = DPRNN(**SMALL, **AS_ASTEROID).eval()
    import_weights(ours, read_weights(tmp_path / "pytorch_model.bin"), "asteroid")
    same_outputs(ours, theirs, "odd")


@pytest.mark.parametrize("change", [{"blocks": 3}, {"hidden": 13}, {"n_filters": 25}])
def test_another_size_is_refused(change):
    theirs = asteroid(**SMALL | change)
    ours = DPRNN(**SMALL, **AS_ASTEROID)
    before = {k: v.clone() for k, v in ours.state_dict().items()}
    with pytest.raises(ValueError) as error:
        import_weights(ours, theirs.state_dict(), "asteroid")
    assert "\n" not in str(error.value)
    assert all(torch.equal(v, before[k]) for k, v in ours.state_dict().items())


def test_published_checkpoints_name_what_they_need():
    for name, entry in PUBLISHED["DPRNN"].items():
        assert name.startswith("hf:") and entry["peer"] in translators(DPRNN) and entry["licence"]
        network = DPRNN(**entry["config"])
        assert network.edge == "whole" and not network.pad
        assert network.n_params > 3_600_000


@pytest.mark.parametrize("size", [2, 6, 10])
@pytest.mark.parametrize("frames", [1, 4, 5, 6, 9, 10, 11, 43])
def test_chunks_are_asteroids(size, frames):
    """Asteroid cuts with torch's unfold and merges with fold, padded by a whole chunk."""
    x = torch.randn(2, frames, 3, generator=torch.Generator().manual_seed(0))
    how = {"kernel_size": (size, 1), "padding": (size, 0), "stride": (size // 2, 1)}
    want = torch.nn.functional.unfold(x.mT[..., None], **how)
    got = segment(x, size, "whole")
    assert torch.equal(got, want.view(2, 3, size, -1).permute(0, 3, 2, 1))
    other = torch.randn(got.shape, generator=torch.Generator().manual_seed(1))
    flat = other.permute(0, 3, 2, 1).reshape(2, 3 * size, -1)
    back = torch.nn.functional.fold(flat, (frames, 1), **how)[..., 0].mT
    torch.testing.assert_close(merge(other, frames, "whole"), back)


@pytest.mark.parametrize("size", [2, 6, 10])
@pytest.mark.parametrize("frames", [1, 4, 5, 6, 9, 10, 11, 43])
def test_chunks_are_speechbrains(size, frames):
    """Speechbrain pads by half a chunk and more, and interleaves two rows of whole chunks."""
    reason = "speechbrain is not installed: run `make parity`"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dual = pytest.importorskip("speechbrain.lobes.models.dual_path", reason=reason)
    cut = dual.Dual_Path_Model._Segmentation
    join = dual.Dual_Path_Model._over_add
    model = type("Cut", (), {"_padding": dual.Dual_Path_Model._padding})()
    x = torch.randn(2, frames, 3, generator=torch.Generator().manual_seed(0))
    want, gap = cut(model, x.mT, size)
    got = segment(x, size)
    assert torch.equal(got, want.permute(0, 3, 2, 1))
    other = torch.randn(got.shape, generator=torch.Generator().manual_seed(1))
    back = join(model, other.permute(0, 3, 2, 1), gap).mT
    torch.testing.assert_close(merge(other, frames), back)
