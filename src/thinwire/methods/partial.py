"""Some entries of the models become their mean, the others stay each worker's own."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from thinwire.arrays import copy_of
from thinwire.config import register
from thinwire.exchanges import Aggregate
from thinwire.layout import State
from thinwire.payloads.entries import entries


@register
@dataclass(frozen=True, slots=True)
class Partial:
    """``x_i[S] = c[S] = mean_j x_j[S]`` for the entries S that are exchanged (SPARTA; Beton et al. 2025).

    Workers keep models of their own, which random entries, the same of all workers, hold together. The common point
    ``c`` has every entry as it was when it was averaged last; it is what is evaluated.

    It goes with a linear compressor whose choice of entries all workers share, and without a memory: what is not sent
    is not owed, it stays in the model.
    """

    def init(self, params: Tensor) -> State:
        """The common point: a copy of the common initial parameters."""
        return {"reference": copy_of(params)}

    def signal(self, read: Callable[[Tensor | None], Tensor], state: State) -> Tensor:
        """``c - x_i``."""
        return read(state["reference"])

    def apply(self, aggregate: Aggregate, local: Callable[[], Tensor], state: State) -> Tensor:
        """Move the common point at the entries that were sent, and the worker's parameters there."""
        aggregate.add_to(state["reference"], -1.0)
        indices, _ = entries(aggregate.sent)
        params = local()
        params[indices] = state["reference"][indices]
        return params
