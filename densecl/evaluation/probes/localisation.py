"""Localisation: do the attention of CLS, or clusters of patch tokens, show where an object is?

No layer is fitted. `corloc/<from>` is the share of images whose box overlaps any labelled box with
an IoU above 0.5 (Deselaers et al. 2010), `iou/<from>` the mean of the best IoU; from the attention
of the last block (`attention`), from tokens of each block, and for comparison from boxes that know
nothing of the image (`image`, `centre`). docs/probes/localisation.md.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from densecl.config.probe_params import LocalisationParams
from densecl.errors import DataError
from densecl.evaluation.frozen_features.blocks import select_blocks
from densecl.evaluation.frozen_features.object_boxes import (
    compute_iou,
    cut_tokens,
    find_box,
    find_mask_boxes,
    keep_attended,
)
from densecl.evaluation.frozen_features.patch_tokens import compute_tokens
from densecl.evaluation.probing.context import ProbeContext
from densecl.evaluation.probing.result import ProbeResult, build_measure
from densecl.evaluation.probing.transfer import (
    IGNORED,
    MASKS_AT_ONCE,
    Box,
    TransferImages,
    load_images,
)
from densecl.network.attention import compute_cls_attention, find_attention
from densecl.network.create import ModelError
from densecl.network.vit import get_patch_grid
from densecl.runtime.progress import write_progress

CORLOC_IOU = 0.5
ATTENTION, IMAGE, CENTRE = "attention", "image", "centre"
BASELINES = (IMAGE, CENTRE)


def measure(context: ProbeContext, params: LocalisationParams) -> ProbeResult:
    """CorLoc and best IoU on the images of `params.test` that show a labelled object; DataError if
    there is none.
    """
    images = load_images(context, params.test)
    objects = read_objects(images)
    if not any(objects):
        raise DataError(
            f"transfer.{params.test}: none of its {len(images.frame)} images shows an object in a "
            "mask or a box; name an entry that has them"
        )
    missing = find_missing(context)
    found = find_boxes(context, images, with_attention=not missing)
    rows, measures = images.build_rows(), {}
    for source, boxes in found.items():
        rows[f"iou/{source}"] = [
            max((compute_iou(box, other) for other in labelled), default=np.nan)
            for box, labelled in zip(boxes, objects, strict=True)
        ]
        rows[f"corloc/{source}"] = _exceed(rows[f"iou/{source}"].to_numpy())
    blocks = select_blocks(len(context.model.blocks))
    for kind in ("corloc", "iou"):
        chance = max(float(rows[f"{kind}/{source}"].mean()) for source in BASELINES)
        for source in found:
            measures[f"{kind}/{source}"] = build_measure(
                rows,
                f"{kind}/{source}",
                chance=None if source in BASELINES else chance,
                curve=kind if source in blocks else "",
                strength=float(blocks[source] + 1) if source in blocks else None,
                note="chance: the better of the box of the whole image and of its central half",
            )
    return ProbeResult(rows, measures, missing, describe_objects(images, objects))


def _exceed(ious: NDArray[np.float64]) -> NDArray[np.float64]:
    """1.0 above CORLOC_IOU, else 0.0; NaN where there is no object."""
    return np.where(np.isnan(ious), np.nan, ious > CORLOC_IOU)


def describe_objects(images: TransferImages, objects: Sequence[Sequence[Box]]) -> tuple[str, ...]:
    """What was left out, and what looks like masks without background."""
    notes, labelled = [], [boxes for boxes in objects if boxes]
    if len(labelled) < len(objects):
        empty = len(objects) - len(labelled)
        notes.append(f"{empty} images of {images.name} show no labelled object")
    _, height, width = images.preprocessing.input_size
    if all((0, 0, width, height) in [box[1:] for box in boxes] for boxes in labelled):
        notes.append(
            f"every image of {images.name} has an object that fills it: if the background of its "
            "masks has another value than 0, it counts as an object"
        )
    return tuple(notes)


def read_objects(images: TransferImages) -> list[list[Box]]:
    """Labelled boxes of each image: those of annotations if the entry has any, else those around
    the components of its masks.
    """
    boxes = images.read_boxes()
    if any(boxes) or not (images.frame["mask"] != "").any():
        return boxes
    has_mask = (images.frame["mask"] != "").to_numpy()
    parts = images.select(has_mask).iter_parts(MASKS_AT_ONCE)
    masks = (mask for part in parts for mask in part.read_masks())
    return [find_mask_boxes(next(masks), IGNORED) if there else [] for there in has_mask]


def find_missing(context: ProbeContext) -> dict[str, str]:
    """The measures of the attention, with the reason, for a model that has none of its kind."""
    try:
        find_attention(context.model)
    except ModelError as error:
        return {f"{kind}/{ATTENTION}": str(error) for kind in ("corloc", "iou")}
    return {}


def find_boxes(
    context: ProbeContext, images: TransferImages, *, with_attention: bool
) -> Mapping[str, list[Box]]:
    """A box in pixels of the input for each image, by where it comes from."""
    model, blocks, grid = (
        context.model,
        select_blocks(len(context.model.blocks)),
        get_patch_grid(context.model),
    )
    _, height, width = images.preprocessing.input_size
    patch = (height // grid[0], width // grid[1])
    found: dict[str, list[Box]] = {
        **({ATTENTION: []} if with_attention else {}),
        **{name: [] for name in blocks},
    }
    start = 0
    for batch in images.iter_images(context.plan.batch_size):
        write_progress(start, len(images.frame))
        start += len(batch)
        if with_attention:
            attention = compute_cls_attention(model, context.normalise(batch)).mean(1).cpu()
            context.evaluator.predictor.images_run += len(batch)
            found[ATTENTION] += [find_box(keep_attended(row, grid), patch) for row in attention]
        for name, tokens in compute_tokens(context, batch, blocks).items():
            found[name] += [find_box(cut_tokens(image, grid), patch) for image in tokens.cpu()]
    centre = Box("", width // 4, height // 4, width - width // 4, height - height // 4)
    return found | {IMAGE: [Box("", 0, 0, width, height)] * start, CENTRE: [centre] * start}
