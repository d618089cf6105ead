"""What the report says of tuning: equal or not, by how many trials, and what was changed since."""

from pathlib import Path
from typing import Any

import pytest

from densecl.artifacts import ReportPlan
from densecl.config.base import MODES
from densecl.config.data_params import DataParams
from densecl.config.training_params import NetworkParams
from densecl.config.tuning_record import list_settings, share_settings
from densecl.report.mode_settings import read_mode_settings
from densecl.report.render import write_report
from densecl.report.tuning import NOT_TUNED, describe_tuning
from tests.report.report_factory import HOSTILE, RECORDS, make

CHANGED = "Tuned equally, then changed: "
RECORD: dict[str, Any] = {
    "sweep": "photos",
    "trials": {"dense": 12, "global": 12, "none": 12},
    "epochs": 5,
    "keys": ["train.learning_rate", "contrast.temperature"],
    "values": {
        "dense": {"train.learning_rate": 0.002, "contrast.temperature": 0.1},
        "global": {"train.learning_rate": 0.003},
        "none": {},
    },
}
SECTIONS: dict[str, Any] = {
    "contrast": {"dense": {"temperature": 0.1}},
    "train": {
        "epochs": 5,
        "warmup_epochs": 1.0,
        "learning_rate": 0.002,
        "global": {"learning_rate": 0.003},
    },
}
EQUAL = (
    "Tuned equally: 12 trials for each of dense, global and none, on held-back training images "
    "(sweep photos)."
)


def add_settings(plan: ReportPlan, record: dict[str, Any]) -> dict[str, Any]:
    """The record of a sweep on the params of the plan."""
    settings = {
        mode: list_settings(
            read_mode_settings(plan.model_copy(update={"params": SECTIONS})),
            NetworkParams(**plan.params["network"]),
            DataParams(),
            "",
            mode,
        )
        for mode in MODES
    }
    return {**record, "settings": share_settings(settings)}


def describe(plan: ReportPlan, record: dict[str, Any], **sections: Any) -> list[str]:
    params = plan.params | SECTIONS | {"tuning": add_settings(plan, record)} | sections
    return describe_tuning(plan.model_copy(update={"params": params}))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ReportPlan]:
    root = tmp_path_factory.mktemp("tuned")
    return root, make(root)


def test_without_a_record_the_modes_are_not_tuned(made):
    assert describe_tuning(made[1]) == [NOT_TUNED]


def test_equal_tuning_is_said_with_its_trials(made):
    assert describe(made[1], RECORD) == [EQUAL]


def test_a_mode_with_fewer_trials_or_none_is_no_equal_tuning(made):
    found = describe(made[1], {**RECORD, "trials": {"dense": 12, "global": 6}})
    assert found == [
        "Not tuned equally: trials 12 of dense, 6 of global and 0 of none, on held-back training "
        "images (sweep photos)."
    ]


def test_a_value_that_is_not_the_chosen_one_is_named(made):
    found = describe(made[1], RECORD, contrast={"dense": {"temperature": 0.5}})
    assert found[0].startswith(CHANGED)
    assert found[1:] == [
        "Changed since the sweep: contrast.temperature of dense (0.5 instead of 0.1)."
    ]


@pytest.mark.parametrize(
    ("sections", "change"),
    [
        # Of a mode whose best trial was the first, which chose no value.
        (
            {"train": {**SECTIONS["train"], "none": {"learning_rate": 0.5}}},
            "train.learning_rate of none (0.5 instead of 0.002)",
        ),
        # Keys that no trial varied.
        (
            {"contrast": {"dense": {"temperature": 0.1, "patches_per_image": 3}}},
            "contrast.patches_per_image of dense (3 instead of 50)",
        ),
        (
            {"train": {**SECTIONS["train"], "batch_size": 4096}},
            "train.batch_size (4096 instead of 256)",
        ),
        ({"network": {"model_name": "vit_x"}}, "network.model_name (vit_x instead of HOSTILE)"),
        (
            {"data": {"view1": {"scale": [0.5, 1.0]}}},
            "data.view1.scale ([0.5, 1.0] instead of [0.08, 1.0])",
        ),
        (
            {"datasets": {"imagenet-train": {"root": "other"}}},
            "datasets.imagenet-train.root (other instead of )",
        ),
    ],
)
def test_every_setting_that_shapes_a_training_is_compared(made, sections, change):
    found = describe(made[1], RECORD, **sections)
    assert found[0].startswith(CHANGED)
    assert found[1:] == [f"Changed since the sweep: {change.replace('HOSTILE', HOSTILE)}."]


def test_how_a_training_is_carried_out_is_no_change(made):
    carried_out = {"threads": 2, "compile": True, "processes": 2, "validate_on": []}
    sections = {"train": {**SECTIONS["train"], **carried_out}, "data": {"cache": "ram"}}
    assert describe(made[1], RECORD, **sections) == [EQUAL]


def test_other_epochs_than_those_of_the_trials_are_said(made):
    assert describe(made[1], {**RECORD, "epochs": 2})[1:] == [
        "Trials had 2 epochs, these trainings have 5: their best values may differ."
    ]


@pytest.mark.slow
def test_the_page_and_the_text_say_it(made):
    root, plan = made
    params = plan.params | SECTIONS | {"tuning": add_settings(plan, RECORD)}
    write_report(plan.model_copy(update={"params": params}), root, RECORDS)
    for name in ("report.html", "report.md"):
        assert EQUAL in (root / "reports" / name).read_text(encoding="utf-8").replace("\\", "")
