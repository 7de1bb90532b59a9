"""The options of clients that take turns as workers."""

from collections.abc import Mapping
from typing import Any

from thinwire.errors import ConfigError
from thinwire.experiments.clients.setting import Clients, make_clients

CLIENT_OPTIONS = ("clients", "per_round", "participation", "memory_of_absent", "local_optimizer")
"""By the names of the parameters."""


def read_clients(given: Mapping[str, Any]) -> Clients | None:
    """The clients of the options that say who takes turns; None if the workers are always the same.

    Raises:
        ConfigError: one of the options without those that it belongs to, or numbers that cannot be.
    """
    asked = {name: given[name] for name in CLIENT_OPTIONS if given.get(name) is not None and given[name] != ""}
    if not asked:
        return None
    count, per_round = asked.get("clients"), asked.get("per_round")
    if count is None or per_round is None:
        given_ones = ", ".join(f"--{name.replace('_', '-')}" for name in asked)
        raise ConfigError(
            f"{given_ones} was given; where clients take turns both --clients and --per-round are needed, such as "
            "--clients 1000 --per-round 20"
        )
    kind, local = str(asked.get("participation", "uniform")), str(asked.get("local_optimizer", "keep"))
    return make_clients(count, per_round, kind, str(asked.get("memory_of_absent", "keep")), local)
