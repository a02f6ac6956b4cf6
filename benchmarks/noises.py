"""Make a corpus of recorded noises out of Debian's packages of games and of sounds.

    python benchmarks/noises.py OUT [--packages FOLDER] [--only NAME ...]

The packages of the list below are fetched by `apt-get download` (Debian 12; nothing is installed)
into FOLDER, and read where they lie. They give two corpora, which `train_denoiser.py --noise` takes
side by side: OUT/recordings holds what is long, cut at a minute; OUT/effects has a track for each
kind of short sound, which it repeats one after another. All is mono at 16 kHz. Music, speech,
cries, signals of an interface and what is shorter than 0.3 s stay out. In each, index.csv has one
row per track, and sources.csv one per sound: its package, version, path and the licence that the
package's debian/copyright states. The sounds themselves are not part of this project.
"""

import argparse
import csv
import io
import re
import shutil
import subprocess
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile as sf
import soxr

RATE, LONG, MOST, LEAST, SHORTEST, LEVEL = 16000, 10, 60, 20, 0.3, -26


class Package(NamedTuple):
    """What is taken from a package."""

    version: str
    licence: str
    only: str  # what a path must hold, as a regular expression
    never: str = r"^$"  # and what it must not


PACKAGES = {
    "0ad-data": Package(
        "0.0.26-1",
        "CC BY-SA 3.0",
        "audio/(actor|ambient|attack|resource)/",
        "human/death",
    ),
    "megaglest-data": Package(
        "3.13.0-3",
        "CC BY-SA 3.0",
        "tilesets/|commondata/.*/(cata|tech_build|golem_walk|horseman_walk|orni|anvil|arrow|pig|cow"
        "|air|worker_(build|harv|mine))|(airship|machine|bee|tank|train|ram|ship|boat|mill)[a-z_]*_?"
        "(attack|fly|walk|move|work)?[0-9]*[.]",
        "music|_(ack|select|die)|good_morning|hell",
    ),
    "flare-game": Package(
        "1.14-1",
        "CC BY-SA 3.0",
        "soundfx/(environment|inventory|door)|wind_ambient|heartbeat|arrow_wall|block|burn",
        "teleporter|inventory_gem",
    ),
    "flightgear-data-base": Package(
        "1:2020.3.16+dfsg-1",
        "GPL 2+",
        "flightgear/(Sounds|Aircraft/c172p/Sounds)/[^/]*$",
        "beep|click|400Hz|stall|hrn|intro",
    ),
    "hedgewars-data": Package(
        "1.0.2-6",
        "GPL 2",
        "Sounds/(steam|plane|whipcrack|bee|drillgun|steps|sniperreload|minigun|baseballbat|jetpack"
        "|pickhammer|shotgun|rope|flamethrower|bump|molotov|minetick|hammer|blowtorch|gun|rcplane"
        "|mortar|explosion|splash|shutterclick|parachute|cake|knife|Droplet|airmine)[a-z_0-9]*[.]",
    ),
    "openttd-opensfx": Package(
        "1.0.3-2", "CC BY-SA 3.0", "", "Year|Beep|Morse|Nothing|Oooh|Toyland"
    ),
    "ufoai-sound": Package(
        "2.5-2",
        "GPL 2+, CC BY 3.0 and CC BY-SA 3.0",
        "sound/(ambience|doors|footsteps|impact|misc|ugv|weapons|seq)/",
        "city|disco|jingle|radio|tv_news|lobby|popup|roundstart|talk|alienatmo|aliencom|droning",
    ),
    "tuxpaint-stamps-default": Package(
        "2022.06.04-1",
        "GPL 2",
        "stamps/(household|animals|naturalforces|vehicles|hobbies/camera|seasonal/newyears)",
        "_desc|_[a-z]{2}(_[A-Za-z]+)?\\.ogg|scissors_small_closed|golden",
    ),
    "tuxpaint-data": Package(
        "1:0.9.28-sdl2-1", "GPL 2", "typewriter|bubble|scroll|keyclick|eraser"
    ),
    "unknown-horizons": Package(
        "2019.1-6",
        "CC BY-SA 3.0",
        "audio/sounds/|waves",
        "click|flippage|invalid|refresh|success|main_square|lose|win.ogg|new_|/[0-9].ogg|build.ogg",
    ),
    "wesnoth-1.16-data": Package(
        "1:1.16.9-1",
        "GPL 2+",
        "sounds/",
        "human|dwarf|elf-hit|elf-die|orc|ogre|troll|goblin|mer|naga|witch|laugh|ugg|lich|ghoul|ui/|horn-|fanfare|wardrums|wail|groan|select|join|chat|receive|gamestart|leave|arrive|timer",
    ),
    "warzone2100-data": Package(
        "4.3.3-3",
        "GPL 2+",
        "base.wz/audio/(sfx|radclick)",
        "interfce|scream|help|silence",
    ),
    "bucklespring-data": Package("1.4.0-2", "GPL 2+", "wav"),
    "lincity-ng-data": Package(
        "2.9~git20150314-5", "GPL 2+", "/sounds/", "Click|Monument[0-9]|School|University1"
    ),
    "scorched3d-data": Package(
        "44+dfsg-8",
        "GPL 2+ and CC BY-SA 3.0",
        "/wav/",
        "scream|fight4life|extralife|lockon|play[.]|beep|teleport|beamup",
    ),
    "redeclipse-data": Package(
        "1.6.0-1",
        "CC BY 3.0 and CC BY-SA 3.0",
        "sounds/ambience/",
        "alien|dizzy|teleport|jumppad|wakawaka|outdoorsignal|/switch",
    ),
    "widelands-data": Package(
        "2:1.1-3", "GPL 2+", "/sound/", "lobby|message|/military/|inn_|tavern"
    ),
    "nexuiz-data": Package(
        "2.5.2-12",
        "GPL 2+",
        "sound/(ambient|desertfactory|weapons)/|footstep|jetpack",
        "radio|/on_",
    ),
    "openarena-data": Package(
        "0.8.5split-14",
        "GPL 2+",
        "sound/(world|movers|weapons|player/(footsteps|gib))",
        "moan|growl|drone|teleport|telein|teleout|portal|noammo|1shot|ominous|forbidden",
    ),
    "torcs-data": Package("1.3.7+dfsg-5", "GPL 2+", "[.]wav"),
    "searchandrescue-data": Package(
        "1.3.0-1.1", "GPL", "sounds/|hh6[05]/", "music|stall|overspeed|flir|splash_human"
    ),
    "lugaru-data": Package("1.2-6", "CC BY-SA 3.0", "Sounds/", "Alarm|Console|Music|Rabbit"),
    "minetest-data": Package(
        "5.6.1+dfsg+~1.9.0mt8+dfsg-2", "CC BY 3.0, CC BY-SA 3.0 and CC0", "", "player_"
    ),
    "supertuxkart-data": Package(
        "1.4+dfsg-2",
        "CC BY 3.0, CC BY-SA 3.0, CC0 and GPL 2+",
        "sfx/(airplane|bowling|break|car_|clock|crash|engine|exotic|explosion|fireworks|hammer"
        "|machine|metal|nitro|rain|river|skid|spaceship|splash|static|thunder|waterfall|wooden)"
        "|steamLocomotive|cow[.]|spaceship_engine[.]",
    ),
    "sonic-pi-samples": Package(
        "3.2.2~repack-8",
        "CC0 1.0 and MIT",
        "vinyl_hiss|vinyl_rewind|ambi_sauna|3d_printer|misc_crow|perc_door|perc_till|dark_woosh|glass_rub|perc_swash",
    ),
}


