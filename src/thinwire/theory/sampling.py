"""What it costs the mean if only some of many clients take part."""

from thinwire.errors import ConfigError


def independent_sampling_error(error: float, mean_square: float, num_clients: int, probability: float) -> float:
    """``E / p + (1 - p) / (n p) F``: the mean squared error if each client takes part with probability p.

    It is an equality for messages that are unbiased and independent of each other, and the sum of those that came over
    ``n p`` (Suresh et al. 2017, section 5).

    Args:
        error: E, the mean squared error of the mean over all clients.
        mean_square: F, the mean over clients of the squared norms of their vectors.
        num_clients: n.
        probability: p, above 0, at most 1.

    Raises:
        ConfigError: a number out of range.

    Example:
        >>> independent_sampling_error(error=0.5, mean_square=3.0, num_clients=6, probability=0.5)
        1.5
    """
    _check(error, mean_square, num_clients)
    if not 0.0 < probability <= 1.0:
        raise ConfigError(f"a probability of {probability} was given; it is above 0, at most 1")
    return error / probability + (1.0 - probability) / (num_clients * probability) * mean_square


def uniform_sampling_error(error: float, spread: float, num_clients: int, per_round: int) -> float:
    """``n / K E + (n - K) / (K (n - 1)) S``: the same if K of n clients are drawn without replacement.

    How large the clients' common mean is plays no part, as it does if they come independently: so many always come.

    Args:
        error: E, the mean squared error of the mean over all clients.
        spread: S, the mean over clients of the squared distances of their vectors from their mean.
        num_clients: n.
        per_round: K, 1 to n.

    Raises:
        ConfigError: a number out of range.

    Example:
        >>> uniform_sampling_error(error=0.5, spread=3.0, num_clients=7, per_round=1)
        6.5
        >>> uniform_sampling_error(error=0.5, spread=3.0, num_clients=7, per_round=7)
        0.5
    """
    _check(error, spread, num_clients)
    if not 1 <= per_round <= num_clients:
        raise ConfigError(f"{per_round} of {num_clients} clients a round were given; give 1 to all of them")
    drawn = (num_clients - per_round) / (per_round * (num_clients - 1)) if num_clients > 1 else 0.0
    return num_clients / per_round * error + drawn * spread


def _check(error: float, square: float, num_clients: int) -> None:
    if not (error >= 0.0 and square >= 0.0 and num_clients >= 1):
        raise ConfigError(
            f"an error of {error}, a squared norm of {square} and {num_clients} clients were given; the first two are "
            "at least 0, and there is at least 1 client"
        )
