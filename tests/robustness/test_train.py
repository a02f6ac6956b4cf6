"""`sepbook train` as a file: it repeats, it refuses what it doesn't know, it knows its folder."""

import json
import os
import shlex
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import tomli_w
import torch
from click.testing import CliRunner

from sepbook import cli, zoo
from sepbook.engine import experiments
from sepbook.learner import Learner
from sepbook.mixtures import Corpus, MixtureDataset
from sepbook.pit import UPIT

SHORT = (
    "--data example --seconds 0.5 --size 16 --valid-size 2 --valid-seconds 0.5 --batch-size 4 "
    "--quiet --device cpu "
)
SMALL = "train --model upit --set hidden=4 --set layers=1 " + SHORT
OWN = '''
import torch
from sepbook.learner import Network

class Gain(Network):
    """A factor for each source."""

    def __init__(self, sources=("s1", "s2"), sample_rate=8000, channels=1, start=0.5):
        super().__init__()
        self.sources, self.sample_rate, self.channels = tuple(sources), sample_rate, channels
        self.gain = torch.nn.Parameter(torch.full((len(self.sources), 1, 1), start))

    def forward(self, mix):
        return mix[:, None] * self.gain

def nothing(model, mix, src):
    return model(mix).square().mean()

class Count:
    def after_step(self, learner):
        open("steps.txt", "a").write("x")
'''


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """An empty working folder with a module of the user's."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    sys.modules.pop("own", None)
    Path("own.py").write_text(OWN)
    return tmp_path


def sepbook(line: str):
    """Run a command in this process."""
    return CliRunner().invoke(cli.app, shlex.split(line), prog_name="sepbook")


def works(line: str):
    result = sepbook(line)
    assert result.exit_code == 0, result.output
    return result


def refused(result, *words: str) -> None:
    """One clear line, exit code 2."""
    lines = result.stderr.splitlines()
    assert result.exit_code == 2 and len(lines) == 1 and len(lines[0]) < 400, result.output
    for word in words:
        assert word in lines[0], lines[0]


def weights(path: str, cls: type | None = None) -> torch.Tensor:
    network = zoo.load(path, cls=cls)
    return torch.cat([p.detach().flatten() for p in network.parameters()])


def noise(path: str, seconds: float = 2.0) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(sum(path.encode()))
    sf.write(path, 0.1 * rng.standard_normal(round(8000 * seconds)), 8000)


# ---- the file


def test_a_training_writes_the_file_that_repeats_it():
    more = (
        "--lr 0.003 --valid-speakers ada,ben --schedule cosine --weight-decay 0.01 --accumulate 2"
    )
    works(f"{SMALL} {more} --loss pit_si_sdr --steps 3 --folder run --out a.safetensors")
    told = tomllib.loads(Path("a.experiment.toml").read_text())
    assert told == tomllib.loads(Path("run/experiment.toml").read_text())
    assert told["training"]["lr"] == 0.003 and told["data"]["valid_speakers"] == ["ada", "ben"]
    assert told["network"]["arguments"]["hidden"] == 4 and "folder" not in told["output"]
    works("train --config a.experiment.toml --out ./b.safetensors --quiet --device cpu")
    assert torch.equal(weights("./a.safetensors"), weights("./b.safetensors"))
    again = tomllib.loads(Path("b.experiment.toml").read_text())
    again["output"]["out"] = told["output"]["out"]
    assert again == told
    works("train --config a.experiment.toml --lr 0.1 --out ./c.safetensors --quiet --device cpu")
    assert not torch.equal(weights("./a.safetensors"), weights("./c.safetensors"))
    card = zoo.read_card("./a.safetensors")
    assert card["experiment"]["training"]["lr"] == 0.003 and "--lr 0.003" in card["command"]
    assert card["accumulate"] == 2 and str(Path.cwd()) not in json.dumps(card)


@pytest.mark.skipif(os.name == "nt", reason="limits of POSIX")
def test_what_can_not_be_written_leaves_nothing():
    import resource

    room = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = {path.name for path in Path().iterdir()}
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, room[1]))  # the network takes 20 kB and more
    try:
        result = sepbook(f"{SMALL} --steps 1 --out a.safetensors")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, room)
    refused(result, "a.safetensors: File too large", "make room")
    assert {path.name for path in Path().iterdir()} == before


def test_the_file_serves_from_another_folder(tmp_path, monkeypatch):
    for name in ("ada/1.wav", "ben/1.wav", "cal/1.wav", "dee/1.wav"):
        noise(f"people/{name}")
    works(f"{SMALL.replace('example', 'people')} --steps 1 --out a.safetensors")
    Path("elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    works("train --config ../a.experiment.toml --out ./b.safetensors --quiet --device cpu")
    assert torch.equal(weights("../a.safetensors"), weights("./b.safetensors"))


@pytest.mark.parametrize(
    "text, words",
    [
        ("[training]\nlearning_rate = 0.1", ("[training]", "learning_rate", "did you mean lr?")),
        ("[training]\nbatchsize = 4", ("did you mean batch_size?",)),
        ("[trainings]\nlr = 0.1", ("[trainings]", "did you mean training?")),
        ("lr = 0.1", ("lr belongs in [training]",)),
        ("[mixing]\nlr = 0.1", ("it belongs in [training]",)),
        ("[budget]\nsteps = 2.5", ("steps", "2.5", "int")),
        ("[budget]\nsteps = true", ("steps", "True")),
        ("[training]\nlr = 'fast'", ("lr", "fast", "float")),
        ("[output]\ntensorboard = 'yes'", ("tensorboard", "bool")),
        ("[training]\ncallbacks = 'a:B'", ("callbacks", "list")),
        ("[training\n", ("is no TOML",)),
        ("[network.arguments]\nwidth = 9", ("width = 9", "UPIT has", "hidden")),
        ("[network.arguments]\nhidden = 'x'", ("hidden", "a number")),
    ],
)
def test_what_a_file_must_not_say(text, words):
    Path("bad.toml").write_text(text)
    refused(sepbook(f"{SMALL} --config bad.toml --steps 1 --out a.safetensors"), *words)
    assert not Path("a.safetensors").exists()


def test_files_that_are_none():
    refused(sepbook(f"{SMALL} --config none.toml --out a.safetensors"), "none.toml is no file")
    Path("bad.toml").write_bytes(b"\xff\xfe\0")
    refused(sepbook(f"{SMALL} --config bad.toml --out a.safetensors"), "is no TOML")


def test_every_option_survives_the_file(tmp_path):
    """Whatever the groups hold is read back as the same options."""
    values = {
        "str": "a word",
        "int": 3,
        "float": 0.25,
        "bool": True,
        "Path": Path("x.safetensors"),
        "list": ("own:Count",),
    }
    groups = {}
    for section, group in experiments.SECTIONS.items():
        hints = experiments.keys_of(section)
        kinds = {k: next(n for n in values if n in str(v)) for k, v in hints.items()}
        made = {k: values["list" if "list" in str(hints[k]) else kind] for k, kind in kinds.items()}
        made = {("settings" if k == "arguments" else k): v for k, v in made.items()}
        made |= (
            {"settings": ("hidden=5",), "model": "upit", "init": None}
            if section == "network"
            else {}
        )
        groups[section] = group(**made)
    told = experiments.experiment(groups, UPIT(hidden=5))
    path = tmp_path / "all.toml"
    experiments.write_experiment(told, path)
    options, arguments = experiments.read_config(path)
    assert (
        arguments["hidden"] == 5 and options["lr"] == 0.25 and options["callbacks"] == ["own:Count"]
    )
    known = {k for s in experiments.SECTIONS for k in experiments.keys_of(s)}
    assert known - set(options) == {"arguments", "folder", "tensorboard", "init"}


# ---- the folder


def test_words_and_nested_tuples_as_arguments():
    """`none` is a word where an argument takes words only, and brackets hold brackets."""
    line = 'train --model DCUNet --set "layers=[[4,7,5,2,2],[6,5,3,2,1]]" --set bound=none '
    line += "--set n_fft=64 --set hop=16 --set sources=speech --noise example --snr -5,10 "
    works(f"{line} {SHORT} --steps 1 --out a.safetensors")
    network = zoo.load("./a.safetensors")
    assert network.config["bound"] == "none" and len(network.down) == 2
    works("train --config a.experiment.toml --quiet --device cpu --out b.safetensors")
    assert zoo.load("./b.safetensors").config == network.config


def test_a_folder_goes_on_with_its_own_experiment_only():
    line = f"{SMALL} --folder run --out a.safetensors"
    works(f"{line} --steps 2")
    for more, word in {
        "--lr 0.01": "lr = 0.001, now 0.01",
        "--loss pit_l1": "loss = network, now pit_l1",
        "--schedule cosine": "schedule",
        "--weight-decay 0.1": "weight_decay",
        "--clip 1": "clip",
        "--set dropout=0.3": "dropout",
        "--seconds 0.6": "seconds",
        "--valid-speakers ada,ben": "valid_speakers",
    }.items():
        refused(sepbook(f"{line} --steps 4 {more}"), "'run'", word, "another folder")
    works(f"{line} --steps 4 --workers 1 --checkpoint-minutes 1")
    assert zoo.read_card("./a.safetensors")["steps"] == 4


def people(second: float = 2.0) -> None:
    for name in ("ada/1.wav", "ada/2.wav", "ben/1.wav", "cal/1.wav", "dee/1.wav", "eve/1.wav"):
        noise(f"people/{name}", second if name == "ada/2.wav" else 2.0)


@pytest.mark.parametrize("change", ["length", "name", "more", "size"])
def test_a_folder_goes_on_with_its_own_data_only(change):
    people()
    line = f"{SMALL.replace('example', 'people')} --valid-speakers dee,eve "
    line += "--folder run --out a.safetensors"
    works(f"{line} --steps 2")
    path = Path("people/ada/2.wav")
    if change == "length":
        people(1.9)
    elif change == "name":
        path.rename("people/ada/3.wav")
    elif change == "more":
        noise("people/ben/2.wav")
    else:
        sf.write(path, sf.read(path)[0], 8000, "FLOAT")
    refused(sepbook(f"{line} --steps 4"), "'run' was made with other", "data", "another folder")


def test_the_learner_refuses_other_files_that_sound_alike(tmp_path):
    """Three items are sketched; a checkpoint knows the rest by names, lengths and sizes."""
    people()
    how = dict(n_src=2, seconds=0.5, size=8)
    learner = Learner(
        UPIT(hidden=4, layers=1), MixtureDataset(Corpus("people"), **how), folder="run"
    )
    learner.fit(steps=1, progress=False)
    Path("people/ben/1.wav").rename("people/ben/9.wav")
    with pytest.raises(ValueError, match=r"other train data .*another name, length or size"):
        Learner(UPIT(hidden=4, layers=1), MixtureDataset(Corpus("people"), **how), folder="run")


def test_checkpoints_of_before_are_read(monkeypatch):
    people()
    from sepbook.engine import training

    old = training.Checkpoint.describe
    bare = lambda self, learner: {k: v for k, v in old(self, learner).items() if k != "files"}
    monkeypatch.setattr(training.Checkpoint, "describe", bare)
    data = MixtureDataset(Corpus("people"), seconds=0.5, size=8)
    Learner(UPIT(hidden=4, layers=1), data, folder="run").fit(steps=1, progress=False)
    monkeypatch.setattr(training.Checkpoint, "describe", old)
    assert Learner(UPIT(hidden=4, layers=1), data, folder="run").where.step == 1


# ---- what is the user's own


def test_a_network_a_loss_and_a_callback_of_ones_own():
    line = f"train {SHORT} --steps 3 --model own:Gain --set start=0.25 --loss own:nothing"
    works(f"{line} --callback own:Count --lr 0.01 --out a.safetensors")
    import own

    assert Path("steps.txt").read_text() == "xxx"
    assert (weights("./a.safetensors", own.Gain) < 0.25).all()  # its loss wants silence
    card = zoo.read_card("./a.safetensors")
    assert card["class"] == "own.Gain" and card["scores"]["items"] == 2
    works(f"{line.replace('own:Gain', 'own.py:Gain')} --out ./b.safetensors")


@pytest.mark.parametrize(
    "more, words",
    [
        ("--model own:Gian", ("no Gian", "did you mean Gain?")),
        ("--model nobody:Gain", ("nobody can't be imported",)),
        ("--model own:nothing", ("derived from sepbook's Network",)),
        ("--model broken:Net", ("broken can't be imported", "ZeroDivisionError")),
        ("--model own:Gain --loss si_sdrr", ("--loss is si_sdrr", "did you mean si_sdr?")),
        ("--model own:Gain --callback own:nowhere", ("--callback", "no nowhere")),
        ("--model own:Gain --optimizer adamm", ("--optimizer", "did you mean adam?")),
        ("--model own:Gain --weight-decay -1", ("--weight-decay", "at least 0")),
        ("--model own:Gain --tensorboard", ("--tensorboard", "--folder")),
    ],
)
def test_what_is_not_there(more, words):
    Path("broken.py").write_text("1 / 0")
    refused(sepbook(f"train {SHORT} --steps 1 {more} --out a.safetensors"), *words)


def test_a_training_needs_an_end():
    refused(sepbook(f"{SMALL} --out a.safetensors"), "--minutes, --epochs or --steps")


@pytest.mark.parametrize("name", experiments.LOSSES[1:])
def test_losses_by_name(name):
    loss = experiments.find_loss(name)
    gen = torch.Generator().manual_seed(0)
    src = torch.randn(3, 2, 1, 800, generator=gen)
    est = lambda mix: src + 0.1
    swapped = lambda mix: src.flip(1) + 0.1
    near, far = loss(est, src.sum(1), src), loss(swapped, src.sum(1), src)
    assert near.ndim == 0 and (far - near < 1e-5) == name.startswith("pit_")
    want = {"l1": 0.1, "mse": 0.01}.get(name.removeprefix("pit_"))
    assert want is None or abs(float(near) - want) < 1e-5


def test_weight_decay_reaches_the_optimizer():
    how = experiments.Training(optimizer="adamw", weight_decay=0.5)
    optimizer = experiments.find_optimizer(how)([torch.nn.Parameter(torch.ones(1))], lr=0.1)
    assert isinstance(optimizer, torch.optim.AdamW) and optimizer.defaults["weight_decay"] == 0.5


# ---- data


def test_train_on_plain_folders_of_songs():
    for song in "abcd":
        for stem in ("vocals.wav", "drums.flac", "._drums.flac"):
            noise(f"album/{song}/{stem}") if stem[0] != "." else Path(
                f"album/{song}/{stem}"
            ).write_bytes(b"\0")
    line = "train --model recurrent-mask --set hidden=4 --set sample_rate=8000 --set channels=1 "
    line += "--set n_fft=256 --set hop=64 " + SHORT.replace("example", "album")
    works(f"{line} --steps 1 --memory 0 --out a.safetensors")
    card = zoo.read_card("./a.safetensors")
    assert card["sources"] == ["vocals", "drums"] and card["sounds"] == 6
    works("evaluate --model ./a.safetensors --data album --as-card --quiet")


def test_enhancement():
    people()
    for k in range(11):
        noise(f"noise/{k:02}.wav", 1.0)
    line = "train --model recurrent-mask --set hidden=4 --set sample_rate=8000 --set channels=1 "
    line += "--set n_fft=256 --set hop=64 " + SHORT.replace("example", "people")
    works(f"{line} --steps 1 --noise noise --snr 0,10 --out a.safetensors")
    card = zoo.read_card("./a.safetensors")
    assert card["sources"] == ["speech", "noise"] and card["evaluation"]["snr"] == "0,10"
    assert len(card["evaluation"]["names"]) == 1
    refused(sepbook(f"{line} --steps 1 --noise noise --snr 10 --out a.safetensors"), "--snr is 10")
    measure = "evaluate --model ./a.safetensors --data people --quiet --device cpu "
    assert "dB now" in works(measure + "--noise noise --as-card").stdout
    refused(sepbook(measure + "--as-card"), "with noise", "give --noise")
    refused(sepbook(measure + "--size 2"), "separates speech, noise", "give --noise")
    corpus = Corpus("noise")
    train, valid = (experiments.tenth(corpus, kept) for kept in (False, True))
    names = [{row["file"] for row in part.rows} for part in (train, valid)]
    assert len(names[0]) == 9 and len(names[1]) == 2 and not names[0] & names[1]


def test_evaluate_in_noise():
    """The more noise there is, the lower the score; without noise, it stays out."""
    people()
    for k in range(11):
        noise(f"noise/{k:02}.wav", 1.0)
    works(f"{SMALL} --steps 1 --out a.safetensors")
    line = "evaluate --model ./a.safetensors --data people --size 4 --seconds 1 --metrics si_sdr "
    line += "--quiet --device cpu "
    means = []
    for k, more in enumerate(("", "--noise noise --snr 20,20", "--noise noise --snr=-10,-10")):
        works(f"{line} {more} --out t{k}.json")
        means.append(json.loads(Path(f"t{k}.json").read_text())[-1]["mean"])
    assert means[0] > means[1] > means[2] + 3
    usual = works(f"{line} --noise noise").stdout
    assert usual == works(f"{line} --noise noise --snr=-6,3").stdout
    refused(sepbook(f"{line} --snr 0,5"), "--snr is 0,5", "give --noise")
    refused(sepbook(f"{line} --noise noise --snr 5"), "--snr is 5")
    refused(sepbook(f"{line} --noise nowhere"), "nowhere")
    refused(sepbook(f"{line} --noise noise --as-card"), "without noise", "leave out --noise")
    for name in ("mix", "s1", "s2"):
        noise(f"made/{name}/a.wav")
    refused(sepbook(line.replace("people", "made") + "--noise noise"), "finished", "leave out")


@pytest.mark.parametrize("line", ["separate song.wav", "evaluate"])
@pytest.mark.parametrize("name", ["own:Gain", "own.py:Gain"])
def test_a_class_without_weights_is_no_model(line, name):
    noise("song.wav")
    refused(sepbook(f"{line} --model {name}"), f"--model is {name}", "saved file", "cls=Gain")
    assert not Path("stems").exists()


def test_pairs_without_hidden_files():
    for name in ("mix", "s1", "s2"):
        noise(f"pairs/{name}/a.wav")
    Path("pairs/mix/.DS_Store").write_bytes(b"\0")
    Path("pairs/mix/._a.wav").write_bytes(b"\0")
    Path("pairs/.ipynb_checkpoints").mkdir()
    zoo.save(UPIT(hidden=4, layers=1), "net.safetensors", {})
    works("evaluate --model ./net.safetensors --data pairs --quiet")
    refused(
        sepbook(f"{SMALL.replace('example', 'pairs')} --steps 1 --out a.safetensors"), "one mixture"
    )


def test_toml_that_was_written_can_be_read():
    text = 'quotes " and \\ backslashes, ünïcode 歌'
    assert tomllib.loads(tomli_w.dumps({"card": {"licence": text}}))["card"]["licence"] == text


# ---- limits


@pytest.mark.parametrize(
    "line, words",
    [
        ("--lr nan", "--lr is nan, but must be above 0 and at most 1,000"),
        ("--lr inf", "--lr is inf"),
        ("--clip nan", "--clip is nan"),
        ("--clip inf", "--clip is inf"),
        ("--ema nan", "--ema is nan, but must be at least 0 and below 1"),
        ("--weight-decay inf", "--weight-decay is inf"),
        ("--memory nan", "--memory is nan"),
        ("--accumulate 1000000000", "--accumulate is 1000000000"),
        ("--set hidden=1000000000", "--set hidden=1000000000 is beyond any network"),
        ("--set hidden=60000", "asks for more than 10000 layers"),
        ("--set layers=9999999", "too many to train here"),
        ("--set hidden=nan", "--set hidden=nan"),
        ("--set hidden=-1", "hidden_size must be greater than zero"),
        ("--set sample_rate=0", "sample_rate is 0, but must be at least 1"),
        ("--set n_src=5000", "--set n_src=5000"),
        ("--noise x --snr nan,nan", "--snr is nan,nan; write LOW,HIGH"),
        ("--speed 99", "--speed is 99.0, but must be at least 0 and at most 0.25"),
        ("--batch-size -3", "--batch-size is -3, but must be at least 1"),
        ("--minutes 0", "--minutes is 0.0, but must be above 0"),
        ("--minutes inf", "--minutes is inf"),
        ("--checkpoint-minutes nan", "--checkpoint-minutes is nan"),
        ("--seconds inf", "--seconds is inf"),
        ("--levels nan", "--levels is nan"),
        ("--seed -1", "--seed is -1"),
        ("--workers 9999", "--workers is 9999"),
        ("--dtype float8", "--dtype is float8; did you mean"),
        ("--schedule cos", "--schedule is cos; did you mean cosine?"),
        ("--precision fp8", "--precision is fp8"),
    ],
)
def test_numbers_that_nobody_means(line, words, monkeypatch):
    """Each is one line in the option's name, before any sound is read."""
    monkeypatch.setattr(experiments, "data_sets", lambda *args: pytest.fail("the work began"))
    refused(sepbook(f"{SMALL} --steps 1 {line} --out a.safetensors"), words)
    assert not Path("a.safetensors").exists()


