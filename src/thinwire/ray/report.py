"""What a training on Ray has come to, as its server knows it."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Report:
    """What was merged, sent and lost so far.

    Args:
        num_merged: messages in the server's model.
        num_workers: ``P``: those at work, and those whose function has returned while no other took their place.
        mean_staleness: messages of others between a worker's answer and its next message, on average.
        max_staleness: the largest.
        bytes_sent: by all workers, of messages that were taken, each counted once, with the length before each.
        bytes_received: by all workers, of the answers to these.
        bytes_resent: what workers that have ended sent once more, to a server that had been restarted.
        messages: how many of each worker's were taken, by rank.
        lost: workers that have died or failed or cannot be reached; what they had not sent is lost.
        unsent: ``||m||_2`` of the residual of each worker that has ended, by rank; None where it is not known.
        num_restarts: of the server.
        server_pid: its process, on the node of the driver.
    """

    num_merged: int
    num_workers: int
    mean_staleness: float
    max_staleness: int
    bytes_sent: int
    bytes_received: int
    bytes_resent: int
    messages: Mapping[int, int]
    lost: tuple[int, ...]
    unsent: Mapping[int, float | None]
    num_restarts: int
    server_pid: int
