"""ResNet-18, for small and for large images."""

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

Norm = Literal["group", "batch"]
_GROUPS = 32
"""As many as Wu and He 2018 recommend; of fewer channels each is a group."""


class ResNet18(nn.Module):
    """He et al. 2015, Table 1: f32 ``[b, channels, height, width]`` to scores ``[b, num_classes]``.

    Small images (up to 64 pixels) begin with a 3x3 convolution, as in its section 4.2, large ones with 7x7 of stride 2
    and a pooling. Of three channels and 10 small classes it has 11,173,962 parameters, of 1000 large ones 11,689,512.

    Args:
        channels: of an image.
        num_classes: what is told apart.
        small: whether images are small.
        norm: ``group``: an image is normalised by itself, so that a worker's result does not depend on what else is in
            its batch, and there are no buffers. ``batch``: by its batch in training and by running statistics in
            evaluation. These are buffers, which are never exchanged: worker 0's are evaluated, and where workers have
            unlike data that costs accuracy (Hsieh et al. 2020).
        width: channels of the first stage.
    """

    def __init__(self, *, channels: int, num_classes: int, small: bool, norm: Norm = "group", width: int = 64) -> None:
        super().__init__()
        first = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        if not small:
            first = nn.Conv2d(channels, width, 7, stride=2, padding=3, bias=False)
        stem = [first, _norm(norm, width), nn.ReLU()]
        self.stem = nn.Sequential(*stem if small else [*stem, nn.MaxPool2d(3, stride=2, padding=1)])
        stages, before = [], width
        for number in range(4):
            after = width << number
            stages += [_Block(before, after, 1 if number == 0 else 2, norm), _Block(after, after, 1, norm)]
            before = after
        self.stages = nn.Sequential(*stages)
        self.scores = nn.Linear(before, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Scores (logits) of every class."""
        scores: Tensor = self.scores(self.stages(self.stem(x)).mean((2, 3)))
        return scores


class _Block(nn.Module):
    """Two convolutions, added to their input, which a 1x1 convolution brings to their shape if need be."""

    def __init__(self, before: int, after: int, stride: int, norm: Norm) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False)
        self.norm1 = _norm(norm, after)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.norm2 = _norm(norm, after)
        self.short: nn.Module = nn.Identity()
        if stride > 1 or before != after:
            self.short = nn.Sequential(nn.Conv2d(before, after, 1, stride=stride, bias=False), _norm(norm, after))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        return F.relu(y + self.short(x))


def _norm(norm: Norm, channels: int) -> nn.Module:
    return nn.BatchNorm2d(channels) if norm == "batch" else nn.GroupNorm(min(_GROUPS, channels), channels)
