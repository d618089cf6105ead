"""Views and evaluation of photographs, against torchvision, decoding alone and timm."""

import io
import os
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from timm.data import create_dataset, create_loader
from torch import Tensor
from torchvision import transforms

from benchmarks.measure import BenchmarkRow, Call, make_rate_row, measure_alternating
from densecl.config.params import DataParams, NetworkParams
from densecl.datasets.synthetic.photographs import PHOTO, render_photograph
from densecl.datasets.views.batch import stack_images
from densecl.datasets.views.crops import draw_crops
from densecl.datasets.views.read_pixels import ImageFile, read_pixels
from densecl.datasets.views.transforms import resize_crop
from densecl.datasets.views.two_views import TwoViewDataset
from densecl.evaluation.predict import predict_images
from densecl.network.preprocessing import resolve_preprocessing
from densecl.network.vit import Backbone, build_model
from densecl.runtime.hardware import count_workers, get_device, reuse_freed_memory

MODEL, BATCH, IMAGES = "vit_tiny_patch16_224", 64, 256  # of the evaluation
PHOTOGRAPHS = "photographs" if "DENSECL_SUITE" in os.environ else "drawn photographs"


def list_photographs(folder: Path) -> list[Path]:
    """`full/` of the suite that DENSECL_SUITE names; without it 32 drawn ones of 512 px."""
    if suite := os.environ.get("DENSECL_SUITE"):
        return sorted(Path(suite, "full").glob("*.JPEG"))
    paths = [folder / f"{number}.jpg" for number in range(32)]
    for number, path in enumerate(paths):
        rng = np.random.default_rng(number)
        render_photograph(number % 12, PHOTO, 512, rng)[0].save(path, quality=92)
    return paths


def build_view_maker(paths: list[Path], size: int = 224, **data: object) -> Call:
    """Make two views of each photograph, as a process of the loader does."""
    names = [path.name for path in paths]
    frame = pd.DataFrame({"path": names, "label": 0, "image_id": names})
    settings = DataParams.model_validate(data)
    views = TwoViewDataset(frame, paths[0].parent, settings, (size, size), 0)
    return lambda: stack_images(views[0, row] for row in range(len(views)))


def make_plain_crops(paths: list[Path]) -> None:
    """Decode, crop and resize: what is left without flips, colour and tensors."""
    for number, path in enumerate(paths):
        pixels, rng = read_pixels(path), np.random.default_rng(number)
        for crop in draw_crops(pixels.shape[1], pixels.shape[0], DataParams(), rng):
            resize_crop(pixels, crop, (224, 224))


def make_torchvision_views(paths: list[Path]) -> None:
    """The same views by torchvision's transforms on Pillow images, decoded once too."""
    common = [transforms.RandomHorizontalFlip(), transforms.ColorJitter(0.4, 0.4, 0.4, 0.1)]
    blur = transforms.RandomApply([transforms.GaussianBlur(23, (0.1, 2.0))], 0.2)
    to_tensor = transforms.PILToTensor()
    crop1, crop2 = transforms.RandomResizedCrop(224), transforms.RandomResizedCrop(224, (0.2, 1.0))
    views = [
        transforms.Compose([crop1, *common, to_tensor]),
        transforms.Compose([crop2, *common, blur, to_tensor]),
    ]
    for path in paths:
        image = Image.open(io.BytesIO(path.read_bytes())).convert("RGB")
        for make_view in views:
            make_view(image)


