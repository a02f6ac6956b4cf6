"""The scripts of the page "Try it here", in Node: each step as the package does it.

Needs Node (apt-get install nodejs); without it the tests are skipped and say so. The whole page
is tested in a browser, in tests/e2e/test_try.py.
"""

import json
import shutil
import subprocess

import numpy as np
import pytest
import torch
from course import NBS

from sepbook.engine.examples import example_track
from sepbook.engine.files import resample
from sepbook.engine.streams import Loudness, OverlapAdd, cut, gain_for, separate

pytestmark = pytest.mark.skipif(not shutil.which("node"), reason="no Node on the PATH")


@pytest.fixture(scope="module")
def js(tmp_path_factory):
    """Evaluate JavaScript: `m` holds the scripts' functions, `x` what is given."""
    folder = tmp_path_factory.mktemp("js")
    for name in ("try", "try-worker"):
        shutil.copy(NBS / "assets" / f"{name}.js", folder / f"{name}.mjs")

    def run(code: str, **x):
        (folder / "x.json").write_text(json.dumps(x))
        program = (
            "import fs from 'fs'; import * as a from './try.mjs';"
            "import * as b from './try-worker.mjs';"
            "const m = {...a, ...b}, x = JSON.parse(fs.readFileSync('x.json'));"
            "const floats = list => list.map(row => new Float32Array(row));"
            f"const result = await (async () => {{ {code} }})();"
            "console.log(JSON.stringify(result, (k, v) => v instanceof Float32Array ? [...v] : v));"
        )
        (folder / "run.mjs").write_text(program)
        done = subprocess.run(
            ["node", "run.mjs"], cwd=folder, capture_output=True, text=True, timeout=600
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


@pytest.fixture(scope="module")
def wav():
    track = example_track(8000)
    return torch.cat([track.mix, 0.5 * track.src[0]])[:, :20000]


def test_segments_start_where_the_package_lets_them(js):
    sizes = [
        (time, length, hop)
        for time in (1, 39, 40, 41, 100, 130, 137)
        for length, hop in ((40, 30), (40, 40), (40, 1))
    ]
    want = [[start for start, _ in cut([torch.zeros(1, t)], n, hop)] for t, n, hop in sizes]
    code = "return x.sizes.map(([t, n, hop]) => m.segmentStarts(t, Math.min(n, t), hop))"
    assert js(code, sizes=sizes) == want


def test_level(js, wav):
    quiet = torch.cat([wav, 0 * wav], 1)
    clips = [wav, quiet, wav[:, :50], 0 * wav]
    code = "return x.clips.map(clip => m.loudness(floats(clip), 8000))"
    got = js(code, clips=[clip.tolist() for clip in clips])
    assert got == pytest.approx([Loudness(8000).add(clip).rms() for clip in clips], rel=1e-9)
    gains = js("return [m.gainFor(0.1, -18), m.gainFor(0, -18), m.gainFor(0.1, null)]")
    assert gains == pytest.approx([gain_for(0.1, -18), 1, 1])


def test_segments_join_as_in_the_package(js):
    starts, segments = [0, 30, 55], torch.randn(3, 40, generator=torch.Generator().manual_seed(0))
    joined = OverlapAdd()
    done = [joined.add(segment, start) for segment, start in zip(segments, starts, strict=True)]
    want = torch.cat([*done, joined.tail])
    got = js(
        "const mean = new Float32Array(95), weight = new Float64Array(95);"
        "x.starts.forEach((start, k) => {"
        "m.overlapAdd(mean, weight, x.segments[k], start); m.addWeights(weight, 40, start); });"
        "return mean",
        starts=starts,
        segments=segments.tolist(),
    )
    torch.testing.assert_close(torch.tensor(got), want, atol=1e-6, rtol=0)


@pytest.mark.parametrize("old, new", [(44100, 22050), (44100, 8000), (8000, 44100), (22050, 48000)])
def test_resampling_is_near_the_package(js, old, new):
    """Where both rates hold the sound, a thousandth of it; and of the same length."""
    clip = resample(example_track().mix[:, :30000], 22050, old)
    want = resample(clip, old, new)
    got = torch.tensor(
        js(f"return m.resample(new Float32Array(x.wav), {old}, {new})", wav=clip[0].tolist())
    )
    assert got.shape == want[0].shape
    inside = slice(len(got) // 20, -len(got) // 20)
    error = (got - want[0])[inside].norm() / want[0, inside].norm()
    assert error < 1e-3


@pytest.mark.parametrize("channels, takes", [(1, 1), (2, 1), (1, 2), (2, 2)])
@pytest.mark.parametrize("speakers", [False, True])
def test_whole_path(js, wav, channels, takes, speakers):
    """A toy network that knows its segment's level and end: as the package separates with it."""

    class Toy:
        sample_rate, level_db, segment, overlap = 8000, -18.0, 0.7, 0.25
        sources = ("s1", "s2") if speakers else ("a", "b")
        channels = takes

        def __call__(self, mix):
            number = torch.arange(1, mix.shape[1] + 1)[:, None]  # the channels differ
            first = number * mix.clamp(max=0.1) * mix[..., -1:] + 0.01
            return torch.stack([first, 0.5 * mix.flip(-2)], 1)

    clip = wav[:channels, :5000] if speakers else wav[:channels]  # speakers: in one piece
    clip[:, 8000:16000] = 0  # a whole segment of silence
    want = separate(Toy(), clip, progress=False)
    model = {"sources": Toy.sources, "sample_rate": 8000, "channels": takes, "length": 5600}
    model |= {"hop": 4200, "level_db": -18.0, "speakers": speakers}
    got = js(
        "const network = async piece => ["
        "piece.map((c, k) => c.map(v => (k + 1) * Math.min(v, 0.1) * c.at(-1) + 0.01)),"
        "piece.map((_, k) => piece.at(-1 - k).map(v => v / 2))];"
        "return m.separate(network, x.model, floats(x.wav), 8000)",
        model=model,
        wav=clip.tolist(),
    )
    torch.testing.assert_close(torch.tensor(got), want, atol=1e-6, rtol=1e-4)


def test_files_say_their_rate(js, tmp_path):
    import soundfile as sf

    noise = 0.1 * np.random.default_rng(0).standard_normal((9000, 2))
    kinds = {"wav": "FLOAT", "flac": "PCM_16", "mp3": None, "ogg": "VORBIS"}
    files, want = [], []
    for suffix, subtype in kinds.items():
        for rate in (8000, 22050, 44100, 48000):
            sf.write(tmp_path / f"a.{suffix}", noise, rate, subtype)
            files.append(list((tmp_path / f"a.{suffix}").read_bytes()[:70000]))
            want.append(rate)
    assert js("return x.files.map(f => m.rateOf(new Uint8Array(f).buffer))", files=files) == want
    assert js("return m.rateOf(new Uint8Array(100).buffer)") == 44100
    assert js("return m.rateOf(new Uint8Array(3).buffer)") == 44100


def test_downloads_keep_every_sample(js, wav, tmp_path):
    import soundfile as sf

    made = js(
        "return [...new Uint8Array(await m.wavFile(floats(x.wav), 8000).arrayBuffer())]",
        wav=wav[:, :500].tolist(),
    )
    (tmp_path / "a.wav").write_bytes(bytes(made))
    read, rate = sf.read(tmp_path / "a.wav", dtype="float32")
    assert rate == 8000 and torch.equal(torch.from_numpy(read.T.copy()), wav[:, :500])
