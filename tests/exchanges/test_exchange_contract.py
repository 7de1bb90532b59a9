"""Laws that every registered exchange obeys."""

import itertools
import math

import pytest
import torch
from exchange_cases import Party, vectors_of
from torch import Tensor

from thinwire.compressors import QSGD, Compressor, Identity, PlainSign, RandK, SharedSeedRandK, Sign, TernGrad, TopK
from thinwire.config import from_json, registered, to_json
from thinwire.exchanges import (
    Accumulating,
    AllReduce,
    AsynchronousServer,
    BetterEstimate,
    CompressedReduceScatter,
    Context,
    Directed,
    Exchange,
    Gather,
    Gossip,
    Hierarchical,
    IntegerSum,
    LeaderSupport,
    MajorityVote,
    OrthonormalLines,
    ParameterServer,
    PowerIteration,
    RobustGather,
    SharedScale,
    SignOf,
    SparseReduceScatter,
    TableSum,
    Tree,
    VarianceScaled,
)
from thinwire.exchanges.asynchronous import max_answer_num_bytes
from thinwire.exchanges.graphs import Complete, Edges, mixing_matrix
from thinwire.layout import Layout, Segments
from thinwire.memory import (
    EF21,
    Change,
    ErrorFeedback,
    Handed,
    LowPass,
    Memory,
    MemorySender,
    Momentum,
    MomentumFeedback,
    NoMemory,
    Shift,
)
from thinwire.methods import Consensus, FrozenAdam, FrozenLamb, GradientAveraging, ModelAveraging, parse_method
from thinwire.payloads import Dense
from thinwire.random import Key
from thinwire.steps import AllGather, Receive, ReceiveAny, Send
from thinwire.wire import encoded_num_bytes
from thinwire.worker import Server

SIZES = [1, 2, 3, 5, 8]
FEW = TopK(k=1)
REMEMBER = ErrorFeedback()

PLAIN: list[Exchange] = [
    AllReduce(),
    Gather(),
    ParameterServer(),
    Tree(),
    Tree(arity=1),
    Tree(arity=3),
    SparseReduceScatter(),
    SparseReduceScatter(balanced=True),
    Hierarchical(1),
    Hierarchical(2),
    Hierarchical(3),
    Hierarchical(100),
    Gossip(graph=Complete()),
]
"""With exact messages their mean is the workers' mean."""
AGAIN: list[Exchange] = [
    ParameterServer(downlink=FEW),
    Tree(merge=FEW),
    Tree(arity=3, merge=TopK(density=0.2)),
    SparseReduceScatter(select=TopK(density=0.3)),
]
"""Those that compress sums again."""
ONE = RandK(k=1, unbiased=True)
FORGETFUL: list[Exchange] = [
    ParameterServer(downlink=ONE, remember=False),
    Tree(merge=ONE, remember=False),
    SparseReduceScatter(select=ONE, remember=False),
]
"""Those that compress sums again by drawing an entry, which most often is not the one that is NaN."""
OTHERS: list[tuple[Exchange, Compressor, Memory]] = [
    (AllReduce("bf16"), Identity(), NoMemory()),
    (AllReduce("f16"), SharedSeedRandK(density=0.2, shared=True), NoMemory()),
    (Accumulating(), TopK(k=3), EF21()),
    (Accumulating(Tree(merge=FEW)), TopK(k=3), EF21()),
    (Directed(direction=FrozenAdam(freeze=2)), Sign(), ErrorFeedback()),
    (Directed(direction=FrozenAdam(freeze=2), exchange=CompressedReduceScatter()), Sign(), ErrorFeedback()),
    (Directed(direction=FrozenLamb(freeze=2)), Sign(), ErrorFeedback()),
    (Accumulating(rate=0.125), RandK(k=3, unbiased=True), Shift(0.125)),
    (Accumulating(ParameterServer(downlink=FEW)), TopK(k=3), EF21()),
    (Accumulating(restart=0.1), RandK(k=3, unbiased=True), Change()),
    (BetterEstimate(), TopK(k=3), NoMemory()),
    (BetterEstimate(route="server"), TopK(k=3), Momentum(0.5)),
    (IntegerSum(), Identity(), NoMemory()),
    (LeaderSupport(), TopK(k=3), LowPass()),
    (TableSum(bits=2, granularity=6), Identity(), ErrorFeedback()),
    (MajorityVote(), PlainSign(), NoMemory()),
    (MajorityVote(route="gather"), PlainSign(), NoMemory()),
    (CompressedReduceScatter(), Sign(), ErrorFeedback()),
    (PowerIteration(), Identity(), ErrorFeedback()),
    (PowerIteration(rank=4, result="orthonormal"), Identity(), MomentumFeedback()),
    (OrthonormalLines(), Identity(), MomentumFeedback()),
    (RobustGather(), QSGD(levels=7), NoMemory()),
    (RobustGather("trimmed", trim=0.34), Sign(), ErrorFeedback()),
    (SharedScale(), TernGrad(), NoMemory()),
    (SignOf(), TopK(k=3), ErrorFeedback()),
    (VarianceScaled(), RandK(k=3, unbiased=True), NoMemory()),
]
"""Those whose result is not the mean; more of their laws are in files of their own."""
IN_SESSIONS = {"AsynchronousServer"}
"""It has no exchange in which all take part."""


