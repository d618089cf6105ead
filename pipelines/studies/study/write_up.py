"""`reports/study.html` and `study.md`: question, protocol, results per claim, limits, cost."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from densecl import paths
from densecl.analysis.claims import list_claims, list_pairs
from densecl.analysis.comparison import compare_modes
from densecl.analysis.results import Comparison
from densecl.artifacts import ReportPlan, read_json, write_text
from densecl.cost.result import CostReport
from densecl.pages.formatting import format_level, format_percent, format_points
from densecl.pages.templates import create_environment
from densecl.report.claims import build_claim_cell, describe_claim
from densecl.report.headline import build_headline
from densecl.report.sentences import describe_limits
from densecl.report.summary import build_details
from densecl.report.tuning import describe_tuning
from densecl.runtime.hardware import count_cores
from pipelines.studies.ablation.factors import plan_ablation
from pipelines.studies.ablation.page import FEW_SEEDS_HIDE
from pipelines.studies.study.keep import read_seconds
from pipelines.studies.study.protocol import CodeState, Protocol, list_deviations
from pipelines.studies.study.study_file import StudyFile

# What holds of every study of this kind.
GENERAL_LIMITS = (
    "Values were chosen by top-1 on held-back training images, thus for accuracy on images like "
    "those of training, not for robustness.",
    "A claim without a verdict is open: it is not shown that the modes are equal.",
)


def write_study(file: Path, study: StudyFile, protocol: Protocol, end: CodeState) -> None:
    """Write the page and the text, from the report's plan and the tables that the study keeps."""
    plan = read_json(ReportPlan, paths.plan_file("report"))
    cost = read_json(CostReport, paths.COST) if paths.COST.exists() else None
    comparison = compare_modes(plan, Path(), cost)
    seeds = min(study.ablation_seeds, len(plan.seeds))
    context = {
        "study": study,
        "name": file.stem,
        "file": file,
        "protocol": protocol,
        "end": end,
        "deviations": list_deviations(file, study, protocol, end),
        "answer": build_headline(comparison),
        "details": [*describe_tuning(plan), *build_details(comparison)],
        "claims": list_results(comparison, protocol.expected),
        "gains": list_gains(file.stem),
        "ablations": list_ablations(file.stem) if study.ablations else [],
        "absent": list_absent(file.stem, study),
        "ablation_seeds": seeds,
        "warning": describe_limits(seeds, FEW_SEEDS_HIDE),
        "limits": [*study.limits, *GENERAL_LIMITS],
        "times": list_times(file.stem),
        "seeds": len(plan.seeds),
        "level": format_level(plan.values.confidence),
    }
    templates = Path(__file__).parents[1] / "templates"
    for place, is_markdown in ((paths.STUDY_PAGE, False), (paths.STUDY_TEXT, True)):
        environment = create_environment(templates, markdown=is_markdown)
        template = environment.get_template("study.md" if is_markdown else "study.html")
        write_text(place, template.render(context))


def list_results(comparison: Comparison, expected: Mapping[str, str]) -> list[dict[str, Any]]:
    """One entry per claim and pair of modes, with what the protocol expected of it; a claim without
    a measurement too, and what was expected of one that the report does not have.
    """
    claims = list_claims(comparison)
    entries = []
    for claim in claims:
        for position, (a, b) in enumerate(list_pairs(comparison)):
            cell = build_claim_cell(comparison, claim, (a, b))
            entries.append(
                {
                    "claim": claim.name,
                    "about": describe_claim(comparison, claim),
                    "pair": f"{a} − {b}",
                    "verdict": "not measured" if cell.missing else cell.verdict,
                    "points": "–" if cell.missing else cell.main,
                    "interval": cell.sub,  # why, where it is not measured
                    # Stated of the claim, not of a pair.
                    "expected": expected.get(claim.name, "nothing stated")
                    if position == 0
                    else "–",
                }
            )
    absent = [name for name in expected if name not in {claim.name for claim in claims}]
    blank = {"about": "", "pair": "–", "verdict": "not measured", "points": "–", "interval": ""}
    return [*entries, *({"claim": n, **blank, "expected": expected[n]} for n in absent)]


def list_gains(name: str) -> list[dict[str, str]]:
    """What tuning gained, by mode, on the held-back images that confirm."""
    # As text: a count stays one beside empty cells.
    path = paths.study_folder(name) / "sweep.csv"
    trials = pd.read_csv(path, dtype=str, keep_default_na=False)
    gains = []
    for mode, own in trials.groupby("mode", sort=False):
        first, best = own[own["index"] == "0"].iloc[0], own[own["chosen"] == "True"].iloc[0]
        keys = [column for column in own.columns if "." in column and best[column]]
        before, after = (
            None if trial["failure"] else float(trial["top1_confirm"]) for trial in (first, best)
        )
        gains.append(
            {
                "mode": str(mode),
                "trials": str(len(own)),
                "first": "did not finish" if before is None else format_percent(before),
                "best": "did not finish" if after is None else format_percent(after),
                "gain": "–" if before is None or after is None else format_points(after - before),
                "chosen": ", ".join(f"{key} {best[key]}" for key in keys) or "as in the params",
            }
        )
    return gains


def list_ablations(name: str) -> list[dict[str, str]]:
    """One entry per variant and claim; none where no variant ran."""
    path = paths.study_folder(name) / "ablations.csv"
    if not path.exists():
        return []
    table = pd.read_csv(path, keep_default_na=False)
    return [
        {
            "factor": row["factor"],
            "variant": row["variant"],
            "changes": row["changes"],
            "claim": row["claim"],
            "points": format_points(float(row["value"])),
            "interval": " to ".join(format_points(float(row[end])) for end in ("low", "high")),
            "verdict": row["verdict"] or "not tested",
        }
        for row in table.to_dict("records")
    ]


def list_absent(name: str, study: StudyFile) -> list[str]:
    """The variants that did not run with the tuned values, with the reason."""
    tuned = paths.study_folder(name) / "params-tuned.yaml"
    return plan_ablation(Path(study.ablations), tuned).list_absent() if study.ablations else []


def list_times(name: str) -> list[tuple[str, str]]:
    """Wall time of each part, over all interruptions, and of what machine."""
    seconds = read_seconds(name)
    times = [(part, f"{value / 60:.0f} min") for part, value in sorted(seconds.items())]
    machine = f"{count_cores()} cores of {sys.platform}"
    return [*times, ("in all", f"{sum(seconds.values()) / 60:.0f} min, {machine}")]
