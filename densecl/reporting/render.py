"""The long table, the page and the pull-request text, all from one comparison; the same inputs give the same bytes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import pandas as pd

from densecl import layout
from densecl.params import CONTROL_SET, Contrast
from densecl.records import Cost, ReportPlan, read_json, write_text
from densecl.reporting import curves, figures
from densecl.reporting.cells import incompleteness
from densecl.reporting.comparison import BASELINE, MEAN, Comparison, Row, called, compare, table
from densecl.reporting.matches import Picture, picture
from densecl.reporting.statistics import SEEDS_FOR_MODE

# What the method's description expects against classification-only training on one view: time, memory.
EXPECTED = {"dense": ("1.4 to 1.6 ×", "2 to 3 ×"), "global": ("1.2 to 1.3 ×", "1.5 ×"), "none": ("", "")}
SIGN = {1: "above", -1: "below"}


@dataclass(frozen=True)
class Number:
    """One entry of a table: what stands large, what stands small below it, and the files it came from."""

    main: str
    sub: str = ""
    source: str = ""
    mark: int = 0  # +1 or -1: told apart from the baseline; 0: not, or nothing to tell
    missing: bool = False


@dataclass(frozen=True)
class Table:
    groups: tuple[tuple[str, tuple[str, ...]], ...]  # heading, columns below it
    rows: tuple[tuple[str, str, tuple[Number, ...]], ...]  # label, small text below it, entries


def write_report(plan: ReportPlan, root: Path = Path()) -> str:
    """The aggregate table and the answer as plain text; writes comparison.csv, report.html and report.md under `root`."""
    found = compare(plan, root)
    text = table(found).to_csv(index=False, float_format="%.10g", lineterminator="\n")
    write_text(root / layout.COMPARISON, text)
    page = _page(found, root)
    for name, path in (("report.html", layout.REPORT_PAGE), ("report.md", layout.REPORT_TEXT)):
        write_text(root / path, _environment(name).get_template(name).render(page))
    missing = [f"Missing: {line}" for line in page["missing"]]
    return "\n".join([_plain(page["aggregate"]), "", *page["answer"], *missing])


def _environment(name: str) -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    html = name.endswith(".html")
    return Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=html,  # noqa: S701 - the text for pull requests is made harmless by _markdown
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=None if html else _markdown,
    )


def _markdown(value: object) -> object:
    """Text that cannot become markup in a pull request, also inside a table; what a macro made stays as it is."""
    from markupsafe import Markup

    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return re.sub(r"([\\`*\[\]<>|])", r"\\\1", value.replace("\n", " "))


def _page(found: Comparison, root: Path) -> dict[str, Any]:
    plan, costs, histories = found.plan, *_training(found.plan, root)
    missing = [f"{s}, {m}: {cell.note}" for (s, m), cell in found.cells.items() if cell.missing]
    baseline = BASELINE if BASELINE in plan.modes else None
    special, left_out = _special(found)
    return {
        "answer": answer(found), "tiles": _tiles(found), "cost_answer": _cost_answer(costs), "missing": missing,
        "modes": [m for m in figures.COLOURS if m in plan.modes], "seeds": plan.seeds, "plan": plan,
        "level": f"{100 * plan.values.confidence:g}", "samples": plan.values.bootstrap_samples, "mean": _mean_note(found),
        "rendered": [s for s in plan.datasets if s in plan.rendered], "baseline": baseline,
        "aggregate": _aggregate(found), "costs": _cost_table(plan, costs), "masks": _masks(found),
        "further": _further(found), "special": special, "left_out": left_out,
        "data": _data(found), "parameters": list(_flat(plan.params)),
        "forest": figures.forest(found, BASELINE) if baseline else None, "curves": curves.training(histories),
        "control": CONTROL_SET, "seeds_for_mode": SEEDS_FOR_MODE, "pictures": _pictures(plan, root),
        "cautions": [*_learned_position(histories), *_probed(plan)],
    }  # fmt: skip


def _training(plan: ReportPlan, root: Path) -> tuple[dict[str, list[Cost]], dict[str, list[pd.DataFrame]]]:
    """Costs and histories that are there, by mode; absence shows as an empty list."""
    costs: dict[str, list[Cost]] = {m: [] for m in plan.modes}
    histories: dict[str, list[pd.DataFrame]] = {m: [] for m in plan.modes}
    for mode in plan.modes:
        for seed in plan.seeds:
            folder = root / layout.training(mode, seed)
            if (folder / "cost.json").exists():
                costs[mode].append(read_json(Cost, folder / "cost.json"))
            if (folder / "history.csv").exists():
                histories[mode].append(pd.read_csv(folder / "history.csv"))
    return costs, histories


def _pictures(plan: ReportPlan, root: Path) -> list[Picture]:
    """Of the first seed of each mode that left one."""
    places = {
        m: root / layout.training(m, plan.seeds[0]) / "matches.safetensors" for m in figures.COLOURS if m in plan.modes
    }
    return [picture(mode, path) for mode, path in places.items() if path.exists()]


def _learned_position(histories: Mapping[str, list[pd.DataFrame]]) -> list[str]:
    """Of dense, where matches of flipped or shifted views are no better than the same index."""
    said = []
    for frame in histories.get("dense", []):
        if "match/dense/moved0" not in frame:
            continue
        found, same = frame[["match/dense/moved0", "match/identity/moved0"]].iloc[-1]
        if found <= same:
            said.append(
                f"Matching has learned position, not content: of flipped or shifted views {_percent(found)} % of the patches "
                f"are matched to their true place, and {_percent(same)} % by the same index."
            )
    return said


def _probed(plan: ReportPlan) -> list[str]:
    contrast = Contrast.model_validate_json(json.dumps(plan.params.get("contrast", {})))
    alone = [m for m in plan.modes if (of := contrast.of(m)) is not None and of.lambda_weight == 1]
    return [f"{m} trained no classifier (lambda 1): a linear probe on its frozen features is evaluated." for m in alone]


def answer(found: Comparison) -> list[str]:
    """The question answered in sentences that claim no more than intervals and corrected p-values allow."""
    modes, sets = found.plan.modes, found.whole
    scope = MEAN if sets else CONTROL_SET
    where = f"Averaged over {len(sets)} shifted set{'s'[: len(sets) != 1]}" if sets else f"On {CONTROL_SET} alone"
    if len(modes) == 1:
        row = found.get(scope, modes[0], "top1")
        score = f"{where}, it has a top-1 of {_percent(row.value)} %." if row and row.value is not None else ""
        return [f"There is only the mode {modes[0]}, so there is nothing to compare. {score}".strip()]
    clauses = [c for mode in modes if (c := _clause(found, scope, mode))]
    if not clauses:
        return [
            "No set was evaluated for two modes alike, so they cannot be compared; the missing cells are listed below."
        ]
    by_set = [c for a, b in found.pairs for sign in (1, -1) if (c := _named(found, a, b, sign))]
    every = "Set by set, after Holm's correction, " + ("; ".join(by_set) or "no single set tells two modes apart") + "."
    return [f"{where}, {'; '.join(clauses)}.", *_power(found, scope), every, _scope(found.plan.seeds)]


def _power(found: Comparison, scope: str) -> list[str]:
    """What "cannot be told from" rules out."""
    open_ = [(a, b) for a, b in found.pairs if not called(found, scope, a, b)]
    rows = [found.get(scope, a, f"difference_to_{b}_detectable") for a, b in open_]
    values = [row.value for row in rows if row and row.value is not None]
    if not values:
        return []
    return [f"Where two cannot be told apart: no difference of {_percent(max(values))} points or more would have been missed there "
            "(at 80 % power); a smaller one may be."]  # fmt: skip


def _clause(found: Comparison, scope: str, first: str) -> str:
    said = []
    for second in (b for a, b in found.pairs if a == first):
        row = found.get(scope, first, f"difference_to_{second}")
        if row is None or row.value is None:
            continue
        sign = called(found, scope, first, second)
        away = f"is {_percent(abs(row.value))} points {SIGN[sign]}" if sign else "cannot be told from"
        said.append(f"{away} {second}")
    return f"{first} {_joined(said)}" if said else ""


def _named(found: Comparison, first: str, second: str, sign: int) -> str:
    sets = [s for s in found.plan.datasets if called(found, s, first, second) == sign]
    return f"{first} is {SIGN[sign]} {second} on {', '.join(sets)}" if sets else ""


def _joined(clauses: Sequence[str]) -> str:
    return clauses[0] if len(clauses) == 1 else f"{', '.join(clauses[:-1])} and {clauses[-1]}"


def _scope(seeds: Sequence[int]) -> str:
    if len(seeds) >= SEEDS_FOR_MODE:
        return f"From {len(seeds)} seeds, so this speaks of the modes, trained this way on this data."
    names = f"one seed ({seeds[0]})" if len(seeds) == 1 else f"{len(seeds)} seeds"
    return f"From {names}, so this speaks of these models, not of the modes: another seed may order them differently."


def _mean_note(found: Comparison) -> str:
    row = found.get(MEAN, found.plan.modes[0], "top1")
    return row.note if row else ""


def _tiles(found: Comparison) -> list[tuple[str, Number]]:
    scope = MEAN if found.whole else CONTROL_SET
    tiles = [(f"{a} − {b}", _difference(found, scope, a, b)) for a, b in found.pairs]
    return [tile for tile in tiles if not tile[1].missing]


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}".replace("-", "−")


def _points(value: float) -> str:
    return f"{100 * value:+.1f}".replace("-", "−")


def _p(value: float) -> str:
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"


def _source(row: Row) -> str:
    if not row.seeds or row.dataset == MEAN:
        return str(layout.COMPARISON)
    return ", ".join(str(layout.predictions(row.dataset, row.mode, int(s))) for s in row.seeds.split())


def _number(row: Row | None, signed: bool = False) -> Number:
    if row is None:
        return Number("–")
    if row.value is None:
        return Number("missing", row.note, missing=True)
    show = _points if signed else _percent
    between = ""
    if row.low is not None and row.high is not None:
        between = f"{show(row.low)}{' to ' if signed or row.low < 0 else '–'}{show(row.high)}"
    partly = "seeds " + row.seeds.replace(" ", ", ") + " only" if "seed " in row.note and row.dataset != MEAN else ""
    return Number(show(row.value), "; ".join(t for t in (between, partly) if t), _source(row))


def _difference(found: Comparison, dataset: str, first: str, second: str) -> Number:
    metric = f"difference_to_{second}"
    number, p = _number(found.get(dataset, first, metric), signed=True), found.get(dataset, first, f"{metric}_p_holm")
    if p is None or p.value is None:
        return number
    files = number.source if dataset == MEAN else f"{number.source} and {number.source.replace(first, second)}"
    return Number(number.main, f"{number.sub}; {_p(p.value)}", files, called(found, dataset, first, second))


def _aggregate(found: Comparison) -> Table:
    modes: tuple[str, ...] = tuple(m for m in figures.COLOURS if m in found.plan.modes)
    pairs = found.pairs if BASELINE in modes else []
    rows: list[tuple[str, str, tuple[Number, ...]]] = []
    for dataset in (*found.plan.datasets, MEAN):
        entries = [_number(found.get(dataset, m, "top1")) for m in modes]
        entries += [_difference(found, dataset, a, b) for a, b in pairs]
        entries += [_number(found.get(dataset, m, "drop")) for m in modes]
        rows.append((dataset, _about(found, dataset), tuple(entries)))
    groups: list[tuple[str, tuple[str, ...]]] = [("Top-1, %", modes)]
    if pairs:
        groups.append(("Difference, points", tuple(f"{a} − {b}" for a, b in pairs)))
    return Table((*groups, ("Drop from the control, points", modes)), tuple(rows))


def _about(found: Comparison, dataset: str) -> str:
    records = [r for m in found.plan.modes if dataset != MEAN for r in found.cells[dataset, m].records.values()]
    if not records:
        return f"of {len(found.whole)} sets" if dataset == MEAN else found.cells[dataset, found.plan.modes[0]].note
    return "; ".join([f"{records[0].images:,} images, {records[0].classes} classes", *incompleteness(records[0])])


def _masks(found: Comparison) -> Table:
    modes: tuple[str, ...] = tuple(m for m in figures.COLOURS if m in found.plan.modes)
    groups = (("Masked: the set's own classes, %", modes), ("Unmasked: all classes, %", modes))
    return Table(groups, tuple(
        (s, _about(found, s), tuple(_number(found.get(s, m, k)) for k in ("top1", "top1_unmasked") for m in modes))
        for s in found.plan.datasets
    ))  # fmt: skip


def _further(found: Comparison) -> Table:
    return _by_cell(found, {
        "top5": "Top-5, %", "macro_top1": "Mean of classes, %", "mean_confidence": "Confidence, %",
        "ece": "Calibration error, points", "ece_equal_mass": "the same, bins of equal mass",
        "rms_calibration_error": "RMS calibration error, points", "aurra": "AURRA, %", "nll": "Log loss, nats",
    })  # fmt: skip


SPECIAL = {
    "relative_accuracy": "Share of the control's top-1, %", "effective_robustness": "Effective robustness, points",
    "shape_bias": "Shape bias, %",
}  # fmt: skip


def _special(found: Comparison) -> tuple[Table, list[str]]:
    """Figures that only some sets have, and why one that no set has is left out."""
    rows = {k: [r for (_, _, metric), r in found.rows.items() if metric == k] for k in SPECIAL}
    shown = {k: title for k, title in SPECIAL.items() if any(r.value is not None for r in rows[k])}
    reasons = {
        SPECIAL[k].split(",")[0]: dict.fromkeys(r.note for r in rows[k] if r.note)
        for k in SPECIAL.keys() - shown.keys()
    }
    return _by_cell(found, shown), [
        f"{title} is left out: {'; '.join(why)}." for title, why in sorted(reasons.items()) if why
    ]


def _by_cell(found: Comparison, shown: Mapping[str, str]) -> Table:
    rows = []
    for s in found.plan.datasets:
        for m in (m for m in figures.COLOURS if m in found.plan.modes):
            entries = [_further_number(found.get(s, m, k), k) for k in shown]
            rows.append((s, m, tuple(entries)))
    return Table((("", tuple(shown.values())),), tuple(rows))


def _further_number(row: Row | None, metric: str) -> Number:
    if row is not None and row.value is not None and row.low is not None:
        return _number(row, signed=metric == "effective_robustness")
    if row is None or row.value is None:
        return _number(row)
    files = ", ".join(str(layout.evaluation(row.dataset, row.mode, int(s))) for s in row.seeds.split())
    return Number(f"{row.value:.3f}" if metric == "nll" else _percent(row.value), "", files)


def _cost_answer(costs: Mapping[str, list[Cost]]) -> str:
    clauses = [
        f"{m} took {_ratio(several, 'none_step_seconds')} the time of {BASELINE} at equal views"
        for m, several in costs.items() if several and m != BASELINE
    ]  # fmt: skip
    return f"For a training step, {_joined(clauses)}." if clauses else ""


def _milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:,.0f}" if seconds >= 0.1 else f"{1000 * seconds:.3g}"


def _ratio(costs: Sequence[Cost], against: str) -> str:
    return f"{fmean(c.step_seconds / getattr(c, against) for c in costs):.2f}\u00a0×"


def _cost_table(plan: ReportPlan, costs: Mapping[str, list[Cost]]) -> Table:
    groups = (
        ("Step time", ("ms", "against none, equal views", "against one view", "expected, one view")),
        ("Peak memory", ("GiB", "against none, equal views", "expected, one view")),
        ("Training", ("images/s", "minutes", "memory entries", "device")),
    )
    rows = []
    for mode in sorted(plan.modes, key=list(figures.COLOURS).index):
        several = costs[mode]
        files = ", ".join(str(layout.training(mode, s) / "cost.json") for s in plan.seeds)
        found = _cost_entries(mode, several, costs.get(BASELINE, [])) if several else ["missing"] * 11
        about = "" if several else f"no file {files}"
        rows.append((mode, about, tuple(Number(t, "", files, missing=t == "missing") for t in found)))
    return Table(groups, tuple(rows))


def _cost_entries(mode: str, costs: Sequence[Cost], none: Sequence[Cost]) -> list[str]:
    def mean(name: str, of: Sequence[Cost] = costs) -> float:
        return fmean(getattr(c, name) for c in of)

    memory = f"{mean('peak_memory_bytes') / mean('peak_memory_bytes', none):.2f} ×" if none else "–"
    time, space = EXPECTED[mode]
    return [
        _milliseconds(mean("step_seconds")), _ratio(costs, "none_step_seconds"), _ratio(costs, "one_view_step_seconds"),
        time or "–",
        f"{mean('peak_memory_bytes') / 2**30:.2f}", memory, space or "–",
        f"{mean('images_per_second'):,.0f}", f"{mean('wall_seconds') / 60:.1f}",
        f"{mean('queue_size_effective'):,.0f}",
        ", ".join(dict.fromkeys(c.device for c in costs)),
    ]  # fmt: skip


def _data(found: Comparison) -> list[tuple[str, str, str, str, str]]:
    """Set, size, what it is, folder, preprocessing."""
    roots, rows = found.plan.params.get("datasets", {}), []
    for s in found.plan.datasets:
        records = [r for m in found.plan.modes for r in found.cells[s, m].records.values()]
        size = _about(found, s) + (f", {records[0].excluded} excluded" if records and records[0].excluded else "")
        rule = dict.fromkeys(
            f"{r.protocol}: {r.preprocessing.rule}, {r.preprocessing.input_size[-1]} px" for r in records
        )
        kind = "built-in drawn images" if s in found.plan.rendered else "images from a folder"
        folder = str(roots[s].get("root", "")) if isinstance(roots.get(s), dict) else ""
        rows.append((s, size, kind, folder, "; ".join(rule) or "–"))
    return rows


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", "–" if value is None else str(value)


def _plain(shown: Table) -> str:
    """Aligned columns for a terminal; a star where two modes are told apart."""
    head = ["set", *(f"drop {c}" if g.startswith("Drop") else c for g, columns in shown.groups for c in columns)]
    lines = [head]
    for label, _, entries in shown.rows:
        lines.append([label, *(f"{n.main} ({n.sub.split(';')[0]}){' *' * bool(n.mark)}" if n.main[0] in "+−" and n.sub
                               else n.main for n in entries)])  # fmt: skip
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )
