"""``gpt``: a decoder-only transformer of GPT-2's shapes, up to its 124 million parameters and beyond."""

import math
import sysconfig
from functools import partial
from pathlib import Path

import torch.nn.functional as F
from torch import Tensor, nn

from thinwire.errors import ConfigError
from thinwire.experiments.tasks.byte_pairs import tokenised
from thinwire.experiments.tasks.language_model import LanguageModelTask, file_of_each, spread, windows_of
from thinwire.experiments.tasks.text_files import DistinctTexts, all_files, python_sources, read_splits
from thinwire.experiments.tasks.transformer import Block
from thinwire.files import StrPath

HEAD_WIDTH = 64
"""Of GPT-2, in all its sizes."""
_EVALUATION_TOKENS = 32_768
_MIN_BYTES = 100_000
_STD = 0.02


class GPT(nn.Module):
    """Predicts the next token at each position: int64 ``[b, t]`` to f32 ``[b, t, vocabulary]``, ``t <= context``.

    Radford et al. 2019: learned positions, normalisation before each part, GELU (by tanh), biases, and the embedding
    once more as the map to scores. Weights are normal with standard deviation .02, those that are added to what came
    before with .02 over the square root of their number; biases are 0.

    Args:
        vocabulary: number of tokens.
        context: the most positions.
        width: a multiple of ``num_heads``.
        num_layers: blocks of attention and perceptron.
        num_heads: attention heads.

    Example:
        >>> import torch
        >>> with torch.device("meta"):
        ...     model = GPT(vocabulary=50_257, context=1024, width=768, num_layers=12, num_heads=12)
        >>> f"{sum(param.numel() for param in model.parameters()):,}"
        '124,439,808'
    """

    def __init__(self, *, vocabulary: int, context: int, width: int, num_layers: int, num_heads: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(context, width)
        self.blocks = nn.ModuleList(Block(width, num_heads, bias=True, gelu="tanh") for _ in range(num_layers))
        self.norm = nn.LayerNorm(width)
        for name, param in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(param)
            elif param.ndim == 2:
                is_added = name.endswith(("join.weight", "down.weight"))
                nn.init.normal_(param, std=_STD / math.sqrt(2 * num_layers) if is_added else _STD)

    def forward(self, tokens: Tensor) -> Tensor:
        """Scores (logits) of the token after each position."""
        x: Tensor = self.tokens(tokens) + self.positions.weight[: tokens.shape[1]]  # [b, t, width]
        for block in self.blocks:
            x = block(x)
        return F.linear(self.norm(x), self.tokens.weight)


def gpt(
    data: StrPath | None = None,
    *,
    layers: int = 4,
    width: int = 128,
    heads: int | None = None,
    context: int = 128,
    vocabulary: int = 4096,
    megabytes: int = 12,
) -> LanguageModelTask:
    """A transformer of GPT-2's shapes on text, with a byte-pair vocabulary that is trained on the training text.

    The text is the interpreter's own standard library as for ``stdlib-lm``, or what a folder has of text files in
    UTF-8, packed ones (``.gz``) too, in the order of their paths. A hash of its path puts each file into training
    (about 90 %), validation or test (about 5 % each). Evaluation reads 32,768 tokens spread evenly over the held-out
    text. The metric is bits per byte of text, which compares with other vocabularies and with bytes; the end of each
    file is predicted too. Nothing is downloaded; the tokens are kept, see
    :func:`thinwire.experiments.tasks.byte_pairs.tokenised`.

    GPT-2 of 124 million parameters is ``layers=12,width=768,context=1024,vocabulary=50257``.

    Args:
        data: a folder of text files, such as Debian's ``/usr/share/doc``; None: the standard library.
        layers: blocks of attention and perceptron.
        width: a multiple of the heads.
        heads: attention heads; None: one for each 64 of the width, as in GPT-2.
        context: tokens that the model sees.
        vocabulary: tokens, 257 or more. If the text is too short for so many, some never occur; the model has them.
        megabytes: of text that are read at most.

    Raises:
        ConfigError: tokenizers is not installed, an argument is out of range, or there is too little text.
    """
    heads = max(1, width // HEAD_WIDTH) if heads is None else heads
    if min(layers, width, heads, context, megabytes) < 1 or width % heads:
        raise ConfigError(
            f"gpt: layers={layers},width={width},heads={heads},context={context},megabytes={megabytes} was given; each "
            "is at least 1, and the width a multiple of the heads"
        )
    root = Path(sysconfig.get_path("stdlib") if data is None else data)
    names = python_sources(root) if data is None else all_files(root)
    splits = read_splits(root, names, 1_000_000 * megabytes, DistinctTexts())
    num_bytes = sum(len(text) for files in splits.values() for text in files)
    if num_bytes < _MIN_BYTES:
        raise ConfigError(
            f"gpt found {num_bytes:,} bytes of text in {root}, and needs {_MIN_BYTES:,}: files in UTF-8, plain or .gz, "
            f"of which it reads the first {megabytes} MB; give --data DIR, a folder that has more"
        )
    tokens = tokenised(splits, vocabulary)
    short = [name for name, part in tokens.splits.items() if len(part) <= context]
    if short:
        raise ConfigError(f"{root} has no {context + 1} tokens for {' and '.join(short)}; lower the context.")
    windows = {name: windows_of(part, context) for name, part in tokens.splits.items()}
    count = max(1, _EVALUATION_TOKENS // context)
    return LanguageModelTask(
        name=f"gpt:layers={layers},width={width},heads={heads},context={context},vocabulary={vocabulary}",
        windows=windows["train"],
        labels=file_of_each(tokens.lengths["train"], len(windows["train"]), context),
        validation=spread(windows["validation"], count),
        test=spread(windows["test"], count),
        token_num_bytes=tokens.num_bytes,
        build=partial(GPT, vocabulary=vocabulary, context=context, width=width, num_layers=layers, num_heads=heads),
        batch_size=8,
        learning_rates=(0.03, 0.1, 0.3, 1.0),
    )
