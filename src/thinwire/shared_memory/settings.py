"""How threads train one vector."""

from dataclasses import dataclass

from thinwire.config import Share, check_types
from thinwire.errors import ConfigError
from thinwire.kernels.shared_memory.rows import Loss, Method, Rule, Select
from thinwire.kernels.shared_memory.variants import Variant

MAX_THREADS = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """One run.

    Args:
        variant: how threads add to the vector, see :data:`thinwire.kernels.shared_memory.variants.Variant`.
        threads: how many.
        method: ``sgd`` (Hogwild!), ``mem-sgd`` (Parallel-Mem-SGD) or ``gspar``; see
            :class:`thinwire.kernels.shared_memory.rows.Rule`.
        select: which coordinates ``mem-sgd`` sends, ``top-k`` or ``random``.
        keep: for ``mem-sgd`` and ``gspar`` the share of all coordinates that an update writes, at least one.
        loss: ``logistic`` or ``hinge``.
        updates: stochastic steps of all threads and rounds together.
        rounds: between two rounds the threads stand still, the loss is evaluated and the learning rate falls.
        learning_rate: of the first round.
        backoff: by what the learning rate is multiplied after each round (Hogwild!'s back-off).
        regularisation: the factor of ``|w|^2 / 2``; one over the number of examples if none.
        seed: of the examples that are drawn; each thread has a stream of its own.
        pinned: each thread stays on a processor of its own (Linux).

    Raises:
        ConfigError: a value out of range.

    Example:
        >>> Settings(method="mem-sgd", keep="1%").rule(numel=2000, number=0).k
        20
    """

    variant: Variant = "fetch-and-add"
    threads: int = 2
    method: Method = "sgd"
    select: Select = "top-k"
    keep: Share = 0.01
    loss: Loss = "logistic"
    updates: int = 20_000
    rounds: int = 4
    learning_rate: float = 0.5
    backoff: float = 0.9
    regularisation: float | None = None
    seed: int = 0
    pinned: bool = False

    def __post_init__(self) -> None:
        check_types(self)
        if not 1 <= self.threads <= MAX_THREADS:
            raise ConfigError(f"{self.threads} threads were given; 1 to {MAX_THREADS} are allowed")
        if not 0 < self.keep <= 1:
            raise ConfigError(f"keep = {self.keep:g} was given; it is a share above 0, at most 100%")
        if self.rounds < 1:
            raise ConfigError(f"{self.rounds} rounds were given; 1 is the least")
        if self.updates < self.threads * self.rounds:
            raise ConfigError(
                f"{self.updates} updates were given for {self.threads} threads and {self.rounds} rounds; each thread "
                f"takes at least one in each: give {self.threads * self.rounds} or more"
            )
        if not 0 < self.learning_rate < float("inf"):
            raise ConfigError(f"a learning rate of {self.learning_rate} was given; it must be above 0")
        if not 0 < self.backoff <= 1:
            raise ConfigError(f"a backoff of {self.backoff:g} was given; it is above 0, at most 1")
        if self.regularisation is not None and not 0 <= self.regularisation < float("inf"):
            raise ConfigError(f"a regularisation of {self.regularisation} was given; it is 0 or more")

    def rule(self, numel: int, number: int) -> Rule:
        """What a step does in the round of that number."""
        rate = self.learning_rate * self.backoff**number
        k = max(1, round(self.keep * numel))
        return Rule(method=self.method, select=self.select, k=k, loss=self.loss, learning_rate=rate)

    def steps(self, number: int) -> list[int]:
        """How many steps each thread takes in the round of that number.

        Example:
            >>> Settings(threads=2, updates=7, rounds=2).steps(0), Settings(threads=2, updates=7, rounds=2).steps(1)
            ([1, 2], [2, 2])
        """
        here = self.updates * (number + 1) // self.rounds - self.updates * number // self.rounds
        return [here * (thread + 1) // self.threads - here * thread // self.threads for thread in range(self.threads)]
