"""What the integrations share, in one process: what a model shows when, and which checkpoints are refused."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from thinwire.errors import ConfigError
from thinwire.integrations.attachment import Attachment, parsed, wants_ddp

pytestmark = [
    pytest.mark.filterwarnings("ignore:. local step:UserWarning"),  # they end between two exchanges on purpose
    pytest.mark.filterwarnings("ignore::thinwire.NothingCompressed"),
]


@pytest.fixture(autouse=True)
def alone(tmp_path: Path) -> Iterator[None]:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meeting", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def make(num_steps: int = 0) -> Attachment:
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    attachment = Attachment(model, [optimizer], parsed("topk:k=1,every=4"), seed=0)
    for _ in range(num_steps):
        optimizer.zero_grad()
        model(torch.randn(5, 3)).square().mean().backward()
        optimizer.step()
    return attachment


def test_the_shared_parameters_are_shown_on_demand_and_kept_at_the_end() -> None:
    attachment = make(num_steps=6)  # two local steps after the exchange
    weight = attachment.model.get_parameter("weight")
    own = weight.detach().clone()
    common = attachment.shared_state()["weight"]
    assert torch.equal(weight, own)
    assert not torch.equal(common, own)
    attachment.show_shared()
    attachment.show_shared()
    assert torch.equal(weight, common)
    assert torch.equal(attachment.shared_state()["weight"], common)
    attachment.show_own()
    assert torch.equal(weight, own)
    attachment.keep_shared()
    attachment.close()
    assert torch.equal(weight, common)


def test_what_is_saved_while_the_shared_parameters_are_shown_is_the_own(tmp_path: Path) -> None:
    attachment = make(num_steps=6)
    own = attachment.model.get_parameter("weight").detach().clone()
    attachment.show_shared()
    attachment.save(tmp_path / "x", step=6)
    attachment.close()
    other = make()
    other.load(tmp_path / "x", step=6)
    assert torch.equal(other.model.get_parameter("weight"), own)
    assert other.message_bytes == attachment.message_bytes > 0
    other.close()


def test_a_checkpoint_of_another_step_or_without_a_complete_state_is_refused(tmp_path: Path) -> None:
    attachment = make(num_steps=6)
    with pytest.raises(ConfigError, match="no complete state of thinwire"):
        attachment.load(tmp_path / "x")
    attachment.save(tmp_path / "x", step=6)
    with pytest.raises(ConfigError, match="no state of step 5, only of step 6"):
        attachment.load(tmp_path / "x", step=5)
    # A run that began again saves under the same name at an earlier step: the later one is no more.
    attachment.save(tmp_path / "x", step=3)
    attachment.load(tmp_path / "x", step=3)
    attachment.close()


def test_methods_are_given_to_ddp_where_they_overlap_and_refused_with_a_server() -> None:
    assert wants_ddp(parsed("topk:k=1"))
    assert not wants_ddp(parsed("topk:k=1,every=4"))
    with pytest.raises(ConfigError, match="server"):
        parsed("qsparse-async:density=10%,levels=7,every=4")


def test_ddp_is_found_in_a_model_that_a_framework_has_compiled() -> None:
    wrapped = DistributedDataParallel(nn.Linear(3, 2))
    model: nn.Module = torch.compile(wrapped, backend="eager")  # type: ignore[assignment]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    attachment = Attachment(model, [optimizer], parsed("topk:k=1"), seed=0, warn_if_slower=False)
    assert attachment.model is wrapped.module
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    assert attachment.message_bytes > 0
    attachment.close()
