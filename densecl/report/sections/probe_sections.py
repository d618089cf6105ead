"""One section per probe: curves or heat maps, pictures, and a table of all its measures."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from densecl.analysis.probe_results import find_measure, format_measure_place, list_measures
from densecl.analysis.results import Comparison
from densecl.pages.formatting import capitalize_first, clip_list, format_count, format_percent
from densecl.report.charts.probe_curves import STRENGTHS, draw_probe_curves
from densecl.report.charts.svg import Chart
from densecl.report.formatting import (
    TableCell,
    TableData,
    build_difference_cell,
    build_metric_cell,
    list_modes,
)
from densecl.report.sections import heat_maps, segmentation
from densecl.report.sections.heat_maps import HeatMap, build_heat_maps
from densecl.report.sections.segmentation import PictureRow, build_segmentation_pictures
from densecl.report.tables import mark_chance

TITLES = {"knn": "k nearest neighbours on frozen features", "linear": "Linear probe"}
MAX_NAMED_MEASURES = 4


@dataclass(frozen=True)
class ProbeSection:
    name: str
    title: str
    strength: str  # of its curves
    charts: tuple[Chart, ...]
    heat_maps: tuple[HeatMap, ...]
    pictures: tuple[PictureRow, ...]
    table: TableData | None  # None: no model has a measure
    notes: tuple[str, ...]  # of the probe, on what was measured
    missing: tuple[str, ...]


def build_probe_sections(comparison: Comparison, root: Path) -> list[ProbeSection]:
    """Sections of all probes of the plan, in their order."""
    return [_build_section(comparison, root, probe) for probe in comparison.plan.probes]


def _build_section(comparison: Comparison, root: Path, probe: str) -> ProbeSection:
    is_map = probe in heat_maps.PROBES
    is_segmentation = probe == segmentation.PROBE
    records = [
        record
        for mode in comparison.plan.modes
        for record in comparison.probes[probe, mode].records.values()
    ]
    return ProbeSection(
        probe,
        TITLES.get(probe, capitalize_first(probe)),
        STRENGTHS.get(probe, "strength"),
        charts=() if is_map else tuple(draw_probe_curves(comparison, probe)),
        heat_maps=tuple(build_heat_maps(comparison, probe)) if is_map else (),
        pictures=(tuple(build_segmentation_pictures(comparison, root)) if is_segmentation else ()),
        table=build_measure_table(comparison, probe),
        notes=tuple(dict.fromkeys(note for record in records for note in record.notes)),
        missing=(
            *list_missing_probes(comparison, probe),
            *list_missing_measures(comparison, probe),
        ),
    )


def build_measure_table(comparison: Comparison, probe: str) -> TableData | None:
    """All measures of a probe: scores, and differences with plain intervals, not tested here."""
    modes, pairs = list_modes(comparison), comparison.mode_pairs
    measures = list_measures(comparison, probe)
    if not measures:
        return None
    rows = tuple(
        (
            measure,
            _describe_measure(comparison, probe, measure),
            (
                *(_build_score(comparison, probe, measure, mode) for mode in modes),
                *(
                    build_difference_cell(comparison, format_measure_place(probe, measure), a, b)
                    for a, b in pairs
                ),
            ),
        )
        for measure in measures
    )
    groups = (
        ("Score, %", modes),
        ("Difference, points", tuple(f"{a} − {b}" for a, b in pairs)),
    )
    return TableData(tuple(group for group in groups if group[1]), rows)


def _build_score(comparison: Comparison, probe: str, measure: str, mode: str) -> TableCell:
    place = format_measure_place(probe, measure)
    cell = build_metric_cell(comparison.get_score(place, mode))
    return mark_chance(cell, comparison, place, mode)


def _describe_measure(comparison: Comparison, probe: str, measure: str) -> str:
    found = find_measure(comparison, probe, measure)
    if found is None:
        return ""
    parts = [
        format_count(found.images, "image"),
        "" if found.chance is None else f"chance {format_percent(found.chance)} %",
        "" if found.higher_is_better else "lower is better",
        _join_notes(comparison, probe, measure),
    ]
    return "; ".join(filter(None, parts))


def _join_notes(comparison: Comparison, probe: str, measure: str) -> str:
    """What the models' files say of a measure; counted where they differ."""
    notes = Counter(
        record.measures[measure].note
        for mode in comparison.plan.modes
        for record in comparison.probes[probe, mode].records.values()
        if measure in record.measures
    )
    if len(notes) == 1:
        return next(iter(notes))
    return "; ".join(
        f"{format_count(number, 'model')}: {note or 'no remark'}"
        for note, number in notes.most_common()
    )


def list_missing_probes(comparison: Comparison, *probes: str) -> Iterator[str]:
    """Models without a probe's results, with the reason; one line if all modes share it."""
    for probe in probes:
        lines: dict[str, list[str]] = {}
        for mode in comparison.plan.modes:
            if missing := comparison.probes[probe, mode].missing:
                lines.setdefault("; ".join(missing), []).append(mode)
        for reason, modes in lines.items():
            yield f"{probe}, {', '.join(modes)}: {reason}"


def list_missing_measures(comparison: Comparison, probe: str) -> Iterator[str]:
    """Measures that models with results of the probe lack, with the reason."""
    lines: dict[str, dict[str, None]] = {}
    for mode in comparison.plan.modes:
        for record in comparison.probes[probe, mode].records.values():
            for name, reason in record.missing.items():
                lines.setdefault(reason, {})[name] = None
    for reason, names in lines.items():
        yield f"{clip_list(list(names), MAX_NAMED_MEASURES)}: {reason}"
