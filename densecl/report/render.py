"""Write the long table, the page and the pull-request text from one comparison; equal inputs give
equal bytes.
"""

import base64
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from densecl import paths
from densecl.analysis.comparison import (
    BASELINE,
    SHIFTED_MEAN,
    Comparison,
    build_comparison_table,
    compare_modes,
)
from densecl.analysis.statistics import SEEDS_FOR_MODE
from densecl.artifacts import ReportPlan, write_text
from densecl.config.params import CONTROL_SET, TRAIN_SET
from densecl.monitoring.training_records import NO_RECORD, TrainingRecords
from densecl.pages.templates import create_environment
from densecl.report import provenance
from densecl.report.charts import curves
from densecl.report.charts.matches import MatchPicture, build_match_picture
from densecl.report.charts.scatters import draw_control_charts, draw_forest, has_published_fit
from densecl.report.charts.svg import COLOURS
from densecl.report.class_caveats import describe_few_classes
from densecl.report.cost_sentences import (
    describe_contradictions,
    describe_cost_problem,
    describe_measurement,
)
from densecl.report.costs import build_cost_table, build_training_table
from densecl.report.dvc_exports import write_dvc_exports
from densecl.report.formatting import list_modes, list_source_files
from densecl.report.sections.dataset_sections import build_dataset_sections, build_facts_table
from densecl.report.summary import (
    build_details,
    build_headline,
    check_learned_position,
    describe_probed_modes,
)
from densecl.report.tables import (
    build_aggregate_table,
    build_corruption_table,
    build_dataset_metrics,
    build_difference_table,
    build_extra_metrics,
    build_masking_table,
    format_plain_text,
)
from densecl.report.training_results import TrainingResults, read_training_results
from densecl.report.verdicts import describe_families

TEMPLATES = Path(__file__).parent / "templates"
NO_RECORDS = TrainingRecords({}, NO_RECORD)


def write_report(
    plan: ReportPlan, root: Path = Path(), records: TrainingRecords = NO_RECORDS
) -> str:
    """Write comparison.csv, report.html, report.md, metrics/ and plots/; return the aggregate table
    and the summary as plain text.
    """
    comparison = compare_modes(plan, root)
    text = build_comparison_table(comparison).to_csv(
        index=False, float_format="%.10g", lineterminator="\n"
    )
    write_text(root / paths.COMPARISON, text)
    results = read_training_results(plan, root, records)
    write_dvc_exports(comparison, results.cost, results.histories, root)
    context = build_context(comparison, results, root)
    for path in (paths.REPORT_PAGE, paths.REPORT_TEXT):
        write_text(root / path, render_page(path.name, context))
    missing = [f"Missing: {line}" for line in context["missing"]]
    return "\n".join(
        [
            format_plain_text(context["aggregate"]),
            "",
            *context["answer"],
            *context["details"],
            *missing,
        ]
    )


def render_page(name: str, context: Mapping[str, Any]) -> str:
    """Render a template; `script_hash` is that of the only script that the page's policy allows."""
    from markupsafe import Markup

    environment = create_environment(TEMPLATES, markdown=name.endswith(".md"))
    environment.filters["files"] = list_source_files
    script = (TEMPLATES / "sort.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template(name).render(
        context,
        script=Markup(script),  # noqa: S704 - our own
        script_hash=f"sha256-{digest}",
    )


def build_context(comparison: Comparison, results: TrainingResults, root: Path) -> dict[str, Any]:
    """By the names that the templates use."""
    plan = comparison.plan
    baseline = BASELINE if BASELINE in plan.modes else None
    metric_table, omitted = build_dataset_metrics(comparison)
    hashes, no_hashes = provenance.build_artifact_table(plan, root)
    return {
        "answer": build_headline(comparison, results.cost),
        "details": build_details(comparison),
        "missing": list_missing_cells(comparison),
        "modes": list_modes(comparison),
        "seeds": plan.seeds,
        "plan": plan,
        "mean_row": SHIFTED_MEAN,
        "level": f"{100 * plan.values.confidence:g}",
        "families": describe_families(comparison),
        "judged_mean": SHIFTED_MEAN in comparison.judged_places,
        "mean": comparison.rows[SHIFTED_MEAN, plan.modes[0], "top1"].note,
        "rendered": [s for s in plan.datasets if s in plan.rendered],
        "baseline": baseline,
        "aggregate": build_aggregate_table(comparison),
        "differences": build_difference_table(comparison) if comparison.mode_pairs else None,
        "costs": build_cost_table(plan, results),
        "cost_note": describe_measurement(results.cost),
        "masks": build_masking_table(comparison),
        "further": build_extra_metrics(comparison),
        "special": metric_table,
        "corruptions": build_corruption_table(comparison),
        "left_out": omitted,
        "sets": build_dataset_sections(comparison, root),
        "forest": draw_forest(comparison, BASELINE) if baseline else None,
        "scatters": draw_control_charts(comparison),
        "fitted": has_published_fit(comparison),
        "curves": curves.build_curve_groups(results.histories),
        "pictures": build_match_pictures(plan, root),
        "control": CONTROL_SET,
        "seeds_for_mode": SEEDS_FOR_MODE,
        "cautions": [
            *describe_cost_problem(results.cost),
            *describe_contradictions(results),
            *describe_few_classes(comparison, root),
            *check_learned_position(plan, results.histories),
            *describe_probed_modes(plan),
        ],
        "training_images": build_facts_table(comparison, root, TRAIN_SET),
        "apart": provenance.build_seed_table(comparison),
        "trainings": build_training_table(plan, results),
        "code": provenance.build_environment_table(root),
        "hashes": hashes,
        "no_hashes": no_hashes,
        "parameters": provenance.build_params_table(plan),
    }


def build_match_pictures(plan: ReportPlan, root: Path) -> list[MatchPicture]:
    """Of the first seed of each mode that left one."""
    files = {
        m: root / paths.training_folder(m, plan.seeds[0]) / "matches.safetensors"
        for m in COLOURS
        if m in plan.modes
    }
    return [build_match_picture(mode, path) for mode, path in files.items() if path.exists()]


def list_missing_cells(comparison: Comparison) -> list[str]:
    """Missing cells of the plan with the reason; one line if all modes share it."""
    lines: dict[tuple[str, str], list[str]] = {}
    for (dataset, mode), cell in comparison.cells.items():
        if cell.missing:
            lines.setdefault((dataset, cell.note), []).append(mode)
    return [f"{dataset}, {', '.join(modes)}: {note}" for (dataset, note), modes in lines.items()]
