"""Makes processes known to each other over a meeting, such as the script's own process group.

It is needed for nothing else: for one all-gather of cards of fixed size. Nothing is unpickled.
"""

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version

import zmq

from thinwire.distributed.addresses import advertised_host, host_name, machine_id
from thinwire.distributed.doors import Door, connect, greet, round_trip_s
from thinwire.distributed.link_options import LinkOptions
from thinwire.distributed.links import Links
from thinwire.distributed.mail import Mailbox
from thinwire.distributed.meeting import Meeting
from thinwire.distributed.peer import Peer
from thinwire.distributed.told import read_told
from thinwire.errors import ConfigError, ProtocolError, WorkerError

CARD_NUM_BYTES = 1024
TEXT_NUM_BYTES = 2048
"""Of what a term says, where processes do not agree."""

_HASH_NUM_BYTES = 8
_MOST_GROUPS = TEXT_NUM_BYTES // (2 * _HASH_NUM_BYTES)

LONGEST_SILENCE_S = 30.0
"""Without a sign of life for so long a process counts as gone, if half the timeout is not shorter."""

LONGEST_MEETING_S = 60.0
"""How long processes that all run may take to reach each other."""

_GONE_S = 2.0
"""A process that was reached, and then not any more for so long, has ended: connections are made anew at once."""

LONG_ROUND_TRIP_S = 0.002
"""A way there and back that is worth avoiding by several connections, each of which costs a little."""

_WELCOMES = {False: b"over one", True: b"over all"}
"""How the messages to whom it is said will come."""


@dataclass(frozen=True, slots=True)
class Card:
    """What a process tells the others of itself.

    Args:
        version: of thinwire.
        host: the machine's name, for errors.
        machine: the same for processes that can meet in a folder.
        path: of the door in the file system.
        endpoint: of the door on the network.
        key: of the door; empty if messages are not encrypted.
        secret: what the others show there, in hexadecimal digits.
        terms: of what all must agree on, by name, a hash each.
    """

    version: str
    host: str
    machine: str
    path: str
    endpoint: str
    key: str
    secret: str
    terms: dict[str, str]

    def to_bytes(self) -> bytes:
        """Always as many."""
        return _padded(json.dumps(asdict(self), separators=(",", ":")), CARD_NUM_BYTES)

    @staticmethod
    def of_text(text: str) -> "Card":
        """What another process has told.

        Raises:
            ProtocolError: it is no card.
        """
        found = read_told(text, _FIELDS, "a process")
        if not all(type(each) is str for each in found["terms"].values()):
            raise ProtocolError(f"a process said {found['terms']!r} of its terms; all must run one version of thinwire")
        return Card(**found)


_FIELDS = {
    "version": str, "host": str, "machine": str, "path": str, "endpoint": str, "key": str, "secret": str, "terms": dict,
}  # fmt: skip


def introduce(meeting: Meeting, options: LinkOptions, terms: Mapping[str, str]) -> Links:
    """Links between the processes that meet; each of them, and no other, must call it at the same point.

    Args:
        meeting: of them.
        options: the same on every process, but for the interface.
        terms: what must be the same on all, by name, as text. Names that only some processes give are not compared.

    Raises:
        ConfigError: the processes do not agree, or this one cannot listen.
        ProtocolError: somebody else tells something at this meeting.
        WorkerError: some process cannot reach another one.
    """
    rank = meeting.rank
    said = {**terms, "links": f"encrypt={options.encrypt}, connections={options.connections}"}
    timeout_s = (options.timeout or meeting.timeout).total_seconds()
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    context.set(zmq.MAX_SOCKETS, max(1023, 4 * meeting.size))
    links: Links | None = None
    door = Door(context, options, advertised_host(options.interface))
    try:
        own = Card(
            _version(), host_name(), machine_id(), door.path, door.endpoint, door.key, door.secret.hex(),
            {name: _hash(text) for name, text in said.items()},
        )  # fmt: skip
        cards = [Card.of_text(text) for text in _gather_text(own.to_bytes(), meeting)]
        _check_terms(cards, said, meeting)
        # Sooner than others give up who wait for this process because it waits for that one.
        silence_s = min(timeout_s / 2, LONGEST_SILENCE_S)
        others = [other for other in range(len(cards)) if other != rank]
        peers = {other: _peer(context, cards, rank, other, options.connections, silence_s) for other in others}
        links = Links(context, door, peers, rank, timeout_s, silence_s)
        _meet(door, peers, cards, rank, min(timeout_s, LONGEST_MEETING_S))
        door.stop_admitting(is_alone=all(peer.is_here for peer in peers.values()))
    except BaseException:
        if links is None:
            door.close(0)
            context.destroy(0)
        else:
            links.abort(f"worker {rank} on {host_name()} could not begin")
            links.close()
        raise
    return links


