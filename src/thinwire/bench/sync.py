"""One whole synchronisation of a worker: everything but compute and wire."""

import torch
from torch import Tensor, nn

from thinwire.arrays import CPU
from thinwire.bench.families import BenchFamily, Facts, Member, Prepared, facts_of, single
from thinwire.bench.inputs import BenchInput
from thinwire.bench.timing import Case
from thinwire.compressors import Sign, TopK
from thinwire.errors import ProtocolError
from thinwire.layout import Segments, views_like
from thinwire.methods import parse_method
from thinwire.random import Key
from thinwire.steps import AllGather, Steps
from thinwire.wire import decode, encode
from thinwire.worker import Worker
from thinwire.worker.subject import NoOptimizer

_METHOD, _DENSITY, _SIZE = "signtopk:density=1%", 0.01, 4
_MEMBER = Member(step="worker-sync", variant=f"of {_SIZE} workers", density=_DENSITY)


def sync_family() -> BenchFamily:
    """``worker-sync``: read the parameters, signal, memory, compress, encode, decode four messages, apply."""
    return single(_MEMBER, _prepare)


class Synchronisation:
    """A worker of a model with the input's tensors, whose optimizer does nothing and whose peers are messages."""

    def __init__(self, data: BenchInput) -> None:
        self._data = data
        model = _Model(data)
        self._params: list[Tensor] = list(model.parameters())
        self.worker = Worker(
            parse_method(_METHOD), model, NoOptimizer(model.parameters()), rank=0, size=_SIZE, seed=0
        )  # fmt: skip
        self.worker.agreement.has_begun = True  # what is timed is an exchange
        compressor, whole = TopK(density=_DENSITY, values=Sign()), Segments.whole(data.numel)
        self._others = [encode(compressor.compress(data.vector(rank), Key(0), whole)) for rank in range(1, _SIZE)]
        self._message = self._others[0]

    @torch.no_grad()
    def refill(self, turn: int) -> None:
        """Move the parameters by the turn's vector, as local steps would have."""
        torch._foreach_sub_(self._params, views_like(self._data.vector(turn), self._params))
        self.worker.accept_values()

    def run(self) -> None:
        """Drive the program of one step; the others' messages are there when it asks for them."""
        program = self.worker.step()
        request = next(program)
        if not isinstance(request, AllGather):
            raise ProtocolError(f"the worker asked for {type(request).__name__} where an AllGather was expected")
        self._message = request.message
        _finish(program, request.combine([request.message, *self._others]))

    def facts(self) -> Facts:
        """Of the last message that the worker sent."""
        return facts_of(decode(self._message))


def _prepare(data: BenchInput) -> Prepared:
    sync = Synchronisation(data)
    return Prepared(case=Case(run=sync.run, refill=sync.refill), facts=sync.facts)


def _finish(program: Steps[None], reply: object) -> None:
    try:
        program.send(reply)
    except StopIteration:
        return
    raise ProtocolError("the worker asked for a second exchange in one step")


class _Model(nn.Module):
    """Parameters only, of the input's sizes."""

    def __init__(self, data: BenchInput) -> None:
        super().__init__()
        sizes = data.tensors.offsets().diff().tolist()
        self.tensors = nn.ParameterList(
            nn.Parameter(torch.zeros(size, dtype=torch.float32, device=CPU)) for size in sizes
        )
