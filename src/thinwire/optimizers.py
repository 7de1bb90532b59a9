"""Muon for a whole model, as one optimizer."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from thinwire.errors import ConfigError

_EPS = {"muon": 1e-7, "adamw": 1e-8}
"""What keeps a matrix of zeros, and a second moment of zero, from being divided by."""


class Muon(torch.optim.Optimizer):
    """``torch.optim.Muon`` on matrices and ``torch.optim.AdamW`` on all other parameters, as one optimizer.

    A matrix moves by ``lr s NS(momentum)``, NS the Newton-Schulz iteration that makes all singular values about 1, and
    ``s = 0.2 sqrt(max(rows, columns))``, with which a step has the size of one of AdamW (Liu et al. 2025), so that one
    learning rate serves both; without ``match_rms`` it is ``s = sqrt(max(1, rows / columns))`` (Jordan et al. 2024).
    Schedulers, parameter groups and :func:`thinwire.synchronize` see one optimizer; each group that is given becomes
    two, one of its matrices and one of the rest.

    Args:
        params: parameters, or dicts of groups, as any optimizer takes them.
        lr: learning rate.
        weight_decay: decoupled, of both.
        momentum: of matrices.
        nesterov: whether it is Nesterov's.
        ns_steps: iterations.
        match_rms: see above.
        matrices: the parameters that Muon steps; None: all of two dimensions. :func:`hidden_matrices` has those of a
            model for which Muon is meant.

    Raises:
        ConfigError: among the matrices is one that has not two dimensions, or torch is older than 2.9.
        ValueError: a number that torch refuses.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> optimizer = Muon(model.parameters(), lr=0.01, matrices=hidden_matrices(model))
        >>> model(torch.ones(3, 4)).sum().backward()
        >>> optimizer.step()
        >>> [sorted(optimizer.state[param]) for param in model[0].parameters()]
        [['momentum_buffer'], ['exp_avg', 'exp_avg_sq', 'step']]
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_steps: int = 5,
        match_rms: bool = True,
        matrices: Iterable[Tensor] | None = None,
    ) -> None:
        self._chosen = None if matrices is None else {id(each): each for each in matrices}
        for each in (self._chosen or {}).values():
            if each.ndim != 2:
                raise ConfigError(f"a parameter of shape {tuple(each.shape)} was given to Muon; it steps matrices only")
        self._parts = _parts()
        muon = _torch_muon()(
            [_stand_in(2)], lr=lr, weight_decay=weight_decay, momentum=momentum, nesterov=nesterov, ns_steps=ns_steps,
            adjust_lr_fn="match_rms_adamw" if match_rms else "original",
        )  # fmt: skip
        super().__init__(params, {**self._parts["adamw"].defaults, **muon.defaults, "rule": ""})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Parameters that are trained from now on: two groups, if there are matrices and others among them."""
        given = param_group["params"]
        listed = [given] if isinstance(given, Tensor) else list(given)
        for rule in ("muon", "adamw"):
            params = [each for each in listed if self._is_matrix(each) == (rule == "muon")]
            if params:
                super().add_param_group({"eps": _EPS[rule], **param_group, "params": params, "rule": rule})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """One step of both."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for rule, part in self._parts.items():
            part.param_groups = [group for group in self.param_groups if group["rule"] == rule]
            part.state = self.state
            part.step()
        return loss

    def __setstate__(self, state: dict[str, Any]) -> None:
        """After copying, unpickling or loading."""
        super().__setstate__(state)
        self._parts = _parts()
        self.__dict__.setdefault("_chosen", None)

    def _is_matrix(self, param: Any) -> bool:
        param = param[1] if isinstance(param, tuple) else param
        return param.ndim == 2 if self._chosen is None else id(param) in self._chosen


def hidden_matrices(model: nn.Module) -> list[Tensor]:
    """What Muon is meant for: the weights of linear maps between hidden layers.

    These are the weights of all ``nn.Linear`` but the model's last one, which makes its output, and but those that an
    ``nn.Embedding`` shares. Embeddings, positions, norms, biases and the output are AdamW's, as in the papers.

    Example:
        >>> model = nn.ModuleDict({"words": nn.Embedding(9, 4), "hidden": nn.Linear(4, 4), "out": nn.Linear(4, 9)})
        >>> [tuple(each.shape) for each in hidden_matrices(model)]
        [(4, 4)]
    """
    linear = [module.weight for module in model.modules() if isinstance(module, nn.Linear)]
    embedded = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    shares_output = bool(linear) and id(linear[-1]) in embedded
    hidden = linear if shares_output else linear[:-1]
    return [weight for weight in hidden if id(weight) not in embedded]


def _parts() -> dict[str, torch.optim.Optimizer]:
    """What steps each kind; groups and state are lent to them at each step."""
    return {"muon": _torch_muon()([_stand_in(2)]), "adamw": torch.optim.AdamW([_stand_in(1)])}


def _torch_muon() -> Any:
    found = getattr(torch.optim, "Muon", None)
    if found is None:
        raise ConfigError(f"torch {torch.__version__} has no Muon; install torch 2.9 or later, or take adamw")
    return found


def _stand_in(ndim: int) -> nn.Parameter:
    return nn.Parameter(torch.zeros([1] * ndim, dtype=torch.float32, device="cpu"))
