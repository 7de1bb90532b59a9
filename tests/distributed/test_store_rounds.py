"""Training over a store comes to what a simulation comes to, whoever is late, damaged, replayed or a stranger."""

import json
from collections.abc import Collection
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import Barrier

import pytest
import torch
from method_cases import Crew, bits, flat, shared
from store_crews import KEY, QUICK, Round, Script, Trainee, Watched, check_conserved, simulate, together, trainees

from thinwire.errors import ConfigError, NumericsError, SealError
from thinwire.exchanges import Gather
from thinwire.methods import Method, ModelAveraging, parse_method
from thinwire.stores import FolderStore, Place, RunKey, SharedKeySeal, SignatureSeal, Store

SIZE, EVERY = 4, 2
NAMES = [
    "signtopk:density=20%,every=2",
    "qsparse:density=20%,every=2,exchange=gather",
    "sparseloco:every=2,density=20%,mean=contributors,clip=median",
    "sparseloco:every=2,density=20%,clip=median",
    "streaming-diloco:every=1,fragments=3,delay=2",
    "pqasgd:every=2",
    "local-sgd:every=2",
    "diloco:every=2",
]


def gathered(name: str) -> Method:
    method = parse_method(name)
    assert isinstance(method, ModelAveraging)
    return method if isinstance(method.exchange, Gather) else replace(method, exchange=Gather())


@pytest.mark.parametrize("name", NAMES)
def test_without_faults_it_is_the_simulation_bit_for_bit(name: str, tmp_path: Path) -> None:
    method, num_steps = gathered(name), 8
    crew = trainees(method, 3, tmp_path)
    together(*(partial(each.train, num_steps) for each in crew))
    simulated = Crew(method, 3).run(num_steps)
    for trainee, worker in zip(crew, simulated.workers, strict=True):
        assert bits(trainee.point) == bits(shared(worker))
        assert bits(flat(trainee.model)) == bits(flat(worker.model))
        assert trainee.handle.message_bytes == worker.message_bytes
        assert trainee.handle.participation == {0: 1.0, 1: 1.0, 2: 1.0}


class Faulty:
    """What one worker's store does to its messages: one is damaged, one is that of an earlier round."""

    def __init__(self, damages: Collection[int] = (), replays: Collection[int] = ()) -> None:
        self.damages, self.replays, self.earlier = damages, replays, b""

    def __call__(self, name: str, contents: bytes) -> bytes:
        number = int(name.split("/")[2]) if "rank-" in name else -1
        if number in self.damages:
            return contents[:60] + bytes([contents[60] ^ 4]) + contents[61:]
        if number in self.replays:
            return self.earlier
        if number == 1:
            self.earlier = contents
        return contents


def put_as_a_stranger(store: Store) -> None:
    seal = SharedKeySeal(RunKey.create())
    store.put("test/rounds/00000002/closed", b"not a list")
    store.put("test/rounds/00000003/closed", seal.seal(bytes(40), Place("test", "closed", 3)))
    store.put("test/rounds/00000003/rank-3", seal.seal(b"gradients", Place("test", "message", 3, 3)))
    store.put("test/rounds/00000004/rank-3", bytes(1 << 20))
    store.put("test/rounds/00000004/rank-9", b"")
    store.put("test/rounds/00000005/read-me", b"")


