import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
import torch

from thinwire.compressors import (
    DCT,
    DRIVE,
    EDEN,
    QSGD,
    Apart,
    Bins,
    Compressor,
    FixedSize,
    GSpar,
    Identity,
    KLevel,
    NaturalCompression,
    NaturalDithering,
    OneBit,
    PlainSign,
    RandK,
    SharedSeedRandK,
    Sign,
    TernGrad,
    Threshold,
    TopK,
)
from thinwire.config import as_written_today, from_json, register, registered, to_json
from thinwire.errors import ConfigError
from thinwire.exchanges import (
    Accumulating,
    AllReduce,
    AsynchronousServer,
    BetterEstimate,
    CompressedReduceScatter,
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
    SharedScale,
    SignOf,
    SparseReduceScatter,
    TableSum,
    Tree,
    VarianceScaled,
)
from thinwire.exchanges.changing_graphs import RandomPairs
from thinwire.exchanges.graphs import Ring
from thinwire.layout import Chunks, Granularity, Layout, PerRow, PerTensor, Whole
from thinwire.memory import (
    EF21,
    Change,
    CorrectedChange,
    ErrorControl,
    ErrorFeedback,
    EstimatedMomentum,
    LionMomentum,
    LowPass,
    Momentum,
    MomentumCorrection,
    MomentumFeedback,
    NoMemory,
    Shift,
    Trigger,
)
from thinwire.methods import (
    CATALOG,
    AveragedCentre,
    CatalogEntry,
    Consensus,
    DoublingGaps,
    DoublingSteps,
    Downpour,
    Elastic,
    ElasticFollow,
    Every,
    Follow,
    FrozenAdam,
    FrozenLamb,
    GradientAveraging,
    Late,
    Method,
    ModelAveraging,
    Outer,
    OuterGossip,
    Partial,
    PostLocal,
    SyncedState,
    Tracking,
    ZeroOneAdam,
    check_method,
    parse_method,
)
from thinwire.methods.options import Density, Fraction, Option, read_options
from thinwire.methods.warm_up import WarmUp

LAYOUT = Layout(("w", "b"), (torch.Size([20, 10]), torch.Size([10])))
SERVED, GATHERED = ParameterServer(), Gather()
FIRST_EXACT = WarmUp((Identity(),), 1)

