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
    SHIFTED_MEAN,
    Comparison,
    build_comparison_table,
    compare_modes,
)
from densecl.analysis.differences import describe_mean
from densecl.analysis.statistics import SEEDS_FOR_MODE
from densecl.artifacts import ReportPlan, write_text
from densecl.config.params import CONTROL_SET, TRAIN_SET
from densecl.config.titles import get_title
from densecl.monitoring.training_records import NO_RECORD, TrainingRecords
from densecl.pages.formatting import format_level
from densecl.pages.templates import create_environment
from densecl.report import provenance
from densecl.report.charts import curves
from densecl.report.charts.forest import draw_forest
from densecl.report.charts.matches import MatchPicture, build_match_picture
from densecl.report.charts.mode_styles import build_variant_css, style_modes
from densecl.report.charts.scatters import draw_control_charts, has_published_fit
from densecl.report.claims import build_claim_table, format_claims_text, has_control_row
from densecl.report.class_caveats import describe_few_classes
from densecl.report.cost_sentences import (
    describe_contradictions,
    describe_cost_problem,
    describe_measurement,
)
from densecl.report.costs import build_cost_table, build_training_table
from densecl.report.dvc_exports import write_dvc_exports
from densecl.report.formatting import list_modes, list_source_files, sort_modes
from densecl.report.headline import build_headline
from densecl.report.mode_settings import OTHER_SETTINGS, SAME_SETTINGS, build_settings_table
from densecl.report.sections.dataset_sections import build_dataset_sections, build_facts_table
from densecl.report.sections.probe_sections import build_probe_sections, list_missing_probes
from densecl.report.sections.variants import (
    build_variant_set_table,
    build_variant_table,
    describe_variant_table,
)
from densecl.report.summary import (
    build_details,
    build_question,
    check_learned_position,
    describe_chance,
    describe_no_shift,
    describe_probed_modes,
    explain_terms,
)
from densecl.report.tables import (
    build_aggregate_table,
    build_corruption_table,
    build_dataset_metrics,
    build_difference_table,
    build_extra_metrics,
    build_masking_table,
    build_model_table,
    format_plain_text,
)
from densecl.report.training_results import TrainingResults, read_training_results
from densecl.report.tuning import describe_tuning
from densecl.report.verdicts import describe_families

TEMPLATES = Path(__file__).parent / "templates"
NO_RECORDS = TrainingRecords({}, NO_RECORD)


def write_report(
    plan: ReportPlan, root: Path = Path(), records: TrainingRecords = NO_RECORDS
) -> str:
    """Write comparison.csv, report.html, report.md, metrics/ and plots/; return the aggregate table
    and the summary as plain text.
    """
    results = read_training_results(plan, root, records)
    comparison = compare_modes(plan, root, results.cost)
    text = build_comparison_table(comparison).to_csv(
        index=False, float_format="%.10g", lineterminator="\n"
    )
    write_text(root / paths.COMPARISON, text)
    write_dvc_exports(comparison, results.cost, results.histories, root)
    context = build_context(comparison, results, root)
    for path in (paths.REPORT_PAGE, paths.REPORT_TEXT):
        write_text(root / path, render_page(path.name, context))
    missing = [f"Missing: {line}" for line in context["missing"]]
    claims = format_claims_text(context["claims"])
    return "\n".join(
        [
            *context["answer"],
            "",
            *([claims, ""] if claims else []),
            format_plain_text(context["aggregate"]),
            "",
            *context["details"],
            *missing,
        ]
    )


def render_page(name: str, context: Mapping[str, Any]) -> str:
    """Render a template; `script_hash` is that of the only script that the page's policy allows."""
    from markupsafe import Markup

    environment = create_environment(TEMPLATES, markdown=name.endswith(".md"))
    environment.filters["files"] = list_source_files
    styles = style_modes(context["plan"].modes)
    environment.filters["key"] = lambda mode: styles[mode].css_class
    environment.filters["variable"] = lambda mode: styles[mode].variable
    script = (TEMPLATES / "sort.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template(name).render(
        context,
        variant_css=Markup(build_variant_css()),  # noqa: S704 - our own
        script=Markup(script),  # noqa: S704 - our own
        script_hash=f"sha256-{digest}",
    )


