"""Section `sweep` of the params: what modes may try, resolved from their own values."""

from pathlib import Path
from typing import Any

import pytest

from densecl.config.params import ParamsError, load_params, parse_params
from densecl.config.sweep_params import Interval, apply_values, resolve_space
from tests.training.training_project import PARAMS

ROOT = Path(__file__).parents[2]


def parse(space: dict[str, Any], **sections: Any):
    return parse_params({**PARAMS, **sections, "sweep": {"space": space}}, "p")


def test_the_defaults_suit_the_params_of_this_project_and_its_presets():
    for path in (ROOT / "params.yaml", *sorted((ROOT / "presets").glob("imagenet-*.yaml"))):
        params = load_params(path)
        for mode in ("dense", "global", "none"):
            space = resolve_space(params.sweep.space, params.mode_settings, mode)
            rate = params.mode_settings.resolve_train(mode).learning_rate
            assert space["train.learning_rate"][:2] == pytest.approx((rate / 10, rate * 10))
            assert ("contrast.queue_size" in space) == (mode != "none")
            assert ("contrast.sampling_strategy" in space) == (mode == "dense")


def test_a_factor_is_around_the_value_that_the_mode_has():
    params = parse(
        {"contrast": {"queue_size": {"factor": 4.0}}},
        contrast={"queue_size": 1024, "global": {"queue_size": 512}},
    )
    found = {
        mode: resolve_space(params.sweep.space, params.mode_settings, mode)["contrast.queue_size"]
        for mode in ("dense", "global")
    }
    assert found == {
        "dense": Interval(256, 4096, True, True),
        "global": Interval(128, 2048, True, True),
    }


def test_the_values_of_a_trial_are_those_of_its_mode_only():
    params = parse({})
    values = {
        "train.learning_rate": 0.01,
        "contrast.correspondence_features": "geometric",
    }
    contrast = {**PARAMS["contrast"], "correspondence_filter": "mutual"}
    settings = apply_values(parse({}, contrast=contrast).mode_settings, "dense", values)
    assert settings.resolve_train("dense").learning_rate == 0.01
    assert settings.resolve_contrast("dense").correspondence_filter == "none"  # as it must be
    assert settings.resolve_contrast("global") == params.mode_settings.resolve_contrast("global")
    assert settings.resolve_train("none").learning_rate == PARAMS["train"]["learning_rate"]


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"train": {"batch_size": [8, 16]}}, "batch_size, which all modes share"),
        ({"train": {"epochs": [1, 2]}}, "epochs, which all modes share"),
        ({"train": {"learnin_rate": [0.1]}}, "learnin_rate, which train does not have"),
        ({"train": {"learning_rate": {"low": 1.0}}}, "expected low and high, or factor, or a list"),
        ({"train": {"learning_rate": {"low": 2.0, "high": 1.0}}}, "expected low < high"),
        ({"train": {"learning_rate": {"low": 0.0, "high": 1.0, "log": True}}}, "above 0"),
        ({"train": {"weight_decay": []}}, "weight_decay.values: found"),
        ({"contrast": {"temperature": {"low": 0.001, "high": 1.0}}}, "temperature of mode dense"),
        ({"contrast": {"sampling_strategy": ["random"]}}, "sampling_strategy of mode global"),
        ({"dense": {"sampling_strategy": {"factor": 2.0}}}, "expected a list of values"),
        ({"contrast": {"queue_size": {"factor": 1.001}}}, "around 96, which leaves 96"),
        ({"dense": {"patches_per_image": {"low": 1.5, "high": 4.0}}}, "expected whole numbers"),
        ({"dense": {"sampling_strategy": ["randm"]}}, "'randm'"),
        ({"dense": {"global": [{}]}}, "sweep.space.dense"),
    ],
)
def test_what_cannot_be_tried_is_an_error_that_names_the_key(space: dict[str, Any], message: str):
    with pytest.raises(ParamsError, match=r"(?s)sweep.*" + message.replace("(", r"\(")):
        parse(space)


def test_a_factor_around_nothing_is_an_error():
    train = {**PARAMS["train"], "weight_decay": 0.0}
    with pytest.raises(ParamsError, match="give low and high instead"):
        parse({"train": {"weight_decay": {"factor": 2.0}}}, train=train)
    parse_params({**PARAMS, "train": train}, "p")  # params that tune nothing stay valid
