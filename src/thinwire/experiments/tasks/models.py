"""What every task does with a model: make it from a seed, and look at it without touching it."""

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import nn

from thinwire.errors import ConfigError
from thinwire.experiments.tasks.base import Split
from thinwire.random import Key

T = TypeVar("T")


def seeded(seed: int, build: Callable[[], nn.Module]) -> nn.Module:
    """The model that ``build`` makes when torch's CPU generator starts from ``seed``.

    The layers of torch initialise themselves from the global generator; its state is put back afterwards. The
    generators of accelerators are not touched.
    """
    with torch.random.fork_rng(devices=[]):
        # Not torch.manual_seed: that would also reseed every accelerator, which fork_rng would not undo.
        torch.default_generator.manual_seed(Key(seed).fold("model").bits64() >> 1)
        return build()


def watched(model: nn.Module, measure: Callable[[], T]) -> T:
    """``measure()`` with ``model`` in evaluation mode and without gradients.

    Afterwards each submodule has the mode that it had before, also where the modes were mixed and also if
    ``measure`` raises.
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            return measure()
    finally:
        for module, training in modes:
            module.training = training


def held_out(split: Split, *, validation: T, test: T) -> T:
    """What belongs to ``split``; any other name raises ConfigError."""
    if split == "validation":
        return validation
    if split == "test":
        return test
    raise ConfigError(f'split is {split!r}; it is "validation" or "test".')
