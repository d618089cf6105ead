"""k nearest neighbours and the linear probe against slow references, on features whose answers are
known, and against a recomputation from the exported weights with plain timm.
"""

import json
import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file
from timm.data import create_transform, resolve_data_config

from densecl import paths
from densecl.artifacts import EvaluatePlan, ProbeEvaluation, read_json
from densecl.config.params import ParamsError, load_params
from densecl.config.probe_params import CorrespondenceParams, LinearParams, NeighbourParams
from densecl.datasets.storage.transfer import load_transfer
from densecl.datasets.storage.usable_images import load_planned_images
from densecl.errors import DataError
from densecl.evaluation.cell_cache import CellCache
from densecl.evaluation.frozen_features import accuracy
from densecl.evaluation.frozen_features.accuracy import (
    FeatureSet,
    ImageFeatures,
    compute_features,
    describe_seen,
    draw_half,
    load_pair,
    load_training,
    score_task,
)
from densecl.evaluation.probes import knn, linear
from densecl.evaluation.probes.knn import find_neighbours, select_largest
from densecl.evaluation.probing import run
from densecl.evaluation.probing.context import ProbeContext
from densecl.evaluation.score import ModelEvaluator
from densecl.network.exported import load_exported_model
from tests.conftest import WNIDS, draw_set
from tests.evaluation.evaluated_project import run_stages
from tests.evaluation.probes.test_correspondence import read_warp, warp_slow
from tests.training.test_linear_probe import planted, solve_whole_batch

NEW = ("apple", "pear")


def create_features(rows: int, seed: int = 0, dim: int = 6) -> torch.Tensor:
    return torch.randn(rows, dim, generator=torch.Generator().manual_seed(seed))


def create_labels(rows: int, classes: int = 4) -> torch.Tensor:
    return torch.randint(classes, (rows,), generator=torch.Generator().manual_seed(9))


def vote_slow(
    features: np.ndarray, labels: list[int], asked: np.ndarray, k: int, temperature: float
) -> list[int]:
    """One image after the other, with the rule for ties in the order of Python's stable sort."""
    predicted = []
    for one in asked:
        cosines = [
            round(one @ other / np.linalg.norm(one) / np.linalg.norm(other), 9)
            for other in features
        ]
        nearest = sorted(range(len(features)), key=lambda row: -cosines[row])[:k]
        votes = Counter[int]()
        for row in nearest:
            votes[labels[row]] += math.exp(cosines[row] / temperature)
        predicted.append(min(votes, key=lambda label: (-round(votes[label], 6), label)))
    return predicted


@pytest.mark.slow
@pytest.mark.parametrize("k", [1, 3, 20, 500])
@pytest.mark.parametrize("coarse", [False, True])
def test_votes_equal_those_counted_one_by_one(monkeypatch, k, coarse):
    """Also where cosines are equal: features of three values, of which many are the same."""
    features, asked, labels = create_features(90), create_features(40, 1), create_labels(90)
    if coarse:
        features, asked = (values.sign() + values[:, :1].sign() * 2 for values in (features, asked))
    expected = vote_slow(features.double().numpy(), labels.tolist(), asked.double().numpy(), k, 0.3)
    whole = find_neighbours(asked, features, k)
    smallest = (1, 1) if k == 3 else (9, 8)
    for asked_chunk, key_chunk in ((256, 2**15), (7, 90), (40, 11), smallest):
        monkeypatch.setattr(knn, "ASKED_CHUNK", asked_chunk)
        monkeypatch.setattr(knn, "KEY_CHUNK", key_chunk)
        found = knn.classify(features, labels, asked, 4, k=k, temperature=0.3)
        assert found.tolist() == expected
        for part, values in zip(find_neighbours(asked, features, k), whole, strict=True):
            assert torch.equal(part, values)


