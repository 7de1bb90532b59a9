"""Where this machine is reached by others, and which processes are on one machine."""

import hashlib
import os
import socket
import uuid
from pathlib import Path

UNROUTED = "192.0.2.1"
"""An address that belongs to nobody (RFC 5737): asking which way leads there gives the default interface."""

_NAMES_MAX = 63


def advertised_host(interface: str | None) -> str:
    """The interface or address that others are told: what was asked for, else where the master is reached from.

    Without a master in the environment of the process it is the interface that gloo was told, else the one that leads
    out of this machine, else the loopback.

    Args:
        interface: a name such as ``"eth0"``, an address, or ``None``.
    """
    named = interface or os.environ.get("GLOO_SOCKET_IFNAME", "").split(",")[0]
    if named:
        return named
    found = [way_to(master) for master in (os.environ.get("MASTER_ADDR"), UNROUTED) if master]
    return next((address for address in found if address), "127.0.0.1")


def way_to(host: str) -> str | None:
    """The address of this machine from which packets to ``host`` leave; ``None`` if no way leads there.

    Nothing is sent.

    Example:
        >>> way_to("127.0.0.1")
        '127.0.0.1'
    """
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, 9, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind) as probe:
            probe.connect(address)
            return str(probe.getsockname()[0])
    except OSError:
        return None


def host_name() -> str:
    """This machine's name, as errors say it."""
    return socket.gethostname()[:_NAMES_MAX]


def machine_id() -> str:
    """The same for processes that can meet in a folder: of one boot, one user, and one view of files and network."""
    known = [Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/mnt"), Path("/proc/self/ns/net")]
    facts = [host_name(), str(os.getuid())]
    if known[0].exists():
        facts += [known[0].read_text(), *(str(os.stat(path).st_ino) for path in known[1:])]
    else:
        facts.append(str(uuid.getnode()))
    return hashlib.blake2b("\n".join(facts).encode(), digest_size=8).hexdigest()


def told_lighthouse() -> str | None:
    """Where the launcher says that torchft's lighthouse is."""
    return os.environ.get("TORCHFT_LIGHTHOUSE")
