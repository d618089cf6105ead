"""Check all of `params.yaml`, then write what each unit reads to `data/plan/`, so that a change
reruns only affected stages.
"""

import shutil
import sys
from collections.abc import Iterable, Iterator
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

from densecl import paths
from densecl.artifacts import (
    TransferIndex,
    write_json,
)
from densecl.config.params import (
    TRAIN_SET,
    DatasetParams,
    DenseContrastParams,
    Params,
    load_params,
)
from densecl.config.probe_params import TransferParams
from densecl.errors import DenseclError, RetryLater
from densecl.evaluation.imagenet_c import parse_corruption
from densecl.evaluation.protocols import FOLDER_PROTOCOL, resolve_layout, resolve_protocol
from steps.label_files import link_label_files
from steps.probe_inputs import check_probe_inputs, link_probe_inputs
from steps.unit_plans import resolve_plans

if TYPE_CHECKING:
    from densecl.evaluation.other_sources import OtherModel

BLOCKS_HELD = 2  # of data.order: shards: one that is read, and the next
MIN_RATE_FROM_SCRATCH = 1e-4  # peak learning rate (docs/method.md, Initial weights)


def main() -> None:
    """Write every plan file and remove files of earlier params; nothing is changed if a check
    fails.
    """
    params = load_params(paths.PARAMS)
    try:
        check_roots(params)
        warn_of_corruptions(params)
        warn_of_equal_variants(params)
        check_probe_inputs(params.evaluate.probes)
        check_network(params)
        models = find_other_models(params)
        units = resolve_plans(params)
    except DenseclError as error:
        lines = str(error).splitlines()
        kind = RetryLater if isinstance(error, RetryLater) else DenseclError
        raise kind("\n".join(f"{paths.PARAMS}: {line}" for line in lines)) from None
    for unit, record in units.items():
        write_json(paths.plan_file(unit), record)
    link_other_models(models)
    link_probe_inputs(params.evaluate.probes)
    link_label_files(params.datasets)
    write_json(paths.TRANSFER_INDEX, TransferIndex(names=tuple(sorted(params.transfer))))
    prune_artifacts(params, units)


def check_roots(params: Params) -> None:
    """Raise DenseclError with a line per entry whose folder cannot be used. Built-in datasets are
    drawn later; missing optional datasets are reported.
    """
    check_rendered_roots(params)
    problems: list[str] = []
    for section, entries, find in (
        ("datasets", params.datasets, is_available),
        ("transfer", params.transfer, is_transfer_available),
    ):
        for name, entry in entries.items():
            if name in params.render:
                continue
            try:
                if find(params, name):
                    check_tracked(f"{section}.{name}", entry)
                else:
                    create_placeholder(f"{section}.{name}", Path(entry.tracked_by))
            except RetryLater:  # a store that cannot be reached now: nothing is wrong with params
                raise
            except DenseclError as error:
                problems.append(str(error))
    if not problems:
        problems += find_cache_problem(params)
    if problems:
        raise DenseclError("\n".join(problems))


def find_cache_problem(params: Params) -> Iterator[str]:
    """A line if the shards that a machine needs together do not fit into its cache."""
    from densecl.datasets.storage.cache_room import CacheFullError, check_fits, get_limit
    from densecl.datasets.storage.remote_store import is_remote
    from densecl.datasets.storage.shard_index import read_index

    needed: dict[str, int] = {}
    for name, dataset in params.datasets.items():
        index = read_index(Path(dataset.tracked_by)) if is_remote(dataset.root) else None
        shards = sorted(index.shards if index else (), key=lambda shard: -shard.bytes)
        if name == TRAIN_SET and params.data.order == "shards":
            shards = shards[: BLOCKS_HELD * params.data.block_shards]
        needed |= {shard.sha256: shard.bytes for shard in shards}
    try:
        if needed:
            check_fits(needed, get_limit())
    except CacheFullError as error:
        yield str(error)


def check_tracked(key: str, entry: DatasetParams | TransferParams) -> None:
    """Raise DenseclError if DVC could not find the path that it watches, which it says less
    clearly; images that are drawn later are watched as they will be.
    """
    watched = Path(entry.tracked_by)
    if not watched.exists() and not watched.is_relative_to(paths.RENDERED):
        raise DenseclError(
            f"{key}.tracked_by: {watched}: no such file or folder; expected the path whose content "
            f"DVC watches: set it to the root, {entry.root}, or create it"
        )


