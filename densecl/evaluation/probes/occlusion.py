"""Occlusion: accuracy with patches dropped, and with a piece of another image pasted over.

Naseer et al. 2021, "Intriguing Properties of Vision Transformers", NeurIPS, section 3.1: random,
salient (foreground) and non-salient (background) patch drop. Each image has its own random numbers.
docs/probes/occlusion.md defines all of it.
"""

import json
import math
from collections.abc import Callable, Iterator
from functools import cached_property
from itertools import repeat
from pathlib import Path
from textwrap import shorten

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import Tensor

from densecl.artifacts import Preprocessing
from densecl.config.probe_params import OcclusionParams
from densecl.errors import DataError
from densecl.evaluation.other_models import check_architecture, load_other_model
from densecl.evaluation.probing.context import ProbeContext, draw_numbers, get_places
from densecl.evaluation.probing.curves import MeasureTable, name_curve
from densecl.evaluation.probing.result import ProbeResult
from densecl.evaluation.stimuli.patch_drop import (
    choose_donors,
    drop_patches,
    paste_rectangle,
    rank_patches,
    select_patches,
)
from densecl.evaluation.stimuli.saliency import compute_attention_map, load_object_shares
from densecl.network.attention import find_attention
from densecl.network.preprocessing import resolve_preprocessing
from densecl.network.vit import Backbone, ModelError, get_patch_grid
from densecl.runtime.hardware import get_device

SALIENT_CURVES = ("salient", "non-salient")
NOTHING_SALIENT = (
    "nothing says what is salient for all modes alike: set evaluate.probes.occlusion.masks, an "
    "entry of transfer with masks of the validation images, or .reference, weights whose attention "
    "decides"
)
OWN_NOTE = (
    "the model's own attention decides what is salient: models are compared on different stimuli"
)
NO_BACKGROUND = (
    "no mask has background (0), so all of each image is object, and no patch is more salient than "
    "another"
)
ONE_CLASS = "all validation images are of one class: none has an image of another to be covered by"


def measure(context: ProbeContext, params: OcclusionParams) -> ProbeResult:
    """`<curve>/<share>` and `<curve>/area`: accuracy. Curves: `random`, `salient` and `non-salient`
    first, `own-salient`, and `pasted`.
    """
    curves = OcclusionCurves(context, params.shares)
    curves.add_dropped("random", None)
    saliency, note = find_saliency(context, params)
    if saliency is None:
        for curve in SALIENT_CURVES:
            curves.add_missing(curve, note)
    else:
        curves.add_dropped("salient", saliency)
        curves.add_dropped("non-salient", -saliency)
    try:
        attention = compute_attention(context, context.model, context.preprocessing)
        curves.add_dropped("own-salient", attention, OWN_NOTE)
    except ModelError as error:
        curves.add_missing("own-salient", str(error))
    if context.frame["label"].nunique() > 1:
        curves.add_pasted()
    else:
        curves.add_missing("pasted", ONE_CLASS)
    notes = () if saliency is None else (note,)
    return ProbeResult(curves.table.rows, curves.table.measures, curves.missing, notes)


