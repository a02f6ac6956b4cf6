"""What the tests of networks share."""

import copy
import importlib
import re
import time
import warnings
from collections.abc import Callable
from contextlib import contextmanager
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

from sepbook.mixtures import example_voices


def noise(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    """Seeded noise."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def run(network: nn.Module, mix: Tensor) -> Tensor:
    """The estimates, without gradients."""
    with torch.no_grad():
        return network(mix)


def seconds(network: nn.Module, length: int, tries: int = 3) -> float:
    """Processor time for one mixture of that length: the best of several tries."""
    best, mix = [], noise(1, 1, length)
    for _ in range(tries):
        started = time.process_time()
        run(network, mix)
        best.append(time.process_time() - started)
    return min(best)


@contextmanager
def refused(words: str):
    """What happens inside has to end with an error that says `words`, in one line."""
    with pytest.raises((ValueError, TypeError), match=words) as fault:
        yield
    assert "\n" not in str(fault.value)


def refuses(make: Callable, words: str) -> None:
    """A call that has to end with an error that says `words`, to the letter, in one line."""
    with refused(re.escape(words)):
        make()


def check_stream(network: nn.Module, mix: Tensor, block: int, latency: int) -> None:
    """Blocks, joined, are the whole; no sample waits longer than told; the end forgets all."""
    stream, parts = network.stream(), []
    for piece in mix.split(block, -1):
        parts.append(stream(piece))
        late = stream.received - sum(part.shape[-1] for part in parts)
        assert late <= stream.latency == latency
    est = torch.cat([*parts, stream.flush()], -1)
    torch.testing.assert_close(est, run(network, mix), rtol=1e-5, atol=1e-5)
    again = torch.cat([stream(mix), stream.flush()], -1)
    torch.testing.assert_close(again, est, rtol=1e-5, atol=1e-5)


def check_precisions(network: nn.Module, mix: Tensor) -> None:
    """The same in double precision, and nearly the same in bfloat16."""
    want = run(network, mix)
    wide = run(copy.deepcopy(network).double(), mix.double())
    assert wide.dtype == torch.float64
    torch.testing.assert_close(wide.float(), want, rtol=1e-3, atol=1e-3)
    narrow = run(copy.deepcopy(network).bfloat16(), mix.bfloat16())
    assert narrow.dtype == torch.bfloat16 and (narrow.float() - want).norm() < 0.3 * want.norm()


# Peers


def peer(module: str) -> ModuleType:
    """A module of a reference implementation; the test is skipped where it is not installed."""
    reason = f"{module.partition('.')[0]} is not installed: run `make parity`"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip(module, reason=reason)
        return importlib.import_module(module)


def shaken(network: nn.Module, seed: int = 0) -> nn.Module:
    """Random weights everywhere, norms and biases too; running averages as after some training."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in network.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=draw))
        for name, b in network.named_buffers():
            if "running" in name:
                b.copy_(torch.rand(b.shape, generator=draw) + ("var" in name))
    return network.eval()


def signals(*only: str) -> dict[str, Tensor]:
    """Random and real mixtures: one, a batch of three, odd lengths; all, or those named."""
    voices = [example_voices(2, 1.0, seed).mix[:, :5001] for seed in range(3)]
    found = {
        "noise": noise(1, 1, 8000),
        "odd": noise(1, 1, 4003),
        "short": noise(3, 1, 33),
        "whole": noise(2, 1, 168),  # whole frames and whole chunks
        "voices": torch.stack(voices),
    }
    return {name: found[name] for name in only or found}


def same_outputs(ours: nn.Module, theirs: nn.Module, *only: str) -> None:
    """Largest error relative to the largest value: 1e-5 at most, with gradients and without."""
    for name, mix in signals(*only).items():
        with torch.no_grad():
            quick, want = ours(mix)[:, :, 0], theirs(mix)
        for got in (quick, ours(mix)[:, :, 0].detach()):
            assert got.shape == want.shape, name
            error = (got - want).abs().max() / want.abs().max()
            assert error < 1e-5, (name, error)
