"""How further processes of this machine begin."""

import multiprocessing
from multiprocessing.context import BaseContext

PRELOADED = ("thinwire.experiments.launch", "torch._dynamo")
"""What takes seconds to import and every process needs: any optimizer of torch imports the second."""


def start_method() -> str:
    """As copies of one process that has imported what all need, where the system can; else each imports it anew.

    Importing torch takes a processor about 3 s, so that eight workers on two cores otherwise begin 15 s later. The
    process that is copied has no threads, and it ends with the one that asked for it.

    Example:
        >>> start_method() in multiprocessing.get_all_start_methods()
        True
    """
    return process_context().get_start_method()


def process_context() -> BaseContext:
    """:func:`start_method`, as ``ProcessPoolExecutor`` takes it."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOADED))
    return context
