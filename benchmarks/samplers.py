"""Cost and effect of each patch sampler: `python -m benchmarks.samplers`.

Dense features of drawn photographs from an untrained ViT-Tiny (seed 0), as in the first steps of
training. Time: median of alternating calls (minimum to maximum). Coverage: share of an image's
patches that were picked or are adjacent to one that was. Reach: mean cosine distance of a patch to
the nearest picked one; lower is better. Loss: mean over draws, and the standard deviation between
draws of one batch.
"""

from __future__ import annotations

import time
from statistics import median, stdev

import numpy as np
import torch
import torch.nn.functional as F

from densecl.config.params import NetworkParams
from densecl.contrast import SAMPLERS, info_nce, match_patches
from densecl.contrast.memory_softmax import find_hardest_negative
from densecl.datasets.synthetic.styles import PHOTO, SYNTHETIC_CLASSES, render_photograph
from densecl.network.heads import ProjectionHead
from densecl.network.vit import build_model, forward_tokens
from densecl.training.diagnostics import build_neighbour_mask

IMAGES, SAMPLED, ENTRIES, DRAWS = 24, 50, 4096, 7


def make_features() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Dense features [B, N, D] of two draws of IMAGES objects; a memory [K, D] of other images."""
    model = build_model(
        NetworkParams(model_name="vit_tiny_patch16_224"), len(SYNTHETIC_CLASSES), 0
    ).eval()
    head, rng = ProjectionHead(model.embed_dim, 128, 0), np.random.default_rng(0)
    count = 2 * IMAGES + ENTRIES // 196 + 1
    images = [
        np.asarray(render_photograph(i % len(SYNTHETIC_CLASSES), PHOTO, 224, rng)[0])
        for i in range(count)
    ]
    pixels = torch.tensor(np.stack(images)).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.no_grad():
        dense = torch.cat(
            [
                F.normalize(head(forward_tokens(model, part).patches), dim=-1)
                for part in pixels.split(8)
            ]
        )
    return dense[:IMAGES], dense[IMAGES : 2 * IMAGES], dense[2 * IMAGES :].flatten(0, 1)[:ENTRIES]


def main() -> None:
    first, second, memory = make_features()
    near = build_neighbour_mask((14, 14))
    matched = torch.take_along_dim(second, match_patches(first, second)[..., None], dim=1)
    times: dict[str, list[float]] = {name: [] for name in SAMPLERS}
    losses: dict[str, list[float]] = {name: [] for name in SAMPLERS}
    coverage: dict[str, list[float]] = {name: [] for name in SAMPLERS}
    reach: dict[str, list[float]] = {name: [] for name in SAMPLERS}
    for draw in range(DRAWS + 1):
        for name, sampler in SAMPLERS.items():
            start = time.perf_counter()
            scores = None
            if name == "hardest":  # computing the scores is part of its cost
                hardest = find_hardest_negative(first.flatten(0, 1), memory)
                scores = hardest.view(first.shape[:2]) - (first * matched).sum(-1)
            picks = sampler(first, SAMPLED, torch.Generator().manual_seed(draw), scores)
            seconds = time.perf_counter() - start
            queries, keys = (
                torch.take_along_dim(x, picks[..., None], dim=1) for x in (first, matched)
            )
            if draw:  # the first round warms up
                times[name].append(1000 * seconds)
                losses[name].append(
                    float(info_nce(queries.flatten(0, 1), keys.flatten(0, 1), memory, 0.2).loss)
                )
                coverage[name].append(float(near[picks].any(1).float().mean()))
                reach[name].append(1 - float((first @ queries.transpose(1, 2)).amax(2).mean()))
    print(
        f"{IMAGES} images, {SAMPLED} of 196 patches, memory {ENTRIES}, {torch.get_num_threads()} "
        f"threads"
    )
    print("sampler   ms (min-max)          to random  coverage  reach    loss (sd between draws)")
    for name in SAMPLERS:
        ratio = median(times[name]) / median(times["random"])
        print(
            f"{name:8}  {median(times[name]):7.2f} "
            f"({min(times[name]):.2f}-{max(times[name]):.2f})".ljust(32)
            + f"{ratio:9.1f}  {median(coverage[name]):8.3f}  {median(reach[name]):.4f}  "
            f"{median(losses[name]):.4f} ({stdev(losses[name]):.4f})"
        )


if __name__ == "__main__":
    main()
