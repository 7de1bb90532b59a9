"""One-parameter families of configurations, derived from the fields of the registered compressors.

A field that sets how much is sent (``density``, ``bits``, ``levels``, ...) becomes the family's knob. Every combination
of the others (switches, literals, nested compressors) is a family of its own. A compressor whose fields are not known
here has the one family of its default instance.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from thinwire.compressors import Compressor, TopK
from thinwire.errors import ConfigError
from thinwire.frontier.configurations import Configuration, describe, fields_of

Knob: TypeAlias = float | None

_DENSITIES = tuple(2.0 ** (-half / 2) for half in range(26, -1, -1))
_LEVELS = (1, 2, 3, 5, 7, 11, 15, 22, 31, 45, 63, 91, 127, 255)
KNOBS: dict[str, tuple[float, ...]] = {
    "density": _DENSITIES,
    "variance": tuple(2.0 ** (power / 2) for power in range(-8, 21)),
    "bits": (0.03, 0.06, 0.12, 0.25, 0.5, 0.75, 1, 1.5, 2, 2.5, 3, 4, 5, 6, 8),
    "levels": _LEVELS,
    "rank": (1, 2, 3, 4, 6, 8, 12, 16, 24, 32),
    "k": tuple(2**power for power in range(15)),
}
"""Values of a field that is a knob; a class has at most one, the first of these that it has."""
FEW: dict[str, tuple[float, ...]] = {"levels": (1, 2, 3, 5, 7, 11, 15, 31, 127), "bits": (1, 1.5, 2, 2.5, 3, 4, 6)}
"""Values of a knob of a compressor that is nested in another."""
VARIED: dict[str, tuple[Any, ...]] = {"clip": (None, 2.5)}
"""Values of an optional field that changes what an operator is."""
FIXED = frozenset({"shared", "resample"})
"""Switches that do not change the error of a single message."""
_NUM_SECONDS = 4  # of the nested compressors that are tried as a second one
_NUM_VALUES = 8  # of those that are tried in all sparsifiers
_INNER = ("EDEN", "GSpar", "KLevel", "QSGD", "SharedSeedRandK", "Sign", "TopK")  # what wrappers are tried around
CHUNKS = (None, 4096, 512, 64)


@dataclass(frozen=True, slots=True, eq=False)
class OperatorFamily:
    """Configurations along one knob.

    Args:
        operator: name of the outermost compressor.
        knobs: values to begin with, ascending; ``(None,)`` for a single configuration.
        is_continuous: values between two knobs are legal, else whole numbers between them are.
        make: the configuration at a knob, or none where the compressor refuses it.
        is_plain: the compressor alone, without a choice of nested ones.
        is_sparse: the knob is the share of entries that are sent.
    """

    operator: str
    knobs: tuple[Knob, ...]
    is_continuous: bool
    make: Callable[[Knob], Configuration | None]
    is_plain: bool = True
    is_sparse: bool = False

    def between(self, low: float, high: float) -> float | None:
        """A knob strictly between two others, or none."""
        if self.is_continuous:
            middle = (low * high) ** 0.5
            return middle if low < middle < high and high / low > 1.0005 else None
        middle = int(low + high) // 2
        return middle if low < middle < high else None


@dataclass(frozen=True, slots=True)
class Shape:
    """What the fields of a compressor's class allow."""

    cls: type
    knob: str | None
    is_continuous: bool
    choices: dict[str, tuple[Any, ...]]
    nested: tuple[str, ...]
    required: frozenset[str]

    @staticmethod
    def of(cls: type) -> "Shape":
        """Read the annotations of the class."""
        fields = {field.name: field for field in fields_of(cls)}
        knob = next((name for name in KNOBS if name in fields and fields[name].takes & {int, float}), None)
        choices = {name: VARIED.get(name, field.choices) for name, field in fields.items() if name not in FIXED}
        return Shape(
            cls,
            knob,
            knob not in (None, "k") and float in fields[knob or ""].takes,
            {name: values for name, values in choices.items() if values and name != knob},
            tuple(name for name, field in fields.items() if field.is_nested),
            frozenset(name for name, field in fields.items() if field.is_required),
        )

    @property
    def needs_nested(self) -> bool:
        """Whether there is no instance without another compressor."""
        return not self.required.isdisjoint(self.nested)

    def variants(self, *, few: bool = False) -> list[dict[str, Any]]:
        """Every combination of the switches and literals; of the switches alone, with the tightest coding, if few."""
        choices = self.choices
        if few:
            tight = {"coding": ("entropy",)}
            choices = {
                name: tight.get(name, values) for name, values in choices.items()
                if name in tight or bool in map(type, values) or name in self.required
            }  # fmt: skip
        return [dict(zip(choices, values, strict=True)) for values in itertools.product(*choices.values())]


