"""A worker without a training script, of which only the exchanges are real."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from thinwire.layout import views_like
from thinwire.methods import DirectedUpdate, GradientAveraging, Method, ModelAveraging
from thinwire.steps import Steps
from thinwire.worker.worker import Worker


class Subject:
    """A worker whose model moves by given vectors and whose optimizer does nothing: its exchanges can be tried.

    Args:
        method: what the worker exchanges by.
        rank: which worker it is.
        size: number of workers.
        vectors: gradients, or displacements, used in turn.
    """

    def __init__(self, method: Method, rank: int, size: int, vectors: Sequence[Tensor]) -> None:
        self._method = method
        self._rank, self._size = rank, size
        self._vectors = vectors
        self._num_refills = rank

    @property
    def num_exchanges(self) -> int:
        """How many there were since :meth:`begin`."""
        return self._worker.num_exchanges

    @property
    def message_bytes(self) -> int:
        """What it handed to exchanges since :meth:`begin`, encoded."""
        return self._worker.message_bytes

    @property
    def num_steps(self) -> int:
        """How many there were since :meth:`begin`."""
        return self._worker.num_steps

    def begin(self, sizes: Sequence[int]) -> None:
        """A new worker, for vectors of tensors of these sizes."""
        self.begin_shapes([torch.Size([size]) for size in sizes])

    def begin_shapes(self, shapes: Sequence[torch.Size]) -> None:
        """A new worker, for vectors of tensors of these shapes."""
        place = self._vectors[0].device
        zeros = [torch.zeros(shape, dtype=torch.float32, device=place) for shape in shapes]
        self._model = nn.ParameterList(map(nn.Parameter, zeros))
        self._params = list(self._model.parameters())
        optimizer = _optimizer(self._method, self._params)
        self._worker = Worker(self._method, self._model, optimizer, rank=self._rank, size=self._size, seed=0)

    def set_out(self) -> Steps[None]:
        """A step that moves nothing: workers whose models have no common reference compare where they begin."""
        if isinstance(self._method, ModelAveraging):
            yield from self._worker.step()

    def refill(self) -> Steps[None]:
        """Take the local steps until there is an exchange after the next, then a gradient or a displacement."""
        method = self._method
        if isinstance(method, ModelAveraging):
            while not method.schedule.due(self._worker.num_steps + 1, self._rank):
                yield from self._worker.step()
        self.move()

    @torch.no_grad()
    def move(self) -> None:
        """Have the next of the vectors as the gradient, or be displaced by it."""
        is_gradient = isinstance(self._method, GradientAveraging)
        if is_gradient:
            for param in self._params:
                param.grad = torch.zeros_like(param) if param.grad is None else param.grad
            targets = [param.grad for param in self._params if param.grad is not None]
        else:
            targets = [param.detach() for param in self._params]
        vector = self._vectors[self._num_refills % len(self._vectors)]
        self._num_refills += 1
        views = views_like(vector[: sum(target.numel() for target in targets)], targets)
        if is_gradient:
            torch._foreach_copy_(targets, views)
        else:
            torch._foreach_sub_(targets, views)
            self._worker.accept_values()

    def step(self) -> Steps[None]:
        """The next step; after :meth:`refill` the one with an exchange."""
        yield from self._worker.step()


def _optimizer(method: Method, params: Sequence[nn.Parameter]) -> torch.optim.Optimizer:
    """One that leaves parameters alone; SGD, without gradients, for a rule that says along what it steps."""
    if isinstance(method, ModelAveraging) and isinstance(method.update, DirectedUpdate):
        return torch.optim.SGD(params, lr=0.0)
    optimizer = NoOptimizer(params)
    for state in method.states if isinstance(method, ModelAveraging) else ():
        for param in params:
            optimizer.state[param][state.names[0]] = torch.zeros_like(param)
    return optimizer


class NoOptimizer(torch.optim.Optimizer):
    """Holds parameters and leaves them alone."""

    def __init__(self, params: Any) -> None:
        super().__init__(params, {})

    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Do nothing."""
