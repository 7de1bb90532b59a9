"""Error for the bits: single operators, their theorems, and what they cost to compute."""

import math

from thinwire.evidence.demand import Demand, Finding, claim, every, measured
from thinwire.evidence.found import Found, Line, is_below, listed, shown

_BUDGET, _REFERENCE, _UNBIASED = "operators/budget", "operators/reference", "operators/unbiased"
_INPUTS = ("gaussian", "lognormal", "student")
_REVIEW = "a review of periodic quantized averaging (Jiang, Agrawal 2018)"
_GSPAR_REVIEW = "a review of gradient sparsification (Wangni et al. 2018)"


def _errors(found: Found, key: str, budget: float | None = None) -> dict[tuple[str, str], tuple[float, float]]:
    """Bits and error by operator and input."""
    return {
        (line["name"], line["input"]): (line["bits"], line["error"])
        for line in found.lines(key)
        if line["budget"] == budget
    }


def _best_unbiased(found: Found) -> dict[tuple[str, str], Line]:
    """The best member of each operator at 2 bits an entry, by input and operator."""
    return {
        (line["input"], line["operator"]): line
        for line in found.lines(_UNBIASED)
        if (line["budget"], line["clients"], line["kind"]) == (2.0, 1, "unbiased")
    }


def _at_fixed_budget(found: Found) -> Finding:
    wanted = ("Bernoulli", "Rotate", "KLevel", "GSpar", "QSGD", "EDEN")
    best = _best_unbiased(found)
    texts = []
    for source in dict.fromkeys(source for source, _ in best):
        ranked = sorted((best[source, name]["error"], name) for name in wanted if (source, name) in best)
        texts.append(f"{source}: " + ", ".join(f"{name} {error:.3g}" for error, name in ranked))
    return measured("relative variance at 2 bits an entry, " + listed(texts))


def _combination_for_bits(found: Found) -> Finding:
    alone = {"sparsify": ("top-k f32",), "quantize": ("EDEN, contraction",)}
    both = ("QSGD top-k", "sign top-k")
    texts, verdicts = [], []
    for source in _INPUTS:
        errors = {name: error for (name, own), (_, error) in _errors(found, _BUDGET, 1.0).items() if own == source}
        parts = {what: min(errors[name] for name in names) for what, names in alone.items()}
        together = min(errors[name] for name in both)
        verdicts.append(together < min(parts.values()))
        listed_parts = ", ".join(f"{what} {error:.3g}" for what, error in parts.items())
        texts.append(f"{source}: both {together:.3g}, {listed_parts}")
    # Which it is depends on the vector, so that one kind against it refutes the sentence as it stands.
    return claim(all(verdicts), "error at 1 bit an entry, " + listed(texts))


def _optimal_probabilities(found: Found) -> Finding:
    best = _best_unbiased(found)
    texts = [
        f"{source}: {line['configuration']} {line['error']:.3g}, GSpar {best[source, 'GSpar']['error']:.3g}"
        for (source, name), line in best.items()
        if name == "Bernoulli"
    ]
    return measured("best encoder with centres and probabilities at 2 bits an entry, " + listed(texts))


def _one_level(found: Found) -> Finding:
    errors = _errors(found, _REFERENCE)
    texts, verdicts = [], []
    for source in _INPUTS:
        (gspar_bits, gspar), (qsgd_bits, qsgd) = (
            errors["GSpar 10%", source],
            errors["QSGD s=1, max norm, bucket 512", source],
        )
        verdicts.append(gspar * gspar_bits < qsgd * qsgd_bits)
        texts.append(
            f"{source}: GSpar 10 % {gspar_bits:.3g} bits, variance {gspar:.3g}; one level {qsgd_bits:.3g} bits, "
            f"{qsgd:.3g}"
        )
    trained = [
        f"{row.method} {shown(row.to_target('steps'))} steps of {row.bytes_per_step:,.0f} bytes"
        for row in found.rows("sampling/logreg")
        if row.method.startswith(("gspar", "qsgd"))
    ]
    return claim(all(verdicts), listed(texts) + "; trained to a target: " + listed(trained))


def _compression_time(found: Found) -> Finding:
    lines = [line for line in found.lines("threads/compress") if line.get("step") == "operators"]
    wanted = {"GSpar": None, "QSGD": None, "TopK": None, "TernGrad": None}
    times = {
        name: min(float(line["ratio"]) for line in lines if name in str(line["name"]))
        for name in wanted
        if any(name in str(line["name"]) for line in lines)
    }
    return measured(
        "to compress 1 M entries, in multiples of copying them: "
        + listed(f"{name} {ratio:.3g}" for name, ratio in times.items())
    )


def _much_faster(found: Found) -> Finding:
    gspar = found.row("sampling/logreg", "gspar:density=5%").to_target("steps")
    uniform = found.row("sampling/logreg", "mem-sgd:select=random,density=5%,memory=none").to_target("steps")
    if math.isinf(gspar.mean):
        return claim(None, f"optimal probabilities missed the target, uniform ones took {shown(uniform)} steps")
    if math.isinf(uniform.mean):
        return claim(True, f"{shown(gspar)} steps to the target, which uniform sampling missed")
    return claim(
        is_below(gspar, uniform),
        f"{shown(gspar)} steps to the target, {shown(uniform)} with uniform sampling: "
        f"{shown(uniform.over(gspar))} times",
    )


