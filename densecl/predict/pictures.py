"""Pictures of what a model looks at: CLS attention, and patches of two images joined by match."""

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from densecl.contrast.matching import compute_match_similarity, is_mutual_match, match_patches
from densecl.datasets.storage.filenames import to_printable
from densecl.errors import DataError
from densecl.network.attention import compute_cls_attention
from densecl.network.vit import Backbone, get_patch_grid
from densecl.predict.embed import compute_features
from densecl.predict.images import ImageBatches
from densecl.runtime.atomic_files import open_atomic_file

SIDE_PX = 448  # of a drawn image
GAP_PX = 16
MAX_LINES = 40  # matches that are drawn, the most similar first
OVERLAY = (230, 60, 20)  # of the most attended patch
LINES = ((0, 114, 178), (213, 94, 0), (0, 158, 115), (204, 121, 167), (230, 159, 0))


def draw_attention(
    model: Backbone,
    names: Sequence[str],
    pixels: Tensor,
    images: Tensor,
    folder: Path,
    done: int,
) -> None:
    """Write one picture per image: as the model sees it, and with the attention of CLS in the last
    block laid over it, the mean of the heads. `done`: images before these.
    """
    folder.mkdir(parents=True, exist_ok=True)
    maps = compute_cls_attention(model, images).mean(1).cpu()  # [B, N]
    rows = zip(names, pixels, maps, strict=True)
    for number, (name, image, weights) in enumerate(rows, done + 1):
        seen = _to_picture(image)
        heat = (weights / weights.max()).view(get_patch_grid(model)).mul(200).byte().numpy()
        mask = Image.fromarray(heat).resize(seen.size, Image.Resampling.BICUBIC)
        over = Image.composite(Image.new("RGB", seen.size, OVERLAY), seen, mask)
        stem = "".join(c if c.isalnum() or c in "-_" else "_" for c in Path(name).stem)[:80]
        _save(_join(seen, over), folder / f"attention-{number:05d}-{stem}.png")


def draw_matches(model: Backbone, first: Path, second: Path, folder: Path) -> str:
    """Write matches.png: lines from patches of the first image to their match in the second, where
    each is the other's most similar patch. Returns what was found in one line.
    """
    batches = ImageBatches(model, [(str(first), first), (str(second), second)], 2)
    names, pixels, images = next(iter(batches), ([], torch.empty(0), torch.empty(0)))
    if len(names) != 2:
        raise DataError("--matches: expected two images that can be read; see above")
    patches = compute_features(model, images, "patches")  # [2, N, E]
    one, two = patches[:1], patches[1:]
    match, mutual = match_patches(one, two)[0], is_mutual_match(one, two)[0]
    cosine = compute_match_similarity(one, two)[0]
    rows, columns = get_patch_grid(model)
    order = [int(p) for p in cosine.argsort(descending=True) if mutual[p]][:MAX_LINES]
    picture = _join(*(_to_picture(image) for image in pixels))
    draw = ImageDraw.Draw(picture)
    for number, patch in enumerate(order):
        colour = LINES[number % len(LINES)]
        ends = [
            (SIDE_PX * (p % columns + 0.5) / columns + x, SIDE_PX * (p // columns + 0.5) / rows)
            for p, x in ((patch, 0), (int(match[patch]), SIDE_PX + GAP_PX))
        ]
        draw.line(ends, fill=colour, width=2)
        for x, y in ends:
            draw.ellipse((x - 4, y - 4, x + 4, y + 4), fill=colour)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "matches.png"
    _save(picture, path)
    mean = float(cosine[mutual].mean()) if mutual.any() else math.nan
    return (
        f"{to_printable(path)}: of {rows * columns} patches of {to_printable(first.name)}, "
        f"{int(mutual.sum())} match one of {to_printable(second.name)} mutually (mean cosine "
        f"{mean:.2f}); the {len(order)} most similar are drawn"
    )


def _save(picture: Image.Image, path: Path) -> None:
    with open_atomic_file(path) as file:
        picture.save(file, "PNG")


def _to_picture(image: Tensor) -> Image.Image:
    """uint8 [3, H, W] as it is drawn."""
    picture = Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())
    return picture.resize((SIDE_PX, SIDE_PX), Image.Resampling.BICUBIC)


def _join(left: Image.Image, right: Image.Image) -> Image.Image:
    joined = Image.new("RGB", (2 * SIDE_PX + GAP_PX, SIDE_PX), "white")
    joined.paste(left, (0, 0))
    joined.paste(right, (SIDE_PX + GAP_PX, 0))
    return joined
