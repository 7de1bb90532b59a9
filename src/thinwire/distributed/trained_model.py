"""What is true of a model in DDP is asked again at every step: which parameters are trained, and by whom."""

import warnings
import weakref
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from thinwire.distributed.buckets import BucketChannels
from thinwire.distributed.dense_policy import DensePolicy
from thinwire.distributed.hooked_model import refuse_unfit
from thinwire.distributed.reducer import Exchanger, TrainedParameters
from thinwire.distributed.starting_point import broadcast_parameters, model_terms
from thinwire.distributed.transport import Transport
from thinwire.errors import ConfigError
from thinwire.layout import Layout
from thinwire.methods import check_method
from thinwire.steps import bytes_of
from thinwire.worker.parameters import named_parameters


class TrainedModel:
    """The parameters of a DDP by name and by identity, those that its reducer has, and how they are exchanged.

    Args:
        model: with its reducer; it is not kept alive, since its reducer keeps the hook, and C++ hides that from the
            garbage collector.
        transport: to the other processes.
        policy: which parameters are sent in full.
        buckets: the memories.
    """

    def __init__(
        self, model: DistributedDataParallel, transport: Transport, policy: DensePolicy, buckets: BucketChannels
    ) -> None:
        self._model = weakref.ref(model)
        self._transport = transport
        self._policy = policy
        self._buckets = buckets
        self._trained = TrainedParameters(model)
        # What is written after this, and before the first step, may be weights that were loaded.
        self._first_versions: list[int] | None = [param._version for param in model.module.parameters()]
        self._take(named_parameters(model.module))
        self._check()

    @property
    def model(self) -> DistributedDataParallel | None:
        """The model, as long as the script keeps it."""
        return self._model()

    def keeps(self, params: Sequence[Tensor]) -> bool:
        """Whether a bucket of these can stay as it is until the next backward, and their means be written afterwards.

        Not where gradients are views of buckets; nor of tensors that are not contiguous, of which a bucket has the
        entries in another order; nor in a static graph, where nothing says which bucket of the first step is the last.
        """
        model = self._model()
        if model is None or model.gradient_as_bucket_view or model.static_graph:
            return False
        return all(param.is_contiguous() for param in params)

    @property
    def names(self) -> list[str]:
        """Of all parameters."""
        return list(self._params)

    def ids(self) -> dict[str, int]:
        """``id()`` of every parameter by its name."""
        return {name: id(param) for name, param in self._params.items()}

    def name_of(self, param: Tensor) -> str:
        """The parameter's name."""
        return self._names[id(param)]

    def differs(self, model: DistributedDataParallel) -> bool:
        """Whether layers were frozen, unfrozen or replaced, so that the model needs another reducer."""
        return self._trained.differ(model)

    def go_on_with_others(self, model: DistributedDataParallel, exchanger: Exchanger, step: int) -> None:
        """Exchange what is trained now: what joins begins with an empty memory, at process 0's values.

        Args:
            model: the model itself.
            exchanger: what its new reducer hands buckets to.
            step: which step follows.

        Raises:
            ConfigError: the processes do not train the same parameters from now on, or ones that cannot be exchanged.
        """
        refuse_unfit(model)
        # A process that has noticed no change is in an exchange by now: what it sends need not be text.
        mine = bytes_of(model_terms(model.module))
        if any(not torch.equal(other, mine) for other in self._transport.share_bytes(mine)):
            reason = (
                f"processes train different parameters from step {step} on: a layer was frozen, unfrozen or replaced "
                "on some of them only; do it on all of them, before the same forward pass"
            )
            self._transport.abort(reason)
            raise ConfigError(reason)
        now = named_parameters(model.module)
        gone = frozenset(name for name, param in self._params.items() if now.get(name) is not param)
        self._buckets.retrain(list(now), self._policy.dense_names(model.module), gone)
        self._take(now)
        self._check()
        joined = self._trained.take_over(model, exchanger)
        broadcast_parameters(self._transport, nn.ParameterList(joined))

    def take_loaded(self, module: nn.Module) -> None:
        """Before the first step: take process 0's weights if some process has loaded others meanwhile.

        Warns:
            UserWarning: weights were not equal on all processes.
        """
        if self._first_versions is None:
            return
        params = list(module.parameters())
        is_written = [param._version for param in params] != self._first_versions
        self._first_versions = None
        everyone = self._transport.share([float(is_written)])
        ranks = [rank for rank, (wrote,) in enumerate(everyone) if wrote]
        if ranks and broadcast_parameters(self._transport, nn.ParameterList(params)):
            warnings.warn(
                f"parameters were written after compress_ddp, by the processes {ranks}, and were not equal on all; all "
                "have taken those of process 0. Load weights before compress_ddp, or on every process",
                stacklevel=2,
            )

    def _take(self, named: dict[str, nn.Parameter]) -> None:
        self._params = named
        self._names = {id(param): name for name, param in named.items()}

    def _check(self) -> None:
        """Every part refuses what it cannot do before training, on the parameters as one bucket."""
        named = {name: param for name, param in self._params.items() if param.requires_grad}
        names = sorted(named, key=lambda name: name in self._buckets.dense)
        layout = Layout.of({name: named[name] for name in names})
        check_method(self._buckets.fitted(layout), layout)
