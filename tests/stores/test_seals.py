"""What opens a seal, and what does not: nothing but the object as it was made, where it was made for."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from thinwire.errors import ConfigError, SealError, StoreError
from thinwire.stores import Place, RunKey, Seal, SharedKeySeal, SignatureSeal

PLACE = Place("run-7", "message", 3, 1)
PAIRS = [SignatureSeal.create_pair() for _ in range(3)]
ROSTER = {rank: public for rank, (_, public) in enumerate(PAIRS)}
KEY = RunKey(bytes(range(32)))


def shared(rank: int) -> Seal:
    return SharedKeySeal(KEY)


def signed(rank: int) -> Seal:
    return SignatureSeal(rank, PAIRS[rank][0], ROSTER)


@pytest.fixture(params=[shared, signed])
def seal_of(request: pytest.FixtureRequest) -> Callable[[int], Seal]:
    found: Callable[[int], Seal] = request.param
    return found


@pytest.mark.parametrize("contents", [b"", b"\0", bytes(range(256)) * 100, memoryview(b"a view")])
def test_what_was_sealed_opens_where_it_belongs(contents: bytes, seal_of: Callable[[int], Seal]) -> None:
    seal = seal_of(1)
    assert isinstance(seal, Seal)
    sealed = seal.seal(contents, PLACE)
    assert len(sealed) == len(contents) + seal.num_bytes
    assert seal_of(0).open(sealed, PLACE) == bytes(contents)
    assert seal_of(2).open(memoryview(sealed), PLACE) == bytes(contents)


def test_every_flipped_bit_is_refused(seal_of: Callable[[int], Seal]) -> None:
    sealed = seal_of(1).seal(b"gradients", PLACE)
    for place in range(8 * len(sealed)):
        damaged = bytearray(sealed)
        damaged[place // 8] ^= 1 << place % 8
        with pytest.raises(SealError, match="does not belong here"):
            seal_of(0).open(bytes(damaged), PLACE)


def test_every_other_length_is_refused(seal_of: Callable[[int], Seal]) -> None:
    sealed = seal_of(1).seal(b"gradients", PLACE)
    for length in range(len(sealed)):
        with pytest.raises(SealError):
            seal_of(0).open(sealed[:length], PLACE)
    for more in (b"\0", b"gradients", sealed):
        with pytest.raises(SealError):
            seal_of(0).open(sealed + more, PLACE)
        with pytest.raises(SealError):
            seal_of(0).open(more + sealed, PLACE)


def test_at_another_place_it_does_not_open(seal_of: Callable[[int], Seal]) -> None:
    sealed = seal_of(1).seal(b"gradients", PLACE)
    others = [
        replace(PLACE, round=4), replace(PLACE, round=2), replace(PLACE, rank=0), replace(PLACE, rank=None),
        replace(PLACE, run="run-8"), replace(PLACE, kind="closed"),
        Place("run-", "7message", 3, 1), Place("run-7m", "essage", 3, 1),
    ]  # fmt: skip
    for other in others:
        with pytest.raises(SealError, match="does not belong here"):
            seal_of(0).open(sealed, other)


def test_texts_of_a_place_do_not_run_together() -> None:
    places = [Place("ab", "c", 1), Place("a", "bc", 1), Place("", "abc", 1), Place("abc", "", 1)]
    assert len({place.to_bytes() for place in places}) == len(places)


def test_another_key_does_not_open_it() -> None:
    sealed = SharedKeySeal(RunKey.create()).seal(b"gradients", PLACE)
    with pytest.raises(SealError, match="made with another key"):
        SharedKeySeal(KEY).open(sealed, PLACE)
    secret, public = SignatureSeal.create_pair()
    stranger = SignatureSeal(1, secret, {1: public}).seal(b"gradients", PLACE)
    with pytest.raises(SealError, match="not made by worker 1"):
        signed(0).open(stranger, PLACE)


def test_kinds_of_seals_are_told_apart() -> None:
    with pytest.raises(SealError, match="same kind of seal"):
        signed(0).open(shared(1).seal(bytes(200), PLACE), PLACE)
    with pytest.raises(SealError, match="same kind of seal"):
        shared(0).open(signed(1).seal(bytes(200), PLACE), PLACE)


def test_no_worker_signs_for_another() -> None:
    with pytest.raises(ConfigError, match="worker 0 cannot seal message of worker 1"):
        signed(0).seal(b"", PLACE)
    of_all = replace(PLACE, rank=None)
    assert signed(1).open(signed(2).seal(b"closed", of_all), of_all) == b"closed"
    moved = signed(2).seal(b"gradients", replace(PLACE, rank=2))
    relabelled = moved[:4] + (1).to_bytes(4, "little") + moved[8:]
    for forged in (moved, relabelled):
        with pytest.raises(SealError):
            signed(0).open(forged, PLACE)


def test_whoever_left_the_roster_is_a_stranger() -> None:
    seal = SignatureSeal(0, PAIRS[0][0], {rank: ROSTER[rank] for rank in (0, 1)})
    place = replace(PLACE, rank=None)
    with pytest.raises(SealError, match="worker 2 signed it, who may not"):
        seal.open(signed(2).seal(b"", place), place)


def test_keys_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ConfigError, match="does not fit its public key"):
        SignatureSeal(1, PAIRS[0][0], ROSTER)
    with pytest.raises(ConfigError, match="a key of 3 bytes"):
        SignatureSeal(1, b"abc", ROSTER)
    with pytest.raises(ConfigError, match="rounds and ranks are 0 or more"):
        shared(0).seal(b"", replace(PLACE, round=-1))
    with pytest.raises(ConfigError, match="rounds and ranks are 0 or more"):
        shared(0).seal(b"", replace(PLACE, rank=-1))


def test_a_seal_has_the_bytes_of_the_format() -> None:
    """As docs/object-store.md has it, made with nothing of thinwire."""
    import hashlib
    import struct

    secret = bytes(range(32))
    sub_key = hashlib.blake2b(b"seal", key=secret, digest_size=32, person=b"thinwire key 1").digest()
    place = struct.pack("<Qq", 3, 1) + struct.pack("<I", 5) + b"run-7" + struct.pack("<I", 7) + b"message"
    state = hashlib.blake2b(b"TwS\x11" + place, key=sub_key, digest_size=32, person=b"thinwire seal 1")
    state.update(b"contents")
    assert shared(0).seal(b"contents", PLACE) == b"TwS\x11" + state.digest() + b"contents"


def test_a_key_in_a_file(tmp_path: Path) -> None:
    path, key = tmp_path / "below" / "run.key", RunKey.create()
    key.write(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert RunKey.from_file(path) == key
    with pytest.raises(ConfigError, match="is not written over"):
        RunKey.create().write(path)
    assert RunKey.from_file(path) == key
    os.chmod(path, 0o640)
    with pytest.raises(ConfigError, match=r"others than its owner may read.*mode 0640.*chmod 600"):
        RunKey.from_file(path)
    with pytest.raises(ConfigError, match="cannot be read from"):
        RunKey.from_file(tmp_path / "none")
    for contents in (b"", b"00" * 31, b"00" * 33, b"0g" * 32, bytes(range(200, 232))):
        other = tmp_path / "other"
        other.write_bytes(contents)
        other.chmod(0o600)
        with pytest.raises(ConfigError, match="64 digits"):
            RunKey.from_file(other)


def test_keys_tell_nothing() -> None:
    key = RunKey.create()
    assert key.to_hex() not in repr(SharedKeySeal(key)) + repr(key)
    assert PAIRS[0][0].hex() not in repr(signed(0))
    assert repr(PAIRS[0][0]) not in repr(signed(0))
    with pytest.raises(ConfigError, match="64 characters") as error:
        RunKey.from_hex("g" + key.to_hex()[1:])
    assert key.to_hex()[1:] not in str(error.value)
    with pytest.raises(ConfigError, match="a run's key of 5 bytes"):
        RunKey(b"short")
    assert len({RunKey.create().secret for _ in range(10)}) == 10
    assert len({key.derive(purpose) for purpose in ("seal", "snapshot", "")} | {key.secret}) == 4


def test_it_is_an_error_of_stores() -> None:
    assert issubclass(SealError, StoreError)
