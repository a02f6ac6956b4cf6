"""Songs made here: what is plain NumPy always, the rest where its tools are installed."""

import csv
import itertools
import shutil

import numpy as np
import pytest
import soundfile as sf
import torch

from sepbook import songs
from sepbook.engine.examples import DATA
from sepbook.mixtures import Corpus, MixtureDataset

needs_tools = pytest.mark.skipif(bool(songs.missing()), reason="; ".join(songs.missing()[:1]))


@pytest.fixture(scope="module")
def readers():
    return Corpus(DATA / "readers", channels=1)


@pytest.mark.parametrize("key", range(12))
def test_chords_fit_their_key(key):
    for degree in ("1", "2m", "3m", "4", "5", "6m", "4M7", "2m7"):
        tones = songs.chord_tones(songs.chord(degree, key))
        assert all((p - key) % 12 in songs.SCALE for p in tones), (degree, tones)
    assert songs.chord_tones(songs.chord("b7", key))[0] == (key + 10) % 12


def test_a_score_is_as_long_as_asked_and_repeats():
    for bars in (16, 32, 64):
        score = songs.draw_score(np.random.default_rng(bars), bars)
        assert len(score.chords) == len(score.sections) == bars
        assert score.seconds == pytest.approx(240 * bars / score.tempo)
        assert score == songs.draw_score(np.random.default_rng(bars), bars)
    for bars in (0, 8, 20, -16):
        with pytest.raises(ValueError, match=r"^bars is .* give 16, 32, \.\.\.$"):
            songs.draw_score(np.random.default_rng(0), bars)


def test_forms_keys_and_swing_vary():
    scores = [songs.draw_score(np.random.default_rng(k)) for k in range(200)]
    assert len({s.key for s in scores}) == 12 and len({s.sections for s in scores}) >= 7
    assert 0.1 < np.mean([s.swing > 0 for s in scores]) < 0.35
    assert any("I" in s.sections for s in scores) and len({s.chords for s in scores}) > 180


@pytest.mark.parametrize("seed", range(20))
def test_a_melody_is_in_key_in_range_and_rests(seed):
    score = songs.draw_score(np.random.default_rng(seed), 32)
    notes = songs.melody(score, 60, seed)
    assert all(60 <= n.pitch <= 75 and (n.pitch - score.key) % 12 in songs.SCALE for n in notes)
    assert notes == sorted(notes) and notes[-1].start + notes[-1].length <= score.seconds + 1e-6
    gaps = [b.start - a.start - a.length for a, b in itertools.pairwise(notes)]
    assert min(gaps) > -1e-6 and max(gaps) > 60 / score.tempo
    bar = 240 / score.tempo
    silent = {k for k, letter in enumerate(score.sections) if letter == "I"}
    assert not silent & {int(n.start / bar + 1e-6) for n in notes}


def test_a_section_returns_with_its_tune():
    score = songs.Score(120.0, 0, 0.0, tuple(["C", "G", "Am", "F"] * 4), "AAAABBBBAAAAAAAA")
    notes = songs.melody(score, 60, 3)
    tune = lambda first: [
        (round(n.start - 2 * first, 6), n.pitch) for n in notes if 0 <= n.start - 2 * first < 8
    ]
    assert tune(0) == tune(8) == tune(12) != tune(4)
    assert songs.melody(score, 60, 4) != notes


def test_swing_keeps_beats_and_moves_their_middle():
    beats = np.arange(0, 8, 0.5)
    for amount in (0.0, 0.5, 1.0):
        moved = songs.swung(beats, amount)
        assert np.allclose(moved[::2], beats[::2])
        assert np.allclose(moved[1::2] - beats[1::2], amount / 6)
    assert (np.diff(songs.swung(np.linspace(0, 4, 999), 1.0)) > 0).all()


def test_a_harmony_stays_in_the_scale():
    score = songs.draw_score(np.random.default_rng(1))
    notes = songs.melody(score, 60, 1)
    for steps, allowed in ((2, {3, 4}), (-3, {-5, -6}), (0, {0})):
        line = songs.harmony(notes, score.key, steps)
        assert {b.pitch - a.pitch for a, b in zip(notes, line)} <= allowed
        assert [n[:2] for n in line] == [n[:2] for n in notes]


@pytest.mark.parametrize("text", ["0011100", "1", "0", "111", "01010", "0000", "10"])
@pytest.mark.parametrize("frames", [1, 2, 5, 7, 40, 333])
def test_warping_rises_and_covers_the_syllable(text, frames):
    voiced = np.array([c == "1" for c in text])
    where = songs.warp(voiced, frames)
    assert where.shape == (frames,) and (np.diff(where) >= 0).all()
    assert where[0] >= -0.5 and where[-1] <= len(voiced) - 0.5
    if frames >= 40 and voiced.any() and not voiced[:2].any():
        assert np.diff(where)[0] == pytest.approx(1)  # a consonant keeps its pace


