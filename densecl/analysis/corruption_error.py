"""Rows of ImageNet-C as a whole: mCE, without and with AlexNet normalisation."""

from dataclasses import replace
from statistics import fmean

from densecl.analysis.results import Comparison, MetricRow, SeedResults
from densecl.evaluation import imagenet_c
from densecl.evaluation.imagenet_c import CorruptionErrors
from densecl.evaluation.protocols import is_imagenet

CORRUPTIONS = "(imagenet-c)"  # the name of a dataset has no brackets
PROTOCOL = "imagenet-c"
MCE, MCE_TO_ALEXNET = "mce_without_alexnet", "mce_with_alexnet"
PUBLISHED_SIDE = 224  # px of ImageNet-C and of AlexNet's input


def add_corruption_errors(comparison: Comparison) -> None:
    """Both rows of every mode, if there are datasets of ImageNet-C; one without a value has its
    reason.
    """
    settings = comparison.plan.params.get("datasets", {})
    names = [s for s in comparison.plan.datasets if comparison.plan.protocols[s] == PROTOCOL]
    keys = {s: imagenet_c.parse_corruption(settings.get(s, {}).get("root", "")) for s in names}
    for mode in comparison.plan.modes if names else ():
        cells = {
            key: comparison.cells[name, mode]
            for name, key in keys.items()
            if key and key[0] in imagenet_c.ALEXNET_ERRORS
        }
        for row in _build_rows(mode, cells):
            comparison.add_row(row)


def _build_rows(
    mode: str, cells: dict[tuple[str, int], SeedResults]
) -> tuple[MetricRow, MetricRow]:
    """Errors are means over the seeds that all folders have."""
    common = set.intersection(*(set(cell.records) for cell in cells.values())) if cells else set()
    plain = MetricRow(CORRUPTIONS, "", mode, MCE, None, seeds=" ".join(map(str, sorted(common))))
    normalised = replace(plain, metric=MCE_TO_ALEXNET)
    if not common:
        note = (
            "no seed was scored on all of its folders"
            if cells
            else "no root of its datasets ends with <corruption>/<severity>, as in fog/3"
        )
        return replace(plain, note=note), replace(normalised, note=note)
    errors = {
        key: 1 - fmean(cell.records[seed].top1 for seed in common) for key, cell in cells.items()
    }
    corruptions = {corruption for corruption, _ in errors}
    found = f"{len(corruptions)} of 15 corruptions, {len(errors)} of {imagenet_c.FOLDERS} folders"
    plain = replace(
        plain,
        value=imagenet_c.compute_mce(errors),
        note=f"without AlexNet normalisation; mean top-1 error over {found}",
    )
    if reason := _find_obstacle(cells, errors, found):
        return plain, replace(normalised, note=f"with AlexNet normalisation: {reason}")
    value = imagenet_c.compute_mce_to_alexnet(errors)
    return plain, replace(normalised, value=value, note=f"with AlexNet normalisation; {found}")


def _find_obstacle(
    cells: dict[tuple[str, int], SeedResults], errors: CorruptionErrors, found: str
) -> str:
    """Why the errors cannot be divided by AlexNet's published ones; "" if they can."""
    if len(errors) < imagenet_c.FOLDERS:
        return f"needs all of ImageNet-C, found {found}"
    for cell in cells.values():
        record = next(iter(cell.records.values()))
        if not is_imagenet(sorted(record.per_class)):
            return "needs images of the 1000 classes of ImageNet-1k in every folder"
        sides = record.preprocessing.input_size[1:]
        if record.preprocessing.rule != "as-is" or set(sides) != {PUBLISHED_SIDE}:
            return f"needs images as they are, at {PUBLISHED_SIDE} px"
    return ""
