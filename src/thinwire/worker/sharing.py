"""Workers of one process that share a model."""

from dataclasses import dataclass, field

from torch import Tensor, nn

from thinwire.methods import GradientAveraging, Method


def can_share(method: Method, model: nn.Module) -> bool:
    """Whether workers of one process may share a model, see :meth:`Worker.sharing_model`."""
    workers_agree = isinstance(method, GradientAveraging) and method.exchange.workers_agree
    return workers_agree and next(model.buffers(), None) is None


@dataclass(slots=True, eq=False)
class Sharing:
    """What workers on one model have in common: how many steps its optimizer has made, and where gradients are."""

    num_steps: int = 0
    params: list[Tensor] = field(default_factory=list)
    """None of them if there is one worker."""

    def own_gradients(self) -> list[tuple[Tensor, Tensor | None]]:
        """A copy of one worker's: the next one writes its own to the same place."""
        return [(param, None if param.grad is None else param.grad.clone()) for param in self.params]
