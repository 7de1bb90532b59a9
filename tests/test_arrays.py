"""Memory is used again, and never while anything still refers to it."""

import ast
import gc
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import thinwire
from thinwire.arrays import CPU, Pool, array_of, copy_of, empty_array, zeros

F32 = np.dtype(np.float32)
LARGE = 1 << 19


def test_memory_returns_when_the_last_reference_is_gone() -> None:
    pool = Pool()
    array = pool.empty(LARGE, F32)
    place = array.ctypes.data
    tensor = torch.from_numpy(array)
    part = tensor[5:100]
    del array, tensor
    other = pool.empty(LARGE, F32)
    assert other.ctypes.data != place
    del part
    gc.collect()
    assert pool.empty(LARGE, F32).ctypes.data == place


VIEWS: dict[str, Callable[[Any], Any]] = {
    "slice": lambda array: array[7:],
    "reshaped": lambda array: array.reshape(2, -1),
    "reinterpreted": lambda array: array.view(np.uint8)[3:],
    "slice of slice": lambda array: array[7:][7:],
    "through torch": lambda array: torch.from_numpy(array).view(torch.uint8).numpy()[9:],
}


@pytest.mark.parametrize("view", VIEWS)
def test_a_view_keeps_the_memory(view: str) -> None:
    pool = Pool()
    array = pool.empty(LARGE, F32)
    place = array.ctypes.data
    kept = VIEWS[view](array)
    del array
    gc.collect()
    assert pool.empty(LARGE, F32).ctypes.data != place
    del kept
    gc.collect()
    assert pool.empty(LARGE, F32).ctypes.data == place


@pytest.mark.parametrize("count", [LARGE // 2, LARGE, LARGE + 5, 9 * LARGE + 1])
def test_large_arrays_begin_at_a_line_of_the_cache(count: int) -> None:
    pool = Pool()
    kept = [pool.empty(count, F32) for _ in range(3)]
    assert all(array.ctypes.data % 64 == 0 and array.size == count for array in kept)


def test_what_is_not_wanted_for_a_while_is_given_up() -> None:
    pool = Pool()
    pool.empty(4 * LARGE, F32)
    for _ in range(100):
        pool.empty(LARGE, F32)
    assert 4 * LARGE <= pool.num_free_bytes() <= 5 * LARGE


def test_a_loop_takes_no_more_memory_than_its_first_turn() -> None:
    pool = Pool()
    places = set()
    for _ in range(20):
        kept = [pool.empty(LARGE + number, F32) for number in range(3)]
        places |= {array.ctypes.data for array in kept}
        del kept
    assert len(places) == 3


def test_threads_never_share_memory() -> None:
    pool, failures = Pool(), []

    def work(number: int) -> None:
        for _ in range(200):
            array = pool.empty(LARGE // 2, F32)
            array[::4096] = number
            if not (array[::4096] == number).all():
                failures.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_small_arrays_and_special_contents() -> None:
    assert empty_array(0, np.int64).shape == (0,)
    empty_array(LARGE, np.float32).fill(3.0)
    assert not zeros(LARGE, CPU).any()
    x = torch.arange(2 * LARGE, dtype=torch.float32)[::2]
    assert torch.equal(copy_of(x), x)
    assert copy_of(x).is_contiguous()
    assert copy_of(x.to(torch.bfloat16)).dtype == torch.bfloat16


def test_a_forked_process_has_memory_of_its_own() -> None:
    mine = zeros(1 << 19, torch.device("cpu"))
    free = zeros(1 << 19, torch.device("cpu"))
    free.fill_(3.0)
    del free
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        # Threads of OpenMP, which tests before this one may have started, are not in the child, and torch would wait.
        torch.set_num_threads(1)
        array_of(mine)[:] = 7.0
        other = array_of(zeros(1 << 19, torch.device("cpu")))
        other[:] = 9.0
        os.write(write, b"%d" % int(other[0]))
        os._exit(0)
    os.close(write)  # a child that ends without a word is not waited for
    assert os.read(read, 1) == b"9"
    os.close(read)
    os.waitpid(child, 0)
    assert not mine.any()


SOURCES = sorted(Path(thinwire.__file__).parent.rglob("*.py"))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_nothing_is_copied_to_a_tensors_device_while_the_host_waits(path: Path) -> None:
    """``x.to(other.device)`` waits for all that the device was given before; ``arrays.to_device`` does not."""
    if path.name == "arrays.py":
        return
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "to":
            plain = [each for each in node.args[:1] if isinstance(each, ast.Attribute) and each.attr == "device"]
            assert not plain, f"line {node.lineno}: use thinwire.arrays.to_device"