def test_each_chunk_of_keys_is_normalised_once(monkeypatch):
    monkeypatch.setattr(knn, "ASKED_CHUNK", 5)
    monkeypatch.setattr(knn, "KEY_CHUNK", 30)
    lengths = []
    normalize = torch.nn.functional.normalize
    monkeypatch.setattr(
        knn.F, "normalize", lambda rows, dim: lengths.append(len(rows)) or normalize(rows, dim=dim)
    )
    find_neighbours(create_features(40, 1), create_features(90), 3)
    assert lengths.count(30) == 3


def test_the_largest_are_those_of_a_stable_sort():
    values = torch.randint(5, (50, 30), generator=torch.Generator().manual_seed(0)).double()
    for k in (1, 7, 30, 40):
        expected = values.argsort(dim=1, descending=True, stable=True)[:, :k]
        assert torch.equal(select_largest(values, k), expected)


def test_a_small_temperature_counts_the_nearest_only():
    """No vote underflows, however far the neighbours."""
    features, labels = create_features(50), create_labels(50)
    asked = create_features(20, 1)
    nearest = find_neighbours(asked, features, 1)[1][:, 0]
    found = knn.classify(features, labels, asked, 4, k=20, temperature=1e-6)
    assert torch.equal(found, labels[nearest])


def test_constant_features_give_the_same_answer_to_all():
    """k-NN: the vote of the first k images; the linear probe: the most frequent class."""
    labels = torch.tensor([3] * 2 + [1] * 3 + [0] * 7)
    features = torch.ones(12, 5)
    assert knn.classify(features, labels, features, 4, k=5, temperature=0.07).eq(1).all()
    assert knn.classify(features, labels, features, 4, k=4, temperature=0.07).eq(1).all()  # 2 : 2
    assert linear.classify(features, labels, features, 4).eq(0).all()


def test_an_oracle_finds_every_class():
    labels, asked = create_labels(60), create_labels(80)[20:]
    one_hot = torch.eye(4)
    for found in (
        knn.classify(one_hot[labels], labels, one_hot[asked], 4, k=5, temperature=0.07),
        linear.classify(one_hot[labels], labels, one_hot[asked], 4),
    ):
        assert torch.equal(found, asked)


def test_the_linear_probe_is_the_optimum_of_newton_s_method():
    features, labels = planted()
    expected = solve_whole_batch(features, labels).argmax(1)
    assert linear.classify(features, labels, features, 5).eq(expected).double().mean() > 0.99


def create_set(classes: list[str], values: torch.Tensor) -> FeatureSet:
    names = [f"s/{name}/{number}.png" for number, name in enumerate(classes)]
    rows = pd.DataFrame({"image_id": names, "source": names, "class": classes})
    return FeatureSet(rows, ImageFeatures(values, -values))


def answer_by_column(fit, labels, asked, classes):
    assert labels.max() < classes
    return asked.argmax(1)


def test_images_of_other_classes_are_left_out_and_counted():
    fit = create_set(["b", "a", "b"], torch.eye(3))
    test = create_set(["a", "b", "zebra", "b"], torch.tensor([[1.0, 0], [1, 0], [1, 0], [0, 1]]))
    table, measures = score_task("s", fit, test, answer_by_column)
    assert table["cls/s"].tolist() == [1.0, 0.0, 1.0]
    assert table["patches/s"].tolist() == [0.0, 1.0, 0.0]
    assert measures["cls/s"].chance == 0.5
    assert "fitted on 3 images of 2 classes; 1 images of other classes" in measures["cls/s"].note
    with pytest.raises(DataError, match="none of its 1 images is of the 2 classes"):
        score_task("s", fit, create_set(["zebra"], torch.eye(1)), answer_by_column)


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """Evaluated with the probes of frozen features and correspondence."""
    folder = tmp_path_factory.mktemp("project")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        draw_set(Path("train"), 9)
        draw_set(Path("val"), 4, seed=1)
        draw_set(Path("new"), 8, seed=2, folders=NEW)
        draw_set(Path("other"), 3, seed=3, folders=(*NEW, "plum"))
        sets = {"new": "new", "new-too": "other"}
        probes = {
            "knn": {"k": 3, "sets": sets},
            "linear": {"sets": dict(sets)},
            "correspondence": {"images": 7},
        }
        entries = {
            "new": {"root": "new", "tracked_by": "new"},
            "other": {"root": "other", "tracked_by": "other"},
            "new-too": {"root": "new", "tracked_by": "new"},
        }
        run_stages(
            {"imagenet-train": "train", "imagenet": "val"},
            {"probes": probes},
            entries,
            {"depth": 2},
        )
    return folder


