"""Three commands of studies, two at a time, in the folder ``out``; prints how many are done as it goes."""

import sys

from thinwire.evidence import Part, run_parts
from thinwire.experiments.ending import Terminated

GATED = (
    "compare",
    "sgd",
    "--task",
    "user_tasks:gated",
    "--workers",
    "1",
    "--steps",
    "2",
    "--lrs",
    "0.1",
    "--seeds",
    "0",
)
PARTS = (
    Part(study="some", name="short", size="quick", arguments=("methods", "sgd")),
    Part(study="some", name="one", size="quick", arguments=GATED),
    Part(study="some", name="other", size="quick", arguments=GATED),
)


def main() -> None:
    try:
        failures = run_parts(PARTS, "out", 2, lambda done, total, last: print(done, total, last, flush=True))
    except Terminated:
        sys.exit(143)
    assert failures == {}, failures


if __name__ == "__main__":
    main()
