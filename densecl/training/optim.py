"""Optimizer and learning-rate schedule."""

import torch
from timm.optim import param_groups_layer_decay, param_groups_weight_decay
from timm.scheduler import CosineLRScheduler
from torch import nn

from densecl.config.params import TrainParams
from densecl.network.vit import Backbone


def build_optimizer(
    model: Backbone, objective: nn.Module, settings: TrainParams
) -> torch.optim.AdamW:
    """Fused AdamW without decay of biases, norms, position embeddings, tokens and temperature.

    With `layer_decay` d, layer k from the top learns at d^k times the rate (Bao et al. 2022).
    """
    decay, no_decay = settings.weight_decay, model.no_weight_decay()
    if settings.layer_decay:
        groups = param_groups_layer_decay(
            model, decay, no_weight_decay_list=no_decay, layer_decay=settings.layer_decay
        )
    else:
        groups = param_groups_weight_decay(model, decay, no_weight_decay_list=no_decay)
    groups += param_groups_weight_decay(objective, decay)
    peak = settings.peak_learning_rate
    groups = [{**g, "lr": peak * g.get("lr_scale", 1.0)} for g in groups if g["params"]]
    return torch.optim.AdamW(groups, lr=peak, fused=True)


def build_schedule(
    optimizer: torch.optim.Optimizer, settings: TrainParams, steps_per_epoch: int
) -> CosineLRScheduler:
    """Linear warm-up, then a cosine that reaches 0 one step after the last.

    Call `step_update(step)` before each step.
    """
    warmup = round(settings.warmup_epochs * steps_per_epoch)
    peak = settings.peak_learning_rate
    for group in optimizer.param_groups:
        group["lr"] = peak  # the schedule applies lr_scale itself
    return CosineLRScheduler(
        optimizer,
        t_initial=max(1, settings.epochs * steps_per_epoch - warmup),
        warmup_t=warmup,
        warmup_lr_init=peak / max(1, warmup),
        warmup_prefix=True,
        t_in_epochs=False,
    )
