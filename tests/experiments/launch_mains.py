"""What launched processes run in the tests of the launcher; a module of its own, so that they can import it by name."""

import json
import os
import signal
import threading
from pathlib import Path

from thinwire.distributed import Transport

LISTENS = "0A"
"""The state of a socket in /proc/net/tcp."""
LOOPBACK = ("0100007F", "00000000000000000000000001000000", "0000000000000000FFFF00000100007F")


def listens(pid: int) -> list[str]:
    """The addresses on which a process listens, as the system writes them."""
    files = Path(f"/proc/{pid}/fd").iterdir()
    own = {os.readlink(file) for file in files if file.is_symlink()}
    found = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == LISTENS and f"socket:[{fields[9]}]" in own:
                found.append(fields[1].split(":")[0])
    return found


def reports(folder: str, launcher: int, transport: Transport) -> None:
    """Where this process, the one that it is a copy of and the launcher listen, once all are connected."""
    transport.share([])
    pids = {"worker": os.getpid(), "copied": os.getppid(), "launcher": launcher}
    found = {name: listens(pid) for name, pid in pids.items()}
    Path(folder, f"rank-{transport.rank}.json").write_text(json.dumps(found))
    transport.share([])


def ends_the_launcher(folder: str, launcher: int, transport: Transport) -> None:
    """Write down who is here, and let worker 0 end the launcher while all wait."""
    Path(folder, str(os.getpid())).touch()
    transport.share([])
    if transport.rank == 0:
        os.kill(launcher, signal.SIGTERM)
    threading.Event().wait()
