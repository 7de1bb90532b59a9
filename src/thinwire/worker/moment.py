"""When an exchange is."""

from dataclasses import dataclass

from thinwire.methods import Method, ModelAveraging


@dataclass(frozen=True, slots=True)
class Moment:
    """When an exchange is, as far as a method looks at that.

    Args:
        turn: how often the channel was exchanged before.
        step: training steps of this worker so far.
        lr: the optimizer's learning rate.
    """

    turn: int = 0
    step: int = 0
    lr: float = 0.0

    def threshold(self, method: Method) -> float | None:
        """The squared norm that what is to be sent must exceed; None where all is sent."""
        trigger = method.trigger if isinstance(method, ModelAveraging) else None
        return None if trigger is None else trigger.threshold(self.step, self.lr)
