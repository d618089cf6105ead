"""Top-1 of a model while it trains; logged only, so no training stage depends on it."""

from collections.abc import Callable, Mapping, Sequence

from densecl import distributed
from densecl.datasets.storage.usable_images import ImageSet
from densecl.evaluation.predict import predict_images
from densecl.evaluation.scoring import prepare_scoring
from densecl.network.vit import Backbone


def build_validator(
    datasets: Mapping[str, ImageSet], classes: Sequence[str], batch_size: int
) -> Callable[[Backbone], dict[str, float]]:
    """A function that returns the top-1 of a model per dataset; ranks share the images."""
    return lambda model: {
        name: _compute_top1(model, images, classes, batch_size) for name, images in datasets.items()
    }


def _compute_top1(
    model: Backbone, images: ImageSet, classes: Sequence[str], batch_size: int
) -> float:
    frame, data_config, scored_indices = prepare_scoring(
        model,
        images.frame,
        classes,
        protocol=images.protocol,
        preprocess=images.preprocess,
        wnids=images.classes,
    )
    local_frame = frame.iloc[
        distributed.get_rank() :: distributed.get_world_size()
    ]  # each image in one process: none is counted twice
    local_correct = (
        predict_images(model, local_frame, images.root, data_config, scored_indices, batch_size)[
            "correct"
        ].sum()
        if len(local_frame)
        else 0
    )
    correct, image_count = distributed.all_reduce_sum(
        (float(local_correct), float(len(local_frame)))
    )
    return correct / image_count
