"""How many entries the tensors of well-known models have, and lists like them of any length."""

import itertools
import re

from thinwire.errors import ConfigError

_UNITS = {"": 1, "k": 1_000, "m": 1_000_000}
_NEAR = 0.03


def resnet50_sizes() -> tuple[int, ...]:
    """The 161 parameters of ResNet-50 for 1000 classes, in order; 25,557,032 entries.

    Example:
        >>> len(resnet50_sizes()), sum(resnet50_sizes())
        (161, 25557032)
    """
    sizes = [3 * 64 * 49, 64, 64]
    inputs = 64
    for width, blocks in ((64, 3), (128, 4), (256, 6), (512, 3)):
        for block in range(blocks):
            for weights, outputs in (
                (inputs * width, width),
                (width * width * 9, width),
                (width * 4 * width, 4 * width),
            ):
                sizes += [weights, outputs, outputs]  # a convolution, then scale and shift of its normalisation
            if block == 0:
                sizes += [inputs * 4 * width, 4 * width, 4 * width]
            inputs = 4 * width
    return (*sizes, 2048 * 1000, 1000)


def gpt2_sizes() -> tuple[int, ...]:
    """The 148 parameters of GPT-2 (small), in order; 124,439,808 entries.

    Example:
        >>> len(gpt2_sizes()), sum(gpt2_sizes())
        (148, 124439808)
    """
    w = 768
    block = [w, w, 3 * w * w, 3 * w, w * w, w, w, w, 4 * w * w, 4 * w, 4 * w * w, w]
    return (50257 * w, 1024 * w, *block * 12, w, w)


def tensor_sizes(numel: int) -> tuple[int, ...]:
    """Sizes of the tensors of a model with about ``numel`` entries.

    A length within 3 % of ResNet-50 or GPT-2 means that model; any other gives ResNet-50's list, scaled, with exactly
    ``numel`` entries.

    Example:
        >>> sum(tensor_sizes(25_000_000)), sum(tensor_sizes(1000))
        (25557032, 1000)
    """
    for sizes in (resnet50_sizes(), gpt2_sizes()):
        if abs(numel - sum(sizes)) <= _NEAR * sum(sizes):
            return sizes
    sizes = resnet50_sizes()
    total, ends, passed = sum(sizes), [0], 0
    for size in sizes:
        passed += size
        ends.append(passed * numel // total)
    return tuple(stop - start for start, stop in itertools.pairwise(ends) if stop > start)


def read_numel(text: str) -> int:
    """``1M``, ``25M``, ``500k`` or plain digits.

    Raises:
        ConfigError: anything else, or less than 1000.

    Example:
        >>> read_numel("1.5M")
        1500000
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([kKmM]?)", text.strip())
    if found is None:
        raise ConfigError(f"{text!r} is not a number of entries; write 1M, 25M, 124M, 500k or digits")
    numel = int(float(found[1]) * _UNITS[found[2].lower()])
    if not 1000 <= numel <= 2_000_000_000:
        raise ConfigError(f"{numel} entries were asked for; a bench takes 1000 to 2000M")
    return numel
