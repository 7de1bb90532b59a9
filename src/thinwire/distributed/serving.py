"""The process that holds the model of an asynchronous method, in a user's own script."""

import torch
from torch import nn

from thinwire.distributed.link_options import LinkOptions
from thinwire.distributed.starting_point import broadcast_parameters, common_terms
from thinwire.distributed.transport import Group, Transport, process_group_of
from thinwire.errors import ConfigError, NumericsError
from thinwire.methods import Method, ModelAveraging, parse_method
from thinwire.worker import Server, needs_server
from thinwire.worker.parameters import model_device


def serve(
    model: nn.Module, method: str | Method, *, num_steps: int, group: Group = None, links: LinkOptions | None = None
) -> Server:
    """Merge the workers' messages until each has taken ``num_steps`` steps; called by the last process of the group.

    The workers call :func:`thinwire.synchronize` with the same method, and each takes ``num_steps`` steps at its own
    pace. The server's :meth:`~thinwire.worker.Server.shared_parameters` are then what was trained, and ``model``
    holds them.

    Args:
        model: with the same parameters as the workers'.
        method: an asynchronous one, such as ``"qsparse-async:every=8"``.
        num_steps: of every worker.
        group: the processes that take part; all by default.
        links: how the processes reach each other, and how long they wait.

    Raises:
        ConfigError: a method without server, a process that is not the last of several, or processes that do not
            agree on method or model.
        WorkerError: a worker is gone, or left before its last step; ``model`` holds what was merged until then.
        NumericsError: a worker's message was not finite; every worker raises as well.

    Example::

        if dist.get_rank() == dist.get_world_size() - 1:
            thinwire.serve(model, "qsparse-async:every=8", num_steps=1000)
        else:
            with thinwire.synchronize(optimizer, model, "qsparse-async:every=8"):
                ...  # 1000 steps
    """
    product = parse_method(method) if isinstance(method, str) else method
    if not needs_server(product):
        raise ConfigError(f"{product} has no server; every process calls thinwire.synchronize")
    terms = common_terms("synchronize", product, 0, model, {})
    del terms["seed"]  # the workers'
    transport = Transport(process_group_of(group), links, terms, device=model_device(model.parameters()))
    try:
        size = transport.size - 1
        if size < 1 or transport.rank != size:
            raise ConfigError(
                f"thinwire.serve was called on process {transport.rank} of {transport.size}; the last of at least two "
                "processes is the server"
            )
        broadcast_parameters(transport, model)
        server = Server(product, model, size=size)
        assert isinstance(product, ModelAveraging)
        due = product.schedule.due
        quotas = [sum(due(step, rank) for step in range(1, num_steps + 1)) for rank in range(size)]
        try:
            transport.run(server.serve(sum(quotas), quotas))
        finally:
            parameters = dict(model.named_parameters())
            with torch.no_grad():
                for name, trained in server.shared_parameters().items():
                    parameters[name].copy_(trained)
        return server
    except NumericsError:
        transport.flush()  # every worker is told by its answer; a word that this process failed could be there before
        raise
    except BaseException as error:
        transport.abort_for(error, "the server")
        raise
    finally:
        transport.close()
