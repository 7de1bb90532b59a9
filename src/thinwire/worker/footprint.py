"""What a method remembers, in bytes."""

import torch
from torch import Tensor

from thinwire.exchanges import Context
from thinwire.layout import Layout
from thinwire.methods import Method, ModelAveraging
from thinwire.random import Key

_META = torch.device("meta")


def remembered_num_bytes(method: Method, layout: Layout, rank: int, size: int) -> int:
    """Bytes of memory, reference points and exchange's state, of one worker's f32 model.

    The fragments of a model have their states one after another, as long together as one of the whole. Beside it an
    exchange takes one vector while it lasts. An exchange's own state is made for a moment, if it has one.

    Args:
        method: what is exchanged.
        layout: of the parameters.
        rank: which worker; where owners keep something of a region, it differs by an entry or so.
        size: number of workers.

    Example:
        >>> from thinwire.methods import parse_method
        >>> layout = Layout(("w",), (torch.Size([1000]),))
        >>> [remembered_num_bytes(parse_method(text), layout, 0, 2) for text in ("sgd", "topk", "signtopk:every=4")]
        [0, 8000, 8000]
    """
    like = torch.empty(layout.numel, dtype=torch.float32, device=_META)
    ctx = Context(rank, size, Key(0), method.granularity.segments(layout), 0, layout)
    states: list[dict[str, Tensor]] = [method.memory.init(like), method.exchange.init(ctx, method.compressor)]
    if isinstance(method, ModelAveraging):
        states.append(method.update.init(like))
        if method.tracking is not None:
            states += [*states, method.tracking.init(layout.numel, _META)]
    return sum(tensor.nbytes for state in states for tensor in state.values())
