"""Ctrl-C while torch waits for a thread of ours: the thread hears of it.

Under DDP's hook the main thread waits inside torch, where Python handles no signal. The system writes a signal's number
to a file as soon as it comes, in whatever the process is; the thread that waits for messages watches that file too.
"""

import contextlib
import signal
import socket
import threading


class Interrupts:
    """The file at which Ctrl-C is noticed, or none where the script watches signals by itself."""

    def __init__(self) -> None:
        self._ends: tuple[socket.socket, socket.socket] | None = None
        # Only the main thread may ask for it, and Python has one such file a process.
        if threading.current_thread() is not threading.main_thread():
            return
        hears, tells = socket.socketpair()
        hears.setblocking(False)
        tells.setblocking(False)
        before = signal.set_wakeup_fd(tells.fileno(), warn_on_full_buffer=False)
        self._ends = hears, tells
        if before != -1:
            signal.set_wakeup_fd(before)
            self._leave()

    def fileno(self) -> int | None:
        """What becomes readable at a signal."""
        return None if self._ends is None else self._ends[0].fileno()

    def came(self) -> bool:
        """Whether Ctrl-C was among the signals that came since this was last asked."""
        if self._ends is None:
            return False
        with contextlib.suppress(BlockingIOError):
            return signal.SIGINT in self._ends[0].recv(4096)
        return False

    def close(self) -> None:
        """Leave signals as they were."""
        if self._ends is None:
            return
        with contextlib.suppress(ValueError):  # not the main thread: the file stays until the process ends
            found = signal.set_wakeup_fd(-1)
            if found != self._ends[1].fileno():
                signal.set_wakeup_fd(found)
            self._leave()

    def _leave(self) -> None:
        assert self._ends is not None
        for end in self._ends:
            end.close()
        self._ends = None
