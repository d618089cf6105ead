"""Plans survive the way through JSON, with the settings of their own mode."""

from pathlib import Path

import pytest

from densecl.artifacts import TrainingFacts, TrainPlan, read_json, write_json
from densecl.config.params import MODES, load_params
from densecl.errors import DataError
from steps.unit_plans import resolve_plans

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("mode", MODES)
def test_a_train_plan_comes_back_as_it_was(tmp_path, mode):
    params = load_params(ROOT / "params.yaml")
    plan = resolve_plans(params)[mode]
    write_json(tmp_path / "plan.json", plan)
    again = read_json(TrainPlan, tmp_path / "plan.json")
    assert again == plan
    assert type(again.contrast) is type(params.contrast.resolve_mode(mode))
    assert ("patches_per_image" in (tmp_path / "plan.json").read_text()) == (mode == "dense")


def test_a_torn_file_is_one_line_that_names_it(tmp_path):
    path = tmp_path / "training.json"
    for text, said in (
        ("", "eof"),
        ("{", "eof"),
        ('{"batch_size": 2}', "fingerprint: field required"),
    ):
        path.write_text(text)
        with pytest.raises(DataError) as error:
            read_json(TrainingFacts, path)
        assert str(path) in str(error.value)
        assert said in str(error.value)
        assert "\n" not in str(error.value)
