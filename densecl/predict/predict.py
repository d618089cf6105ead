"""`densecl predict`: the most probable classes of images, and pictures of what a model looks at."""

import csv
import io
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from densecl.artifacts import write_text
from densecl.datasets.imagenet import load_class_descriptions
from densecl.datasets.storage.filenames import to_printable
from densecl.datasets.synthetic.classes import DRAWN_CLASSES
from densecl.errors import DataError
from densecl.network.exported import load_exported_model
from densecl.network.precision import use_fp32_products
from densecl.network.vit import Backbone
from densecl.pages.formatting import align_columns, format_percent
from densecl.predict.images import ImageBatches, check_output, list_images
from densecl.predict.pictures import draw_attention, draw_matches


class Prediction(NamedTuple):
    """One class of one image; `rank` 1 is the most probable."""

    image: str
    rank: int
    wnid: str
    name: str
    probability: float


def main(
    model: Path,
    images: Path | None,
    top: int,
    format: str,
    output: Path | None,
    attention: bool,
    matches: Sequence[Path] | None,
    pictures: Path,
    batch_size: int,
    follow_links: bool = False,
) -> None:
    """Print or write the predictions, and the pictures that are asked for."""
    network, config = load_exported_model(model)
    if matches:
        print(draw_matches(network, matches[0], matches[1], pictures), file=sys.stderr)
    if images is None:
        return
    listed = list_images(images, "anywhere" if follow_links else "inside")
    if output:
        check_output(output, [images, *(path for _, path in listed), *model.glob("*")])
    batches = ImageBatches(network, listed, batch_size)
    if not (wnids := config.get("classes")):
        raise DataError(
            f"{to_printable(model)}: its config.json names no classes; `densecl embed` needs none"
        )
    names = name_classes(wnids)
    rows: list[Prediction] = []
    done = 0
    for batch_names, pixels, normalised in batches:
        rows += rank_classes(batch_names, predict_probabilities(network, normalised), names, top)
        if attention:
            draw_attention(network, batch_names, pixels, normalised, pictures, done)
        done += len(batch_names)
    text = FORMATTERS[format](rows)
    if output:
        write_text(output, text)
    else:
        print(text, end="")
    batches.raise_unreadable()


def name_classes(wnids: Sequence[str]) -> list[tuple[str, str]]:
    """Folder name and words of each class; the folder name itself where there are no words."""
    words = load_class_descriptions() | {c.wnid: c.name for c in DRAWN_CLASSES}
    return [(wnid, words.get(wnid, wnid)) for wnid in wnids]


def predict_probabilities(model: Backbone, images: Tensor) -> Tensor:
    """Softmax fp32 [B, C] on the CPU, of normalised images [B, 3, H, W]."""
    with torch.inference_mode(), use_fp32_products():
        logits: Tensor = model(images)
        return logits.float().softmax(1).cpu()


def rank_classes(
    images: Sequence[str], probabilities: Tensor, names: Sequence[tuple[str, str]], top: int
) -> Iterator[Prediction]:
    """The `top` most probable classes of each image."""
    values, indices = probabilities.topk(min(top, len(names)))
    for image, row_values, row_indices in zip(
        images, values.tolist(), indices.tolist(), strict=True
    ):
        for rank, (value, index) in enumerate(zip(row_values, row_indices, strict=True), 1):
            wnid, name = names[index]
            yield Prediction(image, rank, wnid, name, value)


def _format_table(rows: Sequence[Prediction]) -> str:
    lines = [
        (
            to_printable(row.image) if row.rank == 1 else "",
            f"{format_percent(row.probability)} %",
            to_printable(row.name),
            to_printable(row.wnid) if row.wnid != row.name else "",
        )
        for row in rows
    ]
    return f"{align_columns([('image', 'probability', 'class', ''), *lines])}\n"


def _format_csv(rows: Sequence[Prediction]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(Prediction._fields)
    writer.writerows(row._replace(probability=round(row.probability, 6)) for row in rows)
    return text.getvalue()


def _format_json(rows: Sequence[Prediction]) -> str:
    images: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        found = {"wnid": row.wnid, "name": row.name, "probability": round(row.probability, 6)}
        images.setdefault(row.image, []).append(found)
    content = [{"image": image, "classes": classes} for image, classes in images.items()]
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


FORMATTERS = {"table": _format_table, "csv": _format_csv, "json": _format_json}
