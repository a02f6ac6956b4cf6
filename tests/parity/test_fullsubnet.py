"""FullSubNet and FullSubNet+ against a reference by hand: loops over frames and bands, in NumPy.

No package carries these networks. The reference keeps to the published description and to the names
of the released checkpoints, and shares nothing with our code.
"""

import numpy as np
import pytest
import torch
from nets import noise, shaken

from sepbook.models.fullsubnet import FullSubNet, FullSubNetPlus
from sepbook.zoo import import_weights

SIZES = {"full_hidden": 7, "sub_hidden": 6, "neighbours": 3, "n_fft": 32, "hop": 16}
BINS = 17


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def lstm(w: dict, prefix: str, x: np.ndarray) -> np.ndarray:
    """Two layers, a linear one after them; x (frame, feature)."""
    for layer in (0, 1):
        get = lambda name, layer=layer: w[f"{prefix}.sequence_model.{name}_l{layer}"]
        h = c = np.zeros(get("weight_hh").shape[1])
        out = []
        for frame in x:
            gates = (
                get("weight_ih") @ frame + get("bias_ih") + get("weight_hh") @ h + get("bias_hh")
            )
            i, f, g, o = np.split(gates, 4)
            c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
            h = sigmoid(o) * np.tanh(c)
            out.append(h)
        x = np.array(out)
    return x @ w[f"{prefix}.fc_output_layer.weight"].T + w[f"{prefix}.fc_output_layer.bias"]


def by_the_mean(x: np.ndarray, cumulative: bool) -> np.ndarray:
    """x (feature, frame) by its mean, over everything or up to each frame."""
    if not cumulative:
        return x / x.mean()
    return np.stack([x[:, t] / x[:, : t + 1].mean() for t in range(x.shape[1])], 1)


def sub_bands(w: dict, mag: np.ndarray, others: list[np.ndarray], cumulative: bool) -> np.ndarray:
    """Compressed masks (frequency, frame, part)."""
    units = []
    for f in range(BINS):
        rows = [abs(f + k) for k in range(-3, 4)]
        rows = [2 * (BINS - 1) - r if r >= BINS else r for r in rows]
        units.append(np.concatenate([mag[rows], *[other[f : f + 1] for other in others]]))
    if not cumulative:
        mean = np.mean(units)
        units = [unit / mean for unit in units]
    else:
        units = [by_the_mean(unit, True) for unit in units]
    return np.stack([lstm(w, "sb_model", unit.T) for unit in units])


def unpacked(mask: np.ndarray) -> np.ndarray:
    mask = np.clip(mask, -9.9, 9.9)
    parts = -10 * np.log((10 - mask) / (10 + mask))
    return parts[..., 0] + 1j * parts[..., 1]


def delayed(spec: np.ndarray) -> np.ndarray:
    return np.concatenate([spec, np.zeros((BINS, 2))], 1)


def fullsubnet(w: dict, spec: np.ndarray, cumulative: bool) -> np.ndarray:
    mag = np.abs(delayed(spec))
    full = np.maximum(lstm(w, "fb_model", by_the_mean(mag, cumulative).T).T, 0)
    return unpacked(sub_bands(w, mag, [full], cumulative)[:, 2:]) * spec


