"""EF21+: what is kept of each worker is what the worker has, and it is the nearer of two."""

from dataclasses import dataclass

import pytest
import torch
from exchange_cases import Party, vectors_of
from method_cases import Crew
from torch import Tensor

from thinwire.compressors import QSGD, BetterOf, Compressor, Identity, RandK, Sign, TopK
from thinwire.compressors.base import Traits
from thinwire.errors import ConfigError
from thinwire.exchanges import Accumulating, BetterEstimate, Exchange, Gather
from thinwire.layout import Segments
from thinwire.memory import EF21, Memory, Momentum, NoMemory, Shift
from thinwire.methods import GradientAveraging, parse_method
from thinwire.payloads import Concat, Payload
from thinwire.random import Key
from thinwire.wire import encode

NUMEL, SIZE = 40, 4
ROUTES: list[BetterEstimate] = [BetterEstimate(), BetterEstimate("server"), BetterEstimate("server", server=2)]


@dataclass(frozen=True, slots=True)
class Enclosed:
    """An operator whose messages look like the mark of a replaced estimate."""

    inner: Compressor

    def compress(self, x: Tensor, key: Key, segments: Segments) -> Payload:
        return Concat((Concat((self.inner.compress(x, key, segments),)),))

    def outline(self, segments: Segments) -> Payload:
        return Concat((Concat((self.inner.outline(segments),)),))

    def traits(self, numel: int) -> Traits:
        return self.inner.traits(numel)


COMPRESSORS: list[Compressor] = [
    TopK(k=4),
    TopK(k=6, values=QSGD(levels=15)),
    RandK(k=6),
    Sign(),
    BetterOf(TopK(k=2), Sign()),
    Enclosed(TopK(k=4)),
    Identity(),
]


def party(exchange: Exchange, compressor: Compressor, memory: Memory | None = None, size: int = SIZE) -> Party:
    method = GradientAveraging(memory=memory or NoMemory(), compressor=compressor, exchange=exchange)
    return Party(method, size, NUMEL)


def bits(x: Tensor) -> bytes:
    return x.contiguous().numpy().tobytes()


