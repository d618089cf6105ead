"""The stages on the real suite: an oracle, a constant model, timm's own way, and changes that must
change nothing.

One project holds the suite's sets and copies of some with a harmless change; every number comes
through the stages.
"""

import csv
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from PIL import Image
from timm.data import create_dataset, create_loader, create_transform
from timm.utils import accuracy
from torch import Tensor, nn

from densecl import paths
from densecl.network import preprocessing
from densecl.network.exported import load_exported_model
from steps import evaluate, plan, prepare, validate
from tests.conftest import write_model

pytestmark = pytest.mark.slow

ARGS = {"img_size": 64, "patch_size": 16, "embed_dim": 48, "depth": 2, "num_heads": 3}
FOLDERS = {
    "imagenet-train": "imagenet/train",
    "imagenet": "imagenet/val",
    "imagenet-a": "imagenet-a",
    "imagenet-r": "imagenet-r",
    "imagenet-v2": "imagenetv2-matched-frequency-format-val",
    "sketch": "sketch",
    "stylized": "stylized/val",
}
COUNTS = {
    "imagenet": 773,
    "imagenet-a": 304,
    "imagenet-r": 1400,
    "imagenet-v2": 900,
    "sketch": 1372,
    "stylized": 825,
}
DELETED = "n02374451"  # horse, of the copy of R
COPIES = {
    "v2-padded": "imagenet-v2",
    "r-cut": "imagenet-r",
    "r-listed": "imagenet-r",
    "sketch-strewn": "sketch",
}


def params(suite: Path, copies: Path, wnids: list[str]) -> dict:
    values = yaml.safe_load((Path(__file__).parent.parent / "small.yaml").read_text())
    roots = {name: str(suite / folder) for name, folder in FOLDERS.items()} | {
        name: str(copies / name) for name in COPIES
    }
    values["datasets"] = {name: {"root": root, "tracked_by": root} for name, root in roots.items()}
    values["network"]["model_args"] = ARGS
    values["evaluate"] = {
        "datasets": [*COUNTS, *COPIES],
        "batch_size": 64,
        "cell_cache": None,  # stand-ins have the files of the model that they stand in for
        "protocol": COPIES,
        "classes": {"r-listed": wnids},
    }
    return values | {"render": {}, "modes": ["none"]}


def copy_sets(suite: Path, place: Path) -> None:
    """V2 zero-padded; R without a class and made in another order; Sketch with files that are no
    images of it.
    """
    for folder in (suite / FOLDERS["imagenet-v2"]).iterdir():
        shutil.copytree(folder, place / "v2-padded" / f"{int(folder.name):04d}")
    for name in ("r-cut", "r-listed"):
        for folder in sorted((suite / FOLDERS["imagenet-r"]).glob("n*"), reverse=True):
            if folder.name != DELETED:
                shutil.copytree(folder, place / name / folder.name)
    shutil.copytree(suite / FOLDERS["sketch"], place / "sketch-strewn")
    inside = next((place / "sketch-strewn").glob("n*"))
    for stray in (
        place / "sketch-strewn" / "README.txt",
        inside / "notes.txt",
        inside / ".hidden.JPEG",
        inside / "Thumbs.db",
    ):
        stray.write_bytes(b"stray")


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Iterator[Path]:
    """Working directory with manifests and verdicts of all sets and a small random model in the
    export's form.
    """
    given = os.environ.get("DENSECL_SUITE")
    if not given:
        pytest.skip("DENSECL_SUITE is unset: it names the folder of the real image suite")
    suite, place = Path(given), tmp_path_factory.mktemp("project")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        copy_sets(suite, place / "copies")
        with (suite / "classes.csv").open(encoding="utf-8") as file:
            classes = [row["wnid"] for row in csv.DictReader(file)]
        in_r = sorted(folder.name for folder in (suite / FOLDERS["imagenet-r"]).glob("n*"))
        values = params(suite, place / "copies", in_r)
        Path("params.yaml").write_text(yaml.safe_dump(values))
        plan.main()
        for name in values["datasets"]:
            prepare.main(name)
        validate.main()
        write_model(paths.model_folder("none", 0), classes, ARGS)
        yield suite


