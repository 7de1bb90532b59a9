"""Seconds of a step on other links, without training there."""

from dataclasses import replace
from pathlib import Path

import pytest
import user_tasks

from thinwire.experiments.engines import SimulatedEngine
from thinwire.experiments.link_sweep import LINKS, sweep_links
from thinwire.experiments.session import Session
from thinwire.experiments.settings import Setting
from thinwire.experiments.spec import Comparison, Run
from thinwire.network import Network


@pytest.mark.parametrize(
    ("name", "period"), [("sgd", 1), ("local-sgd:every=3", 3), ("sparse-averaging:fragments=2", 2)]
)
def test_a_swept_link_takes_what_training_on_it_takes(name: str, period: int, tmp_path: Path) -> None:
    comparison = Comparison(
        methods=(name,), task="user_tasks:bowl", workers=3, lrs=(0.1,), steps=8, tune_steps=1, evaluate_every=4,
        batch_size=1, overlap="ddp", network=Network.parse("100Mbit,1ms"),
    )  # fmt: skip
    run = Run(name, Setting("sgd", "", 0.1), 0, "final", 8, (0.001, 0.002))
    swept = sweep_links(comparison, user_tasks.bowl(), [run], {})
    assert [each["network"] for each in swept] == list(LINKS)
    for each in swept:
        network = Network.parse(each["network"])
        engine = SimulatedEngine(3, network)
        session = Session(replace(comparison, network=network), run, user_tasks.bowl(), engine, tmp_path)
        session.train(0, period)
        begun_s = engine.seconds()
        session.train(period, 2 * period)
        assert each["seconds_per_step"] == {name: (engine.seconds() - begun_s) / period}
