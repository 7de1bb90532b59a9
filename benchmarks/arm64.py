"""The tests of the kernels and of the wire on an ARM processor, which qemu plays; among them the recorded messages.

Those messages were recorded on x86: where they pass, ARM reads and writes the same bytes. The first run fetches an
arm64 Python from Debian and the packages from PyPI into a folder, 1 GB, which later runs use again. It needs Debian or
one of its kin, with qemu-user-static; not root. Everything is emulated, so that all of it takes hours: give the tests
that you want.

    python benchmarks/arm64.py tests/wire/test_wire_golden.py tests/kernels/test_kernels_rice.py
"""

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
TESTS = ("tests/wire/test_wire_golden.py", "tests/wire", "tests/kernels")

PYTHON = ("python3", "libgomp1", "libstdc++6")
TORCH = "torch==2.8.0"
"""The newest whose wheel for ARM needs no library of NVIDIA's."""

OTHERS = (
    "numpy", "numba", "pytest", "hypothesis", "filelock", "typing-extensions", "sympy", "networkx", "jinja2", "fsspec",
)  # fmt: skip
"""What torch and thinwire need: pip would ask this machine, not the other, which of torch's needs apply."""

WHEELS = (
    "--only-binary=:all:", "--implementation", "cp", "--upgrade", "--no-compile", "--quiet",
    *(part for tag in ("2_28", "2_27", "2_17") for part in ("--platform", f"manylinux_{tag}_aarch64")),
    "--platform", "manylinux2014_aarch64",
)  # fmt: skip


def fetch_system(folder: Path) -> None:
    """Debian's Python for arm64 and the libraries it needs, unpacked below ``system``."""
    apt = folder / "apt"
    for each in ("state/lists/partial", "cache/archives/partial"):
        (apt / each).mkdir(parents=True, exist_ok=True)
    (apt / "nothing-installed").touch()
    settings = {
        "APT::Architecture": "arm64",
        "APT::Architectures::": "arm64",
        "Dir::State": apt / "state",
        "Dir::State::status": apt / "nothing-installed",
        "Dir::Cache": apt / "cache",
        "Debug::NoLocking": "1",
    }
    command = [
        "apt-get",
        "-qq",
        "-y",
        *(part for name, value in settings.items() for part in ("-o", f"{name}={value}")),
    ]
    subprocess.run([*command, "update"], check=True)
    subprocess.run([*command, "--no-install-recommends", "--download-only", "install", *PYTHON], check=True)
    for package in sorted((apt / "cache/archives").glob("*.deb")):
        subprocess.run(["dpkg", "-x", package, folder / "system"], check=True)


def fetch_packages(folder: Path, version: str) -> None:
    """The packages' wheels for arm64, installed below ``packages``."""
    command = [sys.executable, "-m", "pip", "install", *WHEELS, "--python-version", version]
    command += ["--target", str(folder / "packages")]
    subprocess.run([*command, "--no-deps", TORCH], check=True)
    subprocess.run([*command, *OTHERS], check=True)


def interpreter(folder: Path) -> Path:
    """The Python that was unpacked."""
    (found,) = (folder / "system/usr/bin").glob("python3.??")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tests", nargs="*", default=TESTS, help="what pytest is given; default: %(default)s")
    parser.add_argument("--folder", type=Path, default=ROOT / "runs/arm64", help="default: %(default)s")
    arguments = parser.parse_args()
    folder = arguments.folder.absolute()
    emulator = shutil.which("qemu-aarch64-static") or shutil.which("qemu-aarch64")
    if emulator is None:
        raise SystemExit("qemu-aarch64-static is not installed; on Debian: apt-get install qemu-user-static")
    if not (folder / "system/usr/bin").exists():
        fetch_system(folder)
    python = interpreter(folder)
    if not (folder / "packages/numba").exists():
        fetch_packages(folder, python.name.removeprefix("python"))
    command = [emulator, "-L", str(folder / "system"), str(python), "-m", "pytest", "-p", "no:cacheprovider"]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(folder / "packages")]),
        "NUMBA_CACHE_DIR": str(folder / "kernels"),
    }
    raise SystemExit(subprocess.run([*command, *arguments.tests], cwd=ROOT, env=environment).returncode)


if __name__ == "__main__":
    main()
