"""Memory and none, how large it gets, and how far local models drift."""

import math

from thinwire.evidence.demand import Demand, Finding, claim, every, measured
from thinwire.evidence.found import Found, is_below, listed, shown
from thinwire.methods import num_exchanges, parse_method
from thinwire.theory import local_memory_bound

_TOP, _RANDOM = "mem-sgd:density=1%", "mem-sgd:select=random,density=1%"
_HEALTH = "health/logreg"
_MEMORY_REVIEW = "a review of SGD with memory (Stich et al. 2018)"
_RESPONSE = "the authors' response on Qsparse-local-SGD (Basu et al. 2019)"


def _sparser(found: Found) -> Finding:
    texts, verdicts = [], []
    for name in ("strongly-convex", "convex"):
        memory, gspar = found.row(f"memory/{name}", _TOP), found.row(f"memory/{name}", "gspar:density=10%")
        verdicts.append(memory.reached)
        texts.append(
            f"{name}: 1 % with memory {shown(memory.to_target('steps'))} steps and "
            f"{shown(memory.to_target('message_bytes'))} bytes, GSpar at 10 % "
            f"{shown(gspar.to_target('steps'))} steps and {shown(gspar.to_target('message_bytes'))} bytes"
        )
    return claim(every(verdicts), listed(texts))


def _memoryless(found: Found) -> Finding:
    texts, reached = [], []
    for name in ("strongly-convex", "convex", "digits"):
        for method in (_TOP, f"{_TOP},memory=none", "gspar:density=10%", "qsgd:bits=4"):
            row = found.row(f"memory/{name}", method)
            texts.append(f"{name} {method} {shown(row.to_target('steps'))}")
            if method in ("gspar:density=10%", "qsgd:bits=4"):
                reached.append(row.reached)
    return claim(any(reached), "steps to the target: " + listed(texts))


def _claims(found: Found) -> Finding:
    key = "memory/sequential"
    steps = {row.method: row.to_target("steps") for row in found.rows(key)}
    paid = {row.method: row.to_target("message_bytes") for row in found.rows(key)}
    verdicts = [
        is_below(steps[_TOP], steps[_RANDOM]),
        is_below(steps[_TOP], steps[f"{_TOP},memory=none"]),
        is_below(steps[_RANDOM], steps[f"{_RANDOM},memory=none"]),
        is_below(paid[_TOP], paid["qsgd:bits=4"]),
    ]
    says = {True: "yes", False: "no", None: "not decided"}
    questions = ("top-k before random-k", "memory helps top-k", "memory helps random-k", "fewer bytes than QSGD")
    answers = ", ".join(f"{question}: {says[verdict]}" for question, verdict in zip(questions, verdicts, strict=True))
    return claim(
        every(verdicts), f"{answers}; steps " + listed(f"{name} {shown(each)}" for name, each in steps.items())
    )


def _memory_bound(found: Found) -> Finding:
    gamma = {
        line["method"]: float(line["value"])
        for line in found.lines("health/bounds")
        if line["quantity"] == "contraction gamma"
    }
    comparison = found.comparison(_HEALTH)
    verdicts: list[bool | None] = []
    texts = []
    for method, contraction in gamma.items():
        records = [line for line in found.records(_HEALTH) if line["method"] == method]
        gap = max(1, round(comparison.steps / num_exchanges(parse_method(method), 0, comparison.steps)))
        bound_squared = local_memory_bound(
            gamma=contraction, max_gap=gap, lr=max(line["lr"] for line in records),
            gradient_norm=max(line["gradient_norm"] for line in records),
        )  # fmt: skip
        largest = max(line["memory_norm"] for line in records)
        verdicts.append(largest <= math.sqrt(bound_squared))
        texts.append(f"{method} {largest:.3g} of {math.sqrt(bound_squared):.3g}")
    return claim(every(verdicts), "largest norm of the memory, and its bound: " + listed(texts))


def _drift(found: Found) -> Finding:
    texts, verdicts = [], []
    for key in (_HEALTH, "health/asynchronous"):
        comparison = found.comparison(key)
        for method in comparison.methods:
            records = [line for line in found.records(key) if line["method"] == method]
            late = [line for line in records if line["step"] > comparison.steps // 2]
            early = [line for line in records if 0 < line["step"] <= comparison.steps // 2]
            for name, what in (("local_drift", "deviation"), ("virtual_distance", "virtual distance")):
                before = max(line[name] for line in early)
                after = max(line[name] for line in late)
                if before or after:
                    verdicts.append(after <= 2.0 * before)
                    texts.append(f"{method} {what} {before:.3g}, then {after:.3g}")
    return claim(all(verdicts), "largest in the first and in the second half: " + listed(texts))


def _free_steps(found: Found) -> Finding:
    key = "periods/logreg"
    orders = {
        line["method"]: float(line["value"])
        for line in found.lines("periods/bounds")
        if line["quantity"] == "local steps that are free, strongly convex"
    }
    dense = next(row for row in found.rows(key) if row.result.is_baseline).to_target("steps")
    texts = [f"dense {shown(dense)}"]
    for row in found.rows(key):
        if row.method not in found.comparison(key).dense:
            texts.append(f"{row.method} {shown(row.to_target('steps'))}")
    allowed = ", ".join(f"{order:.3g} for {method.partition(':')[0]}" for method, order in orders.items())
    return measured(f"steps to the target: {listed(texts)}; free by the theorem, up to a constant: {allowed}")


DEMANDS = (
    Demand(
        number=16,
        question="Do schemes with memory, ten times sparser, converge on convex functions?",
        source="a review of gradient sparsification (Wangni et al. 2018)",
        expected="the target is reached with a tenth of the density",
        parts=("memory/strongly-convex", "memory/convex"),
        judge=_sparser,
    ),
    Demand(
        number=29,
        question="Can sparsification work without memory?",
        source=_MEMORY_REVIEW,
        expected="unbiased methods without memory that reach the target",
        parts=("memory/strongly-convex", "memory/convex", "memory/digits"),
        judge=_memoryless,
    ),
    Demand(
        number=31,
        question="Is top-k better than random-k, does memory prevent loss, are fewer bytes sent than by QSGD?",
        source=_MEMORY_REVIEW,
        expected="all of it, on one machine",
        parts=("memory/sequential",),
        judge=_claims,
    ),
    Demand(
        number=36,
        question="Does the memory stay within its bound, for every operator?",
        source=_RESPONSE,
        expected="the largest norm below Lemma 4's, with the largest gradient that was seen",
        parts=(_HEALTH, "health/bounds"),
        judge=_memory_bound,
    ),
    Demand(
        number=37,
        question="Do local models stay together, and the true average near the virtual sequence?",
        source=_RESPONSE,
        expected="neither grows to more than twice its size in the second half, synchronous and asynchronous",
        parts=(_HEALTH, "health/asynchronous"),
        judge=_drift,
    ),
    Demand(
        number=44,
        question="How many local steps are free for a general operator?",
        source=_RESPONSE,
        expected="steps to a target over H, beside the order that theory allows",
        parts=("periods/logreg", "periods/bounds"),
        judge=_free_steps,
    ),
)
