"""Files that say the class of an image are linked where DVC hashes them, by dataset."""

from pathlib import Path

import yaml

from densecl import paths
from densecl.config.params import DatasetParams
from steps.label_files import link_label_files

ROOT = Path(__file__).parents[2]


def test_every_dataset_has_a_folder_with_links_to_its_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("classes.csv").write_text("folder,class\n")
    Path("list.txt").write_text("n10000001\n")
    datasets = {
        "imagenet-train": DatasetParams(root="r", tracked_by="r", class_map="classes.csv"),
        "shards": DatasetParams(
            root="s", tracked_by="s", layout="webdataset", class_list=str(tmp_path / "list.txt")
        ),
        "imagenet": DatasetParams(root="v", tracked_by="v", class_map="nosuch.csv"),
        "plain": DatasetParams(root="p", tracked_by="p"),
    }
    for _ in range(2):
        link_label_files(datasets)
        found = {
            folder.name: {file.name: file.read_text() for file in folder.iterdir()}
            for folder in paths.LABEL_FILES.iterdir()
        }
        assert found == {
            "imagenet-train": {"class_map": "folder,class\n"},
            "shards": {"class_list": "n10000001\n"},
            "imagenet": {},
            "plain": {},
        }
    del datasets["shards"]
    link_label_files(datasets)
    assert not (paths.LABEL_FILES / "shards").exists()


def test_the_manifest_depends_on_those_of_its_dataset_and_of_the_train_set():
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    assert {"data/label-files/${key}", "data/label-files/imagenet-train"} <= set(
        stages["prepare"]["do"]["deps"]
    )
    assert {str(paths.LABEL_FILES): {"cache": False, "persist": True}} in stages["plan"]["outs"]
