"""How commands are ended from outside; waits for nothing, so that the command line can ask for it at once."""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn


class Terminated(BaseException):
    """SIGTERM ended the launcher; its workers are gone. Like KeyboardInterrupt, nothing but the end answers it."""


@contextmanager
def signals_raise() -> Iterator[None]:
    """Inside the block signals that end a command raise :class:`Terminated`, so that it can end what it started.

    Only the main thread may set handlers; in another one nothing changes.
    """
    before = {number: signal.signal(number, _terminate) for number in _ending_signals()}
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None:
                signal.signal(number, handler)


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    raise Terminated


def _ending_signals() -> list[signal.Signals]:
    if threading.current_thread() is not threading.main_thread():
        return []
    found = [signal.SIGTERM, *([signal.SIGHUP] if sys.platform != "win32" else [])]
    return [number for number in found if signal.getsignal(number) is not signal.SIG_IGN]