def check_rendered_roots(params: Params) -> None:
    """Raise DenseclError if an entry that is drawn is read from another folder than it is drawn
    in.
    """
    for section, entries in (("datasets", params.datasets), ("transfer", params.transfer)):
        for name, settings in params.render.items():
            rendered_root = paths.rendered_folder(settings.folder)
            if name in entries and Path(entries[name].root) != rendered_root:
                raise DenseclError(
                    f"{section}.{name}.root: found {entries[name].root}, expected "
                    f"{rendered_root}, where render.{name} draws its images"
                )


def warn_of_corruptions(params: Params) -> None:
    """Print a warning for each folder of ImageNet-C that is scored like any other folder."""
    for name, dataset in params.datasets.items():
        if parse_corruption(dataset.root) and resolve_protocol(params, name) == FOLDER_PROTOCOL:
            print(
                f"warning: {name}: {dataset.root} looks like a folder of ImageNet-C, but its "
                f"images are resized as those of any folder; evaluate.protocol.{name}: imagenet-c "
                f"scores them as they are"
            )


def warn_of_equal_variants(params: Params) -> None:
    """Print a warning for each variant that runs and has all values of its base."""
    settings = params.mode_settings
    for name in params.modes:
        base = settings.resolve_base(name)
        if name != base and all(
            resolve(name) == resolve(base)
            for resolve in (settings.resolve_contrast, settings.resolve_train)
        ):
            print(
                f"warning: variants.{name}: all of its values are those of {base}, which is then "
                f"trained twice; remove {name} from modes, or change a value"
            )


def is_available(params: Params, name: str) -> bool:
    """False, with a warning, for an optional dataset that cannot be used; DenseclError for a
    required one.
    """
    from densecl.datasets.manifests.layouts.sources import check_source
    from densecl.datasets.storage.remote_store import is_remote
    from densecl.datasets.storage.skipped_files import describe_skipped

    dataset = resolve_layout(params, name)
    try:
        if is_remote(dataset.root):
            print(describe_remote(name, dataset))
            return True
        summary = check_source(dataset)
    except DenseclError as error:
        if name in params.optional_datasets:
            print(f"warning: {name}: skipped: {error}")
            return False
        hint = f"; `dvc repro render@{name}` draws it" if name in params.render else ""
        kind = RetryLater if isinstance(error, RetryLater) else DenseclError
        raise kind(f"datasets.{name}.root: {error}{hint}") from None
    print(
        f"{name}: {summary.images:,} images of {summary.classes:,} classes in {dataset.root}; "
        f"skipped {describe_skipped(summary.skipped)}"
    )
    return True


def describe_remote(name: str, dataset: DatasetParams) -> str:
    """A line on the shards of a remote root, of which the index is written or compared, and one on
    an index that was written.
    """
    from densecl.datasets.manifests.layouts.class_lists import read_class_list
    from densecl.datasets.storage.remote_root import update_index
    from densecl.datasets.storage.shard_index import read_index
    from densecl.runtime.progress import show_bytes

    if dataset.class_list is not None:
        read_class_list(Path(dataset.class_list))
    before = read_index(Path(dataset.tracked_by))
    with show_bytes(f"{name}: reading shards for their index") as progress:
        index = update_index(dataset, progress)
    shards = index.shards
    counts = [shard.images for shard in shards]
    images = f"{sum(count or 0 for count in counts):,} images in " if all(counts) else ""
    size = sum(shard.bytes for shard in shards) / 1e9
    lines = [
        f"{name}: {images}{len(shards):,} shards of {size:,.2f} GB in {dataset.root}; prepare "
        "lists what they hold"
    ]
    if index != before:
        lines.append(
            f"{name}: wrote {dataset.tracked_by}, the index of the shards; commit it, since a "
            f"clone reads them by it: git add {dataset.tracked_by}"
        )
    return "\n".join(lines)


def is_transfer_available(params: Params, name: str) -> bool:
    """As `is_available`, of an entry of `transfer`; True if its images are drawn later."""
    from densecl.datasets.manifests.transfer_listing import check_transfer_root

    images = params.transfer[name]
    drawn = [paths.rendered_folder(render.folder) for render in params.render.values()]
    if any(Path(images.root).is_relative_to(folder) for folder in drawn):
        return True
    try:
        check_transfer_root(images)
    except DenseclError as error:
        if params.evaluate.require == "present":
            print(f"warning: transfer.{name}: skipped: {error}")
            return False
        raise DenseclError(f"transfer.{name}: {error}") from None
    return True


