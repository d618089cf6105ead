"""Accuracy of patch matches by option: `python -m benchmarks.correspondence FOLDER [--epochs N]`.

Trains the small ViT of the default params for a few epochs on FOLDER (one folder per class), in
mode none and in mode dense with one option changed at a time, one seed. Prints for the last epoch:
share of the patches seen in both views that are matched to the true patch by features of the head
(mode none: of the last block), against the same index (identity); the same over view pairs flipped
differently or shifted; effective rank of an image's patches; training accuracy.
"""

import argparse
import os
import tempfile
from contextlib import chdir
from pathlib import Path
from typing import Any

import pandas as pd

from densecl.artifacts import TrainPlan
from densecl.config.params import TRAIN_SET, Mode, load_params
from densecl.datasets.manifests.listing import list_classes
from densecl.datasets.manifests.scan import scan_dataset
from densecl.datasets.storage.manifest import select_usable
from densecl.datasets.storage.usable_images import ImageSet
from densecl.runtime.hardware import count_workers
from densecl.training.train import train

# Unless the variant changes them.
BASE_OPTIONS = {"correspondence_filter": "none", "correspondence_features": "dense"}
VARIANTS: dict[str, dict[str, Any] | None] = {
    "none": None,
    "momentum keys": {"key_encoder": "momentum"},
    "shared keys": {"key_encoder": "shared"},
    "shared keys, mutual": {"key_encoder": "shared", "correspondence_filter": "mutual"},
    "momentum keys, mutual": {"key_encoder": "momentum", "correspondence_filter": "mutual"},
    "momentum keys, backbone": {"key_encoder": "momentum", "correspondence_features": "backbone"},
    "shared keys, geometric": {"key_encoder": "shared", "correspondence_features": "geometric"},
    "momentum keys, lambda 0.5": {"key_encoder": "momentum", "lambda_weight": 0.5},
    "momentum keys, geometric": {"key_encoder": "momentum", "correspondence_features": "geometric"},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--params", type=Path, default=Path("params.yaml"))
    parser.add_argument(
        "--scale",
        type=float,
        nargs=2,
        help="least area of the crops of view 1 and view 2 (default: the params')",
    )
    parser.add_argument("--only", nargs="*", default=list(VARIANTS), help="names of variants")
    args = parser.parse_args()
    params, folder = load_params(args.params), args.folder.resolve()
    data = params.data.model_copy(
        update={
            f"view{n}": getattr(params.data, f"view{n}").model_copy(update={"scale": (low, 1.0)})
            for n, low in enumerate(args.scale or (), 1)
        }
    )
    settings = params.train.model_copy(update={"epochs": args.epochs})
    print("variant                     dense   identity  moved   identity  rank  top-1", flush=True)
    with tempfile.TemporaryDirectory() as workplace, chdir(workplace):
        os.environ["MLFLOW_TRACKING_URI"] = "sqlite:///runs.db"
        classes = list_classes(folder)
        frame = scan_dataset(TRAIN_SET, folder, "wnid", classes, max(1, count_workers()))
        images = ImageSet(select_usable(frame), folder)
        for name in args.only:
            change = VARIANTS[name] or {}
            mode: Mode = "dense" if change else "none"
            options = params.contrast.model_copy(update=BASE_OPTIONS | change)
            plan = TrainPlan(
                mode=mode,
                network=params.network,
                data=data,
                train=settings,
                contrast=options.resolve_mode(mode),
            )
            outputs = Path(name, "model"), Path(name, "training")
            train(plan, 0, images, classes, lambda _: {}, *outputs)
            row = pd.read_csv(Path(name, "training", "history.csv")).iloc[-1]
            features = "dense" if change else "last"
            cells = "   ".join(
                f"{row[f'match/{source}/{criterion}']:.3f}"
                for criterion in ("within0", "moved0")
                for source in (features, "identity")
            )
            print(
                f"{name:26}  {cells}   {row['rank_patches_within']:5.1f}  {row['train_top1']:.3f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
