"""Numbers and lists as people read them; fractions in [0, 1] become percent or points."""

from __future__ import annotations


def points(fraction: float) -> str:
    """`2.0 points`."""
    return f"{100 * fraction:.1f} point{'' if f'{100 * fraction:.1f}' == '1.0' else 's'}"


def signed(fraction: float) -> str:
    """`+0.4`, in points, with a minus sign that stands out."""
    return f"{100 * fraction:+.1f}".replace("-", "−").replace("−0.0", "0.0").replace("+0.0", "0.0")


def percent(fraction: float) -> str:
    return f"{100 * fraction:.1f} %"


def counted(number: int, thing: str) -> str:
    """`1 image`, `3,012 images`; the plural takes an s."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"
