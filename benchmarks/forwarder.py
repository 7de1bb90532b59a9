"""The switch between the network namespaces of ``delayed_links``: it holds every frame for the latency of the link.

It is a program of its own, as a thread would wait for the interpreter that it serves. Standard input carries orders, a
JSON object a line, each answered by a line; when it ends, the namespaces are deleted, however its parent ended.

A frame that is read starts on the sender's uplink when the one before it has left, is at the receiver's port one
latency after its start, passes through the port when the one before it has passed, and is delivered with its last byte.
Uplink and downlink carry it at the same time (cut-through), so that a lone flow pays for its bytes once, and three
senders to one receiver share the bandwidth of its port. This is the network of ``thinwire.simulator``, for frames.
Several of one connection may come at once, as to a network card that cuts them itself, with a header that says so.
"""

import contextlib
import ctypes
import gc
import json
import math
import os
import select
import subprocess
import sys
import time
from collections import deque
from typing import Any

MOST_FRAME_NUM_BYTES = (1 << 16) + 200
VIRTIO_NUM_BYTES = 10
"""Of the header before every frame: flags, kind (0: one frame), and at 4 how many bytes each of its frames carries."""
PACKET_HEADER_NUM_BYTES = 66
"""Ethernet 14, IP 20, TCP with time stamps 32; what cuts a frame repeats it."""
QUEUE_S = 0.4
"""What waits longer than that at a port is dropped, as by the queue of ``tc`` at the sender."""
_BATCH = 32
"""Frames that are read of one interface before what is due elsewhere is looked at."""
_PR_SET_TIMERSLACK = 29


def wire_num_bytes(frame: bytes) -> int:
    """Of what was read, once it has been cut into frames; without the header before it."""
    num_bytes = len(frame) - VIRTIO_NUM_BYTES
    if not frame[1]:
        return num_bytes
    part_num_bytes = frame[4] | frame[5] << 8
    num_frames = -(-(num_bytes - PACKET_HEADER_NUM_BYTES) // part_num_bytes)
    return num_bytes + (num_frames - 1) * PACKET_HEADER_NUM_BYTES


class Port:
    """One interface: what is due to it, and when its two directions are free."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.due: deque[tuple[float, bytes]] = deque()
        self.uplink_free_s = self.downlink_free_s = 0.0


class Switch:
    """Frames between interfaces; that of number k has a MAC whose last byte is k + 1."""

    def __init__(self, fds: list[int]) -> None:
        self.ports = [Port(fd) for fd in fds]
        self.byte_s = self.latency_s = 0.0
        self.forget()

    def forget(self) -> None:
        """Begin the counts anew."""
        self.num_frames = self.num_dropped = 0
        self.late_s: list[float] = []

    def order(self, order: dict[str, Any]) -> dict[str, Any]:
        """What links are from now on, or what was counted since the last question."""
        if "byte_s" in order:
            self.byte_s, self.latency_s = order["byte_s"], order["latency_s"]
            return {}
        late_s = sorted(self.late_s) or [0.0]
        times = os.times()
        counts = {
            "frames": self.num_frames, "dropped": self.num_dropped, "late_median_s": late_s[len(late_s) // 2],
            "late_99_s": late_s[len(late_s) * 99 // 100], "late_most_s": late_s[-1], "cpu_s": times.user + times.system,
        }  # fmt: skip
        self.forget()
        return counts

    def serve(self) -> None:
        """Move frames and follow orders until standard input ends."""
        fds = {port.fd: port for port in self.ports}
        waited = [*fds, 0]
        while True:
            next_s = self.deliver()
            timeout_s = None if next_s == math.inf else max(0.0, next_s - time.perf_counter())
            for fd in select.select(waited, (), (), timeout_s)[0]:
                if fd:
                    self.read(fds[fd])
                    continue
                line = sys.stdin.buffer.readline()
                if not line:
                    return
                print(json.dumps(self.order(json.loads(line))), flush=True)

    def read(self, port: Port) -> None:
        """Take frames from one interface and put them into the queues of those that they are for."""
        read, clock = os.read, time.perf_counter
        for _ in range(_BATCH):
            try:
                frame = read(port.fd, MOST_FRAME_NUM_BYTES)
            except BlockingIOError:
                return
            now_s = clock()
            start_s = max(now_s, port.uplink_free_s)
            sending_s = wire_num_bytes(frame) * self.byte_s
            port.uplink_free_s = start_s + sending_s
            first_bit_s = start_s + self.latency_s
            for other in self.destinations(port, frame):
                begin_s = max(first_bit_s, other.downlink_free_s)
                if begin_s - first_bit_s > QUEUE_S:
                    self.num_dropped += 1
                    continue
                other.downlink_free_s = begin_s + sending_s
                other.due.append((other.downlink_free_s, frame))

    def destinations(self, port: Port, frame: bytes) -> list[Port]:
        if frame[VIRTIO_NUM_BYTES] & 1:  # to a group: to all others
            return [other for other in self.ports if other is not port]
        number = frame[VIRTIO_NUM_BYTES + 5] - 1
        return [self.ports[number]] if number < len(self.ports) else []

    def deliver(self) -> float:
        """Hand over what is due, and say when the next frame will be."""
        next_s, write, clock = math.inf, os.write, time.perf_counter
        for port in self.ports:
            due = port.due
            while due:
                now_s = clock()
                if due[0][0] > now_s:
                    next_s = min(next_s, due[0][0])
                    break
                due_s, frame = due.popleft()
                self.late_s.append(now_s - due_s)
                self.num_frames += 1
                try:
                    write(port.fd, frame)
                except OSError:  # the interface is being changed, or down
                    self.num_dropped += 1
        return next_s


def main() -> None:
    """Arguments: descriptors of the interfaces, and names of the namespaces that go when all is over."""
    fds, names = json.loads(sys.argv[1])
    with contextlib.suppress(PermissionError):  # before the processes whose messages are timed
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)
    gc.disable()
    try:
        Switch(fds).serve()
    finally:
        for fd in fds:
            os.close(fd)
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


if __name__ == "__main__":
    main()
