"""The files for launchers: what can be validated here is, and two hosts are two network namespaces."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

LAUNCHERS = Path(__file__).parents[2] / "examples" / "launchers"


def test_kubernetes_would_accept_its_file() -> None:
    validate = pytest.importorskip("kubernetes_validate", reason="pip install kubernetes-validate")
    yaml = pytest.importorskip("yaml")
    documents = list(yaml.safe_load_all((LAUNCHERS / "kubernetes.yaml").read_text()))
    assert [each["kind"] for each in documents] == ["Service", "Job"]
    for each in documents:
        validate.validate(each, "1.30", strict=True)


@pytest.fixture
def hosts() -> Iterator[list[str]]:
    """Two namespaces with one cable between them, 10.91.0.1 and 10.91.0.2, and no way to anything else."""
    names = [f"thinwire-{os.getpid()}-{number}" for number in range(2)]
    commands = [
        f"ip netns add {names[0]}",
        f"ip netns add {names[1]}",
        f"ip -n {names[0]} link add eth0 type veth peer name eth0 netns {names[1]}",
        *(f"ip -n {name} addr add 10.91.0.{number}/24 dev eth0" for number, name in enumerate(names, start=1)),
        *(f"ip -n {name} link set {device} up" for name in names for device in ("lo", "eth0")),
    ]
    try:
        for command in commands:
            done = subprocess.run(command.split(), capture_output=True, text=True, check=False)
            if done.returncode:
                pytest.skip(f"there can be no network namespaces here: {done.stderr.strip()}")
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


@pytest.mark.skipif(shutil.which("ip") is None or os.getuid() != 0, reason="network namespaces need root and iproute2")
def test_two_hosts_train_together(hosts: list[str]) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "GLOO_SOCKET_IFNAME": "eth0", "OMP_NUM_THREADS": "1"}
    script = LAUNCHERS.parent / "one_line.py"
    processes = [
        subprocess.Popen(
            ["ip", "netns", "exec", name, LAUNCHERS / "two_hosts.sh", str(rank), "10.91.0.1", script],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for rank, name in enumerate(hosts)
    ]  # fmt: skip
    try:
        said = [process.communicate(timeout=240) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], said
    assert re.search(r"accuracy 0\.9\d\d, [\d,]+ message bytes", said[0][0])


@pytest.mark.parametrize("name", ["kubernetes.yaml", "skypilot.yaml", "slurm_submitit.py", "two_hosts.sh"])
def test_scripts_that_launchers_start_exist(name: str) -> None:
    text = (LAUNCHERS / name).read_text()
    scripts = re.findall(r"examples/(?!launchers)[\w/]+\.py", text) + re.findall(r'"(\w+\.py)"', text)
    assert scripts
    assert all((LAUNCHERS.parent / Path(each).name).exists() for each in scripts)
