"""DCUNet and DCCRN with the weights of asteroid and espnet: the same outputs."""

import contextlib

import pytest
import torch
import torch.nn.functional as F
from nets import noise, peer, shaken, signals

from sepbook.engine.names import PUBLISHED
from sepbook.models.complex_networks import DCCRN, DCUNET_SIZES, DCUNet
from sepbook.zoo import import_weights

SPEECH = {"sources": ("speech",)}


def as_asteroid_sees(network, mix):
    """The mixture with the silence around it that our STFT adds, and where the mixture is."""
    stft = network.spectrum
    start, hop = stft.win_length - stft.hop, stft.hop
    last = (mix.shape[-1] - 1 + start) // hop * hop
    return F.pad(mix, (start, last + stft.win_length - mix.shape[-1] - start)), start


def same_as_asteroid(ours, theirs, *names: str, single: float = 1e-5) -> None:
    """In single precision to 1e-5; in double to 1e-6: asteroid's sines are rounded to single.

    Where a polar mask is near zero, its phase hangs on the last digits.
    """
    for name, mix in signals(*names).items():
        padded, start = as_asteroid_sees(ours, mix)
        with torch.no_grad():
            want = theirs(padded)[..., start : start + mix.shape[-1]]
            got = ours(mix)[:, :1, 0]
        error = (got - want).abs().max() / want.abs().max()
        assert got.shape == want.shape and error < single, (name, error)
    mix = noise(1, 1, 1003, dtype=torch.float64)
    padded, start = as_asteroid_sees(ours, mix)
    with torch.no_grad():
        want = theirs.double()(padded)[..., start : start + mix.shape[-1]]
        got = ours.double()(mix)[:, :1, 0]
    assert (got - want).abs().max() / want.abs().max() < 1e-6


@pytest.fixture
def dccrn_net(monkeypatch):
    """Asteroid's DCCRNet, which hands a NumPy integer to an LSTM that wants a Python one."""
    models, recurrent = peer("asteroid.models"), peer("asteroid.masknn.recurrent")
    rnn = recurrent.DCCRMaskNetRNN
    monkeypatch.setattr(recurrent, "DCCRMaskNetRNN", lambda n: rnn(int(n)))
    return models.DCCRNet


@pytest.mark.parametrize("bound", ["polar", "none"])
@pytest.mark.parametrize("size", ["DCUNet-10", "DCUNet-16", "DCUNet-20", "Large-DCUNet-20"])
def test_dcunet_of_asteroid(size, bound):
    models = peer("asteroid.models")
    if bound == "none" and size != "DCUNet-10":
        pytest.skip("one size will do")
    how = {"polar": "tanh", "none": None}[bound]
    theirs = shaken(models.DCUNet(size, fix_length_mode="pad", mask_bound=how))
    ours = DCUNet(**DCUNET_SIZES[size], bound=bound, **SPEECH).eval()
    masker = sum(p.numel() for p in theirs.masker.parameters())
    assert ours.n_params == masker
    import_weights(ours, theirs.state_dict(), "asteroid")
    same_as_asteroid(ours, theirs, "odd", "voices", single=5e-5)


def test_dccrn_of_asteroid(dccrn_net):
    theirs = shaken(dccrn_net("DCCRN-CL"))
    ours = DCCRN(variant="asteroid", **SPEECH).eval()
    assert ours.n_params == sum(p.numel() for p in theirs.parameters()) == 3_669_336
    import_weights(ours, theirs.state_dict(), "asteroid")
    same_as_asteroid(ours, theirs, "odd", "voices", single=5e-5)


def espnet(**how) -> torch.nn.Module:
    """Espnet's network, on spectra."""
    return peer("espnet2.enh.separator.dccrn_separator").DCCRNSeparator(257, **how)


@pytest.mark.parametrize("norm", ["parts", "whiten"])
@pytest.mark.parametrize("mask", ["E", "C", "R"])
def test_dccrn_of_espnet(mask, norm):
    theirs = shaken(espnet(masking_mode=mask, use_cbn=norm == "whiten"))
    if norm == "whiten":
        positive(theirs)
    ours = DCCRN(mask, norm=norm, **SPEECH).eval()
    assert ours.n_params == sum(p.numel() for p in theirs.parameters())
    assert norm == "whiten" or ours.n_params == 3_671_053
    import_weights(ours, theirs.state_dict(), "espnet")
    if mask == "E":  # the phase of a mask near zero is lost in rounding
        ours, theirs = ours.double(), theirs.double()
    for mix in (noise(2, 1, 4003), signals()["voices"]):
        spec = ours.spectrum(mix[:, 0].to(ours.rnn[0].real.weight_hh_l0))
        padded = F.pad(spec, (0, ours.ahead))  # the end of theirs is a step before the last frame
        with torch.no_grad():
            (want,), _, _ = theirs(padded.mT, torch.tensor([padded.shape[-1]] * len(mix)))
            got = ours.filter(ours.masks(padded)[..., ours.ahead :], spec)[:, 0]
        want = want.mT[..., : spec.shape[-1]]
        assert (got - want).abs().max() / want.abs().max() < 1e-5


