"""The probe `viewpoint`: models whose numbers are known, and the numbers by hand."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from densecl.config.probe_params import ViewpointParams
from densecl.evaluation.probes import viewpoint
from densecl.evaluation.probing.context import create_generator, draw_numbers
from densecl.evaluation.stimuli.viewpoint_warps import DRAWS, WARPS
from tests.evaluation.probes.memory_context import (
    Constant,
    MemoryContext,
    create_context,
    create_images,
    forget_images,
)

PARAMS = ViewpointParams()


class Blueness(nn.Module):
    """Class by the blue of the centre: right for `create_flat_images` under every warp."""

    def forward(self, images):
        return -((images[:, 2, 16, 16, None] - torch.arange(4.0)) ** 2)


def create_flat_images(labels):
    """Normalised blue is the label: std 0.3 and mean 0.3 of the test's preprocessing."""
    blue = (torch.tensor(labels) * 0.3 + 0.3).clamp(max=1) * 255
    return blue[:, None, None, None].expand(-1, 3, 32, 32).round().byte()


def test_an_oracle_is_right_and_a_constant_model_agrees_with_itself():
    labels = [0, 1, 2, 2, 1, 0]
    oracle = viewpoint.measure(
        MemoryContext(Blueness(), create_flat_images(labels), labels), PARAMS
    ).measures
    constant = viewpoint.measure(
        MemoryContext(Constant(), create_images(6), labels), PARAMS
    ).measures
    assert {measure.value for measure in oracle.values()} == {1.0}
    for name, measure in constant.items():
        is_consistency = name.endswith("consistency")
        assert measure.value == pytest.approx(1.0 if is_consistency else 2 / 6)
        assert measure.chance == (None if is_consistency else 1 / 4)


def test_strength_0_is_the_plain_evaluation_image_by_image():
    params = ViewpointParams(**dict.fromkeys(WARPS, (0.0, 0.3)))
    context = create_context()
    rows = viewpoint.measure(context, params).rows
    for warp in WARPS:
        np.testing.assert_array_equal(rows[f"{warp}/0"], context.plain_rows["correct"])
        assert (rows[f"{warp}/0/consistency"] == 1).all()


def test_measures_are_the_means_of_their_columns_and_areas_those_of_trapezia():
    context = create_context()
    result = viewpoint.measure(context, PARAMS)
    values = {name: measure.value for name, measure in result.measures.items()}
    assert list(result.rows) == ["image_id", "source", *values]
    np.testing.assert_allclose(list(values.values()), result.rows[list(values)].mean())
    plain = context.plain_rows["correct"].mean()
    areas = []
    for warp in WARPS:
        x = [0.0, *getattr(PARAMS, warp)]
        y = [plain, *(values[f"{warp}/{strength:g}"] for strength in x[1:])]
        area = sum((x[i + 1] - x[i]) * (y[i + 1] + y[i]) / 2 for i in range(len(x) - 1)) / x[-1]
        assert values[f"{warp}/area"] == pytest.approx(area)
        same = [values[f"{warp}/{strength:g}/consistency"] for strength in x[1:]]
        assert values[f"{warp}/consistency"] == pytest.approx(np.mean(same))
        areas.append(area)
    assert values["area"] == pytest.approx(np.mean(areas))
    assert 0 < values["area"] < 1
    assert all(values[f"{warp}/consistency"] < 1 for warp in WARPS)


def test_batch_size_does_not_matter():
    tables = [viewpoint.measure(create_context(batch_size=size), PARAMS).rows for size in (3, 20)]
    pd.testing.assert_frame_equal(*tables)


def test_images_that_do_not_fit_in_memory_are_read_once_per_warp(monkeypatch):
    kept = viewpoint.measure(create_context(), PARAMS).rows
    context = create_context()
    reads = forget_images(context, monkeypatch)
    pd.testing.assert_frame_equal(viewpoint.measure(context, PARAMS).rows, kept)
    assert reads == [len(kept)] * len(WARPS)


def test_classes_that_are_not_scored_are_never_predicted():
    """A constant model whose class is masked answers another, and chance is among those left."""
    labels = [0, 2, 3, 0]
    context = MemoryContext(Constant(), create_images(4), labels, scored=[0, 2, 3])
    measures = viewpoint.measure(context, PARAMS).measures
    assert measures["area"].chance == 1 / 3
    assert measures["area"].value == pytest.approx(2 / 4)  # all tie: class 0


def test_drawn_numbers_depend_on_the_words_and_the_image_only():
    drawn = draw_numbers(["val/3.png", "val/7.png"], DRAWS, "viewpoint", "scale")
    generator = create_generator("viewpoint", "scale", "val/7.png")
    expected = torch.rand(DRAWS, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(drawn[1], expected, rtol=0, atol=0)
    others = draw_numbers(["val/3.png", "val/7.png"], DRAWS, "viewpoint", "rotation")
    assert not torch.equal(drawn, others)
