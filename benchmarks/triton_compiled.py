"""Every Triton kernel, compiled for GPUs that need not be here: registers, local memory and seconds of each.

Operations are called on the CPU's tensors, and what they would launch is compiled: for NVIDIA's sm_80, sm_90 and sm_100
and AMD's gfx942, with the options of a launch. A kernel that keeps anything in local memory, or spills registers, is an
error, as is one that takes more registers than ``--most`` allows. A kernel that no operation launches is told.

    python benchmarks/triton_compiled.py
    python benchmarks/triton_compiled.py --targets sm_90 --once   # each kernel once, as the tests do it
"""

import argparse
import ast
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

import thinwire
from thinwire.kernels.jit import launches

TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "sm_100": GPUTarget("cuda", 100, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}
_KERNELS = Path(thinwire.__file__).parent / "kernels"
_TYPES = {
    torch.float32: "*fp32", torch.float64: "*fp64", torch.bfloat16: "*bf16", torch.int64: "*i64", torch.int32: "*i32",
    torch.int16: "*i16", torch.uint8: "*u8", torch.bool: "*i1",
}  # fmt: skip


@dataclass(frozen=True)
class Launch:
    """What is compiled: types and what is known of the arguments, as Triton tells them apart."""

    kernel: Any
    types: tuple[tuple[str, bool, bool], ...]
    constants: tuple[tuple[str, int], ...]
    num_warps: int

    @property
    def name(self) -> str:
        """The file and the function."""
        return f"{self.kernel.fn.__module__.removeprefix('thinwire.kernels.')}.{self.kernel.fn.__name__}"


@dataclass(frozen=True)
class Compiled:
    """What the compiler says of a kernel on a target."""

    registers: int
    local_bytes: int
    seconds: float


def launched(operations: Callable[[], Sequence[Callable[[], object]]]) -> list[Launch]:
    """What operations launch, each kind once; they must not be imported before."""
    found: dict[Any, Launch] = {}

    def record(
        kernel: Any, programs: int, arguments: Sequence[Any], constants: Mapping[str, int], num_warps: int = 4
    ) -> None:
        if programs:
            made = Launch(kernel, tuple(map(_kind, arguments)), tuple(constants.items()), num_warps)
            found.setdefault((made.name, made.types, made.constants, num_warps), made)

    launches.launch = record
    for operation in operations():
        operation()
    return list(found.values())


def _kind(argument: Any) -> tuple[str, bool, bool]:
    """The type, whether it is known to be a multiple of 16, and whether it is 1."""
    if isinstance(argument, Tensor):
        return _TYPES[argument.dtype], True, False
    if isinstance(argument, float):
        return "fp32", False, False
    kind = "i32" if -(2**31) <= argument < 2**31 else "i64" if argument < 2**63 else "u64"
    return kind, argument % 16 == 0, argument == 1


def compiled(made: Launch, target: GPUTarget) -> Compiled:
    """Compile for a target."""
    names, signature, constants, known = made.kernel.arg_names, {}, {}, {}
    for place, (kind, is_round, is_one) in enumerate(made.types):
        specializes = place not in made.kernel.do_not_specialize and names[place] not in made.kernel.do_not_specialize
        if is_one and specializes:
            signature[names[place]], constants[(place,)] = "constexpr", 1
            continue
        signature[names[place]] = kind
        if is_round and specializes:
            known[(place,)] = [["tt.divisibility", 16]]
    for name, value in made.constants:
        signature[name], constants[(names.index(name),)] = "constexpr", value
    begin = time.perf_counter()
    source = ASTSource(fn=made.kernel, signature=signature, constexprs=constants, attrs=known)
    options = {"num_warps": made.num_warps, "enable_fp_fusion": False}
    result = triton.compile(source, target=target, options=options)
    seconds = time.perf_counter() - begin
    if "cubin" in result.asm:
        return Compiled(*_of_cubin(result.asm["cubin"]), seconds)
    text = result.asm["amdgcn"]
    spills = 4 * _number(r"\.vgpr_spill_count:\s+(\d+)", text)
    local = _number(r"\.private_segment_fixed_size:\s+(\d+)", text)
    return Compiled(_number(r"\.vgpr_count:\s+(\d+)", text), spills + local, seconds)


def _of_cubin(cubin: bytes) -> tuple[int, int]:
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        said = subprocess.run([tool, "-res-usage", file.name], capture_output=True, text=True, check=True)
    text = said.stdout + said.stderr
    return _number(r"REG:(\d+)", text), _number(r"LOCAL:(\d+)", text) + _number(r"STACK:(\d+)", text)


def _number(pattern: str, text: str) -> int:
    found = re.search(pattern, text)
    if found is None:
        raise ValueError(f"{pattern} is not in what the compiler says: {text[:200]}")
    return int(found[1])


def never_launched(made: Sequence[Launch]) -> list[str]:
    """Kernels that some file launches, and no operation did."""
    names = {launch.name for launch in made}
    started = set()
    for path in sorted(_KERNELS.rglob("*_triton.py")):
        tree = ast.parse(path.read_text())
        # By the name in this file: the whole name, of kernels and of the modules that hold them.
        homes = {
            alias.asname or alias.name: f"{(node.module or '').removeprefix('thinwire.kernels.')}.{alias.name}"
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
        }
        here = ".".join(path.relative_to(_KERNELS).with_suffix("").parts)
        homes |= {node.name: f"{here}.{node.name}" for node in tree.body if isinstance(node, ast.FunctionDef)}
        calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) == "launch"]
        handed = {ast.unparse(call.args[0]) for call in calls}
        for name in handed:
            first, dot, rest = name.partition(".")
            started.add(homes[first] + dot + rest)
    return sorted(started - names)


def main() -> int:
    """Print the table; 1 if a kernel does not compile, spills, takes too many registers or was left out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--targets", nargs="*", default=list(TARGETS), choices=list(TARGETS))
    parser.add_argument("--once", action="store_true", help="each kernel as it is launched first")
    parser.add_argument("--most", type=int, default=255, help="registers that a thread may take")
    args = parser.parse_args()
    from triton_calls import operations

    # By Triton's own setting, which all its versions read.
    os.environ["TRITON_ALWAYS_COMPILE"] = "1"
    made = launched(operations)
    bad = [f"{name} is launched by no operation of triton_calls.py" for name in never_launched(made)]
    if args.once:
        made = list({each.name: each for each in reversed(made)}.values())
    print(f"{'kernel':58}{'constants':42}" + "".join(f"{target:>22}" for target in args.targets))
    print(f"{'':100}" + "".join(f"{'registers, local, s':>22}" for _ in args.targets))
    for each in sorted(made, key=lambda each: each.name):
        cells = []
        for name in args.targets:
            try:
                found = compiled(each, TARGETS[name])
            except Exception as error:  # the compiler raises what it likes
                bad.append(f"{each.name} {dict(each.constants)} on {name}: {type(error).__name__}: {str(error)[-300:]}")
                cells.append(f"{'failed':>22}")
                continue
            cells.append(f"{f'{found.registers}, {found.local_bytes}, {found.seconds:.1f}':>22}")
            if found.local_bytes or found.registers > args.most:
                bad.append(f"{each.name} {dict(each.constants)} on {name}: {found}")
        constants = ",".join(f"{name}={value}" for name, value in each.constants)
        print(f"{each.name:58}{constants:42}" + "".join(cells), flush=True)
    print("\n".join(bad), file=sys.stderr)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
