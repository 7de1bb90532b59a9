"""What a device's own operations of torch round otherwise than the CPU's: a pretended device does so too, if asked to.

CUDA may round a product and a sum once where the CPU rounds twice, or the other way round, adds up in another order and
has other roots, exponentials and sines. Whoever computes with these cannot have the bits of the CPU.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from place import DEVICE, IS_CUDA
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

SCALED = {"add", "add_", "sub", "sub_", "rsub", "_foreach_add", "_foreach_add_", "_foreach_sub", "_foreach_sub_"}
"""Which round a product and a sum, if they are given a factor that is no power of two."""

ROUGH = {
    "lerp", "lerp_", "_foreach_lerp_", "addcmul", "addcmul_", "_foreach_addcmul_", "addcdiv", "addcdiv_",
    "_foreach_addcdiv_", "mm", "bmm", "addmm", "mv", "dot", "sum", "mean", "linalg_vector_norm", "_foreach_norm",
    "norm", "exp", "log", "log2", "pow", "rsqrt", "sin", "cos", "tanh",
}  # fmt: skip
"""Of which the last bit is the device's own."""


@contextmanager
def rounding_otherwise() -> Iterator[None]:
    """The pretended device's results of those operations differ from the CPU's in the last bit; CUDA's are its own."""
    if IS_CUDA:
        yield
        return
    with cast(Any, _Otherwise)():
        yield


class _Otherwise(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func._schema.name.removeprefix("aten::")
        if name in ROUGH or (name in SCALED and _scales(func, args, kwargs or {})):
            given = args[0] if result is None else result  # operations on lists in place return nothing
            for each in given if isinstance(given, list | tuple) else [given]:
                if isinstance(each, Tensor) and each.device == DEVICE and each.is_floating_point():
                    _bump(each)
        return result


def _scales(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> bool:
    places = [number for number, each in enumerate(func._schema.arguments) if each.name == "alpha"]
    alpha = kwargs.get("alpha", args[places[0]] if places and places[0] < len(args) else 1)
    return isinstance(alpha, Tensor) or math.frexp(abs(alpha))[0] not in (0.0, 0.5)


def _bump(tensor: Tensor) -> None:
    import pretended

    inner = pretended.host(tensor)
    other = torch.nextafter(inner, torch.full_like(inner, math.inf))
    inner.copy_(torch.where(inner == 0, inner, other))
