"""A vector that several threads change, with what its locks need."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from thinwire.arrays import CPU, array_of
from thinwire.errors import ConfigError
from thinwire.kernels.shared_memory.variants import ARRIVED, NUM_CONTROL_WORDS, NUM_GATE_WORDS, STOP

KINDS = (torch.float32, torch.float64, torch.int64)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Shared:
    """One vector, the words of its locks, and the words with which its threads begin and end; see :meth:`around`.

    Args:
        vector: contiguous ``[d]`` on the CPU, float32, float64 or int64; threads write to it.
        locks: int32 ``[d]``, a lock for each entry; 0 is free.
        gates: int64, the words of the mutex and of the reader-writer lock.
        control: int64, how many threads have come, and whether they are to end.
    """

    vector: Tensor
    locks: Tensor
    gates: Tensor
    control: Tensor

    @classmethod
    def around(cls, vector: Tensor) -> "Shared":
        """A vector with locks that are free.

        Raises:
            ConfigError: not a contiguous vector of such a type on the CPU, or one without entries.

        Example:
            >>> Shared.around(torch.zeros(3)).locks.tolist()
            [0, 0, 0]
        """
        if vector.dtype not in KINDS or vector.dim() != 1 or not vector.is_cpu or not vector.is_contiguous():
            raise ConfigError(
                "threads share a contiguous vector of float32, float64 or int64 on the CPU; "
                f"got {vector.dtype} of shape {tuple(vector.shape)} on {vector.device}"
            )
        if not vector.numel():
            raise ConfigError("threads share a vector of at least one entry; this one has none")
        return cls(
            vector=vector,
            locks=torch.zeros(vector.numel(), dtype=torch.int32, device=CPU),
            gates=torch.zeros(NUM_GATE_WORDS, dtype=torch.int64, device=CPU),
            control=torch.zeros(NUM_CONTROL_WORDS, dtype=torch.int64, device=CPU),
        )

    def arrays(self) -> tuple[Any, Any, Any, Any]:
        """The four tensors as arrays of the same memory."""
        return array_of(self.vector), array_of(self.locks), array_of(self.gates), array_of(self.control)

    def reset(self) -> None:
        """Let the next threads begin together, once the last have ended.

        Example:
            >>> Shared.around(torch.zeros(1)).reset()
        """
        self.control.zero_()

    def stop(self) -> None:
        """Tell threads to end soon, and those that wait for others to begin.

        Example:
            >>> shared = Shared.around(torch.zeros(1))
            >>> shared.stop()
            >>> shared.control.count_nonzero().item()
            2
        """
        self.control[STOP] = 1
        self.control[ARRIVED] = 2**31
