"""A device that pretends not to be the host: its tensors lie in the CPU's memory, but only operations reach them.

``torch.device("pretended")`` works with models, autograd and optimizers inside :func:`pretending`. ``numpy()`` raises,
``is_cpu`` is False, copies to the host that do not block arrive when their event is waited for, and what the host waits
for is noted, as is what streams do without waiting for each other (``pretended_streams.py``). So the paths beside the
CPU's run without an accelerator. To be imported in a process of its own: torch keeps one such device for good.
"""

import functools
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import pytest
import torch
from pretended_streams import ORDER, Module, current_stream, default_stream
from torch import Tensor
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode

from thinwire import arrays
from thinwire.distributed import lane

backend_registration._setup_privateuseone_for_python_backend("pretended", Module())
DEVICE = torch.device("pretended:0")

READS = ("_local_scalar_dense", "nonzero", "is_nonzero", "equal", "unique_dim", "_unique2", "masked_select")
"""Operations that wait for the device because their result, or its length, is a number that the host needs."""


MIXED = ("copy_", "_to_copy", "index", "index_put_", "_foreach_copy_", "set_data")
"""Operations of which a tensor may be on the host, also if it is no single number."""


class Pretended(Tensor):
    """A tensor of the pretended device."""

    inner: Tensor  # type: ignore[assignment]

    @staticmethod
    def __new__(cls, inner: Tensor) -> "Pretended":
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=DEVICE,
        )
        made.inner = inner
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    def __repr__(self) -> str:  # type: ignore[override]
        return f"Pretended({self.inner})"

    def __reduce_ex__(self, protocol: Any) -> Any:
        """What is saved is read back on the CPU."""
        return self.inner.__reduce_ex__(protocol)

    def numpy(self, *, force: bool = False) -> Any:
        """A copy, for which is waited, as of any device."""
        if not force:
            raise TypeError("a tensor of another device has no array")
        _host_waits("numpy")
        return self.inner.numpy(force=True).copy()

    def tolist(self) -> Any:
        """Its numbers, for which is waited."""
        _host_waits("tolist")
        return self.inner.tolist()

    def untyped_storage(self) -> Any:
        return self.inner.untyped_storage()

    def data_ptr(self) -> int:
        return self.inner.data_ptr()

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        return _run(func, args, kwargs or {})


