"""Entries of `transfer` on disk, and a context with a tiny model, for the probes that read them."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import timm
import torch
from PIL import Image
from torch import Tensor

from densecl import paths
from densecl.artifacts import Preprocessing
from densecl.config.probe_params import TransferParams
from densecl.datasets.manifests.transfer_listing import list_transfer
from densecl.datasets.manifests.transfer_scan import scan_transfer
from densecl.datasets.storage.transfer import write_transfer

SIDE, PATCH = 32, 8
PREPROCESSING = Preprocessing(
    rule="model",
    input_size=(3, SIDE, SIDE),
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
    interpolation="bicubic",
    crop_pct=1.0,
    crop_mode="center",
)


def write_pair(root: Path, name: str, image: np.ndarray, mask: np.ndarray) -> None:
    """`images/<name>.png` and `masks/<name>.png`."""
    for folder, values in (("images", image), ("masks", mask)):
        path = root / folder / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(values.astype(np.uint8)).save(path)


def colour_classes(mask: np.ndarray, name: str = "") -> np.ndarray:
    """An image [H, W, 3] whose red is 40 times the class, with noise of its own for each mask and
    name in the other colours.
    """
    rng = np.random.default_rng([int(mask.sum()), *name.encode()])
    noise = rng.integers(0, 255, (*mask.shape, 2))
    return np.dstack([40 * mask, noise])


def list_entry(name: str, root: Path, **values: Any) -> TransferParams:
    """Write data/transfer/<name>.parquet of the working folder."""
    given = {"root": str(root), "tracked_by": str(root)} | values
    params = TransferParams.model_validate(given)
    listing = list_transfer(params)
    frame = scan_transfer(name, params, listing, workers=1)
    paths.TRANSFER.mkdir(parents=True, exist_ok=True)
    write_transfer(frame, listing.skipped, listing.notes, paths.transfer_file(name))
    return params


def list_pairs(name: str, root: Path, mask_values: str = "classes") -> TransferParams:
    """The entry of what `write_pair` wrote."""
    return list_entry(name, root / "images", masks=str(root / "masks"), mask_values=mask_values)


def build_context(batch_size: int = 4, **transfer: TransferParams) -> Any:
    """What probes of `transfer` use of a context; a random ViT of 2 blocks, 16 patches of 8 px."""
    torch.manual_seed(0)
    model = timm.create_model(
        "vit_tiny_patch16_224",
        img_size=SIDE,
        patch_size=PATCH,
        embed_dim=24,
        depth=2,
        num_heads=2,
        num_classes=3,
    ).eval()

    def normalise(images: Tensor) -> Tensor:
        return (images.float() / 255 - 0.5) / 0.5

    return SimpleNamespace(
        model=model,
        preprocessing=PREPROCESSING,
        plan=SimpleNamespace(batch_size=batch_size, transfer=transfer),
        normalise=normalise,
        evaluator=SimpleNamespace(predictor=SimpleNamespace(images_run=0)),
    )
