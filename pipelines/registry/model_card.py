"""The model card of a version (headings after Mitchell et al. 2019); every number is read from the
files of its run.
"""

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup

from densecl import paths
from densecl.analysis.dvc_lock import compute_md5
from densecl.artifacts import (
    MissingEvaluation,
    ValidationResult as ValidationVerdict,
    read_evaluation,
    read_json,
    write_text,
)
from densecl.config.flatten import flatten
from densecl.config.params import TRAIN_SET, Params
from densecl.cost.result import CostReport, format_ratio
from densecl.monitoring.training_records import read_training_records
from densecl.pages.formatting import format_level, format_percent
from densecl.pages.templates import create_environment
from pipelines.gate.trials import describe_trials
from pipelines.registry import registry
from pipelines.schemas import GateVerdict, RegisteredVersion

MISSING = "–"
NAMED_CLASSES = 10  # that are named
LINEAGE_TAGS = ("fingerprint", "git", "zenml_run", "mlflow_run", "dvc_md5")


def attach_card(
    params: Params, registered: RegisteredVersion, verdict: GateVerdict, tags: Mapping[str, str]
) -> None:
    """Attach the card to the version, also to a rejected one, which can be promoted by hand."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / paths.MODEL_CARD.name
        write_text(file, render_card(params, registered, verdict, tags))
        registry.attach_file(registered.name, registered.version, file)


def render_card(
    params: Params, registered: RegisteredVersion, verdict: GateVerdict, tags: Mapping[str, str]
) -> str:
    """The card as Markdown."""
    mode, seed = verdict.mode, verdict.seed
    config = json.loads(
        (paths.model_folder(mode, seed) / "config.json").read_text(encoding="utf-8")
    )
    templates = create_environment(Path(__file__).parent / "templates", markdown=True)
    plan = json.loads(paths.plan_file(mode).read_text(encoding="utf-8"))
    files = sorted(key for key in tags if key.startswith(("sha256.", "md5 ")))
    table = pd.read_csv(paths.COMPARISON, dtype={"seeds": str})
    rows = _collect_results(params, table[table["mode"] == mode], mode, seed)
    return templates.get_template(
        "card.md"
    ).render(
        registered=registered,
        name=Markup(registered.name),  # noqa: S704 - of a known pattern, in a block of code
        verdict=verdict,
        config=config,
        mode=mode,
        seed=seed,
        data=_collect_datasets(params),
        rows=rows,
        parameters=[(k, json.dumps(v, ensure_ascii=False)) for k, v in flatten(plan).items()],
        criteria=_format_criteria(verdict),
        cost=_format_cost(mode, config["fingerprint"]),
        level=format_level(params.report.confidence),
        limits=_list_limits(params, verdict, rows),
        named=config["classes"][:NAMED_CLASSES],
        traced=[(key, tags.get(key) or "none") for key in (*LINEAGE_TAGS, *files)],
        champion=paths.model_folder(paths.CHAMPION, 0).as_posix(),
    )


def _collect_datasets(params: Params) -> list[dict[str, Any]]:
    """Datasets that the model was trained or evaluated on, as validation counted them."""
    sets = []
    for name in (TRAIN_SET, *params.evaluate.datasets):
        validation_path, manifest = paths.validation_file(name), paths.manifest_file(name)
        validation = (
            read_json(ValidationVerdict, validation_path) if validation_path.exists() else None
        )
        sets.append(
            {
                "name": name,
                "images": f"{validation.images:,}" if validation else MISSING,
                "classes": validation.classes if validation else MISSING,
                "excluded": len(validation.excluded) if validation else MISSING,
                "md5": compute_md5(manifest) if manifest.exists() else MISSING,
            }
        )
    return sets


def _collect_results(
    params: Params, table: pd.DataFrame, mode: str, seed: int
) -> list[dict[str, Any]]:
    """One row per dataset: results of this model, and the intervals of the comparison over all
    seeds.
    """
    rows = []
    for name in params.evaluate.datasets:
        metrics: dict[str, Any] = {
            str(row.metric): row for row in table[table["dataset"] == name].itertuples()
        }
        path = paths.evaluation_file(name, mode, seed)
        cell = read_evaluation(path) if path.exists() else None
        note, mine = "no evaluation", MISSING
        if isinstance(cell, MissingEvaluation):
            note = cell.reason
        elif cell is not None:
            note, mine = "", format_percent(cell.top1)
        top1 = metrics.get("top1")
        rows.append(
            {
                "name": name,
                "images": int(top1.images) if top1 and pd.notna(top1.images) else MISSING,
                "note": note,
                "mine": mine,
                "seeds": str(top1.seeds) if top1 and pd.notna(top1.seeds) else MISSING,
                **{
                    metric: _format_interval(metrics.get(metric))
                    for metric in ("top1", "macro_top1", "ece", "drop")
                },
            }
        )
    return rows


def _format_interval(row: Any) -> str:
    """A fraction as percent, with its interval if there is one."""
    if row is None or pd.isna(row.value):
        return MISSING
    interval = (
        "" if pd.isna(row.low) else f" ({format_percent(row.low)} to {format_percent(row.high)})"
    )
    return format_percent(row.value) + interval


def _format_criteria(verdict: GateVerdict) -> list[dict[str, Any]]:
    return [
        c.model_dump()
        | {
            "bound": format_percent(c.bound),
            "value": _format_interval(c),
            "passed": "held" if c.passed else "refused",
        }
        for c in verdict.criteria
    ]


def _format_cost(mode: str, fingerprint: str) -> list[tuple[str, str]]:
    """Of the training run, as MLflow has it, and of the mode's step, as far as it was measured."""
    lines = []
    if record := read_training_records([fingerprint]).by_fingerprint.get(fingerprint):
        lines += [
            ("training", f"{record.wall_seconds / 60:.1f} min"),
            ("images", f"{record.images_per_second:,.0f} a second"),
            ("device", record.device),
            ("peak memory of the process", f"{record.peak_memory_bytes / 2**30:.2f} GiB"),
        ]
    cost = read_json(CostReport, paths.COST) if paths.COST.exists() else None
    if cost and cost.is_measured and mode in cost.modes:
        step = cost.modes[mode]
        lines += [
            (f"a step, two views of {cost.images} images", f"{1000 * step.seconds:.1f} ms"),
            ("against the same step without contrast", format_ratio(step.against_none)),
            ("against one view without contrast", format_ratio(step.against_one_view)),
            ("entries of the contrastive memory", f"{step.queue_size_effective:,}"),
        ]
    return lines


def _list_limits(params: Params, verdict: GateVerdict, rows: list[dict[str, Any]]) -> list[str]:
    """Limits of the numbers above, as far as the files state them."""
    synthetic = sorted(set(params.render) & {TRAIN_SET, *params.evaluate.datasets})
    missing = [f"{row['name']} ({row['note']})" for row in rows if row["note"]]
    sentences = [
        "One seed: this is one model. Another seed of the same mode may do better or worse by "
        "more than the intervals say."
    ]
    if len(params.seeds) > 1:
        seeds = ", ".join(str(s) for s in params.seeds)
        sentences.append(
            f"The intervals are of the mode over the seeds {seeds}; the column of this model is "
            f"one of them."
        )
    if synthetic:
        sentences.append(
            f"Drawn by code, no photographs: {', '.join(synthetic)}. No figure above says how it "
            f"does "
            f"on real images."
        )
    if missing:
        sentences.append(f"Not scored on {'; '.join(missing)}.")
    if trials := describe_trials(verdict):
        sentences.append(trials)
    return sentences