def measure_loader(folder: Path) -> list[BenchmarkRow]:
    """Two views of full-size JPEGs in several ways, in CPU time: images/s of one core."""
    reuse_freed_memory()  # as in a training run, whose loader processes inherit it
    paths, threads = list_photographs(folder), torch.get_num_threads()
    torch.set_num_threads(1)
    calls = {
        "exact": build_view_maker(paths),
        "torchvision": lambda: make_torchvision_views(paths),
        "decode": lambda: [read_pixels(path) for path in paths],
        "half": lambda: [ImageFile(path).decode(2) for path in paths],
        "quarter": lambda: [ImageFile(path).decode(4) for path in paths],
        "reduced": build_view_maker(paths, reduced_decoding=True),
        "device": build_view_maker(paths, augment_on="device"),
        "crops": lambda: make_plain_crops(paths),
        "exact 96": build_view_maker(paths, 96),
        "reduced 96": build_view_maker(paths, 96, reduced_decoding=True),
    }
    times = measure_alternating(calls, 7, time.process_time)
    torch.set_num_threads(threads)
    of = f"of {len(paths)} {PHOTOGRAPHS}, one core"
    views, small_views = f"two 224 px views {of}", f"two 96 px views {of}"
    alone, reduced = "decoding alone", "reduced_decoding"
    rows = (
        ("P9", f"{views} / torchvision on Pillow", "exact", "torchvision", "≥ 3.0"),
        ("P10", f"{views} / {alone}", "exact", "decode", "≥ 0.45"),
        ("P10", f"{views}, {reduced} / {alone}", "reduced", "decode", "≥ 0.55"),
        ("P10", f"{views}, augment_on: device, CPU side / {alone}", "device", "decode", "≥ 0.55"),
        (
            "P10",
            f"decode, crop and resize only, 224 px, {of} / {alone}",
            "crops",
            "decode",
            "floor",
        ),
        ("P10", f"decoding alone at 1/2 {of} / whole", "half", "decode", "-"),
        ("P10", f"decoding alone at 1/4 {of} / whole", "quarter", "decode", "-"),
        ("P10", f"{small_views} / {alone}", "exact 96", "decode", "-"),
        ("P10", f"{small_views}, {reduced} / {alone}", "reduced 96", "decode", "-"),
    )
    return [
        make_rate_row(row_id, measure, times, ours, peer, target, len(paths), "images")
        for row_id, measure, ours, peer, target in rows
    ]


def build_image_folder(root: Path) -> Path:
    """A class folder of IMAGES links to the photographs, repeated."""
    class_folder = root / "set" / "n00000000"
    class_folder.mkdir(parents=True)
    paths = list_photographs(root)
    for number in range(IMAGES):
        (class_folder / f"{number}.JPEG").symlink_to(paths[number % len(paths)].resolve())
    return root / "set"


def evaluate_ours(model: Backbone, root: Path, frame: pd.DataFrame) -> float:
    """Top-1 accuracy, as the stage evaluate computes it."""
    rows = predict_images(
        model, frame, root, resolve_preprocessing(model), list(range(model.num_classes)), BATCH
    )
    return float(rows["correct"].mean())


def evaluate_timm(model: Backbone, root: Path) -> float:
    """Top-1 accuracy, as timm's validate.py computes it."""
    return float(score_with_timm(model.to(get_device()).eval(), root, BATCH).float().mean())


def score_with_timm(model: Backbone, root: Path, batch_size: int) -> Tensor:
    """Whether each image of a folder is classified correctly, by timm's loader and loop; [B]."""
    data_config, device = resolve_preprocessing(model), get_device()
    loader = create_loader(
        create_dataset("", root=str(root)),
        data_config.input_size,
        batch_size,
        interpolation=data_config.interpolation,
        mean=data_config.mean,
        std=data_config.std,
        num_workers=count_workers(),
        crop_pct=data_config.crop_pct,
        crop_mode=data_config.crop_mode,
        device=device,
        use_prefetcher=device.type == "cuda",
        pin_memory=device.type == "cuda",
    )
    with torch.inference_mode():
        return torch.cat([model(x.to(device)).argmax(1).cpu() == labels for x, labels in loader])


def measure_evaluation(folder: Path) -> list[BenchmarkRow]:
    """Evaluation with the same model, images and number of workers as timm's loader and loop."""
    torch.set_num_threads(os.cpu_count() or 1)
    model, root = build_model(NetworkParams(model_name=MODEL), 1000, 0), build_image_folder(folder)
    names = [f"n00000000/{path.name}" for path in sorted(root.glob("*/*"))]
    frame = pd.DataFrame({"image_id": names, "path": names, "label": np.int64(0)})
    calls = {
        "ours": lambda: evaluate_ours(model, root, frame),
        "timm": lambda: evaluate_timm(model, root),
    }
    assert calls["ours"]() == calls["timm"]()
    times = measure_alternating(calls, 5)
    measure = (
        f"evaluation of {IMAGES} {PHOTOGRAPHS}, {MODEL}, "
        f"{count_workers()} workers / timm's loader and loop"
    )
    return [make_rate_row("P11", measure, times, "ours", "timm", "≥ 1.0", IMAGES, "images")]
