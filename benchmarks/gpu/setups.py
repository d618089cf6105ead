"""Sizes of the GPU's benchmarks: as on one H100, and tiny ones that run anywhere."""

from dataclasses import replace

from benchmarks.steps import StepSetup
from densecl.config.params import TrainParams

BF16 = TrainParams(batch_size=256, precision="bf16")
SETUPS = {
    size: StepSetup(f"vit_{size}_patch16_224", batch=batch, train=BF16, targets=targets)
    for size, batch, targets in (
        ("tiny", 256, ("≤ 1.15", "≤ 1.10", "≤ 1.02", "≤ 1.02")),
        ("small", 256, ("≤ 1.08", "≤ 1.07", "≤ 1.02", "≤ 1.02")),
        ("base", 128, ("≤ 1.04", "≤ 1.05", "≤ 1.02", "≤ 1.02")),
    )
}
SMALL_MODEL = {"img_size": 32, "embed_dim": 48, "depth": 2}
SMALL_TRAIN = TrainParams(batch_size=4)
SMALL_SETUP = StepSetup("vit_tiny_patch16_224", SMALL_MODEL, 4, 256, SMALL_TRAIN, rounds=1)


def change_train(setup: StepSetup, **changes: object) -> StepSetup:
    """The same with other keys of `train`."""
    return replace(setup, train=setup.train.model_copy(update=changes))
