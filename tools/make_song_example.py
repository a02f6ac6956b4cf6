"""Make the song that sepbook carries as an example of songs made here: six seconds, four stems.

    python tools/make_song_example.py     writes sepbook/data/made

Needs what `sepbook.songs.missing()` names. Sounds come from FluidR3 and MuseScore_General, which
are free to use (MIT, public domain, CC0); the words are those of reader 7635 of the packaged
LibriSpeech excerpts (CC BY 4.0). The files are committed; this script says how they came about.
"""

import csv
from pathlib import Path

import numpy as np
import soundfile as sf
import torch

from sepbook.engine.examples import DATA, fade_edges, read_wav
from sepbook.engine.files import resample
from sepbook.songs import (
    FONTS,
    analyse,
    arrange,
    balance,
    draw_score,
    melody,
    mma_text,
    part,
    produce,
    render,
    sing,
)

OUT = Path(__file__).resolve().parent.parent / "sepbook" / "data" / "made"
SEED, LOW, READER, GROOVE, SECONDS, RATE = 36, 57, "7635", "8Beat", 6, 22050
LEVELS = {"vocals": -21.0, "drums": -20.0, "bass": -23.0, "other": -24.0}


def main() -> None:
    """Write the stems, the dry voice, and a table of what is needed to write the score again."""
    score = draw_score(np.random.default_rng(SEED))
    midi = arrange(mma_text(score, dict.fromkeys(score.sections, GROOVE), SEED))
    chance = lambda k: np.random.default_rng([SEED, k])
    fluid, muse = FONTS[False]
    fonts = {"drums": muse, "bass": fluid, "other": fluid}
    stems = {}
    for k, (stem, font) in enumerate(fonts.items()):
        stems[stem] = render(part(midi, stem, chance(k), score.swing), font, RATE)[: SECONDS * RATE]
    voice = analyse(read_wav(DATA / "readers" / f"{READER}.flac"), 16000)
    dry = sing(voice, melody(score, LOW, SEED), score.seconds, chance(9))[: SECONDS * 16000]
    wet = resample(torch.from_numpy(dry.astype(np.float32))[None], 16000, RATE)[0].numpy()
    stems["vocals"] = produce(wet, "vocals", RATE, chance(4))
    stems = balance(stems, LEVELS, RATE)
    OUT.mkdir(exist_ok=True)
    rates = dict.fromkeys(stems, RATE) | {"voice": 16000}
    for name, wav in (stems | {"voice": 0.7 * dry / np.abs(dry).max()}).items():
        wav = fade_edges(torch.from_numpy(np.asarray(wav, np.float32)), 200).numpy()
        sf.write(OUT / f"{name}.ogg", wav, rates[name], "VORBIS", compression_level=0.75)
    with open(OUT / "index.csv", "w", newline="", encoding="utf-8") as index:
        table = csv.writer(index, lineterminator="\n")
        table.writerow(["excerpt", "seconds", "seed", "low", "groove", "reader"])
        table.writerow(["made", SECONDS, SEED, LOW, GROOVE, READER])
    print(score, sum(p.stat().st_size for p in OUT.iterdir()))


if __name__ == "__main__":
    main()
