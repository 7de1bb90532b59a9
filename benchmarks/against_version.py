"""Rows of ``thinwire bench`` of another version beside those of this one: both by turns, in one run.

    git worktree add ../before v1.0
    python benchmarks/against_version.py ../before -- --numel 25M --threads 1,2 --steps ef-topk-sign,decode-add

What follows ``--`` goes to ``thinwire bench`` as it is. A row has the median over the rounds of its ratio to a copy of
the vector for each version, and the median of what a round's ratio now is to the same round's before. Two processes of
the same code differ too: ``python benchmarks/against_version.py . -- ...`` tells by how much.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]


def rows_of(checkout: Path, options: list[str], number: int) -> dict[str, float]:
    """The ratio of each row, by what tells rows apart; an empty one was not measured."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "rows.jsonl"
        subprocess.run(
            [sys.executable, "-m", "thinwire", "bench", *options, "--json", str(out)],
            env=os.environ | {"PYTHONPATH": str(checkout / "src")}, cwd=folder, stdout=subprocess.DEVNULL, check=True,
        )  # fmt: skip
        found = [json.loads(line) for line in out.read_text().splitlines()]
    print(f"{number}: {checkout}, {len(found)} rows", file=sys.stderr, flush=True)
    parts = ("numel", "step", "density", "variant", "threads")
    return {" ".join(str(row[part]) for part in parts if row[part] not in (None, "")): row["ratio"] for row in found}


def main() -> None:
    """Print the table."""
    usage = "%(prog)s [--rounds N] BEFORE -- OPTIONS OF THINWIRE BENCH"
    parser = argparse.ArgumentParser(
        usage=usage, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("before", type=Path, help="a checkout of the other version")
    parser.add_argument("--rounds", type=int, default=7)
    own, options = sys.argv[1:], []
    if "--" in own:
        own, options = own[: own.index("--")], own[own.index("--") + 1 :]
    args = parser.parse_args(own)
    before: list[dict[str, float]] = []
    now: list[dict[str, float]] = []
    for turn in range(args.rounds):
        # Who begins changes: the first finds a cooler processor.
        for found, checkout in ((before, args.before.resolve()), (now, HERE))[:: -1 if turn % 2 else 1]:
            found.append(rows_of(checkout, options, turn + 1))
    print(f"{'row':60} {'before':>7} {'now':>7} {'now / before':>13}")
    for row in now[0]:
        if all(row in each for each in before):
            old, new = [each[row] for each in before], [each[row] for each in now]
            change = statistics.median(b / a for a, b in zip(old, new, strict=True))
            print(f"{row:60} {statistics.median(old):7.2f} {statistics.median(new):7.2f} {change:13.3f}")
        else:
            print(f"{row:60} {'-':>7} {statistics.median(each[row] for each in now):7.2f}")


if __name__ == "__main__":
    main()
