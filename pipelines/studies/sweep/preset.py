"""The params with the values that a sweep has chosen, as a preset."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap

from densecl import paths
from densecl.artifacts import write_text
from densecl.config.params import load_params
from densecl.config.sweep_params import apply_values
from densecl.config.tuning_record import TuningRecord, list_settings, share_settings
from densecl.tuning.records import SweepPlan
from pipelines.studies.sweep.results import ModeTrials

HEADER = """\
# {params} with the values that `python -m pipelines sweep --name {name} --budget {budget}` chose
# for each mode (docs/fair.md); section `tuning` says so, and the report repeats it.
# Use: cp {path} params.yaml
"""


def write_preset(plan: SweepPlan, modes: Sequence[ModeTrials]) -> Path:
    """Write presets/tuned-<name>.yaml: the params, with their comments, and per mode the values of
    its best trial; then check that they can be read.
    """
    yaml = YAML()
    yaml.width = 100
    params = yaml.load(paths.PARAMS.read_text(encoding="utf-8"))
    for trials in modes:
        _set_values(params, plan, trials)
    params["tuning"] = build_record(plan, modes).model_dump(mode="json")
    _set_flow(params["tuning"], "trials")
    for trials in modes:
        _set_flow(params["tuning"]["values"], trials.mode)
    text = io.StringIO()
    yaml.dump(params, text)
    path = paths.tuned_preset(plan.name)
    budget = len(modes[0].results)
    header = HEADER.format(params=paths.PARAMS, name=plan.name, budget=budget, path=path)
    write_text(path, header + text.getvalue())
    load_params(path)
    return path


def build_record(plan: SweepPlan, modes: Sequence[ModeTrials]) -> TuningRecord:
    keys = sorted({key for trials in modes for result in trials.results for key in result.values})
    settings = {
        trials.mode: list_settings(
            apply_values(plan.settings, trials.mode, trials.best.values),
            plan.network,
            plan.data,
            plan.root,
            trials.mode,
        )
        for trials in modes
    }
    return TuningRecord(
        sweep=plan.name,
        trials={trials.mode: len(trials.results) for trials in modes},
        epochs=plan.epochs,
        keys=tuple(keys),
        # In effect: geometric matches have no filter, whatever filter was drawn.
        values={t.mode: {key: settings[t.mode][key] for key in t.best.values} for t in modes},
        settings=share_settings(settings),
    )


def _set_values(params: CommentedMap, plan: SweepPlan, trials: ModeTrials) -> None:
    """Set the overrides of a mode in the sections contrast and train."""
    settings = apply_values(plan.settings, trials.mode, trials.best.values)
    overrides = {"train": settings.train.get_overrides(trials.mode)}
    if trials.mode != "none":
        contrast = settings.contrast
        overrides["contrast"] = contrast.dense if trials.mode == "dense" else contrast.global_
    for section, values in overrides.items():
        if values:
            params.setdefault(section, CommentedMap())[trials.mode] = values
            _set_flow(params[section], trials.mode)


def _set_flow(parent: Any, key: str) -> None:
    """Write a mapping on one line."""
    parent[key] = CommentedMap(parent[key])
    parent[key].fa.set_flow_style()
