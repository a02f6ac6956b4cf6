"""A control for the Conv-TasNet that ships: torchaudio's class of the same size, trained alike.

    python benchmarks/train_control.py SPEECH     writes results/train_control.json
    python benchmarks/train_control.py --quick    a few steps on the packaged voices, writes nothing

SPEECH is the folder that the card's commands name. Stages, minutes, data, seed, batches, rates and
the learner are those on the card of conv-tasnet-2voices; only the network is torchaudio's. One
thread, as there. `--folder` keeps checkpoints: the same command goes on after an interruption.
"""

import argparse
import json
import os
import platform
from datetime import date
from pathlib import Path

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"

import torch  # noqa: E402
from torch import Tensor  # noqa: E402
from torchaudio.models import ConvTasNet  # noqa: E402

from sepbook.learner import Learner, Network, seed_all  # noqa: E402
from sepbook.metrics import evaluate, summarize  # noqa: E402
from sepbook.mixtures import Corpus, MixtureDataset, Speed, example_corpus, preload  # noqa: E402
from sepbook.models.tasnet import OBJECTIVES  # noqa: E402
from sepbook.pit import pit_loss  # noqa: E402
from sepbook.zoo import load, read_card  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "results" / "train_control.json"
OURS = "conv-tasnet-2voices"


class Theirs(Network):
    """Torchaudio's Conv-TasNet in the sizes of one of ours."""

    def __init__(self, ours: dict, objective: str):
        super().__init__()
        self.sample_rate, self.channels, self.sources = ours["sample_rate"], 1, ("s1", "s2")
        self.objective = objective
        self.net = ConvTasNet(
            num_sources=2,
            enc_kernel_size=ours["kernel"],
            enc_num_feats=ours["n_filters"],
            msk_kernel_size=ours["taps"],
            msk_num_feats=ours["bottleneck"],
            msk_num_hidden_feats=ours["hidden"],
            msk_num_layers=ours["blocks"],
            msk_num_stacks=ours["repeats"],
            msk_activate=ours["mask"],
        )

    def forward(self, mix: Tensor) -> Tensor:
        return self.net(self.check(mix))[:, :, None]

    def loss(self, mix: Tensor, src: Tensor) -> Tensor:
        return pit_loss(OBJECTIVES[self.objective], self(mix), src)[0]


def stages(card: dict) -> list[dict]:
    """What the card's commands say of each stage: options as a dictionary."""
    found = []
    for told in (card.get("before"), card):
        if told:
            words = told["command"].replace("'", "").split("--")[1:]
            options = dict(word.split(None, 1) for word in words if " " in word.strip())
            settings = [w.split(None, 1)[1].strip() for w in words if w.startswith("set ")]
            given = dict(setting.split("=", 1) for setting in settings)
            options["objective"] = given.get("objective", card["config"]["objective"])
            found.append({k: v.strip() for k, v in options.items()})
    before = card.get("before", {}).get("seconds_trained", 0)
    for stage, seconds in zip(reversed(found), (card["seconds_trained"] - before, before)):
        stage["minutes"] = seconds / 60
    return found


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


def train(ours: dict, card: dict, speech: str | None, folder: Path | None, steps: int | None):
    """The control after all stages, and the steps that it did in each."""
    state, done = None, []
    for number, options in enumerate(stages(card)):
        seed_all(int(options["seed"]))
        network = Theirs(ours, options["objective"])
        if state:
            network.load_state_dict(state)
        practice, test = data(speech, card, options)
        words = {"batch-size": int, "lr": float, "warmup": int, "ema": float, "schedule": str}
        how = {k.replace("-", "_"): f(options[k]) for k, f in words.items() if k in options}
        how["folder"] = folder and folder / f"stage{number}"
        learner = Learner(network, practice, test, **how, seed=int(options["seed"]))
        goal = {"steps": steps} if steps else {"minutes": options["minutes"]}
        log = learner.fit(**goal, progress=False)
        done.append({"minutes": round(options["minutes"], 1), "steps": int(log.step.iloc[-1])})
        state = learner.best().state_dict()
    network.load_state_dict(state)
    return network.eval(), test, done


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("speech", nargs="?")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--folder", type=Path)
    args = parser.parse_args()
    if not (args.speech or args.quick):
        parser.error("give the folder of recordings, or --quick")
    torch.set_num_threads(1)
    card, ours = read_card(OURS), load(OURS)
    steps = 2 if args.quick else None
    theirs, test, done = train(ours.config, card, args.speech, args.folder, steps)
    score = lambda network: summarize(evaluate(network, test, ("si_sdri",), sample_rate=8000))
    table = score(theirs)
    print(table.to_string(), done, sep="\n")
    if args.quick:
        return
    row = table.iloc[0]
    report = {
        "title": "Conv-TasNet: ours against torchaudio's class of the same size, trained alike",
        "headline": [
            {
                "what": "conv-tasnet-2voices, mean SI-SDR gain on readers kept apart",
                "value": round(card["scores"]["si_sdri"], 2),
                "unit": "dB",
                "bar": "not below the control",
            },
            {
                "what": "The control, torchaudio's ConvTasNet after the same minutes",
                "value": round(float(row["mean"]), 2),
                "unit": "dB",
                "bar": "",
            },
        ],
        "command": "python benchmarks/train_control.py SPEECH",
        "date": date.today().isoformat(),
        "device": "1 CPU core",
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "parameters": {OURS: ours.n_params, "torchaudio": theirs.n_params},
        "steps": {OURS: [card.get("before", {}).get("steps"), card["steps"]], "torchaudio": done},
    }
    RESULT.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
