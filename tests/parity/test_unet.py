"""Spleeter's graph a second time: by hand, after the rules of Keras, on TensorFlow's variables."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from sepbook.mixtures import example_song
from sepbook.models.unet import SPLEETER, Spleeter
from sepbook.zoo import import_weights

WIDTHS = (3, 5, 4)
SMALL = {"widths": WIDTHS, "n_fft": 256, "hop": 64, "n_bins": 64, "patch": 32}


def number(kind: str, k: int) -> str:
    """Keras' name for the layer of a kind that is made after k others."""
    return f"{kind}_{k}" if k else kind


def checkpoint(n_src: int, widths: tuple[int, ...], channels: int = 2) -> dict[str, np.ndarray]:
    """Random variables with the names and shapes of a TensorFlow checkpoint of Spleeter."""
    draw = np.random.default_rng(0)
    state = {"global_step": np.array(1000, dtype=np.int64)}
    uniform = lambda low, high, *shape: draw.uniform(low, high, shape).astype(np.float32)
    count = {"conv2d": 0, "conv2d_transpose": 0, "batch_normalization": 0}

    def add(kind: str, leaves: dict) -> None:
        name = number(kind, count[kind])
        count[kind] += 1
        for leaf, value in leaves.items():
            state[f"{name}/{leaf}"] = value
            state[f"{name}/{leaf}/Adam"] = value

    def conv(kind: str, taps: int, n_in: int, n_out: int) -> None:
        shape = (n_in, n_out) if kind == "conv2d" else (n_out, n_in)
        scale = 1.5 / math.sqrt(taps * taps * n_in)
        kernel = uniform(-scale, scale, taps, taps, *shape)
        add(kind, {"kernel": kernel, "bias": uniform(-0.1, 0.1, n_out)})

    def norm(n: int) -> None:
        leaves = {"gamma": uniform(0.5, 1.5, n), "beta": uniform(-0.3, 0.3, n)}
        leaves |= {"moving_mean": uniform(-0.3, 0.3, n), "moving_variance": uniform(0.3, 2, n)}
        add("batch_normalization", leaves)

    for _ in range(n_src):
        for n_in, n_out in zip((channels, *widths), widths):
            conv("conv2d", 5, n_in, n_out)
            norm(n_out)
        n_in = widths[-1]
        for n_out in (*widths[-2::-1], 1):
            conv("conv2d_transpose", 5, n_in, n_out)
            norm(n_out)
            n_in = 2 * n_out
        conv("conv2d", 4, 1, channels)
    return state


