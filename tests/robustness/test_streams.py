"""Level, two stems, fill, shifts, long pauses, notes, devices, and waiting threads."""

import os
import random
import subprocess
import sys
import warnings

import pytest
import soundfile as sf
import torch

import sepbook
from sepbook import models
from sepbook.engine.examples import example_readers, example_song
from sepbook.engine.files import load, save
from sepbook.engine.streams import (
    Follower,
    Loudness,
    Separator,
    pick_device,
    separate,
    separate_blocks,
    separate_file,
    share_above,
    shift_offsets,
    tracked,
)
from sepbook.metrics import si_sdr
from sepbook.models.conv_tasnet import Stream


def noise(*shape, seed=0):
    return 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def run(separator, mix, *args, **how):
    return separate(separator, mix, *args, progress=False, **how)


def one_line(error):
    return "\n" not in str(error.value) and len(str(error.value)) < 250


class Halves(torch.nn.Module):
    """Everything, less and less of it where it is loud: a network that depends on level."""

    sources, channels = ("vocals", "other"), 2

    def __init__(self, sample_rate=22050, sources=("vocals", "other"), channels=2):
        super().__init__()
        self.sample_rate, self.sources, self.channels = sample_rate, sources, channels

    def forward(self, mix):
        soft = torch.tanh(mix)
        return torch.stack([soft, mix - soft], 1)


def fit(est, src):
    return si_sdr(est.flatten(1), src.flatten(1)).mean().item()


# -- level

SMALL = {
    "FeedForwardMask": {},
    "RecurrentMask": {},
    "OpenUnmix": {},
    "DeepClustering": {"hidden": 16, "layers": 1},
    "Chimera": {"hidden": 16, "layers": 1},
    "UPIT": {"hidden": 16, "layers": 1},
    "UNet": {},
    "Spleeter": {},
    "WaveUNet": {"levels": 3},
    "TasNet": {},
    "ConvTasNet": {"n_filters": 16, "blocks": 2, "repeats": 1, "bottleneck": 8, "hidden": 8},
    "DPRNN": {"n_filters": 16, "hidden": 8, "blocks": 1},
    "SepFormer": {},
    "Demucs": {"depth": 2},
    "HDemucs": {},
    "HTDemucs": {},
    "BSRNN": {"features": 8, "hidden": 8, "blocks": 1, "level": True},
}
GAINS = 1e-3, 0.1, 10.0  # -60, -20 and +20 dB


def check_level(network, mix, rate):
    """The estimates, and so every score, move by less than 0.1 dB at any gain."""
    want = run(network, mix, rate)
    assert want.abs().max() > 0
    for gain in GAINS:
        got = run(network, gain * mix, rate) / gain
        error = (got - want).square().sum() / want.square().sum()
        assert error < 1e-4, (gain, error)  # 40 dB below: scores of 20 dB move by less than 0.1 dB


@pytest.mark.parametrize("name", models.__dir__() and list(SMALL))
def test_the_level_changes_nothing_in_any_network(name):
    torch.manual_seed(0)
    network = getattr(models, name)(**SMALL[name]).eval()
    rate = network.sample_rate
    check_level(network, noise(network.channels, rate, seed=1), rate)


@pytest.mark.parametrize("name", ["music", "speech", "upit-2voices", "dprnn-2voices"])
def test_the_level_changes_nothing_in_the_models_that_ship(name):
    network = sepbook.load(name)
    voices = example_readers(seconds=3)
    check_level(network, voices.mix, voices.sample_rate)


def test_the_level_is_that_of_what_is_not_silence():
    tone = torch.sin(torch.arange(16000) * 0.3)[None]
    alone = Loudness(8000).add(tone).rms()
    pauses = torch.cat([torch.zeros(1, 40000), tone, 1e-3 * tone, torch.zeros(1, 24000)], -1)
    whole = Loudness(8000).add(pauses).rms()
    assert whole == pytest.approx(alone, rel=1e-3)
    pieces = Loudness(8000)
    for block in pauses.split(777, -1):
        pieces.add(block)
    assert pieces.rms() == pytest.approx(whole, rel=1e-12)
    assert Loudness(8000).rms() == 0 == Loudness(8000).add(torch.zeros(1, 9000)).rms()
    assert Loudness(8000).add(tone[:, :10]).rms() > 0  # shorter than a window


