"""What the STFT does with odd sizes, with bad input, with gradients and in half precision."""

import copy
import io

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sepbook.stft import STFT, check_cola, griffin_lim, istft, make_window, overlap_add, stft


def noise(*shape, dtype=torch.float64, seed=0):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def one_line(error: pytest.ExceptionInfo, *words: str) -> None:
    text = str(error.value)
    assert "\n" not in text and len(text) < 300
    for word in words:
        assert word in text, f"{word!r} is not in {text!r}"


@settings(max_examples=150)
@given(data=st.data())
def test_perfect_reconstruction(data):
    """Any length, any hop up to half the window, any window, centred: everything comes back."""
    n_fft = data.draw(st.integers(4, 300), "n_fft")
    win_length = data.draw(st.integers(max(2, n_fft // 2), n_fft), "win_length")
    hop = data.draw(st.integers(1, max(1, win_length // 2)), "hop")
    window = data.draw(
        st.sampled_from(["hann", "sqrt_hann", "hamming", "blackman", "rect"]), "window"
    )
    time = data.draw(st.integers(n_fft // 2 + 1, 1200), "time")
    shape = data.draw(st.sampled_from([(), (2,), (3, 2)]), "leading axes")
    how = {"n_fft": n_fft, "hop": hop, "window": window, "win_length": win_length}
    wav = noise(*shape, time)
    back = istft(stft(wav, pad_end=True, **how), time, **how)
    assert back.shape == wav.shape and back.dtype == wav.dtype
    assert (back - wav).abs().max() <= 1e-9 * wav.abs().max()


@settings(max_examples=60)
@given(n_fft=st.integers(16, 600), time=st.integers(1000, 3000), part=st.sampled_from([3, 4, 8]))
def test_perfect_reconstruction_in_single_precision_without_padding(n_fft, time, part):
    wav = noise(2, time, dtype=torch.float32)
    hop = n_fft // part
    back = istft(stft(wav, n_fft, hop), time, n_fft, hop)
    assert (back - wav).abs().max() <= 1e-6 * wav.abs().max()


def test_middle_comes_back_without_centring():
    wav = noise(1, 4000)
    back = istft(stft(wav, 512, 128, center=False), hop=128, center=False)
    assert back.shape[-1] == 3968 and back[..., 0] == 0  # no window has seen the first sample
    torch.testing.assert_close(back[..., 10:-10], wav[..., 10:3958], rtol=0, atol=1e-8)


@pytest.mark.parametrize("n_fft, hop", [(16, 4), (15, 5), (16, 11)])
def test_gradients(n_fft, hop):
    wav = noise(2, 41).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: stft(x, n_fft, hop, pad_end=True), wav)
    spec = stft(wav, n_fft, hop, pad_end=True).detach().requires_grad_()
    assert torch.autograd.gradcheck(lambda s: istft(s, 41, n_fft, hop), spec)
    window = make_window("hamming", n_fft, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda w: stft(wav.detach(), n_fft, hop, w), window)


def test_linear_and_every_item_alone():
    a, b = noise(3, 2, 2000), noise(3, 2, 2000, seed=1)
    torch.testing.assert_close(stft(2 * a - b, 256), 2 * stft(a, 256) - stft(b, 256))
    torch.testing.assert_close(stft(a, 256)[1, 0], stft(a[1, 0], 256))


@pytest.mark.parametrize("n_fft", [256, 255])
def test_first_and_nyquist_bins_are_real(n_fft):
    spec = stft(noise(2000), n_fft)
    assert (spec[0].imag == 0).all()
    assert (spec[-1].imag == 0).all() == (n_fft % 2 == 0)


def test_imaginary_parts_of_real_bins_are_ignored():
    spec = stft(noise(2000), 256)
    odd = spec.clone()
    odd[0] += 5j
    odd[-1] += 5j
    torch.testing.assert_close(istft(odd), istft(spec), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "least, center, pad_mode",
    [(129, True, "reflect"), (1, True, "constant"), (256, False, "reflect")],
)
def test_shortest_signal(least, center, pad_mode):
    assert stft(noise(1, least), 256, center=center, pad_mode=pad_mode).shape[-1] >= 1
    with pytest.raises(ValueError) as error:
        stft(noise(1, least - 1), 256, center=center, pad_mode=pad_mode)
    one_line(error, f"takes {least} or more", "pad it", "n_fft=256")


def test_swapped_axes_nan_and_integers():
    with pytest.raises(ValueError) as error:
        stft(noise(44100, 2))
    one_line(error, "(44100, 2)", "wav.mT")
    for bad in (torch.nan, torch.inf):
        wav = noise(2, 4000)
        wav[1, 7] = bad
        with pytest.raises(ValueError) as error:
            stft(wav)
        one_line(error, "1 NaN or infinite samples")
    with pytest.raises(TypeError) as error:
        stft(torch.zeros(1, 4000, dtype=torch.int16))
    one_line(error, "wav.float()")


def test_loud_but_finite_samples_are_allowed():
    wav = torch.full((1, 4000), 3e38)  # their sum overflows
    assert stft(wav, 256, center=False, window="rect", normalized=True).shape[-1] > 0


def test_windows_and_hops_that_cannot_work():
    for hop, power in ((300, 1), (256, 2)):
        with pytest.raises(ValueError) as error:
            check_cola(make_window("hann", 512), hop, power)
        one_line(error, "%", f"hop {hop}")
    spec = stft(noise(1, 4000), 512, 512)
    with pytest.raises(ValueError) as error:
        istft(spec, hop=512)
    one_line(error, "gaps", "hop of 128 or less")
    with pytest.raises(ValueError) as error:
        STFT(512, 600)
    one_line(error, "gaps")
    for make, words in (
        (lambda: make_window("ham", 512), ("'ham'", "hamming")),
        (lambda: stft(noise(4000), 512, win_length=600), ("600", "n_fft=512")),
        (lambda: stft(noise(4000), 512, window=torch.ones(600)), ("600", "n_fft=512")),
        (
            lambda: stft(noise(4000), 512, window=torch.ones(2, 512), win_length=512),
            ("(2, 512)", "(512,)"),
        ),
        (lambda: stft(noise(4000), 512, hop=0), ("hop is 0",)),
        (lambda: istft(torch.rand(257, 9)), ("float32", "griffin_lim")),
        (lambda: istft(spec, n_fft=400), ("(1, 257, 8)", "n_fft=400")),
        (
            lambda: istft(stft(noise(4199), 512, 384), 4199, hop=384),
            ("length=4199", "pad_end=True"),
        ),
        (lambda: griffin_lim(spec), ("spec.abs()",)),
        (lambda: griffin_lim(-spec.abs()), ("spec.abs()",)),
    ):
        with pytest.raises(ValueError) as error:
            make()
        one_line(error, *words)


def test_masked_spectra_do_not_click_at_the_end_with_pad_end():
    wav = 0.1 * noise(1, 20 * 512 + 511, dtype=torch.float32)
    spec = stft(wav, 1024, 512, pad_end=True)
    mask = torch.rand(spec.shape, generator=torch.Generator().manual_seed(2))
    assert istft(spec * mask, wav.shape[-1], hop=512).abs().max() < 1


@pytest.mark.parametrize("n_fft, center", [(64, True), (63, True), (64, False), (63, False)])
def test_pad_end_leaves_no_sample_behind_the_last_frame(n_fft, center):
    """The last frame is centred on the last sample or beyond it, or ends there without centring."""
    for time in range(100, 140):
        frames = stft(noise(time), n_fft, 20, center=center, pad_end=True).shape[-1]
        last = (frames - 1) * 20
        assert last >= time - 1 if center else last + n_fft >= time


def test_silence_stays_silence():
    wav = torch.zeros(2, 5000)
    assert (istft(stft(wav, 512), 5000) == 0).all()
    assert torch.isfinite(griffin_lim(stft(wav, 512).abs(), 5, n_fft=512)).all()


def test_module_moves_and_saves_nothing():
    module = STFT(512, 128, window="sqrt_hann")
    assert not module.state_dict() and not list(module.parameters())
    assert module.double().window.dtype == torch.float64
    wav = noise(2, 4001)
    torch.testing.assert_close(module(wav), stft(wav, 512, 128, "sqrt_hann"), rtol=1e-6, atol=1e-5)
    torch.testing.assert_close(
        copy.deepcopy(module).inverse(module(wav), 4001), wav, rtol=0, atol=1e-9
    )
    buffer = io.BytesIO()
    torch.save(module.state_dict(), buffer)
    module.load_state_dict({})


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_and_autocast(dtype):
    wav = noise(2, 4000).to(dtype)
    assert stft(wav).dtype == torch.complex64
    with torch.autocast("cpu", dtype=torch.bfloat16):
        spec = stft(wav.float(), 512)
        assert spec.dtype == torch.complex64
        assert (istft(spec, 4000) - wav.float()).abs().max() < 1e-5


def test_griffin_lim_plain_never_gets_worse_and_can_be_repeated():
    mag = stft(noise(6000), 256).abs()
    wav, curve = griffin_lim(mag, 30, momentum=0, length=6000, n_fft=256, return_convergence=True)
    assert wav.shape == (6000,) and curve.shape == (30,)
    assert (curve[1:] <= curve[:-1] + 1e-9).all()
    assert torch.equal(wav, griffin_lim(mag, 30, momentum=0, length=6000, n_fft=256))


def test_overlap_add_against_a_loop():
    frames = noise(3, 7, 10)
    for hop in (1, 3, 10, 13):
        want = torch.zeros(3, 6 * hop + 10, dtype=torch.float64)
        for t in range(7):
            want[:, t * hop : t * hop + 10] += frames[:, t]
        torch.testing.assert_close(overlap_add(frames, hop), want)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu():
    module, wav = STFT(512, 128).cuda(), noise(2, 2, 4001, dtype=torch.float32)
    with torch.autocast("cuda", dtype=torch.float16):
        spec = module(wav.cuda())
        back = module.inverse(spec, 4001)
    torch.testing.assert_close(spec.cpu(), stft(wav, 512, 128), rtol=0, atol=1e-4)
    torch.testing.assert_close(back.cpu(), wav, rtol=0, atol=2e-6)
