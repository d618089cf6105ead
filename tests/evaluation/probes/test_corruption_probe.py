"""The probe `corruptions`, against a recomputation from the exported model, and against a tree of
folders like ImageNet-C's own.
"""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import timm
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file, save_file
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize

from densecl import paths
from densecl.artifacts import EvaluatePlan, ProbeEvaluation, read_json
from densecl.config.params import TRAIN_SET, load_params
from densecl.config.probe_params import FROST_FILES, CorruptionParams
from densecl.errors import DataError, DenseclError
from densecl.evaluation.cell_cache import CellCache
from densecl.evaluation.corruptions.corrupt import (
    CORRUPTIONS,
    corrupt_image,
    create_random,
    truncate_pixels,
)
from densecl.evaluation.imagenet_c import (
    ALEXNET_ERRORS,
    SEVERITIES,
    compute_corruption_errors,
    compute_mce,
    compute_mce_to_alexnet,
)
from densecl.evaluation.probes import corruptions as probe
from densecl.evaluation.probes.corruptions import Condition, build_columns, find_obstacles
from densecl.evaluation.probing.context import ProbeContext
from densecl.evaluation.score import ModelEvaluator
from densecl.network.exported import load_exported_model
from steps import evaluate, plan, prepare, validate
from tests.conftest import WNIDS, draw_set, write_model
from tests.evaluation.evaluated_project import ARGS, SMALL

NAMES, CHOSEN_SEVERITIES = ("impulse_noise", "snow"), (1, 5)
CHOSEN = [f"{name}/{severity}" for name in NAMES for severity in CHOSEN_SEVERITIES]
PER_CLASS = 8


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An evaluated project; its datasets `<corruption>-<severity>` are folders like ImageNet-C's,
    made with the probe's own random numbers, and `other-...` with others.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("project"))
        patch.setenv("DENSECL_WORKERS", "0")
        draw_set(Path("train"), 2)
        draw_set(Path("val"), PER_CLASS, seed=1)
        roots = {TRAIN_SET: "train", "imagenet": "val"}
        for prefix, column in (("", CHOSEN[0]), ("", CHOSEN[-1]), ("other-", CHOSEN[0])):
            corruption, severity = column.split("/")
            roots[name_dataset(prefix, column)] = f"{prefix}tree/{column}"
            save_corrupted(corruption, int(severity), Path(f"{prefix}tree", column), prefix)
        evaluate_roots(roots)
        return Path.cwd()


def evaluate_roots(roots: dict[str, str]) -> None:
    values = yaml.safe_load(SMALL.read_text())
    values["network"]["model_args"] = ARGS
    values |= {
        "render": {},
        "modes": ["none"],
        "datasets": {name: {"root": root, "tracked_by": root} for name, root in roots.items()},
        "evaluate": {
            "datasets": list(roots)[1:],
            "protocol": dict.fromkeys(list(roots)[2:], "imagenet-c"),
            "probes": {"corruptions": {"names": [*NAMES], "severities": [*CHOSEN_SEVERITIES]}},
        },
    }
    Path("params.yaml").write_text(yaml.safe_dump(values))
    write_model(paths.model_folder("none", 0), list(WNIDS), ARGS)
    spread_answers()
    plan.main()
    for name in roots:
        prepare.main(name)
    validate.main()
    evaluate.main("none", 0)


def spread_answers() -> None:
    """A head under which the clean images have answers of all classes, near each other."""
    model, weights = load_model(), paths.model_folder("none", 0) / "model.safetensors"
    images = [read_crop(path) for path in sorted(Path("val").rglob("*.JPEG"))]
    with torch.no_grad():
        batch = (torch.tensor(np.stack(images)).permute(0, 3, 1, 2) / 255 - 0.5) / 0.5
        features = model.forward_head(model.forward_features(batch), pre_logits=True)
        directions = torch.linalg.svd(features - features.mean(0))[2][3 : 3 + len(WNIDS)]
        model.head.weight.copy_(100 * directions)
        model.head.bias.copy_(-100 * directions @ features.mean(0))
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, weights)


