from pathlib import Path

import pytest
import torch

from thinwire.errors import ConfigError
from thinwire.experiments.recorder import Recorder
from thinwire.experiments.recording import RecordingPlan
from thinwire.experiments.tasks import load_task
from thinwire.frontier import make_input


@pytest.mark.parametrize("name", ["gaussian", "lognormal", "student"])
def test_inputs_are_always_the_same_and_clients_share_the_signal(name: str) -> None:
    data, again = (make_input(name, 1000, num_noises=40) for _ in range(2))
    assert torch.equal(data.signal, again.signal)
    assert torch.equal(data.clients(1)[0], data.signal)
    assert torch.equal(data.clients(8), data.clients(32)[:8])
    assert torch.equal(data.clients(8) - data.signal, (data.signal + data.noise[:8]) - data.signal)
    with pytest.raises(ConfigError):
        data.clients(41)


def test_a_recording_is_an_input(tmp_path: Path) -> None:
    file = tmp_path / "gradients.pt"
    task = load_task("digits")
    plan = RecordingPlan(method="sgd", workers=1, steps=4, every=1, lr=0.1, batch_size=16)
    recorder = Recorder(plan, task)
    recorder.run(lambda step: None)
    recorder.recording().save(file)
    whole = make_input(str(file), 10**9)
    assert torch.equal(whole.signal, recorder.recording().gradient.vectors[2])
    part = make_input(str(file), 2048)
    assert part.numel == 2048
    assert torch.equal(part.signal[:1024], whole.signal[:1024])
    assert torch.equal(part.signal[1024:], whole.signal[-1024:])


@pytest.mark.parametrize(("name", "numel"), [("uniform", 10), ("gaussian", 0), (__file__, 10)])
def test_what_is_no_input_is_refused(name: str, numel: int) -> None:
    with pytest.raises(ConfigError):
        make_input(name, numel)
