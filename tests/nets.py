"""What the tests of networks share."""

import time
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn


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
