"""Kernels are compiled when they are first called: once a machine, by one process while the others wait.

Numba, its compiler and LLVM take a second to import. Until a kernel is called nothing of them is.
"""

import functools
import importlib
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from types import CodeType
from typing import Any

from thinwire.kernels.jit.turns import Notice, Turn

_MAKING = threading.RLock()
_warned: list[str] = []
_notices: list[Notice] = []


class UncachedKernels(UserWarning):
    """Every process compiles kernels anew, since none can be kept on disk; the message says why, and what to do."""


class Deferred:
    """Something of Numba's that is made when it is first needed.

    Args:
        make: gives it.
    """

    __slots__ = ("_made", "_make")

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self._made: Any = None

    def made(self) -> Any:
        """What it stands for."""
        if self._made is None:
            with _MAKING:
                if self._made is None:
                    self._made = self._make()
        return self._made

    def __call__(self, *arguments: Any) -> Any:
        """Call what it stands for."""
        return (self._made or self.made())(*arguments)


class _Module:
    """A module that is imported when something of it is asked for."""

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> Any:
        return getattr(importlib.import_module(self._name), name)


types: Any = _Module("numba.core.types")
cgutils: Any = _Module("numba.core.cgutils")
imputils: Any = _Module("numba.core.imputils")
arrayobj: Any = _Module("numba.np.arrayobj")
_numba: Any = _Module("numba")
carray: Any = Deferred(lambda: importlib.import_module("numba.np.numpy_support").carray)


def kernel(function: Callable[..., Any]) -> Any:
    """Compile ``function`` when it is first called, once a machine (kept on disk), without the GIL.

    Floats follow IEEE 754 strictly: no fused or reordered operations, so a kernel and its torch twin round
    alike.
    """
    return Deferred(functools.partial(_compiled, function))


def pasted(function: Callable[..., Any]) -> Any:
    """:func:`kernel` whose lines become those of the kernels that call it, where it would otherwise be compiled twice.

    It is compiled by itself only if Python calls it.
    """
    return Deferred(functools.partial(_compiled, function, inline="always"))


def helper(function: Callable[..., Any]) -> Any:
    """:func:`kernel` that only kernels call. It has no entrance for Python, which may be half of what is compiled."""
    return Deferred(functools.partial(_compiled, function, only_in_kernels=True))


def intrinsic(function: Callable[..., Any]) -> Any:
    """``numba.extending.intrinsic`` of ``function``, once a kernel needs it."""
    return Deferred(lambda: importlib.import_module("numba.extending").intrinsic(function))


def _compiled(function: Callable[..., Any], inline: str = "never", only_in_kernels: bool = False) -> Any:
    """Numba's dispatcher of a kernel, which takes the kernel's place in its module."""
    space, own = function.__globals__, function.__name__
    # Numba looks at what stands in a module under the names that the function uses.
    for name in _names(function.__code__) - {own}:
        if isinstance(space.get(name), Deferred):
            space[name] = space[name].made()
    dispatcher = _numba.njit(
        nogil=True, error_model="numpy", inline=inline, no_cfunc_wrapper=True, no_cpython_wrapper=only_in_kernels
    )(function)  # fmt: skip
    _compile_once(dispatcher)
    try:
        dispatcher.enable_caching()
    except (RuntimeError, OSError) as error:
        _warn_uncached(str(error))
    else:
        _take_turns(dispatcher, function)
    if isinstance(space.get(own), Deferred):
        space[own] = dispatcher
    return dispatcher


def _compile_once(dispatcher: Any) -> None:
    """Compile a kernel for the types of its arguments: Numba would do it again for each number that is written out."""
    from numba.core.types import unliteral

    compile_for = dispatcher.compile
    dispatcher.compile = lambda kinds: compile_for(tuple(map(unliteral, kinds)))


def _names(code: CodeType) -> set[str]:
    """The names that a function looks up, also in functions inside it."""
    inside = (each for each in code.co_consts if isinstance(each, CodeType))
    return set(code.co_names).union(*map(_names, inside))


def _take_turns(dispatcher: Any, function: Callable[..., Any]) -> None:
    """Let one process compile what the others then find on disk."""
    from numba.core.compiler_lock import global_compiler_lock

    cache, alone = dispatcher._cache, dispatcher.compile
    folder = Path(cache.cache_path)
    notice = _notice(folder)
    turn = Turn(folder / f"{Path(function.__code__.co_filename).stem}.{function.__name__}.lock", notice)

    def compile_in_turn(signature: Any) -> Any:
        # The lock is Numba's, which it takes too: one thread compiles at a time.
        with global_compiler_lock, turn:
            return alone(signature)

    dispatcher._cache = _SharedCache(cache, turn, notice)
    dispatcher.compile = compile_in_turn


def _notice(folder: Path) -> Notice:
    """One for all kernels, kept beside those that are compiled first."""
    if not _notices:
        _notices.append(Notice(folder / "thinwire.said"))
    return _notices[0]


class _SharedCache:
    """Numba's cache of one kernel, in which what is not there is asked for again once it is this process's turn.

    Args:
        cache: Numba's own.
        turn: whose turn it is.
        notice: says so.
    """

    __slots__ = ("_cache", "_notice", "_turn")

    def __init__(self, cache: Any, turn: Turn, notice: Notice) -> None:
        self._cache = cache
        self._turn = turn
        self._notice = notice

    @property
    def cache_path(self) -> Any:
        """The folder."""
        return self._cache.cache_path

    def load_overload(self, signature: Any, target: Any) -> Any:
        """The compiled kernel; None if this process is to compile it, and it is its turn."""
        found = self._load(signature, target)
        if found is None:
            self._turn.take()
            found = self._load(signature, target)  # another process may have made it meanwhile
        if found is None:
            self._notice.compiles()
        return found

    def _load(self, signature: Any, target: Any) -> Any:
        try:
            return self._cache.load_overload(signature, target)
        except Exception as error:  # whatever it takes damaged bytes for
            warnings.warn(
                f"the kernels in {self.cache_path} are damaged ({type(error).__name__}: {error}); they are compiled "
                "again",
                UncachedKernels,
                stacklevel=2,
            )
            self._flush()
            return None

    def _flush(self) -> None:
        try:
            self._cache.flush()
        except OSError as error:
            _warn_uncached(str(error))

    def save_overload(self, signature: Any, compiled: Any) -> None:
        """Keep a compiled kernel, if there is room."""
        try:
            self._cache.save_overload(signature, compiled)
        except OSError as error:
            _warn_uncached(str(error))

    def flush(self) -> None:
        """Forget all."""
        self._cache.flush()


def _warn_uncached(reason: str) -> None:
    """Say, once, that nothing is kept."""
    if _warned:
        return
    _warned.append(reason)
    warnings.warn(
        f"kernels cannot be kept on disk ({reason}): every process compiles anew what it uses, which takes 9 to 45 "
        "seconds in all. Set the environment variable NUMBA_CACHE_DIR to a folder that may be written",
        UncachedKernels,
        stacklevel=2,
    )
