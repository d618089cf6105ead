"""The probe `occlusion`: models whose numbers are known, and the numbers by hand."""

import json

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from safetensors.torch import load_file
from torch import nn

from densecl.config.probe_params import OcclusionParams
from densecl.errors import DataError
from densecl.evaluation.probes import occlusion
from densecl.evaluation.probing.context import create_generator
from densecl.network.attention import compute_cls_attention
from tests.conftest import write_model
from tests.evaluation.probes.memory_context import (
    ARGS,
    Constant,
    MemoryContext,
    create_context,
    create_images,
    forget_images,
)

PARAMS = OcclusionParams()


class Reads(Constant):
    """Class by the mean blue of some pixels, in the units of `Blueness` of test_viewpoint."""

    def __init__(self, rows, columns):
        super().__init__()
        self.rows, self.columns = rows, columns

    def forward(self, images):
        blue = images[:, 2, self.rows, self.columns].flatten(1).mean(1, keepdim=True)
        return -((blue - torch.arange(4.0)) ** 2)


def create_flat_images(labels):
    """Normalised blue is the label."""
    blue = (torch.tensor(labels) * 0.3 + 0.3) * 255
    return blue[:, None, None, None].expand(-1, 3, 32, 32).round().byte()


def draw(purpose, image_id, count):
    generator = create_generator("occlusion", purpose, image_id)
    return torch.rand(count, dtype=torch.float64, generator=generator)


def test_a_constant_model_is_at_its_share_everywhere_and_its_attention_is_missing():
    context = MemoryContext(Constant(), create_images(6), [0, 1, 2, 2, 1, 0])
    result = occlusion.measure(context, PARAMS)
    assert set(result.measures) == {
        f"{curve}/{point}" for curve in ("random", "pasted") for point in (0.25, 0.5, 0.75, "area")
    }
    for measure in result.measures.values():
        assert measure.value == pytest.approx(2 / 6)
        assert measure.chance == 1 / 4
    assert set(result.missing) == {
        f"{curve}/{point}"
        for curve in ("salient", "non-salient", "own-salient")
        for point in (0.25, 0.5, 0.75, "area")
    }
    assert "evaluate.probes.occlusion.masks" in result.missing["salient/area"]
    assert "expected one softmax attention" in result.missing["own-salient/0.5"]


def test_a_model_that_reads_one_patch_fails_exactly_where_that_patch_is_dropped():
    """Dropped, its pixels are exactly 0, which is class 0; labels 1 and 2 are then wrong."""
    labels = [1, 2, 1, 2, 0, 1, 2, 1]
    corner = slice(0, 8)
    context = MemoryContext(Reads(corner, corner), create_flat_images(labels), labels)
    rows = occlusion.measure(context, PARAMS).rows.set_index("image_id")
    for image_id, label in zip(rows.index, labels, strict=True):
        rank = int((draw("patches", image_id, 16) < draw("patches", image_id, 16)[0]).sum())
        for share in PARAMS.shares:
            is_dropped = rank < share * 16
            assert rows.loc[image_id, f"random/{share}"] == (label == 0 or not is_dropped)
    assert 0 < rows["random/0.5"].mean() < 1


def test_a_model_that_reads_one_pixel_answers_the_donor_where_it_is_covered():
    labels = [0, 1, 2, 0, 1, 2, 0, 1]
    middle = slice(15, 16)
    context = MemoryContext(Reads(middle, middle), create_flat_images(labels), labels)
    rows = occlusion.measure(context, PARAMS).rows.set_index("image_id")
    for image_id in rows.index:
        shape, top, left, _ = draw("rectangle", image_id, 4).tolist()
        for share in PARAMS.shares:
            ratio = max(0.5, share) ** (1 - 2 * shape)
            height = min(32, int((share * ratio) ** 0.5 * 32 + 0.5))
            width = min(32, int((share / ratio) ** 0.5 * 32 + 0.5))
            y, x = int(top * (33 - height)), int(left * (33 - width))
            is_covered = y <= 15 < y + height and x <= 15 < x + width
            assert rows.loc[image_id, f"pasted/{share}"] == (not is_covered)
    assert 0 < rows["pasted/0.25"].mean() < 1


def test_share_0_is_the_plain_evaluation_image_by_image_and_areas_are_of_trapezia():
    context = create_context()
    result = occlusion.measure(context, OcclusionParams(shares=(0.0, 0.2, 0.8)))
    plain = context.plain_rows["correct"].to_numpy(float)
    assert 0 < plain.mean() < 1
    for curve in ("random", "own-salient", "pasted"):
        values = [result.rows[f"{curve}/{share}"] for share in ("0", "0.2", "0.8")]
        np.testing.assert_array_equal(values[0], plain)
        area = (0.2 * (values[0] + values[1]) / 2 + 0.6 * (values[1] + values[2]) / 2) / 0.8
        np.testing.assert_allclose(result.rows[f"{curve}/area"], area)
        assert result.measures[f"{curve}/area"].value == pytest.approx(area.mean())
        assert result.measures[f"{curve}/0.8"].strength == 0.8


def test_batch_size_does_not_matter():
    tables = [occlusion.measure(create_context(batch_size=size), PARAMS).rows for size in (3, 20)]
    pd.testing.assert_frame_equal(*tables)


def test_images_that_do_not_fit_in_memory_are_read_again():
    """`iter_images_at` gives what `iter_images` gives."""
    context = create_context(batch_size=3)
    images = torch.cat(list(context.iter_images()))
    batches = list(context.iter_images_at([7, 0, 7, 19]))
    assert [len(batch) for batch in batches] == [3, 1]
    assert torch.equal(torch.cat(batches), images[[7, 0, 7, 19]])


