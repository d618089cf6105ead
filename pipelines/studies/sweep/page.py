"""`reports/sweep.html`: how each mode was tuned, by how many trials, and what that gained."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from densecl import paths
from densecl.analysis.sampled_value import Estimate
from densecl.artifacts import write_text
from densecl.config.params import Mode
from densecl.config.sweep_params import Interval, resolve_space
from densecl.pages.formatting import format_level, format_percent, format_points, join_names
from densecl.pages.templates import create_environment
from densecl.tuning.records import SweepPlan, TrialResult
from pipelines.studies.sweep.charts import draw_charts
from pipelines.studies.sweep.results import ModeTrials


def write_page(
    plan: SweepPlan, modes: Sequence[ModeTrials], preset: Path, confidence: float
) -> None:
    """Write the page: one file that opens offline."""
    environment = create_environment(Path(__file__).parents[1] / "templates")
    environment.filters |= {"percent": format_percent}
    text = environment.get_template("sweep.html").render(
        name=plan.name,
        headline=describe_budget(modes),
        gains=[_format_gain(trials) for trials in modes],
        level=format_level(confidence),
        charts=draw_charts(modes, plan.sweep.sampler == "random"),
        importances=_list_importances(modes),
        tables=[_build_table(plan, trials) for trials in modes],
        spaces=_list_spaces(plan),
        facts=_list_facts(plan, modes),
        preset=preset,
        warnings=list_warnings(plan, modes),
        modes=plan.modes,
    )
    write_text(paths.SWEEP_PAGE, text)


def describe_budget(modes: Sequence[ModeTrials]) -> str:
    """`12 trials for each of dense, global and none.`"""
    names = join_names([trials.mode for trials in modes])
    of_each = f"each of {names}" if len(modes) > 1 else names
    return f"{len(modes[0].results)} trials for {of_each}."


def list_warnings(plan: SweepPlan, modes: Sequence[ModeTrials]) -> list[str]:
    """What a reader must know before using the preset."""
    warnings = []
    if len({result.code for trials in modes for result in trials.results}) > 1:
        warnings.append(
            "The code of training changed during the sweep: its trials are not all comparable."
        )
    for trials in modes:
        failed = sum(bool(result.failure) for result in trials.results)
        if failed:
            noun = "trial" if failed == 1 else "trials"
            warnings.append(
                f"{failed} {noun} of {trials.mode} did not finish, as the loss was not finite; "
                "each counts, with a top-1 of 0."
            )
        for key in _list_edges(plan, trials):
            warnings.append(
                f"The best {key} of {trials.mode}, {trials.best.values[key]}, is within a tenth "
                "of the edge of its range: a wider range may hold a better one."
            )
    return warnings


def _list_edges(plan: SweepPlan, trials: ModeTrials) -> list[str]:
    """Keys whose best value is in the outer tenths of its range; such a value is no rarity."""
    keys = []
    for key, candidates in resolve_space(plan.sweep.space, plan.settings, trials.mode).items():
        value = trials.best.values.get(key)
        if not isinstance(candidates, Interval) or not isinstance(value, int | float):
            continue
        scale = math.log if candidates.log else float
        low, high = scale(candidates.low), scale(candidates.high)
        if not 0.1 <= (scale(value) - low) / (high - low) <= 0.9:
            keys.append(key)
    return keys


def _format_gain(trials: ModeTrials) -> dict[str, Any]:
    first, best = trials.results[0], trials.best
    return {
        "mode": trials.mode,
        "trial": best.index + 1,
        "first": first.top1_confirm,
        "best": best.top1_confirm,
        "gain": format_points(trials.gain.value) if trials.gain else "–",
        "span": _format_span(trials.gain) if trials.gain and best.index else "–",
        "chosen": ", ".join(f"{key} {value}" for key, value in best.values.items())
        or "those of the params",
    }


def _format_span(estimate: Estimate) -> str:
    return f"{format_points(estimate.low)} to {format_points(estimate.high)}"


def _list_importances(modes: Sequence[ModeTrials]) -> list[tuple[Mode, list[tuple[str, float]]]]:
    return [
        (trials.mode, sorted(trials.importances.items(), key=lambda item: -item[1]))
        for trials in modes
        if trials.importances
    ]


def _build_table(plan: SweepPlan, trials: ModeTrials) -> dict[str, Any]:
    keys = list(resolve_space(plan.sweep.space, plan.settings, trials.mode))
    ranked = sorted(trials.results, key=lambda result: -result.top1_select)
    return {
        "mode": trials.mode,
        "columns": [key.partition(".")[2] for key in keys],
        "rows": [_build_row(trials, result, keys) for result in ranked],
    }


def _build_row(trials: ModeTrials, result: TrialResult, keys: Sequence[str]) -> dict[str, Any]:
    return {
        "trial": result.index + 1,
        "chosen": result is trials.best,
        "values": [result.values.get(key, "params") for key in keys],
        "result": result,
    }


def _list_spaces(plan: SweepPlan) -> list[tuple[str, list[str]]]:
    """Key -> what each mode tried."""
    spaces = {m: resolve_space(plan.sweep.space, plan.settings, m) for m in plan.modes}
    keys = dict.fromkeys(key for space in spaces.values() for key in space)
    return [
        (
            key,
            [_format_candidates(space[key]) if key in space else "–" for space in spaces.values()],
        )
        for key in keys
    ]


def _format_candidates(candidates: Any) -> str:
    if isinstance(candidates, Interval):
        scale = ", log" if candidates.log else ""
        return f"{candidates.low:g} to {candidates.high:g}{scale}"
    return ", ".join(map(str, candidates))


def _list_facts(plan: SweepPlan, modes: Sequence[ModeTrials]) -> list[tuple[str, str]]:
    fit, select, confirm = modes[0].results[0].images
    train = plan.settings.train
    return [
        ("Images that trials train on", f"{fit:,}"),
        ("Images that choose the best trial", f"{select:,}, of the training images"),
        ("Images that confirm its gain", f"{confirm:,}, of the training images"),
        ("Epochs of a trial", f"{plan.epochs} (params: {train.epochs})"),
        ("Batch size, of all trials", f"{train.batch_size}"),
        ("How values were drawn", plan.sweep.sampler),
        ("Seed", f"{plan.sweep.seed}"),
        ("Pruning", "none: every trial of every mode runs to its end"),
    ]
