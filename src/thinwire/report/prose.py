"""What was compared and what came out, in sentences computed from the data; HTML with escaped text."""

from collections.abc import Sequence
from html import escape

from thinwire.report.formats import (
    human_bits_per_second,
    human_bytes,
    human_seconds,
    metric_value,
    ratio_number,
    significant,
)
from thinwire.report.records import RecordedComparison
from thinwire.report.rows import ResultRow, effective_target

# Ratios closer to 1 than this are called equal.
EVEN = 1.05


def headline(data: RecordedComparison, rows: Sequence[ResultRow]) -> str:
    """The result in one to three sentences: who reached the target with the fewest bytes, and how fast."""
    if all(row.final_value is None for row in rows):
        return "Every method diverged."
    target = effective_target(data)
    if target is None:
        return _best_final(data, rows)
    goal = f"{escape(data.metric.name)} {metric_value(target)}"
    baseline = next((row for row in rows if row.is_baseline), None)
    winners = [row for row in rows if row.reliable and not row.is_baseline]
    if not winners:
        alone = "No method" if baseline is None else f"No method other than {_name(baseline)}"
        if baseline is not None and not baseline.reliable:
            alone = "No method"
        return f"{alone} reached {goal} in every run within {data.steps:,} steps."
    if baseline is None or baseline.num_reached == 0:
        least = min(winners, key=lambda row: row.message_bytes_to_target or 0.0)
        missed = "" if baseline is None else f"{_name(baseline)}, the baseline, did not reach it."
        lead = f"{_name(least)} reached {goal} with the fewest message bytes: {_cost(least)}."
        return f"{lead} {missed}".rstrip()
    return " ".join(_against(data, winners, baseline, goal))


def setup(data: RecordedComparison) -> str:
    """One paragraph: the task, the workers, the network, the training, the choice of learning rates."""
    size = "" if data.num_parameters is None else f" (a model of {data.num_parameters:,} parameters)"
    batch = "" if data.batch_size is None else f", batches of {data.batch_size:,} per worker"
    shards = "" if data.sharding is None else f", {escape(data.sharding)} sharding"
    rates = "" if data.lr_schedule in (None, "constant") else f", learning rates {escape(data.lr_schedule)}"
    mean = "" if data.average in (None, "none") else f", evaluated at the {escape(data.average)} average of iterates"
    seeds = ", ".join(str(seed) for seed in data.seeds)
    seeds = f"seeds {seeds}" if len(data.seeds) > 1 else f"one seed, {seeds}"
    methods = f"{len(data.methods)} methods" if len(data.methods) > 1 else "One method"
    turns = "" if data.clients is None else f" a round ({escape(data.clients.text)})"
    searched = any(len(tried) > 1 for tried in data.tuning.values())
    several = len(data.optimizers) > 1
    optimizer = "the best optimizer of each" if several else escape(data.optimizers[0])
    what = f"learning rate and optimizer ({escape('; '.join(data.optimizers))})" if several else "learning rate"
    sentences = [
        f"{methods} trained <b>{escape(data.task)}</b>{size} with {data.workers:,} workers{turns} for "
        f"{data.steps:,} steps of {optimizer}{rates}{batch}{shards}, {seeds}{mean}.",
        _where(data),
        _codec(data),
        f"Every method ran at the {what} that a search of its own on the validation split took."
        if searched
        else "Learning rates were given, not searched.",
        _target_sentence(data),
    ]
    return " ".join(sentence for sentence in sentences if sentence)


def _where(data: RecordedComparison) -> str:
    compute = ""
    if data.compute and data.compute.compute_s:
        varied = "" if data.compute.are_equal else " on average, which differs by worker or step"
        compute = f", {human_seconds(data.compute.compute_s)} of computation per step{varied}"
    if data.engine == "processes":
        return "The workers were real processes; seconds are measured."
    if data.network is None:
        return f"The workers ran in the simulator{compute}; seconds are virtual."
    bandwidth = human_bits_per_second(data.network.bandwidth_Bps)
    up = data.network.uplink_Bps
    upwards = "" if up is None else f" ({human_bits_per_second(up)} up)"
    others = f", but {data.network.num_others} on other links" if data.network.num_others else ""
    return (
        f"The workers ran in the simulator, each on a link of {bandwidth}{upwards} with "
        f"{human_seconds(data.network.latency_s)} latency{others}{compute}; seconds are virtual."
    )


def _codec(data: RecordedComparison) -> str:
    """What compression costs in the seconds that are told."""
    if data.engine == "processes":
        return ""
    overlap = (
        "Gradients are exchanged during backward, as DDP does it, by methods of which its hook is capable."
        if data.overlap == "ddp"
        else "No exchange overlaps computation."
    )
    if not any(map(max, data.codec_s.values())):
        return f"Compressing and decoding are not charged. {overlap}"
    slowest = max(data.codec_s, key=lambda method: max(data.codec_s[method]))
    return (
        "Compressing and decoding are charged as measured on one thread of this machine, beyond what dense f32 takes: "
        f"up to {human_seconds(max(data.codec_s[slowest]))} an exchange (<code>{escape(slowest)}</code>). {overlap}"
    )


