"""Scripts that once trained wrongly in silence, hung or broke, in small; each with what is right."""

import functools
from typing import Any

import pytest
import reproduction_mains as mains
import torch

from thinwire.experiments.launch import launch


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("reproductions")
    launch(2, functools.partial(mains.everything, str(folder)))
    return [torch.load(folder / f"rank-{rank}.pt", weights_only=True) for rank in range(2)]


def alike(found: list[dict[str, Any]], name: str) -> bool:
    return all(torch.equal(one, other) for one, other in zip(found[0][name], found[1][name], strict=True))


def test_frozen_and_unused_layers_do_not_move(found: list[dict[str, Any]]) -> None:
    for each in found:
        for name, distance in each["frozen"].items():
            assert (distance > 0.0) == name.startswith("used"), (name, distance)


def test_a_layer_that_thaws_or_is_replaced_is_exchanged(found: list[dict[str, Any]]) -> None:
    assert alike(found, "unfrozen")
    assert alike(found, "replaced")


def test_values_that_should_be_common_and_are_not_are_refused_on_all(found: list[dict[str, Any]]) -> None:
    for each in found:
        assert each["replaced by layers that differ"].startswith(
            "ConfigError: the workers hold different values of parameters that join"
        )
        assert each["a frozen layer that differs"].startswith("DivergenceError: replicas have come apart")
        for name in ("sgd", "topk:density=1%", "signtopk:density=1%", "diloco:every=1"):
            assert each[f"loaded alone, {name}"].startswith("ConfigError: the workers have"), name


@pytest.mark.parametrize(
    "method", ["sgd", "topk:density=1%", "signtopk:density=1%", "diloco:every=1", "local-sgd:every=3"]
)
def test_loaded_weights_are_where_training_goes_on(method: str, found: list[dict[str, Any]]) -> None:
    for each in found:
        assert all(bool((value == 3.0).all()) for value in each[f"loaded, {method}"])


def test_the_mean_is_clipped_as_with_ddp(found: list[dict[str, Any]]) -> None:
    for each in found:
        assert each["clipped"] == pytest.approx((0.5**0.5, 0.5**0.5), rel=1e-5)


def test_the_end_of_training_is_published_or_said_to_be_missing(found: list[dict[str, Any]]) -> None:
    for each in found:
        is_untrained, warned = each["tail False"]
        assert is_untrained
        assert len(warned) == 2
        assert all("15 local steps" in text and "flush()" in text for text in warned)
        assert each["tail True"] == (False, [])


def test_a_closure_that_is_called_twice_is_refused(found: list[dict[str, Any]]) -> None:
    for each in found:
        assert each["closure called twice"].startswith("ConfigError: Twice calls its closure more than once")


@pytest.mark.parametrize("form", ["sharded False", "sharded True"])
def test_shards_of_the_same_processes_are_refused(form: str, found: list[dict[str, Any]]) -> None:
    for each in found:
        assert each[form].startswith("ConfigError")
        assert "sharded over processes [0, 1]" in each[form]


@pytest.mark.parametrize("form", ["itself", "compiled", "within", "around"])
def test_ddp_is_found_wherever_it_is(form: str, found: list[dict[str, Any]]) -> None:
    for each in found:
        assert each[f"ddp {form}"].startswith("ConfigError: the model is wrapped in DistributedDataParallel")


@pytest.mark.parametrize(
    ("case", "what"),
    [("transposed", "model"), ("wider", "model"), ("a layer more", "model"), ("bf16", "model"), ("seed", "seed"),
     ("guard", "guard"), ("clipping", "clip_grad_norm"), ("method", "method"), ("warn_if_slower", "warn_if_slower"),
     ("policy", "policy"), ("hook seed", "seed")],
)  # fmt: skip
def test_processes_that_differ_learn_in_what_within_seconds(case: str, what: str, found: list[dict[str, Any]]) -> None:
    for each in found:
        assert each[f"differing {case}"].startswith(f"ConfigError: the processes differ in {what}"), each
        assert each[f"differing {case}, seconds"] < 5.0


def test_a_report_may_be_one_processs_alone(found: list[dict[str, Any]]) -> None:
    assert alike(found, "reported")


def test_after_the_end_is_an_error(found: list[dict[str, Any]]) -> None:
    for each in found:
        assert "closed" in each["after the end"]
        assert each["after the end"].split(":")[0].endswith("Error")


def test_the_scripts_timeout_is_ours(found: list[dict[str, Any]]) -> None:
    first = found[0]
    assert first["silent peer"].startswith("WorkerError")
    assert "worker 1" in first["silent peer"]
    assert first["silent peer, seconds"] < 5.5
