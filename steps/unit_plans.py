"""What each unit of the pipeline reads of `params.yaml`."""

from densecl.artifacts import (
    Artifact,
    CostPlan,
    DatasetPlan,
    EvaluatePlan,
    ExecutionPlan,
    RenderPlan,
    ReportPlan,
    TrainPlan,
    TransferPlan,
    ValidatePlan,
)
from densecl.config.mode_params import BATCH_KEYS
from densecl.config.params import TRAIN_SET, GlobalContrastParams, Params, TrainParams
from densecl.evaluation.groups import resolve_class_groups
from densecl.evaluation.protocols import resolve_layout, resolve_protocol

# What shapes a step. The other keys keep their defaults in the plan of the stage cost, so that a
# change of them does not measure again.
STEP_SETTINGS = (
    "batch_size",
    "steps_per_epoch",
    "random_erasing",
    "random_erasing_count",
    "grad_accumulation",
    "layer_decay",
    "drop_path",
    "ema_decay",
    "precision",
    "compile",
    "grad_clip",
    "label_smoothing",
    "threads",
)
UNTIMED_CONTRAST = ("lambda_weight", "ramp_epochs", "temperature", "key_momentum")


def resolve_dataset_plan(params: Params, name: str) -> DatasetPlan:
    return DatasetPlan(
        name=name,
        dataset=resolve_layout(params, name).model_copy(update={"title": None}),
        train=params.datasets[TRAIN_SET].model_copy(
            update={"images": None, "classes": None, "title": None}
        ),
        preprocess=params.evaluate.preprocess.get(name),
        protocol=resolve_protocol(params, name),
        classes=params.evaluate.classes.get(name, ()),
        groups=resolve_class_groups(params, name),
        optional=name in params.optional_datasets,
        exif=params.data.exif,
    )


def resolve_train_plan(params: Params, name: str) -> TrainPlan:
    settings = params.mode_settings
    return TrainPlan(
        mode=name,
        variant_of=settings.resolve_base(name) if name in params.variants else None,
        network=params.network,
        data=params.data,
        train=settings.resolve_train(name),
        contrast=settings.resolve_contrast(name),
    )


def resolve_cost_plan(params: Params) -> CostPlan:
    """The plan of the modes whose steps can be compared: with batches as large as `none` has."""
    settings = params.mode_settings
    shared = _keep_step_settings(settings.resolve_train("none"))
    trains = {
        mode: _keep_step_settings(settings.resolve_train(mode))
        for mode in dict.fromkeys((*params.modes, "none"))
    }
    trains = {
        mode: train
        for mode, train in trains.items()
        if all(getattr(train, key) == getattr(shared, key) for key in BATCH_KEYS)
    }
    return CostPlan(
        modes=tuple(mode for mode in params.modes if mode in trains),
        network=params.network.model_copy(update={"pretrained": False, "checkpoint": None}),
        train=shared,
        train_by_mode={mode: train for mode, train in trains.items() if train != shared},
        contrast={mode: _reset_untimed(settings.resolve_contrast(mode)) for mode in trains},
        processes=params.train.processes,
        checkpoint_activations=params.train.checkpoint_activations,
        budget=params.cost,
    )


def _keep_step_settings(train: TrainParams) -> TrainParams:
    return TrainParams(**{name: getattr(train, name) for name in STEP_SETTINGS})


def _reset_untimed(contrast: GlobalContrastParams | None) -> GlobalContrastParams | None:
    if contrast is None:
        return None
    fields = type(contrast).model_fields
    return contrast.model_copy(update={name: fields[name].default for name in UNTIMED_CONTRAST})


def resolve_plans(params: Params) -> dict[str, Artifact]:
    """The plan of every unit, with only the keys it reads."""
    return {
        **{
            f"render/{name}": RenderPlan(settings=settings)
            for name, settings in params.render.items()
        },
        **{name: resolve_dataset_plan(params, name) for name in params.datasets},
        **{mode: resolve_train_plan(params, mode) for mode in params.modes},
        **{
            f"transfer/{name}": TransferPlan(
                name=name, images=images, optional=params.evaluate.require == "present"
            )
            for name, images in params.transfer.items()
        },
        "validate": ValidatePlan(
            datasets=params.datasets,
            optional=params.optional_datasets,
            groups={
                name: tuple(groups.members)
                for name in params.datasets
                if (groups := resolve_class_groups(params, name))
            },
            values=params.validate_,
        ),
        "cost": resolve_cost_plan(params),
        "execution": ExecutionPlan(
            checkpoint_minutes=params.train.checkpoint_minutes,
            processes=params.train.processes,
            parallel=params.train.parallel,
            checkpoint_activations=params.train.checkpoint_activations,
            cell_cache=params.evaluate.cell_cache,
        ),
        "evaluate": EvaluatePlan(
            batch_size=params.evaluate.batch_size,
            datasets=tuple(resolve_dataset_plan(params, name) for name in params.evaluate.datasets),
            probes=params.evaluate.probes,
            training=resolve_dataset_plan(params, TRAIN_SET),
            transfer={
                name: params.transfer[name] for name in params.evaluate.probes.transfer_names
            },
            optional=params.evaluate.require == "present",
        ),
        "report": ReportPlan(
            modes=params.modes,
            variants={
                name: params.variants[name].base for name in params.modes if name in params.variants
            },
            seeds=params.seeds,
            datasets=params.evaluate.datasets,
            probes=params.evaluate.probes.names,
            models=tuple(params.evaluate.models),
            rendered=tuple(name for name in params.render if name in params.datasets),
            protocols={name: resolve_protocol(params, name) for name in params.evaluate.datasets},
            values=params.report,
            params=params.model_dump(
                mode="json", by_alias=True, exclude={"cluster", "retraining", "sweep"}
            ),
        ),
    }
