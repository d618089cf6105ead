"""Whether the modes were tuned equally, by what the preset of a sweep states (docs/fair.md)."""

import json
from collections.abc import Iterator

from densecl.artifacts import ReportPlan
from densecl.config.base import MODES, TRAIN_SET
from densecl.config.data_params import DataParams
from densecl.config.mode_params import ModeSettings
from densecl.config.training_params import NetworkParams
from densecl.config.tuning_record import TuningRecord, find_changes, list_settings
from densecl.pages.formatting import join_names
from densecl.report.mode_settings import read_mode_settings

NOT_TUNED = (
    "Not tuned: no sweep chose the values of these modes, and what suits one may not suit another."
)


def read_tuning_record(plan: ReportPlan) -> TuningRecord | None:
    """What a sweep has chosen; None if the params have no such record."""
    record = plan.params.get("tuning")
    return None if record is None else TuningRecord.model_validate(record)


def describe_tuning(plan: ReportPlan) -> list[str]:
    """Sentences: by how many trials each mode was tuned, and what was changed since."""
    record = read_tuning_record(plan)
    if record is None:
        return [NOT_TUNED]
    settings = read_mode_settings(plan)
    changes = list(_list_changes(plan, settings, record))
    return [
        _describe_trials(plan, record, bool(changes)),
        *_describe_lengths(settings, record),
        *([f"Changed since the sweep: {join_names(changes)}."] if changes else ()),
        *_describe_variants(plan),
    ]


def _describe_trials(plan: ReportPlan, record: TuningRecord, is_changed: bool) -> str:
    """`Tuned equally: 12 trials for each of dense, global and none ...`"""
    then = ", then changed" if is_changed else ""
    trials = {mode: record.trials.get(mode, 0) for mode in MODES if mode in plan.modes}
    counts = set(trials.values())
    if len(counts) == 1 and 0 not in counts:
        of_each = f"{'for each of' if len(trials) > 1 else 'of'} {join_names([*trials])}"
        equally = " equally" if len(trials) > 1 else ""
        start = f"Tuned{equally}{then}: {counts.pop()} trials {of_each}"
    else:
        each = join_names([f"{count} of {mode}" for mode, count in trials.items()])
        start = f"Not tuned equally{then}: trials {each}"
    return f"{start}, on held-back training images (sweep {record.sweep})."


def _describe_lengths(settings: ModeSettings, record: TuningRecord) -> Iterator[str]:
    if record.epochs != settings.train.epochs:
        yield (
            f"Trials had {record.epochs} epochs, these trainings have {settings.train.epochs}: "
            "their best values may differ."
        )


def _list_changes(plan: ReportPlan, settings: ModeSettings, record: TuningRecord) -> Iterator[str]:
    """`train.learning_rate of none (0.5 instead of 0.002)`, of all that shapes a training."""
    network, data = (json.dumps(plan.params.get(name, {})) for name in ("network", "data"))
    root = plan.params["datasets"].get(TRAIN_SET, {}).get("root", "")
    now = {
        mode: list_settings(
            settings,
            NetworkParams.model_validate_json(network),
            DataParams.model_validate_json(data),
            root,
            mode,
        )
        for mode in MODES
        if mode in plan.modes
    }
    for change, modes in find_changes(record, now).items():
        of_modes = "" if len(modes) == len(now) else f" of {join_names(modes)}"
        yield f"{change.key}{of_modes} ({change.now} instead of {change.before})"


def _describe_variants(plan: ReportPlan) -> Iterator[str]:
    if plan.variants:
        yield "Variants have the values of their bases but for what they change, and no sweep."
