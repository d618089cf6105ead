"""The cost of a training step of each mode, measured alone on the machine."""

from densecl import paths
from densecl.artifacts import CostPlan, ValidationResult, read_json, write_json
from densecl.config.params import TRAIN_SET


def main() -> None:
    """Write reports/cost.json."""
    from densecl.cost.measure import measure_cost
    from densecl.cost.steps import TrainingSize

    plan = read_json(CostPlan, paths.plan_file("cost"))
    counts = read_json(ValidationResult, paths.validation_file(TRAIN_SET))
    size = TrainingSize(counts.images, counts.classes + len(counts.absent))
    write_json(paths.COST, measure_cost(plan, size))
