"""An S3 server of this machine, in a process of its own, and what reaches a bucket of it."""

import re
import secrets
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from thinwire.plugins import import_package

_SERVER = """
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import run_simple
run_simple("127.0.0.1", 0, DomainDispatcherApplication(create_backend_app), threaded=False)
"""
"""One request after another: moto looks whether there is an object, then writes it, and S3 does both at once."""


@dataclass(frozen=True)
class Bucket:
    """An address and the options that reach it."""

    url: str
    options: dict[str, Any]


@dataclass(frozen=True)
class ObjectServer:
    """moto's, which answers S3's requests over HTTP."""

    endpoint: str

    def new_bucket(self) -> Bucket:
        options = {
            "key": "nobody",
            "secret": "nothing",
            "endpoint_url": self.endpoint,
            "client_kwargs": {"region_name": "us-east-1"},
        }
        name = f"bucket-{secrets.token_hex(6)}"
        files = import_package("s3fs", "the tests").S3FileSystem(**options, skip_instance_cache=True)
        files.call_s3("create_bucket", Bucket=name)
        return Bucket(f"s3://{name}/runs/here", options)


@contextmanager
def object_server() -> Iterator[ObjectServer]:
    """A server on a free port, up to the end of the block."""
    command = [sys.executable, "-W", "ignore", "-c", _SERVER]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stderr is not None
            for line in process.stderr:
                found = re.search(r"Running on (http://[\d.:]+)", line)
                if found:
                    break
            else:
                raise AssertionError("the server of objects has ended")
            # It tells of every request, and a pipe that nobody reads would stop it.
            threading.Thread(target=process.stderr.read, daemon=True).start()
            yield ObjectServer(found[1])
        finally:
            process.terminate()
            process.wait()