EXPECTED: dict[str, Method] = {
    "sgd": GradientAveraging(),
    "bf16-sgd": GradientAveraging(exchange=AllReduce("bf16")),
    "fp16-sgd": GradientAveraging(exchange=AllReduce("f16")),
    "local-sgd": ModelAveraging(schedule=Every(8)),
    "qsgd": GradientAveraging(compressor=QSGD(levels=7, norm="max"), exchange=GATHERED, granularity=Chunks(512)),
    "mem-sgd": ModelAveraging(memory=ErrorFeedback(), compressor=TopK(density=0.01), exchange=GATHERED),
    "ef-signsgd": ModelAveraging(memory=ErrorFeedback(), compressor=Sign(), exchange=GATHERED, granularity=PerTensor()),
    "topk": ModelAveraging(memory=ErrorFeedback(), compressor=TopK(density=0.01), exchange=GATHERED),
    "signtopk": ModelAveraging(memory=ErrorFeedback(), compressor=TopK(density=0.01, values=Sign()), exchange=GATHERED),
    "qsparse": ModelAveraging(
        memory=ErrorFeedback(),
        compressor=TopK(density=0.01, values=QSGD(levels=15, scaled=True)),
        exchange=SERVED,
    ),
    "post-local-sgd": ModelAveraging(schedule=PostLocal(switch=100, steps=8)),
    "sparse-averaging": ModelAveraging(fragments=8),
    "pqasgd": ModelAveraging(
        schedule=Every(2), compressor=QSGD(levels=1, norm="max"), exchange=GATHERED, granularity=Chunks(512)
    ),
    "easgd": ModelAveraging(schedule=Every(4), update=Elastic(beta=0.9)),
    "eamsgd": ModelAveraging(schedule=Every(4), update=Elastic(beta=0.9)),
    "diloco": ModelAveraging(schedule=Every(500), update=Outer(lr=0.7, momentum=0.9, nesterov=True)),
    "streaming-diloco": ModelAveraging(
        schedule=Every(25),
        compressor=NaturalDithering(levels=7, norm="max"),
        exchange=GATHERED,
        granularity=PerTensor(),
        update=Outer(lr=0.7, momentum=0.9, nesterov=True, mix=0.5),
        fragments=4,
        delay=5,
    ),
    "sparseloco": ModelAveraging(
        schedule=Every(30),
        memory=ErrorFeedback(decay=0.95),
        compressor=TopK(density=1 / 64, values=Bins(2)),
        exchange=GATHERED,
        granularity=Chunks(4096),
    ),
    "muloco": ModelAveraging(schedule=Every(30), update=Outer(lr=0.9, momentum=0.8, nesterov=True)),
    "des-loc": ModelAveraging(
        schedule=Every(256),
        states=(
            SyncedState(names=("exp_avg", "momentum_buffer"), every=768),
            SyncedState(names=("exp_avg_sq",), every=1536),
        ),
    ),
    "sparta": ModelAveraging(compressor=SharedSeedRandK(density=0.005, shared=True), update=Partial()),
    "cocktailsgd": ModelAveraging(
        memory=ErrorFeedback(),
        compressor=SharedSeedRandK(density=0.1, values=TopK(density=0.2, values=Bins(4))),
        exchange=GATHERED,
    ),
    "dilocox": ModelAveraging(
        schedule=Every(125),
        memory=ErrorFeedback(),
        exchange=PowerIteration(rank=64, factors=Apart(Bins(4), exact_below=16)),
        update=Late(lr=0.7, momentum=0.9, nesterov=True),
    ),
    "ef-sgd": GradientAveraging(memory=ErrorFeedback(), compressor=TopK(density=0.01), exchange=GATHERED),
    "aji-heafield": GradientAveraging(
        memory=ErrorFeedback(), compressor=Threshold(density=0.01, sample=0.001), exchange=GATHERED
    ),
    "dgc": GradientAveraging(
        memory=MomentumCorrection(momentum=0.9, factor_masking=True),
        compressor=TopK(density=0.001),
        exchange=GATHERED,
        granularity=PerTensor(),
        warm_up=WarmUp(tuple(TopK(density=share) for share in (0.25, 0.0625, 0.015625, 0.004)), 20),
    ),
    "signsgd": GradientAveraging(compressor=PlainSign(), exchange=MajorityVote()),
    "signum": GradientAveraging(memory=Momentum(0.9), compressor=PlainSign(), exchange=MajorityVote()),
    "terngrad": GradientAveraging(
        compressor=TernGrad(clip=2.5), exchange=SharedScale(GATHERED), granularity=PerTensor()
    ),
    "gspar": GradientAveraging(compressor=GSpar(density=0.01), exchange=VarianceScaled(GATHERED)),
    "1bit-sgd": GradientAveraging(
        memory=ErrorFeedback(), compressor=OneBit(), exchange=CompressedReduceScatter(), granularity=PerRow()
    ),
    "ef21": GradientAveraging(memory=EF21(), compressor=TopK(density=0.01), exchange=Accumulating(GATHERED)),
    "powersgd": GradientAveraging(memory=ErrorFeedback(), exchange=PowerIteration(rank=2)),
    "demo": GradientAveraging(
        memory=ErrorFeedback(decay=0.999),
        compressor=DCT(values=TopK(k=32), side=64),
        exchange=SignOf(GATHERED),
        granularity=Chunks(4096),
    ),
    "1bit-adam": GradientAveraging(
        memory=ErrorFeedback(),
        compressor=Sign(),
        exchange=Directed(direction=FrozenAdam(freeze=100), exchange=CompressedReduceScatter()),
        granularity=PerTensor(),
        warm_up=WarmUp((Identity(),), 100),
    ),
    "01-adam": ModelAveraging(
        schedule=DoublingSteps(switch=100, period=32678, most=16), memory=ErrorFeedback(), compressor=Sign(),
        exchange=CompressedReduceScatter(), granularity=PerTensor(),
        update=ZeroOneAdam(beta1=0.9, beta2=0.999, eps=1e-8, variance=DoublingGaps(16), freeze=100),
    ),
    "1bit-lamb": GradientAveraging(
        memory=ErrorFeedback(),
        compressor=Sign(),
        exchange=Directed(direction=FrozenLamb(freeze=100), exchange=CompressedReduceScatter()),
        granularity=PerTensor(),
        warm_up=WarmUp((Identity(),), 100),
    ),
    "signed-lion": GradientAveraging(memory=LionMomentum(0.9, 0.99), compressor=PlainSign(), exchange=MajorityVote()),
    "dion": GradientAveraging(memory=MomentumFeedback(0.95), exchange=PowerIteration(rank=16, result="orthonormal")),
    "dion2": GradientAveraging(memory=MomentumFeedback(0.95), exchange=OrthonormalLines(0.25)),
    "d-psgd": ModelAveraging(exchange=Gossip(graph=Ring()), update=Consensus(gamma=1.0)),
    "choco": ModelAveraging(compressor=TopK(density=0.01), exchange=Gossip(graph=Ring()), update=Consensus(gamma=0.1)),
    "double-squeeze": GradientAveraging(
        memory=ErrorFeedback(), compressor=TopK(density=0.01), exchange=ParameterServer(downlink=TopK(density=0.01))
    ),
    "gtopk": ModelAveraging(
        memory=ErrorFeedback(), compressor=TopK(density=0.01), exchange=Tree(arity=2, merge=TopK(density=0.01))
    ),
    "ok-topk": ModelAveraging(
        memory=ErrorFeedback(), compressor=TopK(density=0.01), exchange=SparseReduceScatter(select=TopK(density=0.01))
    ),
    "shared-randk": ModelAveraging(memory=ErrorFeedback(), compressor=SharedSeedRandK(density=0.01, shared=True)),
    "islands": ModelAveraging(memory=ErrorFeedback(), compressor=TopK(density=0.01), exchange=Hierarchical(2)),
    "sparq": ModelAveraging(
        schedule=Every(5),
        compressor=TopK(density=0.1, values=Sign()),
        exchange=Gossip(graph=Ring()),
        update=Consensus(gamma=0.1),
        trigger=Trigger(level=2.0),
    ),
    "noloco": ModelAveraging(
        schedule=Every(50),
        exchange=Gossip(graph=RandomPairs()),
        update=OuterGossip(lr=0.7, momentum=0.5, gamma=0.7),
    ),
    "beer": ModelAveraging(
        compressor=TopK(density=0.01),
        exchange=Gossip(graph=Ring()),
        update=Consensus(gamma=0.1),
        delay=1,
        tracking=Tracking(momentum=0.0),
    ),
    "motef": ModelAveraging(
        compressor=TopK(density=0.01),
        exchange=Gossip(graph=Ring()),
        update=Consensus(gamma=0.1),
        delay=1,
        tracking=Tracking(momentum=0.9),
    ),
    "local-sgd-async": ModelAveraging(schedule=Every(8), exchange=AsynchronousServer(), update=Follow()),
    "qsparse-async": ModelAveraging(
        memory=ErrorFeedback(),
        compressor=TopK(density=0.01, values=QSGD(levels=15, scaled=True)),
        exchange=AsynchronousServer(),
        update=Follow(),
    ),
    "easgd-async": ModelAveraging(schedule=Every(16), exchange=AsynchronousServer(), update=ElasticFollow(beta=0.9)),
    "diana": GradientAveraging(
        memory=Shift(), compressor=QSGD(levels=1, norm="max"), exchange=Accumulating(GATHERED, rate=None),
        granularity=Chunks(512),
    ),
    "ef21-plus": GradientAveraging(compressor=TopK(density=0.01), exchange=BetterEstimate()),
    "ef21-sgdm": GradientAveraging(
        memory=EstimatedMomentum(EF21(), 0.9), compressor=TopK(density=0.01), exchange=Accumulating(GATHERED)
    ),
    "ef21-bc": GradientAveraging(
        memory=EF21(), compressor=TopK(density=0.01),
        exchange=Accumulating(ParameterServer(downlink=TopK(density=0.01))),
    ),
    "econtrol": GradientAveraging(
        memory=ErrorControl(), compressor=TopK(density=0.01), exchange=Accumulating(GATHERED), warm_up=FIRST_EXACT
    ),
    "marina": GradientAveraging(
        memory=Change(), compressor=RandK(density=0.01, unbiased=True), exchange=Accumulating(GATHERED, restart=None),
        warm_up=FIRST_EXACT,
    ),
    "dasha": GradientAveraging(
        memory=CorrectedChange(), compressor=RandK(density=0.01, unbiased=True), exchange=Accumulating(GATHERED),
        warm_up=FIRST_EXACT,
    ),
    "intsgd": GradientAveraging(exchange=IntegerSum("int8", 0.9), granularity=PerTensor()),
    "thc": GradientAveraging(memory=ErrorFeedback(), exchange=TableSum(bits=4, granularity=30, tail=1 / 32)),
    "scalecom": GradientAveraging(memory=LowPass(0.1), compressor=TopK(density=0.01), exchange=LeaderSupport()),
    "suresh": GradientAveraging(compressor=KLevel(levels=16), exchange=GATHERED),
    "konecny-richtarik": GradientAveraging(compressor=FixedSize(density=1 / 32, center="mean"), exchange=GATHERED),
    "eden": GradientAveraging(compressor=EDEN(bits=1), exchange=GATHERED),
    "drive": GradientAveraging(compressor=DRIVE(rounds=2), exchange=GATHERED),
    "natural": GradientAveraging(compressor=NaturalCompression(), exchange=GATHERED),
    "downpour": ModelAveraging(exchange=AsynchronousServer(), update=Downpour()),
    "mdownpour": ModelAveraging(exchange=AsynchronousServer(), update=Downpour(momentum=0.99)),
    "adownpour": ModelAveraging(exchange=AsynchronousServer(), update=AveragedCentre(Downpour())),
    "mvadownpour": ModelAveraging(exchange=AsynchronousServer(), update=AveragedCentre(Downpour(), rate=0.001)),
}  # fmt: skip