def build_context(comparison: Comparison, results: TrainingResults, root: Path) -> dict[str, Any]:
    """By the names that the templates use."""
    plan = comparison.plan
    metric_table, omitted = build_dataset_metrics(comparison)
    hashes, no_hashes = provenance.build_artifact_table(plan, root)
    return {
        "question": build_question(comparison),
        "answer": build_headline(comparison),
        "claims": build_claim_table(comparison),
        "details": [
            *describe_no_shift(comparison),
            *describe_chance(comparison),
            *build_details(comparison),
            *(describe_tuning(plan) if len(plan.main_modes) > 1 or "tuning" in plan.params else ()),
        ],
        "missing": list_missing_cells(comparison),
        "modes": list_modes(comparison),
        "seeds": plan.seeds,
        "plan": plan,
        "mean_row": SHIFTED_MEAN,
        "is_shifted": bool(comparison.shifted_sets),
        "level": format_level(plan.values.confidence),
        "families": describe_families(comparison),
        "control_row": has_control_row(comparison),
        "glossary": explain_terms(plan),
        "mean": describe_mean(comparison, plan.titles),
        "rendered": [title for name, title in plan.titles.items() if name in plan.rendered],
        "aggregate": build_aggregate_table(comparison),
        "differences": build_difference_table(comparison) if comparison.mode_pairs else None,
        "other_models": build_model_table(comparison),
        "costs": build_cost_table(plan, results),
        "cost_note": describe_measurement(results.cost),
        "masks": build_masking_table(comparison),
        "further": build_extra_metrics(comparison),
        "special": metric_table,
        "corruptions": build_corruption_table(comparison),
        "left_out": omitted,
        "sets": build_dataset_sections(comparison, root),
        "forest": draw_forest(comparison),
        "probes": build_probe_sections(comparison, root),
        "scatters": draw_control_charts(comparison),
        "fitted": has_published_fit(comparison),
        "curves": curves.build_curve_groups(results.histories, plan.titles),
        "max_seeds": curves.MAX_SEEDS,
        "pictures": build_match_pictures(plan, root),
        "control": get_title(plan.params, CONTROL_SET),
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
        "variants": build_variant_table(comparison, results),
        "variant_sets": build_variant_set_table(comparison),
        "variant_note": describe_variant_table(comparison),
        "settings": build_settings_table(plan),
        "settings_note": OTHER_SETTINGS if build_settings_table(plan) else SAME_SETTINGS,
        "tuning": " ".join(describe_tuning(plan)),
        "parameters": provenance.build_params_table(plan),
    }


def build_match_pictures(plan: ReportPlan, root: Path) -> list[MatchPicture]:
    """Of the first seed of each mode that left one."""
    files = {
        m: root / paths.training_folder(m, plan.seeds[0]) / "matches.safetensors"
        for m in sort_modes(plan.modes)
    }
    return [build_match_picture(mode, path) for mode, path in files.items() if path.exists()]


def list_missing_cells(comparison: Comparison) -> list[str]:
    """Missing cells of the plan with the reason; one line if all modes share it."""
    lines: dict[tuple[str, str], list[str]] = {}
    for (dataset, mode), cell in comparison.cells.items():
        if cell.missing:
            lines.setdefault((dataset, cell.note), []).append(mode)
    titles = comparison.plan.titles
    datasets = [
        f"{titles[name]}, {', '.join(modes)}: {note}" for (name, note), modes in lines.items()
    ]
    return [*datasets, *list_missing_probes(comparison, *comparison.plan.probes)]