def plain_families(cls: type, chunks: Sequence[int | None] = CHUNKS) -> list[OperatorFamily]:
    """The families of a class with its own default for what is nested; none if it needs a nested compressor."""
    shape = Shape.of(cls)
    if shape.needs_nested:
        return []
    # What keeps few entries keeps them best where it may choose among all.
    cuts = chunks if not shape.nested and shape.knob not in ("density", "k", "rank") else chunks[:2]
    return [_family(shape, variant, chunk) for variant in shape.variants() for chunk in cuts]


def inner_families(cls: type) -> list[OperatorFamily]:
    """The families of a class that a wrapper (a transform, a scaling) is tried around: whole vectors, few variants."""
    shape = Shape.of(cls)
    if shape.needs_nested or cls.__name__ not in _INNER:
        return []
    return [_family(shape, variant, None) for variant in shape.variants(few=True)]


def nested_families(cls: type, values: Sequence[Compressor], inner: Sequence[OperatorFamily]) -> list[OperatorFamily]:
    """The families of a class around other compressors.

    A knob of its own is combined with ``values``. Without one, its first nested compressor runs along the families
    ``inner`` and the others take ``values``.
    """
    shape = Shape.of(cls)
    if not shape.nested:
        return []
    made = []
    first, *others = shape.nested
    some = _spread(values, _NUM_SECONDS)
    if cls is not TopK:
        values = _spread(values, _NUM_VALUES)
    rest = [dict(zip(others, chosen, strict=True)) for chosen in itertools.product(some, repeat=len(others))]
    if others:
        inner = [family for family in inner if family.is_sparse]
    for variant in shape.variants(few=True):
        if shape.knob is not None:
            made += [
                _family(shape, {**variant, first: value, **more}, None, is_plain=False)
                for value in values for more in rest
            ]  # fmt: skip
        else:
            made += [_around(shape, first, {**variant, **more}, family) for family in inner for more in rest]
    return made


def nested_instances(cls: type) -> list[Compressor]:
    """Instances of a class that needs nothing nested, to be nested in others."""
    shape = Shape.of(cls)
    if shape.nested or shape.knob in ("density", "k", "rank", "variance"):
        return []
    knobs: tuple[Knob, ...] = FEW.get(shape.knob, KNOBS[shape.knob]) if shape.knob else (None,)
    made: list[Compressor] = []
    for variant in shape.variants():
        # Of codings the tightest: where nothing shorter is found it costs a byte.
        if variant.get("coding", "entropy") != "entropy":
            continue
        made += [made_one for knob in knobs if (made_one := _instance(shape, variant, knob)) is not None]
    return list({describe(one): one for one in made}.values())


def _family(shape: Shape, given: dict[str, Any], chunk: int | None, *, is_plain: bool = True) -> OperatorFamily:
    def make(knob: Knob) -> Configuration | None:
        compressor = _instance(shape, given, knob)
        return None if compressor is None else Configuration(compressor, chunk)

    knobs: tuple[Knob, ...] = (None,) if shape.knob is None else KNOBS[shape.knob]
    if not is_plain and shape.knob == "density":
        knobs = knobs[::2]
    is_sparse = bool(shape.nested) and shape.knob == "density"
    return OperatorFamily(shape.cls.__name__, knobs, shape.is_continuous, make, is_plain, is_sparse)


def _around(shape: Shape, field: str, given: dict[str, Any], family: OperatorFamily) -> OperatorFamily:
    def make(knob: Knob) -> Configuration | None:
        inner = family.make(knob)
        if inner is None:
            return None
        compressor = _instance(shape, {**given, field: inner.compressor}, None)
        return None if compressor is None else Configuration(compressor, inner.chunk)

    # Refinement finds what lies between.
    return OperatorFamily(shape.cls.__name__, family.knobs[::2], family.is_continuous, make, False)


def _instance(shape: Shape, given: dict[str, Any], knob: Knob) -> Compressor | None:
    if shape.knob is not None and knob is not None:
        given = {**given, shape.knob: knob if shape.is_continuous else int(knob)}
    try:
        return shape.cls(**given)  # type: ignore[no-any-return]
    except (ConfigError, TypeError):
        return None


def _spread(values: Sequence[Compressor], count: int) -> list[Compressor]:
    """About ``count`` of the values, the first three (the plain ones) always."""
    return [*values[:3], *values[3 :: max(1, len(values) // max(1, count - 3))]]
