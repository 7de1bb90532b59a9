"""One server of objects for the suite, and every store in turn."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from object_server import ObjectServer, object_server
from store_cases import STORES, StoreCase


class Servers:
    """Starts one when it is first asked for."""

    def __init__(self) -> None:
        self.stack = ExitStack()
        self.found: ObjectServer | None = None

    def __call__(self) -> ObjectServer:
        if self.found is None:
            self.found = self.stack.enter_context(object_server())
        return self.found


@pytest.fixture(scope="session")
def server() -> Iterator[Servers]:
    servers = Servers()
    with servers.stack:
        yield servers


@pytest.fixture(params=STORES)
def case(request: pytest.FixtureRequest, tmp_path: Path, server: Servers) -> StoreCase:
    return STORES[request.param](tmp_path, server)
