"""``thinwire pareto``: the comparison of a family of configurations."""

from collections.abc import Mapping
from typing import Any

from thinwire.cli.application import numbers
from thinwire.cli.comparing import refuse_swapped, run_as_asked
from thinwire.cli.folders import FAMILY
from thinwire.pareto import FILE, family_text
from thinwire.pareto.family import Family, parts_of


def pareto_as_asked(given: Mapping[str, Any]) -> None:
    """Run the comparison that the options of the command ask for, then write its page and print its tables.

    Raises:
        ConfigError: something that cannot be, or cannot be read.
    """
    refuse_swapped(given["task"], given["methods"] or ())
    family = Family(
        densities=numbers(given["density"], str.strip, "--density"),
        bits=numbers(given["bits"], int, "--bits"),
        periods=numbers(given["every"], int, "--every"),
    )
    methods = [*dict.fromkeys((*family.methods(), *(given["methods"] or ())))]
    run_as_asked(
        {**given, "methods": methods},
        FAMILY,
        lambda comparison: {FILE: family_text({method: parts_of(method) for method in comparison.methods})},
    )