def load_model() -> torch.nn.Module:
    model = timm.create_model("vit_tiny_patch16_224", num_classes=len(WNIDS), **ARGS)
    model.load_state_dict(load_file(paths.model_folder("none", 0) / "model.safetensors"))
    return model.eval()


def name_dataset(prefix: str, column: str) -> str:
    return prefix + column.replace("/", "-").replace("_", "-")


def read_folder(prefix: str, column: str) -> pd.Series:
    """Right answers on a folder like ImageNet-C's, by the image_id of the clean image."""
    name = name_dataset(prefix, column)
    cell = pd.read_parquet(paths.predictions_file(name, "none", 0))
    ids = cell["image_id"].str.replace(f"{name}/", "imagenet/")
    return pd.Series(cell["correct"].to_numpy(dtype=float), ids)


def read_crop(path: Path) -> np.ndarray:
    """As the model's configuration says: 32 px, 0.9 of the shorter side."""
    transform = Compose([Resize(int(32 / 0.9), InterpolationMode.BICUBIC), CenterCrop(32)])
    return np.asarray(transform(Image.open(path)))


def save_corrupted(corruption: str, severity: int, root: Path, prefix: str) -> None:
    """As the authors save theirs."""
    for path in sorted(Path("val").rglob("*.JPEG")):
        image_id = f"{prefix}imagenet/{path.relative_to('val').as_posix()}"
        rng = create_random(corruption, image_id)
        pixels = CORRUPTIONS[corruption](read_crop(path), severity, rng)
        target = root / path.relative_to("val")
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(truncate_pixels(pixels)).save(target, "JPEG", quality=85, optimize=True)


@pytest.fixture
def context(project: Path, monkeypatch: pytest.MonkeyPatch) -> ProbeContext:
    monkeypatch.chdir(project)
    monkeypatch.setenv("DENSECL_WORKERS", "0")
    return create_context()


def create_context(batch_size: int | None = None) -> ProbeContext:
    plan = read_json(EvaluatePlan, paths.plan_file("evaluate"))
    if batch_size:
        plan = plan.model_copy(update={"batch_size": batch_size})
    model, config = load_exported_model(paths.model_folder("none", 0))
    evaluator = ModelEvaluator(model, config["classes"], "none", 0, plan, CellCache(None))
    return ProbeContext(evaluator, plan)


def read_rows() -> pd.DataFrame:
    return pd.read_parquet(paths.probe_rows_file("corruptions", "none", 0))


@pytest.mark.slow
def test_rows_equal_a_recomputation_from_the_exported_weights(context: ProbeContext):
    model, config = load_model(), context.preprocessing
    rows = read_rows()
    assert len(rows) == len(WNIDS) * PER_CLASS
    assert rows[CHOSEN].nunique().eq(2).all()  # some right, some wrong
    for row in rows.to_dict("records"):
        path = Path("val", row["image_id"].removeprefix("imagenet/"))
        image = read_crop(path)
        for column in CHOSEN:
            name, severity = column.split("/")
            pixels = corrupt_image(image, name, int(severity), row["image_id"], CORRUPTIONS[name])
            values = (pixels / 255 - np.array(config.mean)) / np.array(config.std)
            batch = torch.tensor(values).permute(2, 0, 1)[None].float()
            with torch.no_grad():
                predicted = int(model(batch).argmax())
            assert row[column] == (WNIDS[predicted] == path.parent.name)
        assert row["mean"] == pytest.approx(np.mean([row[column] for column in CHOSEN]))


@pytest.mark.parametrize("column", [CHOSEN[0], CHOSEN[-1]])
def test_a_folder_of_the_same_images_gives_the_same_answers(context: ProbeContext, column: str):
    folder, rows = read_folder("", column), read_rows().set_index("image_id")
    assert set(folder.index) == set(rows.index)
    assert (rows.loc[folder.index, column] == folder).all()


