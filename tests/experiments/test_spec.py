import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from thinwire.errors import ConfigError
from thinwire.experiments.settings import Setting
from thinwire.experiments.spec import Comparison, Run
from thinwire.network import Network

PLAIN = Comparison(
    methods=("sgd", "topk:density=1%"), task="digits", seeds=(0, 1), lrs=(0.1, 0.3), network=Network(1e6, 0.01),
    steps=10, tune_steps=5, evaluate_every=2, batch_size=4, target=0.5,
)  # fmt: skip


def test_a_comparison_goes_through_json() -> None:
    written = json.loads(json.dumps({**PLAIN.to_json(), "another": 1}))
    assert Comparison.from_json(written) == PLAIN
    assert Comparison.from_json(written).to_json() == PLAIN.to_json()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        *(({name: 0}, f"^{name.replace('_', ' ')} = 0 was given; it must be at least 1")
          for name in ("workers", "steps", "tune_steps", "evaluate_every", "batch_size")),
        *(({name: 10**400}, f"^{name.replace('_', ' ')} = a number of more than 20 digits .* at most 1,000,000,000,000")
          for name in ("workers", "steps", "tune_steps", "evaluate_every", "batch_size")),
        ({"seeds": (10**400,)}, "^a seed of more than 64 bits was given"),
        *(({name: ()}, f"^no {name} were given; at least one is needed") for name in ("methods", "seeds", "lrs")),
        ({"seeds": (1, 2, 1)}, "^seeds must differ from each other, got 1, 2, 1"),
        ({"methods": ("sgd", "sgd")}, "^methods must differ"),
        ({"methods": ("topk:k=1,every=2", " topk : k = 1 , every=2")}, "^methods must differ"),
        ({"lrs": (-0.1, 0.1)}, "^learning rates must be above 0 and finite, got -0.1"),
        ({"lrs": (0.0,)}, "^learning rates must be above 0"),
        ({"lrs": (math.nan,)}, "^learning rates must be above 0"),
        ({"lrs": (0.1, math.inf)}, "^learning rates must be above 0 and finite, got inf"),
        ({"target": math.nan}, "^a target of nan was given; it must be finite"),
    ],
)  # fmt: skip
def test_values_out_of_range_are_refused_and_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(PLAIN, **change)


def test_a_method_has_one_name_however_it_is_typed() -> None:
    assert replace(PLAIN, methods=(" topk: k =1 ,every= 2 ",)).methods == ("topk:k=1,every=2",)


def test_runs_have_names_of_their_own() -> None:
    methods = ("sgd", "topk:k=1e-2", "topk:k=1e+2", "topk:k=1", "topk:density=1%", "topk:density=1", "topk:k=1,every=2")
    runs = [
        Run(method, Setting(optimizer, options, lr), seed, purpose, 10)
        for method in methods
        for optimizer in ("sgd", "sgd:momentum=0.9", "sgd:momentum=0.99")
        for options in ("", "gamma=0.1", "gamma=0.1,every=2")
        for lr in (0.1, 0.10000001, 1.0, 1e-5)
        for seed in (0, 1)
        for purpose in ("tune", "final")
    ]
    names = {run.name for run in runs}
    assert len(names) == len(runs)
    assert not any(set(name) & set('/\\:*?"<>| ') for name in names)


def test_a_folder_of_data_is_any_path() -> None:
    assert replace(PLAIN, data=Path("there")) == replace(PLAIN, data="there")
    assert json.loads(json.dumps(replace(PLAIN, data=Path("there")).to_json()))["data"] == "there"