BEFORE = json.loads(Path(__file__).with_name("written_before.json").read_text())
"""Every method as version 0.1 of the state files has it."""


def spellings(option: Option) -> list[str]:
    """Texts that set an option, whatever its kind."""
    if get_origin(option.kind) is Literal:
        return list(get_args(option.kind))
    if option.kind is Granularity:
        return ["whole", "tensor", "row", "16"]
    kind = next((arm for arm in get_args(option.kind) if arm is not type(None)), option.kind)
    return {
        bool: ["yes", "no"], Density: ["5%", "0.05"], Fraction: ["0.5", "0.25"], int: ["2", "3"],
        float: ["1", "4", "0.5"],
    }[kind]  # fmt: skip


SETTINGS = [
    f"{row.name}:{option.name}={text}"
    for row in CATALOG
    for option in row.options.values()
    for text in spellings(option)
]
METHODS = [row.name for row in CATALOG] + SETTINGS


def test_the_defaults_are_the_methods_of_the_papers() -> None:
    assert {row.name: parse_method(row.name) for row in CATALOG} == EXPECTED


@pytest.mark.parametrize("text", METHODS)
def test_every_method_is_the_same_after_json_and_fits_a_model(text: str) -> None:
    method = parse_method(text)
    again = from_json(json.loads(json.dumps(to_json(method))))
    assert again == method
    assert hash(again) == hash(method)
    segments = check_method(method, LAYOUT)
    assert segments.numel == 210


