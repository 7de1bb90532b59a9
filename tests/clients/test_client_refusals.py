"""What cannot be with clients that take turns is refused before anything is trained, by what it is made of."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from client_runs import Springs, session
from command_line import check_refused

from thinwire.errors import ConfigError
from thinwire.exchanges import ParameterServer
from thinwire.experiments.clients.fitting import check_common, check_fits
from thinwire.experiments.clients.setting import Clients
from thinwire.experiments.spec import Comparison
from thinwire.layout import Layout
from thinwire.methods import CATALOG, GradientAveraging, ModelAveraging, check_method, parse_method
from thinwire.methods.participation import Independent, Uniform

LAYOUT = Layout(("weight", "bias"), (torch.Size([8, 16]), torch.Size([8])))
CLIENTS = Clients(count=12, participation=Uniform(4))


def refusal(method: str, clients: Clients = CLIENTS) -> str:
    parsed = parse_method(method)
    try:
        check_fits(parsed, LAYOUT, clients)
    except ConfigError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("method", "reason"),
    [
        ("choco", "mean of its own"),
        ("qsparse-async:density=10%,every=2", "a clock"),
        ("easgd:every=2", "models of their own"),
        ("streaming-diloco:every=1,fragments=3,delay=2", "fragments = 3 and delay = 2"),
        ("powersgd", "keeps directions"),
        ("double-squeeze", "keeps left"),
    ],
)
def test_what_is_bound_to_a_place_is_refused(method: str, reason: str) -> None:
    assert reason in refusal(method)
    assert "--clients" in refusal(method)


def test_a_number_that_is_drawn_is_tried_with_few() -> None:
    fourth = GradientAveraging(exchange=ParameterServer(server=3))
    check_fits(fourth, LAYOUT, Clients(count=12, participation=Uniform(6)))
    with pytest.raises(ConfigError, match="worker 3 is to be the server, but there are workers 0 to 0"):
        check_fits(fourth, LAYOUT, Clients(count=12, participation=Independent(0.5)))


@pytest.mark.parametrize("row", CATALOG, ids=lambda row: str(row.name))
def test_every_row_trains_or_is_refused_with_words(row: Any, tmp_path: Path) -> None:
    clients = Clients(count=12, participation=Uniform(4))
    parsed = parse_method(row.name)
    optimizer = "adam" if isinstance(parsed, ModelAveraging) and parsed.states else "sgd"
    layout = Layout.of({name: param.detach() for name, param in Springs().model(0).named_parameters()})
    try:
        check_method(parsed, layout)
        check_fits(parsed, layout, clients)
    except ConfigError as error:
        with pytest.raises(ConfigError, match=re.escape(str(error))):
            session(row.name, clients, tmp_path, optimizer=optimizer)
        return
    trained = session(row.name, clients, tmp_path, steps=8, optimizer=optimizer)
    records = list(trained.records())
    assert all(record["value"] is not None for record in records)
    assert records[-1]["clients"] == 12


def test_what_an_update_keeps_apart_is_found_after_the_first_exchange(tmp_path: Path) -> None:
    trained = session("topk:k=2,every=2", CLIENTS, tmp_path)
    trained.train(0, 2)
    workers = [seat.worker for seat in trained.crew.seats] if trained.crew else []
    check_common(workers)
    workers[1].channels[0].update["reference"][0] += 1.0
    with pytest.raises(ConfigError, match="keeps 'reference' for each worker apart"):
        check_common(workers)


def comparison(**changed: Any) -> Comparison:
    given: dict[str, Any] = {
        "methods": ("sgd",), "task": "digits", "workers": 4, "clients": CLIENTS, "lrs": (0.1,), "steps": 2,
        "tune_steps": 2, "evaluate_every": 1, "batch_size": 1,
    }  # fmt: skip
    return Comparison(**{**given, **changed})


def test_processes_keep_their_places() -> None:
    with pytest.raises(ConfigError, match="--clients was given with --engine processes"):
        comparison(engine="processes")


def test_workers_are_those_who_take_part() -> None:
    with pytest.raises(ConfigError, match="8 workers were given, and 4 clients take part"):
        comparison(workers=8)


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (["--clients", "10", "--per-round", "11"], ["--clients 10 --per-round 11", "1 to all of them"]),
        (["--clients", "10"], ["--clients was given", "both --clients and --per-round"]),
        (["--per-round", "2"], ["--per-round was given", "both --clients and --per-round"]),
        (["--memory-of-absent", "keep"], ["--memory-of-absent was given", "both"]),
        (["--clients", "10", "--per-round", "2", "--memory-of-absent", "drop"], ["drop:N"]),
        (["--clients", "1000", "--per-round", "2"], ["each of 1000 clients has 1 of the", "or fewer clients"]),
        (["--clients", "10", "--per-round", "2", "--engine", "processes"], ["--engine processes", "keeps its place"]),
        (["--clients", "10", "--per-round", "2", "--network", "1Mbit,1ms;11:1Mbit,2ms"], ["a link", "worker 11"]),
        (["--sharding", "dirichlet"], ["dirichlet:alpha=0.3"]),
        (["--sharding", "dirichlet:alpha=0"], ["alpha must be above 0"]),
        (["--sharding", "skewed"], ["unknown sharding 'skewed'"]),
    ],
    ids=lambda value: "_".join(value) if isinstance(value, list) else "",
)
def test_a_slip_of_the_hand_is_told(
    options: Sequence[str], parts: Sequence[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:  # fmt: skip
    arguments = ["compare", "sgd", "--task", "digits", "--out", str(tmp_path / "out"), "--steps", "2", *options]
    check_refused(monkeypatch, capsys, arguments, parts)
    assert not (tmp_path / "out").exists()


def test_examples_are_dealt_out_to_clients(tmp_path: Path) -> None:
    trained = session("sgd", CLIENTS, tmp_path, Springs())
    assert len(trained.batches) == 12
    assert sorted(torch.cat([each.shard for each in trained.batches]).tolist()) == list(range(48))