def test_a_stream_and_a_file_have_one_level(tmp_path):
    """Without a wish, networks get -18 dB; from memory, from a file, and in a stream."""
    seen = []
    network = Halves(8000, channels=1)
    network.register_forward_hook(lambda _, given, __: seen.append(given[0].std().item()))
    mix = noise(1, 80000)
    path = save(tmp_path / "a.wav", 0.01 * mix, 8000, "FLOAT")
    run(network, mix, segment=2.0)
    separate_file(network, path, tmp_path / "out", segment=2.0, progress=False)
    list(separate_blocks(network, (1e-4 * mix).split(500, -1), segment=2.0))
    level = 20 * torch.tensor(seen).log10()
    assert (level + 18).abs().max() < 0.3


def test_silence_stays_silence():
    class Humming(Halves):
        def forward(self, mix):
            return torch.stack([mix + 0.1] * 2, 1)

    mix = noise(2, 88200)
    mix[:, :44100] = 0
    est = run(Humming(), mix, segment=0.5, overlap=0)
    assert est[..., :44000].abs().max() == 0 < est[..., 50000:].abs().max()
    assert run(Humming(), torch.zeros(2, 9000)).abs().max() == 0


@pytest.mark.parametrize("norm", ["cLN", "frame"])
def test_a_live_stream_does_not_depend_on_the_level(norm):
    torch.manual_seed(0)
    sizes = dict(n_filters=16, blocks=2, repeats=1, bottleneck=8, hidden=8)
    stream = Stream(models.ConvTasNet(norm=norm, causal=True, **sizes))
    mix, found = noise(1, 1, 8000), []
    for gain in (1.0, *GAINS):
        parts = [stream(block) for block in (gain * mix).split(160, -1)]
        found.append(torch.cat([*parts, stream.flush()], -1) / gain)
    for est in found[1:]:
        assert (est - found[0]).square().sum() / found[0].square().sum() < 1e-4


def test_a_live_stream_with_batch_norm_is_told_the_level():
    torch.manual_seed(0)
    sizes = dict(n_filters=16, blocks=2, repeats=1, bottleneck=8, hidden=8)
    network, mix, found = models.ConvTasNet(norm="BN", causal=True, **sizes), noise(1, 1, 8000), []
    level = mix.square().mean().sqrt().item()
    for gain in (1.0, *GAINS):
        stream = Stream(network, level=gain * level)
        parts = [stream(block) for block in (gain * mix).split(160, -1)]
        found.append(torch.cat([*parts, stream.flush()], -1) / gain)
    for est in found[1:]:
        assert (est - found[0]).square().sum() / found[0].square().sum() < 1e-4


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_halves_are_computed_as_singles_and_left_as_they_were(dtype):
    torch.manual_seed(0)
    sizes = dict(n_filters=16, blocks=2, repeats=1, bottleneck=8, hidden=8)
    network, mix = models.ConvTasNet(**sizes).to(dtype), noise(1, 8000)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    est = run(network, mix)
    assert est.dtype == torch.float32 and torch.isfinite(est).all()
    after = network.state_dict()
    assert all(v.dtype == dtype and torch.equal(v, before[k]) for k, v in after.items())
    torch.testing.assert_close(est, run(network.float(), mix))
    assert run(network, mix.to(dtype)).dtype == dtype


# -- two stems, fill, shifts


@pytest.mark.parametrize("bits, channels", [(None, 2), (24, 2), (32, 2), (None, 1), (24, 1)])
def test_two_stems_add_up_to_the_recording(tmp_path, bits, channels):
    mix = noise(channels, 44100, seed=2)
    path = save(tmp_path / "a.wav", mix, 44100, "FLOAT")
    for network in (Halves(), Halves(8000, ("s1", "s2"), 1), Halves(16000, channels=1)):
        name = network.sources[0]
        how = dict(two_stems=name, bits=bits, progress=False, on_note=lambda note: None)
        paths = separate_file(network, path, tmp_path / "out", **how)
        assert list(paths) == [name, f"no_{name}"]
        both = sum(load(p)[0] for p in paths.values())
        assert sf.info(paths[name]).samplerate == 44100 and both.shape == mix.shape
        assert (both - mix).square().sum() < 1e-9 * mix.square().sum()


def test_one_stem_is_the_one_of_all():
    mix = noise(2, 30000)
    every = run(Halves(), mix, 44100)
    two = run(Halves(), mix, 44100, two_stems="other")
    assert torch.equal(two[0], every[1]) and torch.equal(two[1], mix - every[1])
    assert torch.equal(run(Halves(), mix, 44100, only=["no_other"])[0], two[1])
    assert torch.equal(run(Halves(), mix, 44100, only="vocals")[0], every[0])


