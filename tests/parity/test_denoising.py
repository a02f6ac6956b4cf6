"""The log-MMSE recursion equals that of the package logmmse, from the same noise."""

import importlib.util
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from sepbook.classical.denoising import GAINS, decision_directed
from sepbook.engine.examples import example_noisy

THEIRS = """
import sys
import numpy as np
from logmmse.logmmse import logmmse  # sets np.seterr for the whole process: so in one of its own
mix = np.load(sys.argv[1])
out, kept = logmmse(mix, 16000, eta=-1e9)  # no frame counts as noise: its noise stays the first's
np.savez(sys.argv[2], out=out, noise=kept["noise_mu2"])
"""


@pytest.mark.skipif(importlib.util.find_spec("logmmse") is None, reason="logmmse is not installed")
@pytest.mark.parametrize("kind", ["boiler", "footsteps"])
def test_log_mmse_recursion(kind, tmp_path):
    mix = example_noisy(kind).mix[0].double().numpy()
    np.save(tmp_path / "mix.npy", mix)
    call = [sys.executable, "-c", THEIRS, tmp_path / "mix.npy", tmp_path / "theirs.npz"]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run(call, check=True, env=env)
    theirs = np.load(tmp_path / "theirs.npz")
    window = np.hanning(320) * 160 / np.hanning(320).sum()
    n = 160 * (len(mix) // 160 - 2)
    frames = np.stack([window * mix[k : k + 320] for k in range(0, n, 160)])
    spec = torch.from_numpy(np.fft.rfft(frames, 640)).T  # (frequency, frame)
    noise = torch.from_numpy(theirs["noise"])[:321, None]
    gains = decision_directed(
        spec.abs().square(), noise, GAINS["log-mmse"], least=10**-2.5, most=40.0
    )
    blocks = np.fft.irfft((gains * spec).T.numpy(), 640)[:, :320]
    ours = np.zeros(n + 320)
    for k, block in enumerate(blocks):
        ours[160 * k : 160 * k + 320] += block
    error = np.abs(ours[:n] - theirs["out"][:n]).max() / np.abs(theirs["out"]).max()
    assert error < 1e-6