def test_a_folder_with_other_random_numbers_agrees_within_sampling_error(context: ProbeContext):
    folder, rows = read_folder("other-", CHOSEN[0]), read_rows().set_index("image_id")
    differences = rows.loc[folder.index, CHOSEN[0]] - folder
    assert differences.any()  # they are other images
    assert abs(differences.mean()) <= 4 * differences.std() / len(folder) ** 0.5


def test_measures_are_means_of_their_columns(context: ProbeContext):
    evaluation = read_json(ProbeEvaluation, paths.probe_file("corruptions", "none", 0))
    rows = read_rows()
    means = [f"{name}/mean" for name in NAMES]
    assert list(rows) == ["image_id", "source", "mean", *means, *CHOSEN]
    assert {"image_id", "source", *evaluation.measures} == {*rows}
    for name, measured in evaluation.measures.items():
        assert measured.value == pytest.approx(rows[name].mean())
        assert (measured.images, measured.higher_is_better) == (len(WNIDS) * PER_CLASS, True)
        assert measured.chance == pytest.approx(1 / 3)
    snow = evaluation.measures["snow/5"]
    assert (snow.curve, snow.strength) == ("snow", 5)
    assert rows["source"].nunique() == len(rows)
    for name in ("mce", "mce_with_alexnet"):
        assert evaluation.missing[name] == (
            "needs all 15 corruptions at 5 severities, found 2 at 2"
        )
    assert "images of 32 x 32 px" in evaluation.notes[0]


