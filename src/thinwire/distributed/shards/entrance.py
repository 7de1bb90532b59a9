"""Compressed reduce-scatter and all-gather between the shards of a model."""

import torch.distributed as dist
from torch import nn

from thinwire.distributed.comm_hook import on_gradients, parsed_method
from thinwire.distributed.dense_policy import DensePolicy
from thinwire.distributed.link_options import LinkOptions
from thinwire.distributed.sharded.sharded_model import ShardedModel, mesh_of, refuse_sparse
from thinwire.distributed.shards.handle import CompressedShards, ShardMethods
from thinwire.errors import ConfigError
from thinwire.exchanges import AllReduce, Gather
from thinwire.memory import NoMemory
from thinwire.methods import GradientAveraging, Method


def compress_shards(
    model: nn.Module,
    *,
    gradients: str | Method | None = None,
    weights: str | Method | None = None,
    weight_differences: bool = False,
    policy: DensePolicy | None = None,
    seed: int = 0,
    links: LinkOptions | None = None,
) -> CompressedShards:
    """Let the shards of a model exchange fewer bytes: of gradients, of weights or of both.

    For a model that is sharded over a slow link. Gradients: each process sends each other one the compressed piece that
    it owns, with a memory where the method has one. Weights: each sends its shard compressed, and all, itself too,
    compute with what was sent; the optimizer goes on with the shard as it is. Biases, norms, embeddings and what is
    small are sent in full. Together with :func:`thinwire.compress_fsdp` it makes hybrid sharding thin in both
    dimensions.

    Args:
        model: as ``fully_shard`` left it, sharded over one dimension of a mesh.
        gradients: a method string such as ``"qsgd:bits=4"``, or a method: its compressor, memory and granularity are
            taken. A memory takes as much as the whole model on each process.
        weights: likewise, without a memory, such as ``"qsgd:bits=8"``.
        weight_differences: whether what weights have changed by is sent, which 4 bits are enough for; each process then
            keeps what all have of the whole model, and sends nothing where weights have not changed.
        policy: which parameters are sent in full.
        seed: the same on every process; addresses the methods' randomness.
        links: how the processes reach each other, and how long they wait.

    Raises:
        ConfigError: no model of FSDP2, one over several dimensions or meshes, a method that is more than a compressor
            and a memory, or processes that do not agree on these arguments.
        WorkerError: processes cannot reach each other.

    Example::

        for layer in (*model.layers, model):
            fully_shard(layer)
        thinwire.compress_shards(model, gradients="qsgd:bits=4", weights="qsgd:bits=4", weight_differences=True)
    """
    if gradients is None and weights is None:
        raise ConfigError('neither gradients nor weights were given; give a method, such as gradients="qsgd:bits=4"')
    methods = ShardMethods(_parts_of("gradients", gradients), _parts_of("weights", weights), weight_differences, seed)
    if methods.weights is not None and not isinstance(methods.weights.memory, NoMemory):
        raise ConfigError(
            f"{methods.weights} has a memory, and weights are whole at every gather; take one without, such as "
            '"qsgd:bits=8", or weight_differences=True, whose differences have what was left out'
        )
    if weight_differences and methods.weights is None:
        raise ConfigError('weight_differences=True was given without weights; give weights="qsgd:bits=4"')
    sharded = ShardedModel.of(model)
    refuse_sparse(model)
    layers = sharded.layers.values()
    if any(getattr(each, "set_custom_reduce_scatter", None) is None for each in layers):
        raise ConfigError("FSDP2 of this torch has no set_custom_reduce_scatter; install a newer torch")
    return CompressedShards(sharded, _shard_group(sharded), methods, policy or DensePolicy(), links)


def _parts_of(which: str, method: str | Method | None) -> GradientAveraging | None:
    if method is None:
        return None
    product = on_gradients(parsed_method(method))
    if product.warm_up is not None or product.exchange not in (Gather(), AllReduce()):
        raise ConfigError(
            f"{which} = {product} has an exchange of its own or a warm-up, and between shards pieces go straight to "
            "their owners; take a method that gathers messages, such as qsgd:bits=4"
        )
    return product


def _shard_group(model: ShardedModel) -> dist.ProcessGroup:
    meshes = {mesh_of(param) for param in model.params.values()}
    (mesh, *others) = meshes
    if others or mesh is None or mesh.ndim != 1:
        raise ConfigError(
            f"the model lies on {len(meshes)} meshes, or on one of several dimensions; compress_shards takes one that "
            'is sharded over one dimension, fully_shard(layer, mesh=mesh["shard"])'
        )
    return mesh.get_group()
