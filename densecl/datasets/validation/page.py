"""The validation page: one file that opens offline, without scripts or requests; every name is
shown as text.
"""

import itertools
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pandas as pd

from densecl.artifacts import SkippedFiles, ValidationResult, write_text
from densecl.datasets.storage.decode import HARMLESS_PROBLEMS, decode_image
from densecl.datasets.storage.filenames import to_printable
from densecl.datasets.storage.manifest import select_usable
from densecl.errors import DataError
from densecl.pages.formatting import format_bytes
from densecl.pages.templates import create_environment, encode_thumbnail

MAX_LISTED_FILES = 200  # files with a problem that a card lists; the manifest names all
MAX_PICTURED_FINDINGS = 48  # per dataset
THUMBNAIL_PX = 96  # px, the longer side
MAX_CLASS_BARS = 50  # classes up to which each gets its own bar


def write_validation_page(
    verdicts: dict[str, ValidationResult],
    manifests: dict[str, pd.DataFrame],
    skipped: Mapping[str, SkippedFiles],
    path: Path,
    roots: Mapping[str, Path],
    titles: Mapping[str, str] | None = None,
) -> None:
    """Write the page, one card per dataset in the order of `verdicts`; equal input gives equal
    bytes.

    Args:
        roots: where each set's images lie, for the thumbnails.
        titles: display names of the sets that have one.
    """
    environment = create_environment(Path(__file__).parent / "templates")
    environment.filters |= {
        "printable": to_printable,
        "count": "{:,}".format,
        "size": format_bytes,
    }
    files = _find_files(verdicts, manifests)
    cards = [
        _build_card(verdict, manifests[name], skipped[name])
        | {
            "pictured": _collect_pictures(verdict, roots, files),
            "title": (titles or {}).get(name, name),
        }
        for name, verdict in verdicts.items()
    ]
    write_text(
        path,
        environment.get_template("validation.html").render(
            cards=cards,
            stopped=not all(verdict.passed for verdict in verdicts.values()),
            images=sum(verdict.images for verdict in verdicts.values()),
            failures=sum(len(verdict.failures) for verdict in verdicts.values()),
            warnings=sum(len(verdict.warnings) for verdict in verdicts.values()),
        ),
    )


def _build_card(
    verdict: ValidationResult, frame: pd.DataFrame, skipped: SkippedFiles
) -> dict[str, Any]:
    images = select_usable(frame, verdict.excluded)
    counts = images["wnid"].value_counts().reindex(sorted(frame["wnid"].unique()), fill_value=0)
    bad = frame[frame["problem"] != ""]
    return {
        "verdict": verdict,
        "files": len(frame),
        "skipped": sum(skipped.skipped.values()),
        "reasons": sorted(skipped.skipped.items(), key=lambda item: (-item[1], item[0])),
        "notes": skipped.notes,
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
    return {**row, "reason": row["problem"], "outcome": outcome}


def _find_files(
    verdicts: Mapping[str, ValidationResult], manifests: Mapping[str, pd.DataFrame]
) -> dict[str, str]:
    """Path below its set's root of each image of a finding, by its id: copies have other paths."""
    evidence = (evidence for verdict in verdicts.values() for evidence in verdict.evidence)
    ids = {image_id for finding in evidence for image_id in finding.images}
    rows = [frame[frame["image_id"].isin(ids)] for frame in manifests.values()]
    return {
        image_id: path
        for part in rows
        for image_id, path in zip(part["image_id"], part["path"], strict=True)
    }


def _collect_pictures(
    verdict: ValidationResult, roots: Mapping[str, Path], files: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Findings with thumbnails of their images; findings without images are omitted."""
    findings = (
        {"text": evidence.text, "pictures": pictures}
        for evidence in verdict.evidence
        if (
            pictures := [p for name in evidence.images if (p := make_thumbnail(name, roots, files))]
        )
    )
    return list(itertools.islice(findings, MAX_PICTURED_FINDINGS))


def make_thumbnail(
    image_id: str, roots: Mapping[str, Path], files: Mapping[str, str] = MappingProxyType({})
) -> dict[str, str] | None:
    """`name` and `data` (a data URI) of an image_id; None if the file cannot be decoded.

    `files`: path by image_id, where it is not in the id.
    """
    dataset, _, path = image_id.partition("/")
    try:
        image = decode_image(roots[dataset] / files.get(image_id, path))
    except (DataError, KeyError):
        return None
    return {"name": image_id, "data": encode_thumbnail(image, THUMBNAIL_PX, "JPEG", quality=80)}


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
    return f"{low:,}" if low == high else f"{low:,}–{high:,}, median {round(counts.median()):,}"


def _build_bars(counts: pd.Series) -> list[dict[str, Any]]:
    percent = (100 * counts / max(1, counts.max())).round(1)
    return [
        {"wnid": wnid, "images": int(n), "percent": percent[wnid]} for wnid, n in counts.items()
    ]
