"""What threads and streams of a device do in which order, on the pretended one, which knows of races."""

from typing import Any, cast

import pytest
import torch
from place import DEVICE, IS_CUDA, host, working
from pretended_streams import ORDER, Event, current_stream

from thinwire.distributed.guard import tensor_hashes
from thinwire.distributed.lane import Lane
from thinwire.distributed.pipeline import Pipeline
from thinwire.distributed.starting_point import digest
from thinwire.distributed.transport import Transport
from thinwire.staging import catch_up, each_on_host, in_groups, stage
from thinwire.steps import AllReduce, Op, Steps, all_reduce
from thinwire.worker.trained import checksum

if IS_CUDA:
    pytest.skip("streams of CUDA say nothing of their order", allow_module_level=True)


class Fabric:
    """A transport whose sums are made on the device, as NCCL's are: twice what one process has, of itself."""

    def __init__(self) -> None:
        self.streams: list[int] = []

    def placed(self, op: Op) -> Op:
        return op

    def perform(self, op: Op) -> Any:
        assert isinstance(op, AllReduce)
        self.streams.append(current_stream().number)
        total = torch.empty_like(op.tensor)
        total.copy_(op.tensor).mul_(2)
        return total

    def answer(self, op: Op, found: Any) -> Any:
        return found

    def flush(self) -> None:
        pass


def summed(x: torch.Tensor) -> Steps[torch.Tensor]:
    x.add_(1)
    mean = yield from all_reduce(x, 1)
    return mean.mul_(3)


def test_sums_on_the_device_wait_for_what_is_summed_and_are_waited_for() -> None:
    """They are made in another thread than what comes before and after; all of it is one stream's."""
    with working():
        transport, lane = Fabric(), Lane(DEVICE)
        pipeline = Pipeline(cast(Transport, transport), lane)
        gradients = [torch.full((5,), float(number), device=DEVICE) for number in range(3)]
        found = [pipeline.submit(summed(x), lambda mean: mean) for x in gradients]
        means = [each.result(30) for each in found]
        pipeline.close()
        lane.join()
        assert [host(mean + 0).tolist() for mean in means] == [[6.0 * (number + 1)] * 5 for number in range(3)]
        assert len(set(transport.streams)) == 1
        assert transport.streams[0] != current_stream().number
        assert ORDER.races == []


def test_events_name_their_stream() -> None:
    """Else they would be recorded on the thread's current device, which may be another than the tensors'."""
    with pytest.raises(TypeError):
        Event().record()  # type: ignore[call-arg]
    with working():
        assert stage([torch.ones(2, device=DEVICE)]).wait()[0].tolist() == [1.0, 1.0]
        assert Lane(DEVICE).hand_over() is not None


def test_hashes_are_the_cpus_and_tensors_are_waited_for_together() -> None:
    table = torch.arange(6.0).view(2, 3).T
    tensors = [table, torch.ones(4, dtype=torch.bfloat16), torch.zeros(0), torch.tensor(3)]
    with working():
        there = [tensor.to(DEVICE) for tensor in tensors]
        ORDER.waits.clear()
        assert tensor_hashes(there).tolist() == tensor_hashes(tensors).tolist()
        assert ORDER.waits == ["Event.synchronize"]
        assert [digest(each) for each in each_on_host(there)] == [digest(tensor) for tensor in tensors]
        named, on_host = ({str(place): each for place, each in enumerate(some)} for some in (there, tensors))
        assert checksum(named) == checksum(on_host)
        catch_up(DEVICE)


def test_of_a_long_model_a_part_is_on_the_host_at_a_time() -> None:
    tensors = [torch.empty(size, dtype=torch.uint8, device="meta") for size in (1 << 25, 1 << 25, 1, 1 << 27, 5)]
    assert [len(group) for group in in_groups(tensors)] == [2, 2, 1]
