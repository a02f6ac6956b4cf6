"""The dual-path RNN with odd lengths, bad input, other precisions, and long recordings."""

import copy
import time

import pytest
import torch

from sepbook.learner import Learner
from sepbook.models import dprnn
from sepbook.models.dprnn import DPRNN, EDGES, HEADS, NORMS, Path, merge, segment
from sepbook.zoo import import_weights, load, save

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


def noise(*shape: int, seed: int = 0, dtype=torch.float32) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def run(network, mix) -> torch.Tensor:
    with torch.no_grad():
        return network(mix)


def one_line(error) -> bool:
    return "\n" not in str(error.value)


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
        (lambda: segment(noise(1, 9, 2), 4, "none"), "half or whole"),
        (lambda: merge(noise(1, 6, 4, 2), 30), "don't make 30 frames"),
        (lambda: merge(segment(noise(1, 9, 2), 4), 9, "whole"), "don't make 9 frames"),
    ],
)
def test_bad_chunks_are_refused_in_one_line(what, words):
    with pytest.raises(ValueError, match=words) as error:
        what()
    assert one_line(error)


@pytest.mark.parametrize("edge", EDGES)
@pytest.mark.parametrize("pad", [True, False])
@pytest.mark.parametrize("length", [1, 7, 8, 15, 16, 17, 100, 777])
def test_any_length(length, pad, edge):
    est = run(small(pad=pad, edge=edge), noise(3, 1, length))
    assert est.shape == (3, 2, 1, length) and est.isfinite().all()


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


@pytest.mark.parametrize("objective", ["si_sdr", "snr"])
def test_silence_gives_silence_and_finite_gradients(objective):
    network = small(objective=objective)
    assert run(network, torch.zeros(1, 1, 300)).abs().max() == 0
    network.train().loss(torch.zeros(1, 1, 300), torch.zeros(1, 2, 1, 300)).backward()
    assert all(p.grad.isfinite().all() for p in network.parameters())


def test_level_scales_through():
    network, mix = small(), noise(1, 1, 800)
    torch.testing.assert_close(run(network, 8 * mix), 8 * run(network, mix), rtol=1e-4, atol=1e-5)


def test_items_of_a_batch_are_alone():
    network, mix = small(), noise(4, 1, 500)
    alone = torch.cat([run(network, one[None]) for one in mix])
    torch.testing.assert_close(run(network, mix), alone, rtol=1e-4, atol=1e-6)


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


def test_long_recordings_need_little_memory(monkeypatch):
    """No LSTM reads more sequences at once than the limit says."""
    read, most = dprnn.recurrent, []
    monkeypatch.setattr(
        dprnn, "recurrent", lambda lstm, x: most.append(x.shape[1]) or read(lstm, x)
    )
    network = small()
    with torch.no_grad():
        network(noise(1, 1, 8 * 12_000))
    assert max(most) <= dprnn.AT_ONCE // network.blocks[0].intra.lstm.hidden_size


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
    ("mix", "words"),
    [
        (noise(1, 2, 100), "channels"),
        (noise(1, 100), "batch, channel, time"),
        (noise(1, 1, 0), "shape"),
        (noise(0, 1, 100), "shape"),
        (noise(1, 1, 100) * torch.nan, "NaN"),
        (noise(1, 1, 100).double(), "float64"),
        (noise(1, 1, 100).half(), "float16"),
        (torch.ones(1, 1, 100, dtype=torch.int16), "floating-point"),
    ],
)
def test_bad_input_is_refused_in_one_line(mix, words):
    with pytest.raises((ValueError, TypeError), match=words) as error:
        small()(mix)
    assert one_line(error)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"norm": "cLN"}, "use gLN"),
        ({"mask": "tanh"}, "use sigmoid"),
        ({"head": "paper"}, "use gated"),
        ({"encoder": "tanh"}, "use linear"),
        ({"objective": "mse"}, "use si_sdr"),
        ({"edge": "none"}, "half or whole"),
        ({"kernel": 15}, "even"),
        ({"kernel": 0}, "even"),
        ({"chunk": 15}, "even"),
        ({"blocks": 0}, "one"),
    ],
)
def test_bad_settings_are_refused_in_one_line(how, words):
    with pytest.raises(ValueError, match=words) as error:
        DPRNN(**SMALL | how)
    assert one_line(error)


@pytest.mark.parametrize("norm", NORMS)
def test_other_precisions(norm):
    network, mix = small(norm=norm), noise(1, 1, 500)
    want = run(network, mix)
    wide = run(copy.deepcopy(network).double(), mix.double())
    torch.testing.assert_close(wide.float(), want, rtol=1e-4, atol=1e-5)
    for kind, part in ((torch.bfloat16, 0.1), (torch.float16, 0.02)):
        half = run(copy.deepcopy(network).to(kind), mix.to(kind))
        assert half.dtype == kind and (half.float() - want).abs().max() < part * want.abs().max()


@pytest.mark.parametrize("norm", NORMS)
def test_training_under_autocast(norm):
    network, mix = small(norm=norm).train(), noise(1, 1, 500)
    with torch.autocast("cpu", torch.bfloat16):
        est = network(mix)
        loss = network.loss(mix, noise(1, 2, 1, 500))
    loss.backward()
    assert est.isfinite().all() and loss.isfinite()
    want = run(network, mix)
    assert (est.float() - want).abs().max() < 0.1 * want.abs().max()


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

    def seconds(length: int) -> float:
        best = []
        for _ in range(3):
            started = time.process_time()
            run(network, noise(1, 1, length))
            best.append(time.process_time() - started)
        return min(best)

    seconds(8000)
    assert seconds(8000 * 40) < 3 * 8 * seconds(8000 * 5)


def test_saves_loads_and_learns(tmp_path):
    network = small(n_src=3, objective="snr")
    save(network, tmp_path / "net.safetensors", {"data": "noise"})
    again = load(tmp_path / "net.safetensors")
    assert again.config == network.config and again.sources == ("s1", "s2", "s3")
    mix = noise(1, 1, 300)
    torch.testing.assert_close(run(again, mix), run(network, mix))
    data = [(m, s) for m, s in zip(noise(4, 1, 300), noise(4, 3, 1, 300, seed=1))]
    log = Learner(network, data, batch_size=2).fit(steps=2, progress=False)
    assert log.loss.notna().any()


def test_foreign_weights_that_do_not_fit():
    for state, peer in (({"a": torch.ones(3)}, "asteroid"), (small().state_dict(), "asteroid")):
        with pytest.raises(ValueError, match="asteroid") as error:
            import_weights(small(), state, peer)
        assert one_line(error)
    with pytest.raises(ValueError, match="torchaudio") as error:
        import_weights(small(), {"a": torch.ones(3)}, "torchaudio")
    assert one_line(error)