def _target_sentence(data: RecordedComparison) -> str:
    target = effective_target(data)
    if target is None:
        return ""
    goal = f"The target is {escape(data.metric.name)} {metric_value(target)}"
    if data.target is not None:
        return f"{goal}."
    dense = " and ".join(f"<code>{escape(name)}</code>" for name in data.dense)
    return f"{goal}: what every run of {dense} reached at its best, less 2 % of the way there from step 0."


def _best_final(data: RecordedComparison, rows: Sequence[ResultRow]) -> str:
    sign = 1.0 if data.metric.higher_is_better else -1.0
    ended = [row for row in rows if row.final_value is not None and not row.num_diverged]
    if not ended:
        return "Every method diverged in some run."
    best = max(ended, key=lambda row: sign * (row.final_value or 0.0))
    value = metric_value(best.final_value or 0.0)
    return f"{_name(best)} ended with the best {escape(data.metric.name)}, {value}."


def _against(data: RecordedComparison, winners: Sequence[ResultRow], baseline: ResultRow, goal: str) -> list[str]:
    tried = data.tuning.get(baseline.method, ())
    fastest_dense = ", the fastest dense method" if len(data.dense) > 1 else ""
    base = f"{'tuned ' if len(tried) > 1 else ''}{_name(baseline)}{fastest_dense}"
    lead = max(winners, key=lambda row: row.message_ratio or 0.0)
    sentences = [
        f"{_name(lead)} reached {goal} with {_times(lead.message_ratio)} message bytes and "
        f"{_times(lead.link_ratio)} bytes on the link than {base}."
    ]
    frugal = max(winners, key=lambda row: row.link_ratio or 0.0)
    if frugal.method != lead.method and (frugal.link_ratio or 0.0) >= EVEN:
        sentences.append(
            f"On the link itself {_name(frugal)} saved most: {_times(frugal.link_ratio)} bytes than {base}."
        )
    fastest = min(winners, key=lambda row: row.seconds_to_target or 0.0)
    kind = "measured" if data.engine == "processes" else "virtual"
    if fastest.seconds_to_target is not None and baseline.seconds_to_target is not None:
        own, theirs = significant(fastest.seconds_to_target), significant(baseline.seconds_to_target)
        if fastest.method == lead.method and fastest.seconds_to_target < baseline.seconds_to_target:
            sentences.append(f"It was also the fastest: {own} {kind} seconds, against {theirs}.")
        elif fastest.seconds_to_target < baseline.seconds_to_target:
            sentences.append(
                f"The fastest was {_name(fastest)}: {own} {kind} seconds, against {theirs} for {_name(baseline)}."
            )
        else:
            sentences.append(f"None was faster than {_name(baseline)}, which took {theirs} {kind} seconds.")
    sentences += _lost(lead)
    if not baseline.reliable:
        sentences.append(
            f"{_name(baseline)} itself reached it in {baseline.num_reached} of {baseline.num_runs} runs; "
            "ratios are against those."
        )
    return sentences


def _lost(lead: ResultRow) -> list[str]:
    """What the fewer bytes cost at the end."""
    if lead.against_dense is None:
        return []
    unit, of = (100.0, " points") if lead.metric.is_share else (1.0, "")
    name, ahead, half = escape(lead.metric.name), unit * lead.against_dense, lead.against_dense_within
    if half is not None and abs(ahead) <= unit * half:
        apart = f"{ahead:+.2g} ± {unit * half:.2g}{of}"
        return [f"Its final {name} differs from the baseline's by less than seeds make of it: {apart}."]
    within = "" if half is None else f" ± {unit * half:.2g}"
    where = "higher" if ahead > 0 else "lower"
    price = "" if (ahead > 0) == lead.metric.higher_is_better else ", which is the price"
    return [f"Its final {name} was {abs(ahead):.2g}{within}{of} {where} than the baseline's{price}."]


def _times(ratio: float | None) -> str:
    """Such as ``2,813 times fewer`` or ``1.30 times more``, to be followed by a noun and "than"."""
    if ratio is None:
        return "no fewer"
    if ratio >= EVEN:
        return f"{ratio_number(ratio)} times fewer"
    return f"{ratio_number(1 / ratio)} times more" if ratio <= 1 / EVEN else "about no fewer"


def _cost(row: ResultRow) -> str:
    return (
        f"{human_bytes(row.message_bytes_to_target or 0.0)} per worker, "
        f"{human_bytes(row.link_bytes_to_target or 0.0)} on its link"
    )


def _name(row: ResultRow) -> str:
    return f"<code>{escape(row.method)}</code>"
