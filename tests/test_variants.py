"""Variants and values per mode: what params accept, and what each unit of the plan then reads."""

import re
from pathlib import Path

import pytest
import yaml

from densecl.artifacts import Artifact, CostPlan, ReportPlan, TrainPlan, read_json, write_json
from densecl.config.mode_params import EXECUTION_KEYS, MODE_KEYS, SHARED_KEYS
from densecl.config.params import MODES, Params, ParamsError, TrainParams, parse_params
from densecl.errors import DataError
from steps.plan import warn_of_equal_variants
from steps.unit_plans import resolve_plans

ROOT = Path(__file__).parent.parent
GEOMETRIC = {
    "base": "dense",
    "contrast": {"correspondence_features": "geometric", "correspondence_filter": "none"},
}


def parse(train: dict | None = None, **sections: object) -> Params:
    values = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    values["train"] |= train or {}
    return parse_params(values | sections, "params.yaml")


def write_plans(folder: Path, params: Params) -> dict[str, bytes]:
    """The bytes of every plan file by unit."""
    folder.mkdir()
    texts = {}
    for unit, record in resolve_plans(params).items():
        write_json(folder / "plan.json", record)
        texts[unit] = (folder / "plan.json").read_bytes()
    return texts


def list_changed(before: dict[str, bytes], after: dict[str, bytes]) -> set[str]:
    return {unit for unit in before | after if before.get(unit) != after.get(unit)}


def test_every_key_of_train_is_in_one_group():
    """A new key needs a decision: may modes, or variants, differ in it?"""
    groups = [*MODE_KEYS, *SHARED_KEYS, *EXECUTION_KEYS]
    assert sorted(groups) == sorted(TrainParams.model_fields)


def test_plans_without_variants_are_what_they_were(tmp_path):
    """No key was added, so that nothing that ran before runs again."""
    texts = write_plans(tmp_path / "plans", parse())
    new_keys = (b'"variant', b'"train_by_mode"', b'"base"')
    assert not [unit for unit, text in texts.items() if any(key in text for key in new_keys)]
    for mode in MODES:
        plan = resolve_plans(parse())[mode]
        assert isinstance(plan, TrainPlan)
        assert set(plan.model_dump()) == {"mode", "network", "data", "train", "contrast"}
        assert set(plan.model_dump()["train"]) <= set(TrainParams.model_fields)
    report = resolve_plans(parse())["report"]
    assert isinstance(report, ReportPlan)
    assert not {*MODES} & set(report.params["train"])


def test_a_variant_adds_a_unit_and_leaves_the_others(tmp_path):
    modes = [*MODES, "dense-geometric"]
    before = write_plans(tmp_path / "before", parse())
    defined = write_plans(tmp_path / "defined", parse(variants={"dense-geometric": GEOMETRIC}))
    named = write_plans(
        tmp_path / "named", parse(variants={"dense-geometric": GEOMETRIC}, modes=modes)
    )
    assert list_changed(before, defined) == {"report"}  # which lists all params
    assert list_changed(before, named) == {"report", "cost", "dense-geometric"}


def test_a_variant_is_its_base_but_for_its_keys(tmp_path):
    params = parse(
        {"dense": {"learning_rate": 0.004}},
        variants={
            "dense-geometric": GEOMETRIC,
            "dense-small-batch": {"base": "dense", "train": {"batch_size": 64}},
            "none-short": {"base": "none", "train": {"epochs": 2}},
        },
        modes=["dense", "none", "dense-geometric", "dense-small-batch", "none-short"],
    )
    plans = {name: check_round_trip(tmp_path, resolve_plans(params)[name]) for name in params.modes}
    dense = plans["dense"]
    assert dense.train.learning_rate == plans["dense-geometric"].train.learning_rate == 0.004
    assert plans["none"].train.learning_rate == 0.002
    assert dense.contrast is not None
    assert plans["dense-geometric"].contrast == dense.contrast.model_copy(
        update=GEOMETRIC["contrast"]
    )
    assert plans["dense-geometric"].train == dense.train
    assert plans["dense-small-batch"].contrast == dense.contrast
    assert plans["dense-small-batch"].train == dense.train.model_copy(update={"batch_size": 64})
    assert plans["none-short"].contrast is None
    assert [plan.base for plan in plans.values()] == ["dense", "none", "dense", "dense", "none"]
    report = resolve_plans(params)["report"]
    assert isinstance(report, ReportPlan)
    assert report.modes == params.modes
    assert report.variants == {
        "dense-geometric": "dense",
        "dense-small-batch": "dense",
        "none-short": "none",
    }


def check_round_trip(folder: Path, plan: Artifact) -> TrainPlan:
    write_json(folder / "plan.json", plan)
    again = read_json(TrainPlan, folder / "plan.json")
    assert again == plan
    return again


def test_a_plan_of_a_mode_that_nothing_defines_is_refused(tmp_path):
    path = tmp_path / "plan.json"
    write_json(path, resolve_plans(parse())["dense"])
    path.write_text(path.read_text().replace('"mode": "dense"', '"mode": "dens"'))
    with pytest.raises(DataError, match=r"mode is dens, expected dense, global, none or"):
        read_json(TrainPlan, path)