def correlate(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """Each channel alone, where the filter fits in."""
    return np.stack([np.correlate(row, k[0], "valid") + b for row, k, b in zip(x, weight, bias)])


def attention(w: dict, name: str, x: np.ndarray) -> np.ndarray:
    scales = []
    for size in ("small", "middle", "large"):
        conv = f"{name}.{size}Conv1d.0"
        filtered = correlate(x, w[f"{conv}.weight"], w[f"{conv}.bias"])
        scales.append(np.maximum(filtered.mean(1), 0))
    fc = lambda key, v: w[f"{name}.{key}.weight"] @ v + w[f"{name}.{key}.bias"]
    one = fc("feature_concate_fc", np.stack(scales))[0]
    return x * sigmoid(fc("fc2", np.maximum(fc("fc1", one), 0)))[:, None]


def tcn(w: dict, name: str, x: np.ndarray) -> np.ndarray:
    for k, dilation in enumerate((1, 2, 5, 9, 1, 2, 5, 9)):
        get = lambda key, k=k: w[f"{name}.sequence_model.{k}.{key}"]

        def prelu_norm(y, n, get=get):
            y = np.where(y > 0, y, get(f"prelu{n}.weight") * y)
            y = (y - y.mean()) / np.sqrt(y.var() + 1e-8)
            return y * get(f"norm{n}.weight")[:, None] + get(f"norm{n}.bias")[:, None]

        y = get("conv1x1.weight")[:, :, 0] @ x + get("conv1x1.bias")[:, None]
        y = np.pad(prelu_norm(y, 1), ((0, 0), (dilation, dilation)))
        taps, n = get("depthwise_conv.weight")[:, 0], x.shape[1]
        y = sum(taps[:, j, None] * y[:, j * dilation : j * dilation + n] for j in range(3))
        y = prelu_norm(y + get("depthwise_conv.bias")[:, None], 2)
        x = x + get("sconv.weight")[:, :, 0] @ y + get("sconv.bias")[:, None]
    x = w[f"{name}.fc_output_layer.weight"] @ np.maximum(x, 0)
    return np.maximum(x + w[f"{name}.fc_output_layer.bias"][:, None], 0)


def fullsubnet_plus(w: dict, spec: np.ndarray, signed: str) -> np.ndarray:
    padded, seen = delayed(spec), []
    for stream, part in zip(("", "_real", "_imag"), (np.abs(padded), padded.real, padded.imag)):
        mean = np.abs(part).mean() if signed == "size" else part.mean()
        seen.append(attention(w, f"channel_attention{stream}", part / mean))
    said = [tcn(w, f"fb_model{stream}", x) for stream, x in zip(("", "_real", "_imag"), seen)]
    return unpacked(sub_bands(w, seen[0], said, False)[:, 2:]) * spec


def names_of(kind: type) -> dict[str, str]:
    """From each of our tensors to its name in a released checkpoint, written out here."""
    found = {}
    lstms = [f"{p}_{q}_l{k}" for k in (0, 1) for p in ("weight", "bias") for q in ("ih", "hh")]
    leaves = ("weight", "bias")
    sides = {"sub": "sb_model"} | ({"full": "fb_model"} if kind is FullSubNet else {})
    for ours, theirs in sides.items():
        found |= {f"{ours}.rnn.{leaf}": f"{theirs}.sequence_model.{leaf}" for leaf in lstms}
        found |= {f"{ours}.out.{leaf}": f"{theirs}.fc_output_layer.{leaf}" for leaf in leaves}
    if kind is FullSubNet:
        return found
    inside = {"expand": "conv1x1", "prelu1": "prelu1", "norm1": "norm1", "prelu2": "prelu2"}
    inside |= {"depthwise": "depthwise_conv", "norm2": "norm2", "out": "sconv"}
    for k, stream in enumerate(("", "_real", "_imag")):
        a, name = f"channel_attention{stream}", f"attention.{k}"
        for leaf in leaves:
            for j, size in enumerate(("small", "middle", "large")):
                found[f"{name}.filters.{j}.{leaf}"] = f"{a}.{size}Conv1d.0.{leaf}"
            found[f"{name}.merge.{leaf}"] = f"{a}.feature_concate_fc.{leaf}"
            found[f"{name}.squeeze.{leaf}"] = f"{a}.fc1.{leaf}"
            found[f"{name}.excite.{leaf}"] = f"{a}.fc2.{leaf}"
            found[f"full.{k}.out.{leaf}"] = f"fb_model{stream}.fc_output_layer.{leaf}"
            for n in range(8):
                for ours, theirs in inside.items():
                    if not (leaf == "bias" and "prelu" in ours):
                        key = f"fb_model{stream}.sequence_model.{n}.{theirs}.{leaf}"
                        found[f"full.{k}.blocks.{n}.{ours}.{leaf}"] = key
    return found


def released(network) -> dict[str, torch.Tensor]:
    """The network's weights as a released checkpoint would hold them."""
    names, state = names_of(type(network)), network.state_dict()
    assert set(names) == set(state)
    wide = lambda key, t: t[..., None] if key.endswith(("conv1x1.weight", "sconv.weight")) else t
    return {names[ours]: wide(names[ours], t.clone()) for ours, t in state.items()}


@pytest.mark.parametrize(
    ("kind", "how"),
    [
        (FullSubNet, {"norm": "offline"}),
        (FullSubNet, {"norm": "cumulative"}),
        (FullSubNetPlus, {"signed": "size"}),
        (FullSubNetPlus, {"signed": "mean"}),
    ],
)
def test_equal_to_the_reference(kind, how):
    source = shaken(kind(**SIZES, **how)).double()
    state = released(source)
    ours = kind(**SIZES, **how).double().eval()
    import_weights(ours, state, "fullsubnet")
    w = {name: t.numpy() for name, t in state.items()}
    parts = (5 * noise(2, BINS, 14, seed=k, dtype=torch.float64) + 1 for k in (1, 2))
    spec = torch.complex(*parts)  # of no wave: the imaginary parts of those have a mean of zero
    padded = torch.nn.functional.pad(spec, (0, 2))
    with torch.no_grad():
        got = (ours.masks(padded)[..., 2:] * spec[:, None])[:, 0]
        single = ours.float().masks(padded.to(torch.complex64))[..., 2:] * spec[:, None]
    reference = fullsubnet if kind is FullSubNet else fullsubnet_plus
    option = how["norm"] == "cumulative" if kind is FullSubNet else how["signed"]
    for item, estimate, one in zip(spec, got, single[:, 0]):
        want = torch.from_numpy(reference(w, item.numpy(), option))
        assert (estimate - want).abs().max() / want.abs().max() < 1e-8
        assert (one - want).abs().max() / want.abs().max() < 1e-4  # decompression magnifies


def test_checkpoints_with_more_in_them():
    source = shaken(FullSubNet(**SIZES))
    ours = FullSubNet(**SIZES)
    import_weights(ours, {"epoch": 58, "model": released(source)}, "fullsubnet")
    pairs = zip(ours.parameters(), source.parameters())
    assert all(torch.equal(a, b) for a, b in pairs)
    with pytest.raises(ValueError, match="fullsubnet"):
        import_weights(FullSubNet(**SIZES | {"full_hidden": 8}), released(source), "fullsubnet")