def compressors_for(exchange: Exchange) -> Compressor:
    return SharedSeedRandK(density=0.2, shared=True) if exchange.needs_linear else TopK(density=0.1)


def party(exchange: Exchange, compressor: Compressor, size: int, numel: int, memory: Memory = REMEMBER) -> Party:
    if exchange.workers_agree:
        return Party(GradientAveraging(memory=memory, compressor=compressor, exchange=exchange), size, numel)
    method = ModelAveraging(memory=memory, compressor=compressor, exchange=exchange, update=Consensus())
    return Party(method, size, numel)


def mean_of(vectors: list[Tensor]) -> Tensor:
    return torch.stack(vectors).double().mean(dim=0)


def test_every_registered_exchange_is_in_this_suite() -> None:
    kinds = {name for name, kind in registered().items() if kind.__module__.startswith("thinwire.exchanges.")}
    exchanges = {name for name in kinds if "needs_linear" in dir(registered()[name])}
    others = [each for each, _, _ in OTHERS]
    assert exchanges == {type(each).__name__ for each in (*PLAIN, *AGAIN, *others)} | IN_SESSIONS


@pytest.mark.parametrize("exchange", [*PLAIN, *AGAIN], ids=str)
def test_an_exchange_is_the_same_after_json(exchange: Exchange) -> None:
    assert from_json(to_json(exchange)) == exchange
    assert isinstance(exchange, Exchange)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("exchange", PLAIN, ids=str)
def test_the_mean_of_exact_vectors_is_the_mean(exchange: Exchange, size: int) -> None:
    for numel in (1, 3, 257):
        crew = party(exchange, Identity(), size, numel)
        for seed in range(2):
            vectors = vectors_of(size, numel, seed)
            for aggregate in crew.exchange(vectors):
                assert aggregate.finite
                torch.testing.assert_close(aggregate.mean.double(), mean_of(vectors), rtol=1e-5, atol=1e-5)
        assert float(crew.kept().abs().max()) == 0.0


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("exchange", [*PLAIN, *AGAIN], ids=str)
def test_a_mean_has_the_same_bits_everywhere_and_what_is_not_in_it_is_kept(exchange: Exchange, size: int) -> None:
    """The vectors of all exchanges so far are P times the sum of the means, and what is kept."""
    numel = 41
    crew = party(exchange, compressors_for(exchange), size, numel)
    given = received = torch.zeros(numel, dtype=torch.float64)
    for seed in range(5):
        vectors = vectors_of(size, numel, seed)
        aggregates = crew.exchange(vectors)
        assert all(each.mean.shape == (numel,) and each.finite for each in aggregates)
        assert len({each.mean.numpy().tobytes() for each in aggregates}) == 1 or not exchange.workers_agree
        given = given + torch.stack(vectors).double().sum(dim=0)
        received = received + torch.stack([each.mean for each in aggregates]).double().sum(dim=0)
    kept = crew.kept()
    if isinstance(exchange, ParameterServer):  # it keeps a part of the mean, the others of the sum
        kept += (size - 1) * crew.channels[0].exchange.get("left", torch.zeros(numel)).double()
    torch.testing.assert_close(received + kept, given, rtol=1e-5, atol=1e-4)
    assert float(kept.abs().sum()) > 0.0 or size >= 5


@pytest.mark.parametrize("exchange", [*PLAIN, *AGAIN], ids=str)
def test_a_vector_shorter_than_the_number_of_workers(exchange: Exchange) -> None:
    if isinstance(exchange, SparseReduceScatter) and exchange.select is not None:
        exchange = SparseReduceScatter(select=TopK(density=0.5))
    crew = party(exchange, SharedSeedRandK(k=1, shared=True) if exchange.needs_linear else FEW, 8, 3)
    received = torch.zeros(3, dtype=torch.float64)
    vectors = vectors_of(8, 3, 0)
    for seed in range(30):
        received += crew.exchange(vectors)[seed % 8].mean
    kept = crew.kept() / 8
    if isinstance(exchange, ParameterServer):
        kept += 7 / 8 * crew.channels[0].exchange.get("left", torch.zeros(3)).double()
    torch.testing.assert_close(received + kept, 30 * mean_of(vectors), rtol=1e-5, atol=1e-4)
    # All of it comes through in the end, though one entry at a time: no more waits than a few exchanges' worth.
    assert float(kept.norm()) < 0.3 * float(received.norm())