def test_faults_change_nothing_but_what_is_left_out(tmp_path: Path) -> None:
    """Worker 3 misses rounds 2 to 4, worker 2 sends a damaged message, worker 1 an old one, and a stranger writes."""
    method, num_rounds = gathered(NAMES[0]), 9
    counts: dict[int, Collection[int]] = {2: (0, 1, 2), 3: (0, 1, 2), 4: (0, 1, 2), 6: (0, 1, 3), 7: (0, 2, 3)}
    trains = {3: (0, 1, 2), 4: (0, 1, 2), 5: (0, 1, 2)}
    put_as_a_stranger(FolderStore(tmp_path))
    changes = [None, Faulty(replays=[7]), Faulty(damages=[6]), None]
    stores = [Watched(FolderStore(tmp_path), change) for change in changes]
    for store in stores[1:]:
        store.written = stores[0].written
    after = {6: stores[0].when("rounds/00000006/rank-2"), 7: stores[0].when("rounds/00000007/rank-1")}
    script = Script(SIZE, counts, after)
    crew = [Trainee(method, rank, SIZE, store, script) for rank, store in enumerate(stores)]

    def late() -> None:
        crew[3].train(2 * EVERY + 1)
        assert stores[0].when("rounds/00000004/closed").wait(30)
        crew[3].train(EVERY * (num_rounds - 3))

    with pytest.warns(UserWarning, match="is left out"):
        together(*(partial(each.train, EVERY * num_rounds) for each in crew[:3]), late)
    plan = [Round(trains.get(number, range(SIZE)), counts.get(number, range(SIZE))) for number in range(num_rounds)]
    simulated = simulate(method, SIZE, EVERY, plan)
    for trainee, worker in zip(crew, simulated.workers, strict=True):
        assert bits(trainee.point) == bits(shared(worker))
        assert bits(flat(trainee.model)) == bits(flat(worker.model))
        assert trainee.handle.num_rounds == num_rounds
        assert trainee.handle.participation == {0: 1.0, 1: 8 / 9, 2: 8 / 9, 3: 6 / 9}
    check_conserved(crew)
    assert [each.handle.report.num_missed for each in crew] == [0, 1, 1, 3]
    assert sum(each.handle.report.refused[2] for each in crew) >= 1
    assert sum(each.handle.report.refused[1] for each in crew) >= 1
    assert all(each.handle.report.num_strange for each in crew)
    assert any("seal" in why or "does not belong" in why for each in crew for why in each.handle.report.why.values())


class Blind(Watched):
    """Sees no other worker's message while it waits, and creates at the same time as another one."""

    def __init__(self, store: Store, rank: int, barrier: Barrier) -> None:
        super().__init__(store)
        self.rank, self.barrier = rank, barrier

    def names(self, under: str) -> list[str]:
        return [name for name in super().names(under) if name.endswith(f"rank-{self.rank}") or "rank" not in name]

    def create(self, name: str, contents: bytes | memoryview) -> bool:
        if "/closed" in name:
            self.barrier.wait(30)
        return super().create(name, contents)


def test_two_that_close_a_round_at_once_go_by_one_list(tmp_path: Path) -> None:
    method, barrier = gathered(NAMES[0]), Barrier(2)
    script = Script(2, {0: ()})
    stores = [Blind(FolderStore(tmp_path), rank, barrier) for rank in range(2)]
    crew = [Trainee(method, rank, 2, store, script) for rank, store in enumerate(stores)]
    together(*(partial(each.train, EVERY) for each in crew))
    (winner,) = {tuple(rank for rank, share in each.handle.participation.items() if share) for each in crew}
    assert len(winner) == 1
    assert bits(crew[0].point) == bits(crew[1].point)
    assert bits(crew[0].point) == bits(shared(simulate(method, 2, EVERY, [Round(range(2), winner)]).workers[0]))
    check_conserved(crew)


def test_whoever_is_gone_is_not_waited_for(tmp_path: Path) -> None:
    settings = replace(QUICK, max_missed=2)
    script = Script(3, dict.fromkeys(range(7), (0, 1)))
    crew = [Trainee(gathered(NAMES[0]), rank, 3, FolderStore(tmp_path), script, settings=settings) for rank in range(2)]
    together(*(partial(each.train, 7 * EVERY) for each in crew))
    assert {number for number, missing in script.asked if 2 in missing} == {0, 1, 2}
    store = Watched(FolderStore(tmp_path))
    back = Trainee(gathered(NAMES[0]), 2, 3, store, script, settings=settings)

    def go_on(each: Trainee) -> None:
        assert store.when("rounds/00000007/rank-2").wait(30)
        each.train(9 * EVERY)

    together(*(partial(go_on, each) for each in crew), lambda: back.train(2 * EVERY))
    assert back.handle.num_rounds == crew[0].handle.num_rounds == 9
    assert back.handle.participation[2] == 2 / 9, "it takes part again"
    assert bits(back.point) == bits(crew[0].point)
    check_conserved([*crew, back])


