"""A Transformers Trainer over a thin wire: one callback. Run it, and go on from where it was, with

torchrun --standalone --nproc-per-node 2 examples/transformers_text.py --steps 60
torchrun --standalone --nproc-per-node 2 examples/transformers_text.py --resume
"""

import argparse
import math
import sysconfig
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments, set_seed

from thinwire.integrations.transformers import ThinwireCallback

CONTEXT = 64


def windows_of_text(num_bytes: int = 400_000) -> list[dict[str, Tensor]]:
    """Bytes of Python's own standard library, in windows."""
    files = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))
    text = b"".join(file.read_bytes() for file in files)[:num_bytes]
    windows = torch.tensor(list(text)).split(CONTEXT)[:-1]
    return [{"input_ids": window, "labels": window} for window in windows]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--method", default="signtopk:density=2%,every=4")
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--save-steps", type=int, default=30)
    parser.add_argument("--folder", default="runs/transformers_text")
    parser.add_argument("--resume", nargs="?", const=True, help="from the newest checkpoint, or from this one")
    given = parser.parse_args(arguments)

    set_seed(0)
    config = GPT2Config(
        vocab_size=256, n_positions=CONTEXT, n_embd=64, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0
    )
    windows = windows_of_text()
    trainer = Trainer(
        GPT2LMHeadModel(config),
        TrainingArguments(
            given.folder,
            max_steps=given.steps,
            save_steps=given.save_steps,
            eval_strategy="steps",
            eval_steps=given.save_steps,
            per_device_train_batch_size=16,
            per_device_eval_batch_size=64,
            learning_rate=3e-3,
            use_cpu=True,
            dataloader_pin_memory=False,
            report_to="none",
            disable_tqdm=True,
        ),
        train_dataset=windows[:-256],
        eval_dataset=windows[-256:],
    )
    wire = ThinwireCallback(trainer, given.method)
    trainer.add_callback(wire)  # the one line
    trainer.train(resume_from_checkpoint=given.resume)

    bits = trainer.evaluate()["eval_loss"] / math.log(2)
    if trainer.is_world_process_zero():
        dense = 4 * given.steps * trainer.model.num_parameters()
        print(
            f"{given.method}: {bits:.3f} bits per byte, {wire.message_bytes:,} message bytes; "
            f"dense gradients: {dense:,}"
        )


if __name__ == "__main__":
    main()
    dist.destroy_process_group()
