"""Averaging of models: periodic, sparse, quantized, elastic."""

import math

from thinwire.evidence.demand import Demand, Finding, claim, every, measured
from thinwire.evidence.found import Found, Row, is_below, listed, shown

_FAMILY = "family/digits"
_AVERAGING = ("local-sgd", "sparse-averaging", "pqasgd", "easgd")
_FIRST = ("aji-heafield", "dgc", "1bit-sgd", "terngrad")
_REVIEW = "a review of periodic quantized averaging (Jiang, Agrawal 2018)"


def keeps(row: Row) -> bool | None:
    """Whether it ends as well as the fastest dense method: False if worse beyond the interval, None without one."""
    return None if row.worse.within is None else row.worse.mean - row.worse.within <= 0.0


def named(rows: list[Row], names: tuple[str, ...]) -> list[Row]:
    """The rows of methods of these names, whatever their options."""
    return [row for row in rows if row.method.partition(":")[0] in names]


def _one_family(found: Found) -> Finding:
    rows = named(found.rows(_FAMILY), _AVERAGING)
    dense = found.row(_FAMILY, "bf16-sgd")
    return claim(
        every([keeps(row) for row in rows]),
        listed(
            f"{row.method}: worse by {shown(row.worse)}, "
            f"{dense.bytes_per_step / row.bytes_per_step:.3g} times fewer bytes a step than bf16"
            for row in rows
        ),
    )


def _divergence(found: Found) -> Finding:
    ends: dict[tuple[str, float], tuple[float, float]] = {}
    for line in found.tried("divergence/digits"):
        key, loss = (line["method"], line["lr"]), math.inf if line["loss"] is None else float(line["loss"])
        ends[key] = ends.get(key, (loss, loss))[0], loss
    failed: dict[str, set[tuple[str, float]]] = {"local-sgd": set(), "easgd": set()}
    for (method, lr), (first, last) in ends.items():
        name, _, period = method.partition(":")
        if not last < first:
            failed[name].add((period, lr))
    alone = {name: failed[name] - failed[other] for name, other in (("local-sgd", "easgd"), ("easgd", "local-sgd"))}
    where = {
        name: ", ".join(f"{period} at rate {lr:g}" for period, lr in sorted(settings)) or "nowhere"
        for name, settings in alone.items()
    }
    return claim(
        len(alone["local-sgd"]) > len(alone["easgd"]),
        f"the loss ends above its start, of {len(ends) // 2} settings each: plain averaging in "
        f"{len(failed['local-sgd'])}, elastic in {len(failed['easgd'])}; plain averaging alone: {where['local-sgd']}; "
        f"elastic alone: {where['easgd']}",
    )


def _finals(found: Found) -> Finding:
    return measured(listed(f"{row.method} {shown(row.final)}" for row in found.rows(_FAMILY)))


def _combined_averaging(found: Found) -> Finding:
    sparse, quantized, both = (
        found.row("combination/digits", name)
        for name in (
            "topk:density=10%,every=4",
            "pqasgd:every=4,bits=4",
            "qsparse:density=10%,levels=7,norm=max,every=4,exchange=gather",
        )
    )
    return claim(
        every([is_below(both.to_target("seconds"), other.to_target("seconds")) for other in (sparse, quantized)]),
        listed(
            f"{row.method}: {shown(row.to_target('seconds'))} s and "
            f"{shown(row.to_target('message_bytes'))} message bytes to the target"
            for row in (sparse, quantized, both)
        ),
    )


def _references(found: Found) -> Finding:
    rows = named(found.rows(_FAMILY), _FIRST)
    return measured(
        listed(
            f"{row.method}: final {shown(row.final)}, worse than dense by {shown(row.worse)}, "
            f"{row.bytes_per_step:,.0f} bytes a step"
            for row in rows
        )
    )


def _sparsify_or_quantize(found: Found) -> Finding:
    key = "precision/digits"
    comparison = found.comparison(key)
    unions = {}
    for method in ("qsgd:bits=8", "topk:density=1%"):
        shares = [line["union_density"] for line in found.records(key) if line["method"] == method]
        unions[method] = max(share for share in shares if share is not None)
    quantized, sparse = unions["qsgd:bits=8"], unions["topk:density=1%"]
    return claim(
        quantized > 0.5 > sparse and sparse <= 0.01 * comparison.workers + 1e-3,
        f"entries that some worker sent: {quantized:.1%} with 8 bits each, {sparse:.2%} where 1 % of "
        f"{comparison.workers} workers' are kept",
    )


DEMANDS = (
    Demand(
        number=1,
        question="Are sparse and periodic averaging of models one family with elastic averaging, compared alike?",
        source=_REVIEW,
        expected="each ends as well as dense training, with fewer bytes a step",
        parts=(_FAMILY,),
        judge=_one_family,
    ),
    Demand(
        number=2,
        question="Does plain periodic averaging diverge where elastic averaging does not?",
        source=f"{_REVIEW}, on a claim of Zhang et al. 2015",
        expected="more settings of period and learning rate where plain averaging alone fails than where elastic does",
        parts=("divergence/digits",),
        judge=_divergence,
    ),
    Demand(
        number=3,
        question="What is the final accuracy of every method compared, not only its speed?",
        source=_REVIEW,
        expected="a final accuracy with its interval for each",
        parts=(_FAMILY,),
        judge=_finals,
    ),
    Demand(
        number=4,
        question="Is averaging that sparsifies and quantizes faster than averaging that does one of both?",
        source=_REVIEW,
        expected="fewer seconds to the target than either",
        parts=("combination/digits",),
        judge=_combined_averaging,
    ),
    Demand(
        number=5,
        question="How do the first sparse and quantized methods do: dropped gradients, DGC, 1-bit SGD, TernGrad?",
        source=_REVIEW,
        expected="each trained and tuned as all others are",
        parts=(_FAMILY,),
        judge=_references,
    ),
    Demand(
        number=27,
        question="Are sparse and quantized messages told apart? A quantized one need not be sparse.",
        source="a review of SGD with memory (Stich et al. 2018)",
        expected="nearly all entries sent by QSGD, at most P times the density by top-k",
        parts=("precision/digits",),
        judge=_sparsify_or_quantize,
    ),
)
