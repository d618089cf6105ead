"""A linear classifier on frozen CLS features, which lambda = 1 is evaluated with.

The features of all images are in a file and are read in chunks.
"""

from pathlib import Path

import torch

from densecl.datasets.storage.image_places import locate_images
from densecl.datasets.storage.usable_images import ImageSet
from densecl.network.logistic_regression import fit_linear_probe
from densecl.network.precision import use_fp32_products
from densecl.network.preprocessing import (
    build_image_loader,
    normalise_images,
    resolve_preprocessing,
)
from densecl.network.vit import Backbone, forward_tokens
from densecl.training.feature_file import FeatureFile


@use_fp32_products()
def attach_linear_probe(
    model: Backbone, images: ImageSet, classes: int, batch_size: int, file: Path
) -> None:
    """Replace the classifier by a linear probe on the training images' frozen CLS features.

    `file` holds the features meanwhile. Raises TrainingError if they cannot be written.
    """
    device = next(model.parameters()).device
    labels = torch.tensor(images.frame["label"].to_numpy(copy=True), device=device)
    with FeatureFile(file, len(labels), model.embed_dim) as features:
        extract_features(model, images, batch_size, features)
        weight, bias = fit_linear_probe(features, labels, classes)
    model.get_classifier().load_state_dict({"weight": weight, "bias": bias})


@torch.no_grad()
def extract_features(
    model: Backbone, images: ImageSet, batch_size: int, features: FeatureFile
) -> None:
    """Append the CLS features of all images, in the order of the manifest."""
    device = next(model.parameters()).device
    files = locate_images(images.root, images.frame["path"])
    preprocessing = resolve_preprocessing(model.eval())
    for batch, _ in build_image_loader(files, preprocessing, batch_size):
        normalised = normalise_images(batch.to(device), preprocessing)
        features.append(forward_tokens(model, normalised).cls)