def test_a_pitch_curve_follows_its_notes():
    notes = [songs.Note(0.0, 1.0, 60), songs.Note(1.0, 1.5, 64), songs.Note(3.0, 1.0, 57)]
    curve = songs.pitch_curve(notes, 4.2, np.random.default_rng(0))
    assert curve.shape == (840,) and np.isfinite(curve).all()
    for note in notes:
        inner = curve[
            round((note.start + 0.1) / 0.005) : round((note.start + note.length) / 0.005) - 20
        ]
        assert np.abs(inner - note.pitch).max() < 0.75 and np.abs(inner.mean() - note.pitch) < 0.25
    assert np.array_equal(curve, songs.pitch_curve(notes, 4.2, np.random.default_rng(0)))
    still = songs.pitch_curve(notes, 4.2, np.random.default_rng(0), vibrato=0.0)
    assert np.std(curve[400:480]) > 2 * np.std(still[400:480])


def test_midi_numbers():
    assert songs.midi_to_hz(69) == 440 and songs.midi_to_hz(57) == 220
    assert songs.midi_to_hz(np.array([70.0]))[0] == pytest.approx(466.1638, abs=1e-3)


def test_syllables_lie_in_the_speech_and_skip_its_pauses():
    time = np.arange(16000 * 2) / 16000
    wav = np.sin(2 * np.pi * 150 * time) * (np.sin(2 * np.pi * 2.5 * time) ** 2) * (time < 1.2)
    spans = songs.syllables(wav, 16000)
    assert len(spans) == 6 and max(b for _, b in spans) <= 250
    assert all(a < b for a, b in spans) and all(x[1] <= y[0] for x, y in itertools.pairwise(spans))


def test_balance_sets_levels_where_a_stem_sounds():
    rng = np.random.default_rng(0)
    stems = {"vocals": rng.normal(0, 0.1, 22050), "drums": rng.normal(0, 0.01, 22050)}
    stems["vocals"][11025:] *= 1e-3  # a rest with a little noise
    stems["bass"] = np.zeros(22050)
    done = songs.balance(stems, {"vocals": -30.0, "drums": -25.0, "bass": -20.0}, 22050)
    assert songs.sounding_level(done["vocals"], 22050) == pytest.approx(-30, abs=0.01)
    sounding = np.square(done["vocals"][:11025]).mean()  # without the rest
    assert 10 * np.log10(sounding) == pytest.approx(-30, abs=0.1)
    assert songs.sounding_level(done["drums"], 22050) == pytest.approx(-25, abs=0.01)
    assert not done["bass"].any() and songs.sounding_level(done["bass"], 22050) == -np.inf
    loud = songs.balance(stems, dict.fromkeys(stems, 10.0), 22050)
    assert np.abs(sum(loud.values())).max() <= 0.9001
    assert max(np.abs(w).max() for w in loud.values()) <= 0.9001
    assert all(w.dtype == np.float32 for w in loud.values())


def test_what_is_missing_is_named_with_its_cure(monkeypatch, readers, tmp_path):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    lines = songs.missing()
    assert lines[0].startswith("mma is not installed; on Debian and Ubuntu: apt install mma")
    with pytest.raises(RuntimeError, match="mma is not installed"):
        songs.make_song(0, readers)
    with pytest.raises(RuntimeError, match="mma is not installed"):
        songs.write_songs(tmp_path / "new", 1, readers)
    assert not (tmp_path / "new").exists()
    with pytest.raises(RuntimeError, match=r"pip install 'sepbook\[songs\]'"):
        songs.extra("no_such_package")
    with pytest.raises(SystemExit):
        songs.main([str(tmp_path / "new"), "--voices", str(DATA / "readers")])
    with pytest.raises(ValueError, match="count"):
        songs.write_songs(tmp_path, 0, readers)


