"""Weights of torchaudio and Open-Unmix, randomly initialised and saved, give equal outputs here."""

import importlib
from typing import ClassVar

import pytest
import torch

from sepbook import zoo
from sepbook.engine import weights
from sepbook.learner import Network

mix = torch.randn(1, 1, 4000, generator=torch.Generator().manual_seed(0)) * 0.1


class Wrapped(Network):
    """torchaudio's Conv-TasNet as a network of ours, with one level of names more."""

    peers: ClassVar[dict] = {
        "torchaudio": lambda net, state: {f"inner.{k}": t for k, t in state.items()}
    }

    def __init__(self, sources=("s1", "s2"), sample_rate=8000):
        super().__init__()
        from torchaudio.models import conv_tasnet_base

        self.sample_rate, self.channels, self.sources = sample_rate, 1, tuple(sources)
        self.inner = conv_tasnet_base(num_sources=len(self.sources))

    def forward(self, mix):
        return self.inner(mix)[:, :, None]


@pytest.fixture
def registered_once(monkeypatch):
    """The chapter on Conv-TasNet may know this bundle, too: here only the stand-in does."""
    entry = {"peer": "torchaudio", "config": {}, "licence": "see torchaudio"}
    known = {"torchaudio:CONVTASNET_BASE_LIBRI2MIX": (Wrapped, entry)}
    monkeypatch.setattr(weights, "checkpoints", lambda: known)


def test_a_bundle_of_torchaudio(tmp_path, monkeypatch, registered_once):
    from torchaudio.pipelines import CONVTASNET_BASE_LIBRI2MIX as bundle

    torch.manual_seed(0)
    peer = bundle._model_factory_func().eval()
    path = tmp_path / "torchaudio" / bundle._model_path
    path.parent.mkdir(parents=True)
    torch.save(peer.state_dict(), path)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    net = zoo.load("torchaudio:CONVTASNET_BASE_LIBRI2MIX")
    with torch.no_grad():
        assert torch.equal(net(mix)[:, :, 0], peer(mix))
    assert net.card["published"] == "torchaudio:CONVTASNET_BASE_LIBRI2MIX"


def test_a_bundle_that_can_not_be_reached(tmp_path, monkeypatch, registered_once):
    def off(*args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", off)
    with pytest.raises(ValueError, match="no network") as caught:
        zoo.load("torchaudio:CONVTASNET_BASE_LIBRI2MIX")
    assert "\n" not in str(caught.value)


def test_saved_again_in_our_own_format(tmp_path):
    torch.manual_seed(0)
    net = Wrapped().eval()
    back = zoo.load(zoo.save(net, tmp_path / "w.safetensors"), cls=Wrapped)
    with torch.no_grad():
        assert torch.equal(back(mix), net(mix))


def test_open_unmix(tmp_path):
    pytest.importorskip("openunmix", reason="make parity installs it")
    from openunmix.model import OpenUnmix as Peer

    try:
        ours = importlib.import_module("sepbook.models.mask_networks").OpenUnmix
    except (ModuleNotFoundError, AttributeError):
        pytest.skip("the chapter on mask networks is not here yet")
    assert "openunmix" in weights.translators(ours)
    torch.manual_seed(0)
    small = dict(hidden=16, n_layers=1, n_fft=512, hop=128, bandwidth=None)
    net = ours(sources=("vocals",), sample_rate=16000, channels=1, **small).eval()
    peer = Peer(nb_bins=257, nb_channels=1, hidden_size=16, nb_layers=1).eval()
    torch.save(peer.state_dict(), tmp_path / "umx.pth")
    before = net(mix.repeat(1, 1, 4))
    zoo.import_weights(net, tmp_path / "umx.pth", source="openunmix")
    after = net(mix.repeat(1, 1, 4))
    assert after.shape == before.shape and not torch.equal(after, before)
    back = zoo.load(zoo.save(net, tmp_path / "ours.safetensors"))
    assert type(back) is ours and torch.equal(back(mix.repeat(1, 1, 4)), after)