# ---- sounds in packages


def fetched(name: str, version: str, folder: Path) -> Path:
    """The archive of a package."""
    found = lambda: sorted(folder.glob(f"{name}_{version.replace(':', '%3a')}_*.deb"))
    if not found():
        subprocess.run(["apt-get", "-q", "download", f"{name}={version}"], cwd=folder, check=True)
    return found()[0]


def in_zip(file) -> Iterator[tuple[str, bytes]]:
    """What a zip archive holds."""
    with zipfile.ZipFile(file) as archive:
        for name in archive.namelist():
            if SOUND.search(name):
                yield name, archive.read(name)


def in_cat(data: bytes) -> Iterator[tuple[str, bytes]]:
    """What a sound set of OpenTTD holds: a table of places, then titles and WAV files."""
    number = lambda place: int.from_bytes(data[place : place + 4], "little") & 0x7FFFFFFF
    for entry in range(0, number(0), 8):
        start = number(entry)
        sound = start + 1 + data[start]
        size = 8 + number(sound + 4)
        title = data[start + 1 : sound].decode("latin-1").split('"')[1]
        yield title.replace("/", " ") + ".wav", data[sound : sound + size]


SOUND = re.compile(r"\.(ogg|oga|wav|flac|mp3|opus|g722|gsm)$", re.IGNORECASE)


def sounds(deb: Path) -> Iterator[tuple[str, bytes]]:
    """Path and content of each sound of a package, file by file in order of their paths."""
    unpack = subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(deb)], stdout=subprocess.PIPE)
    found = {}
    with tarfile.open(fileobj=unpack.stdout, mode="r|") as files:
        for member in filter(tarfile.TarInfo.isfile, files):
            name, inside = member.name.removeprefix("./usr/share/"), []
            if SOUND.search(name):
                found[name] = [(name, files.extractfile(member).read())]
            elif name.endswith((".zip", ".pk3", ".wz")):
                with tempfile.TemporaryFile() as copy:
                    shutil.copyfileobj(files.extractfile(member), copy)
                    inside = list(in_zip(copy))
            elif name.endswith(".cat"):
                inside = in_cat(files.extractfile(member).read())
            found.setdefault(name, [(f"{name}/{title}", data) for title, data in inside])
    if unpack.wait():
        raise RuntimeError(f"dpkg-deb could not read {deb}")
    for name in sorted(found, key=lambda path: path.split("/")):
        yield from found[name]