class Pretending(TorchDispatchMode):
    """While it is entered, tensors can be made on the pretended device."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


def host(tensor: Tensor) -> Tensor:
    """What a tensor of either device holds, for a test to look at."""
    plain = tensor.detach()
    return plain.inner if isinstance(plain, Pretended) else plain


class Promise(torch.futures.Future[Tensor]):
    """As torch's own of a device's tensor: who gets its value goes on after what was under way when it was set."""

    def set_result(self, result: Tensor) -> None:
        default_stream().wait_event(current_stream().record_event())
        super().set_result(result)


@contextmanager
def pretending() -> Iterator[None]:
    """The device can be used, has streams, and nothing was waited for yet."""
    ORDER.clear()
    run = threading.Thread.run

    def run_pretending(self: threading.Thread) -> None:
        with cast(Any, Pretending)():
            run(self)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(arrays, "_STREAMED", arrays._STREAMED | {DEVICE.type})
        patched.setattr(lane.Lane, "promise", lambda self: Promise())
        patched.setattr(threading.Thread, "run", run_pretending)
        with cast(Any, Pretending)():
            yield


@dataclass(frozen=True, slots=True)
class _Facts:
    """What the schema of an operation says, read once: operations run thousands of times."""

    name: str
    written: tuple[tuple[int, str], ...]
    """Arguments that are written to: place and name."""
    views: bool
    """Whether it returns nothing but views, and writes to nothing."""
    gives_written: bool
    fresh: bool
    """Whether what it returns is new."""

    @classmethod
    def of(cls, func: Any) -> "_Facts":
        schema = func._schema
        places = enumerate(schema.arguments)
        written = tuple((number, each.name) for number, each in places if each.alias_info and each.alias_info.is_write)
        aliases = [each.alias_info for each in schema.returns]
        return cls(
            schema.name.removeprefix("aten::"),
            written,
            not written and bool(aliases) and all(each is not None for each in aliases),
            bool(written) and len(aliases) == 1 and aliases[0] is not None and aliases[0].is_write,
            all(each is None for each in aliases),
        )


_facts = functools.cache(_Facts.of)


def _run(func: Any, args: Any, kwargs: Any) -> Any:
    facts = _facts(func)
    name = facts.name
    if name in ("pin_memory", "_pin_memory"):
        return args[0].clone()
    leaves = [*_leaves(args), *_leaves(kwargs.values())]
    of_device = any(isinstance(leaf, Pretended) for leaf in leaves)
    target = kwargs.get("device")
    if target is not None:
        target = torch.device(target)
        kwargs = {**kwargs, "device": torch.device("cpu") if target.type == DEVICE.type else target}
    if "pin_memory" in kwargs:
        kwargs = {key: value for key, value in kwargs.items() if key != "pin_memory"}
    makes = of_device if target is None else target.type == DEVICE.type
    if not of_device and not makes:
        return func(*args, **kwargs)
    written = [args[place] if place < len(args) else kwargs.get(called) for place, called in facts.written]
    if of_device and name not in MIXED:
        _refuse_mixed(name, leaves)
    if _brings_and_blocks(name, args, kwargs, makes):
        _host_waits(f"{name} from the host")
    if of_device and not facts.views:
        targets = [each.inner for each in _leaves(written) if isinstance(each, Pretended)]
        sources = [each.inner for each in leaves if isinstance(each, Pretended)]
        ORDER.touch(name, current_stream().number, sources, targets)
        if name in READS or _indexes_by_mask(name, args) or (name == "_to_copy" and not makes):
            _host_waits(name)  # a copy that does not block would go to memory that is not page-locked
        elif name == "copy_" and not isinstance(args[0], Pretended):
            if kwargs.get("non_blocking") or (len(args) > 2 and args[2]):
                ORDER.late.append((current_stream().number, ORDER.number, args[0], args[1].inner.clone()))
                return args[0]
            _host_waits(name)
    if of_device and name in ("div", "div_") and not isinstance(args[1], Pretended):
        # As on CUDA: a number is inverted first, which rounds otherwise than a division.
        args = (args[0], 1.0 / torch.as_tensor(args[1], dtype=torch.float32 if args[0].element_size() < 8 else None))
        func = torch.ops.aten.mul.Tensor if name == "div" else torch.ops.aten.mul_.Tensor
    result = func(*_inner(args), **{key: _inner(value) for key, value in kwargs.items()})
    if written and facts.gives_written:
        return written[0]
    if not makes:
        return result
    if facts.fresh:
        for each in _leaves([result]):
            if isinstance(each, Tensor):
                ORDER.forget(each)
                ORDER.touch(name, current_stream().number, [], [each])
    return _outer(result)


def _brings_and_blocks(name: str, args: Any, kwargs: Any, makes: bool) -> bool:
    """Whether the host's entries are copied to the device, and the host waits for what the stream was given before."""
    if name == "_to_copy":
        return makes and not isinstance(args[0], Pretended) and args[0].numel() and not kwargs.get("non_blocking")
    if name != "copy_" or not isinstance(args[0], Pretended) or isinstance(args[1], Pretended):
        return False
    return not (kwargs.get("non_blocking") or (len(args) > 2 and args[2]))


def _leaves(values: Iterable[Any]) -> Iterator[Any]:
    for value in values:
        if isinstance(value, list | tuple):
            yield from _leaves(value)
        else:
            yield value


def _refuse_mixed(name: str, leaves: Sequence[Any]) -> None:
    for each in leaves:
        if isinstance(each, Tensor) and not isinstance(each, Pretended) and each.dim():
            raise RuntimeError(f"{name}: expected all tensors to be on one device, but {each.shape} is on the host")


def _host_waits(name: str) -> None:
    ORDER.host_waits(name, current_stream().seen())


def _inner(value: Any) -> Any:
    """The host's tensors in place of the device's."""
    if isinstance(value, Pretended):
        return value.inner
    return type(value)(map(_inner, value)) if type(value) in (list, tuple) else value


def _outer(value: Any) -> Any:
    """The device's tensors in place of the host's."""
    if isinstance(value, Tensor):
        return value if isinstance(value, Pretended) else Pretended(value)
    return type(value)(map(_outer, value)) if type(value) in (list, tuple) else value


def _indexes_by_mask(name: str, args: Sequence[Any]) -> bool:
    if name not in ("index", "index_put", "index_put_"):
        return False
    return any(isinstance(each, Tensor) and each.dtype == torch.bool for each in args[1])