@pytest.fixture
def context(project, monkeypatch) -> ProbeContext:
    monkeypatch.chdir(project)
    plan = read_json(EvaluatePlan, paths.plan_file("evaluate"))
    model, config = load_exported_model(paths.model_folder("none", 0))
    evaluator = ModelEvaluator(model, config["classes"], "none", 0, plan, CellCache(None))
    return ProbeContext(evaluator, plan)


def load_plainly() -> tuple[torch.nn.Module, Callable[[Image.Image], torch.Tensor]]:
    """The exported model and its preprocessing by timm alone."""
    exported = paths.model_folder("none", 0)
    known = json.loads((exported / "config.json").read_text())
    model = timm.create_model(
        known["architecture"], num_classes=known["num_classes"], **known["model_args"]
    )
    model.load_state_dict(load_file(exported / "model.safetensors"))
    config = resolve_data_config({"input_size": (3, 32, 32)}, model=model)
    return model.eval(), create_transform(**config)


def extract_plainly(folder: Path) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Paths of all images of a folder, their CLS and mean patches, one by one."""
    model, transform = load_plainly()
    files = sorted(folder.rglob("*.JPEG"))
    with torch.inference_mode():
        tokens = torch.cat(
            [model.forward_features(transform(Image.open(f).convert("RGB"))[None]) for f in files]
        ).numpy()
    names = [path.relative_to(folder).as_posix() for path in files]
    return names, tokens[:, 0].astype(float), tokens[:, 1:].astype(float).mean(1)


def test_the_neighbours_are_those_of_plain_timm(project, monkeypatch):
    monkeypatch.chdir(project)
    rows = pd.read_parquet(paths.probe_rows_file("knn", "none", 0))
    names, *trained = extract_plainly(Path("train"))
    asked_names, *asked = extract_plainly(Path("val"))
    labels = [WNIDS.index(name.split("/")[0]) for name in names]
    truth = [WNIDS.index(name.split("/")[0]) for name in asked_names]
    for kind, features, questions in zip(("cls", "patches"), trained, asked, strict=True):
        expected = np.equal(vote_slow(features, labels, questions, 3, 0.07), truth)
        found = rows.set_index("image_id")[f"{kind}/imagenet"]
        found = found.loc[[f"imagenet/{name}" for name in asked_names]]
        assert found.tolist() == expected.astype(float).tolist()


def find_patches(model: torch.nn.Module, image: np.ndarray, block: int) -> np.ndarray:
    """[N, E] patch tokens, of length 1, of a normalised image [3, H, W]."""
    with torch.inference_mode():
        tokens = model.patch_embed(torch.from_numpy(image).float()[None])
        tokens = model.norm_pre(model.patch_drop(model._pos_embed(tokens)))
        for layer in model.blocks[: block + 1]:
            tokens = layer(tokens)
        patches = model.norm(tokens)[0, 1:].double().numpy()
    return patches / np.linalg.norm(patches, axis=1, keepdims=True)


def test_correspondence_is_that_of_plain_timm(project, monkeypatch):
    """Patch by patch, with pixels and places by numpy."""
    monkeypatch.chdir(project)
    model, transform = load_plainly()
    rows = pd.read_parquet(paths.probe_rows_file("correspondence", "none", 0))
    for row in rows.to_dict("records"):
        file = Path("val") / row["image_id"].removeprefix("imagenet/")
        image = transform(Image.open(file).convert("RGB")).double().numpy()
        shown, moved = 0, dict.fromkeys((1, 2), 0)
        correct = Counter[str]()
        for kind in ("flip", "shift", "crop", "rotation"):
            matrix, offset = read_warp(kind, row["image_id"], 32, 32)
            warped = warp_slow(image, matrix, offset)
            places = [
                np.linalg.inv(matrix) @ (np.array([n % 4 * 8 - 12, n // 4 * 8 - 12]) - offset) / 8
                for n in range(16)
            ]  # (x, y) from the centre, in patches
            visible = [n for n in range(16) if (places[n] >= -2).all() and (places[n] < 2).all()]
            shown += len(visible)
            centres = [np.array([m % 4 - 1.5, m // 4 - 1.5]) for m in range(16)]
            for block, name in enumerate(("next-to-last", "last")):
                cosines = find_patches(model, image, block) @ find_patches(model, warped, block).T
                for n in visible:
                    distance = np.linalg.norm(places[n] - centres[cosines[n].argmax()])
                    own = np.linalg.norm(places[n] - centres[n])
                    for t in (1, 2):
                        correct[f"pck{t}/{name}"] += distance <= t
                        correct[f"moved{t}/{name}"] += distance <= t < own
                        moved[t] += (t < own) * block
        for name, patches in correct.items():
            total = shown if name.startswith("pck") else moved[int(name[5])]
            assert row[name] == pytest.approx(patches / total, abs=1e-12), (row["image_id"], name)


@pytest.mark.parametrize("probe", ["knn", "linear", "correspondence"])
def test_measures_are_means_of_their_columns(project, monkeypatch, probe):
    monkeypatch.chdir(project)
    evaluation = read_json(ProbeEvaluation, paths.probe_file(probe, "none", 0))
    rows = pd.read_parquet(paths.probe_rows_file(probe, "none", 0))
    assert set(rows.columns) == {"image_id", "source", *evaluation.measures}
    for name, measure in evaluation.measures.items():
        assert measure.value == rows[name].mean()
        assert measure.images == rows[name].notna().sum()
    if probe == "correspondence":
        assert len(rows) == 7
    else:
        assert {*evaluation.measures} == {
            f"{kind}/{name}"
            for kind in ("cls", "patches")
            for name in ("imagenet", "new", "new-too")
        }
        assert evaluation.measures["cls/imagenet"].images == 12
        assert evaluation.measures["cls/new"].images == 8  # half of 16
        assert evaluation.measures["cls/new-too"].images == 16
        assert evaluation.measures["cls/new-too"].chance == pytest.approx(1 / 3)
        assert rows["image_id"].is_unique


def test_halves_of_an_entry_share_no_image_and_every_class(context):
    fit, test = load_pair(context, "new", "new")
    assert not {*fit.rows["image_id"]} & {*test.rows["image_id"]}
    for part in (fit, test):
        assert part.rows["class"].value_counts().to_dict() == dict.fromkeys(NEW, 4)
    again, _ = load_pair(context, "new", "new")
    assert again.rows.equals(fit.rows)


def test_training_images_can_be_limited(context):
    assert len(load_training(context, None).rows) == 27
    assert load_training(context, 2).rows["class"].value_counts().tolist() == [2, 2, 2]
    assert {*load_training(context, 2).rows["image_id"]} < {
        *load_training(context, 5).rows["image_id"]
    }


def test_features_keep_no_tokens_in_memory(context, monkeypatch):
    """One row of E values per image, not all tokens of the batch behind a view."""
    joined, cat = [], torch.cat
    monkeypatch.setattr(
        torch, "cat", lambda parts, **options: joined.append(parts) or cat(parts, **options)
    )
    compute_features(context, context.iter_images())
    assert [sum(map(len, parts)) for parts in joined[-2:]] == [12, 12]
    for part in (*joined[-2], *joined[-1]):
        assert part.untyped_storage().nbytes() == part.numel() * 4


def test_features_are_computed_once(context):
    first = knn.measure(context, context.plan.probes.knn)
    images = context.evaluator.predictor.images_run
    assert images == 27 + 12 + 16 + 9 + 16
    linear.measure(context, context.plan.probes.linear)
    assert context.evaluator.predictor.images_run == images
    stored = read_json(ProbeEvaluation, paths.probe_file("knn", "none", 0)).measures
    assert first.measures == stored


def test_other_training_images_are_another_result(context):
    keys = [
        run._build_key("knn", context, NeighbourParams()),
        run._build_key("correspondence", context, CorrespondenceParams()),
    ]
    path = paths.manifest_file("imagenet-train")
    content = path.read_bytes()
    try:
        path.write_bytes(content + b"\0")
        assert run._build_key("knn", context, NeighbourParams()) != keys[0]
        assert run._build_key("correspondence", context, CorrespondenceParams()) == keys[1]
    finally:
        path.write_bytes(content)


def test_an_entry_that_cannot_be_used_is_a_missing_measure(context, monkeypatch):
    context.plan = context.plan.model_copy(update={"optional": True})
    path = paths.transfer_file("other")
    content = path.read_bytes()
    try:
        path.unlink()
        result = linear.measure(context, context.plan.probes.linear)
    finally:
        path.write_bytes(content)
    assert "no such file" in result.missing["cls/new-too"]
    assert "cls/new-too" not in result.measures
    assert "cls/new" in result.measures


def test_the_validation_images_are_no_entry(tmp_path, project):
    text = (project / "params.yaml").read_text()
    assert "new-too: other" in text
    (tmp_path / "params.yaml").write_text(text.replace("new-too: other", "imagenet: other"))
    with pytest.raises(ParamsError, match="expected none named imagenet"):
        load_params(tmp_path / "params.yaml")


def test_one_entry_is_fitted_on_for_two(context):
    params = LinearParams(sets={"new-too": "other", "new": "other"})
    assert params.transfer_names == ("other", "other", "new-too", "new")
    measures = linear.measure(context, params).measures
    assert measures["cls/new"].value == measures["cls/new-too"].value  # the same images
    assert measures["cls/new"].note == "fitted on 9 images of 3 classes"


def test_training_images_and_classes_of_an_entry_are_counted_in_the_note(context, monkeypatch):
    assert describe_seen(context, "new") == ""
    trained = load_planned_images(context.plan.training).frame
    frame = pd.concat([trained.assign(**{"class": trained["wnid"]}), load_frame("new")])
    monkeypatch.setattr(accuracy, "load_classified", lambda *_: SimpleNamespace(frame=frame))
    seen = "27 of its 43 images are training images and 3 of its 5 classes are training classes"
    assert describe_seen(context, "new") == seen
    table = score_task("s", *[create_set(["a", "b"], torch.eye(2))] * 2, answer_by_column, seen)
    assert table[1]["cls/s"].note == f"fitted on 2 images of 2 classes; {seen}"
    paths.manifest_file("imagenet-train").rename("kept")
    try:
        assert describe_seen(context, "new").endswith("is a training image is not known")
    finally:
        Path("kept").rename(paths.manifest_file("imagenet-train"))


def load_frame(name: str) -> pd.DataFrame:
    plan = read_json(EvaluatePlan, paths.plan_file("evaluate"))
    return load_transfer(name, plan.transfer[name], paths.transfer_file(name))


def test_entries_that_share_an_image_are_refused(context):
    with pytest.raises(DataError, match="16 of its 16 images are in transfer"):
        load_pair(context, "new", "new-too")


def test_images_of_one_content_are_in_one_half():
    names = [f"{number}.png" for number in range(40)]
    digests = [f"{number // 4}" for number in range(40)]  # four files of each
    classes = ["a", "b"] * 10 + ["a"] * 20
    frame = pd.DataFrame({"image_id": names, "class": classes, "sha256": digests})
    is_fitted = draw_half(frame)
    assert frame.assign(half=is_fitted).groupby("sha256")["half"].nunique().eq(1).all()
    assert is_fitted.sum() == 20
    single = frame.iloc[20::4]
    assert draw_half(single).sum() == 3
