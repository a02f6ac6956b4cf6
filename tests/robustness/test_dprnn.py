"""The dual-path RNN with odd lengths, bad input, other precisions, and long recordings."""

import copy

import pytest
import torch
from nets import noise, refused, run, seconds

from sepbook.models import dprnn
from sepbook.models.dprnn import DPRNN, EDGES, HEADS, NORMS, Path, merge, segment

SMALL = {
    "n_filters": 16,
    "kernel": 16,
    "bottleneck": 12,
    "hidden": 8,
    "chunk": 10,
    "blocks": 2,
}


def small(**how) -> DPRNN:
    torch.manual_seed(0)
    return DPRNN(**SMALL | how).eval()


def test_parameter_counts():
    assert DPRNN().n_params == 2_608_065
    assert DPRNN(head="plain").n_params == 2_595_649
    assert DPRNN(kernel=16, chunk=100).n_params == 2_609_857
    assert DPRNN(n_src=3).n_params == 2_608_065 + 64 * 65


@pytest.mark.parametrize("edge", EDGES)
@pytest.mark.parametrize("size", [2, 4, 10, 250])
@pytest.mark.parametrize("frames", [1, 2, 5, 9, 10, 11, 124, 125, 126, 251])
def test_merge_undoes_segment(frames, size, edge):
    x = noise(2, frames, 3)
    chunks = segment(x, size, edge)
    assert chunks.shape[2:] == (size, 3) and chunks.is_contiguous()
    torch.testing.assert_close(merge(chunks, frames, edge), 2 * x)
    seen = segment(torch.ones(1, frames, 1), size, edge).sum()
    assert seen == 2 * frames  # each frame in exactly two chunks


def test_half_chunks_are_never_more_than_whole_ones_and_some():
    for frames in range(1, 80):
        half, whole = (segment(noise(1, frames, 1), 8, edge).shape[1] for edge in EDGES)
        assert half % 2 == 0 and half <= whole + 1
        if frames > 4:
            assert segment(noise(1, frames, 1), 8)[:, 0].abs().max() > 0
            assert segment(noise(1, frames, 1), 8, "whole")[:, 0].abs().max() == 0


@pytest.mark.parametrize(
    ("what", "words"),
    [
        (lambda: segment(noise(1, 9, 2), 5), "even"),
        (lambda: segment(noise(1, 9, 2), 0), "even"),
        (lambda: segment(noise(1, 9, 2), 4, "none"), "half, whole"),
        (lambda: merge(noise(1, 6, 4, 2), 30), "don't make 30 frames"),
        (lambda: merge(segment(noise(1, 9, 2), 4), 9, "whole"), "don't make 9 frames"),
    ],
)
def test_bad_chunks_are_refused_in_one_line(what, words):
    with refused(words):
        what()


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("n_src", [1, 2, 3])
def test_every_kind_trains(norm, head, n_src):
    torch.manual_seed(0)
    network = DPRNN(**SMALL, n_src=n_src, norm=norm, head=head, both=norm == "gLN")
    loss = network.loss(noise(2, 1, 500), noise(2, n_src, 1, 500, seed=1))
    loss.backward()
    for name, p in network.named_parameters():
        assert p.grad.isfinite().all() and p.grad.abs().max() > 0, name


def test_portions_change_nothing(monkeypatch):
    """A CPU reads many sequences in portions; values and gradients don't depend on them."""
    torch.manual_seed(0)
    path = Path(6, 8, "gLN").double()
    found = []
    for at_once in (10**6, 8, 5 * 8):
        monkeypatch.setattr(dprnn, "AT_ONCE", at_once)
        x = noise(7, 2, 11, 6, dtype=torch.float64).requires_grad_()
        y = path(x)
        found.append([y, *torch.autograd.grad(y.square().sum(), [x, *path.parameters()])])
    for other in found[1:]:
        for got, want in zip(other, found[0]):
            torch.testing.assert_close(got, want)


def test_long_recordings_need_little_memory():
    """No LSTM reads more sequences at once than the limit says."""
    network, most = small(), []
    for block in network.blocks:
        for path in (block.intra, block.inter):
            path.lstm.register_forward_pre_hook(lambda _, x: most.append(x[0].shape[1]))
    with torch.no_grad():
        network(noise(1, 1, 8 * 12_000))
    assert 0 < max(most) <= dprnn.AT_ONCE // network.blocks[0].intra.lstm.hidden_size


def test_sources_by_name():
    network = small(sources=["ada", "hal", "eve"])
    assert network.sources == ("ada", "hal", "eve") and network.n_src == 3
    assert run(network, noise(1, 1, 500)).shape[1] == 3


@pytest.mark.parametrize("blocks", [1, 2])
def test_one_direction_across_looks_ahead_by_a_chunk_and_no_more(blocks):
    network = small(both=False, norm="frame", blocks=blocks).double()
    mix = noise(1, 1, 600, dtype=torch.float64).requires_grad_()
    ahead = []
    for t in range(300, 300 + 8 * 5):
        (grad,) = torch.autograd.grad(network(mix)[0, 0, 0, t], mix)
        ahead.append(int(grad[0, 0].nonzero().max()) - t)
    assert max(ahead) == (SMALL["chunk"] - 1) * 8 + 16 - 1


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"norm": "cLN"}, "gLN"),
        ({"head": "paper"}, "gated"),
        ({"edge": "none"}, "half, whole"),
        ({"kernel": 15}, "even"),
        ({"kernel": 0}, "even"),
        ({"chunk": 15}, "even"),
        ({"blocks": 0}, "one"),
    ],
)
def test_bad_settings_are_refused_in_one_line(how, words):
    with refused(words):
        DPRNN(**SMALL | how)


def test_exact_on_a_long_loud_recording():
    """The moments of many numbers with a large mean, against double precision."""
    network, mix = small(), noise(1, 1, 40000)
    with torch.no_grad():
        network.bottleneck.bias.add_(10)
    wide = run(copy.deepcopy(network).double(), mix.double()).float()
    error = (run(network, mix) - wide).abs().max() / wide.abs().max()
    assert error < 1e-5


def test_cost_is_linear_in_length():
    network = small()
    seconds(network, 8000)
    assert seconds(network, 8000 * 40) < 3 * 8 * seconds(network, 8000 * 5)
