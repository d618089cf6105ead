"""An image classifier for MLflow: takes encoded images, returns the most probable classes.

MLflow copies this file into the registry and runs it from there (models from code: nothing is
pickled), so it imports nothing of this project; and it runs it when a version is registered too, so
what is heavy is imported where it is used.
"""

import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel, PythonModelContext

BATCH_SIZE = 64  # images decoded and scored at once, however many are given: memory stays bounded
TOP_K = 5


class Classifier(PythonModel):
    """A timm model from `model.safetensors` and `config.json`, with timm's evaluation transform."""

    def load_context(self, context: PythonModelContext) -> None:
        import timm
        from timm.data import create_transform

        config = json.loads(Path(context.artifacts["config.json"]).read_text(encoding="utf-8"))
        self.model = timm.create_model(
            config["architecture"],
            num_classes=config["num_classes"],
            **config["model_args"],
            checkpoint_path=context.artifacts["model.safetensors"],
        ).eval()
        self.classes: list[str] = config["classes"]
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
        from PIL import Image

        try:
            with Image.open(io.BytesIO(encoded)) as image:
                return self.transform(image.convert("RGB"))
        except (
            OSError,
            SyntaxError,
            ValueError,
            Image.DecompressionBombError,
        ) as error:  # Pillow's, of damaged bytes
            raise ValueError(
                f"image {number}: {error}; expected the bytes of an image file, such as a JPEG or "
                f"PNG"
            ) from None


set_model(Classifier())
