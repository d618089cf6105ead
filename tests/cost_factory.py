"""Costs as the stage `cost` writes them, and records as MLflow has them."""

from collections.abc import Mapping

from densecl.cost.result import CostReport, MachineLoad, ModeCost, StepRatio
from densecl.monitoring.training_records import TrainingRecord

QUIET = StepRatio(value=1.0, low=0.99, high=1.01)
NONE_SECONDS, ONE_VIEW_SECONDS = 0.2, 0.11


def ratio(value: float, half_width: float = 0.01) -> StepRatio:
    return StepRatio(value=value, low=value - half_width, high=value + half_width)


def make_cost(
    ratios: Mapping[str, float], control: StepRatio = QUIET, half_width: float = 0.01, **changed
) -> CostReport:
    """`ratios`: step time against none, by mode."""
    modes = {
        mode: ModeCost(
            seconds=value * NONE_SECONDS,
            against_none=ratio(value, half_width),
            against_one_view=ratio(value * NONE_SECONDS / ONE_VIEW_SECONDS, half_width),
            memory_bytes=int(value * 1e9),
            queue_size_effective=0 if mode == "none" else 8192,
        )
        for mode, value in {"none": 1.0, **ratios}.items()
    }
    values = {
        "modes": modes,
        "control": control,
        "one_view_seconds": ONE_VIEW_SECONDS,
        "one_view_memory_bytes": int(0.6e9),
        "rounds": 40,
        "confidence": 0.99,
        "images": 64,
        "batch_images": 64,
        "processes": 1,
        "device": "cpu, 2 threads",
        "load": MachineLoad(cores=2, start=0.3, end=1.2, busy_cores=0.1),
    }
    return CostReport(**values | changed)


def make_record(
    images_per_second: float = 320.0, device: str = "cpu, 2 threads", epochs: int = 20
) -> TrainingRecord:
    return TrainingRecord(
        wall_seconds=180.0,
        device=device,
        epochs={
            "images_per_second": [images_per_second] * epochs,
            "peak_memory_bytes": [float(2**30)] * epochs,
        },
    )
