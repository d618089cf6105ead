"""An image classifier for MLflow: takes encoded images, returns the most probable classes.

MLflow copies this file into the registry and runs it from there (models from code: nothing is
pickled), so it imports nothing of this project; and it runs it when a version is registered too, so
what is heavy is imported where it is used.
"""

import hashlib
import io
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel, PythonModelContext

BATCH_SIZE = 64  # images decoded and scored at once, however many are given: memory stays bounded
TOP_K = 5
MAX_RATIO = 250  # of the sides of an image
# Those of datasets, but HEIF. Of Pillow's other readers some start programs, and bytes may come
# over a network.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM", "ICO")


class Classifier(PythonModel):
    """A timm model from `model.safetensors` and `config.json`, with timm's evaluation transform."""

    def load_context(self, context: PythonModelContext) -> None:
        """ValueError if a file is not the one that was registered."""
        import timm
        from timm.data import create_transform

        digests = context.model_config or {}  # none of versions that were registered before
        for name, path in context.artifacts.items():
            with Path(path).open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
            if (expected := digests.get(f"sha256.{name}", found)) != found:
                raise ValueError(
                    f"{path}: found sha256 {found}, expected {expected}: damaged or changed since "
                    "it was registered; put it back from a backup"
                )
        config = json.loads(Path(context.artifacts["config.json"]).read_text(encoding="utf-8"))
        self.model = timm.create_model(
            config["architecture"],
            num_classes=config["num_classes"],
            **config["model_args"],
            checkpoint_path=context.artifacts["model.safetensors"],
        ).eval()
        self.classes: list[str] = config["classes"]
        self.turns_upright = config.get("exif") == "apply"  # as in training
        self.transform: Any = create_transform(**config["pretrained_cfg"], is_training=False)

    def predict(self, model_input: pd.DataFrame) -> pd.DataFrame:  # type: ignore[override] # MLflow takes it without a context
        """One row per image of the column `image` (bytes of a file): wnid, index in the class list
        and probability of the most probable class, then the five most probable. ValueError names an
        invalid image.
        """
        encoded = list(enumerate(model_input["image"]))
        batches = (
            encoded[start : start + BATCH_SIZE] for start in range(0, len(encoded), BATCH_SIZE)
        )
        rows = [row for batch in batches for row in self._predict_batch(batch)]
        return pd.DataFrame(
            rows, columns=["wnid", "index", "probability", "top5_wnid", "top5_probability"]
        )

    def _predict_batch(
        self, encoded: Sequence[tuple[int, bytes]]
    ) -> Iterator[tuple[str, int, float, list[str], list[float]]]:
        import torch

        with torch.inference_mode():
            images = torch.stack(
                [self._decode_image(number, content) for number, content in encoded]
            )  # [B, 3, H, W]
            best = self.model(images).softmax(-1).topk(min(TOP_K, len(self.classes)))  # [B, TOP_K]
        for probabilities, indices in zip(best.values.tolist(), best.indices.tolist(), strict=True):
            yield (
                self.classes[indices[0]],
                indices[0],
                probabilities[0],
                [self.classes[i] for i in indices],
                probabilities,
            )

    def _decode_image(self, number: int, encoded: bytes) -> Any:
        from PIL import Image, ImageOps

        try:
            with Image.open(io.BytesIO(encoded), formats=FORMATS) as image:
                source = _inspect(image)  # before it is read, which forgets it
                upright = ImageOps.exif_transpose(image) if self.turns_upright else image
                return self.transform(_convert_to_rgb(upright, source))
        except (
            OSError,
            SyntaxError,
            ValueError,
            EOFError,
            Image.DecompressionBombError,
        ) as error:  # Pillow's, of damaged bytes
            raise ValueError(
                f"image {number}: {error}; expected the bytes of an image file, such as a JPEG or "
                f"PNG"
            ) from None


class _Source(NamedTuple):
    """What the header of an image says of its levels."""

    is_white_zero: bool
    highest_dark: int  # of 16-bit colour: up to it, it may have fewer bits; else -1


def _inspect(image: Any) -> _Source:
    """ValueError for what takes more memory than photographs do: too many pixels, or a strip, of
    which the resized copy would.
    """
    from PIL import Image

    if image.width * image.height > (Image.MAX_IMAGE_PIXELS or 0):
        raise ValueError(f"more than {Image.MAX_IMAGE_PIXELS} pixels")
    if max(image.size) > MAX_RATIO * min(image.size):
        raise ValueError(f"one side is more than {MAX_RATIO} times as long as the other")
    highest_dark = -1
    for tile in getattr(image, "tile", ()):
        arguments = tile.args if isinstance(tile.args, tuple) else (tile.args,)
        if re.match(r"[A-Za-z]{2,};16[BLN]", str(arguments[0])):
            highest_dark = 63
        elif arguments[1:] == (65535,):  # PPM, which Pillow rounds
            highest_dark = 64
    return _Source(getattr(image, "tag_v2", {}).get(262) == 0, highest_dark)


def _convert_to_rgb(image: Any, source: _Source) -> Any:
    """As in training (densecl/datasets/storage/decode.py): 16-bit greyscale, which Pillow clips to
    white, is scaled from the fewest bits that hold its highest level. ValueError for levels without
    a known range, and for 16-bit colour that is nearly black.
    """
    import numpy as np
    from PIL import Image

    if not image.mode.startswith(("I", "F")):
        rgb = image.convert("RGB")
        if 0 < int(np.asarray(rgb).max()) <= source.highest_dark:
            raise ValueError("16-bit colour with levels below 16384 only; save it with 8 bits")
        return rgb
    levels = np.asarray(image)
    if image.mode == "F" or levels.min() < 0 or levels.max() > 65535:
        raise ValueError("grey levels that are negative, fractions or above 16 bits")
    top = next(2**bits - 1 for bits in (8, 10, 12, 14, 16) if levels.max() < 2**bits)
    levels = levels.astype(np.int64)
    levels = top - levels if source.is_white_zero else levels
    scaled = (levels * 255 + top // 2) // top
    return Image.fromarray(scaled.astype(np.uint8)).convert("RGB")


set_model(Classifier())