@pytest.mark.parametrize(("size", "poison"), [(1, math.nan), (2, math.inf), (3, -math.inf), (8, math.nan)])
@pytest.mark.parametrize("exchange", [*PLAIN, *AGAIN, *FORGETFUL], ids=str)
def test_nan_or_infinity_is_seen_by_all_and_changes_nothing(exchange: Exchange, size: int, poison: float) -> None:
    for compressor in (compressors_for(exchange), Identity()):
        crew = party(exchange, compressor, size, 20)
        crew.exchange(vectors_of(size, 20, 0))
        before = crew.bits()
        vectors = vectors_of(size, 20, 1)
        vectors[size - 1][17] = poison
        for aggregate in crew.exchange(vectors):
            assert not aggregate.finite
            assert not torch.isfinite(aggregate.mean)[17]
            assert int(torch.isfinite(aggregate.mean).sum()) == 19
        assert crew.bits() == before
        # And it goes on as if nothing had been.
        assert all(each.finite for each in crew.exchange(vectors_of(size, 20, 2)))


@pytest.mark.parametrize("size", [1, 3, 4])
@pytest.mark.parametrize(("exchange", "compressor", "memory"), OTHERS, ids=str)
def test_other_exchanges_too_agree_on_every_bit_and_on_what_is_no_number(
    exchange: Exchange, compressor: Compressor, memory: Memory, size: int
) -> None:
    crew = Party(GradientAveraging(memory=memory, compressor=compressor, exchange=exchange), size, 24)
    for seed in range(3):
        aggregates = crew.exchange(vectors_of(size, 24, seed))
        assert len({each.mean.numpy().tobytes() for each in aggregates}) == 1
        assert all(each.finite for each in aggregates)
    before = crew.bits()
    vectors = vectors_of(size, 24, 3)
    vectors[size - 1][17] = math.nan
    assert not any(each.finite or torch.isfinite(each.mean).all() for each in crew.exchange(vectors))
    assert crew.bits() == before


@pytest.mark.parametrize("exchange", [*PLAIN, *AGAIN], ids=str)
def test_a_sum_that_overflows_is_seen_by_all(exchange: Exchange) -> None:
    crew = party(exchange, Identity() if exchange.needs_linear else FEW, 4, 6)
    vectors = [torch.full((6,), 3e38) for _ in range(4)]
    told = [each.finite for each in crew.exchange(vectors)]
    if exchange.workers_agree and not isinstance(exchange, Hierarchical):
        assert told == [False] * 4
    assert len(set(told)) == 1


@pytest.mark.parametrize(
    ("exchange", "compressor", "memory"),
    [*((each, compressors_for(each), REMEMBER) for each in (*PLAIN, *AGAIN, *FORGETFUL)), *OTHERS],
    ids=str,
)
def test_no_worker_asks_for_a_message_of_any_length(exchange: Exchange, compressor: Compressor, memory: Memory) -> None:
    crew = party(exchange, compressor, 4, 24, memory)
    vectors = vectors_of(4, 24, 0)
    for _ in range(2):
        crew.exchange(vectors)
        asked = [op for op in itertools.chain(*crew.requests) if isinstance(op, AllGather | Receive)]
        assert asked or exchange.needs_linear
        for op in asked:
            assert op.max_num_bytes is not None
            assert op.max_num_bytes <= encoded_num_bytes(Dense(vectors[0])) + 16
        vectors[3][17] = math.nan


def test_asynchronous_workers_and_their_server_ask_for_messages_of_a_length() -> None:
    layout = Layout(("v",), (torch.Size([5]),))
    ctx = Context(0, 2, Key(0), Segments.whole(5), 99, layout)
    program = AsynchronousServer().run(Handed(torch.ones(5)), MemorySender(Identity()), ctx, {})
    assert isinstance(next(program), Send)
    asked = program.send(None)
    assert isinstance(asked, Receive)
    assert asked.max_num_bytes == max_answer_num_bytes(5)
    asked = next(Server(parse_method("local-sgd-async"), torch.nn.Linear(2, 2), size=2).serve(1))
    assert isinstance(asked, ReceiveAny)
    assert asked.max_num_bytes is not None


@pytest.mark.parametrize("exchange", [*PLAIN, *AGAIN], ids=str)
def test_what_is_sent_is_received(exchange: Exchange) -> None:
    crew = party(exchange, compressors_for(exchange), 5, 64)
    aggregates = crew.exchange(vectors_of(5, 64, 0))
    assert sum(link.bytes_sent for link in crew.traffic) == sum(link.bytes_received for link in crew.traffic)
    assert all(each.message_bytes > 0 for each in aggregates)
    assert all(link.bytes_sent > 0 for link in crew.traffic)


@pytest.mark.parametrize("size", [2, 5])
def test_gossip_keeps_the_mean_of_the_vectors(size: int) -> None:
    graph = Edges(tuple((0, other) for other in range(1, size)))
    weights = mixing_matrix(graph, size)
    vectors = vectors_of(size, 30, 0)
    found = torch.stack([each.mean for each in party(Gossip(graph=graph), Identity(), size, 30).exchange(vectors)])
    torch.testing.assert_close(found.double(), weights @ torch.stack(vectors).double(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.double().mean(dim=0), mean_of(vectors), rtol=1e-5, atol=1e-5)