@pytest.mark.parametrize("name", BEFORE)
def test_what_was_written_before_classes_were_renamed_is_read(name: str) -> None:
    text, data = BEFORE[name]
    assert as_written_today(text) == repr(parse_method(name))
    assert from_json(data) == parse_method(name)


@pytest.mark.parametrize(("compressors", "exchanges"), [((), 1), ((TopK(k=1),), 0), ((TopK(k=1),), -1)])
def test_a_warm_up_of_nothing_is_refused(compressors: tuple[Compressor, ...], exchanges: int) -> None:
    with pytest.raises(ConfigError, match="warm-up"):
        WarmUp(compressors, exchanges)


@pytest.mark.parametrize("row", CATALOG, ids=lambda row: row.name)
def test_a_default_is_shown_as_it_may_be_written(row: CatalogEntry) -> None:
    for option in row.options.values():
        shown = option.to_json()["default"]
        if shown is not None:
            read = read_options(f"{option.name}={shown}", row.name, row.options)[option.name]
            assert (read, type(read)) == (option.default, type(option.default))


@pytest.mark.parametrize("row", CATALOG, ids=lambda row: row.name)
def test_every_option_changes_the_method(row: CatalogEntry) -> None:
    for option in row.options.values():
        made = {parse_method(f"{row.name}:{option.name}={text}") for text in spellings(option)}
        assert made - {parse_method(row.name)}, option


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("topk:density=1%", "topk:density=0.01"),
        ("topk", "topk:density=1%"),
        (" topk : density = 1% , every = 2 ", "topk:every=2,density=1%"),
        ("sgd", "sgd:"),
        ("qsgd:bits=4", "qsgd:levels=7"),
        ("qsgd:bits=2", "qsgd:levels=1"),
        ("qsgd:bits=8", "qsgd:levels=127"),
        ("topk:k=3", "mem-sgd:k=3"),
        ("signtopk:k=3", "qsparse:k=3,values=signs,exchange=gather"),
        ("topk:density=5%", "topk:density=5.0%"),
        ("qsparse:every=4", "qsparse:every=4,gaps=fixed"),
        ("easgd:every=16", "eamsgd:every=16"),
        ("diloco:every=4,momentum=0", "diloco:every=4,momentum=0,nesterov=no"),
    ],
)
def test_two_spellings_of_one_method(left: str, right: str) -> None:
    assert parse_method(left) == parse_method(right)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("topk:k=3", TopK(k=3)),
        ("mem-sgd:select=random,k=0.5", RandK(k=0.5)),
        ("qsparse:select=random,density=5%,levels=3,norm=max,scaled=no,memory=none",
         RandK(density=0.05, values=QSGD(levels=3, norm="max"))),
    ],
)  # fmt: skip
def test_options_reach_the_compressor(text: str, part: Compressor) -> None:
    assert parse_method(text).compressor == part


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("topkk", ["topkk", "did you mean topk", "signtopk", "thinwire methods"]),
        ("", ["unknown method ''", "sgd"]),
        ("topk:densty=1%", ["topk", "densty", "did you mean density", "every"]),
        ("sgd:every=2", ["sgd", "every", "none"]),
        ("topk:density", ["topk", "density", "density=VALUE"]),
        ("topk:every=2,every=3", ["every=3", "once"]),
        ("topk:density=few", ["density=few", "1%", "0.01"]),
        ("topk:every=2.5", ["every=2.5", "whole number"]),
        ("topk:every=", ["every=", "whole number"]),
        ("topk:k=many", ["k=many", "number"]),
        ("topk:exchange=mail", ["exchange=mail", "gather", "server"]),
        ("topk:memory=yes", ["memory=yes", "error-feedback", "none"]),
        ("qsparse:scaled=true", ["scaled=true", "yes or no"]),
        ("topk:granularity=big", ["granularity=big", "whole", "tensor"]),
        ("topk:granularity=²", ["granularity=²", "whole", "tensor"]),
        ("topk:granularity=0", ["0", "at least 1"]),
        ("topk:density=0", ["0.0", "above 0"]),
        ("topk:density=1.5", ["1.5% or 150%"]),
        ("topk:density=1", ["1% or 100%"]),
        ("topk:density=150%", ["1.5", "at most 1"]),
        ("topk:density=-1", ["-1", "above 0"]),
        ("topk:density=nan", ["nan", "above 0"]),
        ("topk:k=0", ["k = 0", "whole number"]),
        ("topk:k=2.5", ["2.5", "whole number"]),
        ("topk:k=-3", ["-3", "whole number"]),
        ("topk:k=inf", ["inf", "whole number"]),
        ("topk:k=3,density=1%", ["both", "k or density"]),
        ("qsgd:bits=4,levels=7", ["bits or levels", "bits=4", "levels=7"]),
        ("qsgd:bits=1", ["1 bits", "2 to 16"]),
        ("qsgd:bits=17", ["17 bits", "2 to 16"]),
        ("qsgd:levels=0", ["0 levels", "32767"]),
        ("qsparse:values=signs,levels=3", ["levels=3", "values=signs"]),
        ("local-sgd:every=0", ["every = 0", "1, 2, 3"]),
        ("topk:every=-2", ["every = -2", "1, 2, 3"]),
        ("qsparse:gaps=random,every=0", ["max_gap = 0", "1, 2, 3"]),
        ("post-local-sgd:switch=-1", ["switch = -1", "0, 1, 2"]),
        ("post-local-sgd:every=0", ["every = 0", "1, 2, 3"]),
        ("easgd:beta=1.1", ["beta = 1.1", "beta / P"]),
        ("easgd:beta=0.9,alpha=1.2", ["alpha = 1.2", "above 2"]),
        ("easgd:beta=0", ["beta = 0.0", "above 0"]),
        ("easgd:beta=nan", ["beta = nan", "above 0"]),
        ("diloco:mix=1", ["mix = 1.0", "below 1"]),
        ("diloco:momentum=1", ["momentum 1.0", "below 1"]),
        ("sparseloco:bits=1", ["1 bits", "2 to 8"]),
        ("sparse-averaging:fragments=0", ["fragments = 0", "at least 1"]),
        ("streaming-diloco:delay=-1", ["delay = -1", "0 or more"]),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_by_name(text: str, named: list[str]) -> None:
    with pytest.raises(ConfigError) as refused:
        parse_method(text)
    assert all(part in str(refused.value) for part in named), str(refused.value)