class OcclusionCurves:
    """Accuracy over the shares, curve by curve. n validation images, N patches."""

    def __init__(self, context: ProbeContext, shares: tuple[float, ...]) -> None:
        self.context, self.shares = context, shares
        self.table = MeasureTable(context.build_rows())
        self.missing: dict[str, str] = {}

    @cached_property
    def patch_draws(self) -> Tensor:
        """[n, N]."""
        count = math.prod(get_patch_grid(self.context.model))
        return draw_numbers(self.context.frame["image_id"], count, "occlusion", "patches")

    def add_dropped(self, curve: str, saliency: Tensor | None, note: str = "") -> None:
        """The patches of the largest saliency [n, N] are dropped first; NaN leaves images out."""
        grid = get_patch_grid(self.context.model)
        ranks = rank_patches(saliency, self.patch_draws)

        def alter(images: Tensor, rows: pd.DataFrame) -> Iterator[Tensor]:
            normalised = self.context.normalise(images)
            for share in self.shares:
                dropped = select_patches(ranks[get_places(rows)], share)
                yield drop_patches(normalised, dropped, grid)

        left_out = None if saliency is None else saliency.isnan().any(1).numpy()
        self._add(curve, alter, left_out, note)

    def add_pasted(self) -> None:
        frame = self.context.frame
        draws = draw_numbers(frame["image_id"], 4, "occlusion", "rectangle")
        labels = torch.tensor(frame["label"].to_numpy(copy=True))
        donors = choose_donors(labels, draws[:, 3])
        covers = self.context.iter_images_at(donors.tolist())  # batch by batch with the images

        def alter(images: Tensor, rows: pd.DataFrame) -> Iterator[Tensor]:
            covering, numbers = next(covers), draws[get_places(rows), :3].tolist()
            for share in self.shares:
                pasted = map(paste_rectangle, images, covering, numbers, repeat(share))
                yield torch.stack(list(pasted))

        self._add("pasted", alter)

    def add_missing(self, curve: str, reason: str) -> None:
        self.missing |= dict.fromkeys(name_curve(curve, self.shares), reason)

    def _add(
        self,
        curve: str,
        alter: Callable[[Tensor, pd.DataFrame], Iterator[Tensor]],
        left_out: NDArray[np.bool_] | None = None,
        note: str = "",
    ) -> None:
        plain = self.context.plain_rows["correct"].to_numpy(np.float64)
        points = {}
        predicted = self.context.predict_altered(self.shares, alter, f"occlusion {curve}")
        for share, classes in predicted.items():
            points[share] = self.context.is_correct(classes).numpy()
            if left_out is not None:
                points[share][left_out] = np.nan
        chance = 1 / len(self.context.scored_indices)
        self.table.add_curve(curve, plain, points, chance, note)


def find_saliency(context: ProbeContext, params: OcclusionParams) -> tuple[Tensor | None, str]:
    """[n, N] for all modes alike and what it is, or none and why."""
    if params.masks:
        shares = load_object_shares(context, params.masks, get_patch_grid(context.model))
        masked = shares[~shares.isnan().any(1)]
        note = (
            f"salient: the share of each patch that the object covers, by the masks of "
            f"transfer.{params.masks}, which {len(masked)} of {len(shares)} images have"
        )
        return shares, f"{note}; {NO_BACKGROUND}" if masked.eq(1).all() else note
    if params.reference:
        model = load_reference(Path(params.reference))
        note = f"salient: what the CLS token of {params.reference} attends to in its last block"
        model = model.to(get_device())
        return compute_attention(context, model, resolve_preprocessing(model)), note
    return None, NOTHING_SALIENT


def load_reference(folder: Path) -> Backbone:
    """The model whose attention decides; DataError if there is none in the folder."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        with torch.device("meta"):
            check_architecture(config)
        model, _ = load_other_model(folder)
        find_attention(model)
    except (OSError, LookupError, TypeError, ValueError, SafetensorError, ModelError) as error:
        raise DataError(
            f"evaluate.probes.occlusion.reference: {folder} has no weights that can be used "
            f"({type(error).__name__}: {shorten(str(error), 300)}); expected a folder with "
            "model.safetensors and config.json, as training exports it"
        ) from None
    return model


def compute_attention(
    context: ProbeContext, model: Backbone, preprocessing: Preprocessing
) -> Tensor:
    """fp32 [n, N]: maps of what a model attends to in the validation images, on the grid of the
    model that is measured.
    """
    grid = get_patch_grid(context.model)
    maps = [
        compute_attention_map(model, preprocessing, images, grid)
        for images in context.iter_images()
    ]
    return torch.cat(maps)