def _samplings(found: Found) -> Finding:
    rows = [row for row in found.rows("sampling/logreg") if row.method != "bf16-sgd"]
    return measured(
        listed(
            f"{row.method}: final {shown(row.final)}, {shown(row.to_target('steps'))} steps and "
            f"{shown(row.to_target('message_bytes'))} bytes to the target"
            for row in rows
        )
    )


def _both_guarantees(found: Found) -> Finding:
    promised = {
        line["method"]: float(line["value"])
        for line in found.lines("operators/bounds")
        if line["quantity"] == "relative variance omega"
    }
    errors = _errors(found, _REFERENCE)
    verdicts, texts = [], []
    for method, name, density in (("gspar:density=1%", "GSpar 1%", 0.01), ("gspar:density=10%", "GSpar 10%", 0.1)):
        most = max(errors[name, source][1] for source in _INPUTS)
        bits = max(errors[name, source][0] for source in _INPUTS)
        verdicts.append(most <= promised[method])
        texts.append(f"{name}: variance at most {most:.3g} of {promised[method]:.3g} allowed, {bits:.3g} bits an entry")
        verdicts.append(bits < 32.0 * density + 1.0)
    return claim(all(verdicts), listed(texts))


def _baselines(found: Found) -> Finding:
    rows = {line["name"]: line for line in found.lines("operators/catalog")}
    errors = _errors(found, _REFERENCE)
    bits, error = errors["QSGD s=7, max norm, bucket 512", "gaussian"]
    without = [name for name, line in rows.items() if not line["summary"] or not line["paper"]]
    return claim(
        not without,
        f"{len(rows)} methods, {len(rows) - len(without)} of them with what they send and the paper; QSGD: "
        f"{rows['qsgd']['summary']}; at 7 levels {bits:.3g} bits an entry, error {error:.3g}",
    )


def _contraction(found: Found) -> Finding:
    names = ("QSGD top-k", "sign top-k", "top-k bf16")
    errors = {
        (line["name"], line["input"], line["budget"]): line["error"]
        for line in found.lines(_BUDGET)
        if line["name"] in names
    }
    worst, where = max((error, key) for key, error in errors.items())
    return claim(
        every([error < 1.0 for error in errors.values()]),
        f"{len(errors)} quantized sparsifiers, the largest error {worst:.3g} ({where[0]}, {where[1]}, "
        f"{where[2]:g} bits)",
    )


DEMANDS = (
    Demand(
        number=6,
        question="What is the variance of each estimator at the same number of bits?",
        source=_REVIEW,
        expected="those of Konecny and Richtarik, Suresh et al., GSpar, QSGD and today's, at true bytes",
        parts=(_UNBIASED,),
        judge=_at_fixed_budget,
    ),
    Demand(
        number=8,
        question="Does sparsifying together with quantizing lose less than either alone, for the same bits?",
        source=_REVIEW,
        expected="the smaller error at 1 bit an entry, on vectors of every kind",
        parts=(_BUDGET,),
        judge=_combination_for_bits,
    ),
    Demand(
        number=14,
        question="What do optimal probabilities and centres give, as earlier work has them?",
        source=_REVIEW,
        expected="that encoder's error beside GSpar's, at the same bits",
        parts=(_UNBIASED,),
        judge=_optimal_probabilities,
    ),
    Demand(
        number=15,
        question="Is GSpar more than QSGD with one level at another scale?",
        source=_GSPAR_REVIEW,
        expected="less variance for the bits (variance times bits) on every vector",
        parts=(_REFERENCE, "sampling/logreg"),
        judge=_one_level,
    ),
    Demand(
        number=21,
        question="What does it take to compute each message?",
        source=_GSPAR_REVIEW,
        expected="times of compression, in multiples of a copy",
        parts=("threads/compress",),
        judge=_compression_time,
    ),
    Demand(
        number=22,
        question="By how much does training with optimal probabilities converge faster than with uniform ones?",
        source=_GSPAR_REVIEW,
        expected="fewer steps to the target at the same density, beyond the intervals",
        parts=("sampling/logreg",),
        judge=_much_faster,
    ),
    Demand(
        number=23,
        question="How do uniform sampling, the largest entries alone, and QSGD do beside GSpar?",
        source=_GSPAR_REVIEW,
        expected="final value, steps and bytes to the target of each",
        parts=("sampling/logreg",),
        judge=_samplings,
    ),
    Demand(
        number=24,
        question="Does the scheme guarantee both its sparsity and its variance?",
        source=_GSPAR_REVIEW,
        expected="a variance within what theory allows, at a density that was asked for",
        parts=(_REFERENCE, "operators/bounds"),
        judge=_both_guarantees,
    ),
    Demand(
        number=28,
        question="What are the baselines, QSGD above all, in a sentence and two numbers?",
        source="a review of SGD with memory (Stich et al. 2018)",
        expected="every method with what it sends and its paper; bits and error of QSGD",
        parts=("operators/catalog", _REFERENCE),
        judge=_baselines,
    ),
    Demand(
        number=38,
        question="Is a quantized sparsifier a contraction?",
        source="the authors' response on Qsparse-local-SGD (Basu et al. 2019), Definition 3",
        expected="errors below 1 on vectors of every kind",
        parts=(_BUDGET,),
        judge=_contraction,
    ),
)
