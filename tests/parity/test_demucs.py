"""Demucs in all versions, with the weights of demucs 4.1 and of torchaudio: the same outputs."""

import pytest
import torch
from nets import peer, run

from sepbook.engine.names import PUBLISHED
from sepbook.mixtures import example_song
from sepbook.models.demucs import STEMS, VERSIONS, Demucs, HDemucs, HTDemucs, change_rate
from sepbook.zoo import import_weights

SIX = (*STEMS, "guitar", "piano")
WAVE = {"gelu": False, "lstm_layers": 2, "dconv_mode": 0, "norm_starts": 99}  # as before version 3
RAW = {"resample": False, "normalize": False}
RELEASED = {"dconv_mode": 3, "t_layers": 5}
PAIRS = {  # ours, arguments, their class, arguments
    "v1": (Demucs, VERSIONS["v1"] | {"hidden": 8}, "Demucs", WAVE | RAW | {"channels": 8}),
    "v2": (Demucs, VERSIONS["v2"] | {"hidden": 8}, "Demucs", WAVE | {"channels": 8}),
    "v3 wave": (Demucs, VERSIONS["v3_wave"] | {"hidden": 16}, "Demucs", {"channels": 16}),
    "v3 wave, mono": (
        Demucs,
        VERSIONS["v3_wave"] | {"hidden": 16, "channels": 1, "branches": "both"},
        "Demucs",
        {"channels": 16, "audio_channels": 1, "dconv_mode": 3},
    ),
    "hybrid": (HDemucs, {"hidden": 16}, "HDemucs", {"channels": 16}),
    "hybrid, two stems": (
        HDemucs,
        {"hidden": 16, "sources": STEMS[:2], "branches": "both", "n_fft": 1024, "depth": 5},
        "HDemucs",
        {"channels": 16, "sources": list(STEMS[:2]), "dconv_mode": 3, "nfft": 1024, "depth": 5},
    ),
    "transformer": (
        HTDemucs,
        {"hidden": 8, "bottom": 32, "segment": 0.5},
        "HTDemucs",
        RELEASED | {"channels": 8, "bottom_channels": 32, "segment": 0.5},
    ),
    "transformer, six stems": (
        HTDemucs,
        {"hidden": 8, "bottom": 0, "sources": SIX, "segment": 0, "layers": 3},
        "HTDemucs",
        RELEASED | {"channels": 8, "sources": list(SIX), "use_train_segment": False, "t_layers": 3},
    ),
}
MODULES = {"Demucs": "demucs.demucs", "HDemucs": "demucs.hdemucs", "HTDemucs": "demucs.htdemucs"}


def build(kind: str, **how):
    """A network of demucs."""
    return getattr(peer(MODULES[kind]), kind)(how.pop("sources", list(STEMS)), **how)


def shaken(network):
    """Random biases, norms and scales; the weights of convolutions keep their size."""
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, p in network.named_parameters():
            if name.endswith("scale"):
                p.copy_(torch.rand(p.shape, generator=draw))
            elif p.ndim == 1:
                p.add_(0.1 * torch.randn(p.shape, generator=draw))
    return network.eval()


def same(ours, theirs, source: str, lengths: tuple[int, ...]) -> None:
    """Largest error relative to the largest value, on a piece of a real song."""
    song = example_song(mono=ours.channels == 1).mix[None, :, 50000:]
    import_weights(ours.eval(), theirs.state_dict(), source)
    for length in lengths:
        got, want = run(ours, song[..., :length]), run(theirs, song[..., :length])
        assert got.shape == want.shape
        error = (got - want).abs().max() / want.abs().max()
        assert error < 1e-5, (length, error)


@pytest.mark.parametrize("name", PAIRS)
def test_demucs(name):
    kind, how, theirs, their_how = PAIRS[name]
    theirs = shaken(build(theirs, **their_how))
    torch.manual_seed(1)
    same(kind(**how), theirs, "demucs", (500, 4001, 20000))


def test_gradients_are_theirs():
    kind, how, theirs, their_how = PAIRS["hybrid"]
    theirs, ours = shaken(build(theirs, **their_how)), kind(**how).eval()
    import_weights(ours, theirs.state_dict(), "demucs")
    mix = example_song().mix[None, :, 50000:56000]
    for network in (ours, theirs):
        network(mix).square().mean().backward()
    name, wanted = "encoder.0.dconv.layers.0.3.weight", dict(theirs.named_parameters())
    got, want = ours.encoder[0].branch[0].expand.weight.grad, wanted[name].grad
    torch.testing.assert_close(got, want, rtol=1e-3, atol=1e-3 * float(want.abs().max()))
    got, want = ours.tones.grad, wanted["freq_emb.embedding.weight"].grad
    torch.testing.assert_close(got, want, rtol=1e-3, atol=1e-3 * float(want.abs().max()))


@pytest.mark.parametrize(("n_fft", "depth"), [(4096, 6), (2048, 6), (1024, 5)])
def test_torchaudio(n_fft, depth):
    models = peer("torchaudio.models")
    theirs = shaken(models.HDemucs(list(STEMS), channels=16, nfft=n_fft, depth=depth))
    ours = HDemucs(hidden=16, n_fft=n_fft, depth=depth)
    same(ours, theirs, "torchaudio", (5000, 20001))


def test_resampling_is_julius():
    theirs, wav = peer("julius"), torch.randn(2, 2, 1001)
    for old, new in ((1, 2), (2, 1), (3, 2)):
        want = theirs.resample_frac(wav, old, new)
        torch.testing.assert_close(change_rate(wav, old, new), want, rtol=1e-4, atol=1e-5)


def test_published_sizes():
    """Every published checkpoint's class and settings give the size that its network has."""
    sizes = {"HDemucs": 83_637_832, "HTDemucs": 41_984_456, "HTDemucs-6s": 27_414_996}
    with torch.device("meta"):
        assert (
            HDemucs(**next(iter(PUBLISHED["HDemucs"].values()))["config"]).n_params
            == sizes["HDemucs"]
        )
        for name, entry in PUBLISHED["HTDemucs"].items():
            want = sizes["HTDemucs-6s" if "6s" in name else "HTDemucs"]
            assert HTDemucs(**entry["config"]).n_params == want


def test_their_own_count():
    """The released settings, in their class: the same number of parameters."""
    with torch.device("meta"):
        theirs = build("HTDemucs", **RELEASED, bottom_channels=512)
        assert sum(p.numel() for p in theirs.parameters()) == HTDemucs().n_params
        theirs = build("HDemucs")
        assert sum(p.numel() for p in theirs.parameters()) == HDemucs().n_params


def test_another_size_is_refused():
    theirs = build("HDemucs", channels=16)
    ours = HDemucs(hidden=24)
    before = ours.tones.clone()
    with pytest.raises(ValueError) as fault:
        import_weights(ours, theirs.state_dict(), "demucs")
    assert "\n" not in str(fault.value) and torch.equal(before, ours.tones)
