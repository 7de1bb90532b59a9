"""What compressing takes, measured for every method of the catalog."""

import pytest

from thinwire.experiments.codec import Spent, measure_codec
from thinwire.experiments.tasks import load_task
from thinwire.methods import CATALOG, GradientAveraging, is_dense, parse_method
from thinwire.steps import Steps, compute

QUICK = {"diloco": "diloco:every=4", "streaming-diloco": "streaming-diloco:every=4", "sparseloco": "sparseloco:every=4"}


@pytest.mark.parametrize("name", [row.name for row in CATALOG])
def test_every_method_is_measured(name: str) -> None:
    method = parse_method(QUICK.get(name, name))
    lead, other = measure_codec(load_task("digits"), method, "sgd", 3)
    assert min(lead, other) >= 0.0
    assert max(lead, other) < 1.0
    if method == GradientAveraging():
        assert lead == other == 0.0
    elif not is_dense(method) and "sgd" not in name and not name.startswith(("easgd", "eamsgd", "sparse-av", "d-psgd")):
        assert lead > 0.0  # what compresses takes longer than what does not


def test_what_a_program_spends_is_its_own() -> None:
    def busy(count: int) -> Steps[int]:
        total = 0
        for _ in range(3):
            total += sum(range(count))
            yield from compute(1.0)
        return total

    spent = Spent(2)
    ends = []
    for rank, count in enumerate((1, 300_000)):
        program = spent.timed(busy(count), rank)
        ops = []
        try:
            reply = None
            while True:
                ops.append(program.send(reply))
        except StopIteration as end:
            ends.append(end.value)
        assert len(ops) == 3
    assert ends == [0, 3 * sum(range(300_000))]
    assert spent.by_rank[1] > 10 * spent.by_rank[0] > 0.0
