"""Communication-efficient distributed training of PyTorch models."""

from thinwire.distributed import (
    Checkpoints,
    DensePolicy,
    DistributedOptimizer,
    LinkOptions,
    ReplicaGuard,
    SlowerThanDense,
    compress_ddp,
    serve,
    synchronize,
)
from thinwire.errors import (
    ConfigError,
    DeadlockError,
    DivergenceError,
    NumericsError,
    ProtocolError,
    ThinwireError,
    WireError,
    WorkerError,
)
from thinwire.methods import GradientAveraging, ModelAveraging, parse_method
from thinwire.network import Network
from thinwire.simulator import Simulation
from thinwire.worker import JsonLines, LayerReport, Scalars, StepTimes, Worker

__all__ = [
    "Checkpoints",
    "ConfigError",
    "DeadlockError",
    "DensePolicy",
    "DistributedOptimizer",
    "DivergenceError",
    "GradientAveraging",
    "JsonLines",
    "LayerReport",
    "LinkOptions",
    "ModelAveraging",
    "Network",
    "NumericsError",
    "ProtocolError",
    "ReplicaGuard",
    "Scalars",
    "Simulation",
    "SlowerThanDense",
    "StepTimes",
    "ThinwireError",
    "WireError",
    "Worker",
    "WorkerError",
    "compress_ddp",
    "parse_method",
    "serve",
    "synchronize",
]
