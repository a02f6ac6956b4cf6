"""The package: imports in the order of the course, a fast start, every name documented."""

import ast
import importlib
import inspect
import subprocess
import sys
import tokenize

import pytest
from course import ROOT, Notebook, chapters

PUBLIC = {
    "sepbook.sound": "load save resample listen show_spectrogram",
    "sepbook.stft": "stft istft griffin_lim STFT",
    "sepbook.masks": "ideal_binary_mask ideal_ratio_mask wiener_mask phase_sensitive_mask "
    "complex_ratio_mask oracle",
    "sepbook.metrics": "snr si_sdr si_sdr_improvement bss_eval bss_eval_v4 pesq stoi evaluate",
    "sepbook.mixtures": "example_song example_voices Corpus MixtureDataset musdb18 librimix",
    "sepbook.classical.nmf": "nmf",
    "sepbook.classical.tracking": "VoiceTracker",
    "sepbook.learner": "Network Learner",
    "sepbook.models.mask_networks": "OpenUnmix",
    "sepbook.models.deep_clustering": "DeepClustering Chimera",
    "sepbook.pit": "pit_loss UPIT",
    "sepbook.models.unet": "UNet Spleeter",
    "sepbook.models.complex_networks": "DCUNet DCCRN PHASEN",
    "sepbook.models.fullsubnet": "FullSubNet FullSubNetPlus",
    "sepbook.models.wave_unet": "WaveUNet",
    "sepbook.models.tasnet": "EncoderDecoder TasNet",
    "sepbook.models.conv_tasnet": "ConvTasNet Stream",
    "sepbook.models.dprnn": "DPRNN segment merge",
    "sepbook.models.sepformer": "SepFormer",
    "sepbook.models.demucs": "Demucs HDemucs HTDemucs",
    "sepbook.models.bsrnn": "BSRNN",
    "sepbook.zoo": "save load available import_weights",
    "sepbook.separate": "separate",
    "sepbook.cli": "app",
}


def file_of(module: str):
    return ROOT / (module.replace(".", "/") + ".py")


MODULES = [Notebook(p).module for p in chapters()]
each_module = pytest.mark.parametrize("name", MODULES)


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_public_names(name):
    module = importlib.import_module(name)
    missing = [n for n in PUBLIC[name].split() if not hasattr(module, n)]
    assert not missing
    assert not set(PUBLIC[name].split()) - set(module.__all__)


@each_module
def test_every_public_name_is_documented(name):
    module = importlib.import_module(name)
    for public in module.__all__:
        item = getattr(module, public)
        if inspect.isclass(item) or inspect.isfunction(item):
            assert inspect.getdoc(item), f"{public} has no docstring"


@each_module
def test_every_parameter_has_a_type_and_a_comment(name):
    path = file_of(name)
    with open(path, "rb") as file:
        commented = {
            t.start[0] for t in tokenize.tokenize(file.readline) if t.type == tokenize.COMMENT
        }
    module = importlib.import_module(name)
    for node in ast.parse(path.read_text()).body:
        if not isinstance(node, ast.FunctionDef) or node.name not in module.__all__:
            continue
        given = node.args.args + node.args.kwonlyargs
        for arg in given:
            assert arg.annotation is not None, f"{node.name}({arg.arg}) has no type"
            told = arg.end_lineno in commented or "engine" in name
            assert told, f"{node.name}({arg.arg}) has no comment"
        assert node.returns is not None, f"{node.name} has no return type"


def test_imports_fast():
    """Beyond torch's own import: 0.3 s of computing for what separates, 0.5 s for all modules.

    Pandas, which the tables of the leaderboard are made of, is not counted.
    """
    code = (
        "import torch, numpy, time; t = time.process_time(); import sepbook.separate, sepbook.zoo\n"
        + "few = time.process_time() - t; import pandas; t = time.process_time()\n"
        + "\n".join(f"import {name}" for name in MODULES)
        + "\nprint(few, few + time.process_time() - t)"
    )
    call = [sys.executable, "-c", code]
    runs = [subprocess.run(call, capture_output=True, text=True, check=True) for _ in range(2)]
    few, every = zip(*([float(t) for t in run.stdout.split()] for run in runs))
    assert min(few) < 0.3 and min(every) < 0.5, (few, every)
