"""The seconds of a training step, predicted from what was measured of its parts."""

from collections.abc import Sequence

from thinwire.errors import ConfigError
from thinwire.step_time.curves import LinkCurves, Way
from thinwire.step_time.values import Compute, Exchange

NUM_TORCH_THREADS = 2
"""So many collectives of one process group gloo performs at the same time."""


def dense_step_s(compute: Compute, link: LinkCurves, itemsize: int, casts: Sequence[Exchange] = ()) -> float:
    """A step of DDP, whose buckets are added up by torch's all-reduce while backward goes on.

    gloo performs two all-reduces at a time. Their latencies pass together, and they share the bandwidth.

    Args:
        compute: a step without communication.
        link: what messages take.
        itemsize: bytes that an entry is sent in.
        casts: what each bucket's hook computes, before and after; backward waits for the former.

    Example:
        >>> from thinwire.step_time import Bucket, Curve
        >>> link = LinkCurves({Way.TORCH_SUM: ((0.0, Curve(((0.0, 1.0), (400.0, 3.0)))),)})
        >>> dense_step_s(Compute((Bucket(100, 5.0),), 5.0, 6.0), link, itemsize=4)   # 5, all-reduce 3, optimizer 1
        9.0
    """
    costs = casts or [Exchange()] * len(compute.buckets)
    _check(compute, costs)
    curve = link.at(Way.TORCH_SUM, compute.step_s)
    delay_s, jobs = 0.0, []
    for bucket, cost in zip(compute.buckets, costs, strict=True):
        delay_s += cost.before_s
        whole_s = curve.seconds(bucket.numel * itemsize)
        jobs.append((bucket.handed_s + delay_s, curve.fixed_s, whole_s - curve.fixed_s))
    ends = [end + cost.after_s for end, cost in zip(_served(jobs), costs, strict=True)]
    backward_s = compute.backward_s + delay_s
    return max(backward_s, *ends) + compute.step_s - compute.backward_s


def _served(jobs: Sequence[tuple[float, float, float]]) -> list[float]:
    """When jobs end that are begun in order, two at a time.

    Args:
        jobs: when each is there, its seconds that others do not lengthen, and those for which it needs the link.
    """
    ends = [0.0] * len(jobs)
    # Of each that is under way: its number, seconds of latency left, seconds of the link left.
    under_way: list[list[float]] = []
    now, number = 0.0, 0
    while under_way or number < len(jobs):
        if number < len(jobs) and len(under_way) < NUM_TORCH_THREADS and (not under_way or jobs[number][0] <= now):
            now = max(now, jobs[number][0])
            under_way.append([number, *jobs[number][1:]])
            number += 1
            continue
        on_link = sum(not fixed for _, fixed, _ in under_way)
        step = min(fixed or work * on_link for _, fixed, work in under_way)
        if number < len(jobs) and len(under_way) < NUM_TORCH_THREADS:
            step = min(step, jobs[number][0] - now)
        now += step
        left = []
        for place, fixed, work in under_way:
            if fixed:
                fixed = max(fixed - step, 0.0) if fixed > step * (1 + 1e-12) else 0.0
            else:
                work = work - step / on_link if work > step / on_link * (1 + 1e-12) else 0.0
            if fixed or work:
                left.append([place, fixed, work])
            else:
                ends[int(place)] = now
        under_way = left
    return ends


def hooked_step_s(compute: Compute, exchanges: Sequence[Exchange], link: LinkCurves, hidden: float = 1.0) -> float:
    """A step of DDP with a hook that compresses one bucket while the one before it is on the wire.

    Args:
        compute: a step without communication.
        exchanges: of each bucket, in the same order.
        link: what messages take.
        hidden: the share of the seconds of compression that pass beside backward; the rest, where all processors
            compute already, makes backward longer.

    Raises:
        ConfigError: another number of exchanges than of buckets, or a share that is none.

    Example:
        >>> from thinwire.step_time import Bucket, Curve, Round
        >>> link = LinkCurves({Way.GATHER: ((0.0, Curve(((0.0, 3.0),))),)})
        >>> compute = Compute((Bucket(10, 2.0), Bucket(10, 6.0)), 6.0, 7.0)
        >>> hooked_step_s(compute, [Exchange(1.0, (Round(Way.GATHER, 8),))] * 2, link)   # 6, 1, 3 and the optimizer
        11.0
    """
    _check(compute, exchanges)
    if not 0 <= hidden <= 1:
        raise ConfigError(f"a share of {hidden} of compression was said to be hidden; it is from 0 to 1")
    shown = 1 - hidden
    delay_s, compressed_s, end_s, end_before_s, busy_s = 0.0, 0.0, 0.0, 0.0, 0.0
    for bucket, exchange in zip(compute.buckets, exchanges, strict=True):
        handed_s = bucket.handed_s + delay_s
        delay_s += shown * exchange.before_s
        # One bucket is ahead of the one on the wire, and no more.
        compressed_s = max(handed_s, compressed_s, end_before_s) + exchange.before_s
        came_s = max(compressed_s, end_s) + exchange.between_s(link, compute.step_s)
        end_before_s, end_s = end_s, came_s + exchange.after_s
        busy_s = max(busy_s, handed_s) + exchange.codec_s
    # What the last bucket computes comes after backward; all of it needs a processor that backward leaves free.
    backward_s = compute.backward_s + delay_s - shown * exchanges[-1].before_s
    worked_s = compute.backward_s + shown * sum(each.codec_s for each in exchanges)
    return max(backward_s, end_s, busy_s, worked_s) + compute.step_s - compute.backward_s


def synchronized_step_s(
    step_s: float, exchange: Exchange, link: LinkCurves, period: float = 1.0, local_s: float = 0.0
) -> float:
    """A step of ``synchronize`` in the long run: computing, and its share of an exchange that follows.

    ``T = t + l + (E(period (t + l)) + ...) / period``, where ``E`` depends on how long the link was idle.

    Args:
        step_s: a step without communication.
        exchange: what is done every ``period`` steps.
        link: what messages take.
        period: steps from one exchange to the next.
        local_s: what the worker does at a step without an exchange.

    Raises:
        ConfigError: a period below 1.

    Example:
        >>> from thinwire.step_time import Curve, Round
        >>> link = LinkCurves({Way.GATHER: ((0.0, Curve(((0.0, 3.0),))),)})
        >>> synchronized_step_s(1.0, Exchange(1.0, (Round(Way.GATHER, 8),)), link, period=4)
        2.0
    """
    if not period >= 1:
        raise ConfigError(f"a period of {period} steps was given; it is 1 or more")
    return step_s + local_s + exchange.seconds(link, period * (step_s + local_s)) / period


def _check(compute: Compute, exchanges: Sequence[Exchange]) -> None:
    if len(exchanges) != len(compute.buckets) or not compute.buckets:
        raise ConfigError(
            f"{len(exchanges)} exchanges were given for {len(compute.buckets)} buckets; each bucket has one"
        )
