"""Where elastic averaging is stable on a quadratic."""

from thinwire.errors import ConfigError


def easgd_alpha_limit(lr_times_curvature: float, workers: int) -> float:
    """The largest stable alpha of synchronous EASGD as in the paper: ``(4 - 2 z) / (2 + 2 P - P z)``, ``z = eta h``.

    For ``x_i <- x_i - eta h x_i - alpha (x_i - c)`` and ``c <- c + alpha sum_i (x_i - c)``, all from the old values
    (Zhang et al. 2015). For one worker it is the paper's ``(4 - 2 z) / (4 - z)``. It falls to 0 at z = 2: where the
    gradient is taken at the model before the pull, large curvatures leave no room for the pull.

    Args:
        lr_times_curvature: z, 0 to 2.
        workers: P, at least 1.

    Raises:
        ConfigError: a number out of range.

    Example:
        >>> easgd_alpha_limit(0.0, 3), easgd_alpha_limit(2.0, 3)
        (0.5, 0.0)
    """
    z = lr_times_curvature
    if not 0.0 <= z <= 2.0 or workers < 1:
        raise ConfigError(
            f"eta h = {z} and {workers} workers were given; eta h is 0 to 2, and there is at least 1 worker"
        )
    return (4.0 - 2.0 * z) / (2.0 + 2.0 * workers - workers * z)


def elastic_is_stable(alpha: float, beta: float) -> bool:
    """Whether local steps followed by the pull of :class:`thinwire.methods.Elastic` are stable: ``alpha + beta <= 2``.

    H local steps on curvature h multiply by ``u = (1 - eta h)^H``, -1 to 1 if they are stable by themselves. Then mean
    and centre follow the matrix ``[[(1 - alpha) u, alpha], [beta u, 1 - beta]]``, whose determinant is
    ``u (1 - alpha - beta)`` and for which ``1 - trace + det = beta (1 - u)`` and
    ``1 + trace + det = 2 - beta + u (2 - 2 alpha - beta)``: with rates above 0, both eigenvalues are within the unit
    circle for every such u if ``alpha + beta <= 2``, and at ``u = 1`` (no curvature) one is beyond -1 if not. The
    workers' differences from their mean shrink by ``(1 - alpha) u``.

    Example:
        >>> elastic_is_stable(0.225, 0.9), elastic_is_stable(1.2, 0.9)
        (True, False)
    """
    if not (alpha > 0.0 and beta > 0.0):
        raise ConfigError(f"alpha = {alpha}, beta = {beta} were given; both must be above 0")
    return alpha + beta <= 2.0