@pytest.mark.parametrize("text", ["topk:k=211", "mem-sgd:select=random,k=211", "signtopk:k=1000", "qsparse:k=211"])
def test_more_entries_than_the_model_has_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"entries were asked for, but the vector has only 210"):
        check_method(parse_method(text), LAYOUT)
    check_method(parse_method(text.rpartition("=")[0] + "=210"), LAYOUT)


def test_error_feedback_over_an_operator_that_is_no_contraction_is_refused() -> None:
    loose = "qsparse:density=100%,levels=1,scaled=no"
    with pytest.raises(ConfigError, match="not a contraction"):
        check_method(parse_method(loose), LAYOUT)
    for mended in (loose.replace("no", "yes"), loose + ",memory=none", loose.replace("levels=1", "levels=40")):
        check_method(parse_method(mended), LAYOUT)
    # Its error on one tensor is what matters when it is cut by tensors.
    few = "qsparse:k=1,levels=1,scaled=no,granularity=tensor,norm=max"
    check_method(parse_method(few), LAYOUT)


@pytest.mark.parametrize("kind", [GradientAveraging, ModelAveraging])
@pytest.mark.parametrize("compressor", [TopK(k=1), RandK(density=0.5), Sign(), QSGD(levels=3)])
def test_messages_that_cannot_be_added_are_not_all_reduced(kind: Any, compressor: Compressor) -> None:
    with pytest.raises(ConfigError, match=r"AllReduce.*exchange=gather or exchange=server"):
        kind(compressor=compressor)
    for exchange in (Gather(), ParameterServer()):
        assert kind(compressor=compressor, exchange=exchange).exchange == exchange
    for each in (AllReduce(), Gather(), ParameterServer()):
        kept: Exchange = kind(compressor=Identity(), exchange=each).exchange
        assert kept == each


