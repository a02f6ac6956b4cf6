"""Networks without complex numbers, and as ONNX files, against themselves."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "robustness"))

from test_networks import SMALL, build

from sepbook.engine.export import RealArithmetic, difference, export
from sepbook.zoo import load


@pytest.mark.parametrize("name", sorted(SMALL))
def test_in_real_numbers_it_is_the_same(name):
    """What export traces: pairs instead of complex numbers, matrices instead of the FFT."""
    network = build(name).eval()
    draw = torch.Generator().manual_seed(1)
    for samples in (100, 777, 5003):
        mix = 0.1 * torch.randn(1, network.channels, samples, generator=draw)
        with torch.no_grad():
            torch.manual_seed(2)
            want = network(mix)
            torch.manual_seed(2)
            with RealArithmetic():
                got = network(mix)
        assert (got - want).abs().max() <= 1e-5 * want.abs().max() and type(got) is torch.Tensor


NOT = ("deepclustering",)  # k-means is a program, whose rounds depend on the data
FIXED = ("hdemucs", "htdemucs", "waveunet")  # what they do depends on the length
ANY = sorted(set(SMALL) - {*NOT, *FIXED})


@pytest.mark.parametrize("name", ANY)
def test_any_length(name, tmp_path):
    needs_onnx()
    network = build(name).eval()
    got = export(network, tmp_path / "net.onnx", 0.3)
    assert got.dynamic and got.difference < 1e-4
    draw = torch.Generator().manual_seed(3)
    for samples in (2000, 2001, 9999):
        mix = 0.1 * torch.randn(1, network.channels, samples, generator=draw)
        assert difference(network, got.path, mix) < 1e-4


@pytest.mark.parametrize("name", NOT)
def test_what_is_no_network_says_so(name, tmp_path):
    needs_onnx()
    with pytest.raises(RuntimeError, match="can't be exported") as error:
        export(build(name), tmp_path / "net.onnx", 0.3)
    assert "\n" not in str(error.value) and not list(tmp_path.iterdir())


class Cuts(torch.nn.Module):
    """Long recordings are treated in another way than the example."""

    sample_rate, channels, sources = 100, 1, ("a",)

    def forward(self, mix):
        return (mix if mix.shape[-1] < 120 else 2 * mix)[:, None]


def test_a_file_for_any_length_is_one(tmp_path):
    needs_onnx()
    got = export(Cuts(), tmp_path / "net.onnx")
    assert not got.dynamic and "119 samples" in got.why and got.difference == 0
    with pytest.raises(RuntimeError, match="depends on the length"):
        export(Cuts(), tmp_path / "other.onnx", dynamic=True)


class Rounds(torch.nn.Module):
    """Division that rounds up, and what is left over, as lengths are computed everywhere."""

    sample_rate, channels, sources = 100, 1, ("a",)

    def forward(self, mix):
        n = mix.shape[-1]
        return torch.nn.functional.pad(mix, (0, -n % 7 - (-n // 3)))[None]


def test_integers_are_divided_as_python_does(tmp_path):
    needs_onnx()
    assert export(Rounds(), tmp_path / "net.onnx", dynamic=True).difference == 0


@pytest.mark.parametrize("name", ["convtasnet", *FIXED])
def test_one_length(name, tmp_path):
    needs_onnx()
    network = build(name)
    got = export(network, tmp_path / "net.onnx", 0.3, dynamic=False)
    assert (
        not got.dynamic
        and got.samples == round(0.3 * network.sample_rate)
        and got.difference < 1e-4
    )
    assert network.training  # as it was


def test_the_file_tells_what_it_is(tmp_path):
    needs_onnx()
    import onnx

    got = export(load("conv-tasnet-2voices"), tmp_path / "net.onnx", 0.5)
    assert (
        got.difference < 1e-4
        and got.dynamic
        and [p.name for p in tmp_path.iterdir()] == ["net.onnx"]
    )
    held = got.path.read_bytes()
    assert str(Path(torch.__file__).parent).encode() not in held and b".py" not in held
    assert len(held) < 4.2 * load("conv-tasnet-2voices").n_params + 300_000
    proto = onnx.load(str(got.path))
    told = {p.key: p.value for p in proto.metadata_props}
    assert told == {
        "sources": '["s1", "s2"]',
        "sample_rate": "8000",
        "channels": "1",
        "samples": "any",
    }
    assert {node.domain for node in proto.graph.node} == {""} and not proto.functions
    assert [o.version for o in proto.opset_import if o.domain == ""] == [18]


def test_wrong_calls(tmp_path):
    network = build("convtasnet")
    for what, path, words in (
        (network, tmp_path / "net.pt", "end in .onnx"),
        (network.double(), tmp_path / "net.onnx", "float32"),
    ):
        with pytest.raises((ValueError, ImportError), match=words + "|sepbook.onnx") as error:
            export(what, path)
        assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_exported_is_one_line(tmp_path):
    needs_onnx()

    class Odd(torch.nn.Module):
        sample_rate, channels, sources = 8000, 1, ("a",)

        def forward(self, mix):
            return mix * float(mix.sum())

    with pytest.raises(RuntimeError, match="Odd can't be exported") as error:
        export(Odd(), tmp_path / "net.onnx")
    assert "\n" not in str(error.value) and not list(tmp_path.iterdir())


def needs_onnx():
    """Skip where the extra is not installed."""
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason="pip install sepbook[onnx]")
