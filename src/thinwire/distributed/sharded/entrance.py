"""Compressed exchanges between the replicas of a model that FSDP2 shards."""

from torch import nn
from torch.distributed.device_mesh import DeviceMesh

from thinwire.distributed.bucket_exchange import GradScaler
from thinwire.distributed.comm_hook import can_overlap, on_gradients, parsed_method
from thinwire.distributed.dense_policy import DensePolicy
from thinwire.distributed.guard import ReplicaGuard
from thinwire.distributed.handle_options import HandleOptions
from thinwire.distributed.link_options import LinkOptions
from thinwire.distributed.sharded.handle import ShardedGradients
from thinwire.distributed.sharded.sharded_model import ShardedModel, refuse_sparse, replicas_of
from thinwire.distributed.sharded.taps import refuse_hooks
from thinwire.errors import ConfigError
from thinwire.methods import GradientAveraging, Method
from thinwire.worker import needs_server
from thinwire.worker.layer_report import LayerReport


def compress_fsdp(
    model: nn.Module,
    method: str | Method,
    *,
    mesh: DeviceMesh,
    policy: DensePolicy | None = None,
    scaler: GradScaler | None = None,
    seed: int = 0,
    guard: ReplicaGuard | None = None,
    layer_report: LayerReport | None = None,
    links: LinkOptions | None = None,
) -> ShardedGradients:
    """Let the replicas of a sharded ``model`` exchange their gradients by ``method``, overlapped with backward.

    FSDP2 shards the model within each island and reduces gradients there; each process then exchanges its shard with
    the processes that hold the same shard in the other islands. A method looks at each tensor's shard apart. Shards
    that are not equal on all replicas are sent from the first: load weights before.

    Args:
        model: as ``fully_shard`` left it, sharded over a mesh that does not have the replicas' dimension.
        method: a method string such as ``"signtopk:density=1%"``, or a method. One that averages models after every
            step, plainly, is taken with its memory in units of a gradient.
        mesh: the dimension over which the model is replicated, ``mesh["replicate"]``; or a mesh that has it, and beside
            it only dimensions over which the model is sharded.
        policy: which parameters are sent in full; by default biases, norms, embeddings and what is small as a whole.
        scaler: the ``GradScaler`` of mixed precision: the memory is then kept in units of the unscaled gradient, and
            gradients that are not finite are left to it.
        seed: the same on every process; addresses the method's randomness.
        guard: compare the replicas' shards every now and then; a step is compared in the backward of the next.
        layer_report: sampled exchanges are reported tensor by tensor, once they count.
        links: how the replicas reach each other, and how long they wait.

    Raises:
        ConfigError: no model of FSDP2, one that is sharded or averaged over the replicas, a parameter whose local
            gradient is none of its own, a method with local steps, a server or another update of models, one that does
            not fit, or processes that do not agree on these arguments.
        WorkerError: processes cannot reach each other.

    Example::

        mesh = init_device_mesh("cuda", (2, 8), mesh_dim_names=("replicate", "shard"))
        for layer in (*model.layers, model):
            fully_shard(layer, mesh=mesh["shard"])
        thinwire.compress_fsdp(model, "signtopk:density=1%", mesh=mesh["replicate"])
    """
    product = _product(method)
    sharded = ShardedModel.of(model)
    refuse_sparse(model)
    refuse_hooks(sharded)
    group = replicas_of(mesh, sharded)
    options = HandleOptions(seed=seed, guard=guard, layer_report=layer_report, profile=False, links=links)
    return ShardedGradients(sharded, group, product, policy or DensePolicy(), scaler, options)


def _product(method: object) -> GradientAveraging:
    product = parsed_method(method)
    if needs_server(product):
        raise ConfigError(
            f"{product} needs a process that is a server, and all processes hold a shard; take a method without one"
        )
    if not product.exchange.workers_agree:
        raise ConfigError(
            f"under {product} each worker has a mean of its own, and replicas must stay equal; take another exchange"
        )
    if not can_overlap(product) and not product.reset_memory and not isinstance(product, GradientAveraging):
        raise ConfigError(
            f"{product} averages models after local steps or in a way of its own, and FSDP2 hands over gradients, at "
            'every step; use thinwire.synchronize(optimizer, model, ..., group=mesh["replicate"]), or leave out '
            "every=..."
        )
    return on_gradients(product)
