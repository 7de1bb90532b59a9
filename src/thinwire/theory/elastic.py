"""Where elastic averaging is stable on a quadratic."""

import numpy as np
import numpy.typing as npt

from thinwire.errors import ConfigError

_GRID = 512
"""Curvatures at which the whole step is looked at before the first unstable one is closed in on."""
_TOLERANCE = 1e-9
_HALVINGS = 50


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


def local_step_map(
    lr_times_curvature: float, *, momentum: float = 0.0, nesterov: bool = False
) -> npt.NDArray[np.float64]:
    """What a step of SGD on curvature h makes of ``(x, eta v)``: f64 ``[2, 2]``, ``z = eta h``.

    ``v <- mu v + h x``, then ``x <- x - eta v`` (heavy ball), or ``x <- x - eta (h x + mu v)`` (Nesterov, in the form
    that torch has).

    Raises:
        ConfigError: a number out of range.

    Example:
        >>> local_step_map(0.5, momentum=0.5).tolist()
        [[0.5, -0.5], [0.5, 0.5]]
    """
    z, mu = lr_times_curvature, momentum
    if not z >= 0.0 or not 0.0 <= mu < 1.0:
        raise ConfigError(f"eta h = {z}, momentum = {mu} were given; eta h is 0 or more, momentum 0 to below 1")
    if nesterov:
        return np.array([[1.0 - z - mu * z, -mu * mu], [z, mu]])
    return np.array([[1.0 - z, -mu], [z, mu]])


def local_step_limit(*, momentum: float = 0.0, nesterov: bool = False) -> float:
    """The ``eta h`` up to which steps of SGD are stable by themselves: ``2 (1 + mu)``; Nesterov ``2 (1+mu) / (1+2mu)``.

    Example:
        >>> local_step_limit(), local_step_limit(momentum=0.5), local_step_limit(momentum=0.5, nesterov=True)
        (2.0, 3.0, 1.5)
    """
    local_step_map(0.0, momentum=momentum)
    return 2.0 * (1.0 + momentum) / (1.0 + 2.0 * momentum if nesterov else 1.0)


def elastic_radius(
    lr_times_curvature: float,
    *,
    alpha: float,
    beta: float,
    momentum: float = 0.0,
    nesterov: bool = False,
    local_steps: int = 1,
) -> float:
    """The largest magnitude of an eigenvalue of a whole step of :class:`thinwire.methods.Elastic` on curvature h.

    With ``A`` the :func:`local_step_map`, ``(y, w) = A^H (x, eta v)`` and then ``x <- y + alpha (c - y)``,
    ``c <- c + beta (y - c)``, where the velocity stays as it is: mean and centre follow this map of three numbers, the
    workers' differences from their mean the same without the centre. Above 1 the models move apart.

    Args:
        lr_times_curvature: ``eta h``, 0 or more.
        alpha: how far a worker moves to the centre.
        beta: how far the centre moves to the workers' mean.
        momentum: of the local steps, 0 to below 1.
        nesterov: whether it is Nesterov's.
        local_steps: H, at least 1.

    Raises:
        ConfigError: a number out of range.

    Example:
        >>> elastic_radius(1.0, alpha=0.225, beta=0.9, momentum=0.9) < 1 < elastic_radius(
        ...     3.5, alpha=0.225, beta=0.9, momentum=0.9
        ... )
        True
    """
    _check(alpha, beta, local_steps)
    local = local_step_map(lr_times_curvature, momentum=momentum, nesterov=nesterov)
    steps = np.linalg.matrix_power(local, local_steps)
    alone = np.array([[1.0 - alpha, 0.0], [0.0, 1.0]]) @ steps
    mean = np.zeros((3, 3))
    mean[:2, :2] = alone
    mean[0, 2] = alpha
    mean[2] = [*(beta * steps[0]), 1.0 - beta]
    return max(float(np.abs(np.linalg.eigvals(each)).max()) for each in (mean, alone))


def elastic_limit(
    *, alpha: float, beta: float, momentum: float = 0.0, nesterov: bool = False, local_steps: int = 1
) -> float:
    """The largest ``eta h`` for which a whole step of elastic averaging is stable there and on all smaller curvatures.

    It is that of :func:`local_step_limit` or less: a pull takes a worker to where its velocity does not belong. Found
    from :func:`elastic_radius` on a grid and by bisection; 0 if no curvature is stable.

    Raises:
        ConfigError: a number out of range.

    Example:
        >>> elastic_limit(alpha=0.225, beta=0.9)
        2.0
    """
    most = local_step_limit(momentum=momentum, nesterov=nesterov)

    def is_stable(z: float) -> bool:
        radius = elastic_radius(
            z, alpha=alpha, beta=beta, momentum=momentum, nesterov=nesterov, local_steps=local_steps
        )
        return radius <= 1.0 + _TOLERANCE

    low = 0.0
    for number in range(1, _GRID + 1):
        high = most * number / _GRID
        if not is_stable(high):
            break
        low = high
    else:
        return most
    for _ in range(_HALVINGS):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if is_stable(middle) else (low, middle)
    return low


def elastic_is_stable(
    alpha: float,
    beta: float,
    *,
    lr_times_curvature: float | None = None,
    momentum: float = 0.0,
    nesterov: bool = False,
    local_steps: int = 1,
) -> bool:
    """Whether local steps followed by the pull of :class:`thinwire.methods.Elastic` are stable.

    On the given ``eta h``, or if none is given wherever the local steps are stable by themselves, from the eigenvalues
    of the whole step (:func:`elastic_radius`, :func:`elastic_limit`). Without momentum that is ``alpha + beta <= 2``:
    H local steps on curvature h multiply by ``u = (1 - eta h)^H``, -1 to 1 if they are stable by themselves. Then mean
    and centre follow the matrix ``[[(1 - alpha) u, alpha], [beta u, 1 - beta]]``, whose determinant is
    ``u (1 - alpha - beta)`` and for which ``1 - trace + det = beta (1 - u)`` and
    ``1 + trace + det = 2 - beta + u (2 - 2 alpha - beta)``: with rates above 0, both eigenvalues are within the unit
    circle for every such u if ``alpha + beta <= 2``, and at ``u = 1`` (no curvature) one is beyond -1 if not. The
    workers' differences from their mean shrink by ``(1 - alpha) u``.

    Raises:
        ConfigError: a number out of range.

    Example:
        >>> elastic_is_stable(0.225, 0.9), elastic_is_stable(1.2, 0.9)
        (True, False)
        >>> elastic_is_stable(0.225, 0.9, momentum=0.9, lr_times_curvature=3.5)
        False
    """
    _check(alpha, beta, local_steps)
    if lr_times_curvature is not None:
        radius = elastic_radius(
            lr_times_curvature, alpha=alpha, beta=beta, momentum=momentum, nesterov=nesterov, local_steps=local_steps
        )
        return radius <= 1.0 + _TOLERANCE
    if momentum == 0.0:
        return alpha + beta <= 2.0
    limit = elastic_limit(alpha=alpha, beta=beta, momentum=momentum, nesterov=nesterov, local_steps=local_steps)
    return limit >= local_step_limit(momentum=momentum, nesterov=nesterov)


def _check(alpha: float, beta: float, local_steps: int) -> None:
    if not (alpha > 0.0 and beta > 0.0):
        raise ConfigError(f"alpha = {alpha}, beta = {beta} were given; both must be above 0")
    if local_steps < 1:
        raise ConfigError(f"{local_steps} local steps were given; at least 1 is made between two pulls")
