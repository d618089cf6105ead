"""Steps of each case by each engine, in one process or as one rank of several.

`python -m tests.training.distributed_worker engines|resumed OUT` writes OUT-<rank>.pt.
"""

import io
import sys
from typing import Any
from unittest import mock

import torch
import torch.distributed as dist

from densecl import distributed
from densecl.config.params import (
    DenseContrastParams,
    GlobalContrastParams,
    NetworkParams,
    TrainParams,
)
from densecl.contrast import build_objective
from densecl.datasets.views.batch import ViewBatch
from densecl.network.preprocessing import resolve_preprocessing
from densecl.network.vit import build_model
from densecl.training import engine as engine_module
from densecl.training.step import TrainStep

STEPS, BATCH, CLASSES = 12, 8, 3
RESUMED_AT = 2
NETWORK = NetworkParams(
    model_name="vit_tiny_patch16_224",
    model_args={"img_size": 16, "patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 2},
)
SMALL = {"queue_size": 70, "dense_dim": 8}
CASES = {  # settings, precision, changed values of `train`
    "dense": (DenseContrastParams(patches_per_image=6, **SMALL), torch.float64, {"ema_decay": 0.9}),
    "filtered": (  # the processes have unequal numbers of queries
        DenseContrastParams(
            patches_per_image=6,
            correspondence_filter="mutual",
            symmetric=True,
            key_encoder="momentum",
            memory_per_image=3,
            sampling_strategy="diverse",
            **SMALL,
        ),
        torch.float64,
        {"grad_accumulation": 2},
    ),
    "hardest": (
        DenseContrastParams(
            patches_per_image=4, sampling_strategy="hardest", negatives="other_class", **SMALL
        ),
        torch.float64,
        {"checkpoint_activations": True},
    ),
    "global": (
        GlobalContrastParams(learnable_temp=True, symmetric=True, **SMALL),
        torch.float64,
        {"grad_accumulation": 2},
    ),
    "none": (None, torch.float64, {}),
    "global fp32": (GlobalContrastParams(**SMALL), torch.float32, {}),
}


class FlatAverageStep(TrainStep):
    """The definition of data-parallel training: gradients averaged by hand before the step."""

    def __init__(self, *args: Any) -> None:
        with mock.patch.object(distributed, "get_world_size", return_value=1):
            super().__init__(*args)  # without an engine

    def step_optimizer(self, *args: Any) -> torch.Tensor:
        """Replace every gradient by its mean over the ranks, in one all-reduce; then step."""
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        flat /= dist.get_world_size()
        parts = flat.split([gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))
        return super().step_optimizer(*args)


STEP_TYPES: dict[str, tuple[type[TrainStep], str]] = {
    "flat": (FlatAverageStep, "ddp"),
    "ddp": (TrainStep, "ddp"),
    "fsdp": (TrainStep, "fsdp"),
}


def batches() -> list[ViewBatch]:
    """The global batches, the same on every rank."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for step in range(STEPS):
        pixels = torch.randint(
            0, 256, (2, BATCH, 3, 16, 16), generator=generator, dtype=torch.uint8
        )
        ids = (torch.arange(BATCH) + step * BATCH) % 40
        whole = torch.tensor([[0.0, 0.0, 1.0, 1.0, 0.0]]).expand(BATCH, 5)
        found.append(ViewBatch(pixels[0], pixels[1], ids % CLASSES, ids, whole, whole))
    return found


def build_case(name: str, engine: str = "ddp") -> TrainStep:
    settings, precision, changed = CASES[name]
    torch.set_default_dtype(precision)
    step_type, parallel = STEP_TYPES[engine]
    train = TrainParams(learning_rate=1e-3, batch_size=BATCH, parallel=parallel, **changed)
    model = build_model(NETWORK, CLASSES, 0)
    objective = build_objective(
        settings, model, SMALL["queue_size"], 0, torch.Generator().manual_seed(0)
    )
    return step_type(model, objective, resolve_preprocessing(model), train)


def take_steps(stepper: TrainStep, steps: range) -> list[dict[str, torch.Tensor]]:
    """The metrics of each of some steps."""
    seen, weight = [], stepper.objective.lambda_weight
    for step in steps:
        rows = distributed.shard_epoch(range(BATCH), BATCH, stepper.settings.grad_accumulation)
        part = ViewBatch(*(column[rows] for column in batches()[step]))
        seen.append(stepper(part, weight, step, step / STEPS, diagnostics=True))
    return seen


def outcomes(name: str, engine: str = "ddp") -> dict[str, torch.Tensor]:
    """Losses [STEPS], metrics of the last step, memory and whole weights of one case."""
    stepper = build_case(name, engine)
    seen = take_steps(stepper, range(STEPS))
    found = {
        "losses": torch.stack([s["loss"] for s in seen]),
        "classification": torch.stack([s["classification_loss"] for s in seen]),
        "gradient": torch.stack([s["gradient_norm"] for s in seen]),
        "metrics": torch.stack(list(seen[-1].values())),
    }
    with stepper.engine.gather_parts() as parts:
        for part in parts:
            flat = [p.detach().flatten() for p in parts[part].parameters()]
            found[f"weights of {part}"] = torch.cat(flat) if flat else torch.zeros(0)
        if CASES[name][0]:
            memory = parts["objective"].memory
            found |= {
                "memory": memory.buffer.clone(),
                "images": memory.buffer_image_ids.clone(),
                "written": torch.tensor(memory.written),
            }
    return found


def resume_case(name: str, engine: str, rehearses: bool = True) -> bool:
    """Whether a run that is resumed half way ends in the bits of an uninterrupted one."""

    def start(state: bytes | None = None) -> TrainStep:
        stepper = build_case(name, engine)
        generator = stepper.objective.generator
        if state is not None:
            held = torch.load(io.BytesIO(state), weights_only=True)
            stepper.load_state(held["step"])
            generator.set_state(held["generator"])
        if rehearses:
            before = generator.get_state()
            stepper.rehearse(BATCH // distributed.get_world_size())
            generator.set_state(before)
        return stepper

    def finish(stepper: TrainStep, steps: range) -> list[torch.Tensor]:
        metrics = [torch.stack(list(seen.values())) for seen in take_steps(stepper, steps)]
        with stepper.engine.gather_parts() as parts:
            return [*metrics[-3:], *(value.clone() for value in parts.parameters())]

    stepper = start()
    take_steps(stepper, range(RESUMED_AT))
    file = io.BytesIO()
    generator = stepper.objective.generator.get_state()
    torch.save({"step": stepper.collect_state(), "generator": generator}, file)
    state = distributed.broadcast_bytes(file.getvalue())
    whole = finish(stepper, range(RESUMED_AT, STEPS))
    resumed = finish(start(state), range(RESUMED_AT, STEPS))
    return all(torch.equal(a, b) for a, b in zip(whole, resumed, strict=True))


def compare_engines() -> dict[str, dict[str, dict[str, torch.Tensor]]]:
    return {engine: {name: outcomes(name, engine) for name in CASES} for engine in STEP_TYPES}


def compare_resumed() -> dict[str, bool]:
    return {
        "ddp": resume_case("global fp32", "ddp"),
        "ddp without rehearsal": resume_case("global fp32", "ddp", rehearses=False),
        "fsdp": resume_case("global fp32", "fsdp"),
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    engine_module.BUCKET_MB = 0.02  # so that the small model has several
    distributed.init_process_group()
    work = {"engines": compare_engines, "resumed": compare_resumed}[sys.argv[1]]
    torch.save(work(), f"{sys.argv[2]}-{distributed.get_rank()}.pt")
    distributed.destroy_process_group()
