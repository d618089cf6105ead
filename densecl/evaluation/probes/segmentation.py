"""Segmentation from frozen patch tokens: is the class of a patch's pixels in its token?

Fitted on the images of one entry of `transfer`, scored on those of another
(docs/probes/segmentation.md).
Measures are mIoU by block: `linear/<block>`, `knn/<block>`, and `linear/chosen`, of the block that
is best within the images that are fitted on; `accuracy/chosen` is its share of pixels.

Pictures, of the same test images for all models: `image` uint8 [n, 3, H, W], `truth` and
`prediction` uint8 [n, H, W], classes by their place in the list (background first, if there is
one), 255 where the truth is ignored.

n images, B of a batch, N patches, R patches that are fitted on, E features, C classes.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from densecl.artifacts import ProbeMeasure
from densecl.config.probe_params import SegmentationParams
from densecl.errors import DataError
from densecl.evaluation.frozen_features.blocks import select_blocks
from densecl.evaluation.frozen_features.iou import (
    PixelCounts,
    count_constant,
    count_pixels,
    join_counts,
    linearise_accuracy,
    linearise_miou,
)
from densecl.evaluation.frozen_features.patch_heads import (
    Head,
    build_neighbour_head,
    choose_patch_labels,
    count_patch_labels,
    fit_linear_head,
    predict_pixels,
)
from densecl.evaluation.frozen_features.patch_tokens import compute_tokens
from densecl.evaluation.probing.context import ProbeContext, create_generator
from densecl.evaluation.probing.result import ProbeResult, build_measure
from densecl.evaluation.probing.transfer import (
    IGNORED,
    TransferImages,
    check_distinct,
    load_images,
)
from densecl.network.vit import get_patch_grid
from densecl.runtime.progress import write_progress

FITTED_PATCHES = 50_000  # at most, drawn from all patches of all images
MEMORY_PATCHES = 20_000  # of these at most, for nearest neighbours
PICTURES = 6
CHOSEN = "chosen"


class FittedPatches(NamedTuple):
    """Patches with a label, drawn at random, in random order; the same for all models."""

    tokens: dict[str, Tensor]  # block -> fp32 [R, E]
    labels: Tensor  # int64 [R]
    images: Tensor  # int64 [R], index of the image
    pixels: Tensor  # int64 [C], of all fitted images


def measure(context: ProbeContext, params: SegmentationParams) -> ProbeResult:
    """mIoU on `params.test` of layers fitted on `params.fit`; DataError if these do not fit."""
    fit, test = (load_images(context, name).select_masked() for name in (params.fit, params.test))
    classes = list_shared_classes(fit, test)
    patches = gather_patches(context, fit, classes)
    heads: dict[str, tuple[str, Head]] = {}
    for block, tokens in patches.tokens.items():
        write_progress(0, len(test.frame), f"{block} block")
        heads[f"linear/{block}"] = block, fit_linear_head(tokens, patches.labels, len(classes))
        heads[f"knn/{block}"] = (
            block,
            build_neighbour_head(
                tokens[:MEMORY_PATCHES],
                patches.labels[:MEMORY_PATCHES],
                len(classes),
                params.neighbours,
            ),
        )
    chosen = choose_block(context, fit, classes, patches)
    counts, pictures = score_heads(context, test, classes, heads, f"linear/{chosen}")
    return build_result(context, test, counts, chosen, patches.pixels, pictures)


def list_shared_classes(fit: TransferImages, test: TransferImages) -> list[str]:
    """Classes of the masks to fit on; DataError if those to score mean something else."""
    check_distinct(fit, test)
    classes = fit.list_classes()
    if len(classes) < 2:
        raise DataError(
            f"evaluate.probes.segmentation: the masks of {fit.name} show {len(classes)} class(es), "
            "expected two at least, background included; set other masks or mask_values"
        )
    if not set(classes).intersection(test.list_classes()):
        raise DataError(
            f"evaluate.probes.segmentation: {test.name} shows none of the classes of {fit.name}"
        )
    return classes


def gather_patches(
    context: ProbeContext, images: TransferImages, classes: list[str]
) -> FittedPatches:
    """Labels and tokens of at most FITTED_PATCHES patches, each as likely as another."""
    grid, parts, pixels = get_patch_grid(context.model), [], torch.zeros(len(classes)).long()
    for labels in images.iter_labels(classes, context.plan.batch_size):
        counts = count_patch_labels(labels, grid, len(classes))
        parts.append(choose_patch_labels(counts))
        pixels += counts.sum((0, 1))
    labels = torch.cat(parts)
    places = torch.nonzero(labels.flatten() >= 0)[:, 0]
    generator = create_generator("segmentation", "patches", images.name)
    drawn = places[torch.randperm(len(places), generator=generator)[:FITTED_PATCHES]]
    blocks = select_blocks(len(context.model.blocks))
    wanted = torch.zeros(labels.numel(), dtype=torch.bool)
    wanted[drawn] = True
    kept: dict[str, list[Tensor]] = {name: [] for name in blocks}
    start = 0
    for batch in images.iter_images(context.plan.batch_size):
        write_progress(start, len(images.frame), "fit")
        chosen = wanted.view(labels.shape)[start : start + len(batch)]
        for name, tokens in compute_tokens(context, batch, blocks).items():
            kept[name].append(tokens[chosen.to(tokens.device)].cpu())
        start += len(batch)
    order = torch.argsort(torch.argsort(drawn))  # from the order of places to that of drawing
    return FittedPatches(
        {name: torch.cat(tokens)[order] for name, tokens in kept.items()},
        labels.flatten()[drawn],
        drawn // labels.shape[1],
        pixels,
    )


def choose_block(
    context: ProbeContext, fit: TransferImages, classes: list[str], patches: FittedPatches
) -> str:
    """The block with the highest mIoU on a third of the images, of linear layers fitted on the
    others in fp32; the later of equals. No test image takes part.
    """
    generator = create_generator("segmentation", "thirds", fit.name)
    order = torch.randperm(len(fit.frame), generator=generator)
    held_out = torch.zeros(len(order), dtype=torch.bool)
    held_out[order[: len(order) // 3]] = True
    rest = ~held_out[patches.images]
    if len(patches.tokens) == 1 or not held_out.any() or not rest.any():
        return list(patches.tokens)[-1]
    heads = {
        name: (
            name,
            fit_linear_head(tokens[rest], patches.labels[rest], len(classes), polish=False),
        )
        for name, tokens in patches.tokens.items()
    }
    third = fit.select(held_out.numpy())
    counts, _ = score_heads(context, third, classes, heads)
    scores = {name: linearise_miou(found).mean() for name, found in counts.items()}
    return max(reversed(scores), key=lambda name: scores[name])


def score_heads(
    context: ProbeContext,
    images: TransferImages,
    classes: list[str],
    heads: Mapping[str, tuple[str, Head]],
    pictured: str = "",
) -> tuple[dict[str, PixelCounts], dict[str, NDArray[np.uint8]]]:
    """Pixels of all images by head, of which each has its block; and pictures of the predictions
    of the head `pictured`.
    """
    blocks, grid = select_blocks(len(context.model.blocks)), get_patch_grid(context.model)
    numbers = np.linspace(0, len(images.frame) - 1, PICTURES).round().astype(int)
    counts: dict[str, list[PixelCounts]] = {name: [] for name in heads}
    shown: dict[str, list[Tensor]] = {"image": [], "truth": [], "prediction": []}
    size = images.preprocessing.input_size[1:]
    start, at_once = 0, context.plan.batch_size
    for batch, labels in zip(
        images.iter_images(at_once), images.iter_labels(classes, at_once), strict=True
    ):
        write_progress(start, len(images.frame), "score")
        tokens = compute_tokens(context, batch, blocks)
        picked = [n - start for n in sorted(set(numbers)) if start <= n < start + len(batch)]
        for name, (block, head) in heads.items():
            predicted = predict_pixels(head(tokens[block]), grid, size).cpu()
            truth = labels[:, : predicted.shape[1], : predicted.shape[2]]
            counts[name].append(count_pixels(predicted, truth, len(classes)))
            if name == pictured:
                shown["image"].append(batch[picked][..., : truth.shape[1], : truth.shape[2]])
                shown["truth"].append(truth[picked].where(truth[picked] >= 0, IGNORED))
                shown["prediction"].append(predicted[picked])
        start += len(batch)
    pictures = {
        name: torch.cat(parts).to(torch.uint8).numpy() for name, parts in shown.items() if parts
    }
    return {name: join_counts(parts) for name, parts in counts.items()}, pictures


def build_result(
    context: ProbeContext,
    test: TransferImages,
    counts: Mapping[str, PixelCounts],
    chosen: str,
    fitted_pixels: Tensor,
    pictures: Mapping[str, NDArray[np.uint8]],
) -> ProbeResult:
    """Columns and measures; images without a labelled pixel add nothing to a sum."""
    rows, numbers = test.build_rows(), select_blocks(len(context.model.blocks))
    best = counts[f"linear/{chosen}"]
    constant = count_constant(best, int(fitted_pixels.argmax()))
    chance = float(linearise_miou(constant).mean())
    scored = int((best.true.sum(0) > 0).sum())
    common = f"{scored} classes; chance: the most frequent class of the fitted images everywhere"
    measures: dict[str, ProbeMeasure] = {}
    for name, found in counts.items():
        curve, block = name.split("/")
        rows[name] = linearise_miou(found)
        measures[name] = build_measure(
            rows,
            name,
            chance=chance,
            curve=curve,
            strength=float(numbers[block] + 1),
            note=f"mIoU of {common}",
        )
    note = f"of the {chosen} block, the best within the fitted images"
    rows[f"linear/{CHOSEN}"] = linearise_miou(best)
    rows[f"accuracy/{CHOSEN}"] = linearise_accuracy(best)
    measures[f"linear/{CHOSEN}"] = build_measure(
        rows, f"linear/{CHOSEN}", chance=chance, note=f"mIoU {note}, of {common}"
    )
    measures[f"accuracy/{CHOSEN}"] = build_measure(
        rows,
        f"accuracy/{CHOSEN}",
        chance=float(linearise_accuracy(constant).mean()),
        note=f"share of pixels, {note}",
    )
    return ProbeResult(rows, measures, pictures=pictures)
