import pytest
import torch
from torch import nn

from thinwire.errors import ConfigError
from thinwire.experiments.optimizers import make_optimizer


def make(text: str) -> torch.optim.Optimizer:
    return make_optimizer(text, nn.ParameterList([nn.Parameter(torch.ones(3))]), lr=0.25)


@pytest.mark.parametrize(
    ("text", "kind", "options"),
    [
        ("sgd", torch.optim.SGD, {"momentum": 0, "nesterov": False}),
        ("SGD:momentum=0.9,nesterov=yes", torch.optim.SGD, {"momentum": 0.9, "nesterov": True}),
        ("AdamW:weight_decay=1e-3,amsgrad=no", torch.optim.AdamW, {"weight_decay": 1e-3, "amsgrad": False}),
        ("rmsprop:alpha=0.5,", torch.optim.RMSprop, {"alpha": 0.5}),
        ("adam:betas=0.9/0.95,eps=1e-6", torch.optim.Adam, {"betas": (0.9, 0.95), "eps": 1e-6}),
    ],
)
def test_names_and_options_are_those_of_torch(text: str, kind: type, options: dict[str, object]) -> None:
    optimizer = make(text)
    assert type(optimizer) is kind
    (group,) = optimizer.param_groups
    assert group["lr"] == 0.25
    assert {name: group[name] for name in options} == options


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sdg", r"^unknown optimizer 'sdg'; did you mean sgd\? Known: .*adamw"),
        ("", "^unknown optimizer ''"),
        ("lbfgs", "^unknown optimizer 'lbfgs'"),
        (
            "sgd:momentun=0.9",
            r"^sgd has no option 'momentun'; did you mean momentum\? Known: .*nesterov",
        ),
        ("sgd:momentum", "^in sgd, write each option once, as momentum=VALUE; got 'momentum'"),
        ("sgd:lr=1", "^sgd has no option 'lr'"),
        ("sgd:momentum=much", "^sgd: momentum=much cannot be read; write a number, yes or no"),
        ("sgd:momentum=", "^sgd: momentum= cannot be read"),
        ("adam:betas=0.9/", "^adam: betas=0.9/ cannot be read; .* several numbers as in betas=0.9/0.95"),
        ("adam:betas=0.9", "^the optimizer adam:betas=0.9 was refused"),
        ("adam:betas=0.9/2", "^the optimizer adam:betas=0.9/2 was refused by torch.optim: .*beta"),
        ("sgd:momentum=0.9/0.9", "^the optimizer sgd:momentum=0.9/0.9 was refused"),
        ("sgd:momentum=-1", "^the optimizer sgd:momentum=-1 was refused by torch.optim: .*momentum"),
        ("sgd:nesterov=yes", "^the optimizer sgd:nesterov=yes was refused by torch.optim: Nesterov"),
    ],
)
def test_what_cannot_be_is_refused_and_named(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make(text)
