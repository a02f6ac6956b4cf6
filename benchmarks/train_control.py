"""A control for the Conv-TasNet that ships: torchaudio's class of the same size, trained alike.

    python benchmarks/train_control.py SPEECH START   writes results/train_control.json
    python benchmarks/train_control.py --quick        packaged voices, writes nothing

SPEECH is the folder that the card's commands name, START the network that the last `sepbook train`
among them starts from (its `--init`). Both classes compute the same, so torchaudio's gets the same
start; then only the network differs: data, minutes, seed, batches, rates and learner are those of
that command. One thread, as there. `--folder` keeps checkpoints: the same command goes on after an
interruption.
"""

import argparse
import inspect
import os
import platform
from pathlib import Path

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"

import torch  # noqa: E402
from bench import figure, save  # noqa: E402
from bench.control import TorchaudioConvTasNet  # noqa: E402

from sepbook.engine.weights import translate  # noqa: E402
from sepbook.learner import Learner, Network, seed_all  # noqa: E402
from sepbook.metrics import evaluate, summarize  # noqa: E402
from sepbook.mixtures import Corpus, MixtureDataset, Speed, example_corpus, preload  # noqa: E402
from sepbook.zoo import load, read_card  # noqa: E402

OURS = "conv-tasnet-2voices"


def given(theirs: TorchaudioConvTasNet, ours: Network) -> TorchaudioConvTasNet:
    """Torchaudio's class with the weights of ours: ours says where it takes each of theirs from."""
    state, sizes = theirs.net.state_dict(), [t.numel() for t in theirs.net.state_dict().values()]
    places = torch.arange(sum(sizes), dtype=torch.float64).split(sizes)
    numbered = {k: place.view_as(t) for (k, t), place in zip(state.items(), places)}
    found, flat = translate(ours, numbered, "torchaudio"), torch.zeros(sum(sizes))
    for name, value in ours.state_dict().items():
        flat[found[name].long().flatten()] = value.float().flatten()
    weights = (part.view_as(t) for part, t in zip(flat.split(sizes), state.values()))
    theirs.net.load_state_dict(dict(zip(state, weights)))
    return theirs


def by_command(card: dict) -> dict:
    """What the card says of the last stage by `sepbook train`; what followed had other data."""
    told = card
    while not told["command"].startswith("sepbook train"):
        told = told["before"]
    return told | {"evaluation": card["evaluation"]}


def stage(card: dict) -> dict:
    """What the card's last command says, as a dictionary, and the minutes it ran."""
    words = card["command"].replace("'", "").split("--")[1:]
    options = dict(word.strip().split(None, 1) for word in words if " " in word.strip())
    seconds = card["seconds_trained"] - card["before"]["seconds_trained"]
    return {k: v.strip() for k, v in options.items()} | {"minutes": seconds / 60}


def data(folder: str | None, card: dict, options: dict) -> tuple[MixtureDataset, MixtureDataset]:
    """Mixtures to train on, and the fixed ones that the card's score is measured on."""
    held, test = set(card["evaluation"]["names"]), card["evaluation"]
    corpus = Corpus(folder, 8000, 1) if folder else example_corpus()
    if not folder:
        held = {"ada", "hal"}
    parts = (corpus.subset(lambda row, out=out: (row["speaker"] in held) == out) for out in (0, 1))
    known, apart = map(preload, parts)
    how = {"seconds": float(options["seconds"]), "size": int(options["size"])}
    how |= {"seed": int(options["seed"]), "augment": Speed(float(options["speed"]))}
    fixed = {k: test[k] for k in ("seconds", "size", "seed")}
    return MixtureDataset(known, 2, **how), MixtureDataset(apart, 2, **fixed)


def train(card: dict, start: Network, speech: str | None, folder: Path | None, steps: int | None):
    """The control after the last stage, what to test it on, and the steps that it made."""
    options = stage(card)
    seed_all(int(options["seed"]))
    same = inspect.signature(TorchaudioConvTasNet).parameters.keys() - {"rescale"}
    config = {k: v for k, v in start.config.items() if k in same}
    network = given(TorchaudioConvTasNet(**config), start)
    practice, test = data(speech, card, options)
    words = {"batch-size": int, "lr": float, "warmup": int, "ema": float, "schedule": str}
    how = {k.replace("-", "_"): f(options[k]) for k, f in words.items() if k in options}
    learner = Learner(network, practice, test, **how, folder=folder, seed=int(options["seed"]))
    goal = {"steps": steps} if steps else {"minutes": options["minutes"]}
    log = learner.fit(**goal, progress=False)
    network.load_state_dict(learner.best().state_dict())
    return network.eval(), test, int(log.step.iloc[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("speech", nargs="?")
    parser.add_argument("start", nargs="?", help="the network before the card's last command")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--folder", type=Path)
    args = parser.parse_args()
    if not (args.start or args.quick):
        parser.error("give the folder of recordings and the network to start from, or --quick")
    torch.set_num_threads(1)
    card, ours = by_command(read_card(OURS)), load(OURS)
    steps = 2 if args.quick else None
    start = load(args.start) if args.start else ours
    theirs, test, done = train(card, start, args.speech, args.folder, steps)
    score = lambda network: summarize(evaluate(network, test, ("si_sdri",), sample_rate=8000))
    table = score(theirs)
    print(table.to_string(), f"{done} steps", sep="\n")
    if args.quick:
        return
    row = table[table.source == "all"].iloc[0]
    shipped, control = card["scores"]["si_sdri"], float(row["mean"])
    save(
        "Conv-TasNet: ours against torchaudio's class of the same size, trained alike",
        [
            figure(
                f"{OURS} at the end of that stage, mean SI-SDR gain on readers kept apart",
                *(round(shipped, 2), "dB", "not below the control"),
            ),
            figure(
                "The control, torchaudio's ConvTasNet after the same last minutes",
                *(round(control, 2), "dB"),
            ),
        ],
        "python benchmarks/train_control.py SPEECH START",
        "1 CPU core",
        versions={"python": platform.python_version(), "torch": torch.__version__},
        parameters={OURS: ours.n_params, "torchaudio": theirs.n_params},
        minutes=round(stage(card)["minutes"], 1),
        steps={OURS: card["steps"], "torchaudio": done},
    )


if __name__ == "__main__":
    main()