def test_images_that_do_not_fit_in_memory_are_read_once_per_curve(monkeypatch):
    kept = occlusion.measure(create_context(), PARAMS).rows
    context = create_context()
    reads = forget_images(context, monkeypatch)
    pd.testing.assert_frame_equal(occlusion.measure(context, PARAMS).rows, kept)
    # random, the attention, own-salient, pasted and its donors
    assert reads == [len(kept)] * 5


def test_saliency_is_one_map_where_masks_have_it_and_the_others_are_left_out(monkeypatch):
    """A mask of the corner that the model reads, of all images but the first two."""
    labels = [1, 2, 1, 2, 0, 1, 2, 1]
    saliency = torch.zeros(8, 16)
    saliency[:, 0] = 1
    saliency[:2] = torch.nan
    monkeypatch.setattr(occlusion, "load_object_shares", lambda *_: saliency)
    corner = slice(0, 8)
    context = MemoryContext(Reads(corner, corner), create_flat_images(labels), labels)
    result = occlusion.measure(context, OcclusionParams(masks="objects"))
    for share in PARAMS.shares:
        salient, other = (
            result.measures[f"salient/{share}"],
            result.measures[f"non-salient/{share}"],
        )
        assert (salient.images, other.images) == (6, 6)
        assert salient.value == pytest.approx(1 / 6)  # the image of class 0
        assert other.value == 1.0
    assert result.measures["salient/area"].value == pytest.approx(
        (0.25 * (1 + 1 / 6) / 2 + 0.5 / 6) / 0.75
    )
    assert result.rows["salient/area"].isna().tolist() == [True] * 2 + [False] * 6
    assert "6 of 8 images" in result.notes[0]
    assert result.measures["random/area"].images == 8


def test_a_model_s_own_attention_is_a_marked_row():
    result = occlusion.measure(create_context(), PARAMS)
    assert "different stimuli" in result.measures["own-salient/0.5"].note
    assert result.measures["random/0.5"].note == ""


def test_one_class_has_no_image_to_paste():
    context = MemoryContext(Constant(), create_images(3), [1, 1, 1])
    assert "one class" in occlusion.measure(context, PARAMS).missing["pasted/0.25"]


def test_a_reference_decides_what_is_salient_for_all_models(tmp_path):
    """It sees larger images, with a mean of its own, in as many patches."""
    args = ARGS | {"img_size": 64, "patch_size": 16}
    write_model(tmp_path / "weights", ["a", "b"], args)
    config = json.loads((tmp_path / "weights/config.json").read_text())
    config["pretrained_cfg"] = {"mean": [0.2, 0.3, 0.4], "std": [0.1, 0.2, 0.3]}
    (tmp_path / "weights/config.json").write_text(json.dumps(config))
    params = OcclusionParams(reference=str(tmp_path / "weights"))
    context = create_context()
    saliency, note = occlusion.find_saliency(context, params)

    model = timm.create_model("vit_tiny_patch16_224", num_classes=2, **args).eval()
    model.load_state_dict(load_file(tmp_path / "weights/model.safetensors"))
    images = torch.cat(list(context.iter_images())).float()
    large = nn.functional.interpolate(images, (64, 64), mode="bicubic", antialias=True)
    mean, std = torch.tensor([0.2, 0.3, 0.4]), torch.tensor([0.1, 0.2, 0.3])
    normalised = (large.round().clamp(0, 255) / 255 - mean[:, None, None]) / std[:, None, None]
    torch.testing.assert_close(saliency, compute_cls_attention(model, normalised).mean(1))
    assert str(params.reference) in note

    result = occlusion.measure(context, params)
    assert "salient/area" in result.measures
    assert not result.missing
    other = MemoryContext(Constant(), create_images(20), [0, 1] * 10)
    torch.testing.assert_close(occlusion.find_saliency(other, params)[0], saliency)


def test_a_reference_that_is_no_folder_of_weights(tmp_path):
    folder = tmp_path / "weights"
    write_model(folder, ["a", "b"], ARGS)
    config = json.loads((folder / "config.json").read_text())
    pooled = config["model_args"] | {"class_token": False, "global_pool": "avg"}
    changes = {
        "KeyError: 'model_args'": {k: v for k, v in config.items() if k != "model_args"},
        "TypeError": [],
        "do not fill 50 x 50 px": config | {"model_args": ARGS | {"img_size": 50}},
        "which timm .* lacks": config | {"architecture": "vit_of_nobody"},
        "weights do not fit": config | {"model_args": ARGS | {"embed_dim": 48}},
        "ModelError": config | {"model_args": pooled},
    }
    params, context = OcclusionParams(reference=str(folder)), create_context()
    for found, value in changes.items():
        (folder / "config.json").write_text(json.dumps(value))
        with pytest.raises(
            DataError, match=rf"occlusion\.reference: .*{found}.*; expected a folder"
        ):
            occlusion.find_saliency(context, params)
    (folder / "config.json").write_text(json.dumps(config))
    occlusion.find_saliency(context, params)
    for name in ("model.safetensors", "config.json"):
        (folder / name).write_bytes(b"{")
        with pytest.raises(DataError, match=r"occlusion\.reference: .*; expected a folder"):
            occlusion.find_saliency(context, params)
        (folder / name).unlink()
        with pytest.raises(DataError, match=r"occlusion\.reference: .*; expected a folder"):
            occlusion.find_saliency(context, params)
