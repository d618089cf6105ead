"""What the modes were trained with: where their settings differ, and that others are the same."""

import json
from collections.abc import Mapping

from densecl import paths
from densecl.artifacts import ReportPlan
from densecl.config.flatten import flatten
from densecl.config.mode_params import BATCH_KEYS, ModeSettings
from densecl.pages.formatting import join_names
from densecl.report.formatting import TableCell, TableData, sort_modes

SAME_SETTINGS = (
    "All modes were trained with the same values of train, and of contrast where they have its "
    "keys."
)
OTHER_SETTINGS = (
    "Keys of contrast and train that are not the same in all modes; –: the mode has no such key. "
    "All others are the same."
)


def read_mode_settings(plan: ReportPlan) -> ModeSettings:
    """The sections of the params that decide what each mode was trained with."""
    sections = {
        name: plan.params[name] for name in ModeSettings.model_fields if name in plan.params
    }
    return ModeSettings.model_validate_json(json.dumps(sections))


def find_differing_settings(plan: ReportPlan) -> dict[str, dict[str, object]]:
    """Key -> its value in each mode that has it, of the keys that differ between modes."""
    settings = read_mode_settings(plan)
    values: dict[str, dict[str, object]] = {}
    for mode in sort_modes(plan.modes):
        contrast, train = settings.resolve_contrast(mode), settings.resolve_train(mode)
        sections = {"contrast": dict(contrast or ()), "train": dict(train)}
        for key, value in flatten(sections).items():
            values.setdefault(key, {})[mode] = value
    return {
        key: by_mode for key, by_mode in values.items() if len({*map(repr, by_mode.values())}) > 1
    }


def build_settings_table(plan: ReportPlan) -> TableData | None:
    """One row per key that differs between modes, one column per mode; None if none does."""
    modes, file = sort_modes(plan.modes), str(paths.plan_file("report"))
    rows = tuple(
        (key, "", tuple(_build_cell(by_mode, mode, file) for mode in modes))
        for key, by_mode in find_differing_settings(plan).items()
    )
    return TableData((("", modes),), rows, is_text=True) if rows else None


def _build_cell(by_mode: Mapping[str, object], mode: str, file: str) -> TableCell:
    return TableCell(_format_value(by_mode[mode]), "", file) if mode in by_mode else TableCell("–")


def _format_value(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else "null" if value is None else str(value)


def describe_unequal_training(plan: ReportPlan) -> list[str]:
    """A sentence for the first screen if the modes that it compares differ in keys of train."""
    clauses = []
    for key, by_mode in find_differing_settings(plan).items():
        main = {mode: value for mode, value in by_mode.items() if mode in plan.main_modes}
        if key.startswith("train.") and len({*map(repr, main.values())}) > 1:
            values = (f"{mode} {_format_value(value)}" for mode, value in main.items())
            clauses.append(f"{key} ({', '.join(values)})")
    return [f"The modes differ in {join_names(clauses)}."] if clauses else []


def describe_variant(plan: ReportPlan, variant: str) -> str:
    """`dense with contrast.temperature 0.07`."""
    settings = read_mode_settings(plan).variants[variant]
    sections = {"contrast": settings.contrast, "train": settings.train}
    changed = flatten({name: keys for name, keys in sections.items() if keys})
    keys = [f"{key} {_format_value(value)}" for key, value in changed.items()]
    return f"{settings.base} with {join_names(keys)}"


def explain_other_batch(plan: ReportPlan, mode: str) -> str:
    """Why the steps of a variant have no ratio to those of others; "" if they have one."""
    settings = read_mode_settings(plan)
    own, shared = (dict(settings.resolve_train(name)) for name in (mode, "none"))
    values = [
        f"{key} {_format_value(own[key])} instead of {_format_value(shared[key])}"
        for key in BATCH_KEYS
        if own[key] != shared[key]
    ]
    if not values:
        return ""
    return f"{mode} has {join_names(values)}: its steps have no ratio to those of other modes"
