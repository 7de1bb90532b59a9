"""How further processes begin, in an interpreter of its own: a server that copies is there once for each process."""

import subprocess
import sys
from pathlib import Path

import pytest

from thinwire.experiments.processes import process_context

SCRIPT = """
import sys
from concurrent.futures import ProcessPoolExecutor


def imported(name):
    return name in sys.modules


if __name__ == "__main__":
    import thinwire
    print(imported("torch.distributed.tensor"))
    from thinwire.experiments.processes import process_context
    with ProcessPoolExecutor(1, mp_context=process_context()) as pool:
        print(pool.submit(imported, "torch._dynamo").result(), pool.submit(imported, "thinwire").result())
"""


@pytest.mark.skipif(process_context().get_start_method() != "forkserver", reason="this system does not copy processes")
def test_they_begin_with_what_takes_long_to_import_and_the_package_alone_is_quick(tmp_path: Path) -> None:
    script = tmp_path / "begins.py"
    script.write_text(SCRIPT)
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=120, check=True)
    # Tensors that are sharded take a second to import, and nothing needs them before somebody has one.
    assert done.stdout.split() == ["False", "True", "True"]