@pytest.mark.parametrize(
    "given",
    [
        {"lr": 0.0},
        {"lr": math.nan},
        {"momentum": 1.0},
        {"momentum": -0.1},
        {"nesterov": True},
        {"mix": 1.0},
        {"mix": -0.5},
        {"mix": math.nan},
    ],
)
def test_outer_steps_that_make_no_sense_are_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Outer(**given)


@pytest.mark.parametrize(
    ("data", "named"),
    [
        ({"type": "TopKK", "k": 1}, ["TopKK", "did you mean TopK"]),
        ({"k": 1}, ["None", "Known"]),
        ({"type": "TopK", "count": 1}, ["TopK", "count", "density, k, values"]),
        ({"type": "Sign", "scaled": True}, ["Sign", "scaled", "none"]),
        ({"type": "TopK"}, ["neither"]),
        ({"type": "TopK", "k": "three"}, ["TopK", "three"]),
        ({"type": "QSGD"}, ["QSGD", "levels"]),
        ({"type": "Every", "steps": 0}, ["0"]),
        ({"type": ["Every"]}, ["unknown type ['Every']", "Known"]),
        ({"type": "GradientAveraging", "compressor": 5}, ["compressor = 5", "Compressor"]),
        ({"type": "GradientAveraging", "compressor": {"type": "Sign"}}, ["AllReduce", "Sign"]),
    ],
)
def test_a_configuration_that_cannot_be_is_refused_by_name(data: Any, named: list[str]) -> None:
    with pytest.raises(ConfigError) as refused:
        from_json(data)
    assert all(part in str(refused.value) for part in named), str(refused.value)


def schedule_named(name: str) -> Any:
    """The class of a schedule that nobody has registered."""
    members = {"workers_agree": True, "due": lambda self, num_steps, rank: True, "__module__": __name__}
    return dataclass(frozen=True)(type(name, (), members))


def test_only_registered_frozen_dataclasses_are_written() -> None:
    Stranger = schedule_named("Stranger")
    with pytest.raises(ConfigError, match=r"Stranger.*thinwire\.config\.register"):
        to_json(ModelAveraging(schedule=Stranger()))
    with pytest.raises(ConfigError, match="Tensor"):
        to_json(torch.zeros(1))
    with pytest.raises(ConfigError, match="frozen"):
        register(dataclass(type("Loose", (), {})))
    with pytest.raises(ConfigError, match=r"Every is already registered, by thinwire\.methods\.schedules"):
        register(schedule_named("Every"))
    assert registered()["Every"].__module__ == "thinwire.methods.schedules"


def test_plain_values_and_tuples_survive() -> None:
    value = (1, 2.5, "three", None, True, (TopK(k=1), NoMemory(), Whole()))
    assert from_json(json.loads(json.dumps(to_json(value)))) == value
