"""Against baselines that are tuned, in seconds, on every data set, from several starts, by both engines."""

import math

from thinwire.evidence.demand import Demand, Finding, claim, every, measured
from thinwire.evidence.found import Found, Row, is_below, listed, shown
from thinwire.evidence.judges.averaging import keeps

_FAMILY = "family/digits"
_OURS = "signtopk:density=5%,every=4"
_DATA_SETS = ("digits", "logreg", "logreg-convex", "fashion-mnist", "stdlib-lm")
_REVIEW = "a review of periodic quantized averaging (Jiang, Agrawal 2018)"
_MEMORY_REVIEW = "a review of SGD with memory (Stich et al. 2018)"


def _dense(found: Found, key: str) -> Row:
    """The one that gains are over."""
    return next(row for row in found.rows(key) if row.result.is_baseline)


def _best(found: Found, key: str) -> Row | None:
    """Of those that send less than all, the one with the fewest seconds to the target."""
    dense = found.comparison(key).dense
    rows = [row for row in found.rows(key) if row.reached and row.method not in dense]
    return min(rows, key=lambda row: row.to_target("seconds").mean, default=None)


def _significant(found: Found) -> Finding:
    dense, best = _dense(found, _FAMILY), _best(found, _FAMILY)
    if best is None or not dense.reached:
        return claim(None, "a baseline or every other method missed the target")
    ours, theirs = best.to_target("seconds"), dense.to_target("seconds")
    return claim(
        is_below(ours, theirs),
        f"{best.method} {shown(ours)} s to the target, {dense.method} {shown(theirs)} s, both with their best "
        f"optimizer and rate: {shown(theirs.over(ours))} times as fast; final worse by {shown(best.worse)}",
    )


def _honest_seconds(found: Found) -> Finding:
    dense = _dense(found, _FAMILY)
    texts = []
    for row in found.rows(_FAMILY):
        if row.reached and dense.reached and row.method != dense.method:
            fewer = dense.to_target("message_bytes").over(row.to_target("message_bytes")).mean
            faster = dense.to_target("seconds").over(row.to_target("seconds")).mean
            texts.append(f"{row.method} {fewer:.3g} times fewer bytes, {faster:.3g} times as fast")
    return measured("100 Mbit/s, 20 ms, compression charged as measured: " + listed(texts))


def _large(found: Found) -> Finding:
    texts, verdicts = [], []
    for key, method in (
        ("large/fashion-mnist", "signtopk:density=1%,every=4"),
        ("large/stdlib-lm", "ef-signsgd:every=8"),
    ):
        row, dense = found.row(key, method), found.row(key, "bf16-sgd")
        count = found.comparison(key).num_parameters or 0
        verdicts.append(keeps(row))
        texts.append(
            f"{key.partition('/')[2]}, {count:,} parameters: {method} {shown(row.final)}, bf16 {shown(dense.final)}, "
            f"{dense.bytes_per_step / row.bytes_per_step:,.0f} times fewer bytes a step"
        )
    return claim(every(verdicts), listed(texts))


def _every_data_set(found: Found) -> Finding:
    texts, verdicts = [], []
    for name in _DATA_SETS:
        rows = {bits: found.row(f"precision/{name}", f"qsgd:bits={bits}") for bits in (2, 4, 8)}
        verdicts.append(keeps(rows[8]))
        texts.append(f"{name} " + ", ".join(f"{bits} bits {shown(row.final)}" for bits, row in rows.items()))
    return claim(every(verdicts), listed(texts))


def _variants(found: Found) -> Finding:
    rows = [row for row in found.rows("precision/digits") if row.method.startswith("qsgd")]
    return measured(
        listed(
            f"{row.method}: final {shown(row.final)}, {shown(row.to_target('message_bytes'))} bytes to the target"
            for row in rows
        )
    )


