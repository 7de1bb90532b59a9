"""Locks, atomics, or neither."""

from statistics import median

from thinwire.evidence.demand import Demand, Finding, claim, measured
from thinwire.evidence.found import Found, listed

_CONTEST = "threads/contest"
_REVIEW = "a review of gradient sparsification (Wangni et al. 2018)"
_LOCKS = {
    "mutex": "one mutex",
    "rw-lock": "a lock of readers and writers",
    "spin-lock": "test-and-set at each coordinate",
}


def _rates(found: Found) -> dict[tuple[float, str], float]:
    """Updates a second by density and variant: the median over runs."""
    runs: dict[tuple[float, str], list[float]] = {}
    for line in found.lines(_CONTEST):
        if line["row"] == "training" and line["threads"] == 2:
            runs.setdefault((line["density"], line["variant"]), []).append(line["updates_per_s"])
    return {key: median(own) for key, own in runs.items()}


def _atomics(found: Found) -> Finding:
    known = _rates(found)
    sparsest = min(density for density, _ in known)
    rates = {variant: rate for (density, variant), rate in known.items() if density == sparsest}
    contest = [line for line in found.lines(_CONTEST) if line["row"] == "contest" and line["threads"] == 2]
    lost = {line["variant"]: line["lost"] for line in contest}
    best = max(rates[name] for name in ("fetch-and-add", "compare-and-swap"))
    atomics_lose_none = not lost["fetch-and-add"] and not lost["compare-and-swap"]
    return claim(
        best > rates["spin-lock"] and atomics_lose_none,
        f"updates a second with 2 threads at density {sparsest:g}: "
        + listed(f"{name} {rate:,.0f}" for name, rate in rates.items())
        + "; additions lost: "
        + listed(f"{name} {count:,}" for name, count in lost.items()),
    )


def _locks(found: Found) -> Finding:
    texts = [
        f"{_LOCKS[variant]} ({variant}) {rate:,.0f} at density {density:g}"
        for (density, variant), rate in _rates(found).items()
        if variant in _LOCKS
    ]
    return measured("three things that a locked read may be, updates a second with 2 threads: " + listed(texts))


DEMANDS = (
    Demand(
        number=18,
        question="Are atomic additions faster than a lock at each coordinate?",
        source=_REVIEW,
        expected="more updates a second, and none lost",
        parts=(_CONTEST,),
        judge=_atomics,
    ),
    Demand(
        number=19,
        question="What is a locked read?",
        source=_REVIEW,
        expected="each meaning measured: a mutex, a lock of readers and writers, test-and-set",
        parts=(_CONTEST,),
        judge=_locks,
    ),
)
