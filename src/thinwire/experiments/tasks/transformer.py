"""A small causal transformer over bytes, and the blocks of any."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_BYTES = 256


class Transformer(nn.Module):
    """Predicts the next byte at each position: int64 ``[b, t]`` to f32 ``[b, t, 256]``, ``t <= context``.

    Learned positions, normalisation before each part, biases in no linear map, output weights of their own.
    With the default sizes and a context of 128 it has 476,416 parameters.

    Args:
        context: the most positions.
        width: a multiple of ``num_heads``.
        num_layers: blocks of attention and perceptron.
        num_heads: attention heads.
        dropout: probability after the embedding and each part.
    """

    def __init__(
        self, *, context: int, width: int = 128, num_layers: int = 2, num_heads: int = 4, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.bytes = nn.Embedding(_BYTES, width)
        self.positions = nn.Parameter(torch.randn(context, width))
        self.dropout = dropout
        self.blocks = nn.ModuleList(Block(width, num_heads, dropout) for _ in range(num_layers))
        self.norm = nn.LayerNorm(width)
        self.scores = nn.Linear(width, _BYTES, bias=False)
        # Embeddings of size 1 and small last maps: plain SGD, which nothing rescales, then bears a learning
        # rate of 0.5. With small embeddings it diverges: the first normalisation magnifies their gradients.
        nn.init.normal_(self.scores.weight, std=0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        """Scores (logits) of the byte after each position."""
        x: Tensor = self.bytes(tokens) + self.positions[: tokens.shape[1]]  # [b, t, width]
        x = F.dropout(x, self.dropout, self.training) if self.dropout else x
        for block in self.blocks:
            x = block(x)
        scores: Tensor = self.scores(self.norm(x))
        return scores


class Block(nn.Module):
    """Causal self-attention, then a perceptron of four times the width, each added to its input.

    Args:
        width: a multiple of ``num_heads``.
        num_heads: attention heads.
        dropout: probability after each part.
        bias: whether the linear maps have biases.
        gelu: ``none`` for the exact one, ``tanh`` for what approximates it.
    """

    def __init__(
        self, width: int, num_heads: int, dropout: float = 0.0, *, bias: bool = False,
        gelu: Literal["none", "tanh"] = "none",
    ) -> None:  # fmt: skip
        super().__init__()
        self.num_heads = num_heads
        self.dropout = dropout
        self.gelu = gelu
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width, bias=bias)
        self.join = nn.Linear(width, width, bias=bias)
        self.norm2 = nn.LayerNorm(width)
        self.up = nn.Linear(width, 4 * width, bias=bias)
        self.down = nn.Linear(4 * width, width, bias=bias)
        nn.init.normal_(self.join.weight, std=0.02)
        nn.init.normal_(self.down.weight, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """``[b, t, width]`` to the same shape."""
        x = x + self._drop(self._attend(self.norm1(x)))
        return x + self._drop(self.down(F.gelu(self.up(self.norm2(x)), approximate=self.gelu)))

    def _attend(self, x: Tensor) -> Tensor:
        b, t, width = x.shape
        qkv: Tensor = self.qkv(x)
        # Each [b, heads, t, width / heads].
        q, k, v = qkv.view(b, t, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        joined: Tensor = self.join(mixed.transpose(1, 2).reshape(b, t, width))
        return joined

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training) if self.dropout else x