def positive(network: torch.nn.Module) -> None:
    """Running covariances that are covariances."""
    draw = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, b in network.named_buffers():
            if name.endswith(("RVrr", "RVii")):
                b.copy_(1 + torch.rand(b.shape, generator=draw))
            elif name.endswith("RVri"):
                b.copy_(torch.rand(b.shape, generator=draw) - 0.5)
            elif name.endswith(("RMr", "RMi")):
                b.copy_(torch.randn(b.shape, generator=draw))


def test_complex_batch_norm_of_espnet_in_training():
    """The same outputs, gradients and running statistics, from the batch's own statistics."""
    theirs = peer("espnet2.enh.layers.complexnn").ComplexBatchNorm(6)
    ours = peer("sepbook.models.complex_networks").ComplexBatchNorm(3)
    with torch.no_grad():
        ours.weight.copy_(torch.stack([theirs.Wrr, theirs.Wri, theirs.Wii]))
        theirs.RVrr.fill_(0.5), theirs.RVii.fill_(0.5)
    x = 3 * noise(4, 6, 5, 7) + 1
    inputs = [x.clone().requires_grad_() for _ in range(2)]
    got, want = ours(inputs[0]), theirs(inputs[1])
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)
    weight = noise(4, 6, 5, 7, seed=1)
    (got * weight).sum().backward(), (want * weight).sum().backward()
    torch.testing.assert_close(inputs[0].grad, inputs[1].grad, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ours.running_mean, torch.stack([theirs.RMr, theirs.RMi]))
    cov = torch.stack([theirs.RVrr, theirs.RVri, theirs.RVii])
    torch.testing.assert_close(ours.running_cov, cov, rtol=1e-5, atol=1e-6)


def test_gradients_are_equal_to_espnets():
    """In training mode and double precision, with our names for both."""
    theirs, ours = shaken(espnet(masking_mode="C")).double(), DCCRN("C", **SPEECH).double()
    import_weights(ours, theirs.state_dict(), "espnet")
    ours.eval()
    spec = torch.randn(1, 257, 12, dtype=torch.complex128)
    padded = F.pad(spec, (0, ours.ahead))
    (want,), _, _ = theirs(padded.mT, torch.tensor([18]))
    want.mT[..., :12].abs().square().sum().backward()
    ours.filter(ours.masks(padded)[..., ours.ahead :], spec)[:, 0].abs().square().sum().backward()
    pairs = [
        (ours.down[0].conv.real, theirs.encoder[0][0].real_conv.weight),
        (ours.down[3].conv.imag, theirs.encoder[3][0].imag_conv.weight),
        (ours.rnn[1].imag.weight_hh_l0, theirs.enhance[1].imag_lstm.weight_hh_l0),
        (ours.up[2].conv.conv.imag, theirs.decoder[2][0].imag_conv.weight),
        (ours.up[5].conv.real, theirs.decoder[5][0].real_conv.weight),
    ]
    for a, b in pairs:
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-6, atol=1e-9)


def test_published_checkpoints_name_what_they_need():
    for name in ("DCUNet", "DCCRN"):
        for address, entry in PUBLISHED.get(name, {}).items():
            kind = {"DCUNet": DCUNet, "DCCRN": DCCRN}[name]
            assert address.startswith("hf:") and entry["peer"] == "asteroid"
            assert kind(**entry["config"]).n_params > 3_600_000


def test_not_slower_than_asteroid():
    """Processor time of the mask network, interleaved, the best of several tries."""
    import time

    models = peer("asteroid.models")
    theirs = shaken(models.DCUNet("DCUNet-10", fix_length_mode="pad"))
    ours = DCUNet(**DCUNET_SIZES["DCUNet-10"], **SPEECH).eval()
    mix, best = noise(1, 1, 16000), [9.0, 9.0]
    for _ in range(4):
        for k, network in enumerate((ours, theirs)):
            start = time.process_time()
            with torch.no_grad(), contextlib.suppress(StopIteration):
                network(mix)
            best[k] = min(best[k], time.process_time() - start)
    assert best[0] < 1.1 * best[1], best
