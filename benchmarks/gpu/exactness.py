"""Each path that only a GPU takes, against the same computation in float64."""

from collections.abc import Mapping
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.gpu.setups import change_train
from benchmarks.gpu.step_rates import build_uncolored_batch, skip_compiling_on_cpu
from benchmarks.measure import BenchmarkRow
from benchmarks.steps import StepSetup, build_batch, build_train_step
from densecl.contrast import match_patches
from densecl.contrast.memory_softmax import compute_tiled, find_hardest_negative, memory_softmax
from densecl.contrast.negative_mask import NegativeMask
from densecl.datasets.views.batch import ViewBatch
from densecl.datasets.views.device_transforms import apply_color_changes
from densecl.runtime.hardware import get_device

D, TEMPERATURE = 128, 0.2
# Of a gradient. bf16 has 8 bits of mantissa, and with it a match may change.
EAGER_TARGETS = {"fp32": 1e-4, "tf32": 3e-2, "bf16": 3e-1}
COMPILED_TARGETS = {"fp32": 1e-4}  # the part compiled times bf16
MASKS = ("no mask", "images", "images and classes")
ROW = "EXACT"


def make_unit_rows(*shape: int) -> Tensor:
    """Random rows of norm 1 on the device."""
    generator = torch.Generator().manual_seed(len(shape) + shape[0])
    return F.normalize(torch.randn(*shape, generator=generator), dim=-1).to(get_device())


def make_row(measure: str, error: float, target: float) -> BenchmarkRow:
    """A row that says whether the error is within its target."""
    verdict = "met" if error <= target else "MISSED"
    cells = f"{error:.1e}", "float64", verdict, f"≤ {target:.0e}"
    return BenchmarkRow(ROW, measure, *cells, {"error": [error], "target": [target]})


def build_mask(name: str, queries: int, memory_size: int) -> NegativeMask:
    """One of MASKS, with 97 images of 7 classes."""
    ids = [torch.arange(n, device=get_device()) for n in (queries, memory_size)]
    images, classes = [x % 97 for x in ids], [x % 7 for x in ids]
    if name == "no mask":
        return NegativeMask()
    return NegativeMask(*images) if name == "images" else NegativeMask(*images, *classes)


def measure_softmax(queries: int, memory_size: int, mask_name: str) -> list[BenchmarkRow]:
    """The fused softmax (compiled flex attention on a GPU) and the tiled one, with diagnostics: the
    largest error of LSE, mean, count, largest cosine and mean cosine.
    """
    query, memory = make_unit_rows(queries, D), make_unit_rows(memory_size, D)
    mask = build_mask(mask_name, queries, memory_size)
    exact = compute_tiled(
        query.double(), memory.double(), torch.tensor(TEMPERATURE).to(query).double(), mask
    )
    rows = []
    for path, precision, target in (
        ("fused", "fp32", 1e-5),
        ("fused", "bf16", 3e-2),
        ("tiled", "fp32", 1e-5),
    ):
        with torch.autocast(query.device.type, torch.bfloat16, enabled=precision == "bf16"):
            compute = memory_softmax if path == "fused" else compute_tiled
            found = compute(query, memory, torch.tensor(TEMPERATURE).to(query), mask)
        errors = [
            float((ours.double() - theirs).abs().max())
            for ours, theirs in zip(found[:4], exact[:4], strict=True)
        ]
        errors.append(float((found.cosine_sum - exact.cosine_sum).abs().max()) / memory_size)
        measure = (
            f"softmax over the memory, {path}, {precision}, mask: {mask_name}, Q = {queries:,}, "
            f"K = {memory_size:,}: largest error of LSE, mean, count and cosines"
        )
        rows.append(make_row(measure, max(errors), target))
    return rows


def measure_choices(images: int, patches: int, memory_size: int) -> list[BenchmarkRow]:
    """What the chosen match falls short of the best cosine, and the error of the hardest."""
    first, second = make_unit_rows(images, patches, D), make_unit_rows(images, patches + 1, D)
    cosines = first.double() @ second.double().transpose(1, 2)  # [B, N, N + 1]
    chosen = cosines.gather(2, match_patches(first, second)[..., None])[..., 0]
    shortfall = float((cosines.amax(2) - chosen).max())
    queries, memory = first.flatten(0, 1), make_unit_rows(memory_size, D)
    exact = (queries.double() @ memory.double().T).amax(1)
    error = float((find_hardest_negative(queries, memory).double() - exact).abs().max())
    setting = f"{images} images of {patches} patches"
    return [
        make_row(f"cosine of the match below the best one, {setting}", shortfall, 1e-6),
        make_row(f"cosine of the hardest negative, {setting}, K = {memory_size:,}", error, 1e-6),
    ]


def measure_colors(setup: StepSetup) -> list[BenchmarkRow]:
    """Colour changes on the device against the same on the CPU, in levels of 255."""
    loaded = build_uncolored_batch(setup)
    views, changes = loaded.batch.view1, loaded.changes1
    here, there = (
        apply_color_changes(views, changes).cpu(),
        apply_color_changes(views.cpu(), changes),
    )
    levels = float((here.int() - there.int()).abs().max())
    measure = f"colour changes on the device, {setup.batch} images: levels from those on the CPU"
    return [make_row(measure, levels, 1.0)._replace(peer="CPU")]


def compute_step(
    setup: StepSetup, mode: str, batch: ViewBatch, double: bool
) -> tuple[float, Tensor]:
    """Loss and gradient of the backbone in one step; with `double`, all of it in float64."""
    step = build_train_step(setup, mode)
    if double:
        for module in (step.model, step.objective):
            cast(nn.Module, module).double()
    torch.set_default_dtype(torch.float64 if double else torch.float32)  # of normalised images
    try:
        with step.use_precision(), skip_compiling_on_cpu():
            loss, _ = step.score(batch, step.objective.lambda_weight)
            loss.backward()
    finally:
        torch.set_default_dtype(torch.float32)
    gradients = [p.grad for p in step.model.parameters() if p.grad is not None]
    return float(loss.detach()), torch.cat([g.flatten().double() for g in gradients])


def measure_whole_steps(
    setup: StepSetup, mode: str, precisions: Mapping[str, float], is_compiled: bool
) -> list[BenchmarkRow]:
    """Relative error of the backbone's gradient; `precisions` and the error that each may have."""
    batch, rows = build_batch(setup), []
    exact_loss, exact = compute_step(change_train(setup, precision="fp32"), mode, batch, True)
    for precision, target in precisions.items():
        changed = change_train(setup, precision=precision, compile=is_compiled)
        loss, gradient = compute_step(changed, mode, batch, False)
        error = float((gradient - exact).norm() / exact.norm())
        measure = (
            f"gradient of a whole step of {mode}, {changed.setting}; its loss is off by "
            f"{abs(loss - exact_loss) / exact_loss:.0e}"
        )
        rows.append(make_row(measure, error, target))
    return rows
