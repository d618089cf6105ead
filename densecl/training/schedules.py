"""Optimiser and learning rate."""

from __future__ import annotations

import torch
from timm.optim import param_groups_weight_decay
from timm.scheduler import CosineLRScheduler
from torch import nn

from densecl.network.vit import Backbone
from densecl.params import Train


def build_optimizer(model: Backbone, objective: nn.Module, settings: Train) -> torch.optim.AdamW:
    """AdamW; no decay on biases, norms, position embeddings, tokens and the temperature."""
    kept = model.no_weight_decay()
    groups = param_groups_weight_decay(model, settings.weight_decay, no_weight_decay_list=kept)
    groups += param_groups_weight_decay(objective, settings.weight_decay)
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=settings.learning_rate)


def build_schedule(optimizer: torch.optim.Optimizer, settings: Train, steps_per_epoch: int) -> CosineLRScheduler:
    """Linear warm-up, then a cosine to 0 at the last step; call step_update(step) before each step."""
    warmup = round(settings.warmup_epochs * steps_per_epoch)
    return CosineLRScheduler(
        optimizer, t_initial=max(1, settings.epochs * steps_per_epoch - warmup), warmup_t=warmup,
        warmup_lr_init=settings.learning_rate / max(1, warmup), warmup_prefix=True, t_in_epochs=False,
    )  # fmt: skip
