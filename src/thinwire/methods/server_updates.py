"""Updates with two sides: what a worker sends to an asynchronous server, and what the server makes of it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

from torch import Tensor

from thinwire.arrays import copy_of
from thinwire.config import check_types, register
from thinwire.errors import ConfigError
from thinwire.exchanges import Aggregate
from thinwire.layout import State
from thinwire.methods.updates import Update
from thinwire.payloads import Payload


@runtime_checkable
class ServerUpdate(Update, Protocol):
    """An update whose aggregate is the server's model; the server merges each message as it comes.

    What the server remembers beside its model is a state, as a worker's is: it is saved with the model, and goes on
    with it.
    """

    @property
    def answers_before(self) -> bool:
        """Whether the server answers with its model as it was before the message was merged."""
        ...

    @property
    def needs_exact(self) -> bool:
        """Whether the worker must send exactly what it means: no compressor, no memory."""
        ...

    def begin(self, model: Tensor) -> State:
        """What the server remembers beside its initial ``model`` (f32 ``[d]``, not kept); often nothing."""
        ...

    def merge(self, model: Tensor, message: Payload, num_workers: int, state: State) -> None:
        """Move the server's ``model`` (f32 ``[d]``) and its state in place by one worker's message."""
        ...

    def shared(self, model: Tensor, state: State) -> Tensor:
        """What is evaluated, and what training ends with: the model, or a vector of the state."""
        ...


@register
@dataclass(frozen=True, slots=True)
class Follow:
    """The server takes ``x -= q / P`` for each message; its sender goes on from there (Basu et al. 2019, Alg. 2).

    ``q`` is the compressed displacement from the model that the worker got last. It counts ``1 / P`` however many
    others communicate, as in the paper.
    """

    answers_before: ClassVar[bool] = False
    """The worker goes on from a model that has its own message in it."""
    needs_exact: ClassVar[bool] = False
    """Any compressor will do."""

    def init(self, params: Tensor) -> State:
        """The common initial parameters."""
        return {"reference": copy_of(params)}

    def signal(self, read: Callable[[Tensor | None], Tensor], state: State) -> Tensor:
        """``reference - params``."""
        return read(state["reference"])

    def apply(self, aggregate: Aggregate, local: Callable[[], Tensor], state: State) -> Tensor:
        """The server's model."""
        return state["reference"].copy_(aggregate.mean)

    def begin(self, model: Tensor) -> State:
        """Nothing."""
        return {}

    def merge(self, model: Tensor, message: Payload, num_workers: int, state: State) -> None:
        """``model -= q / P``."""
        message.add_to(model, -1.0 / num_workers)

    def shared(self, model: Tensor, state: State) -> Tensor:
        """The model."""
        return model


@register
@dataclass(frozen=True, slots=True)
class ElasticFollow:
    """``e = alpha (x_i - centre)``; ``x_i -= e``; ``centre += e``, as one step (Zhang et al. 2015, Alg. 1).

    The worker sends ``x_i`` and gets the centre as it was: 4 d bytes each way. ``alpha = beta / P`` unless given.

    Args:
        beta: 0.9 in the paper.
        alpha: the moving rate.

    Raises:
        ConfigError: a rate outside (0, 1).
    """

    beta: float = 0.9
    alpha: float | None = None

    answers_before: ClassVar[bool] = True
    """Both differences are taken from the centre as it was."""
    needs_exact: ClassVar[bool] = True
    """The server must know the worker's parameters."""

    def __post_init__(self) -> None:
        check_types(self)
        for name, rate in (("beta", self.beta), ("alpha", self.alpha)):
            if rate is not None and not 0.0 < rate < 1.0:
                raise ConfigError(f"{name} = {rate} was given; elastic averaging takes rates between 0 and 1")

    def init(self, params: Tensor) -> State:
        """Nothing: the centre is the server's."""
        return {}

    def signal(self, read: Callable[[Tensor | None], Tensor], state: State) -> Tensor:
        """The parameters themselves."""
        return read(None)

    def apply(self, aggregate: Aggregate, local: Callable[[], Tensor], state: State) -> Tensor:
        """``x_i - alpha (x_i - centre)``."""
        return local().lerp_(aggregate.mean, self._rate(aggregate.num_vectors))

    def begin(self, model: Tensor) -> State:
        """Nothing."""
        return {}

    def merge(self, model: Tensor, message: Payload, num_workers: int, state: State) -> None:
        """``centre += alpha (x_i - centre)``."""
        model.lerp_(message.to_dense(), self._rate(num_workers))

    def shared(self, model: Tensor, state: State) -> Tensor:
        """The model."""
        return model

    def _rate(self, num_workers: int) -> float:
        return self.beta / num_workers if self.alpha is None else self.alpha