def test_a_list_says_who_sings(monkeypatch, readers, tmp_path, capsys):
    sung = []
    monkeypatch.setattr(songs, "write_songs", lambda *args: sung.append(args[2]))
    everyone = [row["speaker"] for row in readers.rows]
    (tmp_path / "two.txt").write_text("\n".join(everyone[:2]) + "\n")
    words = [str(tmp_path / "new"), "--voices", str(DATA / "readers")]
    for option, wanted in (("--only", everyone[:2]), ("--without", everyone[2:])):
        songs.main([*words, option, str(tmp_path / "two.txt")])
        assert [row["speaker"] for row in sung.pop().rows] == wanted
    (tmp_path / "nobody.txt").write_text("nobody\n")
    for more, line in (
        (["--only", "no.txt"], "no.txt"),
        (["--only", str(tmp_path / "nobody.txt")], "leaves nobody to sing"),
        (["--only", "a", "--without", "b"], "exclude each other"),
    ):
        with pytest.raises(SystemExit):
            songs.main([*words, *more])
        assert line in capsys.readouterr().err and not sung


@needs_tools
def test_a_song_repeats_and_is_the_sum_of_sounding_stems(readers):
    song = songs.make_song(3, readers, sample_rate=8000)
    stems, people = song.stems, {row["speaker"] for row in readers.rows}
    assert 1 <= len(song.readers) <= 2 and set(song.readers) <= people
    assert set(song.fonts) <= {font.name for font in songs.FONTS[False]}
    assert songs.plan_song(3).font.name in song.fonts
    assert tuple(stems) == ("vocals", "drums", "bass", "other")
    frames = round(songs.plan_song(3).score.seconds * 8000)
    assert all(w.shape == (1, frames) and torch.isfinite(w).all() for w in stems.values())
    assert all(w.abs().max() > 0.01 for w in stems.values())
    assert sum(stems.values()).abs().max() < 0.91
    again = songs.make_song(3, readers, sample_rate=8000).stems
    assert all(torch.equal(stems[name], again[name]) for name in stems)


@needs_tools
def test_a_song_is_sung_in_tune(readers):
    rng = np.random.default_rng(0)
    voice = songs.draw_voice(readers, rng)
    notes = [songs.Note(0.6 * k, 0.55, p) for k, p in enumerate((55, 57, 59, 60, 62, 60, 59, 55))]
    wav = songs.sing(voice, notes, 5.0, rng)
    assert wav.shape == (80000,) and np.abs(wav[-3000:]).max() < 0.02 * np.abs(wav).max()
    f0 = songs.analyse(wav, 16000).f0
    good = []
    for note in notes:
        a, b = round(note.start / songs.HOP) + 16, round((note.start + note.length) / songs.HOP) - 8
        sung = f0[a:b][f0[a:b] > 0]
        good += list(np.abs(69 + 12 * np.log2(sung / 440) - note.pitch) < 0.5)
    assert np.mean(good) > 0.85 and len(good) > 300
    assert not songs.sing(voice, [], 1.0, rng).any()


@needs_tools
def test_written_songs_are_a_corpus_and_are_continued(readers, tmp_path):
    how = dict(sample_rate=8000, progress=False)
    songs.write_songs(tmp_path, 1, readers, seed=5, **how)
    first = (tmp_path / "made-00005" / "drums.flac").read_bytes()
    songs.write_songs(tmp_path, 2, readers, seed=4, **how)
    assert (tmp_path / "made-00005" / "drums.flac").read_bytes() == first
    with open(tmp_path / "index.csv", newline="") as index:
        rows = list(csv.DictReader(index))
    assert [row["excerpt"] for row in rows] == ["made-00004", "made-00005"]
    people = {row["speaker"] for row in readers.rows}  # also of the song that was kept
    assert all(row["readers"] and set(row["readers"].split()) <= people for row in rows)
    assert all(row["fonts"] for row in rows)
    data = MixtureDataset(Corpus(tmp_path), seconds=1.0, size=3, remix=0.5)
    assert data.sources == ("vocals", "drums", "bass", "other")
    mix, src = data[0]
    assert mix.shape == (1, 8000) and torch.allclose(mix, src.sum(0), atol=1e-6)
    assert sf.info(tmp_path / "made-00004" / "bass.flac").samplerate == 8000
    assert not list(tmp_path.glob("*.part"))


def test_an_index_of_other_columns_is_continued(tmp_path):
    (tmp_path / "index.csv").write_text("excerpt,font\nmade-00001,old.sf2\nmade-00002,old.sf2\n")
    songs.write_index(tmp_path, [{"excerpt": "made-00002", "fonts": "a b", "readers": "7"}])
    assert songs.read_rows(tmp_path) == [
        {"excerpt": "made-00001", "fonts": "", "readers": ""},
        {"excerpt": "made-00002", "fonts": "a b", "readers": "7"},
    ]


@needs_tools
def test_validation_has_styles_of_its_own():
    assert not set(songs.styles()) & set(songs.styles(unseen=True))
    assert len(songs.styles()) > 5 * len(songs.styles(unseen=True)) > 0
    assert all(songs.grooves(style) for style in songs.styles())
