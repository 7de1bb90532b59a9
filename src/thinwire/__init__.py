"""Communication-efficient distributed training of PyTorch models."""

import importlib
from typing import TYPE_CHECKING

from thinwire.errors import (
    ConfigError,
    DeadlockError,
    DivergenceError,
    NumericsError,
    ProtocolError,
    SealError,
    StoreError,
    ThinwireError,
    WireError,
    WorkerError,
)

if TYPE_CHECKING:
    from thinwire.distributed import (
        Checkpoints,
        DensePolicy,
        DistributedOptimizer,
        LinkOptions,
        LittleCompressed,
        NothingCompressed,
        ReplicaGuard,
        SlowerThanDense,
        compress_ddp,
        compress_fsdp,
        compress_shards,
        serve,
        synchronize,
        synchronize_by_store,
    )
    from thinwire.fault_tolerance import FaultTolerant, fault_tolerant
    from thinwire.methods import GradientAveraging, ModelAveraging, parse_method
    from thinwire.network import Network
    from thinwire.simulator import Simulation
    from thinwire.weights import WeightFollower, WeightPublisher, sync_weights
    from thinwire.worker import JsonLines, LayerReport, Scalars, StepTimes, Worker

    __version__: str
else:
    # What imports torch is imported when it is asked for, so that the command line answers at once.
    _HOMES = {
        "thinwire.distributed": (
            "Checkpoints",
            "DensePolicy",
            "DistributedOptimizer",
            "LinkOptions",
            "LittleCompressed",
            "NothingCompressed",
            "ReplicaGuard",
            "SlowerThanDense",
            "compress_ddp",
            "compress_fsdp",
            "compress_shards",
            "serve",
            "synchronize",
            "synchronize_by_store",
        ),
        "thinwire.fault_tolerance": ("FaultTolerant", "fault_tolerant"),
        "thinwire.methods": ("GradientAveraging", "ModelAveraging", "parse_method"),
        "thinwire.network": ("Network",),
        "thinwire.simulator": ("Simulation",),
        "thinwire.weights": ("WeightFollower", "WeightPublisher", "sync_weights"),
        "thinwire.worker": ("JsonLines", "LayerReport", "Scalars", "StepTimes", "Worker"),
    }
    _PARTS = (
        "compressors", "config", "distributed", "exchanges", "fault_tolerance", "kernels", "layout", "machines",
        "memory", "methods", "network", "payloads", "random", "simulator", "steps", "stores", "theory", "weights",
        "wire",
        "worker",
    )  # fmt: skip

    def __getattr__(name: str) -> object:
        """A public name, or a part of the package, when it is first asked for."""
        home = next((home for home, names in _HOMES.items() if name in names), None)
        if home is not None:
            found = getattr(importlib.import_module(home), name)
        elif name in _PARTS:
            found = importlib.import_module(f"thinwire.{name}")
        elif name == "__version__":
            found = _version()
        else:
            raise AttributeError(f"module 'thinwire' has no attribute {name!r}")
        globals()[name] = found
        return found

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__, *_PARTS, "__version__"})

    def _version() -> str:
        from importlib import metadata

        try:
            return metadata.version("thinwire")
        except metadata.PackageNotFoundError:
            return "0+unknown"  # run from its files, without installation


__all__ = [
    "Checkpoints",
    "ConfigError",
    "DeadlockError",
    "DensePolicy",
    "DistributedOptimizer",
    "DivergenceError",
    "FaultTolerant",
    "GradientAveraging",
    "JsonLines",
    "LayerReport",
    "LinkOptions",
    "LittleCompressed",
    "ModelAveraging",
    "Network",
    "NothingCompressed",
    "NumericsError",
    "ProtocolError",
    "ReplicaGuard",
    "Scalars",
    "SealError",
    "Simulation",
    "SlowerThanDense",
    "StepTimes",
    "StoreError",
    "ThinwireError",
    "WeightFollower",
    "WeightPublisher",
    "WireError",
    "Worker",
    "WorkerError",
    "compress_ddp",
    "compress_fsdp",
    "compress_shards",
    "fault_tolerant",
    "parse_method",
    "serve",
    "sync_weights",
    "synchronize",
    "synchronize_by_store",
]
