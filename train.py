"""Train one model outside the pipeline: `python train.py --cl-mode dense --experiment-name my_run`.

The flags and defaults are the method's own (its usage table); data sets come from --params. What is
written lies in runs/<experiment-name>/: model/ (safetensors, config.json), training/ (history.csv,
cost.json).
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

from densecl import paths
from densecl.artifacts import TrainPlan
from densecl.config.params import (
    MODES,
    TRAIN_SET,
    GlobalContrast,
    Params,
    load_params,
    parse_params,
)
from densecl.errors import DenseclError
from densecl.runtime import cli

# flag -> the key of params.yaml it sets
TRAIN_FLAGS = (
    "batch_size",
    "epochs",
    "learning_rate",
    "warmup_epochs",
    "grad_clip",
    "checkpoint_minutes",
    "steps_per_epoch",
)
CONTRAST_FLAGS = (
    "lambda_weight",
    "contrastive_weight_adaptive",
    "queue_size",
    "temperature",
    "learnable_temp",
    "sampling_strategy",
    "dense_dim",
    "correspondence_features",
    "correspondence_filter",
    "patches_per_image",
    "memory_unit",
    "negatives",
    "key_encoder",
    "symmetric",
)


def parser() -> argparse.ArgumentParser:
    """The method's command line, flag for flag."""
    flags = argparse.ArgumentParser(
        prog="train.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = flags.add_argument
    add("--cl-mode", default="dense", choices=MODES, help="training mode (default: dense)")
    add(
        "--model-name",
        default="vit_tiny_patch16_224",
        help="any timm VisionTransformer or Eva (default: %(default)s)",
    )
    add(
        "--model-args",
        type=json.loads,
        default={},
        help="JSON for timm.create_model, e.g. '{\"img_size\": 64}'",
    )
    add("--pretrained", action="store_true", help="start from timm's weights for the model")
    add("--checkpoint", help="start from a local .safetensors state dict")
    add("--batch-size", type=int, default=256, help="training batch size (default: 256)")
    add("--epochs", type=int, default=100, help="passes over the training set (default: 100)")
    add(
        "--lambda-weight",
        type=float,
        default=0.5,
        help="weight of the contrastive loss, in [0, 1] (default: 0.5)",
    )
    add(
        "--contrastive-weight-adaptive",
        action="store_true",
        help="raise the weight from 0 to --lambda-weight",
    )
    add(
        "--queue-size",
        type=int,
        default=65536,
        help="entries of the memory of negatives (default: 65536)",
    )
    add("--temperature", type=float, default=0.2, help="of InfoNCE (default: 0.2)")
    add(
        "--learnable-temp", action="store_true", help="learn the temperature, from --temperature on"
    )
    add(
        "--sampling-strategy",
        default="random",
        help="which patches: random, diverse or hardest (default: random)",
    )
    add("--dense-dim", type=int, default=128, help="projection dimension (default: 128)")
    add(
        "--correspondence-features",
        default="dense",
        help="matched on: dense, backbone or geometric (default: dense)",
    )
    add(
        "--correspondence-filter",
        default="none",
        help="matches that count: none (all), mutual, threshold (default: none)",
    )
    add(
        "--patches-per-image",
        type=int,
        default=50,
        help="sampled patches of an image (default: 50)",
    )
    add(
        "--memory-unit",
        default="patch",
        help="stored per key: patch, or image (pooled) (default: patch)",
    )
    add(
        "--negatives",
        default="all",
        help="entries that are negatives: all or other_class (default: all)",
    )
    add(
        "--key-encoder",
        default="shared",
        help="keys come from: shared or momentum (default: shared)",
    )
    add("--symmetric", action="store_true", help="score view 2 against view 1 as well")
    add("--learning-rate", type=float, default=1e-5, help="peak learning rate (default: 1e-05)")
    add("--warmup-epochs", type=float, default=5, help="learning rate warm-up (default: 5)")
    add("--grad-clip", type=float, default=5.0, help="largest gradient norm (default: 5.0)")
    add("--experiment-name", help="folder under runs/ (default: <mode>_<model>)")
    add("--seed", type=int, default=0, help="of everything random (default: 0)")
    add(
        "--params",
        type=Path,
        default=paths.PARAMS,
        help="file that names the data sets (default: %(default)s)",
    )
    add(
        "--resume",
        type=Path,
        metavar="PATH",
        help="go on from this checkpoint of the same training (its own are found without it)",
    )
    add(
        "--checkpoint-minutes",
        type=float,
        default=10.0,
        help="between checkpoints, beside the one an epoch (default: 10)",
    )
    add(
        "--steps-per-epoch",
        type=int,
        help="cut epochs short, to try things (default: whole epochs)",
    )
    return flags


def params_of(given: dict[str, Any]) -> Params:
    """The params file's data sets; every other value from the flags or, like the views, the
    method's default.
    """
    base = load_params(given["params"]).model_dump(mode="json", by_alias=True, exclude_unset=True)
    network = {key: given[key] for key in ("model_name", "model_args", "pretrained", "checkpoint")}
    values = base | {
        "modes": [given["cl_mode"]],
        "seeds": [given["seed"]],
        "network": network,
        "data": {},
        # The ramp has no flag: it is the default, or the whole of a shorter training.
        "contrast": {key: given[key] for key in CONTRAST_FLAGS}
        | {"ramp_epochs": min(GlobalContrast().ramp_epochs, max(1, given["epochs"]))},
        "train": {key: given[key] for key in TRAIN_FLAGS},
    }
    return parse_params(values, "train.py")


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 trained, 2 a mistake, 75 stopped and to be gone on with (docs/failures.md)."""
    given = vars(parser().parse_args(arguments))
    return cli.status(lambda: run(given))


def run(given: dict[str, Any]) -> None:
    """Check everything, list the images, train."""
    name = given["experiment_name"] or f"{given['cl_mode']}_{given['model_name']}"
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise DenseclError(
            f"--experiment-name: found {name!r}, expected letters, digits, '.', '_' and '-'"
        )
    params = params_of(given)
    mode = params.modes[0]
    watched = (
        params.evaluate.datasets if params.train.validate_on is None else params.train.validate_on
    )
    watched = check(params, (TRAIN_SET, *watched))[1:]

    from densecl import distributed
    from densecl.datasets.manifests.scan import class_list
    from densecl.evaluation.validator import build_validator
    from densecl.training.train import train

    distributed.start()
    sets = {each: images(params, each) for each in (TRAIN_SET, *watched)}
    plan = TrainPlan(
        mode=mode,
        network=params.network,
        data=params.data,
        train=params.train,
        contrast=params.contrast.of(mode),
    )
    folder, classes = paths.RUNS / name, class_list(sets[TRAIN_SET].root)
    train(
        plan,
        given["seed"],
        sets[TRAIN_SET],
        classes,
        build_validator({each: sets[each] for each in watched}, classes, plan.train.batch_size),
        folder / "model",
        folder / "training",
        given["resume"],
    )
    print(folder)


def check(params: Params, names: tuple[str, ...]) -> tuple[str, ...]:
    """The sets that are there; raises where one that must be, or the model, cannot be used, before
    anything heavy starts.
    """
    from densecl.datasets.manifests.scan import check_root
    from densecl.evaluation.protocols import with_layout

    there = []
    for each in names:
        dataset = params.datasets[each]
        try:
            check_root(Path(dataset.root), with_layout(params, each).layout, dataset.devkit)
        except DenseclError as error:
            if each in params.optional:
                print(f"warning: {each}: left out: {error}", file=sys.stderr)
                continue
            drawn = f"; `dvc repro render@{each}` draws it" if each in params.render else ""
            raise DenseclError(f"datasets.{each}.root: {error}{drawn}") from None
        there.append(each)

    from densecl.network.vit import check

    check(params.network)
    return tuple(there)


def images(params: Params, name: str) -> Any:
    """Usable images of a set: the pipeline's manifest where there is one, else listed now under
    runs/.
    """
    from densecl import distributed
    from densecl.datasets.manifests.scan import class_list, scan
    from densecl.datasets.storage.manifest import (
        read_manifest,
        require_unchanged,
        usable,
        write_manifest,
    )
    from densecl.datasets.storage.usable_images import ImageSet
    from densecl.evaluation.protocols import protocol_of, with_layout
    from densecl.runtime.hardware import workers

    dataset = params.datasets[name]
    path = paths.manifest(name)
    if not path.exists():
        path = paths.RUNS / "manifests" / f"{name}.parquet"
        if distributed.first():
            classes, of = (
                class_list(Path(params.datasets[TRAIN_SET].root)),
                with_layout(params, name),
            )
            write_manifest(
                scan(name, Path(of.root), of.layout, classes, max(1, workers()), devkit=of.devkit),
                path,
            )
        distributed.anywhere(False)  # the others wait until it is written
    frame, root, evaluate = usable(read_manifest(path)), Path(dataset.root), params.evaluate
    require_unchanged(frame, root)
    return ImageSet(
        frame,
        root,
        evaluate.preprocess.get(name),
        protocol_of(params, name),
        evaluate.classes.get(name, ()),
    )


if __name__ == "__main__":
    cli.begin(stage="WORLD_SIZE" in os.environ)  # else a shell started it, and may close
    cli.leave(main())
