"""Numbers as people read them: decimal bytes, three significant digits, thousands separated."""

import math

MISSING = "—"
TIMES = "\N{MULTIPLICATION SIGN}"


def significant(value: float, digits: int = 3) -> str:
    """``value`` with ``digits`` significant digits, thousands separated; tiny and huge ones in e-notation.

    Example:
        >>> [significant(x) for x in (0, 0.01234, 9.996, 12.34, 12345.6, 1.2e-7)]
        ['0', '0.0123', '10.0', '12.3', '12,346', '1.20e-07']
    """
    if value == 0:
        return "0"
    # Rounding first lets 9.996 become 10.0 rather than 10.00.
    rounded = float(f"{value:.{digits - 1}e}")
    exponent = math.floor(math.log10(abs(rounded)))
    if not -4 <= exponent < 9:
        return f"{value:.{digits - 1}e}"
    return f"{value:,.{max(0, digits - 1 - exponent)}f}"


def human_bytes(num_bytes: float) -> str:
    """Bytes in decimal units (1 kB = 1000 B).

    Example:
        >>> [human_bytes(x) for x in (0, 17, 1234, 999_960, 5.5e9)]
        ['0 B', '17 B', '1.23 kB', '1.00 MB', '5.50 GB']
    """
    units = ("B", "kB", "MB", "GB", "TB", "PB", "EB")
    for unit in units[:-1]:
        # From 999.5 on, three digits would round to 1000 of this unit.
        if num_bytes < 999.5:
            whole = unit == "B" and float(num_bytes).is_integer()
            return f"{num_bytes:.0f} B" if whole else f"{significant(num_bytes)} {unit}"
        num_bytes /= 1000
    return f"{significant(num_bytes)} {units[-1]}"


def human_bits_per_second(bandwidth_Bps: float) -> str:
    """A bandwidth given in bytes per second, in the decimal bits per second that links are sold by.

    Example:
        >>> human_bits_per_second(12.5e6)
        '100 Mbit/s'
    """
    bits = bandwidth_Bps * 8
    for unit in ("bit/s", "kbit/s", "Mbit/s"):
        if bits < 999.5:
            return f"{bits:.3g} {unit}"
        bits /= 1000
    return f"{bits:.4g} Gbit/s"


def human_seconds(seconds: float) -> str:
    """A short duration such as a latency, in s, ms or µs.

    Example:
        >>> [human_seconds(x) for x in (0, 0.00005, 0.02, 1.5)]
        ['0 s', '50 µs', '20 ms', '1.5 s']
    """
    if seconds == 0 or seconds >= 1:
        return f"{seconds:.4g} s"
    return f"{seconds * 1e3:.3g} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.3g} µs"


def ratio_number(ratio: float) -> str:
    """A ratio without a sign: whole above 100, three significant digits below.

    Example:
        >>> [ratio_number(x) for x in (2812.7, 70.31, 4, 0.25)]
        ['2,813', '70.3', '4.00', '0.250']
    """
    return f"{ratio:,.0f}" if ratio >= 100 else significant(ratio)


def metric_value(value: float) -> str:
    """A loss or metric with at most four significant digits.

    Example:
        >>> [metric_value(x) for x in (0.86, 0.861234, 12345.6, 1.23e-5)]
        ['0.86', '0.8612', '12,346', '1.23e-05']
    """
    if abs(value) >= 1e9 or 0 < abs(value) < 1e-4:
        return f"{value:.2e}"
    return f"{value:,.0f}" if abs(value) >= 9999.5 else f"{value:.4g}"
