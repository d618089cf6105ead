"""A champion may know other classes than there are now: its labels are found by wnid, never by
index.
"""

import json
from pathlib import Path

import pandas as pd
import pytest
import timm
import torch
import yaml
from safetensors.torch import load_file, save_file

from densecl import paths
from densecl.artifacts import Evaluation, MissingEvaluation, read_evaluation
from densecl.errors import DataError
from steps import evaluate, plan, prepare, validate
from tests.conftest import WNIDS, draw_set, write_model

ARGS = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 1, "num_heads": 2}
SETS = {"imagenet": WNIDS, "sketch": WNIDS[1:]}
CHAMPION = (paths.CHAMPION, 0)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict:
    """Prepared and validated sets and a model of all classes, `none`; the params."""
    monkeypatch.chdir(tmp_path)
    draw_set(Path("imagenet-train"), 2)
    for seed, (name, wnids) in enumerate(SETS.items(), 1):
        draw_set(Path(name), 5, seed=seed, folders=wnids)
    values = yaml.safe_load((Path(__file__).parent.parent / "small.yaml").read_text())
    values["datasets"] = {
        name: {"root": name, "tracked_by": name} for name in ("imagenet-train", *SETS)
    }
    values["network"]["model_args"] = ARGS
    values |= {
        "render": {},
        "modes": ["none"],
        "evaluate": {"datasets": list(SETS), "batch_size": 4},
    }
    write_model(paths.model_folder("none", 0), list(WNIDS), ARGS)
    prepared(values)
    return values


def prepared(values: dict) -> None:
    Path("params.yaml").write_text(yaml.safe_dump(values))
    plan.main()
    for name in values["datasets"]:
        prepare.main(name)
    validate.main()


def champion_of(classes: list[str]) -> None:
    """The model `none` as one of these classes, in this order: each row of its classifier moves
    with its class.
    """
    source, folder = paths.model_folder("none", 0), paths.model_folder(*CHAMPION)
    folder.mkdir(parents=True, exist_ok=True)
    state, order = (
        load_file(source / "model.safetensors"),
        [WNIDS.index(wnid) for wnid in classes if wnid in WNIDS],
    )
    for name in ("head.weight", "head.bias"):
        state[name] = state[name][order].contiguous()
    save_file(state, folder / "model.safetensors")
    config = json.loads((source / "config.json").read_text())
    (folder / "config.json").write_text(
        json.dumps(config | {"classes": classes, "num_classes": len(classes)})
    )


def rows(name: str, mode: str, *, control: bool = False) -> pd.DataFrame:
    path = (paths.control_predictions_file if control else paths.predictions_file)(name, mode, 0)
    return pd.read_parquet(path).set_index("image_id").sort_index()


def named(frame: pd.DataFrame, classes: list[str]) -> pd.DataFrame:
    """The rows with wnids in place of indices."""
    return frame.assign(
        **{
            c: [classes[i] for i in frame[c]]
            for c in ("label", "prediction", "prediction_unmasked")
        }
    )


@pytest.mark.slow
def test_the_order_of_its_classes_changes_nothing(project):
    turned = [WNIDS[2], WNIDS[0], WNIDS[1]]
    champion_of(turned)
    for mode in ("none", paths.CHAMPION):
        evaluate.main(mode, 0)
    for name in SETS:
        for control in (False, True):
            ours, theirs = (
                rows(name, "none", control=control),
                rows(name, paths.CHAMPION, control=control),
            )
            pd.testing.assert_frame_equal(
                named(theirs, turned), named(ours, list(WNIDS)), rtol=1e-5
            )
            assert len(theirs) == (
                0 if control and name == "imagenet" else 15 if name == "imagenet" else 10
            )
        one, other = (
            read_evaluation(paths.evaluation_file(name, mode, 0))
            for mode in ("none", paths.CHAMPION)
        )
        assert isinstance(other, Evaluation)
        assert (other.mode, other.seed, other.outside) == (paths.CHAMPION, 0, 0)
        assert (other.top1, other.per_class) == (one.top1, one.per_class)
    # Taken by index, every label would be another class.
    assert (rows("imagenet", paths.CHAMPION)["label"] != rows("imagenet", "none")["label"]).all()


def test_images_of_classes_it_does_not_know_are_left_out_and_counted(project):
    known = [WNIDS[2], WNIDS[0]]
    champion_of(known)
    evaluate.main(*CHAMPION)
    whole, part = (read_evaluation(paths.evaluation_file(name, *CHAMPION)) for name in SETS)
    assert (whole.images, whole.outside, whole.classes) == (10, 5, 2)
    assert (part.images, part.outside, part.classes, part.control.images) == (5, 5, 1, 5)
    assert set(whole.per_class) == set(known)
    found = rows("imagenet", paths.CHAMPION)
    assert [known[label] for label in found["label"]] == [
        path.split("/")[1] for path in found.index
    ]
    # Its answers, counted again by hand with timm.
    model = timm.create_model("vit_tiny_patch16_224", num_classes=2, **ARGS).eval()
    model.load_state_dict(load_file(paths.model_folder(*CHAMPION) / "model.safetensors"))
    data = timm.data.resolve_data_config({}, model=model)
    transform = timm.data.create_transform(**data | {"input_size": (3, 32, 32)}, is_training=False)
    from PIL import Image

    with torch.inference_mode():
        answers = [
            int(model(transform(Image.open(path).convert("RGB"))[None])[0].argmax())
            for path in found.index
        ]
    assert found["prediction_unmasked"].tolist() == answers


@pytest.mark.slow
def test_a_list_of_scored_classes_is_cut_to_what_it_knows(project):
    project["evaluate"]["classes"] = {"imagenet": [WNIDS[0], WNIDS[1]]}
    prepared(project)
    champion_of([WNIDS[2], WNIDS[0]])
    evaluate.main(*CHAMPION)
    assert read_evaluation(paths.evaluation_file("imagenet", *CHAMPION)).classes == 1
    champion_of([WNIDS[2]])
    evaluate.main(*CHAMPION)
    found = read_evaluation(paths.evaluation_file("imagenet", *CHAMPION))
    assert isinstance(found, MissingEvaluation)
    assert found.reason == "imagenet: the model knows none of the 2 classes it is scored over"
    assert rows("imagenet", paths.CHAMPION).empty


@pytest.mark.slow
def test_a_set_of_none_of_its_classes_has_no_evaluation_and_stops_nothing(project):
    champion_of([WNIDS[0]])
    evaluate.main(*CHAMPION)
    found = read_evaluation(paths.evaluation_file("sketch", *CHAMPION))
    assert found.reason == "sketch: none of its 10 images is of the 1 classes that the model knows"
    next(Path("sketch").rglob("*.JPEG")).write_bytes(b"another size")
    with pytest.raises(DataError, match="it changed after its manifest was written"):
        evaluate.main(*CHAMPION)