def test_a_step_that_is_longer_than_an_epoch():
    """Refused once the sounds are known: a fault of the corpus is told first."""
    words = "--batch-size 4 times --accumulate 9 is more than --size 16"
    refused(sepbook(f"{SMALL} --steps 1 --accumulate 9 --out a.safetensors"), words)
    assert not Path("a.safetensors").exists()


def test_limits_hold_for_a_file_and_for_evaluate():
    Path("bad.toml").write_text("[training]\nlr = inf\n")
    refused(sepbook(f"{SMALL} --config bad.toml --steps 1 --out a.safetensors"), "--lr is inf")
    zoo.save(UPIT(hidden=4, layers=1), "a.safetensors")
    line = "evaluate --model a.safetensors "
    refused(sepbook(line + "--size 0"), "--size is 0")
    refused(sepbook(line + "--seconds nan"), "--seconds is nan")
    refused(sepbook(line + "--snr nan,3 --noise x"), "--snr is nan,3")


@pytest.mark.parametrize(
    "options",
    [
        {"lr": float("inf")},
        {"clip": float("inf")},
        {"ema": float("nan")},
        {"batch_size": 2.5},
        {"accumulate": float("inf")},
        {"seed": -1},
        {"checkpoint_minutes": float("nan")},
    ],
)
def test_the_learner_refuses_them_too(options):
    data = MixtureDataset(experiments.open_corpus("example", UPIT()), 2, seconds=0.5, size=4)
    (name,) = options
    with pytest.raises(ValueError, match=name):
        Learner(UPIT(hidden=4, layers=1), data, **options)


