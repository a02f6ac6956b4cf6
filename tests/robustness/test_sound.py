"""What sepbook.sound does with broken files, odd formats, wrong tensors and failing disks."""

import base64
import io
import os
import re
import shutil
import subprocess

import numpy as np
import pytest
import soundfile as sf
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sepbook.engine.files import MP3_RATES
from sepbook.engine.show import (
    level_matched,
    player_assets,
    power_of,
    small_spectrogram,
    squeezed,
)
from sepbook.sound import (
    Separator,
    check_wave,
    listen,
    load,
    match_level,
    mix_convolutive,
    mix_linear,
    mixing_desk,
    pan,
    render_mix,
    resample,
    rms_db,
    room_responses,
    save,
    show_spectrogram,
    show_waveform,
    source_images,
)

needs_ffmpeg = pytest.mark.skipif(not shutil.which("ffmpeg"), reason="no ffmpeg on the PATH")


def noise(*shape, seed=0, level=0.1, dtype=torch.float32):
    return level * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def tone(hz=440, rate=44100, seconds=0.5, channels=1):
    time = torch.arange(int(rate * seconds), dtype=torch.float64) / rate
    return (0.3 * torch.sin(2 * torch.pi * hz * time)).float().expand(channels, -1).clone()


def one_line(error: pytest.ExceptionInfo, *words: str) -> None:
    text = str(error.value)
    assert "\n" not in text and 20 < len(text) < 400, text
    for word in words:
        assert word in text, f"{word!r} is not in {text!r}"


def ffmpeg(*arguments) -> None:
    subprocess.run(["ffmpeg", "-v", "error", "-y", *map(str, arguments)], check=True)


def clips(player):
    """The clips inside a player, decoded: (time, channel) and rate."""
    coded = [part.split('"')[0] for part in player.data.split("base64,")[1:]]
    return [sf.read(io.BytesIO(base64.b64decode(c)), always_2d=True) for c in coded]


# Bad files


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        load(tmp_path / "missing.wav")
    one_line(error, "missing.wav", "does not exist")


def test_folder(tmp_path):
    with pytest.raises(ValueError) as error:
        load(tmp_path)
    one_line(error, "folder")


@pytest.mark.parametrize("name", ["a.wav", "a.mp3", "a.flac", "a"])
def test_zero_bytes(tmp_path, name):
    (tmp_path / name).touch()
    with pytest.raises(ValueError) as error:
        load(tmp_path / name)
    one_line(error, name, "empty")


