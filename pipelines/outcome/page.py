"""`reports/retraining.html`: the verdict first, then why, what changed, and what became of earlier
candidates.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from densecl import paths
from densecl.artifacts import write_text
from densecl.datasets.storage.filenames import shown
from densecl.datasets.validation.page import thumbnail
from densecl.report.charts.svg import COLOURS
from pipelines.formatting import percent, signed
from pipelines.gate.chart import forest
from pipelines.gate.drift import consequence, size_of_shift, touched
from pipelines.gate.psi import LARGE, MODERATE
from pipelines.schemas import Changes, Criterion, Finished, SetChange, Verdict

TEMPLATES = Path(__file__).parent / "templates"
PICTURED = 6  # thumbnails a set
EARLIER = 30  # retrainings in the history
FULL = 0.5  # a PSI that fills its bar
ASKED = {
    "val": "low end above the bound",
    "fall": "no sure fall below the bound",
    "chance": "low end above chance",
    "minimum": "value at least",
}


def write_page(
    changes: Changes,
    verdict: Verdict | None,
    finished: Finished | None = None,
    *,
    history: Sequence[Finished] = (),
    roots: Mapping[str, Path] | None = None,
    version: str | None = None,
    root: Path = Path(),
) -> Path:
    """The page's path under `root`. One file that opens offline; every name is shown as text.

    `verdict` is None where no candidate was judged; `roots` says where the sets' images lie, for
    thumbnails; `history` are the earlier retrainings, oldest first; `version` is the candidate's in
    the registry, whose lineage can be asked.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"shown": shown, "percent": percent}
    drawing, spoken = forest(verdict) if verdict else ("", "")
    text = environment.get_template("retraining.html").render(
        colours=COLOURS,
        headline=_headline(changes, verdict, finished),
        verdict=verdict,
        finished=finished,
        said=_sentence(
            finished.said if finished else verdict.said if verdict else consequence(changes)
        ),
        criteria=[_criterion(each) for each in verdict.criteria] if verdict else [],
        forest=drawing,
        spoken=spoken,
        changes=changes,
        consequence=_why(changes, verdict),
        limits=(MODERATE, LARGE, FULL),
        sets=[
            _set(each, roots or {})
            for each in changes.sets
            if touched(each) and each.before is not None
        ],
        history=[*reversed(history)][:EARLIER],
        links=_links(root),
        version=version,
    )
    write_text(root / paths.RETRAINING_PAGE, text)
    return paths.RETRAINING_PAGE


def _headline(changes: Changes, verdict: Verdict | None, finished: Finished | None) -> str:
    if verdict is None:
        ended = finished.outcome if finished else "unchanged"
        return {"failed": "The retraining failed.", "skipped": "The retraining was skipped."}.get(
            ended,
            "Nothing was judged." if changes.any else "Nothing changed, so nothing was trained.",
        )
    name = f"{verdict.mode}, seed {verdict.seed},"
    if verdict.promoted:
        return (
            f"Promoted: {name} takes the place of version {verdict.champion}."
            if verdict.champion
            else (f"Promoted: {name} is the first champion.")
        )
    stays = (
        f"version {verdict.champion} stays champion"
        if verdict.champion
        else "there is no champion yet"
    )
    return f"Refused: {name} is not promoted; {stays}."


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _why(changes: Changes, verdict: Verdict | None) -> str:
    if verdict and not changes.any:
        return "Nothing since the last judged candidate; this one was asked for all the same."
    return consequence(changes)


def _criterion(each: Criterion) -> dict[str, str | bool]:
    """A row of the table, in percent for a first champion and in points beside another one."""
    share = each.name in ("chance", "minimum")
    number = (lambda value: f"{100 * value:.1f}") if share else signed
    value = "–" if each.value is None else number(each.value)
    span = (
        "–"
        if each.low is None or each.high is None
        else f"{number(each.low)} to {number(each.high)}"
    )
    sign = "≥" if each.name in ("minimum", "fall") else ">"
    return {
        "dataset": each.dataset,
        "name": each.name,
        "asked": ASKED[each.name],
        "value": value,
        "span": span,
        "bound": f"{sign} {number(each.bound)}",
        "images": f"{each.images:,}",
        "passed": each.passed,
        "said": each.said,
    }


def _set(change: SetChange, roots: Mapping[str, Path]) -> dict[str, Any]:
    """A set that changed, with its bars and pictures."""
    ids = [f"{change.dataset}/{path}" for path in change.evidence]
    pictures = [picture for each in ids if (picture := thumbnail(each, roots))]
    most = (
        max(
            (
                max(_share(m.before, change.before), _share(m.now, change.images))
                for m in change.mix
            ),
            default=0,
        )
        or 1.0
    )
    return {
        "change": change,
        "pictures": pictures[:PICTURED],
        "shifts": [
            (f, value, _width(value / FULL), size_of_shift(change, f))
            for f, value in change.psi.items()
        ],
        "mix": [
            (
                m.wnid,
                *(
                    (share, _width(share / most))
                    for share in (_share(m.before, change.before), _share(m.now, change.images))
                ),
            )
            for m in change.mix
        ],
    }


def _share(images: int, of: int | None) -> float:
    return images / of if of else 0.0


def _width(share: float) -> str:
    """Of a bar, in percent."""
    return f"{100 * min(1.0, share):.1f}"


def _links(root: Path) -> list[tuple[str, str]]:
    """Text and address, relative to the page, of the other pages that are there."""
    pages = {
        "comparison of the modes": paths.REPORT_PAGE,
        "model card of the champion": paths.CARD,
        "validation of the images": paths.VALIDATION_PAGE,
    }
    here = paths.RETRAINING_PAGE.parent
    return [
        (name, Path(os.path.relpath(path, here)).as_posix())
        for name, path in pages.items()
        if (root / path).exists()
    ]