# ---- recordings


def clean(data: bytes) -> np.ndarray | None:
    """A recording at 16 kHz without silence around it and without its mean; None for no use."""
    try:
        with sf.SoundFile(io.BytesIO(data)) as file:
            rate, wav = file.samplerate, file.read(MOST * 2 * file.samplerate, always_2d=True)
    except sf.LibsndfileError:
        return None
    wav = soxr.resample(wav.mean(1), rate, RATE) if len(wav) else wav[:, 0]
    wav = wav - wav.mean() if len(wav) else wav
    loud = np.flatnonzero(np.abs(wav) > 10 ** (-45 / 20) * np.abs(wav).max(initial=0))
    wav = wav[loud[0] : loud[-1] + 1][: MOST * RATE] if len(loud) else wav
    useful = len(wav) >= SHORTEST * RATE and np.abs(wav).max() > 1e-3
    return wav / np.sqrt(np.mean(wav**2)) if useful else None


def kind(path: str) -> str:
    """What a recording is of: the first words of its name, without its number."""
    *_, folder, name = re.sub(r"([a-z])([A-Z])", r"\1-\2", path).lower().split("/")
    words = [word for word in re.findall(r"[a-z]+", name.rsplit(".", 1)[0]) if len(word) > 1]
    words = words if words and len(words[0]) > 2 else [*re.findall(r"[a-z]+", folder), *words]
    return "-".join(words[: 3 if ".cat" in folder or len(words[0]) < 4 else 1])


def track(clips: Sequence[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """Short recordings one after another, close or one into the other, each at its own level."""
    size = int(np.clip(2 * sum(map(len, clips)), LEAST * RATE, MOST * RATE))
    out, place = np.zeros(size), 0
    while place < size:
        for k in rng.permutation(len(clips)):
            clip = clips[k][: size - place]
            if len(clip):
                out[place : place + len(clip)] += clip * 10 ** (rng.normal(0, 4) / 20)
            place += int(len(clips[k]) * rng.uniform(0.4, 1) + rng.uniform(0, 0.25) * RATE)
            place = min(place, size)
    return out


def write_tables(place: Path, index: list[dict], sources: list[dict]) -> None:
    """One row for each track, and one for each sound."""
    for name, rows in (("index.csv", index), ("sources.csv", sources)):
        with open(place / name, "w", newline="", encoding="utf-8") as file:
            table = csv.DictWriter(file, list(rows[0]))
            table.writeheader()
            table.writerows(rows)


def write(place: Path, tracks: list[tuple[str, str, np.ndarray, list[str]]]) -> None:
    """A corpus of tracks (package, name, wave, paths of the sounds)."""
    place.mkdir(parents=True, exist_ok=True)
    index, sources = [], []
    for package, name, wav, paths in tracks:
        level = 10 ** (LEVEL / 20) / np.sqrt(np.mean(wav**2))
        wav = wav * min(level, 0.9 / np.abs(wav).max())
        sf.write(place / f"{package}.{name}.flac", wav, RATE, subtype="PCM_16")
        version, licence, *_ = PACKAGES[package]
        row = {"file": f"{package}.{name}.flac", "seconds": round(len(wav) / RATE, 1)}
        row |= {"peak": round(float(np.abs(wav).max()), 3)}
        row |= {"rms_db": round(10 * np.log10(float(np.mean(wav**2))), 1), "licence": licence}
        index.append(row | {"source": f"Debian's {package} {version}", "content": name})
        told = {"file": row["file"], "package": package, "version": version, "licence": licence}
        sources.extend(told | {"path": path} for path in paths)
    write_tables(place, index, sources)


def main() -> None:
    """Fetch, read, sort, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--packages", type=Path, help="folder of packages (default: OUT/packages)")
    parser.add_argument("--only", nargs="+", choices=list(PACKAGES), default=list(PACKAGES))
    args = parser.parse_args()
    folder = args.packages or args.out / "packages"
    folder.mkdir(parents=True, exist_ok=True)
    recordings, effects, known = [], [], set()
    for package in args.only:
        rule, kinds, rng = PACKAGES[package], {}, np.random.default_rng(0)
        before = len(recordings), len(effects)
        for path, data in sounds(fetched(package, rule.version, folder)):
            taken = re.search(rule.only, path) and not re.search(rule.never, path)
            wav = clean(data) if taken and data not in known else None
            if wav is None:
                continue
            known.add(data)
            if len(wav) < LONG * RATE:
                kinds.setdefault(kind(path), []).append((path, wav))
            else:
                name = f"{kind(path)}.{len(recordings) - before[0]}"
                recordings.append((package, name, wav, [path]))
        for name, found in sorted(kinds.items()):
            paths, clips = zip(*found)
            effects.append((package, name, track(clips, rng), paths))
        counts = len(recordings) - before[0], len(effects) - before[1]
        print(f"{package:28} {counts[0]:4} recordings {counts[1]:4} kinds of effects", flush=True)
    write(args.out / "recordings", recordings)
    write(args.out / "effects", effects)


if __name__ == "__main__":
    main()
