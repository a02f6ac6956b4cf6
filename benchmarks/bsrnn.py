"""BSRNN at the paper's size: ours against a plain loop over the bands, equal weights and outputs.

    python benchmarks/bsrnn.py            writes results/bsrnn.json
    python benchmarks/bsrnn.py --quick    small networks, one repeat, writes nothing

6 s of noise, 44.1 kHz stereo, batch 1, two threads. There is no official implementation; the plain
one below is the paper's text as one writes it down: 41 slices, 41 normalisations, 41 products, and
LSTMs on (sequence, step, feature). It gets our weights, and the outputs are compared. Runs
alternate, and the fastest of each counts. Beside one stem, four stems with a shared trunk, and
both with `precision="bf16"` of `separate`. Peak memory is that of a process of its own. The plain
loop is not trained: it would keep about 10 GB.
"""

import torch
import torch.nn.functional as F
from bench import Audio, alone, difference, fastest, figure, forward, noise, report, start
from torch import Tensor, nn

from sepbook.models.bsrnn import BSRNN, EPS, SIZES

QUICK = {"features": 32, "hidden": 32, "blocks": 2, "mask_hidden": 64}
SHARED, HALF = "four stems, shared trunk", ", bfloat16"
REPORTED = 4.649  # s: an open port, one stem of 6 s, two threads, on the machine of the survey


class Plain(nn.Module):
    """One stem, band by band, with our weights."""

    def __init__(self, ours: BSRNN):
        super().__init__()
        self.ours, trunk, head = ours, ours.trunks[0], ours.heads[0]
        self.widths = [w for number, w in trunk.split.runs for _ in range(number)]
        self.split = nn.ModuleList(self._normed(layer) for layer in self._each(trunk.split.layers))
        self.first = nn.ModuleList(self._normed(layer) for layer in self._each([head.first]))
        self.second = nn.ModuleList(self._linear(*layer) for layer in self._each(head.second))
        self.readers = [r for pair in zip(trunk.time, trunk.band) for r in pair]

    @staticmethod
    def _each(layers) -> list:
        return [(layer, k) for layer in layers for k in range(len(layer.weight))]

    @staticmethod
    def _linear(layer, k: int) -> nn.Linear:
        linear = nn.Linear(*layer.weight.shape[1:])
        linear.weight.data, linear.bias.data = layer.weight.data[k].T.clone(), layer.bias.data[k, 0]
        return linear

    def _normed(self, given: tuple) -> nn.Sequential:
        norm = nn.LayerNorm(given[0].weight.shape[1], eps=EPS)
        return nn.Sequential(norm, self._linear(*given))

    def forward(self, mix: Tensor) -> Tensor:
        """Estimates (batch, 1, channel, time)."""
        spec = self.ours.spectrum(mix)
        grid = []
        for band, layer in zip(spec.split(self.widths, 2), self.split):
            x = torch.view_as_real(band).permute(0, 3, 1, 2, 4).flatten(2)
            grid.append(layer(x))
        x = torch.stack(grid, 1)  # (batch, band, frame, feature)
        for number, reader in enumerate(self.readers):
            y = (x if number % 2 == 0 else x.transpose(1, 2)).flatten(0, 1)
            read = reader.lstm(reader.norm(y).transpose(0, 1))[0].transpose(0, 1)
            y = (y + reader.linear(read)).unflatten(0, (len(x), -1))
            x = y if number % 2 == 0 else y.transpose(1, 2)
        masks = []
        for k, width in enumerate(self.widths):
            y = F.glu(self.second[k](self.first[k](x[:, k]).tanh()), -1)
            y = y.unflatten(-1, (spec.shape[1], width, 2)).contiguous()
            masks.append(torch.view_as_complex(y))
        mask = torch.cat(masks, -1).permute(0, 2, 3, 1)
        return self.ours.spectrum.inverse((mask * spec)[:, None], mix.shape[-1])


class Half(nn.Module):
    """A network whose products are in bfloat16, as `separate` does it."""

    def __init__(self, ours: BSRNN):
        super().__init__()
        self.ours = ours

    def forward(self, mix: Tensor) -> Tensor:
        """Estimates (batch, source, channel, time)."""
        with torch.autocast("cpu", torch.bfloat16):
            return self.ours(mix)


def build(which: str, size: dict) -> nn.Module:
    """One of the networks, with random weights, the same with and without bfloat16."""
    torch.manual_seed(0)
    if which.endswith(HALF):
        return Half(build(which.removesuffix(HALF), size))
    if which == "small":
        return BSRNN(**SIZES["small"])
    if which == SHARED:
        return BSRNN(trunk="shared", **size)
    ours = BSRNN(sources=("vocals",), **size)
    return Plain(ours) if which == "plain loop" else ours