def _same_engines(found: Found) -> Finding:
    parts = ("engines/simulated", "engines/processes")
    names = ("method", "seed", "step", "value", "loss", "message_bytes", "memory_norm")
    simulated, real = ([[line[name] for name in names] for line in found.records(key)] for key in parts)
    methods = list(dict.fromkeys(line[0] for line in simulated))
    return claim(
        simulated == real,
        f"{len(simulated)} records of {', '.join(map(str, methods))}: those of real processes "
        + ("equal those of the simulator in every bit" if simulated == real else "differ from those of the simulator"),
    )


def _any_start(found: Found) -> Finding:
    texts, verdicts = [], []
    for size in (4, 32):
        row = found.row(f"start/batch-{size}", "qsparse:density=5%,every=4")
        verdicts.append(row.reached)
        texts.append(
            f"batch {size}: {row.result.num_reached} of {row.result.num_runs} initial points reach the target, "
            f"steps {shown(row.to_target('steps'))}"
        )
    return claim(every(verdicts), listed(texts))


def _three_kinds(found: Found) -> Finding:
    texts, verdicts = [], []
    for name in ("strongly-convex", "convex", "digits"):
        row, dense = found.row(f"memory/{name}", "mem-sgd:density=1%"), found.row(f"memory/{name}", "bf16-sgd")
        verdicts.append(row.reached)
        fewer = dense.to_target("message_bytes").over(row.to_target("message_bytes")) if row.reached else None
        gain = "" if fewer is None or math.isinf(fewer.mean) else f", {fewer.mean:.3g} times fewer bytes to the target"
        texts.append(f"{'not convex' if name == 'digits' else name}: {shown(row.to_target('steps'))} steps{gain}")
    return claim(every(verdicts), "top 1 % with memory, " + listed(texts))


DEMANDS = (
    Demand(
        number=11,
        question="Is the gain still there against baselines that are tuned well?",
        source=f"{_REVIEW}, open after the authors' response",
        expected="fewer seconds than the fastest dense method, beyond the intervals",
        parts=(_FAMILY,),
        judge=_significant,
    ),
    Demand(
        number=13,
        question="What is saved in time, not in bits?",
        source=_REVIEW,
        expected="seconds beside bytes for every method, compression charged",
        parts=(_FAMILY,),
        judge=_honest_seconds,
    ),
    Demand(
        number=17,
        question="Does it hold beyond toy networks and small regressions?",
        source="a review of gradient sparsification (Wangni et al. 2018)",
        expected="as good as dense training at the end, on images and on text",
        parts=("large/fashion-mnist", "large/stdlib-lm"),
        judge=_large,
    ),
    Demand(
        number=25,
        question="What happens beyond strongly convex functions?",
        source=_MEMORY_REVIEW,
        expected="the target is reached on strongly convex, convex and other functions",
        parts=("memory/strongly-convex", "memory/convex", "memory/digits"),
        judge=_three_kinds,
    ),
    Demand(
        number=26,
        question="What does QSGD give at 2, 4 and 8 bits on every data set?",
        source=_MEMORY_REVIEW,
        expected="a final value of each; as good as dense at 8 bits",
        parts=tuple(f"precision/{name}" for name in _DATA_SETS),
        judge=_every_data_set,
    ),
    Demand(
        number=30,
        question="How do QSGD's variants compare?",
        source=_MEMORY_REVIEW,
        expected="final value and bytes for bits, norms, buckets and routes",
        parts=("precision/digits",),
        judge=_variants,
    ),
    Demand(
        number=32,
        question="Is there an open implementation that does what the analysis says?",
        source="the authors' response on Qsparse-local-SGD (Basu et al. 2019)",
        expected="processes give the bits of the simulator",
        parts=("engines/simulated", "engines/processes"),
        judge=_same_engines,
    ),
    Demand(
        number=33,
        question="Does it converge from any common initial point, with any size of the batch?",
        source="the authors' response on Qsparse-local-SGD (Basu et al. 2019)",
        expected="the target is reached from every initial point with batches of 4 and of 32",
        parts=("start/batch-4", "start/batch-32"),
        judge=_any_start,
    ),
)
