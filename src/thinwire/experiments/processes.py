"""How further processes of this machine begin."""

import multiprocessing
from collections.abc import Callable
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from typing import Any

PRELOADED = ("thinwire.experiments.launch", "torch._dynamo")
"""What takes seconds to import and every process needs: any optimizer of torch imports the second."""


def process_context() -> BaseContext:
    """As copies of one process that has imported what all need, where the system can; else each imports it anew.

    Importing torch takes a processor about 3 s, so that eight workers on two cores otherwise begin 15 s later. The
    process that is copied has no threads, and it ends with the one that asked for it.

    Example:
        >>> process_context().get_start_method() in multiprocessing.get_all_start_methods()
        True
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOADED))
    return context


def new_process(name: str, target: Callable[..., object], arguments: tuple[Any, ...]) -> BaseProcess:
    """A process of :func:`process_context` that is not started yet.

    Example:
        >>> new_process("counter", print, (1, 2)).name
        'counter'
    """
    process: BaseProcess = process_context().Process(target=target, args=arguments, name=name)  # type: ignore[attr-defined]
    return process