# ---- finished mixtures


def write_mixtures(folder: str, count: int = 4, hiss: float = 0.0) -> None:
    rng = np.random.default_rng(0)
    for k in range(count):
        src = 0.1 * rng.standard_normal((2, 6000 + 500 * k))
        rest = hiss * rng.standard_normal(src.shape[1])
        for place, wav in {"mix": src.sum(0) + rest, "s1": src[0], "s2": src[1]}.items():
            Path(folder, place).mkdir(parents=True, exist_ok=True)
            sf.write(f"{folder}/{place}/m{k}.wav", wav, 8000, "FLOAT")


def test_training_on_finished_mixtures():
    write_mixtures("pairs", hiss=0.01)
    line = SMALL.replace("--data example", "--data pairs")
    works(f"{line} --steps 2 --folder run --out a.safetensors")
    card = zoo.read_card("./a.safetensors")
    assert card["evaluation"]["names"] == ["m0"] and card["sounds"] == 3
    assert card["scores"]["items"] == 1 and tuple(card["sources"]) == ("s1", "s2")
    assert "on the card" in works("evaluate --model a.safetensors --data pairs --as-card").stdout
    works(f"{line} --steps 3 --folder run --out a.safetensors")
    works(f"{line} --steps 1 --valid-songs m1,m3 --out b.safetensors")
    assert zoo.read_card("./b.safetensors")["evaluation"]["names"] == ["m1", "m3"]
    for more in ("--noise x", "--remix 0.5", "--speed 0.1", "--levels 3", "--valid-speakers m1"):
        refused(
            sepbook(f"{line} --steps 1 {more} --out c.safetensors"), "finished", more.split()[0]
        )
    refused(sepbook(f"{line} --steps 1 --valid-songs m9 --out c.safetensors"), "m9", "m0, m1")
    sf.write("pairs/s2/m2.wav", np.zeros(100), 8000)
    refused(sepbook(f"{line} --steps 1 --out c.safetensors"), "make the files of m2 again")
    Path("pairs/s2/m2.wav").unlink()
    refused(sepbook(f"{line} --steps 1 --out c.safetensors"), "lacks m2.wav")
    assert not Path("c.safetensors").exists()


