"""The closure of an optimizer whose gradients are exchanged."""

from dataclasses import dataclass

from thinwire.errors import ConfigError


@dataclass(slots=True)
class Once:
    """Stands for a closure that was called before; gradients are exchanged once a step."""

    loss: object
    optimizer: str
    was_called: bool = False

    def __call__(self) -> object:
        """The loss that the closure returned."""
        if self.was_called:
            raise ConfigError(
                f"{self.optimizer} calls its closure more than once a step, and each call would need an exchange; "
                "take a method that averages models, such as local-sgd:every=8, or another optimizer"
            )
        self.was_called = True
        return self.loss
