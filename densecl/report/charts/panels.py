"""Layout of the charts of history.csv: small panels, grouped by question."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from densecl.config.params import CONTROL_SET

OVERLAP_BINS = (
    "0",
    "0.25",
    "0.5",
    "0.75",
)  # lower ends of the bins of overlap, as training/diagnostics.py names them
# column's part -> title, and the caption where it is not the one of the head's panel
FEATURE_TITLES = {
    "dense": ("Head", ""),
    "last": ("Last block", "The same, matched on the backbone's last block, which every mode has."),
    "before_last": (
        "Block before it",
        "The same, a block earlier: classification alone does not train the last block's patches.",
    ),
}


@dataclass(frozen=True)
class Panel:
    """Columns over epochs: `lines` in the mode's colour, one style each; `references` in neutral
    ink.
    """

    title: str
    unit: str  # written at the axis; "%" and "GiB" are converted to
    lines: dict[str, str]  # column -> its name in the legend
    caption: str  # the caption: what to look for
    references: dict[str, str] = field(default_factory=dict)
    row: str = ""  # panels of one row share their vertical scale


@dataclass(frozen=True)
class Profile:
    """Columns over bins of overlap, after the first and the last epoch."""

    title: str
    unit: str
    features: str
    caption: str
    row: str = ""


@dataclass(frozen=True)
class PanelGroup:
    question: str
    description: str
    panels: tuple[Panel | Profile, ...]


LEARNING = (
    Panel(
        "Classification loss",
        "nats",
        {"classification_loss": "loss"},
        "Should fall in every mode. A higher end under contrast is what the second objective "
        "costs.",
    ),
    Panel(
        "Training accuracy",
        "%",
        {"train_top1": "top-1", "train_top5": "top-5"},
        "On augmented training images. High here and low on the datasets below: memorised.",
    ),
    Panel(
        "Learning rate",
        "rate",
        {"learning_rate": "learning rate"},
        "Up during warm-up, then down along a cosine. Modes that share it have one line.",
    ),
)

CONTRAST = (
    Panel(
        "Contrastive loss",
        "nats",
        {"contrastive_loss": "loss", "contrastive_chance": "chance"},
        "Only the distance below chance, log(1 + negatives), was learned. Chance rises while the "
        "memory fills.",
    ),
    Panel(
        "Similarity of pairs",
        "cosine",
        {"positive_similarity": "positives", "negative_similarity": "negatives"},
        "Positives should rise away from negatives. Both near 1: all features are alike.",
    ),
    Panel(
        "Pretext top-1",
        "%",
        {"pretext_top1": "positive beats all negatives"},
        "Near 100 % early: the task is too easy to teach more. Near 0: too hard, or not learning.",
    ),
    Panel(
        "Temperature and weight",
        "value",
        {"temperature": "temperature", "lambda_weight": "lambda"},
        "Flat unless learnable_temp or contrastive_weight_adaptive is on. A temperature of 0.01 "
        "or 1 is at its bound.",
    ),
    Panel(
        "Gradient of each loss",
        "norm",
        {"gradient_classification": "classification", "gradient_contrast": "contrast"},
        "At the last block, before weighting. Far apart: at lambda 0.5 the larger one still "
        "decides.",
    ),
    Panel(
        "Gradient conflict",
        "cosine",
        {"gradient_cosine": "between the two losses"},
        "Above 0 the two losses help each other; below 0 they work against each other.",
    ),
)

COLLAPSE = (
    Panel(
        "Effective rank of images",
        "directions",
        {"rank_cls": "CLS features"},
        "Directions that the CLS features of different images really use. Under 2 they have "
        "collapsed.",
    ),
    Panel(
        "Likeness of images",
        "cosine",
        {"similarity_cls": "CLS, different images"},
        "Mean cosine between different images. Near 1 they can hardly be distinguished, whatever "
        "the "
        "rank.",
    ),
    Panel(
        "Effective rank of patches",
        "directions",
        {"rank_patches_within": "in an image", "rank_patches_across": "across images"},
        "In an image, towards 1: all its patches say the same. Across images, towards 1: patches "
        "know position only.",
    ),
)

MEMORY = (
    Panel(
        "Different images",
        "images",
        {"queue_unique_images": "in the memory"},
        "More images give more varied negatives. Dense stores many patches of each, so it holds "
        "fewer.",
    ),
    Panel(
        "Different classes",
        "classes",
        {"queue_unique_classes": "in the memory"},
        "Should soon reach the number of classes, or some classes are no negatives.",
    ),
    Panel(
        "Same-class share",
        "%",
        {"queue_same_class": "pairs of entries"},
        "Pairs of entries that share a class: pushed apart by contrast, pulled together by the "
        "labels.",
    ),
    Panel(
        "Age",
        "steps",
        {"queue_age": "mean, behind the newest"},
        "How old the features are. Old ones come from another model, unless a momentum encoder "
        "made them.",
    ),
    Panel(
        "Filled",
        "%",
        {"queue_filled": "of the memory"},
        "Only the filled part gives negatives. Under 100 % at the end: the memory is too large "
        "for the run.",
    ),
)

LOSS_PAIRS = (
    Panel(
        "Outcome of the pairs",
        "%",
        {
            "match/pairs/true": "true",
            "match/pairs/near": "near",
            "match/pairs/invisible": "not visible",
        },
        "The match is the true patch, a neighbour of it, or view 2 does not show the place. The "
        "rest is wrong: there the loss pulls different places together.",
    ),
    Panel(
        "True pairs",
        "%",
        {"match/pairs/true": "true"},
        "Above both thin lines: the loss counts what patches show, not where they are.",
        {"match/pairs/identity": "same index", "match/pairs/chance": "chance"},
    ),
    Panel(
        "Pairs per image",
        "pairs",
        {"match/pairs/per_image": "that enter the loss"},
        "What the filter leaves of the sampled patches; both directions if symmetric.",
    ),
)

COST = (
    Panel(
        "Throughput",
        "images/s",
        {"images_per_second": "speed"},
        "Two views an image. A dip: the machine was shared.",
    ),
    Panel(
        "Gradient norm",
        "norm",
        {"gradient_norm": "gradient"},
        "Before clipping, of both losses together. Above train.grad_clip the steps are cut short.",
    ),
    Panel(
        "Peak memory",
        "GiB",
        {"peak_memory_bytes": "so far"},
        "The allocator's on a GPU, the whole process's on a CPU. A steady rise: something is kept "
        "that should not be.",
    ),
)


def iter_matching_panels() -> Iterable[Panel | Profile]:
    """One row per metric, one column per kind of features."""
    measures = {
        "within0": (
            "on the true patch",
            "chance/within0",
            "Above both thin lines: patches are matched by what they show.",
        ),
        "within1": (
            "within a patch",
            "chance/within1",
            "On it or a neighbour. Only values above both thin lines were learned.",
        ),
        "moved0": (
            "views that moved",
            "chance/within0",
            "On the true patch where one view is flipped or shifted. Not above 'same index': "
            "position was learned.",
        ),
    }
    for measure, (name, chance, caption) in measures.items():
        references = {f"match/identity/{measure}": "same index", f"match/{chance}": "chance"}
        for key, (features, note) in FEATURE_TITLES.items():
            lines = {f"match/{key}/{measure}": "matched"}
            yield Panel(f"{features}: {name}", "%", lines, note or caption, references, measure)
    caption = (
        "Within a patch, by how much the crops overlap. The more they "
        "do, the better the same index does by itself."
    )
    for key, (features, note) in FEATURE_TITLES.items():
        yield Profile(f"{features}: by overlap", "%", key, note or caption, "overlap")


def build_panel_groups(
    columns: Iterable[str], titles: Mapping[str, str] = {}
) -> tuple[PanelGroup, ...]:
    """All groups; `columns` determines the validated datasets, `titles` names them."""
    datasets = dict.fromkeys(c.removeprefix("top1/") for c in columns if c.startswith("top1/"))
    validated = tuple(
        Panel(
            f"Accuracy on {titles.get(name, name)}",
            "%",
            {f"top1/{name}": "top-1", f"top5/{name}": "top-5"},
            "The control of the other datasets. Falling while training accuracy rises: overfitting."
            if name == CONTROL_SET
            else "After each epoch. The last one counts: none is chosen on this set.",
        )
        for name in datasets
    )
    return (
        PanelGroup(
            "Is it learning?",
            "The classification that every mode shares, on two views of each image.",
            LEARNING,
        ),
        PanelGroup(
            "Does it carry over?", "Watched only: no model is chosen by these curves.", validated
        ),
        PanelGroup(
            "What does contrast do?",
            "The contrastive loss, and how it pulls beside classification.",
            CONTRAST,
        ),
        PanelGroup(
            "Is anything collapsing?", "Of fixed views of up to 256 training images.", COLLAPSE
        ),
        PanelGroup(
            "Is the memory varied?",
            "What the negatives are drawn from, at the end of each epoch.",
            MEMORY,
        ),
        PanelGroup(
            "Are patches matched?",
            "Judged by where the crops lie, on the same fixed views. Columns: the features that "
            "are matched; each row has one scale. 'Same index' takes the patch at the same place, "
            "which knows position only.",
            tuple(iter_matching_panels()),
        ),
        PanelGroup(
            "Are the pairs of the loss true?",
            "Of the dense mode, on the same views: the pairs as the loss forms them, with its "
            "filter, key encoder and sampling.",
            LOSS_PAIRS,
        ),
        PanelGroup(
            "What does it cost?",
            "As it went, epoch by epoch; for a comparison, see the table above.",
            COST,
        ),
    )
