"""What a worker trains now: asked before every step, for scripts freeze, unfreeze, replace and load what they train."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from thinwire.kernels.crc32c import crc32c
from thinwire.staging import each_on_host
from thinwire.worker.parameters import local_part, trained_parameters

MOST_CHANGES = 3
"""A gradient that comes and goes, or writes between steps, are told so often; then they are taken as part of training.

Each time costs the workers one exchange and one round of telling more.
"""


@dataclass(slots=True, eq=False)
class Trained:
    """The optimizer's parameters that need gradients, by name, and what became of them since the last look.

    Args:
        model: this worker's replica.
        optimizer: over parameters of the model.

    Raises:
        ConfigError: see :func:`thinwire.worker.parameters.trained_parameters`.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    named: dict[str, Tensor] = field(init=False)
    begins: dict[str, Tensor] = field(init=False, default_factory=dict)
    """Of parameters that joined since they were last taken note of: their values before the first step."""
    replaced: set[str] = field(init=False, default_factory=set)
    """Names that belong to other parameters than before, since they were last taken note of."""
    _known: dict[str, Tensor] = field(init=False)
    _held: list[tuple[int, bool]] = field(init=False)
    _values: dict[str, tuple[int, int]] = field(init=False, default_factory=dict)
    _came_and_went: dict[str, int] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self._held = self._hold()
        self.named = trained_parameters(self.model, self.optimizer)
        self._known = dict(self.named)

    def look(self) -> None:
        """Notice parameters that were frozen, unfrozen, added or replaced; before the optimizer moves them."""
        held = self._hold()
        if held == self._held:
            return
        named = trained_parameters(self.model, self.optimizer)
        for name, param in named.items():
            if self.named.get(name) is not param:
                self.begins[name] = local_part(param.detach()).clone()
            if self._known.setdefault(name, param) is not param:
                self.replaced.add(name)
                self._known[name] = param
        self.begins = {name: value for name, value in self.begins.items() if name in named}
        self._held, self.named = held, named

    def restrict(self, names: Collection[str], begins: Mapping[str, Tensor]) -> None:
        """Only these were trained so far, of which some have just begun; what else is found at the next look joins."""
        found = trained_parameters(self.model, self.optimizer)
        self._held, self.begins = [], dict(begins)
        self.named = {name: param for name, param in found.items() if name in names}

    def with_gradients(self, known: Iterable[str], *, counts_all: bool) -> list[str]:
        """Those that have a gradient; one whose gradient came and went too often counts as having it.

        Args:
            known: those that were told last.
            counts_all: whether each counts as having one, with zeros.
        """
        if counts_all:
            return list(self.named)
        found = [name for name, param in self.named.items() if param.grad is not None or self._varies(name)]
        for name in {*known} ^ {*found}:
            self._came_and_went[name] = self._came_and_went.get(name, 0) + 1
            if self._varies(name) and name in self.named and name not in found:
                found.append(name)
        return found

    def note_values(self) -> None:
        """What the parameters hold now is as it should be; a write that comes before the next step is a stranger's."""
        self._values = {name: _stamp(param) for name, param in self.named.items()}

    def forget_values(self) -> None:
        """Whatever is written before the next step is as it should be."""
        self._values = {}

    def written(self) -> list[str]:
        """What was written to since :meth:`note_values`."""
        return [
            name
            for name, stamp in self._values.items()
            if name in self.named and name not in self.begins and _stamp(self.named[name]) != stamp
        ]

    def _hold(self) -> list[tuple[int, bool]]:
        return [(id(param), param.requires_grad) for group in self.optimizer.param_groups for param in group["params"]]

    def _varies(self, name: str) -> bool:
        return self._came_and_went.get(name, 0) > MOST_CHANGES


def _stamp(param: Tensor) -> tuple[int, int]:
    """Differs once something was written in place, or the memory was replaced."""
    local = local_part(param)
    return local._version, local.data_ptr()


def checksum(tensors: Mapping[str, Tensor]) -> int:
    """Of names, shapes and bits."""
    found = 0
    for name, values in zip(tensors, each_on_host(tensors.values()), strict=True):
        label = f"{name} {tuple(values.shape)} {values.dtype}".encode()
        found = crc32c(torch.frombuffer(bytearray(label), dtype=torch.uint8), found)
        found = crc32c(values.view(-1).view(torch.uint8), found)
    return found
