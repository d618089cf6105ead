"""What a sweep's trials share: written when it begins, checked when it resumes."""

import pandas as pd

from densecl import paths
from densecl.artifacts import DatasetPlan, TrainPlan, ValidationResult, read_json, write_json
from densecl.config.flatten import flatten
from densecl.config.mode_params import ModeSettings
from densecl.config.params import MODES, TRAIN_SET, Mode, Params
from densecl.config.sweep_params import Choice, apply_values, check_sweep
from densecl.datasets.storage.manifest import (
    check_unchanged,
    read_classes,
    read_manifest,
    select_usable,
    write_manifest,
)
from densecl.datasets.storage.remote_root import locate_root
from densecl.datasets.storage.remote_store import is_remote
from densecl.errors import DenseclError
from densecl.tuning.fetch import fetch_training_images
from densecl.tuning.records import SweepPlan, TrialPlan
from densecl.tuning.split import split_training_images
from steps.plan import check_network, is_available
from steps.unit_plans import resolve_dataset_plan


def begin_sweep(params: Params, name: str) -> SweepPlan:
    """Write the plan and the list of images of a sweep, or read those of one that is resumed.

    Only the training images are read. DenseclError if the params are not those that the
    sweep began with, or if they cannot be tuned.
    """
    settings = ModeSettings(contrast=params.contrast, train=params.train)
    try:
        check_sweep(params.sweep, settings)
    except ValueError as error:
        raise DenseclError(f"{paths.PARAMS}: {error}") from None
    dataset = resolve_dataset_plan(params, TRAIN_SET)
    manifest = paths.sweep_manifest(name)
    begins = not paths.sweep_plan(name).exists()
    if begins:
        check_network(params)
        write_manifest(_list_training_images(params, dataset), manifest)
    plan = SweepPlan(
        name=name,
        sweep=params.sweep,
        modes=tuple(mode for mode in MODES if mode in params.modes),
        settings=settings,
        network=params.network,
        data=params.data,
        root=dataset.dataset.root,
        index=dataset.dataset.tracked_by if is_remote(dataset.dataset.root) else None,
        protocol=dataset.protocol,
        preprocess=dataset.preprocess,
        classes=tuple(read_classes(manifest)),
    )
    if begins:
        split = split_training_images(
            read_manifest(manifest), params.sweep.seed, params.sweep.held_back
        )
        print(
            f"sweep {name}: trials train on {len(split.fit):,} images of {TRAIN_SET}; "
            f"{len(split.select):,} choose, {len(split.confirm):,} confirm"
        )
        write_json(paths.sweep_plan(name), plan)
    _check_same(read_json(SweepPlan, paths.sweep_plan(name)), plan)
    fetch_training_images(plan)
    return plan


def _list_training_images(params: Params, dataset: DatasetPlan) -> pd.DataFrame:
    """Rows of the pipeline's manifest without those that validation excluded; scanned now where
    there is none.
    """
    from steps.prepare import describe_scan, scan_images

    manifest, verdict = paths.manifest_file(TRAIN_SET), paths.validation_file(TRAIN_SET)
    if manifest.exists():
        excluded = read_json(ValidationResult, verdict).excluded if verdict.exists() else ()
        frame = select_usable(read_manifest(manifest), excluded)
        check_unchanged(frame, locate_root(dataset.dataset))
        return frame
    is_available(params, TRAIN_SET)
    frame, listing = scan_images(dataset)
    print(describe_scan(frame, listing, dataset.dataset.root))
    return select_usable(frame)


def _check_same(begun: SweepPlan, plan: SweepPlan) -> None:
    before, now = (flatten(record.model_dump(mode="json")) for record in (begun, plan))
    changed = sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
    if changed:
        key = changed[0]
        raise DenseclError(
            f"sweep {plan.name}: {key} is {now.get(key)}, but its trials began with "
            f"{before.get(key)}; go back to that, choose another --name, or remove "
            f"{paths.sweep_folder(plan.name)}"
        )


def build_trial(plan: SweepPlan, mode: Mode, index: int, values: dict[str, Choice]) -> TrialPlan:
    """The training of a trial. Where it is shorter than those of the params, its warm-up and the
    ramp of lambda are shortened in proportion.

    DenseclError if the values contradict one another.
    """
    try:
        settings = apply_values(plan.settings, mode, values)
    except ValueError as error:
        raise DenseclError(
            f"trial {index} of {mode}: {error}; change sweep.space so that any of its values go "
            "together"
        ) from None
    train, contrast = settings.resolve_train(mode), settings.resolve_contrast(mode)
    share = plan.epochs / train.epochs
    train = train.model_copy(
        update={"epochs": plan.epochs, "warmup_epochs": train.warmup_epochs * share}
    )
    if contrast is not None:
        contrast = contrast.model_copy(update={"ramp_epochs": contrast.ramp_epochs * share})
    name = f"{mode}-trial-{index}"  # of its run in MLflow, which is none of the comparison's
    train_plan = TrainPlan(
        mode=name,
        variant_of=mode,
        network=plan.network,
        data=plan.data,
        train=train,
        contrast=contrast,
    )
    return TrialPlan(mode=mode, index=index, values=values, train=train_plan)
