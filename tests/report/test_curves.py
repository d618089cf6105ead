"""Training curves: everything a training writes is drawn, a line a (mode, seed), and what is absent
is left out.
"""

import re
from collections.abc import Sequence
from functools import cache

import numpy as np
import pandas as pd
import pytest
import torch

from densecl.report.charts.curves import MAX_SEEDS, build_curve_groups, summarise_seeds
from densecl.report.charts.panels import Panel, Profile, build_panel_groups
from densecl.training.diagnostics import measure_match_accuracy
from densecl.training.pair_quality import summarise_pairs
from densecl.training.step_metrics import compute_epoch_means
from tests.training.test_optimisation import stepper
from tests.training.test_trainer import CONTRASTS, batch_of

# In history.csv and on no curve: the axis itself, and what follows from the rest.
UNDRAWN = {
    "epoch",
    "loss",
    "match/visible",
    "match/chance/within0",
    "match/chance/within1",
}
OF_THE_TRAINER = (
    "learning_rate",
    "images_per_second",
    "peak_memory_bytes",
    "rank_cls",
    "similarity_cls",
    "rank_patches_within",
    "rank_patches_across",
)


@cache
def written() -> tuple[str, ...]:
    """Columns of a dense training, from the code that names them."""
    train_step = stepper(CONTRASTS["dense"])
    metrics = train_step(batch_of(4), 0.5, 0, diagnostics=True)
    patches = torch.rand(2, 4, 3)
    crops = torch.tensor([[0.0, 0.0, 1.0, 1.0, 0.0]] * 2)
    features = dict.fromkeys(("dense", "last", "before_last"), (patches, patches))
    found = (
        compute_epoch_means([metrics])
        | summarise_pairs(torch.ones(3, 4, dtype=torch.bool), 2, 4)
        | measure_match_accuracy(features, crops, crops, (2, 2))
        | train_step.objective.collect_metrics(0.0)
    )
    return ("epoch", *found, *OF_THE_TRAINER, "top1/imagenet", "top5/imagenet")


def history(columns: Sequence[str], epochs: int = 5, seed: int = 0) -> pd.DataFrame:
    values = np.random.default_rng(seed).uniform(0.1, 0.9, (epochs, len(columns)))
    return pd.DataFrame(values, columns=list(columns)).assign(epoch=range(epochs))


def drawn(histories: dict[str, list[pd.DataFrame]]) -> dict[str, str]:
    return {
        chart.title: chart.svg for group in build_curve_groups(histories) for chart in group.charts
    }


def lines(svg: str, mode: str) -> list[str]:
    """Stroked paths in the mode's colour that go somewhere; markers are filled."""
    paths = re.findall(
        r'<path d="([^"]+)"[^>]*style="fill: none;[^"]*stroke: var\(--' + mode + r"\)", svg
    )
    return [path for path in paths if "L" in path]


def test_every_column_that_a_training_writes_is_on_a_curve():
    columns = written()
    shown: set[str] = set()
    for group in build_panel_groups(columns):
        for panel in group.panels:
            if isinstance(panel, Panel):
                shown |= {*panel.lines, *panel.references}
            elif isinstance(panel, Profile):
                shown |= {
                    c
                    for c in columns
                    if c.startswith((f"match/{panel.features}/overlap", "match/identity/overlap"))
                }
    assert set(columns) - shown - UNDRAWN == set()
    assert shown - set(columns) == set()


@pytest.mark.slow
def test_titles_and_texts_are_there_and_differ():
    charts = [c for g in build_curve_groups({"dense": [history(written())]}) for c in g.charts]
    assert len({c.title for c in charts}) == len(charts) >= 30
    assert all(c.caption and c.alt.startswith(c.title) and " from " in c.alt for c in charts)


@pytest.mark.slow
def test_a_line_a_mode_and_seed_in_the_mode_s_colour():
    frames = {
        mode: [history(written(), seed=s) for s in seeds]
        for mode, seeds in (("dense", (0, 1)), ("none", (2, 3, 4)))
    }
    svg = drawn(frames)["Classification loss"]
    assert [len(lines(svg, mode)) for mode in ("dense", "global", "none")] == [2, 0, 3]
    two = drawn(frames)["Training accuracy"]
    assert [len(lines(two, mode)) for mode in ("dense", "none")] == [4, 6]


