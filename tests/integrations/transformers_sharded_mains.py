"""Run by torchrun: a Trainer shards a model over two of four processes, and two replicas exchange.

Its arguments connect the processes, and Accelerate is told then that they are of a kind that it shards on, see
``accelerate_sharded_mains``.
"""

import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from accelerate.parallelism_config import ParallelismConfig
from accelerate.state import PartialState
from accelerate.utils import DistributedType
from sharded_models import METHOD, local, state_of
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainerCallback, TrainingArguments

from thinwire.errors import ConfigError
from thinwire.integrations.transformers import ThinwireCallback

STEPS, MIDDLE = 12, 6
HYBRID = {"dp_replicate_size": 2, "dp_shard_size": 2}


class Ending(TrainerCallback):
    """The losses, and what the handle remembers when training ends, before it is closed."""

    def __init__(self, wire: ThinwireCallback | None) -> None:
        self.wire = wire
        self.handle: dict[str, Any] = {}

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.wire is not None:
            self.handle = state_of(self.wire._active().handles[0])


def windows() -> list[dict[str, Tensor]]:
    tokens = torch.randint(32, (256, 8), generator=torch.Generator().manual_seed(5)).sort(1).values
    return [{"input_ids": each, "labels": each} for each in tokens]


def trainer_of(folder: Path, kind: str, is_hybrid: bool, resume: str | None) -> Trainer:
    arguments = TrainingArguments(
        str(folder), max_steps=STEPS, save_steps=MIDDLE, eval_strategy="steps", eval_steps=MIDDLE, logging_steps=1,
        per_device_train_batch_size=4, gradient_accumulation_steps=2, max_grad_norm=0.3, learning_rate=3e-3,
        use_cpu=True, dataloader_pin_memory=False, report_to="none", disable_tqdm=True, seed=1, fsdp=True,
        fsdp_config={"state_dict_type": kind, "transformer_layer_cls_to_wrap": ["GPT2Block"]},
        parallelism_config=ParallelismConfig(**HYBRID) if is_hybrid else None, resume_from_checkpoint=resume,
    )  # fmt: skip
    PartialState().distributed_type = DistributedType.MULTI_GPU
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=32, n_positions=8, n_embd=32, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0
    )  # fmt: skip
    return Trainer(GPT2LMHeadModel(config), arguments, train_dataset=windows(), eval_dataset=windows()[:32])


def fit(
    folder: Path, method: str | None, kind: str = "SHARDED_STATE_DICT", resume: str | None = None,
    is_hybrid: bool = True,
) -> dict[str, Any]:  # fmt: skip
    trainer = trainer_of(folder, kind, is_hybrid, resume)
    wire = None if method is None else ThinwireCallback(trainer, method, seed=3)
    ending = Ending(wire)
    trainer.add_callback(ending)
    if wire is not None:
        trainer.add_callback(wire)
    trainer.train(resume_from_checkpoint=resume)
    losses = [each["loss"] for each in trainer.state.log_history if "loss" in each]
    sent = 0 if wire is None else wire.message_bytes
    replicas = trainer.accelerator.parallelism_config.dp_replicate_size
    return {
        "model": local(trainer.model), "handle": ending.handle, "losses": losses, "bytes": sent, "replicas": replicas,
        "evaluated": trainer.evaluate()["eval_loss"],
    }  # fmt: skip


def resumed_run(folder: Path, kind: str) -> dict[str, Any]:
    found = {"whole": fit(folder, METHOD, kind)}
    torch.manual_seed(99)
    return {**found, "resumed": fit(folder, METHOD, kind, str(folder / f"checkpoint-{MIDDLE}"))}


def refusal(folder: Path, method: str, is_hybrid: bool) -> str:
    try:
        fit(folder, method, is_hybrid=is_hybrid)
    except ConfigError as error:
        return str(error)
    return "nothing"


def main(folder: str) -> None:
    place = Path(folder)
    found: dict[str, Any] = {
        "plain": fit(place / "plain", None),
        "sgd": fit(place / "sgd", "sgd"),
        "sharded": resumed_run(place / "sharded", "SHARDED_STATE_DICT"),
        "full": resumed_run(place / "full", "FULL_STATE_DICT"),
        "local steps": refusal(place / "local", "topk:density=5%,every=4", is_hybrid=True),
        "no replicas": refusal(place / "none", METHOD, is_hybrid=False),
    }
    torch.save(found, place / f"rank-{dist.get_rank()}.pt")


if __name__ == "__main__":
    main(sys.argv[1])
    dist.destroy_process_group()
