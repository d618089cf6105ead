"""Files that probes read: checked by `plan`, and linked where DVC hashes them."""

import json
from pathlib import Path

import pytest
import yaml

from densecl import paths
from densecl.config.params import load_params
from densecl.config.probe_params import FROST_FILES, ProbesParams
from densecl.errors import DenseclError
from steps.probe_inputs import check_probe_inputs, link_probe_inputs
from tests.conftest import WNIDS, write_model

ROOT = Path(__file__).parents[2]
ARGS = {"img_size": 32, "patch_size": 16, "embed_dim": 24, "depth": 1, "num_heads": 2}


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def write_files(folder: Path, *names: str) -> None:
    folder.mkdir(parents=True)
    for name in names:
        (folder / name).write_text(name)


def refer_to(folder: str) -> ProbesParams:
    return ProbesParams.model_validate({"occlusion": {"reference": folder}})


def test_all_files_that_probes_read_are_linked_and_no_others():
    write_model(Path("weights"), list(WNIDS), ARGS)
    Path("weights/README.md").write_text("no weights")
    write_files(Path("frost").absolute(), *FROST_FILES, "frost6.jpg")
    probes = ProbesParams.model_validate(
        {"occlusion": {"reference": "weights"}, "corruptions": {"frost": str(Path.cwd() / "frost")}}
    )
    check_probe_inputs(probes)
    link_probe_inputs(probes)
    links = [path for path in paths.PROBE_INPUTS.rglob("*") if not path.is_dir()]
    assert {str(link.relative_to(paths.PROBE_INPUTS)): link.resolve() for link in links} == {
        "occlusion/model.safetensors": Path("weights/model.safetensors").resolve(),
        "occlusion/config.json": Path("weights/config.json").resolve(),
        **{f"corruptions/{name}": Path("frost", name).resolve() for name in FROST_FILES},
    }
    link_probe_inputs(ProbesParams())
    assert list(paths.PROBE_INPUTS.iterdir()) == []  # there for DVC, without what is named no more


def test_a_missing_file_is_one_line_that_names_the_key():
    write_files(Path("weights"), "model.safetensors")
    with pytest.raises(DenseclError) as caught:
        check_probe_inputs(refer_to("weights"))
    assert str(caught.value) == (
        "evaluate.probes.occlusion.reference: found no config.json in weights; expected a folder "
        "with model.safetensors, config.json"
    )
    probes = ProbesParams.model_validate({"corruptions": {"frost": "nosuch"}})
    with pytest.raises(
        DenseclError, match=r"^evaluate.probes.corruptions.frost: found no frost1.png in nosuch; .*"
    ):
        check_probe_inputs(probes)
    unused = {"corruptions": {"frost": "nosuch", "names": ["fog"]}}
    check_probe_inputs(ProbesParams.model_validate(unused))


def test_a_model_of_this_project_is_no_reference():
    write_files(Path("models/none/seed-0"), "model.safetensors", "config.json")
    Path("link").symlink_to("models/none/seed-0")
    for folder in ("models/none/seed-0", "./models/none/seed-1", "link"):
        with pytest.raises(DenseclError, match=r"reference: found .*, which this project trains"):
            check_probe_inputs(refer_to(folder))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"model_args": ARGS | {"class_token": False, "global_pool": "avg"}}, "has no CLS token"),
        ({"model_args": ARGS | {"embed_dim": 48}}, "the weights do not fit"),
        ({"architecture": "resnet18", "model_args": {}}, "resnet18 is a ResNet"),
        ({"num_classes": None}, "config.json is no config of a timm model"),
    ],
)
def test_weights_whose_attention_cannot_be_read_are_refused_before_any_training(changed, said):
    args = {"model_args": ARGS} | changed
    write_model(Path("weights"), list(WNIDS), args["model_args"] if "CLS" in said else ARGS)
    config = Path("weights/config.json")
    config.write_text(json.dumps(json.loads(config.read_text()) | changed))
    with pytest.raises(DenseclError, match=rf"^evaluate.probes.occlusion.reference: .*{said}"):
        check_probe_inputs(refer_to("weights"))


@pytest.mark.parametrize("stage", ["evaluate", "evaluate-model"])
def test_the_evaluation_depends_on_them(stage):
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    entry = stages[stage].get("do") or stages[stage]
    assert str(paths.PROBE_INPUTS) in entry["deps"]
    assert {str(paths.PROBE_INPUTS): {"cache": False, "persist": True}} in stages["plan"]["outs"]


def test_drawn_masks_are_tracked_with_their_images():
    entries = load_params(ROOT / "params.yaml").transfer
    masks = {name: entry.masks for name, entry in entries.items() if entry.masks}
    assert len(masks) == 3
    for name, folder in masks.items():
        tracked = entries[name].tracked_by
        assert Path(folder).is_relative_to(tracked)
        assert Path(entries[name].root).is_relative_to(tracked)