def _gather_text(text: bytes, meeting: Meeting) -> list[str]:
    """Every process's padded text, in rank order."""
    return [each.rstrip(b"\0").decode(errors="replace") for each in meeting.gather(text)]


def _padded(text: str, num_bytes: int) -> bytes:
    encoded = text.encode()
    if len(encoded) > num_bytes:
        raise ConfigError(f"what this process tells of itself takes {len(encoded)} bytes, at most {num_bytes}: {text}")
    return encoded.ljust(num_bytes, b"\0")


def _hash(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=_HASH_NUM_BYTES).hexdigest()


def _check_terms(cards: list[Card], said: Mapping[str, str], meeting: Meeting) -> None:
    """Every process raises the same error, so that none waits for another one."""
    versions = [card.version for card in cards]
    if len(set(versions)) > 1:
        listed = ", ".join(f"worker {other} on {cards[other].host}: {each}" for other, each in enumerate(versions))
        raise ConfigError(f"the processes have different versions of thinwire; install one everywhere ({listed})")
    names = sorted({name for card in cards for name in card.terms})
    differ = [name for name in names if len({card.terms[name] for card in cards if name in card.terms}) > 1]
    if not differ:
        return
    name = differ[0]
    holds = [name in card.terms for card in cards]
    pieces = said.get(name, "").split("; ")
    step = max(1, -(-len(pieces) // _MOST_GROUPS))
    groups = ["; ".join(pieces[place : place + step]) for place in range(0, len(pieces), step)]
    # Where a long text differs: a hash of each group of its pieces, then the first group that is not the same on all.
    hashes = [
        text
        for text, holds_it in zip(
            _gather_text(_padded("".join(map(_hash, groups)), TEXT_NUM_BYTES), meeting), holds, strict=True
        )
        if holds_it
    ]
    width = 2 * _HASH_NUM_BYTES
    place = next(at for at in range(_MOST_GROUPS) if len({text[at * width : (at + 1) * width] for text in hashes}) > 1)
    shown = groups[place] if place < len(groups) else "nothing more"
    texts = _gather_text(_padded(shown.encode()[: TEXT_NUM_BYTES - 1].decode(errors="ignore"), TEXT_NUM_BYTES), meeting)
    held_by: dict[str, list[int]] = {}
    for other, text in enumerate(texts):
        if holds[other]:
            held_by.setdefault(text, []).append(other)
    listed = "; ".join(f"{text} (worker {', '.join(map(str, who))})" for text, who in held_by.items())
    raise ConfigError(
        f"the processes differ in {' and '.join(differ)}, which must be the same on all. The {name} is: {listed}"
    )


def _peer(
    context: "zmq.Context[zmq.Socket[bytes]]", cards: list[Card], rank: int, other: int, connections: int,
    silence_s: float,
) -> Peer:  # fmt: skip
    """A process that is connected to, and greeted."""
    card = cards[other]
    is_here = card.machine == cards[rank].machine
    endpoint, key = (f"ipc://{card.path}", "") if is_here else (card.endpoint, card.key)
    count = 1 if is_here else connections
    fetching, monitor = connect(context, endpoint, key, count, silence_s)
    greet(fetching, bytes.fromhex(card.secret), rank, count)
    return Peer(other, card.host, is_here, [b""] * count, fetching, monitor, Mailbox(other, 1))


def _meet(door: Door, peers: dict[int, Peer], cards: list[Card], rank: int, limit_s: float) -> None:
    """Welcome who greets, on each connection, and wait for the same from all."""
    deadline = time.monotonic() + limit_s
    uncome = {(other, number) for other, peer in peers.items() for number in range(len(peer.routes))}
    unwelcome = {other: len(peer.routes) for other, peer in peers.items()}
    spreads: dict[int, bool] = {}
    early: list[tuple[Peer, list[zmq.Frame]]] = []
    while uncome or unwelcome:
        waits = [(door.socket, zmq.POLLIN), *((peers[other].connection, zmq.POLLIN) for other in unwelcome)]
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            missing = {other for other, _ in uncome}
            raise WorkerError(_unreachable(peers, cards, rank, missing, set(unwelcome), limit_s))
        ready = {socket for socket, _ in zmq.zmq_poll(waits, int(1000 * min(left_s, 1.0)))}
        if door.socket in ready:
            identity, *text = door.socket.recv_multipart(copy=False)
            came = door.admit(identity.bytes, text[0].bytes) if len(text) == 1 else None
            if came in uncome:
                other, number = came
                uncome.discard(came)
                peers[other].routes[number] = identity.bytes
                file = int(text[0].get(zmq.SRCFD))
                spread = spreads.setdefault(other, not peers[other].is_here and round_trip_s(file) > LONG_ROUND_TRIP_S)
                try:
                    door.socket.send_multipart([identity.bytes, _WELCOMES[spread]])
                except zmq.ZMQError as error:
                    if error.errno != zmq.EHOSTUNREACH:
                        raise
                    uncome.add(came)  # the connection has ended meanwhile
        awaited = set() if ready else {*unwelcome, *(other for other, _ in uncome)}
        gone = [other for other in sorted(awaited) if peers[other].has_gone(_GONE_S)]
        if gone:
            raise WorkerError(
                f"worker {rank} lost {' and '.join(str(peers[other]) for other in gone)} while the processes met: its "
                "process has ended; its own output says why"
            )
        for other in [*unwelcome]:
            peer = peers[other]
            if peer.connection not in ready:
                continue
            frames = peer.connection.recv_multipart(copy=False)
            if frames[0].bytes not in _WELCOMES.values():
                early.append((peer, frames))  # it has overtaken the welcome over another connection
                continue
            unwelcome[other] -= 1
            if not unwelcome[other]:
                del unwelcome[other]
                peer.mail = Mailbox(other, len(peer.routes) if frames[0].bytes == _WELCOMES[True] else 1)
    for peer in peers.values():
        peer.meet(len(peer.routes))
    for peer, frames in early:
        peer.num_to_confirm += peer.mail.put(frames, 0)
    for other, spread in spreads.items():
        if not spread:
            del peers[other].routes[1:]


def _unreachable(
    peers: dict[int, Peer], cards: list[Card], rank: int, uncome: set[int], unwelcome: set[int], limit_s: float
) -> str:
    """Who could not reach whom, where."""

    def where(other: int) -> str:
        return cards[other].path if other != rank and peers[other].is_here else cards[other].endpoint

    on = {other: f"worker {other} on {card.host}" for other, card in enumerate(cards)}
    found = [f"{on[other]} did not reach worker {rank} at {where(rank)}" for other in uncome]
    found += [f"worker {rank} did not reach {on[other]} at {where(other)}" for other in unwelcome]
    return (
        f"within {limit_s:.0f} s {'; '.join(found)}. If machines have several networks, name the one to use with "
        "links=LinkOptions(interface=...); if a firewall is between them, LinkOptions(ports=(first, last)) and open "
        "these ports"
    )


def _version() -> str:
    try:
        return version("thinwire")
    except PackageNotFoundError:
        return "0+unknown"  # run from its files, without installation
