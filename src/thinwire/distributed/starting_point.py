"""What all processes have in common before they train: one model, and one idea of what they do."""

import hashlib
from collections.abc import Iterable, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from thinwire.arrays import array_of, tensor_of
from thinwire.distributed.transport import Transport
from thinwire.errors import ConfigError
from thinwire.staging import each_on_host
from thinwire.worker.news import plain_text
from thinwire.worker.parameters import local_part, plain_name

_NUM_BYTES = 8
"""Of what stands for a tensor."""


def broadcast_parameters(transport: Transport, model: nn.Module) -> int:
    """Overwrite those parameters and buffers with process 0's that are not equal on all; how many bytes these have.

    First the processes compare 8 bytes a tensor. So a model that all made from one seed, or read from one file, is not
    sent at all.

    Raises:
        ConfigError: sums were to be made on devices, and the model is on none.
    """
    with torch.no_grad():
        tensors = [local_part(tensor) for tensor in (*model.parameters(), *model.buffers())]
        if not tensors:
            return 0
        if transport.fabric is not None and not any(map(transport.fabric.takes, tensors)):
            raise ConfigError(
                f'LinkOptions(transport="nccl") was given for a model on {tensors[0].device}; move the model to a GPU, '
                "or leave it out"
            )
        hashes = np.frombuffer(b"".join(map(digest, each_on_host(tensors))), np.uint8)
        everyone = torch.stack(transport.share_bytes(tensor_of(hashes.copy()))).view(transport.size, -1, _NUM_BYTES)
        differs = (everyone != everyone[0]).any(dim=2).any(dim=0)
        sent = [tensor for tensor, differ in zip(tensors, differs.tolist(), strict=True) if differ]
        transport.broadcast_(sent)
        return sum(tensor.nbytes for tensor in sent)


def model_terms(model: nn.Module) -> str:
    """Names, shapes and dtypes of what is trained, and of buffers: what must be the same on all processes."""
    return "; ".join(_named(model.named_parameters())) + " | " + "; ".join(_named(model.named_buffers()))


def common_terms(form: str, method: object, seed: int, model: nn.Module, more: Mapping[str, object]) -> dict[str, str]:
    """What processes compare when they are introduced to each other.

    Args:
        form: which function makes the handle.
        method: the product.
        seed: of its randomness.
        model: of this process.
        more: further settings that all must share, by name.
    """
    terms = {"form": form, "method": plain_text(method), "seed": str(int(seed)), "model": model_terms(model)}
    return terms | {name: plain_text(value) for name, value in more.items()}


def _named(tensors: Iterable[tuple[str, Tensor]]) -> list[str]:
    return [
        f"{plain_name(name)} {tuple(local_part(tensor.detach()).shape)} {str(tensor.dtype).removeprefix('torch.')}"
        + ("" if tensor.requires_grad or not isinstance(tensor, nn.Parameter) else " frozen")
        for name, tensor in tensors
    ]


def digest(tensor: Tensor) -> bytes:
    """8 bytes that stand for the values of a tensor."""
    data = array_of(tensor.detach().contiguous().view(-1).view(torch.uint8)).data
    return hashlib.blake2b(data, digest_size=_NUM_BYTES).digest()
