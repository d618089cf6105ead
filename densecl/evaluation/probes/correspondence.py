"""Correspondence: patches of an image found again in a known warp of it, by their features.

PCK, the percentage of correct keypoints (Yang and Ramanan 2013), where the keypoints
are the centres of all patches. B images, N patches, E features.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from densecl.config.probe_params import CorrespondenceParams
from densecl.evaluation.frozen_features.blocks import select_blocks
from densecl.evaluation.frozen_features.patch_tokens import compute_model_tokens
from densecl.evaluation.probing.context import ProbeContext, iter_pixels
from densecl.evaluation.probing.draw import draw_evenly
from densecl.evaluation.probing.result import ProbeResult, build_measure
from densecl.evaluation.stimuli.correspondence_warps import (
    KINDS,
    ROUNDING,
    draw_warps,
    find_true_places,
    is_visible,
    measure_distances,
    warp_images,
)
from densecl.network.vit import Backbone, get_patch_grid
from densecl.runtime.progress import write_progress

CHUNK = 32  # images whose patches are compared at once: 85 MB of float64 at 577 patches
DIGITS = 9  # of cosines that count; of equal ones, the patch of the lowest index is the match
SAME_INDEX, CHANCE = "same-index", "chance"  # answers that read no feature
NOTES = (
    "strength: the number of the block, from 1",
    "moved: only patches that the answer of the same index misses",
)
Tensors = dict[str, Tensor]


def measure(context: ProbeContext, params: CorrespondenceParams) -> ProbeResult:
    """PCK of each block: of all patches of an image that its warps show (`pck<t>`), and of those
    that have moved by more than t patches (`moved<t>`).
    """
    frame = context.frame
    chosen = draw_evenly("correspondence", frame["image_id"], frame["label"], params.images)
    parts: dict[str, list[Tensors]] = {kind: [] for kind in KINDS}
    for start, images in _iter_chosen(context, chosen):
        write_progress(start, len(chosen), "correspondence")
        image_ids = frame["image_id"].iloc[chosen[start : start + len(images)]].tolist()
        normalised = context.normalise(images)
        matched = count_matches(context.model, normalised, image_ids, params.tolerances)
        for kind in KINDS:
            parts[kind].append(matched[kind])
        context.evaluator.predictor.images_run += len(images) * (1 + len(KINDS))
    rows = context.build_rows().iloc[chosen].reset_index(drop=True)
    counts = {kind: concatenate(batches) for kind, batches in parts.items()}
    return build_result(rows, counts, select_blocks(len(context.model.blocks)), params.tolerances)


def _iter_chosen(context: ProbeContext, chosen: NDArray[np.int64]) -> Iterator[tuple[int, Tensor]]:
    """Batches of the chosen images, and the position of the first image of each."""
    if len(chosen) == len(context.frame):
        batches = context.iter_images()
    else:
        files = [context.validation.root / path for path in context.frame["path"].iloc[chosen]]
        batches = iter_pixels(files, context.preprocessing, context.plan.batch_size)
    start = 0
    for images in batches:
        yield start, images
        start += len(images)


def count_matches(
    model: Backbone, images: Tensor, image_ids: Sequence[str], tolerances: Sequence[int]
) -> dict[str, Tensors]:
    """The counts of `count_correct`, by kind of warp, of normalised images [B, 3, H, W]."""
    blocks, grid = select_blocks(len(model.blocks)), get_patch_grid(model)
    size = images.shape[-2], images.shape[-1]
    first = compute_model_tokens(model, images, blocks)
    counts = {}
    for kind in KINDS:
        warps = draw_warps(kind, image_ids, size)
        second = compute_model_tokens(model, warp_images(images, warps), blocks)
        places = find_true_places(warps, size, grid)
        parts = []
        for start in range(0, len(images), CHUNK):
            part = slice(start, start + CHUNK)
            matches = {name: match_patches(first[name][part], second[name][part]) for name in first}
            parts.append(count_correct(matches, places[part], grid, tolerances))
        counts[kind] = concatenate(parts)
    return counts


def match_patches(first: Tensor, second: Tensor) -> Tensor:
    """[B, N] on the CPU: the patch of the second that each of the first is most similar to, by the
    cosine of their features [B, N, E].
    """
    first, second = (F.normalize(features.double(), dim=-1) for features in (first, second))
    return torch.bmm(first, second.mT).round(decimals=DIGITS).argmax(2).cpu()


def count_correct(
    matches: Mapping[str, Tensor], places: Tensor, grid: tuple[int, int], tolerances: Sequence[int]
) -> Tensors:
    """Patches of each image, [B]: that are shown (`pck<t>`), that are shown and have moved by more
    than t patches (`moved<t>`), and of either those whose match lies within t patches of the true
    place (`pck<t>/<name>`, `moved<t>/<name>`).

    matches: [B, N] by name; places: [B, N, 2], the true ones. Counted beside them: the patch of the
    same index, and the mean over all patches that could be the match.
    """
    shown, distances = is_visible(places, grid), measure_distances(places, grid)
    counts: Tensors = {}
    for tolerance in tolerances:
        near = distances <= tolerance + ROUNDING  # [B, N, N]
        own = near.diagonal(dim1=1, dim2=2)
        correct = {
            name: near.gather(2, match[..., None])[..., 0] for name, match in matches.items()
        }
        correct |= {SAME_INDEX: own, CHANCE: near.double().mean(2)}
        for curve, patches in (("pck", shown), ("moved", shown & ~own)):
            counts[f"{curve}{tolerance}"] = patches.sum(1).double()
            for name, share in correct.items():
                counts[f"{curve}{tolerance}/{name}"] = (share * patches).sum(1).double()
    return counts


def build_result(
    rows: pd.DataFrame,
    counts: Mapping[str, Tensors],
    blocks: Mapping[str, int],
    tolerances: Sequence[int],
) -> ProbeResult:
    """Columns are shares of an image's patches: of each block, over the patches of all warps; and
    of the main number, over those of each kind of warp.

    The main number is `moved<t>` at the first tolerance, of the block before the last.
    """
    main_curve, main_block = f"moved{tolerances[0]}", list(blocks)[-2:][0]
    total = {
        name: torch.stack([counts[kind][name] for kind in KINDS]).sum(0)
        for name in counts[next(iter(KINDS))]
    }
    shares: Tensors = {}
    for tolerance in tolerances:
        shares |= divide_counts(total, f"pck{tolerance}", (*blocks, SAME_INDEX, CHANCE))
        shares |= divide_counts(total, f"moved{tolerance}", (*blocks, CHANCE))
    for kind in KINDS:
        of_kind = divide_counts(counts[kind], main_curve, (main_block, CHANCE))
        shares |= {f"{kind}-{name}": share for name, share in of_kind.items()}
    rows = rows.assign(**{name: share.numpy() for name, share in shares.items()})
    measures, missing = {}, {}
    for name in shares:
        curve, _, answer = name.partition("/")
        if rows[name].isna().all():
            missing[name] = "no image has a patch that is shown and has moved that far"
            continue
        is_drawn = answer in blocks and curve in total
        measures[name] = build_measure(
            rows,
            name,
            chance=float(rows[f"{curve}/{CHANCE}"].mean()),
            curve=curve if is_drawn else "",
            strength=float(blocks[answer] + 1) if is_drawn else None,
        )
    return ProbeResult(rows, measures, missing, NOTES)


def divide_counts(counts: Tensors, curve: str, names: Sequence[str]) -> Tensors:
    """Shares [B] by `<curve>/<name>`; NaN for an image without such patches."""
    return {f"{curve}/{name}": counts[f"{curve}/{name}"] / counts[curve] for name in names}


def concatenate(parts: Sequence[Tensors]) -> Tensors:
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
