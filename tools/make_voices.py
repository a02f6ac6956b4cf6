"""Make the voices that sepbook carries: eight speakers, eight sentences each, 8 kHz mono FLAC.

    python tools/make_voices.py     writes sepbook/data/voices; needs flite and espeak-ng

Two free speech synthesisers say sentences written for this project. Flite's voices are statistical
models of real speakers; espeak-ng's are formant synthesis. Two further Flite speakers come from a
shorter or longer vocal tract: the sentence is spoken more slowly (or faster) and then played at
another rate, which moves pitch and formants together. The files are committed; this script says how
they came about.
"""

import csv
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import soundfile as sf
import soxr

OUT = Path(__file__).resolve().parent.parent / "sepbook" / "data" / "voices"
RATE = 8000
LEVEL_DB = -26.0  # root mean square of every file, in dB relative to full scale

# speaker, sex, engine, voice, tract (1: as made; 1.1: formants and pitch 10 % higher)
SPEAKERS = [
    ("ada", "F", "flite", "slt", 1.00),
    ("ben", "M", "flite", "rms", 1.00),
    ("cal", "M", "flite", "awb", 1.00),
    ("dee", "F", "flite", "slt", 1.14),
    ("eli", "M", "flite", "kal16", 1.00),
    ("fay", "F", "espeak-ng", "en-us+f2", 1.00),
    ("gus", "M", "flite", "rms", 0.88),
    ("hal", "M", "espeak-ng", "en-gb-scotland+m3", 1.00),
]

SENTENCES = [
    "The morning train leaves from the far platform, so please walk quickly.",
    "We carried the old piano up four flights of narrow stairs.",
    "Nobody remembers who planted the chestnut tree behind the school.",
    "A warm wind from the south melted the snow before noon.",
    "Put the blue folder on the desk and close the window.",
    "My neighbour repairs clocks, radios and anything else that hums.",
    "The river rose again last night and covered the lower road.",
    "She whistled the tune once, and the whole choir answered.",
    "Seven small boats were waiting in the fog outside the harbour.",
    "You should taste the soup before you reach for the salt.",
    "The lecture was short, but the questions went on until evening.",
    "He found a wooden box of letters under the kitchen floor.",
    "Turn left after the bakery and follow the stone wall.",
    "Our cat listens to thunder as if it were a visitor.",
    "Every drummer in the city knows the man who sells that skin.",
    "The microphone was still open when the engineers began to laugh.",
    "Two voices in one room are easy for you and hard for a machine.",
    "They painted the door green because there was no other colour left.",
    "A good map tells you where the water is and where it was.",
    "The children counted the wagons until the last one disappeared.",
    "Rain on a tin roof is the loudest kind of silence.",
    "I would rather mend this coat than buy another one.",
    "When the lights failed, the band simply kept on playing.",
    "The librarian speaks softly, even on the telephone at home.",
]


def say(engine: str, voice: str, text: str, stretch: float) -> tuple[np.ndarray, int]:
    """The synthesiser's own recording of `text`, `stretch` times as long as usual."""
    with tempfile.NamedTemporaryFile(suffix=".wav") as file:
        if engine == "flite":
            call = [
                "flite",
                "-voice",
                voice,
                "--setf",
                f"duration_stretch={stretch}",
                "-t",
                text,
                "-o",
                file.name,
            ]
        else:
            call = [
                "espeak-ng",
                "-v",
                voice,
                "-s",
                str(round(150 / stretch)),
                "-w",
                file.name,
                text,
            ]
        subprocess.run(call, check=True)
        return sf.read(file.name, dtype="float64")


def trim(wav: np.ndarray, margin: int, threshold_db: float = -45.0) -> np.ndarray:
    """Cut silence at both ends, leaving `margin` samples."""
    loud = np.flatnonzero(np.abs(wav) > np.abs(wav).max() * 10 ** (threshold_db / 20))
    return wav[max(0, loud[0] - margin) : loud[-1] + margin]


def main() -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    rows = []
    for index, (speaker, sex, engine, voice, tract) in enumerate(SPEAKERS):
        for take in range(8):
            text = SENTENCES[(3 * index + take * 3 + take // 8 + index // 3) % len(SENTENCES)]
            wav, rate = say(engine, voice, text, stretch=tract)
            wav = soxr.resample(wav, rate * tract, RATE, quality="VHQ")
            wav = trim(wav, margin=RATE // 20)
            wav = wav * 10 ** (LEVEL_DB / 20) / np.sqrt(np.mean(wav**2))
            wav = np.clip(wav, -1, 1)
            fade = np.linspace(0, 1, RATE // 100)
            wav[: len(fade)] *= fade
            wav[-len(fade) :] *= fade[::-1]
            name = f"{speaker}-{take + 1}.flac"
            sf.write(OUT / name, wav, RATE, subtype="PCM_16")
            rows.append(
                [name, speaker, sex, f"{engine} {voice}", tract, round(len(wav) / RATE, 3), text]
            )
    with open(OUT / "index.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "speaker", "sex", "voice", "tract", "seconds", "text"])
        writer.writerows(rows)
    size = sum(path.stat().st_size for path in OUT.iterdir()) / 1e6
    print(f"{len(rows)} files, {sum(row[5] for row in rows):.0f} s, {size:.2f} MB")


if __name__ == "__main__":
    main()