@needs_ffmpeg
@pytest.mark.parametrize("name", ["a.wav", "a.mp3", "a.txt", "a.m4a"])
@pytest.mark.parametrize(
    "text", ["This is not a sound.\n" * 50, "#EXTM3U\nother.wav\n", "\0" * 999]
)
def test_text_named_like_audio(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    save(tmp_path / "other.wav", tone(), 44100)
    with pytest.raises(ValueError) as error:
        load(tmp_path / name)
    one_line(error, name, "give a file with sound")


def test_header_without_samples(tmp_path):
    sf.write(tmp_path / "a.wav", np.zeros((0, 2)), 44100)
    with pytest.raises(ValueError) as error:
        load(tmp_path / "a.wav")
    one_line(error, "no samples")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_file_with_nan(tmp_path, value):
    wave = np.zeros((100, 2), "float32")
    wave[50, 1] = value
    sf.write(tmp_path / "a.wav", wave, 8000, "FLOAT")
    with pytest.raises(ValueError) as error:
        load(tmp_path / "a.wav")
    one_line(error, "NaN or infinite")


@needs_ffmpeg
def test_random_bytes(tmp_path):
    (tmp_path / "a.wav").write_bytes(np.random.default_rng(0).bytes(5000))
    with pytest.raises(ValueError) as error:
        load(tmp_path / "a.wav")
    one_line(error, "a.wav")


def test_truncated_wav_gives_what_is_there(tmp_path):
    save(tmp_path / "a.wav", tone(), 44100)
    whole = (tmp_path / "a.wav").read_bytes()
    (tmp_path / "a.wav").write_bytes(whole[: len(whole) // 2])
    wav, rate = load(tmp_path / "a.wav")
    assert rate == 44100 and 10000 < wav.shape[1] < 12000
    torch.testing.assert_close(wav, tone()[:, : wav.shape[1]], atol=2e-7, rtol=0)


def test_without_ffmpeg_the_message_says_so(tmp_path, monkeypatch):
    (tmp_path / "a.m4a").write_bytes(b"not for soundfile" * 9)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RuntimeError) as error:
        load(tmp_path / "a.m4a")
    one_line(error, "a.m4a", "ffmpeg")


@needs_ffmpeg
def test_video_without_sound(tmp_path):
    ffmpeg("-f", "lavfi", "-i", "testsrc=duration=0.2:size=32x32:rate=10", tmp_path / "v.mp4")
    with pytest.raises(ValueError) as error:
        load(tmp_path / "v.mp4")
    one_line(error, "v.mp4", "no audio stream")


# Good files of many kinds


@pytest.mark.parametrize(
    ("subtype", "step"),
    [("PCM_U8", 2**-7), ("PCM_16", 2**-15), ("PCM_24", 2**-23), ("PCM_32", 2**-24)]
    + [("FLOAT", 1e-7), ("DOUBLE", 1e-7), ("ULAW", 0.02)],
)
def test_wav_of_every_depth(tmp_path, subtype, step):
    want = tone(channels=2)
    sf.write(tmp_path / "a.wav", want.T.numpy(), 44100, subtype)
    wav, rate = load(tmp_path / "a.wav")
    assert (rate, wav.shape, wav.dtype) == (44100, want.shape, torch.float32)
    assert (wav - want).abs().max() <= 1.01 * step


@needs_ffmpeg
@pytest.mark.parametrize("suffix", ["mp3", "m4a", "ogg", "flac", "opus", "aiff", "mkv", "webm"])
def test_formats_made_by_ffmpeg(tmp_path, suffix):
    want = tone(rate=48000, channels=2)
    sf.write(tmp_path / "a.wav", want.T.numpy(), 48000, "FLOAT")
    codec = ["-c:a", "libvorbis"] if suffix == "ogg" else []
    ffmpeg("-i", tmp_path / "a.wav", *codec, tmp_path / f"a.{suffix}")
    wav, rate = load(tmp_path / f"a.{suffix}")
    assert rate == 48000 and wav.shape[0] == 2 and wav.is_contiguous()
    assert abs(wav.shape[1] - want.shape[1]) < 4096  # codecs pad
    spectrum = torch.fft.rfft(wav[0, 6000:18000]).abs()
    assert spectrum.argmax() == 110  # 440 Hz
    assert abs(rms_db(wav[:, 6000:18000]) - rms_db(want[:, 6000:18000])) < 0.5


@needs_ffmpeg
def test_video_with_sound_and_wrong_suffix(tmp_path):
    save(tmp_path / "a.wav", tone(rate=44100), 44100)
    picture = ["-f", "lavfi", "-i", "testsrc=duration=0.5:size=32x32:rate=10"]
    ffmpeg(*picture, "-i", tmp_path / "a.wav", tmp_path / "v.mp4")
    (tmp_path / "v.mp4").rename(tmp_path / "v.wav")
    wav, rate = load(tmp_path / "v.wav")
    assert rate == 44100 and wav.shape[0] == 1
    assert abs(rms_db(wav[:, 5000:15000]) - rms_db(tone()[:, 5000:15000])) < 0.5


@needs_ffmpeg
def test_big_endian_and_many_channels(tmp_path):
    want = noise(6, 4410)
    sf.write(tmp_path / "a.wav", want.T.numpy(), 44100, "FLOAT")
    ffmpeg("-i", tmp_path / "a.wav", "-c:a", "pcm_f32be", tmp_path / "a.aiff")
    torch.testing.assert_close(load(tmp_path / "a.aiff")[0], want)


NAMES = [
    "with space.wav",
    "Zwölf Ärgernisse.flac",
    "노래.wav",
    "-v.wav",
    "a:b.wav",
    "100%.wav",
    "é'\"$;.wav",
]


@pytest.mark.parametrize("name", NAMES)
def test_names(tmp_path, name, monkeypatch):
    folder = tmp_path / "ein Ordner ü"
    folder.mkdir()
    assert save(folder / name, tone(), 44100) == folder / name
    assert torch.allclose(load(str(folder / name))[0], tone(), atol=2**-23)
    monkeypatch.chdir(folder)
    assert load(name)[1] == 44100


@needs_ffmpeg
@pytest.mark.parametrize("name", ["with space.m4a", "노래.m4a", "-v.m4a", "a:b.m4a", "http:x.m4a"])
def test_names_for_ffmpeg(tmp_path, name, monkeypatch):
    save(tmp_path / "a.wav", tone(), 44100)
    ffmpeg("-i", tmp_path / "a.wav", tmp_path / "plain.m4a")
    (tmp_path / "plain.m4a").rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert load(name)[1] == 44100


# sample_rate and mono


@pytest.mark.parametrize("rate", [None, 8000, 16000, 22050, 44100, 48000])
@pytest.mark.parametrize("mono", [False, True])
def test_load_arguments(tmp_path, rate, mono):
    want = torch.cat([tone(440), 0.5 * tone(660)])
    save(tmp_path / "a.wav", want, 44100, "FLOAT")
    wav, got = load(tmp_path / "a.wav", sample_rate=rate, mono=mono)
    assert got == (rate or 44100)
    assert wav.shape == (1 if mono else 2, -(-want.shape[1] * got // 44100))
    inner = slice(got // 10, -got // 10)
    left, right = tone(440, got), 0.5 * tone(660, got)
    expected = (left + right) / 2 if mono else torch.cat([left, right])
    torch.testing.assert_close(
        wav[:, inner], expected[:, : wav.shape[1]][:, inner], atol=1e-4, rtol=0
    )


@pytest.mark.parametrize("rate", [0, -1, 44100.5, "44100", float("nan")])
def test_bad_rates(tmp_path, rate):
    save(tmp_path / "a.wav", tone(), 44100)
    for action in (
        lambda: load(tmp_path / "a.wav", sample_rate=rate),
        lambda: resample(tone(), 44100, rate),
        lambda: resample(tone(), rate, 44100),
        lambda: save(tmp_path / "b.wav", tone(), rate),
        lambda: listen(tone(), rate),
    ):
        with pytest.raises(ValueError) as error:
            action()
        one_line(error, "positive whole number")
    assert os.listdir(tmp_path) == ["a.wav"]


# save: all or nothing


@pytest.mark.parametrize("suffix", ["wav", "flac", "aiff", "ogg", "mp3"])
@pytest.mark.parametrize("channels", [1, 2])
def test_round_trip(tmp_path, suffix, channels):
    want = tone(channels=channels)
    wav, rate = load(save(tmp_path / f"a.{suffix}", want, 44100))
    assert rate == 44100 and wav.shape == want.shape
    lossy = suffix in ("ogg", "mp3")
    assert (wav - want).abs().max() <= (0.02 if lossy else 2**-23)
    assert os.listdir(tmp_path) == [f"a.{suffix}"]


def test_float_round_trip_is_exact(tmp_path):
    want = noise(3, 777, level=5)
    wav, _ = load(save(tmp_path / "a.wav", want, 44100, subtype="FLOAT"))
    assert torch.equal(wav, want)
    assert torch.equal(
        load(save(tmp_path / "b.wav", want[:1, :1], 44100, "FLOAT"))[0], want[:1, :1]
    )


def test_other_dtypes_devices_and_gradients(tmp_path):
    for wav in (tone().double(), tone().half(), tone().requires_grad_(), tone().numpy()):
        assert load(save(tmp_path / "a.wav", wav, 44100))[0].shape == (1, 22050)


def test_full_scale_is_no_clipping(tmp_path):
    want = torch.tensor([[1.0, -1.0, 0.5, 0.0]])
    wav, _ = load(save(tmp_path / "a.wav", want, 8000, "PCM_16"))
    assert (wav - want).abs().max() <= 2**-15


BAD_WAVES = {
    "nan": (torch.tensor([[0.1, float("nan")]]), "NaN"),
    "inf": (torch.tensor([[0.1, float("inf")]]), "NaN or infinity"),
    "no channels": (torch.zeros(0, 100), "no audio"),
    "no samples": (torch.zeros(2, 0), "no audio"),
    "swapped axes": (torch.zeros(100, 2), "write wav.mT"),
    "too many channels": (torch.zeros(65, 100), "65 channels"),
    "one axis": (torch.zeros(100), "(..., channel, time)"),
    "scalar": (torch.tensor(0.5), "(..., channel, time)"),
    "batch": (torch.zeros(1, 2, 100), "(channel, time)"),
    "clipping": (torch.full((1, 9), 1.5), "FLOAT"),
    "integers": (torch.zeros(1, 9, dtype=torch.int16), "32768"),
    "complex": (torch.zeros(1, 9, dtype=torch.complex64), "floating-point"),
    "list": ([[0.0, 0.1]], "list"),
    "none": (None, "NoneType"),
    "integer array": (np.zeros((1, 9), "int16"), "int16"),
    "object array": (np.array([[None, 1]]), "object"),
}


@pytest.mark.parametrize("case", BAD_WAVES)
def test_save_refuses(tmp_path, case):
    wav, words = BAD_WAVES[case]
    save(tmp_path / "a.wav", tone(), 44100)
    before = (tmp_path / "a.wav").read_bytes()
    with pytest.raises((TypeError, ValueError)) as error:
        save(tmp_path / "a.wav", wav, 44100)
    one_line(error, words)
    assert os.listdir(tmp_path) == ["a.wav"] and (tmp_path / "a.wav").read_bytes() == before


@pytest.mark.parametrize("case", [c for c in BAD_WAVES if c not in ("batch", "clipping")])
def test_check_wave_refuses(case):
    with pytest.raises((TypeError, ValueError)) as error:
        check_wave(BAD_WAVES[case][0], "wav")
    one_line(error, "wav", BAD_WAVES[case][1])


@pytest.mark.parametrize("name", ["a.m4a", "a.xyz", "a", "a.wav.txt"])
def test_unknown_suffix(tmp_path, name):
    with pytest.raises(ValueError) as error:
        save(tmp_path / name, tone(), 44100)
    one_line(error, ".wav", ".flac")
    assert not os.listdir(tmp_path)


def test_missing_folder_to_save_in(tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        save(tmp_path / "no" / "a.wav", tone(), 44100)
    one_line(error, "create it first")


@pytest.mark.parametrize(
    ("name", "rate", "subtype", "channels"),
    [("a.opus", 44100, None, 1), ("a.mp3", 96000, None, 1), ("a.mp3", 44100, None, 3)]
    + [("a.flac", 44100, "FLOAT", 1), ("a.wav", 44100, "PCM_99", 1), ("a.wav", 44100, "VORBIS", 1)],
)
def test_what_a_format_cannot_hold(tmp_path, name, rate, subtype, channels):
    with pytest.raises(ValueError) as error:
        save(tmp_path / name, tone(channels=channels), rate, subtype)
    one_line(error, name, "try")
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("where", ["write", "replace"])
def test_failing_disk_leaves_the_old_file(tmp_path, monkeypatch, where):
    save(tmp_path / "a.wav", tone(), 44100)
    before = (tmp_path / "a.wav").read_bytes()

    def half_written(path, *_, **__):
        with open(path, "wb") as file:
            file.write(b"RIFF")
        raise OSError(28, "No space left on device")

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    module, attribute, fake = (
        (sf, "write", half_written) if where == "write" else (os, "replace", refuse)
    )
    monkeypatch.setattr(module, attribute, fake)
    with pytest.raises(OSError):
        save(tmp_path / "a.wav", 0.5 * tone(), 44100)
    assert os.listdir(tmp_path) == ["a.wav"] and (tmp_path / "a.wav").read_bytes() == before


def test_interrupted_save_leaves_nothing(tmp_path, monkeypatch):
    def interrupt(path, *_, **__):
        open(path, "wb").close()
        raise KeyboardInterrupt

    monkeypatch.setattr(sf, "write", interrupt)
    with pytest.raises(KeyboardInterrupt):
        save(tmp_path / "a.wav", tone(), 44100)
    assert not os.listdir(tmp_path)


def test_save_over_a_folder(tmp_path):
    (tmp_path / "a.wav").mkdir()
    with pytest.raises(OSError):
        save(tmp_path / "a.wav", tone(), 44100)
    assert os.listdir(tmp_path) == ["a.wav"]


# Arrays and tensors that are fine


def test_check_wave_accepts():
    wav = noise(2, 3, 100)
    assert check_wave(wav) is wav
    big = np.linspace(-1, 1, 20, dtype=">f8").reshape(2, 10)
    locked = np.zeros((2, 10), "float32")
    locked.flags.writeable = False
    for array in (big, locked, np.zeros((10, 2))[::-1].T, np.zeros((1, 5), "float16")):
        assert torch.equal(
            check_wave(array), torch.tensor(array.astype("<f8")).to(check_wave(array))
        )


def test_check_wave_demands():
    wav = noise(2, 100)
    for demand, words in [
        ({"channels": 1}, "mono=True"),
        ({"channels": 4}, "2 channels, but 4"),
        ({"sample_rate": 44100, "needed_rate": 8000}, "call resample(mix, 44100, 8000)"),
    ]:
        with pytest.raises(ValueError) as error:
            check_wave(wav, **demand)
        one_line(error, words)
    assert check_wave(wav, channels=2, sample_rate=8000, needed_rate=8000) is wav


# resample


@settings(max_examples=60)
@given(
    time=st.integers(1, 3000),
    old=st.sampled_from([8000, 11025, 16000, 44100, 48000]),
    new=st.sampled_from([8000, 16000, 22050, 44100, 96000]),
    lead=st.sampled_from([(1,), (2, 1), (3, 2, 1)]),
)
def test_resample_shapes(time, old, new, lead):
    out = resample(noise(*lead, time), old, new)
    assert out.shape == (*lead, -(-time * new // old)) and torch.isfinite(out).all()


def test_resample_treats_rows_apart():
    wav = noise(2, 3, 2, 500, dtype=torch.float64)
    out = resample(wav, 44100, 16000)
    assert out.dtype == torch.float64
    torch.testing.assert_close(out[1, 2], resample(wav[1, 2], 44100, 16000), atol=1e-12, rtol=0)
    torch.testing.assert_close(resample(3 * wav, 44100, 16000), 3 * out, atol=1e-9, rtol=0)


def test_resample_refuses_nan_and_keeps_equal_rates():
    with pytest.raises(ValueError):
        resample(torch.full((1, 9), float("nan")), 8000, 16000)
    wav = noise(1, 9)
    assert resample(wav, 8000, 8000) is wav


# Levels and mixing


def test_match_level():
    wav = torch.stack([noise(2, 4000), noise(2, 4000, seed=1, level=3), torch.zeros(2, 4000)])
    out = match_level(wav, -23)
    torch.testing.assert_close(rms_db(out)[:2], torch.tensor([-23.0, -23.0]), atol=1e-3, rtol=0)
    assert not out[2].any() and torch.isfinite(out).all()
    click = torch.zeros(1, 8000)
    click[0, 0] = 0.5
    assert abs(match_level(click, -23).max() - 0.99) < 1e-6


def test_pan():
    wav = noise(1, 100)
    assert not pan(wav, -1)[1].abs().max() > 1e-7 and torch.allclose(pan(wav, -1)[:1], wav)
    stereo = noise(2, 100)
    assert torch.equal(pan(stereo, 0), stereo)
    assert torch.allclose(pan(stereo, 1)[1], stereo[1]) and pan(stereo, 1)[0].abs().max() < 1e-7
    for bad in (1.5, -2, float("nan")):
        with pytest.raises(ValueError) as error:
            pan(wav, bad)
        one_line(error, "-1 (left) to 1 (right)")
    with pytest.raises(ValueError):
        pan(noise(3, 100), 0)


def test_mixing_refuses_misfits():
    src = noise(2, 1, 100)
    for A in (torch.ones(2, 3), torch.ones(2), torch.ones(2, 2, 4)):
        with pytest.raises(ValueError) as error:
            mix_linear(src, A)
        one_line(error)
    with pytest.raises(ValueError) as error:
        mix_linear(noise(2, 2, 100), torch.ones(2, 2))
    one_line(error, "src.mean(-2, keepdim=True)")
    with pytest.raises(ValueError):
        source_images(src, torch.ones(2, 2))
    with pytest.raises(ValueError):
        mix_convolutive(src, torch.ones(2, 2, 5), noise=torch.zeros(1, 100))


def test_mixing_gradients_batches_and_dtypes():
    src = noise(4, 3, 1, 200, dtype=torch.float64).requires_grad_()
    A, filters = noise(2, 3, seed=1).double(), noise(2, 3, 30, seed=2).double()
    assert mix_linear(src, A).shape == (4, 2, 200)
    mix = mix_convolutive(src, filters, noise=torch.zeros(2, 200, dtype=torch.float64))
    assert mix.shape == (4, 2, 200) and mix.dtype == torch.float64
    (gradient,) = torch.autograd.grad(mix.sum(), src)
    torch.testing.assert_close(gradient[0, 1, 0, 0], filters[:, 1].sum())
    torch.testing.assert_close(mix[2], mix_convolutive(src[2], filters))


def test_rooms():
    room, voice, microphone = (5, 4, 2.7), (1, 1, 1), (3, 2, 1.5)
    filters = room_responses(room, [voice], [microphone, (3.2, 2, 1.5)], 8000, rt60=0.2)
    assert filters.shape[:2] == (2, 1) and filters.dtype == torch.float32
    for places in ([(9, 1, 1)], [(1, 1)], [(0, 1, 1)]):
        with pytest.raises(ValueError) as error:
            room_responses(room, places, [microphone], 8000)
        one_line(error, "inside the room")
    with pytest.raises(ValueError) as error:
        room_responses(room, [voice], [microphone], 8000, rt60=0.001)
    one_line(error, "rt60")


# Players and pictures


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 44100, 48000, 96000, 9000])
def test_player_decodes(rate):
    want = tone(300, rate, 1.0, 2)
    ((wave, got),) = clips(listen(want, rate, "a title"))
    assert got == (rate if rate in MP3_RATES else {9000: 11025, 96000: 48000}[rate])
    assert wave.shape == (got, 2)
    assert np.abs(np.fft.rfft(wave[:, 0])).argmax() == 300
    assert abs(10 * np.log10((wave**2).mean()) + 23) < 0.5  # MP3's own gain at 8 kHz


def test_players_are_level_matched():
    loud, soft, peaky = noise(1, 8000), noise(1, 8000, seed=1, level=0.001), torch.zeros(1, 8000)
    peaky[0, ::400] = 1
    levels = [10 * np.log10((w**2).mean()) for w, _ in clips(listen({"l": loud, "s": soft}, 8000))]
    assert max(levels) - min(levels) < 0.1  # and below -23: MP3 cuts the top of white noise
    assert abs(levels[0] + 23) < 1
    matched = level_matched([loud, soft, peaky], -10.0)
    levels = [rms_db(c).item() for c in matched]
    assert max(levels) - min(levels) < 1e-3 and max(c.abs().max() for c in matched) <= 0.991
    kept = level_matched([loud, soft, torch.full((1, 9), 2.0)], None)
    assert kept[2].max() <= 0.991
    torch.testing.assert_close(rms_db(kept[0]) - rms_db(kept[1]), rms_db(loud) - rms_db(soft))


def test_player_of_silence_and_titles():
    player = listen({"<script>": torch.zeros(1, 800), "b": tone(rate=8000)}, 8000, 'a "title"')
    assert "<figcaption>&lt;script&gt;<" in player.data and player.data.count("<audio") == 2
    assert "<strong>a &quot;title&quot;<" in player.data
    (silent, _), _ = clips(player)
    assert np.abs(silent).max() < 1e-3


def test_player_sizes():
    music = torch.cat([tone(h, 44100, 6.0) for h in (440, 550)]) + noise(2, 6 * 44100, level=0.03)
    assert len(listen(music, 44100).data) < 220_000
    assert len(listen(noise(1, 32000), 8000).data) < 30_000


def test_player_asks_nobody_for_anything():
    """All that a player needs is in it: no address, and sounds as data."""
    html = listen({"a": tone(rate=8000), "b": noise(1, 8000)}, 8000, spectrogram=True).data
    shown = re.sub(r"base64,[^\"']+", "", html)
    assert not re.search(r"https?:|//|@import|url\(|<link", shown)
    assert set(re.findall(r'src="([^,]{1,40})', html)) == {
        "data:audio/mpeg;base64",
        "data:image/webp;base64",
    }
    assert html.count('alt="Spectrogram of ') == 2 and 'data-seconds="1.00"' in html


def test_player_stays_small():
    """What stands in every output is a few kilobytes, on one line."""
    assert len(player_assets()) < 6000 and "\n" not in player_assets()
    assert squeezed("a {\n  b: c;\n}\n// no\nd: 'e // f';") == "a { b: c; } d: 'e // f';"


def test_small_spectrogram():
    """A tone is a line at its height, and half a clip of silence is dark."""
    import matplotlib.pyplot as plt

    wav = tone(1000, 8000, 2.0)
    wav[:, 8000:] = 0
    top = float(power_of(wav, 1024, 512).max())
    picture = plt.imread(io.BytesIO(small_spectrogram(wav, 8000, top)), format="webp")
    light = np.asarray(picture)[..., :3].astype(float).mean(-1)
    assert light.shape == (84, 480)
    mel = lambda hz: np.log1p(hz / 700)
    row = round(83 * (1 - mel(1000) / mel(4000)))
    assert abs(light[:, 20:220].mean(1).argmax() - row) <= 1
    assert light[:, 270:].max() < 0.1 * light[:, 20:220].max()
    soft = plt.imread(io.BytesIO(small_spectrogram(wav, 8000, 1e4 * top)), format="webp")
    assert np.asarray(soft).astype(float)[..., :3].mean(-1).max() < 0.7 * light.max()


@pytest.mark.parametrize("wav", [noise(3, 100), noise(1, 2, 100), {}, noise(100), noise(100, 2)])
def test_player_refuses(wav):
    with pytest.raises(ValueError) as error:
        listen(wav, 8000)
    one_line(error)


def test_pictures():
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    spec = torch.stft(noise(2, 8000), 512, window=torch.ones(512), return_complex=True)
    for wav in (noise(2, 8000), noise(8000), torch.zeros(1, 8000), noise(1, 30), spec):
        for log in (False, True):
            ax = show_spectrogram(wav, 8000, log_frequency=log, title="t", reference=1.0)
            assert "(s)" in ax.get_xlabel() and "(kHz)" in ax.get_ylabel()
            plt.close(ax.figure)
    for wav in (noise(1, 30), noise(2, 100_000), noise(6, 500)):
        assert show_waveform(wav, 8000).get_xlabel() == "time (s)"
    plt.close("all")


# The desk


def test_render_mix():
    src, off = noise(3, 2, 100), [False] * 3
    zero = [0.0] * 3
    torch.testing.assert_close(render_mix(src, zero, zero, off, off), src.sum(0))
    only = render_mix(src, zero, zero, [False, True, False], [False, True, True])
    torch.testing.assert_close(only, src[1] + src[2])  # solo wins over mute
    torch.testing.assert_close(
        render_mix(src, [-20, 0, 0], zero, [False, True, True], off), src[0] / 10
    )
    assert not render_mix(src, zero, zero, [True] * 3, off).any()
    assert render_mix(noise(3, 1, 100), zero, [-1, 0, 1], off, off).shape == (2, 100)
    with pytest.raises(ValueError) as error:
        render_mix(src, zero[:2], zero, off, off)
    one_line(error, "3 stems")


def test_desk_renders_what_its_controls_say():
    src = torch.stack([tone(h, 8000, 1.0, 2) for h in (300, 500)])
    desk = mixing_desk(src, 8000, ("a", "b"))
    rows, button, player = desk.children[:2], desk.children[-2], desk.children[-1]
    assert player.value == ""
    rows[0].children[2].value = True  # mute the first
    rows[1].children[0].value = -6.0
    button.click()
    part = player.value
    coded = base64.b64decode(part.split("base64,")[1].split('"')[0])
    wave, rate = sf.read(io.BytesIO(coded))
    spectrum = np.abs(np.fft.rfft(wave[:, 0]))
    assert rate == 8000 and spectrum.argmax() == 500 and spectrum[300] < 0.01 * spectrum[500]
    assert abs(10 * np.log10((wave**2).mean()) - rms_db(src[1]).item() + 6) < 1  # MP3 at 8 kHz
    with pytest.raises(ValueError) as error:
        mixing_desk(src, 8000, ("a", "b", "c"))
    one_line(error, "2 stems and 3 names")


def test_separator_protocol():
    class Halves:
        sample_rate, channels, sources = 8000, 1, ("s1", "s2")

        def __call__(self, mix):
            return torch.stack([mix / 2, mix / 2], 1)

    assert isinstance(Halves(), Separator)
    assert not isinstance(len, Separator)
