"""Optimizer strings: any optimizer of ``torch.optim`` by name."""

import inspect
from typing import Any

import torch
from torch import nn

from thinwire.errors import ConfigError
from thinwire.optimizers import Muon, hidden_matrices
from thinwire.option_strings import read_pairs, split_name, unreadable


def make_optimizer(text: str, model: nn.Module, lr: float) -> torch.optim.Optimizer:
    """An optimizer of a model from ``name`` or ``name:option=value,...``, such as ``sgd:momentum=0.9,nesterov=yes``.

    Names are those of ``torch.optim`` in any case; options are the constructor's. A value is a number, ``yes`` or
    ``no``, or for an option that takes several numbers all of them with ``/`` between: ``adam:betas=0.9/0.95``.
    ``muon`` is :class:`thinwire.optimizers.Muon`: Muon on hidden matrices, AdamW on all else.

    Raises:
        ConfigError: an unknown name or option, or a value that the optimizer refuses.

    Example:
        >>> make_optimizer("sgd:momentum=0.9", nn.Linear(1, 1), lr=0.1).param_groups[0]["momentum"]
        0.9
    """
    known = _optimizers()
    given, _, rest = text.partition(":")
    name, _ = split_name(given.lower(), "optimizer", known)
    cls = known[name]
    allowed = [p for p in inspect.signature(cls).parameters if p not in ("params", "lr", "matrices")]
    options = {option: _read(value, name, option) for option, value in read_pairs(rest, name, allowed).items()}
    if cls is Muon:
        options["matrices"] = hidden_matrices(model)
    try:
        optimizer: torch.optim.Optimizer = cls(model.parameters(), lr=lr, **options)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"the optimizer {text} was refused by torch.optim: {error}") from error
    return optimizer


def is_adaptive(text: str) -> bool:
    """Whether an optimizer divides by what gradients were, so that its learning rate is the size of a step.

    Example:
        >>> is_adaptive("sgd:momentum=0.9"), is_adaptive("AdamW")
        (False, True)
    """
    return text.partition(":")[0].strip().lower() not in ("sgd", "asgd")


def _optimizers() -> dict[str, Any]:
    members = vars(torch.optim).items()
    known = {
        name.lower(): cls
        for name, cls in members
        if inspect.isclass(cls) and issubclass(cls, torch.optim.Optimizer) and cls is not torch.optim.Optimizer
        and "lr" in inspect.signature(cls).parameters and name not in ("LBFGS", "SparseAdam")
    }  # fmt: skip
    return {**known, "muon": Muon}


def _read(text: str, name: str, option: str) -> Any:
    if text in ("yes", "no"):
        return text == "yes"
    try:
        numbers = tuple(int(part) if part.lstrip("+-").isdigit() else float(part) for part in text.split("/"))
    except ValueError:
        form = "a number, yes or no, or several numbers as in betas=0.9/0.95"
        raise unreadable(name, option, text, form) from None
    return numbers if len(numbers) > 1 else numbers[0]
