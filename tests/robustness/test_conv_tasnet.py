"""Conv-TasNet with odd lengths, bad input, other precisions, streams, and other formats."""

import copy
import io

import pytest
import torch
from nets import noise, refused, run, seconds

from sepbook.models.conv_tasnet import NORMS, ConvTasNet, Stream
from sepbook.zoo import import_weights

SMALL = {
    "n_filters": 24,
    "kernel": 16,
    "bottleneck": 12,
    "hidden": 20,
    "skip": 8,
    "blocks": 3,
    "repeats": 2,
}


def small(**how) -> ConvTasNet:
    torch.manual_seed(0)
    return ConvTasNet(**SMALL | how).eval()


def test_parameter_counts():
    assert ConvTasNet().n_params == 5_050_545
    assert ConvTasNet(last_residual=False).n_params == 4_984_881
    assert ConvTasNet(skip=0).n_params == 3_474_609


def test_sources_by_name():
    network = small(sources=["anna", "ben", "cleo"])
    assert network.sources == ("anna", "ben", "cleo") and network.n_src == 3
    assert ConvTasNet(**network.config).sources == network.sources


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("n_src", [1, 2, 3])
def test_every_norm_trains(norm, n_src):
    torch.manual_seed(0)
    network = ConvTasNet(**SMALL, n_src=n_src, norm=norm)
    loss = network.loss(noise(2, 1, 500), noise(2, n_src, 1, 500, seed=1))
    loss.backward()
    unused = {f"blocks.5.out.{leaf}" for leaf in ("weight", "bias")}
    for name, p in network.named_parameters():
        assert p.grad.isfinite().all(), name
        assert name in unused or p.grad.abs().max() > 0, name


@pytest.mark.parametrize("norm", ["gLN", "cLN", "frame"])
def test_the_way_back_equals_plain_steps(norm, monkeypatch):
    network = small(norm=norm).double()
    mix = noise(2, 1, 400, dtype=torch.float64)
    weight = noise(2, 2, 1, 400, seed=1, dtype=torch.float64)
    grads = []
    for plain in (False, True):
        if plain:
            monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
        wave = mix.clone().requires_grad_()
        est = network(wave)
        grads.append(
            torch.autograd.grad(
                (est * weight).sum(), [wave, *network.parameters()], allow_unused=True
            )
        )
    for got, want in zip(*grads):
        if want is not None:
            torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("norm", ["gLN", "cLN", "frame"])
def test_gradients_of_gradients(norm):
    """A penalty on the gradient, as GANs have it, against plain steps."""
    network = small(norm=norm).double().train()
    mix = noise(1, 1, 100, dtype=torch.float64).requires_grad_()
    (grad,) = torch.autograd.grad(network(mix).square().sum(), mix, create_graph=True)
    grad.square().sum().backward()
    weight, step = network.blocks[0].depthwise.weight, 1e-5
    values = []
    for sign in (1, -1):
        with torch.no_grad():
            weight[3, 0, 1] += sign * step
        (grad,) = torch.autograd.grad(network(mix).square().sum(), mix)
        values.append(grad.square().sum())
        with torch.no_grad():
            weight[3, 0, 1] -= sign * step
    want = (values[0] - values[1]) / (2 * step)
    torch.testing.assert_close(weight.grad[3, 0, 1], want, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("norm", ["cLN", "frame", "BN"])
def test_causal_networks_do_not_look_ahead(norm):
    network = small(norm=norm, causal=True)
    a, b = noise(1, 1, 400), noise(1, 1, 400)
    b[..., 200:] = 0
    now = slice(0, 200 - network.kernel + 1)
    torch.testing.assert_close(run(network, a)[..., now], run(network, b)[..., now])
    assert (run(network, a)[..., 200:] - run(network, b)[..., 200:]).abs().max() > 1e-4


@pytest.mark.parametrize("norm", ["cLN", "frame", "BN"])
@pytest.mark.parametrize("block", [1, 8, 40, 41, 1000])
def test_stream_equals_recording(norm, block):
    network = small(norm=norm, causal=True)
    mix = noise(2, 1, 1003)
    stream, parts = Stream(network), []
    for piece in mix.split(block, -1):
        parts.append(stream(piece))
        late = stream.received - sum(p.shape[-1] for p in parts)
        assert late <= stream.latency == network.kernel
    est = torch.cat([*parts, stream.flush()], -1)
    torch.testing.assert_close(est, run(network, mix), rtol=1e-5, atol=1e-6)
    again = torch.cat([stream(mix), stream.flush()], -1)  # flush forgets
    torch.testing.assert_close(again, est, rtol=1e-5, atol=1e-6)


def test_latency_is_true_to_the_sample():
    """No sample depends on what comes later than the latency; some depend on what is before it."""
    network = small(norm="frame", causal=True)
    mix = noise(1, 1, 400).requires_grad_()
    reach = []
    for t in range(200, 216):
        (grad,) = torch.autograd.grad(network(mix)[0, 0, 0, t], mix)
        reach.append(int(grad[0, 0].nonzero().max()) - t)
    assert max(reach) == network.kernel - 1


def test_stream_refuses_in_one_line():
    for network, words in (
        (small(), "future"),
        (small(norm="cLN", causal=True, pad=False), "pads"),
        (small(norm="cLN", causal=True, rescale=True), "rescales"),
    ):
        with refused(words):
            Stream(network)
    stream = Stream(small(norm="cLN", causal=True))
    with pytest.raises(ValueError, match="nothing was streamed"):
        stream.flush()
    with pytest.raises(ValueError, match="channels"):
        stream(noise(1, 2, 100))


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"causal": True}, "gLN"),
        ({"norm": "LN"}, "one of gLN"),
        ({"kernel": 15}, "even"),
        ({"taps": 2}, "odd"),
        ({"blocks": 0}, "one block"),
        ({"skip": 0, "last_residual": False}, "skip"),
    ],
)
def test_bad_settings_are_refused_in_one_line(how, words):
    with refused(words):
        ConvTasNet(**SMALL | how)