@pytest.mark.parametrize("is_signed", [False, True])
def test_bytes_are_those_of_the_objects(is_signed: bool, tmp_path: Path) -> None:
    pairs = [SignatureSeal.create_pair() for _ in range(3)]
    roster = {rank: public for rank, (_, public) in enumerate(pairs)}
    stores = [Watched(FolderStore(tmp_path)) for _ in range(3)]
    settings = replace(QUICK, snapshot_every=2)
    crew = [
        Trainee(
            gathered(NAMES[0]), rank, 3, store, Script(3), settings=settings,
            key=SignatureSeal(rank, pairs[rank][0], roster) if is_signed else KEY,
        )
        for rank, store in enumerate(stores)
    ]  # fmt: skip
    together(*(partial(each.train, 5 * EVERY) for each in crew))
    for each, store in zip(crew, stores, strict=True):
        assert (each.handle.bytes_sent, each.handle.bytes_received) == (store.num_sent, store.num_received)
        assert store.num_sent > each.handle.message_bytes > 0
    assert bits(crew[0].point) == bits(shared(Crew(gathered(NAMES[0]), 3).run(5 * EVERY).workers[0]))


def test_one_that_is_far_behind_begins_again_from_a_snapshot(tmp_path: Path) -> None:
    settings = replace(QUICK, keep_rounds=2, snapshot_every=3)
    script = Script(3, dict.fromkeys(range(11), (0, 1)))
    method = gathered("diloco:every=2")
    stores = [Watched(FolderStore(tmp_path)) for _ in range(3)]
    crew = [Trainee(method, rank, 3, store, script, settings=settings) for rank, store in enumerate(stores)]
    crew[2].train(1)
    together(*(partial(each.train, 11 * EVERY) for each in crew[:2]))
    own = crew[2].point.double() - flat(crew[2].model).double()
    assert own.abs().max() > 1e-3
    names = FolderStore(tmp_path).names("test")
    assert "test/rounds/00000000/closed" in names, "lists stay"
    assert not [name for name in names if "/rank-" in name and int(name.split("/")[2]) < 7], "messages do not"
    assert [name for name in names if "snapshots" in name] == ["test/snapshots/00000006", "test/snapshots/00000009"]
    assert crew[2].handle.catch_up() == 11
    assert crew[2].handle.report.num_restarts == 1
    assert crew[2].handle.num_rounds == 11
    assert bits(crew[2].point) == bits(crew[0].point)
    torch.testing.assert_close(crew[2].point.double() - flat(crew[2].model).double(), own, atol=1e-6, rtol=0)
    before = crew[2].handle.num_steps
    assert before == 9 * EVERY, "it counts on from the snapshot"

    def go_on(each: Trainee) -> None:
        assert stores[2].when("rounds/00000011/rank-2").wait(30)
        each.train(12 * EVERY)

    together(*(partial(go_on, each) for each in crew[:2]), lambda: crew[2].train(10 * EVERY))
    assert {bits(each.point) for each in crew} == {bits(crew[0].point)}
    assert crew[0].handle.participation[2] == pytest.approx(1 / 12)


def test_nan_stays_with_the_worker_that_has_it(tmp_path: Path) -> None:
    method, script = gathered(NAMES[0]), Script(3, {1: (0, 2), 2: (0, 2)})
    crew = [Trainee(method, rank, 3, FolderStore(tmp_path), script) for rank in range(3)]

    def broken() -> None:
        crew[1].train(2 * EVERY - 1)
        with torch.no_grad():
            next(crew[1].model.parameters())[0, 0] = torch.nan
        with pytest.raises(NumericsError, match=r"in '0.weight' of worker 1, found at step 4; nothing was handed in"):
            crew[1].step()

    together(*(partial(each.train, 3 * EVERY) for each in (crew[0], crew[2])), broken)
    plan = [Round(range(3), range(3)), Round((0, 2), (0, 2)), Round((0, 2), (0, 2))]
    simulated = simulate(method, 3, EVERY, plan)
    for rank in (0, 2):
        assert bits(flat(crew[rank].model)) == bits(flat(simulated.models[rank]))


