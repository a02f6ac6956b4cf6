"""Long recordings: memory and speed of an hour from file to file, against a minute.

    python benchmarks/separate.py              one hour, writes results/separate.json
    python benchmarks/separate.py --quick      three minutes, writes nothing

The file is the packaged song over and over, stereo, 44.1 kHz, 16 bit; the separator a small network
that masks an STFT, so that reading, cutting, joining and writing are what is measured. Each length
runs in a process of its own, after a warm-up; the minute before and after the hour, since machines
get warm. Memory is the peak of the process less what it held
before: Python, PyTorch and the network.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

THREADS = 2
for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[name] = str(THREADS)

import soundfile as sf  # noqa: E402
import torch  # noqa: E402

from sepbook.mixtures import example_song  # noqa: E402
from sepbook.separate import separate, separate_file  # noqa: E402
from sepbook.stft import istft, stft  # noqa: E402

RESULT = Path(__file__).resolve().parent.parent / "results" / "separate.json"
MINUTE = 60.0


class SmallMask(torch.nn.Module):
    """A mask for two sources from the log spectrum of each frame; it was never trained."""

    sample_rate, channels, sources = 44100, 2, ("vocals", "rest")

    def __init__(self, n_fft: int = 2048, hidden: int = 32):
        super().__init__()
        self.n_fft, rows = n_fft, n_fft // 2 + 1
        self.net = torch.nn.Sequential(
            torch.nn.Conv1d(2 * rows, hidden, 1), torch.nn.ReLU(), torch.nn.Conv1d(hidden, rows, 1)
        )

    def forward(self, mix: torch.Tensor) -> torch.Tensor:
        """Separate (batch, channel, time)."""
        spec = stft(mix, self.n_fft, self.n_fft // 4, pad_end=True)
        mask = self.net((spec.abs() + 1e-3).log().flatten(1, 2)).sigmoid()[:, None, None]
        both = torch.cat([mask * spec[:, None], (1 - mask) * spec[:, None]], 1)
        return istft(both, n_fft=self.n_fft, hop=self.n_fft // 4)[..., : mix.shape[-1]]


def write_song(path: Path, seconds: float) -> None:
    """The song, repeated until it is `seconds` long."""
    song = example_song().mix.T.numpy()
    left = round(seconds * 44100)
    with sf.SoundFile(path, "w", 44100, 2, "PCM_16") as file:
        while left > 0:
            file.write(song[:left])
            left -= len(song)


def peak_mb() -> float:
    """The highest resident memory of this process so far."""
    if (status := Path("/proc/self/status")).exists():  # getrusage counts the parent's memory too
        return int(status.read_text().split("VmHWM:")[1].split()[0]) / 2**10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def child(path: str, repeats: int) -> None:
    """Separate one file, and print seconds and memory."""
    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    model = SmallMask()
    seconds, cpu, before = [], [], peak_mb()
    with tempfile.TemporaryDirectory(dir=Path(path).parent) as out:
        separate(model, torch.zeros(2, 44100), progress=False)
        for _ in range(repeats):
            started, worked = time.perf_counter(), time.process_time()
            separate_file(model, path, out, progress=False)
            seconds.append(time.perf_counter() - started)
            cpu.append(time.process_time() - worked)
    print(json.dumps({"seconds": seconds, "cpu": cpu, "before_mb": before, "peak_mb": peak_mb()}))


def measure(folder: Path, seconds: float, repeats: int) -> dict:
    """The row of one length."""
    path = folder / "song.wav"
    write_song(path, seconds)
    call = [sys.executable, __file__, "--child", str(path), "--repeats", str(repeats)]
    done = json.loads(subprocess.run(call, check=True, capture_output=True, text=True).stdout)
    took = statistics.median(done["seconds"])
    return {
        "audio_seconds": seconds,
        "seconds": round(took, 3),
        "cpu_seconds_per_second": round(statistics.median(done["cpu"]) / seconds, 4),
        "real_time_factor": round(took / seconds, 4),
        "memory_beyond_the_model_mb": round(done["peak_mb"] - done["before_mb"]),
        "peak_mb": round(done["peak_mb"]),
        "repeats": repeats,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--child")
    parser.add_argument("--repeats", type=int, default=1)
    args = parser.parse_args()
    if args.child:
        child(args.child, args.repeats)
        return
    long = 3 * MINUTE if args.quick else 60 * MINUTE
    with tempfile.TemporaryDirectory(prefix="sepbook-") as folder:
        short = MINUTE, 1 if args.quick else 5
        cases = short, (long, 1), short
        rows = [measure(Path(folder), *case) for case in cases]
    for row in rows:
        print(*row.values(), sep="\t", flush=True)
    minute = (rows[0]["seconds"] + rows[2]["seconds"]) / 2 / MINUTE
    ratio = minute / (rows[1]["seconds"] / long)
    print(f"throughput of the long file over the minute's: {ratio:.3f}")
    if args.quick:
        return
    what = "one hour, stereo, 44.1 kHz, file to file"
    report = {
        "title": "Long recordings: an hour from file to file against a minute",
        "headline": [
            {
                "what": f"{what}: peak memory beyond the model",
                "value": round(rows[1]["memory_beyond_the_model_mb"] / 1000, 2),
                "unit": "GB",
                "bar": "under 1.2",
            },
            {
                "what": f"{what}: throughput over that of a minute",
                "value": round(ratio, 3),
                "unit": "x",
                "bar": "at least 0.95",
            },
        ],
        "command": " ".join(["python benchmarks/separate.py", *sys.argv[1:]]),
        "date": date.today().isoformat(),
        "device": f"{THREADS} CPU cores",
        "data": "example_song mixture, repeated",
        "separator": "an STFT mask by two 1 x 1 convolutions, segments of 10 s, overlap 0.25",
        "statistic": "median over repeats; a minute is measured before and after the hour",
        "rows": rows,
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
