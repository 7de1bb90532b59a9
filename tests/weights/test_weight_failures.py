"""Lost, damaged, repeated and foreign objects: noticed, told, and made good by a snapshot where there is one."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import thinwire
from thinwire.errors import ConfigError, DivergenceError, ProtocolError, StoreError, ThinwireError, WireError
from thinwire.weights import MemoryStore, WeightFollower, WeightPublisher
from thinwire.weights.messages import Head, head_from_bytes


def update(step: int) -> str:
    return f"weights/updates/{step:012d}/head"


def snapshot(step: int) -> str:
    return f"weights/snapshots/{step:012d}/head"


def get(store: MemoryStore, name: str) -> bytes:
    contents = store.get(name, 1 << 20)
    assert contents is not None
    return contents


class Pair:
    """A publisher, and a follower that has what was published up to a step."""

    def __init__(self, *, snapshot_every: int = 0, steps: int = 3, heal: bool = True) -> None:
        self.store = MemoryStore()
        self.trained = {"w": torch.linspace(-1, 1, 300).bfloat16(), "b": torch.zeros(5)}
        self.served = {name: torch.zeros_like(each) for name, each in self.trained.items()}
        self.publisher: WeightPublisher = thinwire.sync_weights(
            self.trained, to=self.store, snapshot_every=snapshot_every
        )
        self.follower: WeightFollower = thinwire.sync_weights(self.served, of=self.store, heal=heal)
        for _ in range(steps):
            self.publish()
        self.follower.follow()

    def publish(self, *, snapshot: bool = False) -> int:
        step = self.publisher.step
        self.trained["w"][step % 300] += 0.25
        self.trained["b"][step % 5] -= 1
        return self.publisher.publish(snapshot=snapshot).step

    def copy(self) -> dict[str, Tensor]:
        return {name: each.clone() for name, each in self.served.items()}

    def equal(self) -> bool:
        return all(torch.equal(self.trained[name], self.served[name]) for name in self.trained)

    def refused(self, error: type[ThinwireError], match: str) -> None:
        """The follower says what is wrong, and its weights are as they were."""
        before = self.copy()
        with pytest.raises(error, match=match):
            self.follower.follow()
        assert all(torch.equal(before[name], self.served[name]) for name in before)

    def heals(self, reason: str) -> None:
        """With the next snapshot the follower has the weights, and says why it took it."""
        step = self.publish(snapshot=True)
        told = self.follower.follow()
        assert told.snapshot == told.step == step
        assert reason in told.reason
        assert self.equal()
        self.publish()
        assert self.follower.follow().snapshot is None
        assert self.equal()


@pytest.mark.parametrize("num_after", [0, 1])
def test_a_lost_update(num_after: int) -> None:
    pair = Pair()
    lost = pair.publish()
    for _ in range(num_after):
        pair.publish()
    pair.store.delete(update(lost))
    pair.refused(ProtocolError, "is not in the store")
    pair.heals("is not in the store")


def test_an_update_that_is_repeated_or_in_the_place_of_another() -> None:
    pair = Pair()
    pair.publish()
    pair.publish()
    fourth, fifth = get(pair.store, update(4)), get(pair.store, update(5))
    pair.store.put(update(4), fifth)
    pair.refused(ProtocolError, "holds step 5, where 4 was expected")
    pair.store.put(update(4), get(pair.store, update(3)))
    pair.refused(ProtocolError, "holds step 3, where 4 was expected")
    pair.store.put(update(4), fourth)
    assert pair.follower.follow().num_updates == 2
    assert pair.equal()


def test_each_damaged_byte_of_an_update_is_noticed() -> None:
    pair = Pair(heal=False)
    pair.publish()
    right = get(pair.store, update(4))
    for place in range(len(right)):
        damaged = bytearray(right)
        damaged[place] ^= 1 << place % 8
        pair.store.put(update(4), bytes(damaged))
        pair.refused(WireError, "damaged|are no message")
    for end in range(len(right)):
        pair.store.put(update(4), right[:end])
        pair.refused(WireError, "damaged|are no message")
    pair.store.put(update(4), right)
    assert pair.follower.follow().num_updates == 1
    assert pair.equal()


@pytest.mark.parametrize("name", ["weights/latest", snapshot(1)])
def test_each_damaged_byte_of_the_others_is_noticed(name: str) -> None:
    pair = Pair(steps=1)
    right = get(pair.store, name)
    for place in range(len(right)):
        damaged = bytearray(right)
        damaged[place] ^= 0x10
        pair.store.put(name, bytes(damaged))
        fresh = {key: torch.zeros_like(each) for key, each in pair.trained.items()}
        with pytest.raises(WireError):
            thinwire.sync_weights(fresh, of=pair.store).follow()
        assert all(not each.any() for each in fresh.values())


def test_a_damaged_update_is_made_good_by_a_snapshot() -> None:
    pair = Pair()
    pair.publish()
    pair.store.put(update(4), get(pair.store, update(4))[:-1])
    pair.refused(WireError, "damaged")
    pair.heals("damaged")


def test_a_damaged_or_missing_part_is_noticed_before_anything_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("thinwire.weights.parts._ENOUGH", 1)
    pair = Pair(steps=2, heal=False)
    pair.publish()
    name = update(3).replace("head", "part-00001")
    right = get(pair.store, name)
    pair.store.delete(name)
    pair.refused(ProtocolError, "though its head is")
    for place in range(len(right)):
        damaged = bytearray(right)
        damaged[place] ^= 1
        pair.store.put(name, bytes(damaged))
        pair.refused(WireError, "its digest is another")
    pair.store.put(name, right)
    assert pair.follower.follow().num_updates == 1
    assert pair.equal()


@pytest.mark.parametrize("damage", [False, True])
def test_of_a_long_update_a_part_breaks_it_off(damage: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("thinwire.weights.parts._ENOUGH", 1)
    monkeypatch.setattr("thinwire.weights.parts._AHEAD", 0)
    pair = Pair()
    pair.publish()
    name = update(4).replace("head", "part-00001")
    right = get(pair.store, name)
    if damage:
        pair.store.put(name, right[:-1])
    else:
        pair.store.delete(name)
    told = pair.follower.follow  # the first snapshot is there, and so are the updates up to the one that is not
    with pytest.raises((WireError, ProtocolError), match=r"damaged|though its head is"):
        told()
    pair.store.put(name, right)
    healed = told()
    assert (healed.snapshot, healed.reason, healed.step) == (1, "an update broke off", 4)
    assert pair.equal()


def test_weights_that_somebody_wrote_to() -> None:
    pair = Pair(heal=False)
    pair.follower.check()
    pair.served["w"][7] += 1
    pair.publish()
    pair.refused(DivergenceError, "somebody wrote to them")
    with pytest.raises(DivergenceError, match="somebody wrote to them"):
        pair.follower.check()
    healing = Pair()
    healing.served["w"][7] += 1
    healing.publish()
    told = healing.follower.follow()
    # The snapshot is the first, and the updates since then are still there.
    assert (told.snapshot, told.num_updates, told.step) == (1, 3, 4)
    assert "somebody wrote" in told.reason
    assert healing.equal()


def test_an_update_of_another_run_of_the_same_model() -> None:
    pair, other = Pair(heal=False), Pair(steps=0)
    other.trained["w"] *= 3
    for _ in range(4):
        other.publish()
    pair.publish()
    pair.store.put(update(4), get(other.store, update(4)))
    pair.refused(DivergenceError, "update 4 is for other weights")
    # Whoever may load a snapshot does, and then stands before the same update.
    healing = thinwire.sync_weights(pair.served, of=pair.store)
    with pytest.raises(DivergenceError, match="update 4 is for other weights"):
        healing.follow()
    assert healing.step == 3
    pair.publish(snapshot=True)
    told = healing.follow()
    assert (told.snapshot, told.num_updates, told.step) == (5, 0, 5)
    assert pair.equal()


def test_a_well_made_update_that_leads_elsewhere() -> None:
    """A head whose digests are right, made by someone who means it."""
    pair = Pair()
    pair.publish()
    head, _ = head_from_bytes(get(pair.store, update(4)), snapshot=False)
    forged = Head(head.layout, head.step, head.chain, head.before, head.after, head.num_changed, body=b"\x00\x00")
    pair.store.put(update(4), forged.to_bytes()[0])
    with pytest.raises(DivergenceError, match="do not have the checksum"):
        pair.follower.follow()
    for body in (b"", b"\x00", b"\x04\x00", b"\x00" * 3, b"\x01\x00\x00\x00", b"\x01\xff\x01\x01\x07\x00"):
        forged = Head(head.layout, head.step, head.chain, head.before, head.after, head.num_changed, body=body)
        pair.store.put(update(4), forged.to_bytes()[0])
        with pytest.raises(WireError):
            pair.follower.follow()
    step = pair.publish(snapshot=True)
    told = pair.follower.follow()
    assert (told.snapshot, told.step) == (step, step)
    assert pair.equal()


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([0, 1, 2, 3]), st.binary(max_size=40)), max_size=3), st.booleans())
def test_any_blocks_are_refused(blocks: list[tuple[int, bytes]], snapshot_: bool) -> None:
    """None of these makes the weights that the head names; all of them are told apart from those that do."""
    pair = Pair(steps=1, heal=False)
    body = b"".join(bytes([way]) + contents for way, contents in blocks)
    if snapshot_:
        head, _ = head_from_bytes(get(pair.store, snapshot(1)), snapshot=True)
        follower = thinwire.sync_weights(pair.served, of=pair.store)
    else:
        pair.publish()
        head, _ = head_from_bytes(get(pair.store, update(2)), snapshot=False)
        follower = pair.follower
    forged, _ = replace(head, body=body).to_bytes()
    pair.store.put(snapshot(1) if snapshot_ else update(2), forged)
    with pytest.raises((WireError, DivergenceError)):
        follower.follow()


def test_without_a_snapshot_torn_weights_are_not_gone_on_with() -> None:
    pair = Pair(heal=False)
    pair.publish()
    right = get(pair.store, update(4))
    head, _ = head_from_bytes(right, snapshot=False)
    forged = Head(head.layout, head.step, head.chain, head.before, head.after, 0, body=b"\x00\x00")
    pair.store.put(update(4), forged.to_bytes()[0])
    with pytest.raises(DivergenceError, match="do not have the checksum"):
        pair.follower.follow()
    pair.store.put(update(4), right)
    pair.refused(DivergenceError, "an update broke off here")


def test_a_store_that_goes_back() -> None:
    pair = Pair()
    before = get(pair.store, "weights/latest")
    pair.publish()
    pair.follower.follow()
    pair.store.put("weights/latest", before)
    pair.refused(ProtocolError, "store's last weights are 3, and step 4 was applied here already")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"b": None}, "'b' is only there"),
        ({"c": torch.zeros(5)}, "'c' is only here"),
        ({"b": torch.zeros(6)}, r"'b' is float32 \[6\] here and float32 \[5\] there"),
        ({"b": torch.zeros(5, dtype=torch.bfloat16)}, r"'b' is bfloat16 \[5\] here and float32 \[5\] there"),
    ],
)
def test_names_types_and_shapes_that_differ(change: dict[str, Tensor | None], said: str) -> None:
    pair = Pair()
    served = {key: each for key, each in {**pair.served, **change}.items() if each is not None}
    before = {key: each.clone() for key, each in served.items()}
    with pytest.raises(ConfigError, match=said):
        thinwire.sync_weights(served, of=pair.store).follow()
    assert all(torch.equal(before[key], served[key]) for key in served)
    pair.served.clear()
    pair.served.update(served)
    with pytest.raises(ConfigError, match="not those that this follower was made with"):
        pair.follower.follow()
    pair.trained.clear()
    pair.trained.update(served)
    step = pair.publisher.step
    with pytest.raises(ConfigError, match="not those that this publisher was made with"):
        pair.publisher.publish()
    assert pair.publisher.step == step


def test_an_order_that_differs_is_refused() -> None:
    pair = Pair()
    with pytest.raises(ConfigError, match="another order"):
        thinwire.sync_weights(dict(reversed(pair.served.items())), of=pair.store).follow()


def test_a_new_follower_begins_with_the_last_snapshot() -> None:
    pair = Pair(snapshot_every=3, steps=8)
    served = {name: torch.zeros_like(each) for name, each in pair.trained.items()}
    follower = thinwire.sync_weights(served, of=pair.store)
    told = follower.follow()
    assert (told.snapshot, told.num_updates, told.step, told.reason) == (7, 1, 8, "the follower is new")
    pair.publish()
    for each in (follower, pair.follower):  # both are on one chain
        assert each.follow().snapshot is None
    assert all(torch.equal(served[name], pair.trained[name]) for name in served)
    assert pair.equal()


def test_a_new_publisher_goes_on_with_the_numbers() -> None:
    pair = Pair(steps=3)
    pair.trained["w"].mul_(2)
    pair.publisher = thinwire.sync_weights(pair.trained, to=pair.store)
    assert pair.publisher.step == 3
    assert pair.publish() == 4
    told = pair.follower.follow()
    assert (told.snapshot, told.step) == (4, 4)
    assert pair.equal()
    pair.publish()
    assert pair.follower.follow().num_updates == 1
    assert pair.equal()


def test_an_update_that_was_written_and_not_told_is_not_gone_on_from() -> None:
    """The publisher ended between an update and the word of it, and began again from an older checkpoint."""
    pair = Pair()
    last = get(pair.store, "weights/latest")
    pair.publish()
    pair.store.put("weights/latest", last)
    assert pair.follower.follow().num_updates == 0
    pair.trained["w"].zero_()
    pair.publisher = thinwire.sync_weights(pair.trained, to=pair.store)
    assert pair.publish() == 5
    told = pair.follower.follow()
    assert (told.snapshot, told.step) == (5, 5)
    assert pair.equal()


def test_two_publishers_at_once_are_noticed() -> None:
    pair = Pair()
    other = thinwire.sync_weights(pair.trained, to=pair.store)
    pair.publish(snapshot=True)
    with pytest.raises(ProtocolError, match="another publisher writes under 'weights'"):
        other.publish()


class Refusing(MemoryStore):
    """Refuses to put an object of this name, or, where it is to, after it has."""

    def __init__(self) -> None:
        super().__init__()
        self.name = ""
        self.written = False

    def put(self, name: str, contents: bytes | memoryview) -> None:
        if name != self.name or self.written:
            super().put(name, contents)
        if name == self.name:
            raise StoreError("the store is full")

    def create(self, name: str, contents: bytes | memoryview) -> bool:
        if name != self.name or self.written:
            assert super().create(name, contents)
        if name == self.name:
            raise StoreError("the store is full")
        return True


@pytest.mark.parametrize("written", [False, True])
@pytest.mark.parametrize("name", ["weights/latest", update(2), snapshot(2)])
def test_a_publisher_whose_store_fails_goes_on_with_a_snapshot(name: str, written: bool) -> None:
    store = Refusing()
    trained = {"w": torch.zeros(100)}
    served = {"w": torch.ones(100)}
    publisher = thinwire.sync_weights(trained, to=store, snapshot_every=1)
    follower = thinwire.sync_weights(served, of=store)
    publisher.publish()
    follower.follow()
    store.name, store.written = name, written
    trained["w"][3] = 7
    with pytest.raises(StoreError, match="full"):
        publisher.publish()
    follower.follow()
    store.name = ""
    trained["w"][4] = 9
    assert publisher.publish().snapshot_num_bytes
    follower.follow()
    assert torch.equal(trained["w"], served["w"])
    trained["w"][5] = 9
    publisher.publish()
    assert follower.follow().num_updates == 1
    assert torch.equal(trained["w"], served["w"])


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_what_is_kept_is_bounded(keep: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("thinwire.weights.parts._ENOUGH", 1)
    store = MemoryStore()
    trained = {"w": torch.zeros(100), "h": torch.zeros(100).bfloat16()}
    publisher = thinwire.sync_weights(trained, to=store, snapshot_every=4, keep_snapshots=keep)
    for step in range(40):
        trained["w"][step] = 1
        publisher.publish()
        names = store.names("")
        snapshots = [name for name in names if "snapshots" in name and name.endswith("head")]
        updates = [name for name in names if "updates" in name and name.endswith("head")]
        assert len(snapshots) <= keep
        assert len(updates) < 4 * keep
        assert len(names) == 1 + 3 * (len(snapshots) + len(updates))  # a head and two parts, and the latest
        served = {name: torch.ones_like(each) for name, each in trained.items()}
        thinwire.sync_weights(served, of=store).follow()
        assert all(torch.equal(served[name], trained[name]) for name in trained)


def test_before_anything_was_published_there_is_nothing_to_do() -> None:
    follower = thinwire.sync_weights({"w": torch.ones(3)}, of=MemoryStore())
    told = follower.follow()
    assert (told.step, told.num_bytes, told.changed) == (0, 0, ())
    with pytest.raises(DivergenceError, match="call follow"):
        follower.check()
