"""Entries of `render` in the plan: drawn for datasets and for transfer, and read where they are."""

from pathlib import Path

import pytest

from densecl.artifacts import RenderPlan, ReportPlan
from densecl.config.params import Params, load_params
from densecl.errors import DenseclError
from steps.plan import check_roots
from steps.unit_plans import resolve_plans

PARAMS = load_params(Path(__file__).parents[2] / "params.yaml")


def move_root(section: str, name: str) -> Params:
    """The default params with an entry whose images are elsewhere."""
    entries = getattr(PARAMS, section)
    moved = entries[name].model_copy(update={"root": "elsewhere"})
    return PARAMS.model_copy(update={section: {**entries, name: moved}})


@pytest.mark.parametrize(("section", "name"), [("datasets", "sketch"), ("transfer", "new-classes")])
def test_images_are_read_where_they_are_drawn(section, name):
    message = f"{section}.{name}.root: found elsewhere, expected data/rendered/{name}, where"
    with pytest.raises(DenseclError, match=message):
        check_roots(move_root(section, name))


def test_each_entry_has_a_plan_of_its_own_that_nothing_else_changes():
    plans = resolve_plans(PARAMS)
    drawn = {
        unit.removeprefix("render/"): plan
        for unit, plan in plans.items()
        if unit.startswith("render/")
    }
    assert drawn == {name: RenderPlan(settings=entry) for name, entry in PARAMS.render.items()}
    other = PARAMS.model_copy(
        update={"evaluate": PARAMS.evaluate.model_copy(update={"protocol": {"sketch": "folder"}})}
    )
    assert all(resolve_plans(other)[f"render/{name}"] == plan for name, plan in drawn.items())


def test_the_report_names_the_datasets_that_are_drawn():
    plan = resolve_plans(PARAMS)["report"]
    assert isinstance(plan, ReportPlan)
    assert set(plan.rendered) == set(PARAMS.datasets)
    assert {"new-classes", "segmentation"} <= set(PARAMS.render) - set(plan.rendered)
