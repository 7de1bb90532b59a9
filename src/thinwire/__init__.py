"""Communication-efficient distributed training of PyTorch models."""

from thinwire.distributed import Checkpoints, DensePolicy, DistributedOptimizer, compress_ddp, serve, synchronize
from thinwire.errors import (
    ConfigError,
    DeadlockError,
    NumericsError,
    ProtocolError,
    ThinwireError,
    WireError,
    WorkerError,
)
from thinwire.methods import GradientAveraging, ModelAveraging, parse_method
from thinwire.network import Network
from thinwire.simulator import Simulation
from thinwire.worker import Worker

__all__ = [
    "Checkpoints",
    "ConfigError",
    "DeadlockError",
    "DensePolicy",
    "DistributedOptimizer",
    "GradientAveraging",
    "ModelAveraging",
    "Network",
    "NumericsError",
    "ProtocolError",
    "Simulation",
    "ThinwireError",
    "WireError",
    "Worker",
    "WorkerError",
    "compress_ddp",
    "parse_method",
    "serve",
    "synchronize",
]