def test_only_steps_with_equal_batches_are_timed_against_each_other():
    params = parse(
        {"dense": {"learning_rate": 0.004}, "global": {"drop_path": 0.1}},
        variants={
            "dense-geometric": GEOMETRIC,
            "dense-decay": {"base": "dense", "train": {"layer_decay": 0.7}},
            "dense-small-batch": {"base": "dense", "train": {"batch_size": 64}},
            "none-parts": {"base": "none", "train": {"grad_accumulation": 2}},
        },
        modes=[*MODES, "dense-geometric", "dense-decay", "dense-small-batch", "none-parts"],
    )
    plan = resolve_plans(params)["cost"]
    assert isinstance(plan, CostPlan)
    assert plan.modes == (*MODES, "dense-geometric", "dense-decay")
    assert set(plan.contrast) == set(plan.modes)
    # The learning rate shapes no step.
    assert set(plan.train_by_mode) == {"global", "dense-decay"}
    assert plan.get_train("dense") == plan.get_train("none") == plan.train
    assert plan.get_train("global").drop_path == 0.1
    assert plan.get_train("dense-decay").layer_decay == 0.7


@pytest.mark.parametrize(
    ("train", "sections", "said"),
    [
        ({"dense": {"batch_size": 64}}, {}, r"train.dense.batch_size: found a value per mode"),
        ({"none": {"processes": 2}}, {}, r"train.none.processes: found a value per mode"),
        ({"global": {"learning_rat": 1.0}}, {}, r"train.global: learning_rat: unknown key; did"),
        ({"none": {"weight_decay": -1.0}}, {}, r"train.none: weight_decay: found -1.0"),
        ({"none": {"warmup_epochs": 9}}, {}, r"train.none: warmup_epochs must be below epochs"),
        ({}, {"x": {"base": "dens"}}, r"variants.x.base: found 'dens'; input should be 'dense'"),
        ({}, {"x": {"contrast": {}}}, r"variants.x.base: missing"),
        ({}, {"x": {"base": "dense", "trian": {}}}, r"variants.x.trian: unknown key; did you mean"),
        ({}, {"x": {"base": "dense"}}, r"variants.x: found no key that differs from dense"),
        (
            {},
            {"x": {"base": "dense", "contrast": {"correspondence_features": "geometric"}}},
            r"variants.x.contrast: correspondence_filter: found mutual, expected none",
        ),
        (
            {},
            {"x": {"base": "global", "contrast": {"patches_per_image": 3}}},
            r"variants.x.contrast: patches_per_image: unknown key; allowed: (?!.*patches)",
        ),
        (
            {},
            {"x": {"base": "none", "contrast": {"temperature": 0.1}}},
            r"variants.x.contrast: found temperature, expected no key",
        ),
        (
            {},
            {"x": {"base": "none", "train": {"threads": 1}}},
            r"variants.x.train.threads: found a value for a variant",
        ),
        (
            {},
            {"x": {"base": "none", "train": {"batch_size": "64"}}},
            r"variants.x.train: batch_size: found '64'; input should be a valid integer",
        ),
        ({}, {"dense": GEOMETRIC}, r"variants: 'dense' is reserved"),
        ({}, {"anchor": GEOMETRIC}, r"variants: 'anchor' is reserved"),
        ({}, {"sketch": GEOMETRIC}, r"variants: 'sketch' is the name of a dataset"),
        ({}, {"a/b": GEOMETRIC}, r"variants: 'a/b' cannot name a variant"),
        ({}, {"Geo": GEOMETRIC}, r"variants: 'Geo' cannot name a variant"),
    ],
)
def test_a_mistake_is_one_line_that_names_the_key(train, sections, said):
    with pytest.raises(ParamsError, match=said) as error:
        parse(train, variants=sections)
    assert "\n" not in str(error.value)


def test_a_run_of_a_variant_cannot_be_mistaken_for_another_model():
    values = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    evaluate = values["evaluate"] | {"models": {"geo-50": "vit_tiny_patch16_224"}}
    with pytest.raises(ParamsError, match=r"variants: 'geo' with a seed could be 'geo-50'"):
        parse(variants={"geo": GEOMETRIC}, evaluate=evaluate)


def test_a_variant_that_is_its_base_is_pointed_out(capsys):
    variants = {"same": {"base": "dense", "contrast": {"temperature": 0.2}}, "geo": GEOMETRIC}
    warn_of_equal_variants(parse(variants=variants, modes=["dense", "same", "geo"]))
    warnings = capsys.readouterr().out.splitlines()
    assert len(warnings) == 1
    assert warnings[0].startswith("warning: variants.same: all of its values are those of dense")


def test_a_variant_runs_beside_its_base_only():
    with pytest.raises(ParamsError, match=r"modes: found dense-geometric without its base dense"):
        parse(variants={"dense-geometric": GEOMETRIC}, modes=["dense-geometric", "none"])


def test_the_examples_of_the_docs_are_valid():
    text = (ROOT / "docs" / "variants.md").read_text(encoding="utf-8")
    per_mode, variants = (
        yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", text, re.S)
    )
    params = parse(per_mode["train"], contrast=per_mode["contrast"], **variants)
    settings = params.mode_settings
    assert settings.resolve_train("none").learning_rate == 0.001
    batches = [settings.resolve_train(name).batch_size for name in params.modes]
    assert batches == [128, 128, 128, 128, 64, 128]
    erased = {name: settings.resolve_train(name).random_erasing for name in params.modes}
    assert {name for name, share in erased.items() if share} == {"none-erasing"}


def test_the_candidate_of_a_retraining_may_be_a_variant():
    modes = ["dense", "none", "dense-geometric"]
    variants = {"dense-geometric": GEOMETRIC}
    chosen = parse(variants=variants, modes=modes, retraining={"mode": "dense-geometric"})
    assert chosen.candidate == ("dense-geometric", 0)
    with pytest.raises(ParamsError, match=r"retraining.mode: found 'global', expected one of mod"):
        parse(variants=variants, modes=modes, retraining={"mode": "global"})
