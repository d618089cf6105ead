"""The model card of a version (headings after Mitchell et al. 2019): every number is read from the
files of its run.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from densecl import paths
from densecl.artifacts import (
    Cost,
    NoEvaluation,
    Verdict as Validated,
    read_cell,
    read_json,
    write_text,
)
from densecl.config.params import TRAIN_SET, Params
from pipelines.lineage.chain import flat
from pipelines.registry import registry
from pipelines.schemas import Registered, Verdict
from pipelines.stages.dvc_history import plain_md5

NONE = "–"
CLASSES = 10  # that are named
TRACED = ("fingerprint", "git", "zenml_run", "mlflow_run", "dvc_md5")


def attach_card(
    params: Params, registered: Registered, verdict: Verdict, tags: Mapping[str, str]
) -> None:
    """The card lies beside the version's model in the registry; of a refused version too, which may
    be promoted by hand.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / paths.CARD.name
        write_text(file, card(params, registered, verdict, tags))
        registry.attach(registered.name, registered.version, file)


def card(params: Params, registered: Registered, verdict: Verdict, tags: Mapping[str, str]) -> str:
    """Markdown."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    mode, seed = verdict.mode, verdict.seed
    config = json.loads((paths.model(mode, seed) / "config.json").read_text(encoding="utf-8"))
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=harmless,
        autoescape=False,  # noqa: S701 - Markdown: `harmless` escapes it
    )
    table = pd.read_csv(paths.COMPARISON, dtype={"seeds": str})
    rows = _rows(params, table[table["mode"] == mode], mode, seed)
    return templates.get_template("card.md").render(
        registered=registered,
        name=Safe(registered.name),
        verdict=verdict,
        config=config,
        mode=mode,
        seed=seed,
        data=_data(params),
        rows=rows,
        parameters=_parameters(mode),
        criteria=_criteria(verdict),
        cost=_cost(mode, seed),
        level=f"{100 * params.report.confidence:g}",
        limits=_limits(params, registered, rows),
        named=config["classes"][:CLASSES],
        traced=_traced(tags),
        champion=paths.model(paths.CHAMPION, 0).as_posix(),
    )


class Safe(str):
    """Text of a known pattern that stands in a block of code, where escapes would be part of it."""


def harmless(value: object) -> object:
    """Text that cannot become markup, also inside a table; numbers stay as they are."""
    if not isinstance(value, str) or isinstance(value, Safe):
        return value
    return re.sub(r"([\\`*_\[\]<>|#&])", r"\\\1", " ".join(value.split()))


def _parameters(mode: str) -> list[tuple[str, str]]:
    """What the training read of params.yaml, defaults filled in."""
    plan = json.loads(paths.plan(mode).read_text(encoding="utf-8"))
    return [(key, json.dumps(value, ensure_ascii=False)) for key, value in flat(plan)]


def _data(params: Params) -> list[dict[str, Any]]:
    """Each set that the model was trained or scored on, as validation counted it."""
    sets = []
    for name in (TRAIN_SET, *params.evaluate.datasets):
        found, manifest = paths.verdict(name), paths.manifest(name)
        counted = read_json(Validated, found) if found.exists() else None
        sets.append(
            {
                "name": name,
                "images": f"{counted.images:,}" if counted else NONE,
                "classes": counted.classes if counted else NONE,
                "excluded": len(counted.excluded) if counted else NONE,
                "md5": plain_md5(manifest) if manifest.exists() else NONE,
            }
        )
    return sets


def _rows(params: Params, table: pd.DataFrame, mode: str, seed: int) -> list[dict[str, Any]]:
    """One line a set: what this model got right, and the intervals of the comparison, of all its
    seeds.
    """
    rows = []
    for name in params.evaluate.datasets:
        found: dict[str, Any] = {
            str(row.metric): row for row in table[table["dataset"] == name].itertuples()
        }
        path = paths.evaluation(name, mode, seed)
        cell = read_cell(path) if path.exists() else None
        missing = (
            "no evaluation"
            if cell is None
            else cell.reason
            if isinstance(cell, NoEvaluation)
            else ""
        )
        top1 = found.get("top1")
        rows.append(
            {
                "name": name,
                "images": int(top1.images) if top1 and pd.notna(top1.images) else NONE,
                "note": missing,
                "mine": NONE
                if cell is None or isinstance(cell, NoEvaluation)
                else _percent(cell.top1),
                "seeds": str(top1.seeds) if top1 and pd.notna(top1.seeds) else NONE,
                **{
                    each: _interval(found.get(each))
                    for each in ("top1", "macro_top1", "ece", "drop")
                },
            }
        )
    return rows


def _interval(row: Any) -> str:
    """A fraction as percent, with its interval where it has one."""
    if row is None or pd.isna(row.value):
        return NONE
    between = "" if pd.isna(row.low) else f" ({_percent(row.low)} to {_percent(row.high)})"
    return _percent(row.value) + between


def _percent(value: float) -> str:
    return f"{100 * value:.1f}".replace("-", "−")


def _criteria(verdict: Verdict) -> list[dict[str, Any]]:
    return [
        {
            "name": c.name,
            "dataset": c.dataset,
            "images": c.images,
            "bound": _percent(c.bound),
            "said": c.said,
            "value": _interval(c),
            "passed": "held" if c.passed else "refused",
        }
        for c in verdict.criteria
    ]


def _cost(mode: str, seed: int) -> list[tuple[str, str]]:
    path = paths.training(mode, seed) / "cost.json"
    if not path.exists():
        return []
    cost = read_json(Cost, path)
    return [
        ("training", f"{cost.wall_seconds / 60:.1f} min"),
        ("images", f"{cost.images_per_second:,.0f} a second"),
        ("device", cost.device),
        ("peak memory", f"{cost.peak_memory_bytes / 2**30:.2f} GiB"),
        ("step, two views, batch " + str(cost.batch_size), f"{1000 * cost.step_seconds:.1f} ms"),
        ("the same step without contrast", f"{1000 * cost.none_step_seconds:.1f} ms"),
        ("on one view without contrast", f"{1000 * cost.one_view_step_seconds:.1f} ms"),
        ("entries of the contrastive memory", f"{cost.queue_size_effective:,}"),
    ]


def _limits(params: Params, registered: Registered, rows: list[dict[str, Any]]) -> list[str]:
    """What the numbers above cannot tell, as far as the files show it."""
    drawn = sorted(set(params.render) & {TRAIN_SET, *params.evaluate.datasets})
    missing = [f"{row['name']} ({row['note']})" for row in rows if row["note"]]
    said = [
        "One seed: this is one model. Another seed of the same mode may do better or worse by "
        "more than the intervals say."
    ]
    if len(params.seeds) > 1:
        others = ", ".join(str(s) for s in params.seeds)
        said.append(
            f"The intervals are of the mode over the seeds {others}; the column of this model is "
            f"one of them."
        )
    if drawn:
        said.append(
            f"Drawn by code, no photographs: {', '.join(drawn)}. No figure above says how it does "
            f"on real images."
        )
    if missing:
        said.append(f"Not scored on {'; '.join(missing)}.")
    if registered.version != "1":
        said.append(
            f"Candidates before it were judged on the same sets (this is version "
            f"{registered.version}): a champion is the best "
            "of several, so its figures are a little too good."
        )
    return said


def _traced(tags: Mapping[str, str]) -> list[tuple[str, str]]:
    files = sorted(key for key in tags if key.startswith(("sha256.", "md5 ")))
    return [(key, tags.get(key) or "none") for key in (*TRACED, *files)]
