"""What the files of a run of ``faults.py`` say: rates, recoveries, who took part, and what is owed."""

import itertools
from pathlib import Path
from typing import Any

import fault_replica as replica

Spell = tuple[float, float]
"""When somebody was away, from and to."""


def commits_in(folder: Path, begin: float, end: float) -> int:
    return sum(line["event"] == "counted" and begin <= line["time"] < end for line in replica.lines(folder))


def recoveries(folder: Path, faults: list[dict[str, Any]]) -> dict[str, list[float]]:
    """After each fault: seconds until an exchange counted on another participant, and, once it was back, on itself."""
    counted = [line for line in replica.lines(folder) if line["event"] == "counted"]
    found: dict[str, list[float]] = {}
    for fault in faults:
        after = [line for line in counted if line["time"] > fault["time"]]
        others = [line["time"] for line in after if line["name"] != fault["name"]]
        own = [line["time"] for line in after if line["name"] == fault["name"]]
        back = fault["time"] + fault["seconds"]
        if others:
            found.setdefault(f"{fault['kind']}: others", []).append(others[0] - fault["time"])
        if [each for each in own if each > back]:
            found.setdefault(f"{fault['kind']}: itself", []).append(min(each for each in own if each > back) - back)
    return found


def largest_move(lines: list[dict[str, Any]]) -> float:
    """The largest entry by which what somebody owes has changed between two exchanges, by a change of membership."""
    return max((float(line["owed_moved"]) for line in lines if line["event"] == "resumed"), default=0.0)


def participation_of_the_living(lines: list[dict[str, Any]], away: dict[str, list[Spell]]) -> dict[str, float]:
    """Of the exchanges during which a participant lived all the time, the share that counted with it.

    An exchange lasts from when the one before it counted, on the first participant that says so, until it counts.

    Args:
        lines: of all participants.
        away: when each was killed, stopped or cut off.
    """
    times, names = dict[int, float](), dict[int, set[str]]()
    for line in lines:
        if line["event"] == "counted":
            number = int(line["number"])
            times[number] = min(times.get(number, line["time"]), line["time"])
            names.setdefault(number, set()).update(line["names"])
    numbers = sorted(times)
    found = {}
    for name, spells in away.items():
        lived = [
            number
            for before, number in itertools.pairwise(numbers)
            if not any(begin < times[number] and end > times[before] for begin, end in spells)
        ]
        found[name] = sum(name in names[number] for number in lived) / max(len(lived), 1)
    return found
