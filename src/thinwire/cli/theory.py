"""``thinwire theory``."""

import dataclasses
import json
import sys
from collections.abc import Sequence
from typing import TextIO

import torch

from thinwire.cli.application import console, say
from thinwire.errors import ConfigError
from thinwire.experiments.tasks import load_task
from thinwire.experiments.theorems import Fact, TheoryProblem, facts
from thinwire.layout import Layout
from thinwire.methods import parse_method
from thinwire.report import TerminalColumn, TerminalTable, print_fitted
from thinwire.report.formats import significant


def layout_of(task: str, numel: int | None) -> Layout:
    """That of a task's model, or one vector.

    Raises:
        ConfigError: neither or both were given, or a vector of less than one entry.
    """
    if (numel is None) == (not task):
        raise ConfigError("give --task for the model of a task, or --numel for one vector of so many entries")
    if numel is None:
        return Layout.of(dict(load_task(task).model(0).named_parameters()))
    if numel < 1:
        raise ConfigError(f"--numel {numel} was given; it is at least 1")
    return Layout(("vector",), (torch.Size([numel]),))


def show_theory(methods: Sequence[str], problem: TheoryProblem, lines: TextIO | None) -> None:
    """Print what is known of each method.

    Raises:
        ConfigError: a method that cannot be read or does not fit the model.
    """
    known = {name: facts(parse_method(name), problem) for name in methods}
    for name, found in known.items():
        for fact in found:
            if lines is not None:
                print(json.dumps({"method": name, **dataclasses.asdict(fact)}), file=lines, flush=True)
    if lines is sys.stdout:
        return
    for number, (name, found) in enumerate(known.items()):
        if number:
            console.print()
        print_fitted(_table(name, found), console)
    say(
        "bound: proven. order: proven up to a constant that depends on smoothness and noise, here 1. The memory of a "
        "method that averages gradients is in units of a gradient."
    )


def _table(name: str, found: Sequence[Fact]) -> TerminalTable:
    return TerminalTable(
        title=name,
        columns=[
            TerminalColumn(header="quantity", cells=[fact.quantity for fact in found], is_name=True),
            TerminalColumn(header="value", cells=[significant(fact.value) for fact in found]),
            TerminalColumn(header="certainty", cells=[fact.certainty for fact in found]),
            TerminalColumn(header="source", cells=[fact.source for fact in found]),
        ],
    )