def create_placeholder(key: str, tracked_by: Path) -> None:
    """Create an empty path for DVC to watch: DVC fails on a missing dependency, and notices when
    the dataset appears.
    """
    if tracked_by.exists():
        return
    try:
        if tracked_by.suffix:
            tracked_by.parent.mkdir(parents=True, exist_ok=True)
            tracked_by.touch()
        else:
            tracked_by.mkdir(parents=True)
    except OSError as error:
        raise DenseclError(
            f"{key}.tracked_by: {tracked_by} is missing and cannot be created "
            f"({error.strerror}); DVC must find the path that it watches: name a path that exists"
        ) from None
    print(f"warning: {key}: created an empty {tracked_by} for DVC to watch")


def check_network(params: Params) -> None:
    """Raise DenseclError if timm cannot build the model or load its initial weights; called last,
    since importing timm takes seconds.
    """
    warn_of_low_rate(params)
    checkpoint = params.network.checkpoint
    if checkpoint and not Path(checkpoint).is_file():
        raise DenseclError(
            f"network.checkpoint: {checkpoint} is not a file; expected local safetensors weights"
        )
    from densecl.network.vit import check_model

    (rows, columns), reservation = check_model(params.network)
    if reservation:
        print(f"warning: {reservation}", file=sys.stderr)
    settings = [params.mode_settings.resolve_contrast(name) for name in params.modes]
    sampled = {
        dense.patches_per_image for dense in settings if isinstance(dense, DenseContrastParams)
    }
    for patches in sorted(sampled):
        if patches > rows * columns:
            print(
                f"warning: contrast.patches_per_image: found {patches}, but "
                f"{params.network.model_name} has {rows * columns} patches: all of them are used",
                file=sys.stderr,
            )


def find_other_models(params: Params) -> dict[str, "OtherModel"]:
    """The models of `evaluate.models`; DenseclError if one cannot be evaluated."""
    if not params.evaluate.models:
        return {}
    from densecl.evaluation.other_sources import find_other_model

    return {name: find_other_model(name, spec) for name, spec in params.evaluate.models.items()}


def link_other_models(models: dict[str, "OtherModel"]) -> None:
    """Make data/models what the stages `evaluate-model` depend on, one folder per model."""
    paths.OTHER_MODELS.mkdir(parents=True, exist_ok=True)
    for folder in paths.OTHER_MODELS.iterdir():
        if folder.name not in models:
            shutil.rmtree(folder)
    for name, model in models.items():
        from densecl.evaluation.other_sources import link_other_model

        link_other_model(name, model)


def warn_of_low_rate(params: Params) -> None:
    """Print a warning if random weights are trained at a rate for pretrained ones."""
    if params.network.pretrained or params.network.checkpoint:
        return
    settings = params.mode_settings
    rates = {settings.resolve_train(name).peak_learning_rate for name in params.modes}
    for rate in sorted(rate for rate in rates if rate < MIN_RATE_FROM_SCRATCH):
        print(
            f"warning: train.learning_rate: found a peak of {rate:g} and random initial weights, "
            f"which learn next to nothing below {MIN_RATE_FROM_SCRATCH:g}: set it to 0.001, or "
            "load weights with network.pretrained or network.checkpoint",
            file=sys.stderr,
        )


def prune_artifacts(params: Params, units: Iterable[str]) -> None:
    """Remove files that no plan names from folders that a stage depends on; DVC's cache retains
    them.
    """
    runs = list(product(params.modes, params.seeds))
    models = [*runs, *((name, None) for name in params.evaluate.models)]
    cell_files = (paths.evaluation_file, paths.predictions_file, paths.control_predictions_file)
    probe_files = (paths.probe_file, paths.probe_rows_file, paths.probe_pictures_file)
    expected = {
        *map(paths.plan_file, units),
        *map(paths.manifest_file, params.datasets),
        *map(paths.skipped_file, params.datasets),
        *(
            build_path(name, *model)
            for build_path, name, model in product(cell_files, params.evaluate.datasets, models)
        ),
        *(
            build_path(name, *model)
            for build_path, name, model in product(
                probe_files, params.evaluate.probes.names, models
            )
        ),
        *map(paths.transfer_file, params.transfer),
        paths.TRANSFER_INDEX,
        *(
            paths.training_folder(*run) / name
            for run in runs
            for name in ("history.csv", "training.json", "matches.safetensors")
        ),
    }
    for folder in (
        paths.PLANS,
        paths.MANIFESTS,
        paths.SKIPPED,
        paths.TRANSFER,
        paths.EVALUATION,
        paths.PREDICTIONS,
        paths.TRAINING,
    ):
        for path in sorted(folder.rglob("*"), reverse=True):
            is_file = path.is_file() or path.is_symlink()
            if is_file and path not in expected and path.name != ".gitignore":
                path.unlink()
            elif path.is_dir() and not any(path.iterdir()):
                path.rmdir()
