"""Where and how long a command measures."""

import torch
import torch.distributed as dist

from thinwire.errors import ConfigError


def read_device(device: str) -> torch.device:
    """Where gradients lie: ``cuda`` is each process's own, the one of its number on the machine."""
    try:
        place = torch.device(device)
    except RuntimeError:
        raise ConfigError(f"--device {device} was given; it is cpu or cuda") from None
    if place.type == "cpu":
        return place
    if place.type != "cuda" or not torch.cuda.is_available():
        why = "torch finds no CUDA device" if place.type == "cuda" else "it is cpu or cuda"
        raise ConfigError(f"--device {device} was given; {why}")
    if ":" not in device:
        place = torch.device("cuda", dist.get_node_local_rank(0) % torch.cuda.device_count())
    return place


def check_limit(limit_s: float) -> None:
    """Refuse less than no time."""
    if not limit_s >= 0:
        raise ConfigError(f"--limit {limit_s} was given; it is a number of seconds, 0 or more")
