"""Verdicts and manifests -> one page that opens offline: no script, no request, every name shown as
text.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from densecl.artifacts import Verdict, write_text
from densecl.datasets.storage.decode import decode, fatal
from densecl.datasets.storage.filenames import shown
from densecl.datasets.storage.manifest import usable
from densecl.errors import DataError

TEMPLATES = Path(__file__).parent / "templates"
LISTED = 200  # files with a problem that a card lists; the manifest names all
PICTURED = 48  # findings of a set that are shown as thumbnails
THUMBNAIL = 96  # px, the longer side
DRAWN = 50  # classes up to which each gets its own bar


def render_validation(
    verdicts: dict[str, Verdict],
    manifests: dict[str, pd.DataFrame],
    path: Path,
    roots: Mapping[str, Path],
) -> None:
    """Write the page, a card a set in the order of `verdicts`; the same bytes for the same input.

    `roots`: where each set's images lie, for the thumbnails.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"shown": shown, "count": _grouped, "size": _readable}
    cards = [
        _card(verdict, manifests[name]) | {"pictured": _pictured(verdict, roots)}
        for name, verdict in verdicts.items()
    ]
    write_text(
        path, environment.get_template("validation.html").render(cards=cards, **_totals(verdicts))
    )


def _totals(verdicts: dict[str, Verdict]) -> dict[str, Any]:
    stopped = [name for name, verdict in verdicts.items() if not verdict.passed]
    return {
        "stopped": stopped,
        "images": sum(verdict.images for verdict in verdicts.values()),
        "failures": sum(len(verdict.failures) for verdict in verdicts.values()),
        "warnings": sum(len(verdict.warnings) for verdict in verdicts.values()),
    }


def _card(verdict: Verdict, frame: pd.DataFrame) -> dict[str, Any]:
    images = usable(frame)
    counts = images["wnid"].value_counts().reindex(sorted(frame["wnid"].unique()), fill_value=0)
    bad = frame[frame["problem"] != ""]
    return {
        "verdict": verdict,
        "files": len(frame),
        "bytes": int(images["bytes"].sum()),
        "sizes": _sizes(images),
        "per_class": _spread(counts),
        "bars": _bars(counts) if 0 < len(counts) <= DRAWN else [],
        "problems": [_problem(row, verdict) for row in bad.head(LISTED).to_dict("records")],
        "unlisted": max(0, len(bad) - LISTED),
    }


def _problem(row: dict[Any, Any], verdict: Verdict) -> dict[str, Any]:
    unused = "excluded" if row["image_id"] in verdict.excluded else "stops here"
    outcome = unused if fatal(row["problem"]) else "used"
    return {
        "path": row["path"],
        "bytes": row["bytes"],
        "reason": row["problem"],
        "outcome": outcome,
    }


def _pictured(verdict: Verdict, roots: Mapping[str, Path]) -> list[dict[str, Any]]:
    """Findings with thumbnails of their images, those without any left out."""
    found: list[dict[str, Any]] = []
    for evidence in verdict.evidence:
        pictures = [picture for name in evidence.images if (picture := thumbnail(name, roots))]
        if pictures and len(found) < PICTURED:
            found.append({"text": evidence.text, "pictures": pictures})
    return found


def thumbnail(image_id: str, roots: Mapping[str, Path]) -> dict[str, str] | None:
    """`name` and `data`, a JPEG in a data URI, of an image_id; None where the file cannot be
    decoded.
    """
    dataset, _, path = image_id.partition("/")
    try:
        image = decode(roots[dataset] / path)
    except (DataError, KeyError):
        return None
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    return {
        "name": image_id,
        "data": "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii"),
    }


def _sizes(images: pd.DataFrame) -> str:
    """Width x height in px, or the range of both."""
    if images.empty:
        return "none"
    spans = [(images[side].min(), images[side].max()) for side in ("width", "height")]
    return " × ".join(f"{low}" if low == high else f"{low}–{high}" for low, high in spans)


def _spread(counts: pd.Series) -> str:
    if counts.empty:
        return "none"
    low, high = int(counts.min()), int(counts.max())
    return (
        _grouped(low)
        if low == high
        else f"{_grouped(low)}–{_grouped(high)}, median {_grouped(round(counts.median()))}"
    )


def _bars(counts: pd.Series) -> list[dict[str, Any]]:
    most = max(1, int(counts.max()))
    return [
        {"wnid": wnid, "images": int(n), "percent": round(100 * n / most, 1)}
        for wnid, n in counts.items()
    ]


def _grouped(number: int) -> str:
    return f"{number:,}"


def _readable(number: float) -> str:
    for unit in ("B", "kB", "MB"):
        if number < 1000:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} GB"
