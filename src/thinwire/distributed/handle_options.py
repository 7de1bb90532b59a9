"""What both handles take beside a model and a method."""

from dataclasses import dataclass

from thinwire.distributed.guard import ReplicaGuard
from thinwire.distributed.link_options import LinkOptions
from thinwire.worker.layer_report import LayerReport


@dataclass(frozen=True, slots=True, kw_only=True)
class HandleOptions:
    """Settings that :func:`thinwire.synchronize` and :func:`thinwire.compress_ddp` describe, with the same meaning.

    Args:
        seed: the same on every process; addresses the method's randomness.
        guard: compares what the processes have in common.
        layer_report: of sampled exchanges.
        profile: whether the times of a step are measured.
        links: how the processes reach each other.
    """

    seed: int
    guard: ReplicaGuard | None
    layer_report: LayerReport | None
    profile: bool
    links: LinkOptions | None