def test_gln_is_exact_on_a_long_loud_recording():
    """The moments of two million numbers with a large mean, against double precision."""
    network = small()
    mix = noise(1, 1, 40000)
    wide = run(copy.deepcopy(network).double(), mix.double()).float()
    error = (run(network, mix) - wide).abs().max() / wide.abs().max()
    assert error < 1e-5


def test_cost_is_linear_in_length():
    network = small()
    seconds(network, 8000)
    assert seconds(network, 8000 * 80) < 3 * 8 * seconds(network, 8000 * 10)


@pytest.mark.parametrize("taps", [1, 3, 5])
@pytest.mark.parametrize("causal", [False, True])
def test_taps_and_their_reach(taps, causal):
    network = small(taps=taps, norm="BN", causal=causal).double()
    mix = noise(1, 1, 2001, dtype=torch.float64).requires_grad_()
    (grad,) = torch.autograd.grad(network(mix)[0, 0, 0, 1000], mix)
    seen = grad[0, 0].nonzero()
    frames = 1 + 2 * (taps - 1) * 7
    assert int(seen.max() - seen.min()) + 1 == (frames + 2) * 8


def exported(network):
    dims = {2: torch.export.Dim("time", min=32, max=1_000_000)}
    how = {"prefer_deferred_runtime_asserts_over_guards": True}  # what it asserts holds for all
    return torch.export.export(network, (noise(2, 1, 1000),), dynamic_shapes=(dims,), **how)


@pytest.mark.parametrize("norm", NORMS)
def test_torch_export(norm):
    network = small(norm=norm)
    program = exported(network).module()
    for length in (1000, 1001, 333, 4005):
        mix = noise(2, 1, length)
        torch.testing.assert_close(program(mix), run(network, mix), rtol=1e-5, atol=1e-6)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("norm", NORMS)
def test_onnx_export(norm, tmp_path):
    pytest.importorskip("onnxscript", reason="pip install onnx onnxscript onnxruntime")
    runtime = pytest.importorskip("onnxruntime", reason="pip install onnxruntime")
    network = small(norm=norm)
    file = tmp_path / "net.onnx"
    dims = {2: torch.export.Dim("time", min=32, max=1_000_000)}
    torch.onnx.export(
        network, (noise(2, 1, 1000),), file, dynamo=True, dynamic_shapes=(dims,), verbose=False
    )
    session = runtime.InferenceSession(file, providers=["CPUExecutionProvider"])
    for length in (1000, 1001, 333):
        mix = noise(2, 1, length)
        (est,) = session.run(None, {session.get_inputs()[0].name: mix.numpy()})
        torch.testing.assert_close(torch.from_numpy(est), run(network, mix), rtol=1e-4, atol=1e-4)


def test_foreign_weights_that_do_not_fit():
    with refused("torchaudio"):
        import_weights(small(), {"a": torch.ones(3)}, "torchaudio")
    buffer = io.BytesIO()
    torch.save(small().state_dict(), buffer)
    with refused("asteroid"):
        import_weights(small(), small().state_dict(), "asteroid")