def test_a_message_that_says_nan_is_left_out_by_all(tmp_path: Path) -> None:
    """One that is sealed as it should be; every worker finds it by itself."""
    method, script = gathered("local-sgd:every=2"), Script(3)
    crew = [Trainee(method, rank, 3, FolderStore(tmp_path), script) for rank in range(3)]

    def lie(name: str, contents: bytes) -> bytes:
        if not name.endswith("rank-1"):
            return contents
        message = torch.full((1,), torch.nan, dtype=torch.float32)
        from thinwire.payloads import Dense
        from thinwire.wire import encode

        numel = flat(crew[1].model).numel()
        place = Place("test", "message", int(name.split("/")[2]), 1)
        return SharedKeySeal(KEY).seal(encode(Dense(message.expand(numel).contiguous())).numpy().tobytes(), place)

    crew[1].handle._station.objects.store = Watched(FolderStore(tmp_path), lie)
    with pytest.warns(UserWarning, match="worker 1 in round 0 is left out: it has NaN or infinity"):
        together(*(partial(each.train, 2 * EVERY) for each in crew))
    simulated = simulate(method, 3, EVERY, [Round(range(3), (0, 2))] * 2)
    for rank in range(3):
        assert bits(flat(crew[rank].model)) == bits(flat(simulated.models[rank]))


def test_workers_that_begin_otherwise_are_refused(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    Trainee(NAMES[0], 0, 2, store, Script(2, {0: ()})).train(EVERY)
    for options, what in (
        ({"seed": 6}, "seed"), ({"size": 3}, "size"), ({"method": "signtopk:density=10%,every=2"}, "method"),
    ):  # fmt: skip
        given = {"method": NAMES[0], "rank": 1, "size": 2, "store": store, "patience": Script(2), **options}
        with pytest.raises(ConfigError, match=f"another {what} than the run 'test'"):
            Trainee(**given).train(EVERY)  # type: ignore[arg-type]
    other = Trainee(NAMES[0], 1, 2, store, Script(2))
    with torch.no_grad():
        next(other.model.parameters())[0, 0] += 1.0
    moved = Trainee(NAMES[0], 1, 2, store, Script(2))
    moved.handle.worker.channels[0].update["reference"][0] += 1.0
    with pytest.raises(ConfigError, match="initial parameters"):
        moved.train(EVERY)
    with pytest.raises(SealError, match="made with another key"):
        Trainee(NAMES[0], 1, 2, store, Script(2), key=RunKey.create()).train(EVERY)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("sgd", r"no averaging of models \(GradientAveraging\)"),
        ("qsparse:every=2", r"exchange=ParameterServer"),
        ("local-sgd:every=2", r"exchange=AllReduce.*replace\(method, exchange"),
        ("easgd:every=2", "update=Elastic"),
        ("choco", "update=Consensus"),
    ],
)
def test_other_methods_are_refused_by_name(name: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=said):
        Trainee(name, 0, 2, FolderStore(tmp_path), Script(2))


def test_settings_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    with pytest.raises(ConfigError, match="run = 'a/b'"):
        Trainee(NAMES[0], 0, 2, store, Script(2), run="a/b")
    with pytest.raises(ConfigError, match="key = str"):
        Trainee(NAMES[0], 0, 2, store, Script(2), key="secret")
    with pytest.raises(ConfigError, match="ranks go from 0"):
        Trainee(NAMES[0], 2, 2, store, Script(2))
    trainee = Trainee(NAMES[0], 0, 2, store, Script(2))
    with pytest.raises(ConfigError, match="synchronized already"):
        trainee.handle.__class__(trainee.optimizer, trainee.handle.worker, trainee.handle._station, Script(2), None)


def test_frozen_parameters_are_refused(tmp_path: Path) -> None:
    trainee = Trainee(NAMES[0], 0, 1, FolderStore(tmp_path), Script(1)).train(EVERY)
    next(trainee.model.parameters()).requires_grad = False
    with pytest.raises(ConfigError, match="frozen, unfrozen, added or replaced"):
        trainee.train(2 * EVERY)


def test_its_state_is_plain(tmp_path: Path) -> None:
    trainee = Trainee(NAMES[0], 0, 1, FolderStore(tmp_path / "store"), Script(1)).train(EVERY)
    torch.save(trainee.handle.state_dict(), tmp_path / "state")
    loaded = torch.load(tmp_path / "state", weights_only=True)
    assert json.dumps(loaded["store"])
