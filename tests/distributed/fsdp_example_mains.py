"""What the processes of the test of the sharded example run: its own model and text, in several ways."""

import sys
from pathlib import Path
from typing import Any

import fsdp_mains
import torch

from thinwire.distributed import Transport
from thinwire.network import FRAME_NUM_BYTES

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
import hsdp

STEPS = 60


def train_all(folder: str, transport: Transport) -> None:
    mesh = fsdp_mains.meshes(2, 2)
    text, seen = hsdp.texts()
    found: dict[str, Any] = {}
    for method in ("plain", "sgd", "signtopk:density=10%"):
        model, handle = hsdp.made(mesh, method)
        link = [0, 0]
        if handle is not None:
            count(handle.transport, link)
        hsdp.fit(model, text, seen, STEPS, seed=0)
        found[method] = {"link": link, "model": fsdp_mains.local(dict(model.named_parameters()))}
        if handle is not None:
            found[method]["traffic"] = [handle.traffic.bytes_sent, handle.traffic.bytes_received]
            handle.close()
    torch.save(found, Path(folder, f"rank-{transport.rank}.pt"))


def count(transport: Any, link: list[int]) -> None:
    """Count what the links themselves are given and give, whatever the transport says of it."""
    links = transport._links
    send, receive = links.send, links.receive

    def counted_send(rank: int, tag: Any, message: torch.Tensor, *more: Any, **others: Any) -> Any:
        link[0] += message.numel() * message.element_size() + FRAME_NUM_BYTES
        return send(rank, tag, message, *more, **others)

    def counted_receive(*given: Any, **others: Any) -> Any:
        rank, tag, message = receive(*given, **others)
        link[1] += message.numel() * message.element_size() + FRAME_NUM_BYTES
        return rank, tag, message

    links.send, links.receive = counted_send, counted_receive
