"""What another process tells of itself, as text."""

import json
from collections.abc import Mapping
from typing import Any

from thinwire.errors import ProtocolError


def read_told(text: str, kinds: Mapping[str, type], who: str) -> dict[str, Any]:
    """The fields of a record that was written as JSON.

    Args:
        text: from another process, and not to be trusted to be a record at all.
        kinds: of all its fields, by name.
        who: has told it, for the error.

    Raises:
        ProtocolError: fields are missing, there are others, or one is of another kind.

    Example:
        >>> read_told('{"name": "a", "step": 3}', {"name": str, "step": int}, "a participant")
        {'name': 'a', 'step': 3}
        >>> read_told('{"name": "a"}', {"name": str, "step": int}, "a participant")
        Traceback (most recent call last):
        ...
        thinwire.errors.ProtocolError: a participant said '{"name": "a"}' of itself; ...
    """
    try:
        found: dict[str, Any] = json.loads(text)
        if {name: type(value) for name, value in found.items()} == dict(kinds):
            return found
    except (ValueError, AttributeError):
        pass
    raise ProtocolError(f"{who} said {text[:80]!r} of itself; all must run one version of thinwire")
