"""Segmentation from patch tokens: parts against slow references; features of known content give
what is computed by hand.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from densecl.config.probe_params import SegmentationParams
from densecl.errors import DataError
from densecl.evaluation.frozen_features import patch_heads
from densecl.evaluation.frozen_features.iou import count_pixels, linearise_accuracy, linearise_miou
from densecl.evaluation.frozen_features.patch_classifier import L2_PENALTY, fit_patch_classifier
from densecl.evaluation.frozen_features.patch_heads import (
    build_neighbour_head,
    choose_patch_labels,
    count_patch_labels,
    fit_linear_head,
    predict_pixels,
)
from densecl.evaluation.probes import segmentation
from tests.evaluation.probes.transfer_project import (
    PATCH,
    SIDE,
    build_context,
    colour_classes,
    list_entry,
    list_pairs,
    write_pair,
)

PARAMS = SegmentationParams(fit="fit", test="test", neighbours=3)
GRID = (SIDE // PATCH, SIDE // PATCH)


def test_miou_of_sums_over_images_as_counted_pixel_by_pixel():
    rng = np.random.default_rng(0)
    labels, predicted = rng.integers(-1, 3, (5, 7, 6)), rng.integers(0, 4, (5, 7, 6))
    labels[0] = -1  # an image without a labelled pixel
    ious, right, total = [], 0, 0
    for index in (0, 1, 2):  # 3 is predicted, but no pixel is labelled with it
        both = union = 0
        for true, found in zip(labels.flat, predicted.flat, strict=True):
            if true >= 0:
                both += true == index == found
                union += index in (true, found)
        ious.append(both / union)
    for true, found in zip(labels.flat, predicted.flat, strict=True):
        right, total = right + (true == found), total + (true >= 0)
    counts = count_pixels(torch.from_numpy(predicted), torch.from_numpy(labels), 4)
    column = linearise_miou(counts)
    assert column.mean() == pytest.approx(np.mean(ious), abs=1e-12)
    assert linearise_accuracy(counts).mean() == pytest.approx(right / total, abs=1e-12)


def test_the_spread_of_the_linearised_values_is_the_jackknife_s():
    rng = np.random.default_rng(0)
    labels = torch.from_numpy(rng.integers(0, 3, (60, 4, 4)))
    noise = torch.from_numpy(rng.random((60, 1, 1)) > rng.random((60, 4, 4)))
    predicted = torch.where(noise, (labels + 1) % 3, labels)  # some images are harder
    column = linearise_miou(count_pixels(predicted, labels, 3))
    left_out = [
        linearise_miou(count_pixels(predicted[rest], labels[rest], 3)).mean()
        for rest in (torch.arange(60) != index for index in range(60))
    ]
    assert column.var(ddof=1) / 60 == pytest.approx(np.var(left_out) * 59, rel=0.05)


def test_patches_have_the_class_of_most_of_their_pixels():
    rng = np.random.default_rng(1)
    labels = rng.integers(-1, 4, (3, 9, 11))  # one row and three columns are covered by no patch
    labels[0, :4, :4] = -1
    found = choose_patch_labels(count_patch_labels(torch.from_numpy(labels), (2, 2), 4))
    for image in range(3):
        for patch, (y, x) in enumerate(((0, 0), (0, 5), (4, 0), (4, 5))):
            values = [v for v in labels[image, y : y + 4, x : x + 5].flat if v >= 0]
            expected = max(range(4), key=lambda c: (values.count(c), -c)) if values else -1
            assert found[image, patch] == expected


def test_nearest_neighbours_vote_as_by_hand():
    rng = torch.Generator().manual_seed(0)
    memory, queries = torch.randn(30, 5, generator=rng), torch.randn(2, 4, 5, generator=rng)
    labels = torch.randint(0, 3, (30,), generator=rng)
    votes = build_neighbour_head(memory, labels, 3, 4)(queries)
    for image in range(2):
        for patch in range(4):
            query = queries[image, patch]
            cosines = [float(query @ key / (query.norm() * key.norm())) for key in memory]
            nearest = sorted(range(30), key=lambda i: -cosines[i])[:4]
            expected = [sum(int(labels[i]) == c for i in nearest) for c in range(3)]
            assert votes[image, patch].tolist() == expected
    assert build_neighbour_head(memory[:2], labels[:2], 3, 4)(queries).sum(-1).eq(2).all()


def test_scores_are_interpolated_between_the_centres_of_patches():
    scores = np.random.default_rng(2).normal(size=(1, 6, 3)).astype(np.float32)
    found = predict_pixels(torch.from_numpy(scores), (2, 3), (9, 13))  # patches of 4 x 4 px
    assert found.shape == (1, 8, 12)
    maps = scores[0].reshape(2, 3, 3)
    for y in range(8):
        for x in range(12):
            v, u = np.clip([(y + 0.5) / 4 - 0.5, (x + 0.5) / 4 - 0.5], 0, [1, 2])
            i, j = min(int(v), 0), min(int(u), 1)
            a, b = v - i, u - j
            value = (1 - a) * ((1 - b) * maps[i, j] + b * maps[i, j + 1]) + a * (
                (1 - b) * maps[i + 1, j] + b * maps[i + 1, j + 1]
            )
            assert found[0, y, x] == value.argmax()


@pytest.mark.parametrize(("polish", "bound"), [(True, 5e-7), (False, 2e-3)])
def test_the_classifier_is_the_minimum_of_its_definition(polish, bound):
    rng = torch.Generator().manual_seed(0)
    tokens = torch.randn(300, 6, generator=rng) @ torch.randn(6, 8, generator=rng)  # of rank 6
    tokens = tokens * torch.arange(1, 9) + 3
    labels = (tokens[:, 0] + torch.randn(300, generator=rng) > 3).long()
    weight, bias = fit_patch_classifier(tokens, labels, 2, polish=polish)
    x = tokens.double()
    mean, std = x.mean(0), x.std(0, correction=0)
    w = (weight.double() * std).requires_grad_()
    b = (bias.double() + weight.double() @ mean).requires_grad_()
    loss = F.cross_entropy(((x - mean) / std) @ w.T + b, labels) + L2_PENALTY * w.square().sum()
    loss.backward()
    assert max(w.grad.abs().max(), b.grad.abs().max()) < bound


def test_a_class_that_no_patch_has_is_never_predicted():
    tokens, labels = torch.eye(4).repeat(3, 1), torch.tensor([0, 2, 2, 0]).repeat(3)
    scores = fit_linear_head(tokens, labels, 3)(torch.eye(4)[None])
    assert scores.argmax(-1).tolist() == [[0, 2, 2, 0]]
    assert scores[..., 1].eq(-1e4).all()


def test_layers_are_fitted_on_the_device_of_the_model(monkeypatch):
    """Tokens are kept on the CPU, whatever the device."""
    devices = []

    def note_devices(tokens, labels, classes, *, polish):
        devices.extend([tokens.device.type, labels.device.type])
        return torch.zeros(classes, 4), torch.zeros(classes)

    monkeypatch.setattr(patch_heads, "get_device", lambda: torch.device("meta"))
    monkeypatch.setattr(patch_heads, "fit_patch_classifier", note_devices)
    fit_linear_head(torch.eye(4), torch.tensor([0, 1, 1, 0]), 2)
    assert devices == ["meta", "meta"]


def halves(edge: int, *, flipped: bool = False) -> np.ndarray:
    """Class 1 left of the edge, background right of it."""
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[:, :edge] = 1
    return mask[:, ::-1] if flipped else mask


def write_halves(root: Path, flips: list[bool], *, edge: int = 16, drawn: int = 16) -> None:
    """Images that show an edge at `drawn`, with masks that have it at `edge`."""
    for number, flipped in enumerate(flips):
        image = colour_classes(halves(drawn, flipped=flipped), f"{root.name}{number}")
        write_pair(root, f"{number}", image, halves(edge, flipped=flipped))


def encode_colour(context, images, blocks):
    """Tokens that hold the class of a patch, and nothing else."""
    red = F.avg_pool2d(images[:, :1].float(), PATCH).flatten(1)
    return {name: F.one_hot((red / 40).round().long(), 4).float() for name in blocks}


def encode_position(context, images, blocks):
    """Tokens that hold the place of a patch, and nothing of the image."""
    tokens = torch.eye(GRID[0] * GRID[1]).expand(len(images), -1, -1)
    return dict.fromkeys(blocks, tokens)


def encode_nothing(context, images, blocks):
    return {name: torch.ones(len(images), GRID[0] * GRID[1], 4) for name in blocks}


@pytest.fixture
def roots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    monkeypatch.chdir(tmp_path)
    write_halves(tmp_path / "fit", [False] * 6)
    return tmp_path / "fit", tmp_path / "test"


def measure_pairs(roots: tuple[Path, Path], encode, monkeypatch) -> dict[str, float]:
    monkeypatch.setattr(segmentation, "compute_tokens", encode)
    context = build_context(fit=list_pairs("fit", roots[0]), test=list_pairs("test", roots[1]))
    result = segmentation.measure(context, PARAMS)
    for name, measure in result.measures.items():
        assert measure.value == pytest.approx(result.rows[name].mean(), abs=1e-12)
    return {name: measure.value for name, measure in result.measures.items()} | {
        "chance": result.measures["linear/chosen"].chance
    }


def test_features_that_hold_the_label_give_what_is_computed_by_hand(roots, monkeypatch):
    write_halves(roots[1], [False, True, True], drawn=16, edge=18)
    found = measure_pairs(roots, encode_colour, monkeypatch)
    expected = (16 / 18 + 14 / 16) / 2  # the masks go 2 of 32 px farther than the colours
    assert {name for name in found if "/" in name} == {
        f"{kind}/{block}" for kind in ("linear", "knn") for block in ("next-to-last", "last")
    } | {"linear/chosen", "accuracy/chosen"}
    for name in found.keys() - {"accuracy/chosen", "chance"}:
        assert found[name] == pytest.approx(expected, abs=1e-12)
    assert found["accuracy/chosen"] == pytest.approx(30 / 32, abs=1e-12)
    # As many fitted pixels of both classes: the first, background, everywhere.
    assert found["chance"] == pytest.approx((14 / 32 + 0) / 2, abs=1e-12)


def test_flips_expose_features_that_hold_the_place_only(roots, monkeypatch):
    write_halves(roots[1], [False] * 4)
    assert measure_pairs(roots, encode_position, monkeypatch)["linear/chosen"] == 1
    for path in roots[1].rglob("*.png"):
        Image.fromarray(np.asarray(Image.open(path))[:, ::-1]).save(path)
    flipped = measure_pairs(roots, encode_position, monkeypatch)
    assert flipped["linear/chosen"] == flipped["knn/last"] == 0 < flipped["chance"]
    assert measure_pairs(roots, encode_colour, monkeypatch)["linear/chosen"] == 1


def test_a_constant_model_is_at_chance(roots, monkeypatch):
    write_halves(roots[0], [False] * 6, edge=8)  # a quarter of the pixels
    write_halves(roots[1], [False] * 3, edge=4)
    found = measure_pairs(roots, encode_nothing, monkeypatch)
    assert found["linear/chosen"] == found["chance"] == pytest.approx((28 / 32) / 2, abs=1e-12)


def write_blobs(root: Path, count: int, seed: int, side: int = SIDE) -> None:
    """Rectangles of classes 1 and 2, and some ignored pixels."""
    rng = np.random.default_rng(seed)
    for number in range(count):
        mask = np.zeros((side, side), np.uint8)
        for label in (1, 2):
            y, x = rng.integers(0, side // 2, 2)
            mask[y : y + side // 2, x : x + side // 2] = label
        image = colour_classes(mask, f"{seed}_{number}")
        mask[:2] = 255
        write_pair(root, f"{seed}_{number}", image, mask)


def test_batches_of_any_size_and_a_second_run_give_the_same(roots):
    write_blobs(roots[0], 9, seed=0, side=40)  # resized to 32
    write_blobs(roots[1], 7, seed=1, side=36)
    entries = {"fit": list_pairs("fit", roots[0]), "test": list_pairs("test", roots[1])}
    first = segmentation.measure(build_context(batch_size=16, **entries), PARAMS)
    assert first.measures["linear/last"].strength == 2
    again = segmentation.measure(build_context(batch_size=16, **entries), PARAMS)
    assert first.rows.equals(again.rows)
    small = segmentation.measure(build_context(batch_size=2, **entries), PARAMS)
    for name, measure in first.measures.items():
        assert small.measures[name].value == pytest.approx(measure.value, abs=2e-3)
    assert {name: picture.shape for name, picture in small.pictures.items()} == {
        "image": (6, 3, SIDE, SIDE),
        "truth": (6, SIDE, SIDE),
        "prediction": (6, SIDE, SIDE),
    }
    assert (small.pictures["truth"] == first.pictures["truth"]).all()
    assert set(np.unique(small.pictures["truth"])) == {0, 1, 2, 255}


def test_the_block_is_chosen_without_the_test_images(roots):
    write_blobs(roots[0], 9, seed=0)
    notes = set()
    for seed in (1, 2):
        write_blobs(roots[1], 4, seed=seed)
        entries = {"fit": list_pairs("fit", roots[0]), "test": list_pairs("test", roots[1])}
        result = segmentation.measure(build_context(**entries), PARAMS)
        notes.add(result.measures["linear/chosen"].note.partition(",")[0])
    assert len(notes) == 1


def test_objects_have_the_class_of_their_folder(roots, monkeypatch):
    """Antialiased masks: 128 is the object, 127 is not."""
    for root in roots:
        for folder, label in (("cat", 1), ("dog", 2)):
            values = np.where(halves(16), 128, 127)
            write_pair(root, f"{folder}/0", colour_classes(label * halves(16), root.name), values)
    monkeypatch.setattr(segmentation, "compute_tokens", encode_colour)
    for path in (*roots[0].glob("images/*.png"), *roots[0].glob("masks/*.png")):
        path.unlink()
    fit, test = (list_pairs(root.name, root, mask_values="object") for root in (roots[0], roots[1]))
    result = segmentation.measure(build_context(fit=fit, test=test), PARAMS)
    assert result.measures["linear/last"].value == 1
    assert "3 classes" in result.measures["linear/last"].note
    assert result.rows["source"].tolist() == ["cat/0", "dog/0"]


def test_voc_ignores_255_and_ade20k_0(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(segmentation, "compute_tokens", encode_colour)
    for number in range(6):
        image, mask = colour_classes(1 + halves(16), f"{number}"), 1 + halves(16)
        mask[:, 12:20] = 255  # the border that VOC leaves out
        voc, ade = tmp_path / "voc", tmp_path / "ade"
        split = "training" if number < 3 else "validation"
        for path, values in (
            (voc / "JPEGImages" / f"{number}.png", image),
            (voc / "SegmentationClass" / f"{number}.png", np.where(mask < 3, mask - 1, mask)),
            (ade / "images" / split / f"{number}.png", image),
            (ade / "annotations" / split / f"{number}.png", np.where(mask == 255, 0, mask)),
        ):
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(values.astype(np.uint8)).save(path)
        lists = voc / "ImageSets" / "Segmentation"
        lists.mkdir(parents=True, exist_ok=True)
        with (lists / ("train.txt" if number < 3 else "val.txt")).open("a") as file:
            file.write(f"{number}\n")
    for layout, root, splits in (
        ("voc", voc, ("train", "val")),
        ("ade20k", ade, ("training", "validation")),
    ):
        fit, test = (
            list_entry(name, root, layout=layout, split=split)
            for name, split in zip(("fit", "test"), splits, strict=True)
        )
        result = segmentation.measure(build_context(fit=fit, test=test), PARAMS)
        assert result.measures["linear/last"].value == 1
        assert "2 classes" in result.measures["linear/last"].note
        assert (result.pictures["truth"] == 255).mean() == pytest.approx(8 / 32)


def test_an_image_that_is_fitted_on_is_not_scored(roots):
    """A copy under another name in the other entry."""
    write_halves(roots[1], [False] * 3)
    copied = (roots[1] / "images" / "2.png").read_bytes()
    (roots[0] / "images" / "4.png").write_bytes(copied)
    entries = {"fit": list_pairs("fit", roots[0]), "test": list_pairs("test", roots[1])}
    with pytest.raises(DataError, match=r"test: 1 of its 3 images are in .* such as 2\.png"):
        segmentation.measure(build_context(**entries), PARAMS)


def test_what_cannot_be_compared_says_so(roots):
    write_halves(roots[1], [False])
    fit, test = list_pairs("fit", roots[0]), list_pairs("test", roots[1])
    void = roots[0].parent / "void"
    for value in (1, 255):
        mask = np.full((SIDE, SIDE), value)
        write_pair(void, str(value), colour_classes(mask % 6), mask)
    one_class = list_pairs("fit", void)
    with pytest.raises(DataError, match=r"the masks of fit show 1 class\(es\), expected two at"):
        segmentation.measure(build_context(fit=one_class, test=test), PARAMS)
    fit = list_pairs("fit", roots[0])
    plain = list_entry("test", roots[1] / "images")
    with pytest.raises(DataError, match="none of its 1 images has a mask"):
        segmentation.measure(build_context(fit=fit, test=plain), PARAMS)
    test = list_pairs("test", roots[1])
    (roots[1] / "masks" / "0.png").write_bytes(b"")
    with pytest.raises(DataError, match="changed after it was listed; `dvc repro -f prepare-tr"):
        segmentation.measure(build_context(fit=fit, test=test), PARAMS)
