"""Techniques alone and together: frontiers, bits to a target, levels, gossip."""

import math
from collections.abc import Sequence

from thinwire.evidence.demand import Demand, Finding, claim, every, measured
from thinwire.evidence.figures import Bar, bars
from thinwire.evidence.found import Found, Line, is_below, listed, shown
from thinwire.report import Amount

_DIGITS, _LOGREG = "combination/digits", "combination/logreg"
_RESPONSE = "the authors' response on Qsparse-local-SGD (Basu et al. 2019)"
_CLAIMED = {
    "local-sgd:every=4": 2.83, "ef-signsgd": 16.0, "topk:density=1%": 128.0, "signtopk:density=1%,every=8": 1024.0,
    "signtopk:density=1%,every=16": 1024.0,
}  # fmt: skip
_SPECIAL = "special/logreg"
_PAIRS = (
    ("sgd", "local-sgd:every=1"),
    ("topk:density=5%", "mem-sgd:density=5%"),
    ("signtopk:density=5%,every=4", "qsparse:density=5%,values=signs,every=4,exchange=gather"),
    ("ef-signsgd", "qsparse:density=100%,values=signs,granularity=tensor,exchange=gather"),
)
_OUTCOMES = {"beaten": True, "missed": True, "ahead": False, "even": None, "unknown": None}
"""Of a contest of all three with a part or pair."""
_ROUNDING = 1e-3
"""What sums in another order may differ by after many steps."""
_TARGETS = ("target/digits", "target/logreg")


def _lines(found: Found, key: str, kind: str) -> list[Line]:
    return [line for line in found.lines(key) if line["kind"] == kind]


def _frontier(found: Found) -> Finding:
    front = [line for line in _lines(found, _DIGITS, "point") if line["on_frontier"]]
    front.sort(key=lambda line: line["message_bytes"])
    return measured(
        "message bytes of a worker and final accuracy, where no other is better in both: "
        + listed(f"{line['method']} {line['message_bytes']:,.0f} B {line['final_value']:.3g}" for line in front)
    )


def _parts_and_pairs(found: Found) -> Finding:
    texts: list[str] = []
    verdicts: list[bool | None] = []
    for key in (_DIGITS, _LOGREG):
        contest = [line for line in _lines(found, key, "contestant") if line["measure"] == "message"]
        others = [line for line in contest if line["method"] != contest[-1]["method"]]
        if contest[-1]["cost"] is not None:
            verdicts += [_OUTCOMES[line["verdict"]] for line in others]
        else:  # what nothing reaches decides nothing
            verdicts.append(False if any(line["cost"] is not None for line in others) else None)
        texts.append(f"{key.partition('/')[2]}: {_told(contest[-1], others)}")
    return claim(every(verdicts), listed(texts))


def _told(all_three: Line, others: Sequence[Line]) -> str:
    """What each part and pair takes to the target: as a multiple of all three, or in bytes where those missed it."""
    if all_three["cost"] is None:
        costs = [(line["parts"], line["cost"]) for line in others]
        each = (
            f"{parts} {'missed it too' if cost is None else format(cost['mean'], ',.0f') + ' B'}"
            for parts, cost in costs
        )
        return f"all three missed the target; {', '.join(each)}"
    ratios = (
        f"{line['parts']} {'missed it' if line['ratio'] is None else format(line['ratio']['mean'], '.3g')}"
        for line in others
    )
    return f"{all_three['method']}; times as many bytes: {', '.join(ratios)}"


def _bits_to_target(found: Found) -> Finding:
    texts, verdicts = [], []
    for key in _TARGETS:
        dense = found.row(key, "sgd")
        for method, claimed in _CLAIMED.items():
            row = found.row(key, method)
            fewer = dense.to_target("message_bytes").over(row.to_target("message_bytes")) if row.reached else None
            verdicts.append(None if fewer is None or math.isinf(fewer.mean) else is_below(Amount(claimed), fewer))
            got = "missed the target" if fewer is None else shown(fewer)
            texts.append(f"{key.partition('/')[2]} {method} {got} (claimed {claimed:g})")
    rows = {row.method: row for row in found.rows("target/asynchronous")}
    sparse = rows["qsparse-async:density=1%,values=signs,every=4"]
    if sparse.reached and rows["sgd"].reached:
        fewer = rows["sgd"].to_target("message_bytes").over(sparse.to_target("message_bytes"))
        texts.append(f"asynchronous {sparse.method} {shown(fewer)}")
    return claim(every(verdicts), "times fewer message bytes than f32, " + listed(texts))