def read_cell(name: str) -> tuple[dict, pd.DataFrame]:
    record = json.loads(paths.evaluation_file(name, "none", 0).read_text())
    return record, pd.read_parquet(paths.predictions_file(name, "none", 0))


@pytest.fixture(scope="module")
def evaluated(project) -> dict[str, tuple[dict, pd.DataFrame]]:
    """Record and predictions of every set."""
    evaluate.main("none", 0)
    return {name: read_cell(name) for name in (*COUNTS, *COPIES)}


class StandIn(nn.Module):
    """A model whose logits [B, 16] are a function of the preprocessed images alone."""

    def __init__(self, answer: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        model, _ = load_exported_model(paths.model_folder("none", 0))
        self.answer, self.num_classes = answer, 16
        self.pretrained_cfg, self.patch_embed = model.pretrained_cfg, model.patch_embed

    def forward(self, images: Tensor) -> Tensor:
        return self.answer(images)


def stand_in(monkeypatch: pytest.MonkeyPatch, answer: Callable[[Tensor], Tensor]) -> None:
    config = json.loads((paths.model_folder("none", 0) / "config.json").read_text())
    model = StandIn(answer)
    monkeypatch.setattr(evaluate, "load_exported_model", lambda _: (model, config))


def true_labels(suite: Path) -> dict[bytes, int]:
    """Preprocessed pixels -> class index, read from the suite's own folders by the rules of its
    README.
    """
    with (suite / "classes.csv").open(encoding="utf-8") as file:
        index = {row["wnid"]: int(row["index"]) for row in csv.DictReader(file)}
    values = load_exported_model(paths.model_folder("none", 0))[0].pretrained_cfg
    common = {
        "input_size": (3, 64, 64),
        "mean": values["mean"],
        "std": values["std"],
        "interpolation": values["interpolation"],
    }
    found: dict[bytes, int] = {}
    for name, folder in FOLDERS.items():
        if name == "imagenet-train":
            continue
        # Stylized images have the input size already: normalised only.
        transform = create_transform(
            **common, crop_pct=1.0 if name == "stylized" else values["crop_pct"]
        )
        for path in (suite / folder).glob("*/*"):
            label = int(path.parent.name) if name == "imagenet-v2" else index[path.parent.name]
            key = transform(Image.open(path).convert("RGB")).numpy().tobytes()
            assert found.setdefault(key, label) == label
    assert len(found) == sum(COUNTS.values())
    return found


def test_an_oracle_is_right_on_every_set_and_layout_and_a_constant_model_on_its_class(
    project, monkeypatch
):
    labels = true_labels(project)

    def oracle(images: Tensor) -> Tensor:
        return (
            nn.functional.one_hot(torch.tensor([labels[i.numpy().tobytes()] for i in images]), 16)
            * 9.0
        )

    stand_in(monkeypatch, oracle)
    evaluate.main("none", 0)
    for name in (*COUNTS, *COPIES):
        record, rows = read_cell(name)
        assert (
            record["top1"]
            == record["top1_unmasked"]
            == record["top5"]
            == record["macro_top1"]
            == 1.0
        ), name
        assert record["control"] is None or record["control"]["top1"] == 1.0
        assert len(rows) == record["images"] == COUNTS.get(name, len(rows))
        assert all(group["top1"] == 1.0 for group in record["per_class"].values())

    dog = 2
    stand_in(
        monkeypatch, lambda images: nn.functional.one_hot(torch.full((len(images),), dog), 16) * 9.0
    )
    evaluate.main("none", 0)
    for name in ("imagenet", "imagenet-r", "imagenet-v2", "stylized"):
        record, rows = read_cell(name)
        folders = [p.parent.name for p in (project / FOLDERS[name]).glob("*/*")]
        share = np.mean([folder in ("2", "n02084071") for folder in folders])
        assert record["top1"] == record["top1_unmasked"] == pytest.approx(share, abs=1e-12)
        assert record["shape_bias"] is None or (
            record["shape_bias"]["images"],
            record["shape_bias"]["left_out"],
        ) == (550, 275)


def test_harmless_changes_of_a_folder_change_no_answer(evaluated):
    """Zero-padded V2, Sketch with stray files, R made in another order, with a class gone."""
    for copy, of in COPIES.items():
        (record, rows), (whole, all_rows) = evaluated[copy], evaluated[of]
        key = all_rows["image_id"].str.partition("/")[2]
        if of == "imagenet-v2":
            key = key.map(
                lambda path: f"{int(path.partition('/')[0]):04d}/{path.partition('/')[2]}"
            )
        kept = all_rows.assign(image_id=key).set_index("image_id")
        mine = rows.assign(image_id=rows["image_id"].str.partition("/")[2]).set_index("image_id")
        compared = [name for name in kept.columns if name != "source"]  # names the folder
        if (
            copy == "r-cut"
        ):  # the mask is the classes that have images: answers over all classes stay
            assert record["classes"] == whole["classes"] - 1
            compared = [name for name in compared if name.endswith("unmasked")]
        gone = set(kept.index) - set(mine.index)
        assert gone == {path for path in kept.index if copy.startswith("r-") and DELETED in path}
        pd.testing.assert_frame_equal(mine[compared], kept.loc[mine.index, compared])
        groups = "top1_unmasked" if copy == "r-cut" else "top1"
        for wnid, group in record["per_class"].items():
            assert group[groups] == whole["per_class"][wnid][groups]
    assert evaluated["r-listed"][0]["classes"] == 7


def masked_is_never_below_unmasked(name: str, rows: pd.DataFrame) -> None:
    """And where the set has all classes, there is no difference."""
    assert (rows["correct"] >= rows["correct_unmasked"]).all()
    assert (rows["correct5"] >= rows["correct5_unmasked"]).all()
    whole = rows["label"].nunique() == 16
    assert whole == (name == "imagenet")
    for column in ("prediction", "confidence"):
        assert (rows[column] == rows[f"{column}_unmasked"]).all() == whole
    control = pd.read_parquet(paths.control_predictions_file(name, "none", 0))
    assert set(control["label"]) == (set() if whole else set(rows["label"]))


@pytest.mark.filterwarnings(
    "ignore:unclosed file:ResourceWarning"
)  # timm leaves its files to the collector
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("name", list(COUNTS))
def test_timm_s_loader_and_accuracy_give_the_same_counts(project, evaluated, name):
    record, rows = evaluated[name]
    masked_is_never_below_unmasked(name, rows)
    model, config = load_exported_model(paths.model_folder("none", 0))
    dataset = create_dataset(
        "", root=str(project / FOLDERS[name])
    )  # folders in timm's natural order
    order = sorted(dataset.reader.class_to_idx, key=dataset.reader.class_to_idx.get)
    valid = [
        int(folder) if name == "imagenet-v2" else config["classes"].index(folder)
        for folder in order
    ]
    cfg = model.pretrained_cfg
    loader = create_loader(
        dataset,
        (3, 64, 64),
        64,
        interpolation=cfg["interpolation"],
        mean=cfg["mean"],
        std=cfg["std"],
        num_workers=0,
        crop_pct=1.0 if name == "stylized" else cfg["crop_pct"],
        use_prefetcher=False,
        persistent_workers=False,
    )
    right, answers = np.zeros(2), []
    with torch.inference_mode():
        for images, targets in loader:
            logits = model(images)[:, valid]  # what timm's validate.py does with --valid-labels
            right += [float(a) * len(images) / 100 for a in accuracy(logits, targets, topk=(1, 5))]
            answers += [valid[place] for place in logits.argmax(1).tolist()]
    assert [round(count) for count in right] == [rows["correct"].sum(), rows["correct5"].sum()]
    names = [f"{name}/{path}" for path in dataset.filenames()]
    assert rows.set_index("image_id").loc[names, "prediction"].tolist() == answers
    assert len(set(answers)) > 1
    assert record["preprocessing"]["rule"] == ("as-is" if name == "stylized" else "model")


def test_an_evaluation_decodes_each_image_once(project, monkeypatch):
    seen: list[Path] = []
    original = preprocessing.decode_image

    def counted(path: Path, *rest) -> Image.Image:
        seen.append(path)
        return original(path, *rest)

    monkeypatch.setattr(preprocessing, "decode_image", counted)
    monkeypatch.setenv("DENSECL_WORKERS", "0")
    evaluate.main("none", 0)
    images = sum(read_cell(name)[0]["images"] for name in (*COUNTS, *COPIES))
    assert len(seen) == len(set(seen)) == images
