"""Numbers and lists as people read them; fractions in [0, 1] become percent or points."""

from __future__ import annotations


def format_points(fraction: float) -> str:
    """`2.0 points`."""
    return f"{100 * fraction:.1f} point{'' if f'{100 * fraction:.1f}' == '1.0' else 's'}"


def format_signed(fraction: float) -> str:
    """`+0.4`, in points, with a minus sign that stands out."""
    return f"{100 * fraction:+.1f}".replace("-", "−").replace("−0.0", "0.0").replace("+0.0", "0.0")


def format_percent(fraction: float) -> str:
    return f"{100 * fraction:.1f} %"


def format_count(count: int, noun: str) -> str:
    """`1 image`, `3,012 images`; the plural takes an s."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
