"""The six ways in which threads add to one vector, and the locks of two of them, made of atomic words.

Fairness: the mutex and the spin locks of coordinates are test-and-set locks, without any: who asks first when a lock is
free has it. The reader-writer lock prefers writers: while one waits no further reader enters; among writers there is no
order. A thread that waits spins with the processor's pause instruction, then yields its core at each turn, so that a
holder without a core gets one.
"""

from typing import Any, Final, Literal, TypeAlias, get_args

from thinwire.config import suggest
from thinwire.errors import ConfigError
from thinwire.kernels.jit.compiling import helper
from thinwire.kernels.jit.hints import always_inline
from thinwire.kernels.shared_memory.atomics import (
    add_exchanging,
    add_racy,
    exchange_acquire,
    exchange_release,
    fetch_and_add,
    load_shared,
    store_release,
    test_and_set,
    wait,
)

Variant: TypeAlias = Literal["mutex", "rw-lock", "spin-lock", "compare-and-swap", "fetch-and-add", "racy"]
"""How a thread changes what others change, too.

- ``mutex``: one lock for the vector, held while a step reads its coordinates, and again while it adds to them.
- ``rw-lock``: the same, but threads that read do not exclude each other.
- ``spin-lock``: a lock for each coordinate, held while it is added to; reading takes none.
- ``compare-and-swap``: a loop for each coordinate, until nobody came between.
- ``fetch-and-add``: one atomic operation for each coordinate (Hogwild!'s own).
- ``racy``: a load, an addition, a store; what others add between them is lost.
"""

VARIANTS: Final[tuple[Variant, ...]] = get_args(Variant)
LOSSLESS: Final[tuple[Variant, ...]] = VARIANTS[:-1]
"""Those that lose no addition."""

_MUTEX, _READERS, _SPIN, _EXCHANGE, _FETCH, _RACY = range(6)

LINE = 16
"""Words of 8 bytes between two that must not share a line of the cache, also where lines are fetched in pairs."""

_HELD, _STATE, _WAITING = 0, LINE, 2 * LINE
NUM_GATE_WORDS = 3 * LINE
"""Words of the mutex and of the reader-writer lock: held; number of readers, or -1 for a writer; writers that wait."""

ARRIVED, STOP = 0, LINE
NUM_CONTROL_WORDS = 2 * LINE
"""Words with which threads begin together, and are told to end."""


@helper
def begin_together(control: Any, num_threads: int) -> None:
    """Wait until so many threads have come here."""
    fetch_and_add(control, ARRIVED, 1)
    turns = 0
    while load_shared(control, ARRIVED) < num_threads:
        turns = wait(turns)


@helper
def take_lock(locks: Any, position: int) -> None:
    """Wait until a lock is free, and take it."""
    turns = 0
    while test_and_set(locks, position) != 0:
        while load_shared(locks, position) != 0:
            turns = wait(turns)


@helper
def _begin_reading(gates: Any) -> None:
    turns = 0
    while True:
        state = load_shared(gates, _STATE)
        if state >= 0 and load_shared(gates, _WAITING) == 0 and exchange_acquire(gates, _STATE, state, state + 1):
            return
        turns = wait(turns)


@helper
def _begin_writing(gates: Any) -> None:
    fetch_and_add(gates, _WAITING, 1)
    turns = 0
    while load_shared(gates, _STATE) != 0 or not exchange_acquire(gates, _STATE, 0, -1):
        turns = wait(turns)
    fetch_and_add(gates, _WAITING, -1)


@helper
def _end_reading(gates: Any) -> None:
    # What was read may not be read later than this, and a plain addition to the word would allow it.
    state = load_shared(gates, _STATE)
    while not exchange_release(gates, _STATE, state, state - 1):
        state = load_shared(gates, _STATE)


@helper
def read_entries(variant: int, shared: Any, gates: Any, indices: Any, out: Any) -> None:
    """``out[j] = shared[indices[j]]``: under the lock of ``mutex`` or ``rw-lock``, otherwise without any."""
    if variant == _MUTEX:
        take_lock(gates, _HELD)
    if variant == _READERS:
        _begin_reading(gates)
    for j in range(indices.size):
        out[j] = load_shared(shared, indices[j])
    if variant == _READERS:
        _end_reading(gates)
    if variant == _MUTEX:
        store_release(gates, _HELD, 0)


@helper
def add_entries(variant: int, shared: Any, locks: Any, gates: Any, indices: Any, amounts: Any) -> None:
    """``shared[indices[j]] += amounts[j]`` for every ``j``, in that order."""
    if variant == _FETCH:
        for j in range(indices.size):
            fetch_and_add(shared, indices[j], amounts[j])
    elif variant == _EXCHANGE:
        for j in range(indices.size):
            add_exchanging(shared, indices[j], amounts[j])
    elif variant == _SPIN:
        for j in range(indices.size):
            take_lock(locks, indices[j])
            add_racy(shared, indices[j], amounts[j])
            store_release(locks, indices[j], 0)
    else:
        if variant == _MUTEX:
            take_lock(gates, _HELD)
        if variant == _READERS:
            _begin_writing(gates)
        for j in range(indices.size):
            add_racy(shared, indices[j], amounts[j])
        if variant == _READERS:
            store_release(gates, _STATE, 0)
        if variant == _MUTEX:
            store_release(gates, _HELD, 0)


@helper
def add_entry(variant: int, shared: Any, locks: Any, gates: Any, position: int, amount: Any) -> None:
    """``shared[position] += amount``, under the variant's lock if it has one."""
    always_inline()
    if variant == _FETCH:
        fetch_and_add(shared, position, amount)
    elif variant == _EXCHANGE:
        add_exchanging(shared, position, amount)
    elif variant == _RACY:
        add_racy(shared, position, amount)
    elif variant == _SPIN:
        take_lock(locks, position)
        add_racy(shared, position, amount)
        store_release(locks, position, 0)
    elif variant == _MUTEX:
        take_lock(gates, _HELD)
        add_racy(shared, position, amount)
        store_release(gates, _HELD, 0)
    else:
        _begin_writing(gates)
        add_racy(shared, position, amount)
        store_release(gates, _STATE, 0)


def number_of(variant: Variant) -> int:
    """The number by which kernels know a variant.

    Raises:
        ConfigError: there is none of that name.

    Example:
        >>> number_of("racy")
        5
    """
    if variant not in VARIANTS:
        raise ConfigError(f"unknown variant {variant!r}{suggest(str(variant), list(VARIANTS))}")
    return VARIANTS.index(variant)