def drifting(steps: int) -> list[list[Tensor]]:
    """Vectors that stay near what they were, jump now and then, have zeros of both signs and entries of all sizes."""
    found = []
    for step in range(steps):
        jump, walk = vectors_of(SIZE, NUMEL, 100 + step // 5), vectors_of(SIZE, NUMEL, step, heavy=False)
        vectors = [a + 0.05 * b for a, b in zip(jump, walk, strict=True)]
        for x in vectors:
            x[::7] = -0.0
            x[3::7] *= 1e-42
        found.append(vectors)
    return found


@pytest.mark.parametrize("compressor", COMPRESSORS, ids=str)
@pytest.mark.parametrize("exchange", ROUTES, ids=str)
def test_what_is_kept_of_a_worker_is_what_it_has(exchange: BetterEstimate, compressor: Compressor) -> None:
    crew = party(exchange, compressor)
    for vectors in drifting(20):
        aggregates = crew.exchange(vectors)
        own = [bits(each.sent.to_dense()) for each in aggregates]
        for rank, channel in enumerate(crew.channels):
            kept = [bits(row) for row in channel.exchange["estimates"]]
            averages = exchange.route == "gather" or rank == exchange.server
            assert kept == (own if averages else own[rank : rank + 1])
        assert len({bits(each.mean) for each in aggregates}) == 1
        if exchange.route == "server":
            assert {bits(channel.exchange["mean"]) for channel in crew.channels} == {bits(aggregates[0].mean)}
        mean = torch.stack([each.sent.to_dense().double() for each in aggregates]).mean(dim=0)
        torch.testing.assert_close(aggregates[0].mean.double(), mean, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("compressor", COMPRESSORS, ids=str)
@pytest.mark.parametrize("exchange", ROUTES[:2], ids=str)
def test_an_estimate_is_the_nearer_of_the_two(exchange: BetterEstimate, compressor: Compressor) -> None:
    """From the same state: no farther off than EF21's, nor than the message of the vector; and one of them."""
    crew, whole, chosen = party(exchange, compressor), Segments.whole(NUMEL), set()
    before = [torch.zeros(NUMEL) for _ in range(SIZE)]
    for number, vectors in enumerate(drifting(25)):
        aggregates = crew.exchange(vectors)
        for rank, (x, aggregate) in enumerate(zip(vectors, aggregates, strict=True)):
            key = Key(3).fold("exchange", number, "rank", rank)
            fresh = compressor.compress(x, key, whole)
            change, state = EF21().compress(x.clone(), compressor, key, whole, {"estimate": before[rank]})
            found = aggregate.sent.to_dense()
            off = [float((each.double() - x).norm()) for each in (found, fresh.to_dense(), state["estimate"])]
            assert off[0] <= min(off[1:]) * (1 + 1e-6) + 1e-9
            is_fresh = off[1] <= off[2]
            assert torch.equal(found, fresh.to_dense() if is_fresh else state["estimate"]) or off[1] == pytest.approx(
                off[2], rel=1e-6
            )
            if not isinstance(compressor, Enclosed):
                mark = 2 if torch.equal(found, fresh.to_dense()) else 0
                lengths = {2: encode(fresh).numel() + 2, 0: encode(change).numel()}
                assert aggregate.message_bytes == lengths[mark]
            chosen.add(is_fresh)
            before[rank] = found.clone()
    assert chosen == ({True} if isinstance(compressor, Identity) else {True, False})


def test_where_messages_of_vectors_are_always_better_it_is_their_average() -> None:
    """Vectors with k entries, others at each step: ``C(x) = x``, and a change would need 2 k."""
    ours, plain = party(BetterEstimate(), TopK(k=4)), party(Gather(), TopK(k=4))
    served = party(BetterEstimate("server"), TopK(k=4))
    for step in range(30):
        vectors = []
        for x in vectors_of(SIZE, NUMEL, step):
            places = (torch.arange(4) + 4 * step) % NUMEL
            vectors.append(torch.zeros(NUMEL).index_copy_(0, places, x[:4]))
        (expected, *_) = plain.exchange(vectors)
        for crew in (ours, served):
            for aggregate in crew.exchange(vectors):
                assert torch.equal(aggregate.mean, expected.mean)


@pytest.mark.parametrize("exchange", ROUTES, ids=str)
def test_where_changes_are_always_better_it_is_ef21(exchange: BetterEstimate) -> None:
    ours, plain = party(exchange, TopK(k=4)), party(Accumulating(), TopK(k=4), EF21())
    start, drift = vectors_of(SIZE, NUMEL, 0, heavy=False), vectors_of(SIZE, NUMEL, 1, heavy=False)
    for step in range(40):
        vectors = [a + 0.001 * step * b for a, b in zip(start, drift, strict=True)]
        found, expected = ours.exchange(vectors), plain.exchange(vectors)
        for channel, aggregate in zip(plain.channels, found, strict=True):
            assert torch.equal(channel.memory["estimate"], aggregate.sent.to_dense())
        torch.testing.assert_close(found[0].mean, expected[0].mean, rtol=1e-5, atol=1e-6)


def test_a_memory_before_it_is_what_is_estimated() -> None:
    """With ``Momentum`` the messages are of running means."""
    ours, plain = party(BetterEstimate(), TopK(k=4), Momentum(0.5)), party(BetterEstimate(), TopK(k=4))
    means = [torch.zeros(NUMEL) for _ in range(SIZE)]
    for vectors in drifting(10):
        means = [x * 0.5 + mean * 0.5 for x, mean in zip(vectors, means, strict=True)]
        assert torch.equal(ours.exchange(vectors)[0].mean, plain.exchange(means)[0].mean)


def test_the_server_sends_what_is_new() -> None:
    """Of estimates that changed in at most 4 entries each, the mean has at most 16 new ones; of equal ones none."""
    crew, big = party(BetterEstimate("server"), TopK(k=1)), 4 * NUMEL
    start = vectors_of(SIZE, NUMEL, 0, heavy=False)
    received, before = [], 0
    for _ in range(NUMEL + 2):
        crew.exchange(start)
        received.append(crew.traffic[1].bytes_received - before)
        before = crew.traffic[1].bytes_received
    assert max(received) < big
    assert received[-1] < received[1]
    assert torch.equal(crew.channels[1].exchange["mean"], torch.stack(start).sum(dim=0) / SIZE)


@pytest.mark.parametrize(("text", "rows"), [("ef21-plus:k=2", [3, 3, 3]), ("ef21-plus:k=2,exchange=server", [3, 1, 1])])
def test_who_resumes_has_all_estimates(text: str, rows: list[int]) -> None:
    whole, numel = Crew(parse_method(text), 3).run(6), 47
    again = Crew(parse_method(text), 3)
    for old, new, model, count in zip(whole.workers, again.workers, again.models, rows, strict=True):
        state = old.state_dict()
        assert state["tensors"]["exchange.estimates.#0"].shape == (count, numel)
        model.load_state_dict(old.model.state_dict())
        new.load_state_dict(state)
        assert torch.equal(new.state_dict()["tensors"]["exchange.estimates.#0"], old.channels[0].exchange["estimates"])
    again.num_steps = whole.num_steps
    whole.run(4)
    again.run(4)
    for old, new in zip(whole.workers, again.workers, strict=True):
        for name, tensor in old.state_dict()["tensors"].items():
            assert bits(new.state_dict()["tensors"][name]) == bits(tensor)
        for one, other in zip(old.model.parameters(), new.model.parameters(), strict=True):
            assert torch.equal(one, other)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ConfigError, match="workers 0 to 3"):
        party(BetterEstimate("server", server=4), TopK(k=1))
    with pytest.raises(ConfigError, match="not a contraction"):
        party(BetterEstimate(), QSGD(levels=1))
    with pytest.raises(ConfigError, match="route"):
        BetterEstimate("ring")  # type: ignore[arg-type]
    for memory in (EF21(), Shift(0.5)):
        with pytest.raises(ConfigError, match="does not go with"):
            GradientAveraging(memory=memory, compressor=TopK(k=1), exchange=BetterEstimate())