def _draw_bits(found: Found) -> str:
    key = _TARGETS[0]
    dense = found.row(key, "sgd")
    rows = []
    for row in found.rows(key):
        if row.reached and dense.reached:
            fewer = dense.to_target("message_bytes").over(row.to_target("message_bytes"))
            rows.append(Bar(row.method, fewer.mean, shown(fewer), is_plain=row.method in ("sgd", "bf16-sgd")))
    return bars("Message bytes to the target on digits", "times fewer than f32 gradients", rows) if rows else ""


def _draw_frontier(found: Found) -> str:
    points = [line for line in _lines(found, _DIGITS, "point") if line["final_value"] is not None]
    points.sort(key=lambda line: -line["message_bytes"])
    rows = [
        Bar(line["method"], line["message_bytes"], f"{line['final_value']:.3f}", is_plain=not line["on_frontier"])
        for line in points
    ]
    title = "Message bytes of a worker, and final accuracy; coloured: on the frontier"
    return bars(title, "bytes", rows) if rows else ""


def _special_cases(found: Found) -> Finding:
    losses: dict[str, list[tuple[int, int, float]]] = {}
    for line in found.records(_SPECIAL):
        losses.setdefault(line["method"], []).append((line["seed"], line["step"], line["loss"]))
    texts, verdicts = [], []
    for one, other in _PAIRS:
        apart = max(abs(a[2] - b[2]) / abs(a[2]) for a, b in zip(losses[one], losses[other], strict=True))
        verdicts.append(apart <= _ROUNDING)
        how = "in every bit" if apart == 0.0 else f"within {apart:.1e}"
        texts.append(f"{one} and {other} {how if apart <= _ROUNDING else f'differ by {apart:.1e}'}")
    return claim(all(verdicts), f"losses at {len(losses[_PAIRS[0][0]])} evaluations: " + listed(texts))


def _levels(found: Found) -> Finding:
    pick = found.lines("operators/levels")[0]
    rows = {
        row.method: row.to_target("message_bytes") for row in found.rows("levels/logreg") if row.method != "bf16-sgd"
    }
    method = f"qsparse:k={pick['k']},levels={pick['levels']},every=4"
    best_method, best = min(rows.items(), key=lambda item: item[1].mean)
    if math.isinf(best.mean) or method not in rows:
        return claim(None, f"picked s = {pick['levels']}, k = {pick['k']}; no pair reached the target")
    return claim(
        rows[method].mean <= 1.05 * best.mean,
        f"picked s = {pick['levels']}, k = {pick['k']}: {shown(rows[method])} bytes to the target, "
        f"{rows[method].mean / best.mean:.3g} times those of the best pair, {best_method}",
    )


def _gossip(found: Found) -> Finding:
    texts = []
    for key in ("gossip/logreg", "gossip/digits"):
        texts += [
            f"{key.partition('/')[2]} {row.method} {shown(row.to_target('message_bytes'))} B, "
            f"{shown(row.to_target('seconds'))} s"
            for row in found.rows(key)
        ]
    return measured("to the target: " + listed(texts))


DEMANDS = (
    Demand(
        number=35,
        question="What is the Pareto frontier of bits against accuracy over all techniques?",
        source=_RESPONSE,
        expected="the configurations that no other one beats in both",
        parts=(_DIGITS,),
        judge=_frontier,
        figure=_draw_frontier,
    ),
    Demand(
        number=39,
        question="Do all three techniques together beat each alone and each pair, in bytes to the target?",
        source=_RESPONSE,
        expected="fewer bytes than each, convex and not",
        parts=(_DIGITS, _LOGREG),
        judge=_parts_and_pairs,
    ),
    Demand(
        number=40,
        question="How many times fewer bits to the target than dense SGD do local steps, signs, top-k and both take?",
        source=_RESPONSE,
        expected="2.83 for 4 local steps, 16 for EF-signSGD, 128 for TopK, over 1024 for SignTopK with 8 or 16",
        parts=(*_TARGETS, "target/asynchronous"),
        judge=_bits_to_target,
        figure=_draw_bits,
    ),
    Demand(
        number=41,
        question="Are TopK, EF-signSGD and SGD special cases of one algorithm?",
        source=_RESPONSE,
        expected="the same losses, from the algorithm and from the methods by name, up to rounding",
        parts=(_SPECIAL,),
        judge=_special_cases,
    ),
    Demand(
        number=42,
        question="Which pair of levels s and entries k sends the fewest bits, for a given contraction and period?",
        source=_RESPONSE,
        expected="the pair that the formula picks is within 5 % of the best in bytes to the target",
        parts=("operators/levels", "levels/logreg"),
        judge=_levels,
    ),
    Demand(
        number=43,
        question="How does it compare with CHOCO, with the same operators, synchronous and asynchronous?",
        source=_RESPONSE,
        expected="bytes and seconds to the target, convex and not",
        parts=("gossip/logreg", "gossip/digits"),
        judge=_gossip,
    ),
)
