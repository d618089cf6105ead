"""Files that probes read: checked by `plan`, and linked where DVC hashes them."""

from pathlib import Path

import pytest
import yaml

from densecl import paths
from densecl.config.params import load_params
from densecl.config.probe_params import FROST_FILES, ProbesParams
from densecl.errors import DenseclError
from steps.probe_inputs import check_probe_inputs, link_probe_inputs

ROOT = Path(__file__).parents[2]


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
    write_files(Path("weights"), "model.safetensors", "config.json", "README.md")
    write_files(Path("frost").absolute(), *FROST_FILES, "frost6.jpg")
    probes = ProbesParams.model_validate(
        {"occlusion": {"reference": "weights"}, "corruptions": {"frost": str(Path.cwd() / "frost")}}
    )
    check_probe_inputs(probes)
    link_probe_inputs(probes)
    links = [path for path in paths.PROBE_INPUTS.rglob("*") if not path.is_dir()]
    assert {str(link.relative_to(paths.PROBE_INPUTS)): link.read_text() for link in links} == {
        "occlusion/model.safetensors": "model.safetensors",
        "occlusion/config.json": "config.json",
        **{f"corruptions/{name}": name for name in FROST_FILES},
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
