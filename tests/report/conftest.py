"""A folder as a comparison writes it, for the tests of this folder."""

from pathlib import Path
from typing import Any

import pytest
from report_folders import Folder, Plan, Write, write_folder


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a folder; keyword arguments are the fields of :class:`Plan`."""

    def make(**departures: Any) -> Folder:
        return write_folder(tmp_path / "run", Plan(**departures))

    return make
