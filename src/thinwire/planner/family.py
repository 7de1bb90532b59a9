"""The ways to train that a plan chooses among."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from thinwire.distributed.comm_hook import can_overlap
from thinwire.errors import ConfigError
from thinwire.methods import parse_method
from thinwire.worker import needs_server

RANK = 2
"""Of torch's PowerSGD hook, in one bucket, as it hangs on gloo with more."""
DENSE, DENSE_BF16, POWER_SGD = "dense", "dense, bf16", f"PowerSGD, rank {RANK}"
"""As ``thinwire probe`` calls what DDP does without a hook and with its ``bf16_compress_hook``."""
DEFAULT_METHODS = (
    "signtopk:density=1%",
    "signtopk:density=0.1%",
    "topk:density=1%",
    "ef-signsgd",
    "qsgd:bits=4",
    "local-sgd:every=4",
    "local-sgd:every=16",
    "ef-signsgd:every=4",
    "ef-signsgd:every=16",
    "signtopk:density=1%,every=4",
    "signtopk:density=1%,every=16",
    "signtopk:density=0.1%,every=16",
)


class Kind(StrEnum):
    """How a candidate exchanges; the value is what a script calls."""

    DENSE = "plain DDP"
    DENSE_BF16 = "DDP and its bf16_compress_hook"
    POWER_SGD = "DDP and its powerSGD_hook"
    HOOKED = "thinwire.compress_ddp"
    SYNCHRONIZED = "thinwire.synchronize"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A way to train.

    Args:
        method: a method string, or the name of what DDP does.
        kind: how it exchanges.
    """

    method: str
    kind: Kind

    @property
    def is_dense(self) -> bool:
        """Whether it sends every number, in 32 or 16 bits."""
        return self.kind in (Kind.DENSE, Kind.DENSE_BF16)


def candidates(methods: Sequence[str]) -> list[Candidate]:
    """What DDP can do by itself, then the methods: each by the hook of DDP if that takes it, else by ``synchronize``.

    Args:
        methods: method strings; none for :data:`DEFAULT_METHODS`.

    Raises:
        ConfigError: an unknown method, or one with a server process.

    Example:
        >>> [each.kind.value for each in candidates(["topk:density=1%", "local-sgd:every=8"])[3:]]
        ['thinwire.compress_ddp', 'thinwire.synchronize']
    """
    own = [Candidate(DENSE, Kind.DENSE), Candidate(DENSE_BF16, Kind.DENSE_BF16), Candidate(POWER_SGD, Kind.POWER_SGD)]
    for name in dict.fromkeys(methods or DEFAULT_METHODS):
        method = parse_method(name)
        if needs_server(method):
            raise ConfigError(f"{name} needs a server beside its workers, whose steps are not predicted; leave it out")
        own.append(Candidate(name, Kind.HOOKED if can_overlap(method) else Kind.SYNCHRONIZED))
    return own