def test_a_line_passes_through_its_values():
    frame = history(["epoch", "classification_loss"], epochs=4).assign(
        classification_loss=[4.0, 2.0, np.nan, 1.0]
    )
    (path,) = lines(drawn({"none": [frame]})["Classification loss"], "none")
    points = [tuple(map(float, p)) for p in re.findall(r"[ML] (\S+) (\S+)", path)]
    assert len(points) == 3  # the gap is one
    (_, top), (_, middle), (_, low) = points
    assert (middle - top) / (low - middle) == pytest.approx(
        2, abs=1e-4
    )  # y grows downwards: 4 -> 2 is twice 2 -> 1


def test_absent_and_empty_columns_are_left_out():
    plain = history(["epoch", "classification_loss", "contrastive_loss"]).assign(
        contrastive_loss=np.nan
    )
    found = build_curve_groups({"none": [plain], "dense": []})
    assert [g.question for g in found] == ["Is it learning?"]
    assert [c.title for c in found[0].charts] == ["Classification loss"]
    assert build_curve_groups({"dense": []}) == build_curve_groups({}) == []


@pytest.mark.slow
def test_one_epoch_or_an_unknown_first_one_is_drawn():
    columns = written()
    late = history(columns)
    late.loc[0, [c for c in columns if c != "epoch"]] = np.nan
    late["gradient_cosine"] *= -1
    charts = {
        c.title: c
        for g in build_curve_groups({"dense": [late], "global": [history(columns, epochs=1)]})
        for c in g.charts
    }
    assert "nan" not in "".join(c.alt for c in charts.values())
    assert "first" not in charts["Head: by overlap"].alt.split("same index")[0].split("global")[-1]


@pytest.mark.slow
def test_panels_of_a_row_share_their_scale_and_others_do_not():
    frame = history(written()).assign(**{"match/dense/within0": 0.9, "match/last/within0": 0.1})
    charts = drawn({"dense": [frame]})
    labels = {t: re.findall(r">([\d.]+)</text>", svg) for t, svg in charts.items()}
    assert labels["Head: on the true patch"] == labels["Last block: on the true patch"]
    assert labels["Head: on the true patch"] != labels["Temperature and weight"]


def test_modes_that_coincide_each_show_their_mark():
    same = history(["epoch", "learning_rate"])
    svg = drawn({mode: [same] for mode in ("dense", "global", "none")})["Learning rate"]
    marks = {
        m: re.findall(r'<use href="#[^"]+" x="([\d.]+)"[^>]*fill: var\(--' + m + r"\)", svg)
        for m in ("dense", "global", "none")
    }
    assert len({x[0] for x in marks.values()}) == 3


def test_the_alternative_text_states_where_lines_begin_and_end():
    one, two = (
        history(["epoch", "train_top1"], 3).assign(train_top1=v)
        for v in ([0.1, 0.5, 0.4], [0.3, 0.5, 0.6])
    )
    (group,) = build_curve_groups({"global": [one, two]})
    assert group.charts[0].alt == "Training accuracy, %, by epoch: global top-1 from 20 to 50"


def test_of_many_seeds_the_least_the_median_and_the_largest_value_are_drawn():
    rng = np.random.default_rng(0)
    frames = [
        pd.DataFrame({"epoch": [0, 1], "loss": rng.random(2), "rare": [np.nan, rng.random()]})
        for _ in range(MAX_SEEDS + 1)
    ]
    assert summarise_seeds(frames[:MAX_SEEDS]) == frames[:MAX_SEEDS]
    found = summarise_seeds([*frames, pd.DataFrame({"loss": [9.0]})])  # without epochs: no line
    for column in ("loss", "rare"):
        values = np.array([frame[column] for frame in frames])  # [seeds, epochs]
        for summary, reduce in zip(found, (np.min, np.median, np.max), strict=True):
            np.testing.assert_array_equal(summary["epoch"], [0, 1])
            np.testing.assert_allclose(summary[column], reduce(values, axis=0))
