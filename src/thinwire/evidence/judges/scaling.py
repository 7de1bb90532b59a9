"""More workers: linear speed-up, the best ratio, rates that are tuned for each, and what their messages cover."""

from thinwire.evidence.demand import Demand, Finding, claim, every, measured
from thinwire.evidence.found import Found, Line, listed

_LOGREG, _UNIONS = "workers/logreg", "workers/unions"
_REVIEW = "a review of periodic quantized averaging (Jiang, Agrawal 2018)"
_GSPAR_REVIEW = "a review of gradient sparsification (Wangni et al. 2018)"
_LINEAR = 0.8
_WITHIN = 0.3
"""A prediction from fewer workers that is within this share tells how many steps more workers need."""


def _lines(found: Found, kind: str) -> list[Line]:
    return [line for line in found.lines(_LOGREG) if line["kind"] == kind]


def _rates_from_variance(found: Found) -> Finding:
    omega = {
        line["method"]: float(line["value"])
        for line in found.lines("workers/bounds")
        if line["quantity"] == "relative variance omega"
    }
    noise = {line["method"]: line["noise_steps"] for line in _lines(found, "scaling") if "noise_steps" in line}
    verdicts: list[bool | None] = []
    texts = []
    for method, variance in omega.items():
        if method not in noise or not noise.get("sgd"):
            verdicts.append(None)
            continue
        grown = noise[method] / noise["sgd"]
        verdicts.append(grown <= 1.0 + variance)
        texts.append(f"{method}: {grown:.3g} times the steps of noise, {1.0 + variance:.3g} allowed")
    errors = [abs(line["prediction"]["steps_error"]) for line in _points(found) if line["prediction"] is not None]
    within = sum(error <= _WITHIN for error in errors)
    return claim(
        every(verdicts),
        listed([*texts, f"a + b / P, fitted to other numbers of workers, is within 30 % at {within} of {len(errors)}"]),
    )


def _points(found: Found) -> list[Line]:
    return _lines(found, "point")


def _ratios(found: Found) -> Finding:
    texts = []
    for line in _lines(found, "best"):
        if line["family"] in ("mem-sgd", "qsgd"):
            texts.append(
                f"P = {line['workers']}: {line['method']} ({line['ratio']:.3g} times, {line['seconds']:.3g} s)"
            )
    return measured("fewest seconds to the target: " + listed(texts))


def _tuned_rates(found: Found) -> Finding:
    rates: dict[str, list[str]] = {}
    for line in _points(found):
        rates.setdefault(line["method"], []).append("none" if line["lr"] is None else f"{line['lr']:g}")
    wanted = {method: own for method, own in rates.items() if method.startswith(("qsgd", "terngrad", "sgd"))}
    return measured(
        "rates taken with 1, 2, ... workers: " + listed(f"{method} {', '.join(own)}" for method, own in wanted.items())
    )


def _linear(found: Found) -> Finding:
    points = _points(found)
    largest = max(line["workers"] for line in points)
    verdicts: list[bool | None] = []
    texts = []
    for line in _lines(found, "scaling"):
        speedup = next(
            (p["speedup_steps"] for p in points if (p["method"], p["workers"]) == (line["method"], largest)), None
        )
        if speedup is None:
            verdicts.append(None)
            texts.append(f"{line['method']}: missed the target")
            continue
        mean, half = speedup["mean"], speedup["within"] or 0.0
        goal = _LINEAR * largest
        verdicts.append(True if mean >= goal else False if mean + half < goal else None)
        texts.append(f"{line['method']}: {mean:.3g} times with {largest} workers, linear until {line['linear_until']}")
    return claim(every(verdicts), "speed-up in steps, " + listed(texts))


def _counts(found: Found) -> list[int]:
    return sorted({line["workers"] for line in found.lines(_UNIONS) if line["kind"] == "point"})


def _ends(found: Found, workers: int) -> dict[str, Line]:
    """The last record of a run of each method."""
    ends: dict[str, Line] = {}
    for line in found.records(f"{_UNIONS}/workers-{workers}"):
        ends[line["method"]] = line
    return ends


def _union_density(found: Found) -> Finding:
    counts = _counts(found)
    few, many = _ends(found, counts[1]), _ends(found, counts[-1])

    def per_step(line: Line) -> float:
        return float(line["bytes_sent"] + line["bytes_received"]) / float(line["step"])

    growth = {method: per_step(many[method]) / per_step(few[method]) for method in many}
    union = {count: _ends(found, count)["topk:density=1%"]["union_density"] for count in counts}
    remedies = ("gtopk:density=1%", "ok-topk:density=1%", "shared-randk:density=1%")
    return claim(
        union[counts[-1]] > 2 * union[counts[0]] and all(growth[each] < growth["topk:density=1%"] for each in remedies),
        "1 % kept by each: "
        + ", ".join(f"{share:.2%} in the union of {count}" for count, share in union.items())
        + f"; link bytes of a step grow from {counts[1]} to {counts[-1]} workers: "
        + ", ".join(f"{method} {growth[method]:.3g} times" for method in ("topk:density=1%", *remedies)),
    )


def _broadcast(found: Found) -> Finding:
    counts = _counts(found)
    ends = _ends(found, counts[-1])
    seconds = {
        (line["method"], line["workers"]): sum(line["step"].values())
        for line in found.lines(_UNIONS)
        if line["kind"] == "point" and line["step"] is not None
    }
    methods = (
        "topk:density=1%", "topk:density=1%,exchange=server", "gtopk:density=1%", "double-squeeze:density=1%",
    )  # fmt: skip
    return measured(
        f"with {counts[-1]} workers, received by a worker and step, and what a step takes: "
        + listed(
            f"{method} {ends[method]['bytes_received'] / ends[method]['step'] / 1e3:.3g} kB, "
            f"{1e3 * seconds[method, counts[-1]]:.3g} ms"
            for method in methods
        )
    )


DEMANDS = (
    Demand(
        number=7,
        question="Do rates follow from the bound on the variance alone, by 1 + omega?",
        source=_REVIEW,
        expected="at most 1 + omega times the steps that workers share; steps with more workers predicted",
        parts=(_LOGREG, "workers/bounds"),
        judge=_rates_from_variance,
    ),
    Demand(
        number=9,
        question="How does the speed-up change with the compression ratio, and which ratio is best?",
        source=_REVIEW,
        expected="the best density and the best number of bits for each number of workers",
        parts=(_LOGREG,),
        judge=_ratios,
    ),
    Demand(
        number=10,
        question="Is every method tuned for itself, for each number of workers?",
        source=_REVIEW,
        expected="a learning rate of its own for QSGD and TernGrad with each",
        parts=(_LOGREG,),
        judge=_tuned_rates,
    ),
    Demand(
        number=12,
        question="Is the speed-up linear in experiments?",
        source=_REVIEW,
        expected="at least 80 % of the largest number of workers, for every method",
        parts=(_LOGREG,),
        judge=_linear,
    ),
    Demand(
        number=20,
        question="Do sums of sparse messages become dense with more workers, and what helps?",
        source=_GSPAR_REVIEW,
        expected="a union that grows with P, and link bytes of remedies that grow less than top-k's",
        parts=(_UNIONS,),
        judge=_union_density,
    ),
    Demand(
        number=34,
        question="What does the way back cost: a gather, a server, a tree, a sparse broadcast?",
        source="the authors' response on Qsparse-local-SGD (Basu et al. 2019)",
        expected="bytes received and time of a step of each",
        parts=(_UNIONS,),
        judge=_broadcast,
    ),
)
