"""A linear classifier on frozen CLS features, which lambda = 1 is evaluated with."""

import torch
import torch.nn.functional as F
from torch import Tensor

from densecl.datasets.storage.usable_images import ImageSet
from densecl.network.precision import use_fp32_products
from densecl.network.preprocessing import (
    build_image_loader,
    normalise_images,
    resolve_preprocessing,
)
from densecl.network.vit import Backbone, forward_tokens

L2_PENALTY = 1e-4  # on the squared weights of standardised features
MAX_ITERATIONS = 200


@torch.no_grad()
@use_fp32_products()
def attach_linear_probe(model: Backbone, images: ImageSet, classes: int, batch_size: int) -> None:
    """Replace the classifier by a linear probe on the training images' frozen CLS features."""
    device = next(model.parameters()).device
    files = [images.root / path for path in images.frame["path"]]
    preprocessing = resolve_preprocessing(model.eval())
    features = torch.cat(
        [
            forward_tokens(model, normalise_images(batch.to(device), preprocessing)).cls.float()
            for batch, _ in build_image_loader(files, preprocessing, batch_size)
        ]
    )
    labels = torch.tensor(images.frame["label"].to_numpy(copy=True), device=device)
    with torch.enable_grad():
        weight, bias = fit_linear_probe(features, labels, classes)
    model.get_classifier().load_state_dict({"weight": weight, "bias": bias})


def fit_linear_probe(features: Tensor, labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Weight [C, E] and bias [C] of multinomial logistic regression on features [B, E].

    L-BFGS to convergence on standardised features; the result takes features as they are.
    Deterministic. labels: [B].
    """
    features = features.double()
    mean, std = features.mean(0), features.std(0).clamp_min(1e-6)
    x = (features - mean) / std
    weight = torch.zeros(classes, x.shape[1], dtype=x.dtype, device=x.device, requires_grad=True)
    bias = torch.zeros(classes, dtype=x.dtype, device=x.device, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weight, bias], max_iter=MAX_ITERATIONS, tolerance_grad=1e-7, line_search_fn="strong_wolfe"
    )

    def closure() -> float:
        optimizer.zero_grad()
        loss = (
            F.cross_entropy(F.linear(x, weight, bias), labels) + L2_PENALTY * weight.square().sum()
        )
        loss.backward()
        return float(loss.detach())

    optimizer.step(closure)
    scaled_weight = weight.detach() / std
    return scaled_weight.float(), (bias.detach() - scaled_weight @ mean).float()
