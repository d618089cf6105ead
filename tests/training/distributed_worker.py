"""Twenty steps of each case, in one process or as one rank of several.

`python -m tests.training.distributed_worker OUT` writes OUT-<rank>.pt.
"""

import sys

import torch

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
from densecl.training.optim import build_optimizer
from densecl.training.step import TrainStep

STEPS, BATCH, CLASSES = 20, 8, 3
NETWORK = NetworkParams(
    model_name="vit_tiny_patch16_224",
    model_args={"img_size": 16, "patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 2},
)
SMALL = {"queue_size": 70, "dense_dim": 8}
CASES = {  # settings, precision, parts of a batch
    "dense": (DenseContrastParams(patches_per_image=6, **SMALL), torch.float64, 1),
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
        2,
    ),
    "hardest": (
        DenseContrastParams(
            patches_per_image=4, sampling_strategy="hardest", negatives="other_class", **SMALL
        ),
        torch.float64,
        1,
    ),
    "global": (
        GlobalContrastParams(learnable_temp=True, symmetric=True, **SMALL),
        torch.float64,
        1,
    ),
    "none": (None, torch.float64, 1),
    "global fp32": (GlobalContrastParams(**SMALL), torch.float32, 1),
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


def outcomes(name: str) -> dict[str, torch.Tensor]:
    """Losses [STEPS], metrics of the last step, memory and weights of one case."""
    settings, precision, parts = CASES[name]
    torch.set_default_dtype(precision)
    train = TrainParams(learning_rate=1e-3, batch_size=BATCH, grad_accumulation=parts)
    model = build_model(NETWORK, CLASSES, 0)
    objective = build_objective(
        settings, model, SMALL["queue_size"], 0, torch.Generator().manual_seed(0)
    )
    stepper = TrainStep(
        model,
        objective,
        build_optimizer(model, objective, train),
        resolve_preprocessing(model),
        train,
    )
    seen = []
    for step, batch in enumerate(batches()):
        mine = distributed.shard_epoch(range(BATCH), BATCH, parts)
        part = ViewBatch(*(column[mine] for column in batch))
        seen.append(stepper(part, objective.lambda_weight, step, step / STEPS, diagnostics=True))
    last = seen[-1]
    found = {
        "losses": torch.stack([s["loss"] for s in seen]),
        "classification": torch.stack([s["classification_loss"] for s in seen]),
        "gradient": torch.stack([s["gradient_norm"] for s in seen]),
        "metrics": torch.stack(list(last.values())),
        "weights": torch.cat([p.detach().flatten() for p in model.parameters()]),
    }
    if settings:
        memory = objective.memory
        found |= {
            "memory": memory.buffer,
            "images": memory.buffer_image_ids,
            "written": torch.tensor(memory.written),
        }
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)
    distributed.init_process_group()
    torch.save(
        {name: outcomes(name) for name in CASES}, f"{sys.argv[1]}-{distributed.get_rank()}.pt"
    )
    distributed.destroy_process_group()