def compare(size: dict, repeats: int) -> list[dict]:
    """Forward passes of ours, the plain loop, and four stems with a shared trunk."""
    mix, names = noise(), ("ours", "plain loop", SHARED, "ours" + HALF, SHARED + HALF)
    networks = {name: build(name, size) for name in names}
    error = difference(networks["ours"], networks["plain loop"], "plain loop")
    best = fastest(lambda network: forward(network, mix), networks, repeats)
    rows = []
    for name, network in networks.items():
        ours = getattr(network, "ours", network)
        row = {"network": name, "parameters": ours.n_params, "stems": len(ours.sources)}
        row |= {"forward_seconds": round(best[name], 4)}
        row |= {"seconds_per_stem": best[name] / row["stems"]}
        row |= {"relative_error": error} if name in names[:2] else {}
        rows.append(row)
        print(rows[-1], flush=True)
    return rows


def bfloat16_snr(size: dict) -> float:
    """dB: the float32 output over its difference from that in bfloat16."""
    with torch.no_grad():
        want, got = (build("ours" + half, size).eval()(noise()) for half in ("", HALF))
    return round(10 * float((want.square().sum() / (got - want).square().sum()).log10()), 1)


def headline(rows: list[dict], runs: dict[str, dict], snr: float) -> list[dict]:
    """What the chapter and the results table show."""
    ours, plain, shared, half, shared_half = rows
    per_stem = shared["seconds_per_stem"]
    loop = lambda row: round(plain["forward_seconds"] / row["seconds_per_stem"], 2)
    return [
        figure("BSRNN, one stem of 6 s: forward", round(ours["forward_seconds"], 2), "s"),
        figure(
            "BSRNN, one stem: our time over a plain loop's",
            *(round(ours["forward_seconds"] / plain["forward_seconds"], 3), "x", "below 1"),
        ),
        figure("BSRNN, four stems with a shared trunk: per stem", round(per_stem, 2), "s"),
        figure(
            "BSRNN, shared trunk: a plain loop's time per stem over ours",
            *(loop(shared), "x", "at least 3"),
        ),
        figure("BSRNN, one stem in bfloat16: forward", round(half["forward_seconds"], 2), "s"),
        figure("BSRNN, one stem in bfloat16: SNR against float32", snr, "dB"),
        figure("BSRNN, one stem in bfloat16: a plain loop's time over ours", loop(half), "x"),
        figure(
            "BSRNN, shared trunk in bfloat16: per stem",
            *(round(shared_half["seconds_per_stem"], 2), "s"),
        ),
        figure("BSRNN, the survey's open port per stem", REPORTED, "s, another day"),
        figure("BSRNN, difference from the plain loop", ours["relative_error"], "", "1e-4"),
        figure("BSRNN, one stem: training step of 6 s", runs["train"]["seconds"], "s"),
        figure("BSRNN, peak memory of training", runs["train"]["peak_gb"], "GB", "at most 6"),
        figure("BSRNN small: training step, 4 x 3 s", runs["small"]["seconds"], "s", "below 1"),
        figure("BSRNN, three minutes through `separate`: peak", runs["long"]["peak_gb"], "GB", "3"),
        figure("BSRNN, three minutes through `separate`", runs["long"]["seconds"], "s"),
        figure("BSRNN small, three minutes through `separate`", runs["low"]["seconds"], "s"),
    ]


def main() -> None:
    args = start(__doc__, build, audio=Audio(seconds=6.0, channels=2, rate=44100))
    size, repeats = (QUICK, 1) if args.quick else ({}, args.repeats)
    seconds, long = (1.0, 3.0) if args.quick else (6.0, 180.0)
    rows = compare(size, repeats)
    batch, song = ({"audio": (3.0, 1, 22050, n)} for n in (4, 1))
    runs = {
        "train": alone("ours", size, "train", seconds),
        "small": alone("small", batch, "train", 3.0),
        "long": alone(SHARED, size, "separate", long),
        "low": alone("small", song, "separate", long),
    }
    print(*runs.items(), sep="\n")
    title = "BSRNN at the paper's size, 6 s at 44.1 kHz stereo: ours and a plain loop"
    report(args, title, headline(rows, runs, bfloat16_snr(size)), rows=rows, runs=runs)


if __name__ == "__main__":
    main()
