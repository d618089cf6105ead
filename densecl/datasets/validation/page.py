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

from densecl.artifacts import ValidationResult, write_text
from densecl.datasets.storage.decode import HARMLESS_PROBLEMS, decode_image
from densecl.datasets.storage.filenames import to_printable
from densecl.datasets.storage.manifest import select_usable
from densecl.errors import DataError

TEMPLATES = Path(__file__).parent / "templates"
MAX_LISTED_FILES = 200  # files with a problem that a card lists; the manifest names all
MAX_PICTURED_FINDINGS = 48  # findings of a set that are shown as thumbnails
THUMBNAIL_PX = 96  # px, the longer side
MAX_CLASS_BARS = 50  # classes up to which each gets its own bar


def write_validation_page(
    verdicts: dict[str, ValidationResult],
    manifests: dict[str, pd.DataFrame],
    path: Path,
    roots: Mapping[str, Path],
) -> None:
    """Write the page, one card per dataset in the order of `verdicts`; the same bytes for the same
    input.

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
    environment.filters |= {
        "printable": to_printable,
        "count": _format_count,
        "size": _format_bytes,
    }
    cards = [
        _build_card(verdict, manifests[name]) | {"pictured": _collect_pictures(verdict, roots)}
        for name, verdict in verdicts.items()
    ]
    write_text(
        path,
        environment.get_template("validation.html").render(cards=cards, **_count_totals(verdicts)),
    )


def _count_totals(verdicts: dict[str, ValidationResult]) -> dict[str, Any]:
    stopped = [name for name, verdict in verdicts.items() if not verdict.passed]
    return {
        "stopped": stopped,
        "images": sum(verdict.images for verdict in verdicts.values()),
        "failures": sum(len(verdict.failures) for verdict in verdicts.values()),
        "warnings": sum(len(verdict.warnings) for verdict in verdicts.values()),
    }


def _build_card(verdict: ValidationResult, frame: pd.DataFrame) -> dict[str, Any]:
    images = select_usable(frame)
    counts = images["wnid"].value_counts().reindex(sorted(frame["wnid"].unique()), fill_value=0)
    bad = frame[frame["problem"] != ""]
    return {
        "verdict": verdict,
        "files": len(frame),
        "bytes": int(images["bytes"].sum()),
        "sizes": _format_sizes(images),
        "per_class": _format_spread(counts),
        "bars": _build_bars(counts) if 0 < len(counts) <= MAX_CLASS_BARS else [],
        "problems": [
            _format_problem(row, verdict) for row in bad.head(MAX_LISTED_FILES).to_dict("records")
        ],
        "unlisted": max(0, len(bad) - MAX_LISTED_FILES),
    }


def _format_problem(row: dict[Any, Any], verdict: ValidationResult) -> dict[str, Any]:
    unused = "excluded" if row["image_id"] in verdict.excluded else "stops here"
    outcome = "used" if row["problem"] in HARMLESS_PROBLEMS else unused
    return {
        "path": row["path"],
        "bytes": row["bytes"],
        "reason": row["problem"],
        "outcome": outcome,
    }


def _collect_pictures(verdict: ValidationResult, roots: Mapping[str, Path]) -> list[dict[str, Any]]:
    """Findings with thumbnails of their images, those without any left out."""
    findings: list[dict[str, Any]] = []
    for evidence in verdict.evidence:
        pictures = [picture for name in evidence.images if (picture := make_thumbnail(name, roots))]
        if pictures and len(findings) < MAX_PICTURED_FINDINGS:
            findings.append({"text": evidence.text, "pictures": pictures})
    return findings


def make_thumbnail(image_id: str, roots: Mapping[str, Path]) -> dict[str, str] | None:
    """`name` and `data`, a JPEG in a data URI, of an image_id; None where the file cannot be
    decoded.
    """
    dataset, _, path = image_id.partition("/")
    try:
        image = decode_image(roots[dataset] / path)
    except (DataError, KeyError):
        return None
    image.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    return {
        "name": image_id,
        "data": "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii"),
    }


def _format_sizes(images: pd.DataFrame) -> str:
    """Width x height in px, or the range of both."""
    if images.empty:
        return "none"
    spans = [(images[side].min(), images[side].max()) for side in ("width", "height")]
    return " × ".join(f"{low}" if low == high else f"{low}–{high}" for low, high in spans)


def _format_spread(counts: pd.Series) -> str:
    if counts.empty:
        return "none"
    low, high = int(counts.min()), int(counts.max())
    return (
        _format_count(low)
        if low == high
        else f"{_format_count(low)}–{_format_count(high)}, median "
        f"{_format_count(round(counts.median()))}"
    )


def _build_bars(counts: pd.Series) -> list[dict[str, Any]]:
    most = max(1, int(counts.max()))
    return [
        {"wnid": wnid, "images": int(n), "percent": round(100 * n / most, 1)}
        for wnid, n in counts.items()
    ]


def _format_count(number: int) -> str:
    return f"{number:,}"


def _format_bytes(number: float) -> str:
    for unit in ("B", "kB", "MB"):
        if number < 1000:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} GB"
