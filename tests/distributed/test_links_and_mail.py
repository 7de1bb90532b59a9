"""What was cut comes together again, in order and each once; a slow reader is waited for; an end is heard of."""

import contextlib
import functools
import itertools
import random
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import zmq
from hypothesis import given, settings
from hypothesis import strategies as st
from links_mains import until
from torch import Tensor

from thinwire.distributed import LinkOptions, introduction, outgoing
from thinwire.distributed import peer as peer_file
from thinwire.distributed.doors import Door
from thinwire.distributed.links import Links
from thinwire.distributed.mail import Mailbox, Tag, part_header
from thinwire.errors import ConfigError, ProtocolError, ThinwireError, WorkerError

DEADLINE_S = 30.0
TAGS = (Tag.GATHERED, Tag.LETTER, Tag.TO_SUM, Tag.SUMMED, Tag.MODEL)


def random_bytes(seed: int, count: int) -> Tensor:
    return torch.randint(256, (count,), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


# A mailbox, and parts that are made by hand.


@dataclass(frozen=True)
class Part:
    """What travels in one go."""

    tag: int
    number: int
    num_bytes: int
    body: bytes

    def frames(self, whole: bool) -> list[zmq.Frame]:
        head = part_header(self.tag, self.number, self.num_bytes)
        pieces = [head + self.body] if whole else [head, self.body]
        return [zmq.Frame(piece) for piece in pieces]


@st.composite
def mail(draw: st.DrawFn) -> tuple[list[tuple[Tag, bytes]], list[Part]]:
    """Messages with their tags, and the same cut anywhere into numbered parts."""
    messages = draw(st.lists(st.tuples(st.sampled_from(TAGS), st.binary(max_size=40)), min_size=1, max_size=6))
    parts: list[Part] = []
    for tag, body in messages:
        cuts = sorted(draw(st.lists(st.integers(0, len(body)), max_size=4)))
        for begin, end in zip([0, *cuts], [*cuts, len(body)], strict=True):
            # A message is over with its last byte, so that nothing of it can follow.
            if end > begin or (not body and not begin):
                parts.append(Part(tag, len(parts), len(body), body[begin:end]))
            if not body:
                break
    return messages, parts


def interleaved(parts: Sequence[Part], connections: int, generator: random.Random) -> list[Part]:
    """An order in which they may arrive: that of each connection is kept."""
    queues = [list(parts[number::connections]) for number in range(connections)]
    order = []
    while any(queues):
        order.append(generator.choice([queue for queue in queues if queue]).pop(0))
    return order


def taken(box: Mailbox) -> list[tuple[int, bytes]]:
    """All complete messages, by tag."""
    found = []
    for tag in TAGS:
        while (first := box.first(tag, None)) is not None and first.is_complete:
            found.append((int(tag), bytes(box.take(tag).tolist())))
    return found


def by_tag(messages: Sequence[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
    return sorted(((int(tag), body) for tag, body in messages), key=lambda each: TAGS.index(each[0]))


@settings(max_examples=100, deadline=None)
@given(mail(), st.integers(1, 4), st.randoms(use_true_random=False), st.booleans())
def test_any_cutting_comes_back_in_order_whatever_overtakes(
    sent: tuple[list[tuple[int, bytes]], list[Part]], connections: int, generator: random.Random, looks: bool
) -> None:
    messages, parts = sent
    box = Mailbox(3, connections)
    found = []
    num_bytes = 0
    for stamp, part in enumerate(interleaved(parts, connections, generator)):
        num_bytes += box.put(part.frames(generator.random() < 0.5), stamp)
        if looks:  # a message may be asked for while it arrives
            found += taken(box)
    found += taken(box)
    assert num_bytes == sum(len(body) for _, body in messages)
    assert by_tag(found) == by_tag(messages)


@settings(max_examples=100, deadline=None)
@given(mail(), st.integers(1, 4), st.data())
def test_of_a_missing_part_nothing_comes_after_it(
    sent: tuple[list[tuple[int, bytes]], list[Part]], connections: int, data: st.DataObject
) -> None:
    messages, parts = sent
    lost = data.draw(st.sampled_from(parts))
    box = Mailbox(3, connections)
    for stamp, part in enumerate(parts):
        if part.number > lost.number and (part.number - lost.number) % connections == 0:
            # The next one over the same connection tells of it.
            with pytest.raises(WorkerError, match=f"of what worker 3 sent, part {lost.number} is missing"):
                box.put(part.frames(False), stamp)
            break
        if part is not lost:
            box.put(part.frames(False), stamp)
    whole = len(taken(box))
    complete = [number for number in range(len(messages)) if _end_of(messages, parts, number) < lost.number]
    assert whole == len(complete)


def _end_of(messages: Sequence[tuple[int, bytes]], parts: Sequence[Part], number: int) -> int:
    """The number of a message's last part."""
    left = sum(len(body) or 1 for _, body in messages[: number + 1])
    for part in parts:
        left -= len(part.body) or 1
        if not left:
            return part.number
    raise AssertionError


@settings(max_examples=100, deadline=None)
@given(mail(), st.integers(1, 4), st.data())
def test_a_part_that_came_twice_is_an_error_at_once(
    sent: tuple[list[tuple[int, bytes]], list[Part]], connections: int, data: st.DataObject
) -> None:
    _, parts = sent
    box = Mailbox(3, connections)
    twice = data.draw(st.sampled_from(parts))
    again_after = data.draw(st.integers(twice.number, len(parts) - 1))
    for stamp, part in enumerate(parts[: again_after + 1]):
        box.put(part.frames(True), stamp)
    with pytest.raises(WorkerError, match="worker 3"):
        box.put(twice.frames(True), 99)


@pytest.mark.parametrize(
    "frames",
    [
        [b""],
        [b"short"],
        [b"x" * 15, b"y" * 100],
        [part_header(Tag.LETTER, 1, 5), b"abcde", b"f"],
        [part_header(Tag.LETTER, 1, 5), b"abcdef"],  # longer than announced
        [part_header(Tag.GATHERED, 1, 10), b"fghij"],  # of another kind than the message that is arriving
        [part_header(Tag.LETTER, 1, 11), b"fghij"],  # of another length
        [part_header(Tag.LETTER, 1, 10), b"fghijk"],  # more than is left of it
        [part_header(Tag.LETTER, 7, 10), b"fghij"],
    ],
)
def test_what_is_no_part_is_refused(frames: list[bytes]) -> None:
    box = Mailbox(3, 1)
    box.put([zmq.Frame(part_header(Tag.LETTER, 0, 10)), zmq.Frame(b"abcde")], 0)
    with pytest.raises((WorkerError, ProtocolError), match="worker 3"):
        box.put([zmq.Frame(frame) for frame in frames], 1)


def test_random_bytes_are_refused() -> None:
    generator = random.Random(0)
    for _ in range(2000):
        box = Mailbox(3, generator.randint(1, 4))
        frames = [zmq.Frame(generator.randbytes(generator.randint(0, 40))) for _ in range(generator.randint(1, 3))]
        # It begins with the number 0 about once in 10 ** 17 tries.
        with pytest.raises((WorkerError, ProtocolError), match="worker 3"):
            box.put(frames, 0)


def test_memory_is_taken_for_what_is_allowed_only() -> None:
    announced = 1 << 30
    before = mapped_num_bytes()
    box = Mailbox(3, 1)
    box.put(Part(Tag.LETTER, 0, announced, bytes(1000)).frames(False), 0)
    with pytest.raises(ProtocolError, match=f"worker 3 announced a message of {announced} bytes"):
        box.first(Tag.LETTER, announced - 1)
    assert mapped_num_bytes() - before < 1 << 26
    first = box.first(Tag.LETTER, announced)
    assert first is not None
    assert not first.is_complete
    assert mapped_num_bytes() - before >= announced  # allowed: now parts go to where they belong


def mapped_num_bytes() -> int:
    """All that this process has asked the system for."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def test_a_farewell_and_a_failure_are_heeded_in_their_turn() -> None:
    box = Mailbox(3, 2)
    box.put(Part(Tag.LEFT, 1, 0, b"").frames(True), 0)
    has_left = [box.has_left]  # not yet: part 0 may still come
    box.put(Part(Tag.LETTER, 0, 2, b"ab").frames(True), 1)
    has_left.append(box.has_left)
    assert has_left == [False, True]
    assert taken(box) == [(Tag.LETTER, b"ab")]
    box.put(Part(Tag.LETTER, 2, 2, b"cd").frames(True), 2)
    box.put(Part(Tag.FAILED, 3, 12, b"out of paper").frames(True), 3)
    assert taken(box) == [(Tag.LETTER, b"cd")]
    assert str(box.failure) == "out of paper (so said worker 3)"


# Two links that were introduced to each other in two threads of this process.


class Crowd:
    """Threads that are processes, and can meet."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.timeout = timedelta(seconds=DEADLINE_S)
        self._own = threading.local()
        self._barrier = threading.Barrier(size)
        self._given = [b""] * size

    @property
    def rank(self) -> int:
        return int(self._own.rank)

    def gather(self, text: bytes) -> list[bytes]:
        self._given[self.rank] = text
        self._barrier.wait(DEADLINE_S)
        found = list(self._given)
        self._barrier.wait(DEADLINE_S)
        return found

    def introduce(self, options: LinkOptions, then: Callable[[Links], object]) -> list[Links]:
        """Links of every process, each of which does something with them as soon as it has them."""
        made: list[Any] = [None] * self.size

        def work(rank: int) -> None:
            self._own.rank = rank
            made[rank] = introduction.introduce(self, options, {})
            then(made[rank])

        run_in_threads([functools.partial(work, rank) for rank in range(self.size)])
        assert all(isinstance(each, Links) for each in made)
        return made


Introduce = Callable[..., list[Links]]


KINDS = ("here", "away", "away, plain", "far away")
"""On one machine; on two, encrypted or not; with a long way between them, for which there are several connections."""


@pytest.fixture(params=KINDS)
def introduced(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Introduce]:
    """Makes links between threads: as on one machine, or as between machines."""
    if request.param != "here":
        numbers = iter(range(10**6))
        monkeypatch.setattr(introduction, "machine_id", lambda: f"machine-{next(numbers)}")
    # Not what the system finds on this machine, which may be busy.
    monkeypatch.setattr(introduction, "LONG_ROUND_TRIP_S", -1.0 if request.param == "far away" else float("inf"))
    made: list[Links] = []

    def introduce(
        size: int = 2, timeout_s: float = DEADLINE_S, then: Callable[[Links], object] = lambda links: None
    ) -> list[Links]:
        crowd = Crowd(size)
        options = LinkOptions(
            timeout=timedelta(seconds=timeout_s), interface="127.0.0.1", encrypt=request.param != "away, plain"
        )
        found = crowd.introduce(options, then)
        peers = [peer for each in found for peer in each.peers.values()]
        assert all(peer.is_here == (request.param == "here") for peer in peers)
        assert all((len(peer.routes) > 1) == (request.param == "far away") for peer in peers)
        made.extend(found)
        return found

    yield introduce
    for each in made:
        # What a test left under way does not keep it waiting.
        each.abort("the test is over")
        each.close()


def set_window(monkeypatch: pytest.MonkeyPatch, window: int) -> None:
    for module in (outgoing, peer_file):
        monkeypatch.setattr(module, "WINDOW", window)


def small_parts(monkeypatch: pytest.MonkeyPatch, window: int) -> None:
    set_window(monkeypatch, window)
    monkeypatch.setattr(outgoing, "PART_HERE", window // 20)
    monkeypatch.setattr(outgoing, "PART_AWAY", window // 30)
    monkeypatch.setattr(outgoing, "COPIED", window // 100)


def test_random_traffic_in_both_directions_arrives_in_order(
    introduced: Introduce, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked for by tag, in an order of its own, while more than a window is under way in each direction."""
    small_parts(monkeypatch, 100_000)
    pair = introduced()
    generator = random.Random(7)
    for round_number in range(3):
        sent: list[list[tuple[Tag, Tensor]]] = [[], []]
        for number in range(80):
            count = generator.choice([0, 1, 900, 1100, generator.randint(0, 40_000)])
            sent[number % 2].append((generator.choice(TAGS), random_bytes(100 * round_number + number, count)))
        asked = [[tag for tag, _ in each] for each in sent]
        for each in asked:
            generator.shuffle(each)
        found: list[list[tuple[Tag, Tensor]]] = [[], []]

        def exchange(rank: int, sent: Any, asked: Any, found: Any) -> None:
            for number, (tag, message) in enumerate(sent[rank]):
                pair[rank].send(1 - rank, tag, message, keeps=number % 3 > 0)
            found[rank] += [pair[rank].receive([1 - rank], [tag], 40_000)[1:] for tag in asked[1 - rank]]
            pair[rank].flush()

        run_in_threads([functools.partial(exchange, rank, sent, asked, found) for rank in range(2)])
        for rank in range(2):
            for tag in TAGS:
                expected = [message for kind, message in sent[1 - rank] if kind == tag]
                came = [message for kind, message in found[rank] if kind == tag]
                assert len(came) == len(expected)
                assert all(map(torch.equal, came, expected))
            assert not any(peer.outgoing for peer in pair[rank].peers.values())


def run_in_threads(works: Sequence[Callable[[], object]]) -> None:
    threads = [threading.Thread(target=work, daemon=True) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_S)
    assert not any(thread.is_alive() for thread in threads)


def pump(sender: Links) -> None:
    """Let it send what has room, as it does whenever it waits."""
    for peer in sender.peers.values():
        sender._outgoing.take_receipts()
        sender._outgoing.push(peer)


def test_what_is_not_kept_may_be_written_to_at_once(introduced: Introduce, monkeypatch: pytest.MonkeyPatch) -> None:
    small_parts(monkeypatch, 100_000)
    first, second = introduced()
    message = random_bytes(1, 90_000)
    before = message.clone()
    first.send(1, Tag.MODEL, message, keeps=False)
    message.zero_()
    assert torch.equal(second.receive([0], [Tag.MODEL])[2], before)


def test_a_reader_that_takes_nothing_has_a_window_full_at_most(
    introduced: Introduce, monkeypatch: pytest.MonkeyPatch
) -> None:
    window = 1 << 20
    small_parts(monkeypatch, window)
    writer, reader = introduced()
    messages = [random_bytes(number, 3_000_000) for number in range(5)]
    for message in messages:
        writer.send(1, Tag.LETTER, message)
        assert writer.peers[1].num_under_way <= window
    connection = reader.peers[0].connection
    parts: list[list[zmq.Frame]] = []

    def has_come() -> bool:
        while connection.poll(0):
            parts.append(connection.recv_multipart(copy=False))
        return sum(sum(map(len, frames)) - 16 for frames in parts) >= writer.peers[1].num_under_way

    assert until(has_come)
    pump(writer)
    assert not connection.poll(200)  # what has no receipt makes no room
    assert window * 0.9 < sum(sum(map(len, frames)) - 16 for frames in parts) <= window
    # It takes what has come, and says so; then everything else arrives.
    count = sum(reader.peers[0].mail.put(frames, number + 1) for number, frames in enumerate(parts))
    reader._arrivals._num_arrived = len(parts)
    connection.send(peer_file.RECEIPT.pack(count))
    most = 0
    thread = threading.Thread(target=writer.flush, daemon=True)
    thread.start()
    for message in messages:
        assert torch.equal(reader.receive([0], [Tag.LETTER])[2], message)
        most = max(most, writer.peers[1].num_under_way)
    thread.join(DEADLINE_S)
    assert not writer.peers[1].outgoing
    assert most <= window


def test_two_that_send_more_than_a_window_to_each_other_do_not_wait_for_ever(
    introduced: Introduce, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_parts(monkeypatch, 100_000)
    crew = introduced(3)
    messages = [random_bytes(rank, 700_000 + rank) for rank in range(3)]
    found: dict[int, list[Tensor]] = {}

    def exchange(rank: int) -> None:
        for other in crew[rank].peers:
            crew[rank].send(other, Tag.GATHERED, messages[rank])
        # In an order that is not that of arrival.
        order = sorted(crew[rank].peers, key=lambda other: (other - rank) % 3)
        found[rank] = [crew[rank].receive([other], [Tag.GATHERED])[2] for other in order]
        crew[rank].flush()

    run_in_threads([functools.partial(exchange, rank) for rank in range(3)])
    for rank in range(3):
        assert [each.numel() for each in found[rank]] == [700_000 + (rank + step) % 3 for step in (1, 2)]
        assert all(torch.equal(each, messages[each.numel() - 700_000]) for each in found[rank])


def test_what_was_sent_before_the_end_arrives_and_then_the_end_is_told(introduced: Introduce) -> None:
    first, second = introduced()
    message = random_bytes(0, 5_000_000)
    first.send(1, Tag.LETTER, message)
    first.flush()
    closing = threading.Thread(target=first.close)
    closing.start()
    assert torch.equal(second.receive([0], [Tag.LETTER])[2], message)
    closing.join(DEADLINE_S)
    with pytest.raises(WorkerError, match=r"^worker 1 still waits for worker 0 on .*, which has closed its handle$"):
        second.receive([0], [Tag.LETTER])
    with pytest.raises(WorkerError, match="which has closed its handle"), second:
        raise AssertionError


def test_a_silent_end_is_a_loss(introduced: Introduce) -> None:
    first, second = introduced()
    message = random_bytes(0, 5_000_000)
    first.send(1, Tag.LETTER, message)
    first.flush()
    first.close(says_so=False)
    assert torch.equal(second.receive([0], [Tag.LETTER])[2], message)
    begin = time.monotonic()
    with pytest.raises(
        WorkerError,
        match=r"^worker 1 lost worker 0 on .*: its process ended, or is stopped and gave no sign of life; nothing has "
        r"come from it for [0-9.]+ s$",
    ):
        second.receive([0], [Tag.LETTER])
    assert time.monotonic() - begin < 0.5 * DEADLINE_S


def test_everybody_hears_the_reason_once(introduced: Introduce) -> None:
    crew = introduced(3)
    crew[1].abort("no room left on the shelf")
    for rank in (0, 2):
        with pytest.raises(WorkerError, match="no room left on the shelf") as caught:
            crew[rank].receive([other for other in range(3) if other != rank], [Tag.GATHERED])
        assert "(so said worker" in str(caught.value)
    for each in crew:
        with pytest.raises(WorkerError, match="no room left on the shelf"), each:
            raise AssertionError


def ends(crew: Sequence[Links], rank: int) -> None:
    """One gives its reason and closes, and the connections of the others to it have ended before they look."""
    crew[rank].abort("the roof leaks")
    crew[rank].close()

    def is_gone(peer: peer_file.Peer) -> bool:
        peer.look()
        return not peer.standing

    for each in (each for each in crew if each.rank != rank):
        assert until(functools.partial(is_gone, each.peers[rank]))


def test_the_reason_of_one_that_is_gone_by_now_is_heard(introduced: Introduce) -> None:
    crew = introduced()
    ends(crew, 0)
    with pytest.raises(WorkerError, match="the roof leaks"):
        crew[1].receive([0], [Tag.LETTER])


def test_the_reason_of_one_that_takes_nothing_any_more_is_heard(
    introduced: Introduce, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also by who waits for somebody else."""
    set_window(monkeypatch, 0)  # a second part waits for a receipt
    for ranks in ([1], [2]):
        crew = introduced(3)
        crew[0].send(1, Tag.LETTER, random_bytes(0, 3 * outgoing.PART_HERE))
        assert crew[0].peers[1].outgoing
        ends(crew, 1)
        with pytest.raises(WorkerError, match="the roof leaks"):
            crew[0].receive(ranks, [Tag.LETTER])


def test_the_reason_of_one_that_cannot_be_reached_any_more_is_heard_after_all_that_it_sent(
    introduced: Introduce,
) -> None:
    first, second = introduced()
    for number in range(200):  # more than are taken at once
        first.send(1, Tag.LETTER, random_bytes(number, 10))
    ends([first, second], 0)

    def send() -> bool:
        second.send(0, Tag.LETTER, random_bytes(0, 10))
        return False

    with pytest.raises(WorkerError, match="the roof leaks"):
        until(send)


def test_who_sends_too_much_is_refused_and_told(introduced: Introduce) -> None:
    first, second = introduced()
    first.send(1, Tag.LETTER, random_bytes(0, 101))
    with pytest.raises(ProtocolError, match="worker 0 announced a message of 101 bytes, where at most 100"):
        second.receive([0], [Tag.LETTER], 100)
    with pytest.raises(WorkerError, match=r"announced a message of 101 bytes.*\(so said worker 1\)"):
        first.receive([1], [Tag.LETTER])


def test_a_peer_that_sends_nothing_is_named_after_the_timeout(introduced: Introduce) -> None:
    crew = introduced(3, timeout_s=0.5)
    crew[0].send(1, Tag.GATHERED, random_bytes(0, 10))
    crew[1].receive([0, 2], [Tag.GATHERED])
    with pytest.raises(
        WorkerError, match=r"^worker 1 waited \d s for worker 2 on .*, which is connected but sent noth"
    ):
        crew[1].receive([2], [Tag.GATHERED])


def test_closing_ends_who_waits_in_another_thread(introduced: Introduce) -> None:
    first, _ = introduced()
    errors: list[ThinwireError] = []
    began = threading.Event()

    def wait() -> None:
        try:
            with first:
                began.set()
                first.receive([1], [Tag.LETTER])
        except ThinwireError as error:
            errors.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    assert began.wait(DEADLINE_S)
    first.close()
    thread.join(DEADLINE_S)
    assert [type(error) for error in errors] == [WorkerError]
    assert "worker 0 closed its handle while it waited for worker 1" in str(errors[0])


def test_closed_links_refuse_everything(introduced: Introduce) -> None:
    first, _ = introduced()
    first.close()
    first.close()
    with pytest.raises(ConfigError, match=r"^this handle is closed; nothing can be"), first:
        raise AssertionError


# A way between two machines on which one of several connections is slow.


class Way:
    """Passes on what goes over the connections to a door; what comes out of the door over one of them waits."""

    def __init__(self, port: int, slow: int, delay_s: float) -> None:
        self._to = port
        self._slow, self._delay_s = slow, delay_s
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._accepted: list[socket.socket] = []
        self._server = threading.Thread(target=self._serve, daemon=True)
        self._server.start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            for number in itertools.count():
                outside, inside = self._listener.accept()[0], socket.socket()
                self._accepted += [outside, inside]
                inside.connect(("127.0.0.1", self._to))
                delay_s = self._delay_s if number == self._slow else 0.0
                for source, target, wait_s in ((outside, inside, 0.0), (inside, outside, delay_s)):
                    threading.Thread(target=self._pass_on, args=(source, target, wait_s), daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket, wait_s: float) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                time.sleep(wait_s)
                target.sendall(data)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)  # nobody waits for a connection any more
        self._server.join(DEADLINE_S)
        for each in (self._listener, *self._accepted):
            each.close()


@pytest.fixture
def slow_way(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Between any two machines."""
    ways: list[Way] = []

    class FarDoor(Door):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            ways.append(Way(int(self.endpoint.rpartition(":")[2]), slow=2, delay_s=0.1))
            self.endpoint = f"tcp://127.0.0.1:{ways[-1].port}"

    monkeypatch.setattr(introduction, "Door", FarDoor)
    yield
    for way in ways:
        way.close()


@pytest.mark.usefixtures("slow_way")
@pytest.mark.parametrize("introduced", ["far away"], indirect=True)
def test_what_one_sends_may_overtake_its_welcome(introduced: Introduce) -> None:
    """It comes over a connection that is faster than another one's."""
    messages = [random_bytes(number, 1000 * number) for number in range(20)]

    def exchange(own: Links) -> None:
        for message in messages:
            own.send(1 - own.rank, Tag.LETTER, message)
        for message in messages:
            assert torch.equal(own.receive([1 - own.rank], [Tag.LETTER])[2], message)
        done.append(own.rank)

    done: list[int] = []
    introduced(then=exchange)
    assert sorted(done) == [0, 1]


@pytest.mark.usefixtures("slow_way")
@pytest.mark.parametrize("introduced", ["far away"], indirect=True)
@pytest.mark.parametrize("says_so", [True, False])
def test_the_end_of_a_fast_connection_does_not_cut_off_a_slow_one(says_so: bool, introduced: Introduce) -> None:
    first, second = introduced()
    message = random_bytes(0, 1_000_000)
    first.send(1, Tag.LETTER, message)
    first.flush()
    closing = threading.Thread(target=first.close, kwargs={"says_so": says_so}, daemon=True)
    closing.start()
    assert torch.equal(second.receive([0], [Tag.LETTER])[2], message)
    closing.join(DEADLINE_S)
    with pytest.raises(WorkerError, match="worker 0"):
        second.receive([0], [Tag.LETTER])


@pytest.mark.parametrize("introduced", ["here", "away"], indirect=True)
def test_one_that_is_gone_before_it_was_looked_at_is_noticed(
    introduced: Introduce, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its end comes between its last word of the introduction and the first look at its connection."""
    gone = threading.Event()
    look = peer_file.Peer.look

    def late_look(peer: peer_file.Peer) -> None:
        if peer.rank == 0:
            assert gone.wait(DEADLINE_S)
            until(lambda: bool(peer.monitor.poll(0)) or bool(peer.num_ended))
        look(peer)

    def leave(own: Links) -> None:
        if own.rank == 0:
            own.close(says_so=False)
            gone.set()

    monkeypatch.setattr(peer_file.Peer, "look", late_look)
    _, second = introduced(then=leave, timeout_s=5.0)
    with pytest.raises(WorkerError, match="lost worker 0"):
        second.receive([0], [Tag.LETTER])


def test_what_was_sent_before_a_failure_is_taken_before_it_is_heard_of(introduced: Introduce) -> None:
    """So that all who have the last messages of a step come to the same end by themselves."""
    first, second = introduced()
    with first:
        first.send(1, Tag.LETTER, random_bytes(1, 100))
        first.flush()
    first.abort("the tank is empty")
    assert until(lambda: bool(second.peers[0].connection.poll(0)))
    with second:
        assert until(lambda: second._arrivals.fetch(second.peers[0]) == 0 and second.peers[0].mail.failure is not None)
        _, _, letter = second.receive([0], [Tag.LETTER])
        assert torch.equal(letter, random_bytes(1, 100))
    with second, pytest.raises(WorkerError, match="the tank is empty"):
        second.receive([0], [Tag.LETTER])
