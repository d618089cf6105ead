"""A model and images in memory, as probes get them."""

from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import torch
from torch import nn

from densecl.artifacts import EvaluatePlan, Preprocessing
from densecl.config.params import NetworkParams
from densecl.evaluation.predict import score_logits
from densecl.evaluation.probing import context as context_module
from densecl.evaluation.probing.context import ProbeContext
from densecl.network.vit import build_model

ARGS = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}


class MemoryContext(ProbeContext):
    """`images`: uint8 [n, 3, H, W]; `scored` of `classes` classes."""

    def __init__(
        self,
        model,
        images,
        labels,
        *,
        classes=4,
        scored=None,
        batch_size=8,
        mean=None,
        transfer=None,
    ):
        super().__init__(
            SimpleNamespace(
                model=model,
                classes=[f"n{number:08d}" for number in range(classes)],
                predictor=SimpleNamespace(images_run=0),
            ),
            EvaluatePlan(batch_size=batch_size, datasets=(), transfer=transfer or {}),
        )
        size = (3, *images.shape[-2:])
        preprocessing = Preprocessing(
            rule="model",
            input_size=size,
            mean=mean or (0.5, 0.4, 0.3),
            std=(0.25, 0.2, 0.3),
            interpolation="bicubic",
            crop_pct=1.0,
            crop_mode="center",
        )
        self.__dict__["validation"] = SimpleNamespace(preprocessing=preprocessing, root=None)
        self.__dict__["scored_indices"] = scored or list(range(classes))
        self.__dict__["frame"] = pd.DataFrame(
            {
                "image_id": [f"val/{number}.png" for number in range(len(images))],
                "label": labels,
                "sha256": [f"{number:064x}" for number in range(len(images))],
            }
        )
        self._kept = list(images.split(batch_size))
        logits = torch.cat([self.compute_logits(batch) for batch in self._kept])
        self.__dict__["plain_rows"] = score_logits(
            logits, torch.tensor(labels), self.scored_indices
        )


class Constant(nn.Module):
    """Class 1, whatever the image."""

    def __init__(self):
        super().__init__()
        self.patch_embed = SimpleNamespace(grid_size=(4, 4))
        self.cls_token = torch.zeros(1)
        self.blocks = nn.ModuleList([nn.Identity()])

    def forward(self, images):
        return torch.eye(4)[1].expand(len(images), 4)


def create_images(count: int, seed: int = 0, side: int = 32) -> torch.Tensor:
    """Smooth random images uint8."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 6, 6, generator=generator) * 255
    return nn.functional.interpolate(coarse, size=(side, side), mode="bilinear").byte()


def create_model(classes: int = 4):
    """A random model whose answers differ from image to image."""
    model = build_model(
        NetworkParams(model_name="vit_tiny_patch16_224", model_args=ARGS), classes, 0
    )
    with torch.no_grad():
        model.head.weight.mul_(50)
    return model.eval()


def create_context(count: int = 20, **options) -> MemoryContext:
    labels = [number % 4 for number in range(count)]
    return MemoryContext(create_model(), create_images(count), labels, **options)


def forget_images(context: MemoryContext, monkeypatch) -> list[int]:
    """Make the images of a context files that are too large to be kept; the list that is returned
    grows by the number of files of each read.
    """
    images = torch.cat(context._kept)
    context._kept, context.validation.root, reads = None, Path(), []
    context.frame["path"] = [str(number) for number in range(len(images))]

    def iter_pixels(files, preprocessing, batch_size):
        reads.append(len(files))
        yield from images[[int(file.name) for file in files]].split(batch_size)

    monkeypatch.setattr(context_module, "MAX_KEPT_BYTES", 0)
    monkeypatch.setattr(context_module, "iter_pixels", iter_pixels)
    return reads
