"""Format numbers and lists for readers; fractions in [0, 1] become percent or points."""

from collections.abc import Sequence


def format_percent(fraction: float | None) -> str:
    """`45.2`, without a percent sign; a dash for None."""
    return "–" if fraction is None else f"{100 * fraction:.1f}".replace("-", "−")


def format_bound(fraction: float) -> str:
    """As `format_percent`, but with all digits of what would be 0.0 or 100.0."""
    return format_percent(fraction) if 0.001 <= fraction <= 0.999 else format_level(fraction)


def format_points(fraction: float) -> str:
    """`+0.4`; a value that rounds to 0 has no sign."""
    text = f"{100 * fraction:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text.replace("-", "−")


def format_p_value(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def format_level(confidence: float) -> str:
    """`95`, in percent with all of its digits: 0.99999999 is not 100."""
    return f"{100 * confidence:.10g}"


def format_bytes(size: float) -> str:
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


def format_count(count: int, noun: str) -> str:
    """`1 image`, `3,012 images`; the plural appends an s."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def join_names(names: Sequence[str]) -> str:
    """Join names: "a"; "a and b"; "a, b and c"."""
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def clip_list(names: Sequence[str], shown: int) -> str:
    """The first names, and the number of the others."""
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more


def capitalize_first(text: str) -> str:
    return text[:1].upper() + text[1:]


def clip_text(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def align_columns(rows: Sequence[Sequence[str]]) -> str:
    """Rows as aligned lines of text."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )
