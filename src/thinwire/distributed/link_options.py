"""What a user may say about the links between processes."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from thinwire.config import check_types
from thinwire.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkOptions:
    """How processes reach each other, how long they wait, and who can read what they send.

    Processes of one machine meet in a private folder and listen on no port. Between machines each process listens on
    one port, and messages are encrypted with keys that were made for this handle.

    Args:
        timeout: how long a process waits for one that is connected and sends nothing. By default it is the timeout of
            the process group. A process that has ended is noticed within a second. One that is stopped, or whose
            machine is unreachable, is noticed after half of this time or after 30 s, whichever is shorter.
        interface: the network interface (``"eth0"``) or the address of this machine at which the others reach it. By
            default it is the one by which this machine reaches the master of the process group.
        ports: the first and the last port to listen on, for firewalls. By default the system chooses.
        connections: to each process on another machine, in each direction. Where the way there and back takes more
            than 2 ms, a message travels over all of them at once. The system sends only about 14 kB at once over a
            connection that was idle for some hundred milliseconds, then waits for the answer: 50 kB over a link of
            100 ms took 502 ms over one connection, 104 ms over four.
        encrypt: ``False`` sends plain bytes between machines. Do so only on a network that nobody else is on, where
            the link is so fast that encryption takes longer than sending.
        transport: ``"nccl"`` sums and gathers by NCCL, for models on GPUs of one host or of a network as fast: sums
            never leave the devices, and the bits are the same. All else still goes over links. Between hosts on a thin
            wire ``"links"`` is the quicker one. A process that ends is then noticed by NCCL, after ``timeout``.

    Raises:
        ConfigError: an unknown transport, a timeout that is not positive, ports that are no range, or connections other
            than 1 to 64.

    Example:
        >>> LinkOptions(timeout=timedelta(seconds=30), ports=(29600, 29607)).encrypt
        True
    """

    timeout: timedelta | None = None
    interface: str | None = None
    ports: tuple[int, int] | None = None
    connections: int = 4
    encrypt: bool = True
    transport: Literal["links", "nccl"] = "links"

    def __post_init__(self) -> None:
        check_types(self)
        if self.timeout is not None and not self.timeout > timedelta():
            raise ConfigError(f"a timeout of {self.timeout} was given; give a positive one")
        if self.ports is not None and not 0 < self.ports[0] <= self.ports[1] < 1 << 16:
            raise ConfigError(f"ports={self.ports} was given; give the first and the last of a range within 1 to 65535")
        if not 1 <= self.connections <= 64:
            raise ConfigError(f"{self.connections} connections to each process were asked for; give 1 to 64")