def test_what_the_network_cannot_hear_goes_to_one_stem():
    mix = noise(2, 44100)
    lost = mix - run(Halves(), mix, 44100).sum(0)
    assert lost.square().mean() > 0.3 * mix.square().mean()  # the upper half of the band
    filled = run(Halves(), mix, 44100, fill="other")
    assert (filled.sum(0) - mix).square().sum() < 1e-9 * mix.square().sum()
    assert torch.equal(filled[0], run(Halves(), mix, 44100)[0])


class Switch:
    """Speech in every other half second, and what is not speech: right below 8 kHz."""

    sources, sample_rate, channels = ("speech", "noise"), 16000, 1

    def __call__(self, mix):
        gate = (torch.arange(mix.shape[-1]) // 8000 % 2).to(mix)
        return torch.stack([mix * gate, mix * (1 - gate)], 1)


def below(wav, hz, rate=48000):
    """What lies below a frequency."""
    spec = torch.fft.rfft(wav)
    return torch.fft.irfft(spec * (torch.arange(spec.shape[-1]) * rate < hz * wav.shape[-1]))


def voice_and_hiss(seconds, snr, seed=0):
    """A wide voice in every other half second, and a steady hiss up to 24 kHz, at 48 kHz."""
    voice, hiss = noise(2, 1, round(48000 * seconds), seed=seed)
    gate = torch.arange(voice.shape[-1]) // 24000 % 2
    return below(voice, 12000) * gate, 10 ** (-snr / 20) * hiss


def over_wrong(est, src):
    """What is right over what is wrong, dB."""
    return 10 * (src.square().sum() / (est - src).square().sum()).log10().item()


@pytest.mark.parametrize("snr", [0, 10])
def test_the_band_above_is_shared_as_the_band_below(snr):
    """Better than to leave it out, and better than to leave it as it is."""
    voice, hiss = voice_and_hiss(12, snr)
    est = share_above(
        torch.stack([below(x, 8000) for x in (voice, hiss)]),
        (above := voice + hiss - below(voice + hiss, 8000)),
        48000,
        8000,
    )
    torch.testing.assert_close(est.sum(0), above, atol=1e-6, rtol=0)
    want = voice - below(voice, 8000)
    assert over_wrong(est[0], want) > 1 + max(0, over_wrong(above, want))
    deep = est[0] - below(est[0], 13000)  # the voice ends at 12 kHz
    assert deep.square().sum() < 0.02 * (hiss - below(hiss, 13000)).square().sum()
    torch.testing.assert_close(
        share_above(
            1e-3 * torch.stack([below(x, 8000) for x in (voice, hiss)]), 1e-3 * above, 48000, 8000
        ),
        1e-3 * est,
        atol=1e-7,
        rtol=1e-3,
    )


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("seconds", [0.001, 0.3, 21])
def test_separators_of_noise_share_it_out_by_themselves(seconds, channels):
    mix = noise(channels, round(48000 * seconds))
    est = run(Switch(), mix, 48000)
    assert est.shape == (2, *mix.shape)
    torch.testing.assert_close(est.sum(0), mix, atol=1e-6, rtol=0)
    blocks = torch.cat(list(separate_blocks(Switch(), mix.split(10007, -1), 48000)), -1)
    torch.testing.assert_close(blocks, est, atol=1e-6, rtol=0)
    two = run(Switch(), mix, 48000, two_stems="speech")
    torch.testing.assert_close(two[0], est[0]), torch.testing.assert_close(two[1], mix - est[0])
    torch.testing.assert_close(run(Switch(), mix, 48000, only="noise")[0], est[1])


def test_who_gets_the_band_above():
    mix = noise(1, 48000)
    none = run(Switch(), mix, 48000, fill="none")
    assert over_wrong(none.sum(0), mix) < 3  # two thirds of the band are missing
    torch.testing.assert_close(run(Switch(), mix, 48000).sum(0), mix, atol=1e-6, rtol=0)
    same = run(Switch(), mix, 16000)  # nothing lies above
    assert torch.equal(same, run(Switch(), mix, 16000, fill="none"))
    own = Switch()
    own.fill = "noise"
    torch.testing.assert_close(run(own, mix, 48000)[0], none[0])
    pair = Halves(16000, channels=1)
    shared = run(pair, mix, 48000, fill="share")
    torch.testing.assert_close(shared.sum(0), mix, atol=1e-5, rtol=0)
    assert over_wrong(run(pair, mix, 48000).sum(0), mix) < 3
    silent = run(Switch(), 0 * mix, 48000)
    assert not silent.any()


def test_files_of_a_separator_of_noise_say_nothing_of_a_missing_band(tmp_path):
    path, notes = save(tmp_path / "a.wav", noise(1, 48000), 48000, "FLOAT"), []
    how = dict(progress=False, on_note=notes.append)
    paths = separate_file(Switch(), path, tmp_path / "out", **how)
    assert not notes
    both = sum(load(p)[0] for p in paths.values())
    torch.testing.assert_close(both, load(path)[0], atol=1e-6, rtol=0)
    separate_file(Switch(), path, tmp_path / "narrow", fill="none", **how)
    assert any("end at 8 kHz" in note for note in notes)


def test_the_level_forgets_what_lies_further_back():
    loud = Loudness(1000, memory=0.5)
    loud.add(torch.ones(1, 1000)).add(0.1 * torch.ones(1, 500))
    assert loud.rms() == pytest.approx(0.1)
    assert Loudness(1000).add(torch.ones(1, 1000)).add(0.1 * torch.ones(1, 500)).rms() > 0.8


def test_shifts_are_the_mean_of_shifted_runs():
    net = torch.nn.Conv1d(1, 2, 9, stride=1, padding=4)
    torch.manual_seed(0)

    class Frames(Halves):
        """Depends on where its frames begin."""

        def forward(self, mix):
            gate = (torch.arange(mix.shape[-1]) // 50 % 2).to(mix)
            return torch.stack([mix * gate, mix * (1 - gate)], 1)

    assert net.weight.shape == (2, 1, 9)
    network, mix = Frames(8000, channels=1), noise(1, 20000)
    network.level_db = None
    offsets = shift_offsets(3, 8000)
    assert offsets[0] == 0 and len(set(offsets)) == 3 and max(offsets) <= 4000
    want = 0
    for k in offsets:
        late = torch.cat([torch.zeros(1, k), mix], -1)
        want = want + run(network, late, segment=1.0)[..., k:] / 3
    got = run(network, mix, segment=1.0, shifts=3)
    torch.testing.assert_close(got, want, atol=1e-6, rtol=0)
    assert not torch.allclose(got, run(network, mix, segment=1.0), atol=1e-3)
    with pytest.raises(ValueError, match="shifts is -1") as error:
        run(network, mix, shifts=-1)
    assert one_line(error)


# -- speakers


class Knowing:
    """Knows the voices of one recording; a quarter leaks; the order changes with the segment."""

    sample_rate, channels, sources = 8000, 1, ("s1", "s2")

    def __init__(self, src, seed=0):
        self.src, self.draw, self.orders = src, random.Random(seed), set()
        self.bytes = src.sum(0).numpy().tobytes()

    def __call__(self, mix):
        return torch.stack([self.one(item) for item in mix])

    def one(self, mix):
        held = mix.numpy().tobytes().rstrip(b"\0").lstrip(b"\0")
        at = (self.bytes.find(mix.numpy().tobytes())) // 4
        assert held and at >= 0
        src = self.src[..., at : at + mix.shape[-1]]
        order = [0, 1] if self.draw.random() < 0.5 else [1, 0]
        self.orders.add(tuple(order))
        return (0.75 * src + 0.25 * src.flip(0))[order]


def long_pauses(seed, seconds=90, pause=6.0):
    """Two readers in turns, with pauses of 6 s (source, 1, time)."""
    voices = example_readers(seconds=6, seed=seed, sample_rate=8000).src
    src, at, who, draw = torch.zeros(2, 1, seconds * 8000), 1000, 0, random.Random(seed)
    while at + 24000 < src.shape[-1]:
        begin = draw.randrange(voices.shape[-1] - 24000)
        src[who, :, at : at + 24000] = voices[who, :, begin : begin + 24000]
        at, who = at + 24000 + round(pause * 8000), 1 - who
    return src


@pytest.mark.parametrize("seed", range(3))
def test_speakers_keep_their_places_over_pauses_of_6_seconds(seed):
    src = long_pauses(seed)
    separator = Knowing(src, seed)
    est = run(separator, src.sum(0))
    assert len(separator.orders) == 2, "the order never changed, so nothing was tested"
    error = torch.stack(
        [(est - 0.75 * s - 0.25 * s.flip(0)).abs().max() for s in (src, src.flip(0))]
    )
    assert error.min() < 1e-5
    two = run(Knowing(src, seed), src.sum(0), two_stems="s1")
    assert torch.equal(two[0], est[0]) and torch.equal(two[1], src.sum(0) - est[0])


class Delayed(Knowing):
    """Finds a recording that begins late, too: delayed runs are padded in front."""

    def one(self, mix):
        silent = int(mix[0].ne(0).float().argmax())
        est = torch.zeros(2, *mix.shape)
        est[..., silent:] = super().one(mix[..., silent:])
        return est


@pytest.mark.parametrize("seconds", [4, 25, 60])
@pytest.mark.parametrize("shifts", [2, 3])
def test_every_run_has_the_speakers_in_the_order_of_the_first(seconds, shifts):
    src = example_readers(seconds=5, seed=0, sample_rate=8000).src.repeat(1, 1, 12)
    src = src * torch.linspace(0.5, 1, src.shape[-1])  # no second is like another
    src = src[..., : seconds * 8000]
    for seed in range(4):
        separator = Delayed(src, seed)
        est = run(separator, src.sum(0), shifts=shifts)
        errors = [(est - 0.75 * s - 0.25 * s.flip(0)).abs().max() for s in (src, src.flip(0))]
        assert min(errors) < 1e-5


def test_what_leaks_in_is_not_learned_as_a_voice():
    """Only the first speaker so far, 12 dB below in the other output; then the second one."""
    src = long_pauses(0)
    first, second = src[0, :, 1000:25000], src[1, :, 73000:97000]
    for flipped in (False, True):
        follow, silence = Follower(8000), torch.zeros(2, 1, 4000)
        follow(None, torch.stack([first, 0.25 * first]))
        assert follow.spectra[0].sum() > 0 and follow.spectra[1].sum() == 0  # no voice so far
        new = torch.stack([0.25 * second, second])
        assert torch.equal(follow(silence, new.flip(0) if flipped else new), new)
        assert follow.spectra[1].sum() > 0


class Exchanging:
    """A tracker that exchanges two voices from here to there, and counts what it has heard."""

    def __init__(self, start, stop):
        self.start, self.stop, self.heard = start, stop, []

    def follow(self, est, rate, past=None, upto=None):
        done = past or 0
        self.heard.append((est.shape[-1], upto))
        a, b = (min(max(0, x - done), est.shape[-1]) for x in (self.start, self.stop))
        return torch.cat([est[..., :a], est[..., a:b].flip(0), est[..., b:]], -1), done + upto


@pytest.mark.parametrize("seconds", [0.1, 239, 240, 241, 700])
@pytest.mark.parametrize("size", [777, 9000])
def test_tracking_in_pieces_loses_nothing(seconds, size):
    rows = noise(3, 2, round(40 * seconds))
    tracker = Exchanging(30 * 40, 130 * 40)
    came = torch.cat([*tracked(rows.split(size, -1), tracker, 40, 2)], -1)
    want = rows.clone()
    want[:2, :, 1200:5200] = rows[:2, :, 1200:5200].flip(0)
    assert torch.equal(came, want)
    heard = tracker.heard
    assert all(length < 240 * 40 + size for length, _ in heard)  # memory stays constant
    assert all(length - upto == 120 * 40 for length, upto in heard[:-1])  # and it hears ahead
    assert heard[-1][0] == heard[-1][1] and sum(upto for _, upto in heard) == rows.shape[-1]


def test_only_voices_are_tracked(tmp_path):
    mix = noise(1, 16000)
    for names, exchanged in ((("s1", "s2"), True), (("vocals", "other"), False)):
        separator = Halves(8000, names, 1)
        plain = run(separator, mix)
        separator.tracker = Exchanging(4000, 8000)
        est = run(separator, mix)
        assert bool(separator.tracker.heard) == exchanged
        want = plain.clone()
        if exchanged:
            want[..., 4000:8000] = plain[..., 4000:8000].flip(0)
        assert torch.equal(est, want)
        first = run(separator, mix, only=names[0])
        assert torch.equal(first[0], want[0])
        separate_file(separator, save(tmp_path / "a.wav", mix, 8000), tmp_path, progress=False)
        assert (load(tmp_path / "a" / f"{names[1]}.wav")[0] - want[1]).abs().max() < 1e-3
        separator.tracker = None
        assert torch.equal(run(separator, mix), plain)


# -- files


def test_notes(tmp_path):
    told = []
    path = save(tmp_path / "a.wav", noise(2, 44100), 44100)
    how = dict(progress=False, on_note=told.append)
    separate_file(Halves(), path, tmp_path, **how)
    separate_file(Halves(), path, tmp_path, two_stems="vocals", **how)
    assert [note.count("11.025 kHz") for note in told] == [1, 1] and "no_vocals" in told[1]
    separate_file(Halves(), path, tmp_path, fill="other", **how)
    separate_file(Halves(44100), path, tmp_path, **how)
    assert len(told) == 2
    loud = save(tmp_path / "b.wav", 30 * noise(2, 44100), 44100, "FLOAT")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        separate_file(Halves(44100), loud, tmp_path, two_stems="vocals", bits=16, **how)
    assert "were cut off, so the files do not add up" in told[2] and len(told) == 3


def test_a_part_of_a_file(tmp_path):
    wav = noise(2, 30000)
    path = save(tmp_path / "a.wav", wav, 8000, "FLOAT")
    plain = lambda mix: mix[:, None]
    paths = separate_file(plain, path, tmp_path, start=1.0, duration=1.5, progress=False)
    assert torch.equal(load(paths["s1"])[0], wav[:, 8000:20000])
    with pytest.raises(ValueError) as error:
        separate_file(plain, path, tmp_path / "o", start=9.0, progress=False)
    assert one_line(error) and not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    "how, words",
    [
        ({"two_stems": "bass"}, "two_stems is 'bass'"),
        ({"only": ["bass"]}, "'bass'; there are vocals, other"),
        ({"two_stems": "vocals", "only": ["other"]}, "there are vocals, no_vocals"),
        ({"fill": "bass"}, "fill is 'bass'"),
        ({"device": "tpu"}, "auto, cpu, cuda, cuda:N or mps"),
        ({"device": "cuda:99"}, "use auto or cpu"),
        ({"shifts": -2}, "shifts is -2"),
    ],
)
def test_refused_before_the_work(tmp_path, how, words):
    path, network = save(tmp_path / "a.wav", noise(2, 9000), 44100), Halves()
    network.forward = lambda mix: pytest.fail("it began to work")
    with pytest.raises(ValueError, match=words) as error:
        separate_file(network, path, tmp_path / "out", progress=False, **how)
    assert one_line(error) and not (tmp_path / "out").exists()


def test_devices():
    assert pick_device("cpu").type == "cpu" and pick_device("auto").type in ("cpu", "cuda", "mps")
    mix = noise(2, 9000)
    assert torch.equal(run(Halves(), mix, device="auto"), run(Halves(), mix))


def test_the_separator_with_its_options(tmp_path):
    song = example_song()
    mix = song.mix[:, :44100]
    karaoke = sepbook.Separator(Halves(44100), two_stems="vocals", progress=False)
    assert karaoke.sources == ("vocals", "other")
    stems = karaoke.separate(mix, 44100)
    assert list(stems) == ["vocals", "no_vocals"] and torch.equal(sum(stems.values()), mix)
    paths = karaoke.separate_file(save(tmp_path / "a.wav", mix, 44100, "FLOAT"), tmp_path)
    assert torch.equal(load(paths["no_vocals"])[0], stems["no_vocals"])
    assert torch.equal(karaoke.separate(tmp_path / "a.wav")["vocals"], stems["vocals"])
    assert list(karaoke.separate(mix, 44100, two_stems=None)) == ["vocals", "other"]
    assert list(Separator(lambda m: m[:, None], progress=False).separate(mix, 44100)) == ["s1"]
    with pytest.raises(TypeError, match="no option 'stems'") as error:
        Separator(Halves(), stems=2)
    assert "\n" not in str(error.value)


# -- waiting threads


@pytest.mark.parametrize(
    "before, own, want",
    [
        ("", {}, "PASSIVE"),
        ("import torch;", {}, "None"),
        ("", {"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE"),
        ("", {"GOMP_SPINCOUNT": "7"}, "None"),
    ],
)
def test_waiting_threads_sleep_unless_you_say_otherwise(before, own, want):
    names = "OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY"
    env = {k: v for k, v in os.environ.items() if k not in names} | own
    code = f"import os; {before} import sepbook; print(os.environ.get('OMP_WAIT_POLICY'))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    assert done.stdout.strip() == want, done.stderr
