"""SepFormer with odd lengths, bad input, other precisions, long recordings, and other formats."""

import pytest
import torch
from nets import noise, refused, run

from sepbook.models import sepformer
from sepbook.models.sepformer import Layer, SepFormer, positions

SMALL = {
    "n_filters": 24,
    "kernel": 16,
    "chunk": 10,
    "blocks": 2,
    "layers": 1,
    "heads": 4,
    "hidden": 32,
}


def small(**how) -> SepFormer:
    torch.manual_seed(0)
    return SepFormer(**SMALL | how).eval()


def test_parameter_counts():
    with torch.device("meta"):
        assert SepFormer().n_params == 25_679_361
        assert SepFormer(n_src=3).n_params == 25_745_153


@pytest.mark.parametrize("n_src", [1, 2, 3])
@pytest.mark.parametrize("mask", ["relu", "sigmoid", "softmax"])
def test_every_parameter_trains(n_src, mask):
    torch.manual_seed(0)
    network = SepFormer(n_src, **SMALL, mask=mask, encoder="linear")
    network.loss(noise(2, 1, 900), noise(2, n_src, 1, 900, seed=1)).backward()
    for name, p in network.named_parameters():
        assert p.grad.isfinite().all(), name
        constant = mask == "softmax" and n_src == 1  # a share of one is one
        assert constant or p.grad.abs().max() > 0 or name.endswith("qkv.bias"), name


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("length", [333, 4001])
def test_with_and_without_gradients_are_equal(batch, length, monkeypatch):
    """Without gradients the sequences go through in groups: however many at once."""
    network, mix = small(), noise(batch, 1, length)
    want = network(mix).detach()
    for numbers in (1, 64 * 24, 10**9):
        monkeypatch.setitem(sepformer.AT_ONCE, "cpu", numbers)
        kept = mix.clone()
        torch.testing.assert_close(run(network, mix), want, rtol=1e-4, atol=1e-6)
        assert torch.equal(mix, kept), "the mixture stays as it was"


def test_the_layer_is_pytorchs():
    torch.manual_seed(0)
    ours = Layer(24, 4, 32)
    theirs = torch.nn.TransformerEncoderLayer(
        24, 4, 32, dropout=0.0, norm_first=True, batch_first=True, layer_norm_eps=1e-6
    )
    names = {"self_attn.in_proj_": "qkv.", "self_attn.out_proj.": "out."}
    names |= {"linear1": "expand", "linear2": "narrow"}
    state = {}
    for name, t in theirs.state_dict().items():
        for old, new in names.items():
            name = name.replace(old, new)
        state[name] = t + 0.1 * noise(*t.shape)
    ours.load_state_dict(state)
    back = {v: k for k, v in names.items()}
    for name, t in state.items():
        for old, new in back.items():
            if name.startswith(old):
                name = new + name.removeprefix(old)
                break
        theirs.state_dict()[name].copy_(t)
    x = noise(3, 17, 24)
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-5, atol=1e-5)


def test_positions_go_on():
    assert torch.equal(positions(5000, 24)[:2500], positions(2500, 24))
    far = positions(100_000, 24)
    assert far.isfinite().all() and far.abs().max() <= 1 and far[-1].std() > 0.1
    norm = far.square().sum(1)
    torch.testing.assert_close(norm, torch.full_like(norm, 12.0))


def test_more_than_2500_chunks():
    """The reference ends at 2,500 chunks: 156 s at 16 kHz. This is as many chunks and more."""
    network = small(chunk=2, blocks=1)
    mix = noise(1, 1, 8 * 2800)
    est = run(network, mix)
    assert est.shape == (1, 2, 1, mix.shape[-1]) and est.isfinite().all()
    assert est[..., -3000:].abs().max() > 1e-4


def test_200_seconds_of_16_khz_in_one_piece():
    """3,202 chunks of 250 frames, as in the paper; a narrow network, so that it takes a moment."""
    torch.manual_seed(0)
    sizes = {"n_filters": 4, "heads": 1, "hidden": 4, "blocks": 1, "layers": 1}
    network = SepFormer(**sizes, sample_rate=16000).eval()
    est = run(network, noise(1, 1, 200 * 16000))
    assert est.shape[-1] == 200 * 16000 and est.isfinite().all()


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"kernel": 15}, "even"),
        ({"kernel": 1}, "even"),
        ({"heads": 5}, "multiple of heads"),
        ({"heads": 0}, "multiple of heads"),
        ({"n_filters": 25, "heads": 5}, "even"),
        ({"chunk": 11}, "even"),
        ({"chunk": 0}, "even"),
        ({"layers": 0}, "layers is 0"),
        ({"blocks": 0}, "blocks is 0"),
    ],
)
def test_bad_settings_are_refused_in_one_line(how, words):
    with refused(words):
        SepFormer(**SMALL | how)


LENGTHS = (1000, 1001, 333, 4005)
DIMS = {2: torch.export.Dim("time", min=32, max=1_000_000)}


def test_sources_by_name():
    network = small(sources=["ada", "hal", "eve"])
    assert network.sources == ("ada", "hal", "eve") and network.n_src == 3
    assert run(network, noise(1, 1, 500)).shape[1] == 3


def test_torch_export():
    network = small()
    how = {"prefer_deferred_runtime_asserts_over_guards": True}  # what it asserts holds for all
    program = torch.export.export(network, (noise(2, 1, 1000),), dynamic_shapes=(DIMS,), **how)
    for length in LENGTHS:
        mix = noise(2, 1, length)
        torch.testing.assert_close(program.module()(mix), run(network, mix), rtol=1e-4, atol=1e-6)


@pytest.mark.filterwarnings("ignore")
def test_onnx_export(tmp_path):
    pytest.importorskip("onnxscript", reason="pip install onnx onnxscript onnxruntime")
    runtime = pytest.importorskip("onnxruntime", reason="pip install onnxruntime")
    network, file = small(), tmp_path / "net.onnx"
    torch.onnx.export(
        network, (noise(2, 1, 1000),), file, dynamo=True, dynamic_shapes=(DIMS,), verbose=False
    )
    session = runtime.InferenceSession(file, providers=["CPUExecutionProvider"])
    for length in LENGTHS:
        mix = noise(2, 1, length)
        (est,) = session.run(None, {session.get_inputs()[0].name: mix.numpy()})
        torch.testing.assert_close(torch.from_numpy(est), run(network, mix), rtol=1e-4, atol=1e-4)
