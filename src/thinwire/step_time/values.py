"""What a prediction is made of: when buckets are there, what an exchange computes and what it sends."""

from dataclasses import dataclass

from thinwire.errors import ConfigError
from thinwire.step_time.curves import LinkCurves, Way


@dataclass(frozen=True, slots=True)
class Bucket:
    """Gradients that DDP hands over together.

    Args:
        numel: entries.
        handed_s: seconds from the beginning of the step.
    """

    numel: int
    handed_s: float


@dataclass(frozen=True, slots=True)
class Compute:
    """A step without communication, on the slowest process.

    Args:
        buckets: in the order in which backward fills them.
        backward_s: seconds from the beginning of the step to the end of backward.
        step_s: seconds of the whole step, the optimizer included.
    """

    buckets: tuple[Bucket, ...]
    backward_s: float
    step_s: float


@dataclass(frozen=True, slots=True)
class Round:
    """One time that processes communicate.

    Args:
        way: how.
        num_bytes: of the longest message of a process, or of the vector that is summed.
        after_s: what a process computes when it has the result.
    """

    way: Way
    num_bytes: float
    after_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Exchange:
    """What a process does to exchange a vector.

    Args:
        before_s: seconds of compression, until it first sends.
        rounds: one after another.
        letters_s: seconds of messages between pairs of processes, which are in no round.

    Raises:
        ConfigError: negative seconds or bytes.
    """

    before_s: float = 0.0
    rounds: tuple[Round, ...] = ()
    letters_s: float = 0.0

    def __post_init__(self) -> None:
        numbers = [self.before_s, self.letters_s, *(n for each in self.rounds for n in (each.num_bytes, each.after_s))]
        if min(numbers) < 0:
            raise ConfigError(f"{self} has negative seconds or bytes; they are 0 or more")

    @property
    def after_s(self) -> float:
        """Seconds of decoding, after the last round."""
        return self.rounds[-1].after_s if self.rounds else 0.0

    @property
    def codec_s(self) -> float:
        """Seconds that a process computes."""
        return self.before_s + sum(each.after_s for each in self.rounds)

    def between_s(self, link: LinkCurves, idle_s: float) -> float:
        """Seconds from the first message to the end of the last; only the first round finds an idle link."""
        total = self.letters_s
        for number, each in enumerate(self.rounds):
            total += link.seconds(each.way, each.num_bytes, 0.0 if number else idle_s)
        return total + sum(each.after_s for each in self.rounds[:-1])

    def seconds(self, link: LinkCurves, idle_s: float) -> float:
        """Seconds of all of it."""
        return self.before_s + self.between_s(link, idle_s) + self.after_s