class Keras:
    """The layers of Keras on arrays (batch, frame, frequency, channel), one loop per tap."""

    def __init__(self, state: dict[str, np.ndarray], elu: bool):
        self.state, self.elu = {k: v.astype(np.float64) for k, v in state.items()}, elu
        self.count = {"conv2d": 0, "conv2d_transpose": 0, "batch_normalization": 0}

    def take(self, kind: str) -> str:
        name = number(kind, self.count[kind])
        self.count[kind] += 1
        return name

    def conv(self, x: np.ndarray, stride: int = 2, dilation: int = 1) -> np.ndarray:
        """Conv2D with padding="same"."""
        name = self.take("conv2d")
        kernel, bias = self.state[f"{name}/kernel"], self.state[f"{name}/bias"]
        taps, sizes = kernel.shape[0], [-(-n // stride) for n in x.shape[1:3]]
        covered = [(n - 1) * stride + (taps - 1) * dilation + 1 for n in sizes]
        pads = [max(c - n, 0) for c, n in zip(covered, x.shape[1:3])]
        x = np.pad(x, ((0, 0), *((p // 2, p - p // 2) for p in pads), (0, 0)))
        out = np.zeros((x.shape[0], *sizes, kernel.shape[-1])) + bias
        for i in range(taps):
            for j in range(taps):
                rows = x[:, i * dilation :: stride][:, : sizes[0]]
                out += rows[:, :, j * dilation :: stride][:, :, : sizes[1]] @ kernel[i, j]
        return out

    def deconv(self, x: np.ndarray) -> np.ndarray:
        """Conv2DTranspose with stride 2 and padding="same": what conv's gradient does."""
        name = self.take("conv2d_transpose")
        kernel, bias = self.state[f"{name}/kernel"], self.state[f"{name}/bias"]
        batch, height, width, _ = x.shape
        out = np.zeros((batch, 2 * height + 3, 2 * width + 3, kernel.shape[2]))
        for i in range(5):
            for j in range(5):
                out[:, i : i + 2 * height : 2, j : j + 2 * width : 2] += x @ kernel[i, j].T
        return out[:, 1:-2, 1:-2] + bias

    def norm(self, x: np.ndarray) -> np.ndarray:
        name = self.take("batch_normalization")
        leaf = lambda key: self.state[f"{name}/{key}"]
        x = (x - leaf("moving_mean")) / np.sqrt(leaf("moving_variance") + 1e-3)
        return x * leaf("gamma") + leaf("beta")

    def act(self, x: np.ndarray, slope: float) -> np.ndarray:
        other = np.expm1(np.minimum(x, 0)) if self.elu else slope * x
        return np.where(x > 0, x, other)

    def unet(self, x: np.ndarray, levels: int) -> np.ndarray:
        """The logits of one stem's mask."""
        raw = []
        for _ in range(levels):
            raw.append(self.conv(x))
            x = self.act(self.norm(raw[-1]), 0.2)
        x = raw.pop()
        for _ in range(levels):
            x = self.norm(self.act(self.deconv(x), 0.0))
            x = np.concatenate([raw.pop(), x], -1) if raw else x
        return self.conv(x, stride=1, dilation=2)


def spectra(wave: np.ndarray, n_fft: int, hop: int) -> np.ndarray:
    """tf.signal.stft with a frame of zeros in front and pad_end: (frame, frequency, channel)."""
    wave = np.concatenate([np.zeros((n_fft, wave.shape[1])), wave])
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)
    n_frames = -(-len(wave) // hop)
    wave = np.pad(wave, ((0, n_frames * hop + n_fft - len(wave)), (0, 0)))
    frames = [wave[k * hop : k * hop + n_fft] * window[:, None] for k in range(n_frames)]
    return np.fft.rfft(np.stack(frames), axis=1)


def inverse(spec: np.ndarray, n_fft: int, hop: int, length: int) -> np.ndarray:
    """tf.signal.inverse_stft times 2/3, cut: (time, channel)."""
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)
    out = np.zeros((len(spec) * hop + n_fft, spec.shape[-1]))
    for k, frame in enumerate(np.fft.irfft(spec, n_fft, axis=1)):
        out[k * hop : k * hop + n_fft] += frame * window[:, None]
    return out[n_fft : n_fft + length] * 2 / 3


def by_hand(state: dict, mix: np.ndarray, n_src: int, size: dict, **how) -> np.ndarray:
    """Spleeter's whole prediction for (time, channel): (source, time, channel)."""
    n_fft, hop, F_, T = (size[k] for k in ("n_fft", "hop", "n_bins", "patch"))
    spec = spectra(mix, n_fft, hop)
    x = np.pad(np.abs(spec), ((0, -len(spec) % T), (0, 0), (0, 0)))
    x = x.reshape(-1, T, *x.shape[1:])[:, :, :F_]
    net = Keras(state, how.get("elu", True))
    logits = np.stack([net.unet(x, len(size["widths"])) for _ in range(n_src)])
    if how.get("softmax"):
        gate = np.exp(logits) / np.exp(logits).sum(0)
    else:
        gate = 1 / (1 + np.exp(-logits))
    power = (gate * x) ** 2
    mask = (power + 1e-10 / n_src) / (power.sum(0) + 1e-10)
    above = n_fft // 2 + 1 - F_
    extra = mask.mean(3, keepdims=True) if how.get("above") == "average" else 0 * mask[:, :, :, :1]
    mask = np.concatenate([mask, np.repeat(extra, above, 3)], 3)
    mask = mask.reshape(n_src, -1, *mask.shape[3:])[:, : len(spec)]
    return np.stack([inverse(m * spec, n_fft, hop, len(mix)) for m in mask])


def tensors(state: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    return {name: torch.as_tensor(value) for name, value in state.items()}


def compare(network: Spleeter, state: dict, size: dict, length: int, **how) -> float:
    """The largest relative difference on the packaged song."""
    mix = example_song().mix[:, 50000 : 50000 + length]
    import_weights(network.eval(), tensors(state), "spleeter")
    with torch.no_grad():
        got = network(mix[None])[0].numpy()
    n_src = len(network.sources)
    want = by_hand(state, mix.T.double().numpy(), n_src, size, **how).transpose(0, 2, 1)
    return float(np.abs(got - want).max() / np.abs(want).max())


@pytest.mark.parametrize("stems", SPLEETER)
@pytest.mark.parametrize("length", [1, 63, 2048, 7001])
def test_the_graph_by_hand(stems, length):
    how = {k: v for k, v in SPLEETER[stems].items() if k != "sources"}
    network = Spleeter(**SPLEETER[stems], **SMALL)
    state = checkpoint(len(network.sources), WIDTHS)
    assert compare(network, state, SMALL, length, **how) < 1e-4


def test_the_mean_mask_above():
    network = Spleeter(**SMALL, above="average")
    assert compare(network, checkpoint(4, WIDTHS), SMALL, 5000, above="average") < 1e-4


def test_at_full_size():
    """Two stems, six layers, one patch: 4,096 / 1,024, 512 frames, 19.6 million numbers."""
    network = Spleeter(**SPLEETER["2stems"])
    size = {"widths": (16, 32, 64, 128, 256, 512), "n_fft": 4096, "hop": 1024, "n_bins": 1024}
    state = checkpoint(2, size["widths"])
    trained = [v for k, v in state.items() if not k.endswith("Adam") and "moving" not in k]
    assert sum(v.size for v in trained if v.ndim) == network.n_params == 2 * 9_823_749
    assert compare(network, state, size | {"patch": 512}, 44100, elu=False) < 1e-4


def test_every_weight_counts():
    """Each variable but those of the unused normalisation changes the output."""
    network = Spleeter(("a",), **SMALL | {"widths": (3, 4)}).eval()
    state = checkpoint(1, (3, 4))
    mix = example_song().mix[None, :, 50000:54000]
    run = lambda: network(mix).detach()
    first = run() if import_weights(network, tensors(state), "spleeter") else None
    for name in (k for k in state if "/" in k and not k.endswith("Adam")):
        other = {k: v * 1.5 if k == name else v for k, v in state.items()}
        import_weights(network, tensors(other), "spleeter")
        assert torch.equal(run(), first) == name.startswith("batch_normalization_1/"), name


def test_what_does_not_fit_is_refused():
    network = Spleeter(("a", "b"), **SMALL)
    before = {k: v.clone() for k, v in network.state_dict().items()}
    for state in (checkpoint(1, WIDTHS), checkpoint(2, (3, 5, 6))):
        with pytest.raises(ValueError, match="fit"):
            import_weights(network, tensors(state), "spleeter")
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())


def test_padding_as_tensorflow_has_it():
    """The picture turned by half a circle: one zero before and two after, in both directions."""
    x, weight = torch.randn(2, 3, 8, 12), torch.randn(4, 3, 5, 5)
    want = F.conv2d(F.pad(x, (1, 2, 1, 2)), weight, stride=2)
    turned = F.conv2d(x.flip(-2, -1), weight.flip(-2, -1), stride=2, padding=2).flip(-2, -1)
    torch.testing.assert_close(turned, want, rtol=1e-4, atol=1e-5)
