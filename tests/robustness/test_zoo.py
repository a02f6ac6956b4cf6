"""The zoo: what was saved comes back; what is damaged, foreign or hostile gives one line."""

import json
import os
import pickle
import random
import sys
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from sepbook import separate, zoo
from sepbook.engine import weights as engine
from sepbook.engine.examples import example_readers
from sepbook.learner import Learner, Network
from sepbook.metrics import evaluate
from sepbook.mixtures import example_song


class Tiny(Network):
    """A network with everything a state dict can hold: weights, buffers, counters, ties."""

    def __init__(self, sample_rate=8000, sources=("s1", "s2"), hidden=4, widths=(3, 5), tie=True):
        super().__init__()
        self.sample_rate, self.channels, self.sources = sample_rate, 1, tuple(sources)
        if hidden > 1000:
            raise KeyError("hidden")
        self.a = nn.Conv1d(1, hidden, widths[0], padding=widths[0] // 2)
        self.norm = nn.BatchNorm1d(hidden)
        self.b = nn.Conv1d(hidden, len(self.sources), widths[1], padding=widths[1] // 2)
        self.again = self.a if tie else nn.Conv1d(1, hidden, widths[0], padding=widths[0] // 2)

    def forward(self, mix):
        return self.b(self.norm(self.again(mix)).relu())[:, :, None]


def rename(network, state):
    """The names of a peer that calls everything `theirs`."""
    return {name.removeprefix("theirs."): t for name, t in state.items()}


class Famous(Tiny):
    """A network that can read published checkpoints."""

    peers: ClassVar[dict] = {"peer": rename}
    published: ClassVar[dict] = {
        "hf:org/whole": {"peer": "peer", "config": {"hidden": 6}, "licence": "MIT"},
        "hf:org/named": {"peer": "peer", "config": {"hidden": 6}, "files": "special.th"},
        "hf:org/parts": {
            "peer": "peer",
            "config": {"hidden": 6},
            "files": {"theirs.a": "a.ckpt", "theirs": "rest.ckpt"},
        },
    }


def tiny(cls=Tiny, seed=0, **config):
    """A network with random weights and running averages, in evaluation mode."""
    torch.manual_seed(seed)
    net = cls(**config)
    net(torch.randn(4, 1, 100))
    return net.eval()


mix = torch.randn(2, 1, 333, generator=torch.Generator().manual_seed(5))


def complaint(call, kind=ValueError):
    """The error's text: one line, not too long, without a traceback of another library."""
    with pytest.raises(kind) as caught:
        call()
    text = str(caught.value)
    assert "\n" not in text and 10 < len(text) < 420, text
    assert caught.value.__cause__ is None
    return text


@pytest.fixture
def path(tmp_path):
    return zoo.save(tiny(), tmp_path / "tiny.safetensors", {"data": "noise"})


def sealed(raw, change=lambda card: None, tensors=None):
    """The file again with another card or other tensors, and a seal that fits."""
    length = int.from_bytes(raw[:8], "little")
    card = json.loads(json.loads(raw[8 : 8 + length])["__metadata__"]["sepbook"])
    change(card)
    card = {"sha256": "0" * 64} | {k: v for k, v in card.items() if k != "sha256"}
    tensors = safetensors.torch.load(raw) if tensors is None else tensors
    raw = safetensors.torch.save(tensors, {"sepbook": json.dumps(card, separators=(",", ":"))})
    return engine.reseal(raw, "0" * 64, engine.digest(raw, "0" * 64))


# There and back


def test_round_trip(path):
    net, back = tiny(), zoo.load(path, cls=Tiny)
    assert torch.equal(net(mix), back(mix)) and not back.training
    assert back.config == net.config and back.sources == ("s1", "s2")
    assert back.again.weight is back.a.weight
    for name, t in net.state_dict().items():
        assert torch.equal(t, back.state_dict()[name]) and t.dtype == back.state_dict()[name].dtype


def test_every_argument_comes_back(tmp_path):
    config = dict(sample_rate=16000, sources=("x", "y", "z"), hidden=7, widths=(1, 9), tie=False)
    back = zoo.load(zoo.save(tiny(**config), tmp_path / "n.safetensors"), cls=Tiny)
    assert back.sources == ("x", "y", "z") and back.sample_rate == 16000
    assert back.a.weight.shape == (7, 1, 1) and back.again is not back.a


def test_the_card(path):
    card = zoo.read_card(path)
    assert card == zoo.load(path, cls=Tiny).card
    assert card["class"].endswith(".Tiny") and card["config"]["hidden"] == 4
    assert card["sources"] == ["s1", "s2"] and card["sample_rate"] == 8000 and card["channels"] == 1
    assert card["parameters"] == tiny().n_params and card["data"] == "noise"
    assert all(field in card for field in zoo.CARD_FIELDS) and card["licence"] is None


def test_a_card_can_not_contradict_its_network(tmp_path):
    false = {"class": "x.Y", "config": {}, "sources": ["q"], "sha256": "0", "format": 99}
    card = zoo.read_card(zoo.save(tiny(), tmp_path / "n.safetensors", false))
    assert card["class"].endswith(".Tiny") and card["sources"] == ["s1", "s2"]
    assert card["format"] == 1 and len(card["sha256"]) == 64
    zoo.load(tmp_path / "n.safetensors", cls=Tiny)


def test_a_card_takes_numbers_of_any_kind(tmp_path):
    story = {
        "a": np.float32(1.5),
        "b": torch.tensor([1, 2]),
        "c": tmp_path / "x",
        "d": {"é": '\\"'},
    }
    card = zoo.read_card(zoo.save(tiny(), tmp_path / "n.safetensors", story))
    assert card["a"] == 1.5 and card["b"] == [1, 2] and card["d"] == {"é": '\\"'}
    tricky = {"x": '"sepbook":"{\\"sha256\\":\\"' + "0" * 64, "y": "0" * 64}
    zoo.load(zoo.save(tiny(), tmp_path / "n.safetensors", tricky), cls=Tiny)


def test_the_same_network_gives_the_same_bytes(tmp_path, path):
    again = zoo.save(tiny(), tmp_path / "again.safetensors", {"data": "noise"})
    assert again.read_bytes() == path.read_bytes()


def test_random_numbers_are_left_alone(tmp_path):
    net = tiny()
    torch.manual_seed(3)
    want = torch.rand(4)
    torch.manual_seed(3)
    zoo.load(zoo.save(net, tmp_path / "n.safetensors"), cls=Tiny)
    assert torch.equal(torch.rand(4), want)


def test_saving_changes_nothing(tmp_path):
    net = tiny().train()
    before = {k: t.clone() for k, t in net.state_dict().items()}
    zoo.save(net, tmp_path / "n.safetensors", dtype="float16")
    assert net.training and all(torch.equal(t, before[k]) for k, t in net.state_dict().items())
    assert next(net.parameters()).dtype == torch.float32


@pytest.mark.parametrize("dtype,bits", [("float16", 11), ("bfloat16", 8)])
def test_half_precision(tmp_path, dtype, bits):
    net = tiny(hidden=64, tie=False)
    net.norm.running_var.fill_(1e-9)  # nothing in float16
    full = zoo.save(net, tmp_path / "full.safetensors").stat().st_size
    path = zoo.save(net, tmp_path / "half.safetensors", {}, dtype)
    back, own = zoo.load(path, cls=Tiny), net.state_dict()
    assert path.stat().st_size < 0.85 * full and zoo.read_card(path)["dtype"] == dtype
    for name, weight in back.named_parameters():
        assert weight.dtype == torch.float32
        error = (weight - own[name]).abs() / own[name].abs().clamp(min=1e-4)
        assert error.max() <= 2**-bits
    assert torch.equal(back.norm.running_var, net.norm.running_var)
    assert back.norm.num_batches_tracked == 1


def test_double_precision_stays(tmp_path):
    net = tiny().double()
    back = zoo.load(zoo.save(net, tmp_path / "n.safetensors"), cls=Tiny)
    assert torch.equal(back(mix.double()), net(mix.double()))


def test_shared_memory_and_odd_strides(tmp_path):
    net = tiny(hidden=6, tie=False)
    store = torch.randn(40)
    net.a.weight.data = store[:18].view(3, 1, 6).permute(2, 1, 0)  # overlaps the next
    net.again.weight.data = store[9:27].view(6, 1, 3)
    back = zoo.load(zoo.save(net, tmp_path / "n.safetensors"), cls=Tiny)
    assert torch.equal(back(mix), net(mix)) and torch.equal(back.a.weight, net.a.weight)


def test_a_learner_and_its_best_file(tmp_path):
    data = [(s.sum(0), s) for s in torch.randn(8, 2, 1, 200)]
    learner = Learner(Tiny(), data, data[:2], folder=tmp_path / "run", batch_size=4)
    learner.fit(epochs=2, progress=False)
    path = zoo.save(learner.best(), tmp_path / "n.safetensors", learner.card() | {"data": "noise"})
    card = zoo.read_card(path)
    assert card["seconds_trained"] > 0 and card["device"] and card["seed"] == 0
    assert torch.equal(learner.best()(mix), zoo.load(path, cls=Tiny)(mix))
    said = complaint(lambda: zoo.load(tmp_path / "run" / "best.safetensors", cls=Tiny))
    assert "learner.best()" in said


class Masked(Tiny):
    """A network with minus infinity in a buffer, as attention has it."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mask", torch.full((3, 3), -torch.inf).triu(1))


def test_a_buffer_may_be_infinite(tmp_path):
    net = Masked()
    back = zoo.load(zoo.save(net, tmp_path / "n.safetensors", dtype="float16"), cls=Masked)
    assert torch.equal(back.mask, net.mask)
    net.mask[0, 0] = torch.nan
    assert "mask" in complaint(lambda: zoo.save(net, tmp_path / "n.safetensors"))
    net = Masked()
    net.b.bias.data[0] = torch.inf
    assert "b.bias" in complaint(lambda: zoo.save(net, tmp_path / "n.safetensors"))


@pytest.mark.filterwarnings("ignore:.torch.jit")
def test_a_compiled_network(tmp_path):
    net = tiny()
    back = zoo.load(zoo.save(torch.compile(net), tmp_path / "n.safetensors"), cls=Tiny)
    assert torch.equal(back(mix), net(mix))


# What save refuses


def test_save_refuses(tmp_path):
    net, good = tiny(), tmp_path / "n.safetensors"
    assert ".safetensors" in complaint(lambda: zoo.save(net, tmp_path / "n.pt"))
    complaint(lambda: zoo.save(net, tmp_path / "no" / "n.safetensors"), FileNotFoundError)
    assert "int8" in complaint(lambda: zoo.save(net, good, dtype="int8"))
    assert "JSON" in complaint(lambda: zoo.save(net, good, {"x": float("nan")}))
    assert "Tiny" in complaint(lambda: zoo.save(net, good, {"x": net}))
    assert "config" in complaint(lambda: zoo.save(nn.Conv1d(1, 1, 1), good))
    net.a.weight.data[0] = 7e4
    assert "7e+04" in complaint(lambda: zoo.save(net, good, dtype="float16"))
    net.a.weight.data[0] = torch.nan
    assert "NaN" in complaint(lambda: zoo.save(net, good))
    assert not list(tmp_path.iterdir())


def test_save_refuses_what_load_could_not_read(tmp_path):
    net = tiny()
    net.extra = nn.Linear(2, 2)
    assert "extra" in complaint(lambda: zoo.save(net, tmp_path / "n.safetensors"))
    net = tiny()
    net.config = net.config | {"hidden": 5}
    assert "not 5" in complaint(lambda: zoo.save(net, tmp_path / "n.safetensors"))


def test_whole_or_not_at_all(path, monkeypatch):
    before = path.read_bytes()
    monkeypatch.setattr(os, "replace", lambda *a: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError):
        zoo.save(tiny(seed=1), path)
    assert path.read_bytes() == before and list(path.parent.iterdir()) == [path]


# Damage


def test_every_flipped_byte_is_noticed(path):
    raw, draw = path.read_bytes(), random.Random(0)
    for at in range(len(raw)):
        hit = bytearray(raw)
        hit[at] ^= 1 << draw.randrange(8)
        path.write_bytes(hit)
        complaint(lambda: zoo.load(path, cls=Tiny))


def test_every_cut_is_noticed(path):
    raw = path.read_bytes()
    for size in range(len(raw)):
        path.write_bytes(raw[:size])
        complaint(lambda: zoo.load(path, cls=Tiny))
        complaint(lambda: zoo.read_card(path))
    for more in (b"\0", b"x" * 1000, raw):
        path.write_bytes(raw + more)
        assert "appended" in complaint(lambda: zoo.load(path, cls=Tiny))


@settings(max_examples=150)
@given(st.one_of(st.binary(max_size=200), st.binary(max_size=80).map(lambda b: b'{"a":' + b)))
def test_any_bytes(tmp_path_factory, junk):
    path = tmp_path_factory.mktemp("junk") / "j.safetensors"
    for raw in (junk, len(junk).to_bytes(8, "little") + junk):
        path.write_bytes(raw)
        complaint(lambda: zoo.load(path))
        complaint(lambda: zoo.read_card(path))


@pytest.mark.parametrize(
    "header",
    [
        "[1]",
        "{}",
        '{"a":3}',
        '{"a":{}}',
        '{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,"4"]}}',
        '{"a":{"dtype":"F32","shape":[1],"data_offsets":[4]}}',
        '{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,0]},"__metadata__":{"sepbook":"{}"}}',
        '{"__metadata__":3}',
        '{"__metadata__":{"sepbook":3}}',
        '{"__metadata__":{"sepbook":"[1]"}}',
        '{"a":' + "[" * 100000,
        '{"__metadata__":{"sepbook":' + json.dumps("[" * 100000) + "}}",
    ],
)
def test_odd_headers(tmp_path, header):
    path, text = tmp_path / "n.safetensors", header.encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text)
    complaint(lambda: zoo.load(path))
    complaint(lambda: zoo.read_card(path))


# A seal that fits proves nothing: cards and tensors made by hand


@pytest.mark.parametrize(
    "change,said",
    [
        (lambda c: c.update(format=2), "newer"),
        (lambda c: c.update(format="one"), "damaged card"),
        (lambda c: c.pop("class"), "damaged card"),
        (lambda c: c.update(config=[1]), "damaged card"),
        (lambda c: c.update(tied=[1]), "damaged card"),
        (lambda c: c.update(config={"depth": 4}), "can't build"),
        (lambda c: c.update(config={"hidden": "many"}), "can't build"),
        (lambda c: c.update(config={"hidden": 1001}), "can't build"),
        (lambda c: c["config"].update(hidden=5), "differs in"),
        (lambda c: c["config"].update(sample_rate=16000), "sample_rate"),
        (lambda c: c.update(sources=["s2", "s1"]), "sources"),
        (lambda c: c.update(tied={}), "lacks again.weight"),
        (lambda c: c.update(tied={"again.weight": 3}), "lacks again.weight"),
    ],
)
def test_cards_that_mislead(path, change, said):
    path.write_bytes(sealed(path.read_bytes(), change))
    assert said in complaint(lambda: zoo.load(path, cls=Tiny))


@pytest.mark.parametrize(
    "name",
    [
        "os.system",
        "builtins.eval",
        "sepbook.zoo.os.system",
        "sepbook.zoo.load",
        "sepbook.zoo.Network2",
        "sepbook.nowhere.Net",
        "sepbook.__main__.x",
        "sepbook..zoo.Network",
        "sepbook.mixtures.Corpus",
        "sepbook.learner.Objective",
        "Network",
        "",
    ],
)
def test_only_networks_of_sepbook_are_imported(path, name):
    path.write_bytes(sealed(path.read_bytes(), lambda card: card.update({"class": name})))
    said = complaint(lambda: zoo.load(path))
    assert "not a class of sepbook" in said or "which this sepbook lacks" in said


def test_weights_that_do_not_fit(path):
    raw = path.read_bytes()
    good = safetensors.torch.load(raw)
    for tensors, said in (
        (good | {"b.bias": torch.full((2,), torch.nan)}, "NaN"),
        (good | {"b.bias": torch.zeros(3)}, "(3, not 2)"),
        (good | {"new": torch.zeros(3)}, "unknown new"),
        ({k: t for k, t in good.items() if k != "b.bias"}, "lacks b.bias"),
        ({f"x{k}": torch.zeros(1) for k in range(9)}, "and 6 more"),
    ):
        path.write_bytes(sealed(raw, tensors=tensors))
        assert said in complaint(lambda: zoo.load(path, cls=Tiny))
    path.write_bytes(sealed(raw))
    zoo.load(path, cls=Tiny)


def test_the_wrong_class(path):
    assert "cls=Tiny" in complaint(lambda: zoo.load(path))
    assert "not a Famous" in complaint(lambda: zoo.load(path, cls=Famous))


# Foreign files


def test_files_of_another_kind(tmp_path):
    path = tmp_path / "n.safetensors"
    torch.save(tiny().state_dict(), tmp_path / "new.pt")
    torch.save(tiny().state_dict(), tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    kinds = {
        "zip archive": (tmp_path / "new.pt").read_bytes(),
        "pickle": (tmp_path / "old.pt").read_bytes(),
        "can run": pickle.dumps({"a": 1}),
        "web page": b"<!DOCTYPE html><html>",
        "git lfs pull": b"version https://git-lfs.github.com/spec/v1\noid sha256:4d\nsize 12\n",
        "HDF5": b"\x89HDF\r\n\x1a\n" + bytes(50),
        "something unknown": b"RIFF....WAVEfmt ",
        "empty": b"",
        "sepbook card": safetensors.torch.save({"a": torch.zeros(3)}, {"format": "pt"}),
    }
    for said, raw in kinds.items():
        path.write_bytes(raw)
        for call in (lambda: zoo.load(path), lambda: zoo.read_card(path)):
            assert said in complaint(call)
    assert "folder" in complaint(lambda: zoo.load(tmp_path))
    complaint(lambda: zoo.load(tmp_path / "none.safetensors"), FileNotFoundError)
    complaint(lambda: zoo.load("none.safetensors"), FileNotFoundError)


# Names


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """Two models that ship, one of them the default for speech."""
    files = {
        name: zoo.save(tiny(hidden=h), tmp_path / f"{name}.safetensors", {"data": "noise"})
        for name, h in (("tiny-4", 4), ("tiny-8", 8))
    }
    monkeypatch.setattr(engine, "shipped", lambda: files)
    monkeypatch.setattr(engine, "defaults", lambda: {"speech": "tiny-8", "music": None})


def test_names(shelf):
    assert zoo.load("speech", cls=Tiny).config["hidden"] == 8
    assert zoo.load("tiny-4", cls=Tiny).config["hidden"] == 4
    assert zoo.read_card("speech")["config"]["hidden"] == 8
    assert "music" in complaint(lambda: zoo.load("music"))
    assert "did you mean 'tiny-4'" in complaint(lambda: zoo.load("tiny4"))
    assert "tiny-4, tiny-8" in complaint(lambda: zoo.load("something else"))


def test_available(shelf):
    table = zoo.available()
    assert list(table.index) == ["tiny-4", "tiny-8"]
    assert list(table["default for"]) == ["", "speech"]
    assert table.loc["tiny-8", "sources"] == "s1, s2" and table.loc["tiny-8", "class"] == "Tiny"
    assert table.loc["tiny-8", "MB"] >= 0 and table.loc["tiny-4", "data"] == "noise"


def test_devices(path):
    assert next(zoo.load(path, "cpu", Tiny).parameters()).device.type == "cpu"
    for device in ("cuda:99", "abacus"):
        assert device in complaint(lambda d=device: zoo.load(path, d, Tiny))


@pytest.mark.parametrize("name", [n for n, _ in engine.shipped().items()])
def test_what_ships(name):
    net, card = zoo.load(name), zoo.read_card(name)
    assert all(card[field] is not None for field in zoo.CARD_FIELDS), "a card with gaps"
    with torch.no_grad():
        est = net(0.1 * torch.randn(1, net.channels, net.sample_rate))
    assert est.shape == (1, len(net.sources), net.channels, net.sample_rate)
    assert est.isfinite().all()


def test_defaults_ship():
    assert set(engine.defaults()) == {"speech", "speech3", "music", "denoise"}
    assert set(engine.defaults().values()) <= set(engine.shipped())
    assert zoo.load("music").sources == ("vocals", "drums", "bass", "other")
    assert zoo.load("denoise").sources == ("speech", "noise")
    assert zoo.load("speech3").sources == ("s1", "s2", "s3")


def test_the_music_model_gains():
    """On a song of another band, which no weights know."""
    song = example_song(22050, mono=True)
    assert song.sources == zoo.load("music").sources
    table = evaluate(zoo.load("music"), song, ("si_sdri",), sample_rate=22050)
    assert table.si_sdri.mean() > 0.5


def test_the_model_for_three_voices_gains():
    """Over readers whom no weights know; speakers come out in any order."""
    net = zoo.load("speech3")
    gains = []
    for seed in range(4):
        crowd = example_readers(3, 4.0, seed, 8000)
        table = evaluate(net, crowd, ("si_sdri",), sample_rate=8000)
        gains.append(table.si_sdri.mean())
    assert np.mean(gains) > 2
    parts = separate(net, crowd.mix.repeat(1, 8), 8000, progress=False)  # in segments, tracked
    assert [*parts] == ["s1", "s2", "s3"]
    assert all(wav.shape == (1, 8 * 32000) and wav.isfinite().all() for wav in parts.values())


# Peers


def theirs(seed=1):
    """A peer's state dict for Famous(hidden=6)."""
    return {f"theirs.{k}": t for k, t in tiny(hidden=6, seed=seed).state_dict().items()}


def test_import_weights(tmp_path):
    want, state = tiny(hidden=6, seed=1)(mix), theirs()
    torch.save({"epoch": 3, "state_dict": state, "ema": state}, tmp_path / "a.ckpt")
    torch.save(state, tmp_path / "b.th", _use_new_zipfile_serialization=False)
    safetensors.torch.save_file(
        {k: t.clone() for k, t in state.items()}, tmp_path / "c.safetensors"
    )
    wrapped = {f"module.{k}": t for k, t in state.items()}
    files = (str(tmp_path / "a.ckpt"), tmp_path / "b.th", tmp_path / "c.safetensors")
    for given_as in (state, {"model": state, "lr": 0.1}, {"state": wrapped}, *files):
        net = Famous(hidden=6).eval()
        assert zoo.import_weights(net, given_as, source="peer") is net
        assert torch.equal(net(mix), want)


def test_import_all_or_nothing():
    net = tiny(Famous, hidden=6)
    before, state = net(mix), theirs()
    cases = {
        "reads weights of peer": (state, "other"),
        "lacks b.bias": ({k: t for k, t in state.items() if not k.endswith("b.bias")}, "peer"),
        "unknown new": (state | {"new": torch.zeros(2)}, "peer"),
        "differs in a.weight": (state | {"theirs.a.weight": torch.zeros(2)}, "peer"),
        "NaN": (state | {"theirs.b.bias": torch.full((2,), torch.nan)}, "peer"),
        "0 state dicts": ({}, "peer"),
        "2 state dicts": ({"x": state, "y": state}, "peer"),
    }
    for said, (weights, source) in cases.items():
        assert said in complaint(lambda w=weights, s=source: zoo.import_weights(net, w, s))
    assert "no other toolkit" in complaint(lambda: zoo.import_weights(tiny(), state, "peer"))
    assert torch.equal(net(mix), before)


def test_a_mapping_that_fails(monkeypatch):
    monkeypatch.setattr(Famous, "peers", {"peer": lambda net, state: {"a": state["absent"]}})
    assert "absent" in complaint(lambda: zoo.import_weights(Famous(), theirs(), "peer"))


class Trap:
    """Would leave a file behind if it were unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_no_pickle_is_ever_run(tmp_path):
    sprung, path = tmp_path / "sprung", tmp_path / "w.pt"
    for zipped in (True, False):
        torch.save(
            {"a": torch.zeros(2), "b": Trap(sprung)}, path, _use_new_zipfile_serialization=zipped
        )
        assert "mkdir" in complaint(lambda: zoo.read_weights(path))
        complaint(lambda: zoo.load(path))
    path.write_bytes(pickle.dumps(Trap(sprung)))
    complaint(lambda: zoo.read_weights(path))
    complaint(lambda: zoo.load(path))
    assert not sprung.exists()


@pytest.mark.parametrize("module", [b"numpy._core", b"numpy.core"])
def test_numbers_of_numpy_are_harmless(tmp_path, module):
    path, state = tmp_path / "w.pt", theirs()
    numbers = {"loss": np.float64(1.5), "step": np.int64(3), "rate": np.float32(0.1)}
    torch.save({"state_dict": state, **numbers}, path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes().replace(b"numpy._core", module))
    found = zoo.read_weights(path)
    assert set(state) <= {key.removeprefix("state_dict.") for key in found}


@pytest.mark.parametrize("zipped", [True, False])
def test_damaged_peer_files(tmp_path, zipped):
    path, draw = tmp_path / "w.pt", random.Random(0)
    torch.save(theirs(), path, _use_new_zipfile_serialization=zipped)
    raw = path.read_bytes()
    for size in range(0, len(raw) - 1, 97):
        path.write_bytes(raw[:size])
        complaint(lambda: zoo.read_weights(path))
    for _ in range(150):
        hit = bytearray(raw)
        hit[draw.randrange(len(raw))] ^= 1 << draw.randrange(8)
        path.write_bytes(hit)
        try:  # these formats have no checksum that torch looks at: it may read, or must say so
            zoo.read_weights(path)
        except ValueError as error:
            assert "\n" not in str(error)
    complaint(lambda: zoo.read_weights(tmp_path / "no.pt"), FileNotFoundError)


# Published checkpoints


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A function that puts files into a cache of the Hub's layout; the network is off."""
    import huggingface_hub
    from huggingface_hub import constants, errors

    def off(*args, **kwargs):
        raise errors.OfflineModeIsEnabled("no network in tests")

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", off)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", off)

    def put(repo, name, write, revision="main"):
        home = tmp_path / "hub" / f"models--{repo.replace('/', '--')}"
        commit = f"{sum(revision.encode()):040x}"
        (home / "refs").mkdir(parents=True, exist_ok=True)
        (home / "refs" / revision).write_text(commit)
        (home / "snapshots" / commit).mkdir(parents=True, exist_ok=True)
        write(home / "snapshots" / commit / name)

    return put


def test_a_published_checkpoint(hub):
    hub("org/whole", "pytorch_model.bin", lambda p: torch.save(theirs(), p))
    net = zoo.load("hf:org/whole")
    assert type(net) is Famous and not net.training
    assert torch.equal(net(mix), tiny(hidden=6, seed=1)(mix))
    assert net.card["published"] == "hf:org/whole" and net.card["licence"] == "MIT"


def test_safetensors_come_first(hub):
    state = {k: t.clone() for k, t in theirs(seed=2).items()}
    hub("org/whole", "pytorch_model.bin", lambda p: torch.save(theirs(), p))
    hub("org/whole", "model.safetensors", lambda p: safetensors.torch.save_file(state, p))
    assert torch.equal(zoo.load("hf:org/whole")(mix), tiny(hidden=6, seed=2)(mix))


def test_named_files_parts_and_revisions(hub):
    parts = theirs()
    inner = {k.removeprefix("theirs.a."): t for k, t in parts.items() if ".a." in k}
    rest = {k.removeprefix("theirs."): t for k, t in parts.items() if ".a." not in k}
    hub("org/parts", "a.ckpt", lambda p: torch.save(inner, p))
    hub("org/parts", "rest.ckpt", lambda p: torch.save(rest, p))
    hub("org/named", "special.th", lambda p: torch.save(theirs(), p))
    hub("org/whole", "odd.pth", lambda p: torch.save(theirs(seed=4), p), "v2")
    want = tiny(hidden=6, seed=1)(mix)
    assert torch.equal(zoo.load("hf:org/parts")(mix), want)
    assert torch.equal(zoo.load("hf:org/named")(mix), want)
    odd = zoo.load("hf:org/whole@v2:odd.pth")
    assert torch.equal(odd(mix), tiny(hidden=6, seed=4)(mix))


def test_our_own_files_on_the_hub(hub, path):
    hub("me/mine", "model.safetensors", lambda p: p.write_bytes(path.read_bytes()))
    assert torch.equal(zoo.load("hf:me/mine", cls=Tiny)(mix), tiny()(mix))
    assert "cls=Tiny" in complaint(lambda: zoo.load("hf:me/mine"))


def test_addresses_that_fail(hub):
    for spec in ("hf:org", "hf:", "hf:a/b/c", "hf:org/name@", "hf:org/na me"):
        assert "hf:org/name" in complaint(lambda s=spec: zoo.load(s))
    assert "no network" in complaint(lambda: zoo.load("hf:org/whole"))
    hub("org/stranger", "pytorch_model.bin", lambda p: torch.save(theirs(), p))
    assert "no class knows hf:org/stranger" in complaint(lambda: zoo.load("hf:org/stranger"))
    hub("org/whole", "model.pth", lambda p: p.write_bytes(b"junk"))
    assert "damaged" in complaint(lambda: zoo.load("hf:org/whole"))
    assert "torchaudio:NOTHING" in complaint(lambda: zoo.load("torchaudio:NOTHING"))


def test_online(tmp_path, monkeypatch):
    """The network is there: absent files are skipped, other troubles have their own words."""
    import huggingface_hub
    from huggingface_hub import constants, errors

    def trouble(kind):
        error = kind.__new__(kind)
        error.args = ("404 Client Error\nRequest ID: 1",)
        return error

    def ask(url, **kwargs):
        if "private" in url:
            raise trouble(errors.GatedRepoError)
        if "broken" in url:
            raise trouble(errors.HfHubHTTPError)
        if not url.endswith("model.ckpt") or "barren" in url:
            raise trouble(errors.RemoteEntryNotFoundError)

    def download(repo, name, revision=None):
        torch.save({"state_dict": theirs()}, tmp_path / name)
        return str(tmp_path / name)

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", ask)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    assert torch.equal(zoo.load("hf:org/whole")(mix), tiny(hidden=6, seed=1)(mix))
    assert "may not see it" in complaint(lambda: zoo.load("hf:org/private"))
    assert "404 Client Error" in complaint(lambda: zoo.load("hf:org/broken"))
    assert "has none of model.safetensors" in complaint(lambda: zoo.load("hf:org/barren"))


def test_the_list_of_published():
    table = zoo.published()
    assert table.loc["hf:org/whole", "class"] == "Famous"
    assert table.loc["hf:org/whole", "peer"] == "peer"
    assert set(table.columns) == {"class", "peer", "licence"}


def test_every_published_entry_can_be_built():
    for name, (cls, entry) in engine.checkpoints().items():
        assert name.startswith(("hf:", "torchaudio:", "openunmix:")), name
        assert set(entry) >= {"peer", "config"} and entry["peer"] in engine.translators(cls), name
        with torch.device("meta"):
            cls(**entry["config"])


# What a card may ask for


@pytest.mark.parametrize(
    "config",
    [
        {"hidden": 10**6},
        {"hidden": 10**15},
        {"widths": [10**7, 5]},
        {"depth": 10**7},
        {"sources": 10**9},
        {"n_src": 10**9},
        {"buffer": 10**7},
        {"outer": 60_000},
        {"sources": [f"s{k}" for k in range(9)], "depth": 2 * 10**4},
    ],
)
def test_a_card_asks_for_no_more_than_its_file_holds(tmp_path, config):
    """Refused in a moment and in one line, before the memory or the time is spent."""
    path = zoo.save(Hungry(), tmp_path / "n.safetensors")
    path.write_bytes(sealed(path.read_bytes(), lambda card: card["config"].update(config)))
    began = time.process_time()
    tracemalloc.start()
    said = complaint(lambda: zoo.load(path, cls=Hungry))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    took = time.process_time() - began
    assert took < 5 and peak < 2e8, (took, peak)
    assert any(word in said for word in ("can't build", "beyond any network", "does not fit"))


class Hungry(Network):
    """A network whose arguments decide how much it takes."""

    def __init__(self, hidden=4, widths=(3, 5), depth=1, sources=2, n_src=2, buffer=4, outer=4):
        super().__init__()
        names = sources if isinstance(sources, tuple) else [f"s{k}" for k in range(sources)]
        self.sources, self.sample_rate, self.channels = tuple(names), 8000, 1
        self.a = nn.Conv1d(1, hidden, widths[0])
        self.layers = nn.ModuleList(nn.Linear(2, 2) for _ in range(depth))
        self.register_buffer("window", torch.hann_window(buffer * buffer), persistent=False)
        line = torch.arange(outer).float()
        self.register_buffer("table", line[:, None] * line, persistent=False)


def test_the_budget_is_of_one_thread_and_ends(path):
    """What others build meanwhile is not counted, and nothing is counted afterwards."""
    with engine.Budget(1, 1), ThreadPoolExecutor(1) as pool:
        pool.submit(lambda: nn.ModuleList(nn.ReLU() for _ in range(3000))).result()
        with pytest.raises(ValueError, match="far more layers"):
            nn.ModuleList(nn.ReLU() for _ in range(3000))
    nn.ModuleList(nn.ReLU() for _ in range(3000))


def test_headers_that_lie(path):
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    first = next(key for key in header if key != "__metadata__")
    lies = [
        {"shape": [10**30]},
        {"shape": [-1, 3]},
        {"shape": [1.5]},
        {"shape": "many"},
        {"dtype": "F99"},
        {"data_offsets": [0, 2**70]},
        {"data_offsets": [8, 4]},
        {"data_offsets": [True, False]},
        {"data_offsets": None},
    ]
    for lie in lies:
        text = json.dumps(header | {first: header[first] | lie}).encode()
        path.write_bytes(len(text).to_bytes(8, "little") + text + raw[8 + length :])
        for call in (lambda: zoo.load(path, cls=Tiny), lambda: zoo.read_card(path)):
            complaint(call)
    for start in (2**63, 2**64 - 1, 10**9):
        path.write_bytes(start.to_bytes(8, "little") + raw[8:])
        assert "cut short" in complaint(lambda: zoo.load(path, cls=Tiny))


@pytest.mark.skipif(os.name == "nt", reason="pipes of POSIX")
def test_a_pipe_is_no_file_of_weights(tmp_path):
    os.mkfifo(tmp_path / "pipe.safetensors")
    for call in (zoo.load, zoo.read_card, zoo.read_weights):
        assert "a pipe" in complaint(lambda c=call: c(tmp_path / "pipe.safetensors"))


# Damaged copies and short names


def test_a_damaged_copy_is_named(hub, tmp_path, path):
    raw = path.read_bytes()
    for damage in (raw[: len(raw) // 2], raw[:-1] + bytes([raw[-1] ^ 64]), b"", b"<html>"):
        hub("me/mine", "model.safetensors", lambda p, damage=damage: p.write_bytes(damage))
        said = complaint(lambda: zoo.load("hf:me/mine", cls=Tiny))
        assert str(tmp_path / "hub") in said and "hf:me/mine" in said and "delete" in said
    hub("org/whole", "model.pth", lambda p: p.write_bytes(b"junk"))
    assert str(tmp_path / "hub") in complaint(lambda: zoo.load("hf:org/whole"))


def test_a_damaged_copy_is_fetched_again(hub, tmp_path, monkeypatch, path):
    import huggingface_hub

    def fetch(repo, name, revision=None, force_download=False):
        assert force_download
        return str(path)

    hub("me/mine", "model.safetensors", lambda p: p.write_bytes(path.read_bytes()[:-9]))
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", lambda url, **how: None)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fetch)
    assert torch.equal(zoo.load("hf:me/mine", cls=Tiny)(mix), tiny()(mix))


def test_what_does_not_fit_is_not_fetched_again(hub, monkeypatch):
    import huggingface_hub

    def fetch(*args, **how):
        raise AssertionError("fetched again")

    state = {k: t for k, t in theirs().items() if "norm" not in k}
    hub("org/whole", "model.pth", lambda p: torch.save(state, p))
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fetch)
    assert "does not fit" in complaint(lambda: zoo.load("hf:org/whole"))


def test_short_names(hub):
    for name in ("htdemucs", "HTDemucs", "htdemucs_6s", "sepformer-wsj02mix"):
        said = complaint(lambda n=name: zoo.load(n))
        assert "no network" in said and "huggingface.co" in said
    assert "'htdemucs'" in complaint(lambda: zoo.load("htdemuc"))
    assert "sepformer-wham" in complaint(lambda: zoo.load("sepformer"))
    card = zoo.read_card("htdemucs_6s")
    assert card["published"] == "hf:adefossez/HTDemucs-6s" and len(card["sources"]) == 6


def test_a_model_that_ships_comes_before_a_published_one(monkeypatch, path):
    monkeypatch.setattr(engine, "shipped", lambda: {"htdemucs": path})
    assert torch.equal(zoo.load("htdemucs", cls=Tiny)(mix), tiny()(mix))


def test_what_the_list_says_of_published_checkpoints():
    rows = engine.fetchable()
    assert {row["address"] for row in rows} == {
        place for some in engine.PUBLISHED.values() for place in some
    }
    for row in rows:
        cls, entry = engine.checkpoint(row["address"])
        with torch.device("meta"):
            net = cls(**entry["config"])
        assert list(net.sources) == row["sources"] and net.sample_rate == row["sample_rate"]
        assert sum(p.numel() for p in net.parameters()) == row["parameters"]
        assert net.channels == row["channels"] and row["licence"]
    kinds = {row["model"]: row["kind"] for row in rows}
    assert kinds["htdemucs"] == "music" and kinds["sepformer-wsj02mix"] == "speech"
    assert kinds["sepformer-wham-enhancement"] == "enhancement"
    assert engine.kind_of(["noise", "speech"]) == "enhancement"
    assert engine.kind_of(["vocals", "noise"]) == "music"


def test_open_unmix_from_its_own_files(tmp_path, monkeypatch):
    """Four files, one for each source, in PyTorch's cache; a damaged one is fetched again."""
    from sepbook.models.mask_networks import OpenUnmix

    small = {"hidden": 8, "n_fft": 256, "hop": 64}
    _, entry = engine.checkpoint("openunmix:umxhq")
    monkeypatch.setitem(engine.PUBLISHED["OpenUnmix"], "openunmix:umxhq", entry | {"config": small})
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    torch.manual_seed(0)
    net, place = OpenUnmix(**small).eval(), tmp_path / "checkpoints"

    def fetch(url, path, start=None, progress=True):
        source = url.rpartition("/")[2].partition("-")[0]
        assert start == url.rpartition("-")[2].removesuffix(".pth")
        k = net.sources.index(source)
        state = {n.removeprefix(f"targets.{k}."): t for n, t in net.state_dict().items()}
        torch.save({n: t for n, t in state.items() if not n.startswith("targets")}, path)

    def off(*args, **how):
        raise OSError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", off)
    assert "zenodo.org" in complaint(lambda: zoo.load("umxhq"))
    monkeypatch.setattr(torch.hub, "download_url_to_file", fetch)
    wave = 0.1 * torch.randn(1, 2, 4000)
    with torch.no_grad():
        assert torch.equal(zoo.load("umxhq")(wave), net(wave))
        (place / "drums-9619578f.pth").write_bytes(b"junk")
        assert torch.equal(zoo.load("umxhq")(wave), net(wave))
    (place / "drums-9619578f.pth").write_bytes(b"junk")
    monkeypatch.setattr(torch.hub, "download_url_to_file", off)
    said = complaint(lambda: zoo.load("umxhq"))
    assert str(place / "drums-9619578f.pth") in said and "delete" in said


def test_without_huggingface_hub(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert "pip install 'sepbook[hub]'" in complaint(lambda: zoo.load("htdemucs"))


@pytest.mark.parametrize(
    "change",
    [
        {"class": "sepbook.\npit.UPIT"},
        {"class": "x" * 500 + ".A"},
        {"config": {"hid\nden": "4\n5"}},
        {"config": {"hidden": 10**9, "a\nb": 1}},
    ],
)
def test_messages_show_what_a_card_says_in_one_line(tmp_path, change):
    from sepbook.pit import UPIT

    raw = zoo.save(UPIT(hidden=4, layers=1), tmp_path / "a.safetensors").read_bytes()
    size = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + size])
    card = {"sha256": "0" * 64} | json.loads(header["__metadata__"]["sepbook"]) | change
    card["sha256"] = "0" * 64
    header["__metadata__"] = {"sepbook": json.dumps(card, separators=(",", ":"))}
    text = json.dumps(header, separators=(",", ":")).encode()
    made = len(text).to_bytes(8, "little") + text + raw[8 + size :]
    made = engine.reseal(made, "0" * 64, engine.digest(made, "0" * 64))
    (tmp_path / "b.safetensors").write_bytes(made)
    with pytest.raises(ValueError) as error:
        zoo.load(tmp_path / "b.safetensors")
    told = str(error.value)
    assert "\n" not in told and "damaged" not in told and len(told) < 400