def test_uncorrupted_images_are_predicted_as_in_the_plain_evaluation(
    context: ProbeContext, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(probe, "corrupt_image", lambda image, *_: image)
    result = probe.measure(context, CorruptionParams())
    plain = context.plain_rows["correct"].to_numpy(dtype=float)
    for name in result.measures:
        expected = 1 - plain if name == "mce" else plain
        np.testing.assert_allclose(result.rows[name], expected, atol=1e-12)


@pytest.mark.parametrize(("batch_size", "workers"), [(1, 0), (7, 2), (64, 2)])
def test_rows_do_not_depend_on_batches_or_processes(
    context: ProbeContext, monkeypatch: pytest.MonkeyPatch, batch_size: int, workers: int
):
    monkeypatch.setenv("DENSECL_WORKERS", str(workers))
    params = context.plan.probes.corruptions
    result = probe.measure(create_context(batch_size), params)
    pd.testing.assert_frame_equal(result.rows, read_rows())


def test_an_unreadable_image_is_named(context: ProbeContext):
    path = context.validation.root / context.frame["path"].iloc[3]
    content = path.read_bytes()
    path.write_bytes(b"")
    try:
        with pytest.raises(DataError, match=r"^[^\n]*: empty file; [^\n]*$"):
            probe.measure(context, context.plan.probes.corruptions)
    finally:
        path.write_bytes(content)


def shift_image(image: np.ndarray, name: str, severity: int, *_: object) -> np.ndarray:
    """In place of corruptions, which take longer."""
    return np.roll(image, 3 * severity, len(name) % 2)


def test_frost_needs_photographs(
    context: ProbeContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("densecl.config.probe_params.find_spec", lambda _: None)
    monkeypatch.setattr(probe, "corrupt_image", shift_image)
    result = probe.measure(context, CorruptionParams())
    assert "install the package imagecorruptions" in result.missing["frost"]
    assert result.missing["mce"].startswith(
        "needs all 15 corruptions at 5 severities, found 14 at 5; frost needs the authors'"
    )
    assert len([name for name in result.measures if name.endswith("/mean")]) == 14
    assert result.measures["mean"].note == "mean over the 14 corruptions measured"
    alone = probe.measure(context, CorruptionParams(names=("frost",)))
    assert not alone.measures
    assert set(alone.missing) == {"frost", "mean", "mce", "mce_with_alexnet"}

    for number, name in enumerate(FROST_FILES):
        Image.new("RGB", (400, 300), (60 * number, 99, 255)).save(tmp_path / name)
    params = CorruptionParams(frost=str(tmp_path))
    assert params.input_files == tuple(str(tmp_path / name) for name in FROST_FILES)
    result = probe.measure(context, params)
    errors = {
        (name, severity): 1 - result.measures[f"{name}/{severity}"].value
        for name in ALEXNET_ERRORS
        for severity in SEVERITIES
    }
    assert result.measures["mean"].note == "mean over the 15 corruptions measured"
    measured = result.measures["mce"]
    assert measured.value == pytest.approx(compute_mce(errors))
    assert (measured.higher_is_better, measured.chance) == (False, pytest.approx(2 / 3))
    assert result.missing == {"mce_with_alexnet": "needs images of the 1000 classes of ImageNet-1k"}
    with pytest.raises(DataError, match=r"found no frost1\.png"):
        probe.measure(context, CorruptionParams(frost=str(tmp_path / "none")))


def test_photographs_of_an_installed_package_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "imagecorruptions").mkdir()
    (tmp_path / "imagecorruptions" / "__init__.py").write_text("raise ImportError('NumPy 2')")
    monkeypatch.syspath_prepend(tmp_path)
    params = CorruptionParams()
    assert params.frost_folder == str(tmp_path / "imagecorruptions" / "frost")
    assert {str(Path(file).parent) for file in params.input_files} == {params.frost_folder}
    assert CorruptionParams(names=("fog",)).input_files == ()


def test_columns_average_to_both_kinds_of_mce():
    rng = np.random.default_rng(0)
    columns = [f"{name}/{severity}" for name in ALEXNET_ERRORS for severity in SEVERITIES]
    correct = pd.DataFrame(rng.integers(0, 2, (20, 75)).astype(float), columns=columns)
    correct["saturate/1"] = 1.0
    values = build_columns(correct).mean()
    errors = {
        (name, severity): 1 - correct[f"{name}/{severity}"].mean()
        for name in ALEXNET_ERRORS
        for severity in SEVERITIES
    }
    assert values["mce"] == pytest.approx(compute_mce(errors))
    assert values["mce_with_alexnet"] == pytest.approx(compute_mce_to_alexnet(errors))
    assert values["mean"] == pytest.approx(correct.mean().mean())
    for name, error in compute_corruption_errors(errors).items():
        assert values[f"{name}/mean"] == pytest.approx(1 - error)


def test_alexnets_errors_need_imagenet_at_224_px(
    context: ProbeContext, monkeypatch: pytest.MonkeyPatch
):
    conditions = [Condition(name, n) for name in ALEXNET_ERRORS for n in SEVERITIES]
    monkeypatch.setattr(probe, "is_imagenet", lambda _: True)
    assert find_obstacles(context, conditions, {}) == {
        "mce_with_alexnet": "needs a model of 224 px"
    }
    monkeypatch.setattr(probe, "PUBLISHED_SIDE", 32)
    assert find_obstacles(context, conditions, {}) == {}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "names: [fog, haze]",
            r"corruptions\.names: found 'haze', expected corruptions of ImageNet-C: gaussian_noise",
        ),
        ("names: [fog, fog]", r"corruptions\.names: fog named more than once"),
        ("names: []", r"corruptions\.names: found"),
        ("severities: [0]", r"corruptions\.severities\.0: found 0"),
        ("severities: [6]", r"corruptions\.severities\.0: found 6"),
        ("severities: [2, 2]", r"corruptions\.severities: 2 named more than once"),
        ("severities: []", r"corruptions\.severities: found"),
    ],
)
def test_wrong_names_and_severities_are_refused(tmp_path: Path, line: str, message: str):
    params = tmp_path / "params.yaml"
    shutil.copy(SMALL, params)
    text = params.read_text()
    assert text.count("\nevaluate:\n") == 1
    params.write_text(
        text.replace("\nevaluate:\n", f"\nevaluate:\n  probes: {{corruptions: {{{line}}}}}\n")
    )
    with pytest.raises(DenseclError, match=message):
        load_params(params)
