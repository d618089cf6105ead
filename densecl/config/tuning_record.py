"""Section `tuning`: what a sweep has chosen, and all settings that it was chosen with
(docs/fair.md).
"""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from pydantic import Field

from densecl.config.base import MODES, TRAIN_SET, Count, Mode, Names, StrictModel
from densecl.config.data_params import DataParams
from densecl.config.flatten import flatten
from densecl.config.mode_params import EXECUTION_KEYS, ModeSettings
from densecl.config.sweep_params import Choice
from densecl.config.training_params import NetworkParams

# In no record: how images are held changes no result, and trials have epochs of their own.
UNRECORDED = {"data.cache", "train.epochs", *(f"train.{name}" for name in EXECUTION_KEYS)}

Settings = dict[str, Any]  # dotted key -> value


class TuningRecord(StrictModel):
    """What a sweep has chosen; written by `python -m pipelines sweep`, stated by the report."""

    sweep: str = Field(description="name of the sweep")
    trials: dict[Mode, Count] = Field(description="trials of each mode")
    epochs: Count = Field(description="epochs of a trial")
    keys: Names = Field(description="keys that the trials varied")
    values: dict[Mode, dict[str, Choice]] = Field(
        description="dotted key -> value that the sweep chose, by mode"
    )
    settings: dict[Mode | Literal["all"], Settings] = Field(
        description="dotted key -> value of every setting that shaped the best trials: `all`, of "
        "all modes that have the key; and what differs, by mode"
    )

    def get_settings(self, mode: Mode) -> Settings:
        """Every setting of the best trial of a mode."""
        return self.settings.get("all", {}) | self.settings.get(mode, {})


def list_settings(
    settings: ModeSettings, network: NetworkParams, data: DataParams, root: str, mode: Mode
) -> Settings:
    """Dotted key -> value of what shapes the training of a mode; `root` is its images'."""
    contrast = settings.resolve_contrast(mode)
    flat = flatten(
        {
            "datasets": {TRAIN_SET: {"root": root}},
            "network": network.model_dump(mode="json"),
            "data": data.model_dump(mode="json"),
            "contrast": contrast.model_dump(mode="json") if contrast else {},
            "train": settings.resolve_train(mode).model_dump(mode="json"),
        }
    )
    return {key: value for key, value in flat.items() if key not in UNRECORDED and value != {}}


def share_settings(by_mode: Mapping[Mode, Settings]) -> dict[Mode | Literal["all"], Settings]:
    """Settings of modes, with those that do not differ once, as `all`."""
    shared: Settings = {}
    for key in dict.fromkeys(key for settings in by_mode.values() for key in settings):
        values = [settings[key] for settings in by_mode.values() if key in settings]
        if all(value == values[0] for value in values):
            shared[key] = values[0]
    own = {
        mode: {key: value for key, value in settings.items() if key not in shared}
        for mode, settings in by_mode.items()
    }
    return {"all": shared, **{mode: settings for mode, settings in own.items() if settings}}


class Change(NamedTuple):
    """Values of a key as texts, as some are lists."""

    key: str
    now: str
    before: str


def find_changes(record: TuningRecord, now: Mapping[Mode, Settings]) -> dict[Change, list[Mode]]:
    """What differs from the settings of the best trials -> the modes in which it does."""
    changes: dict[Change, list[Mode]] = {}
    for mode in (mode for mode in MODES if mode in now and mode in record.trials):
        before = record.get_settings(mode)
        for key in dict.fromkeys([*before, *now[mode]]):
            if key.startswith("contrast.") and key not in now[mode]:
                continue  # of `all` modes that have it
            if before.get(key) != now[mode].get(key):
                texts = (str(values.get(key, "nothing")) for values in (now[mode], before))
                changes.setdefault(Change(key, *texts), []).append(mode)
    return changes
