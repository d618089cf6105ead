"""The classes of the built-in images: twelve that models are trained on, and six others."""

from typing import NamedTuple


class SyntheticClass(NamedTuple):
    """A kind of object; its wnid is not a real synset, so that results are not mistaken for
    ImageNet's.
    """

    wnid: str
    name: str
    texture: str
    hue: float


_TEXTURE_AND_HUE = {
    "butterfly": ("wedges", 0.08),
    "crescent": ("rings", 0.15),
    "fish": ("scales", 0.55),
    "heart": ("dots", 0.97),
    "house": ("bricks", 0.03),
    "key": ("brushed", 0.12),
    "mug": ("bands", 0.62),
    "mushroom": ("speckles", 0.0),
    "plane": ("stripes", 0.5),
    "star": ("checks", 0.78),
    "tree": ("zigzag", 0.33),
    "umbrella": ("clouds", 0.87),
}
_NEW_TEXTURE_AND_HUE = {
    "arrow": ("scales", 0.42),
    "bell": ("bricks", 0.24),
    "boat": ("dots", 0.68),
    "bottle": ("checks", 0.92),
    "gear": ("zigzag", 0.58),
    "hammer": ("rings", 0.05),
}
SYNTHETIC_CLASSES = tuple(
    SyntheticClass(f"n9{number:07d}", name, *look)
    for number, (name, look) in enumerate(_TEXTURE_AND_HUE.items())
)
# Shapes that no training sees. Texture and colour are new in their combination only.
NEW_CLASSES = tuple(
    SyntheticClass(f"n91{number:06d}", name, *look)
    for number, (name, look) in enumerate(_NEW_TEXTURE_AND_HUE.items())
)
DRAWN_CLASSES = (*SYNTHETIC_CLASSES, *NEW_CLASSES)  # what a label of these modules counts
TRAINED_LABELS = range(len(SYNTHETIC_CLASSES))
NEW_LABELS = range(len(SYNTHETIC_CLASSES), len(DRAWN_CLASSES))
SUBSETS = {  # labels of the styles that do not show all trained classes
    "new-classes": NEW_LABELS,
    "adversarial": (0, 2, 3, 5, 6, 9, 10),
    "rendition": (1, 2, 4, 6, 8, 9, 11),
    "cue-conflict": (0, 1, 3, 4, 6, 7, 8, 10, 11),
}
