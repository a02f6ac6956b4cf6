"""Cut the real recordings that sepbook carries: readers, noises, and twelve seconds of a song.

    python tools/make_excerpts.py DATA     writes sepbook/data/readers, .../noisy and .../songs

DATA holds `speech-train` (LibriSpeech train-clean-100, one utterance per reader), `noise` (everyday
and outdoor noises) and `music-stems` (songs of "Everything is Free", summed into vocals, drums and
other), each with an index.csv. The readers are among those in sepbook/data/speech_validation.txt,
the noises among those in sepbook/data/noise_validation.txt, and the song is the one that the music
model was kept apart from, so no weights that ship have heard any of this. The files are committed;
this script says how they came about.
"""

import csv
import sys
from pathlib import Path

import numpy as np
import soundfile as sf

OUT = Path(__file__).resolve().parent.parent / "sepbook" / "data"
READERS = ["7517", "7635", "8014", "8468", "78", "3857", "4788", "6437"]  # the clearest recordings
BEGIN = {"7517": 5.1, "8468": 2.9, "78": 7.8}  # seconds: after a long pause
LEAST, MOST = 6.1, 7.0  # seconds of a reader's excerpt
LEVEL_DB = -26.0  # root mean square of a reader's excerpt, dB relative to full scale
SONG, START, SECONDS = "lithium-1", 34, 12  # excerpt, seconds: all three stems sound
STEMS = ("vocals", "drums", "other")
NOISY = {"7078": 0.0, "3857": 8.7}  # readers, and the second after which the first word is taken
NOISES = {"boiler": 20.0, "footsteps": 6.0}  # noises, and the second at which they begin
LEAD, LONG = 0.5, 4.0  # seconds: noise alone, and the whole excerpt


def fade(wav: np.ndarray, samples: int) -> np.ndarray:
    """`wav (..., time)` with a straight fade at both ends."""
    ramp = np.linspace(0, 1, samples)
    wav = wav.copy()
    wav[..., :samples] *= ramp
    wav[..., -samples:] *= ramp[::-1]
    return wav


def cut_at_pauses(
    wav: np.ndarray, rate: int, begin: float, least: float = LEAST, most: float = MOST
) -> np.ndarray:
    """From 50 ms before the first word to the quietest moment between `least` and `most` seconds.

    The first word is the one after the quietest moment within 0.3 s of `begin`.
    """
    frame = rate // 50
    power = np.square(wav[: len(wav) // frame * frame].reshape(-1, frame)).mean(1)
    if begin:
        near = slice(round(50 * (begin - 0.3)), round(50 * (begin + 0.3)))
        quiet = near.start + int(np.argmin(np.convolve(power, np.ones(5) / 5, "same")[near]))
        wav, power = wav[quiet * frame :], power[quiet:]
    loud = np.flatnonzero(power > power.max() * 10 ** (-35 / 10))
    start = max(0, loud[0] * frame - rate // 20)
    smooth = np.convolve(power, np.ones(5) / 5, "same")  # 100 ms
    first, last = (start + round(s * rate) for s in (least, most))
    stop = first // frame + int(np.argmin(smooth[first // frame : last // frame])) + 1
    return wav[start : stop * frame]


def readers(folder: Path) -> list[list]:
    """Write the readers' excerpts, and say what is in each."""
    with open(folder / "index.csv", newline="", encoding="utf-8") as index:
        rows = {row["speaker"]: row for row in csv.DictReader(index)}
    (OUT / "readers").mkdir(parents=True, exist_ok=True)
    told = []
    for speaker in READERS:
        wav, rate = sf.read(folder / rows[speaker]["file"])
        wav = fade(cut_at_pauses(wav, rate, BEGIN.get(speaker, 0)), rate // 100)
        wav = wav * 10 ** (LEVEL_DB / 20) / np.sqrt(np.mean(wav**2))
        assert np.abs(wav).max() < 1
        utterance = Path(rows[speaker]["file"]).stem
        sf.write(OUT / "readers" / f"{speaker}.flac", wav, rate, subtype="PCM_16")
        told.append(
            [f"{speaker}.flac", speaker, rows[speaker]["sex"], utterance, round(len(wav) / rate, 3)]
        )
    return told


def song(folder: Path) -> list[list]:
    """Write the song's stems, and say what is there."""
    rate = sf.info(folder / SONG / "vocals.flac").samplerate
    span = {"start": START * rate, "stop": (START + SECONDS) * rate}
    src = np.stack([sf.read(folder / SONG / f"{name}.flac", **span)[0] for name in STEMS])
    src = fade(src, rate // 100)
    src *= 0.9 / max(np.abs(src).max(), np.abs(src.sum(0)).max())
    (OUT / "songs" / SONG).mkdir(parents=True, exist_ok=True)
    for name, wav in zip(STEMS, src):
        sf.write(OUT / "songs" / SONG / f"{name}.flac", wav, rate, subtype="PCM_16")
    return [[SONG, "2.Lithium", float(SECONDS)]]


def noisy(folder: Path) -> list[list]:
    """Write two sentences, each after half a second of nothing, and two noises as long."""
    told = []
    (OUT / "noisy").mkdir(parents=True, exist_ok=True)
    with open(folder / "speech-train" / "index.csv", newline="", encoding="utf-8") as index:
        rows = {row["speaker"]: row for row in csv.DictReader(index)}
    for speaker, begin in NOISY.items():
        wav, rate = sf.read(folder / "speech-train" / rows[speaker]["file"])
        wav = cut_at_pauses(wav[round(begin * rate) :], rate, 0, LONG - LEAD - 0.4, LONG - LEAD)
        lead, frames = round(LEAD * rate), round(LONG * rate)
        wav = np.pad(fade(wav, rate // 100), (lead, frames - lead - len(wav)))
        told.append([speaker, wav, "speech", Path(rows[speaker]["file"]).stem])
    for name, begin in NOISES.items():
        start = round(begin * rate)
        wav = sf.read(folder / "noise" / f"{name}.flac")[0][start : start + frames]
        told.append([name, fade(wav, rate // 100), "noise", f"from {begin:.0f} s"])
    for name, wav, *_ in told:
        wav = wav * 10 ** (LEVEL_DB / 20) / np.sqrt(np.mean(wav**2))
        assert np.abs(wav).max() < 1
        sf.write(OUT / "noisy" / f"{name}.flac", wav, rate, subtype="PCM_16")
    return [[f"{name}.flac", part, taken, LONG] for name, _, part, taken in told]


def write_table(name: str, head: list[str], rows: list[list]) -> None:
    """Write index.csv, and print how much there is."""
    with open(OUT / name / "index.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([head, *rows])
    size = sum(path.stat().st_size for path in (OUT / name).rglob("*.*")) / 1e6
    print(f"{name}: {len(rows)} rows, {sum(row[-1] for row in rows):.0f} s, {size:.2f} MB")


def main() -> None:
    data = Path(sys.argv[1])
    columns = ["file", "speaker", "sex", "utterance", "seconds"]
    write_table("readers", columns, readers(data / "speech-train"))
    write_table("noisy", ["file", "part", "taken", "seconds"], noisy(data))
    write_table("songs", ["excerpt", "song", "seconds"], song(data / "music-stems"))


if __name__ == "__main__":
    main()