def test_finished_mixtures_are_served_as_they_are():
    from sepbook.engine.corpora import FinishedMixtures, Pieces

    write_mixtures("pairs", hiss=0.05)
    whole = FinishedMixtures("pairs")
    mix, src = whole[1]
    wavs = [sf.read(f"pairs/{place}/m1.wav")[0] for place in ("mix", "s1", "s2")]
    np.testing.assert_allclose(mix[0], wavs[0], atol=1e-6)
    np.testing.assert_allclose(src[:, 0], wavs[1:], atol=1e-6)
    assert (mix - src.sum(0)).abs().max() > 0.05  # what is no source is there, too
    pieces = Pieces(whole, 0.5, 8)
    first = pieces[3][0]
    assert torch.equal(first, pieces[3][0])
    pieces.set_epoch(1)
    assert not torch.equal(first, pieces[3][0])
    long = Pieces(whole, 2.0, 2)[0]
    assert long[0].shape == (1, 16000) and not long[0][:, -8000:].any()
    assert whole.subset(["m1"])[0][0].shape == mix.shape
    again = MixtureDataset(Corpus("pairs"), seconds=0.5, size=3)  # or mixed anew
    assert again.sources == ("s1", "s2") and again[0][1].shape == (2, 1, 4000)


def test_librimix_as_it_lies_on_a_disk():
    from sepbook.engine.corpora import FinishedMixtures

    write_mixtures("train")
    Path("train/mix").rename("train/mix_clean")
    for extra in ("mix_both", "mix_single", "noise"):
        noise(f"train/{extra}/m0.wav")
    assert FinishedMixtures("train").sources == ("s1", "s2")
    works(SMALL.replace("--data example", "--data train") + " --steps 1 --out a.safetensors")
