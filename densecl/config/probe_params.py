"""Section `evaluate.probes` of `params.yaml`, and `transfer`: the images that some probes need.

A probe runs where its key is present: `corruptions: {}` measures it with its defaults.
"""

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from densecl.config.base import (
    CONTROL_SET,
    Count,
    Fraction,
    NonEmptyNames,
    Positive,
    StrictModel,
)

# ImageNet-C's; the first are those of mCE.
MCE_CORRUPTIONS = (
    "gaussian_noise",
    "shot_noise",
    "impulse_noise",
    "defocus_blur",
    "glass_blur",
    "motion_blur",
    "zoom_blur",
    "snow",
    "frost",
    "fog",
    "brightness",
    "contrast",
    "elastic_transform",
    "pixelate",
    "jpeg_compression",
)
EXTRA_CORRUPTIONS = (
    "gaussian_blur",
    "saturate",
    "spatter",
    "speckle_noise",
)

Fractions = Annotated[tuple[Fraction, ...], Field(strict=False, min_length=1)]
Counts = Annotated[tuple[Count, ...], Field(strict=False, min_length=1)]


def check_rising(strengths: tuple[float, ...]) -> tuple[float, ...]:
    """ValueError unless they rise: the area under their curve ends at the last."""
    if list(strengths) != sorted(set(strengths)) or strengths[-1] == 0:
        raise ValueError(f"found {list(strengths)}, expected rising numbers, the last above 0")
    return strengths


Rising = (Field(strict=False, min_length=1), AfterValidator(check_rising))
RisingFractions = Annotated[tuple[Fraction, ...], *Rising]
Degrees = Annotated[tuple[Annotated[float, Field(ge=0, le=180)], ...], *Rising]
RisingBelowOne = Annotated[tuple[Annotated[float, Field(ge=0, lt=1)], ...], *Rising]

# The authors' code draws one of these; a sixth that lies beside them is never drawn.
FROST_FILES = ("frost1.png", "frost2.png", "frost3.png", "frost4.jpg", "frost5.jpg")


class TransferParams(StrictModel):
    """Images that no mode is trained on, with class folders, masks or boxes, for probes."""

    root: str = Field(
        description="folder or archive of the images, with or without folders of classes"
    )
    tracked_by: str = Field(
        description="folder or file whose content DVC hashes to detect a change; it should cover "
        "masks and boxes too"
    )
    layout: Literal["folders", "voc", "ade20k"] = Field(
        default="folders",
        description="folders: any folder of images, classes by folder; voc, ade20k: as unpacked",
    )
    split: str | None = Field(
        default=None,
        description="images to use: a list of voc's ImageSets such as `val` or `Main/val`, or a "
        "folder of ade20k's images, `training` or `validation`; null: all",
    )
    masks: str | None = Field(
        default=None,
        description="layout folders: folder of masks, a .png per image under the same relative "
        "name; voc and ade20k have their own",
    )
    mask_values: Literal["object", "classes"] | None = Field(
        default=None,
        description="what the values of `masks` are. object: the one object of the image, of the "
        "class of its folder, where at least 128. classes: the index of each pixel's class, 0 the "
        "background and 255 ignored",
    )
    boxes: str | None = Field(
        default=None,
        description="layout folders: folder of boxes in the XML of VOC, one .xml per image under "
        "the same relative name; voc has its own",
    )

    @model_validator(mode="after")
    def _check_layout(self) -> Self:
        for name in ("root", "masks", "boxes"):
            if "://" in (getattr(self, name) or ""):
                raise ValueError(
                    f"found {getattr(self, name)} as {name}, expected a folder or an archive on "
                    "this machine: only datasets are read from a store"
                )
        own = {"masks": self.masks, "mask_values": self.mask_values, "boxes": self.boxes}
        given = [name for name, value in own.items() if value is not None]
        if self.layout != "folders" and given:
            raise ValueError(
                f"found layout {self.layout} with {', '.join(given)}; expected none of them, "
                f"which {self.layout} has itself"
            )
        if self.layout == "folders" and self.split is not None:
            raise ValueError(
                f"found layout folders with split {self.split}; expected no split: all images "
                "below the root are used; use a folder of links to some of them"
            )
        if self.masks is not None and Path(self.masks).resolve() == Path(self.root).resolve():
            raise ValueError(
                f"found {self.masks} as root and as masks, expected two folders: a mask is an "
                "image file too, and would be taken for one"
            )
        if (self.masks is None) != (self.mask_values is None):
            raise ValueError(
                f"found masks {self.masks} with mask_values {self.mask_values}; expected both or "
                "neither: mask_values says whether the masks show an object or indices of classes"
            )
        return self


class ProbeParams(StrictModel):
    """What every probe's params tell: the images and files that decide its result, beside the
    validation images.
    """

    input_key: ClassVar[str] = ""
    takes_boxes: ClassVar[bool] = False  # where an entry has no masks

    @property
    def transfer_names(self) -> tuple[str, ...]:
        """Entries of `transfer`."""
        return tuple(self.masked_entries.values())

    @property
    def masked_entries(self) -> dict[str, str]:
        """Those that are used by their masks, by the key that names them."""
        return {}

    @property
    def input_files(self) -> tuple[str, ...]:
        """Other files, in the folder that `input_key` names."""
        return ()

    @property
    def uses_training_images(self) -> bool:
        return False


class OcclusionParams(ProbeParams):
    """Patches dropped or covered (Naseer et al. 2021)."""

    input_key: ClassVar[str] = "reference"

    shares: RisingFractions = Field(
        default=(0.25, 0.5, 0.75),
        description="rising shares of patches that are dropped, and of the area that is covered",
    )
    masks: str | None = Field(
        default=None,
        description="entry of `transfer` whose masks show the objects of the validation images: "
        "what is salient for all modes alike",
    )
    reference: str | None = Field(
        default=None,
        description="weights whose attention tells what is salient where there are no masks: a "
        "folder with model.safetensors and config.json, as training exports it, outside models/",
    )

    @property
    def masked_entries(self) -> dict[str, str]:
        return {"masks": self.masks} if self.masks else {}

    @property
    def input_files(self) -> tuple[str, ...]:
        if self.reference is None:
            return ()
        names = ("model.safetensors", "config.json")
        return tuple(str(Path(self.reference, name)) for name in names)


class ViewpointParams(ProbeParams):
    """Warps of the validation images at graded strength."""

    rotation: Degrees = Field(
        default=(15.0, 30.0, 60.0, 90.0), description="rising degrees, either way"
    )
    scale: RisingBelowOne = Field(
        default=(0.2, 0.35, 0.5),
        description="rising shares of the side by which the image shrinks within its frame",
    )
    translation: RisingFractions = Field(
        default=(0.1, 0.2, 0.3), description="rising shifts, as shares of the side"
    )
    perspective: RisingBelowOne = Field(  # at 1 corners can meet, which no projection does
        default=(0.2, 0.4, 0.6),
        description="rising distortion scales, as torchvision's perspective",
    )


class CorruptionParams(ProbeParams):
    """ImageNet-C's corruptions, made from the validation images as they are evaluated."""

    input_key: ClassVar[str] = "frost"

    names: NonEmptyNames = Field(
        default=MCE_CORRUPTIONS, description="corruptions; the default are the 15 of mCE"
    )
    severities: Annotated[
        tuple[Annotated[int, Field(ge=1, le=5)], ...], Field(strict=False, min_length=1)
    ] = Field(default=(1, 2, 3, 4, 5), description="severities, 1 to 5")
    frost: str | None = Field(
        default=None,
        description="folder of the authors' photographs of frost; null: that of the package "
        "`imagecorruptions`, if it is installed; without either, no frost and no mCE",
    )

    @field_validator("names")
    @classmethod
    def _check_names(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        known = (*MCE_CORRUPTIONS, *EXTRA_CORRUPTIONS)
        for name in names:
            if name not in known:
                raise ValueError(
                    f"found {name!r}, expected corruptions of ImageNet-C: {', '.join(known)}"
                )
        return names

    @field_validator("names", "severities")
    @classmethod
    def _check_repetition(cls, values: tuple[str | int, ...]) -> tuple[str | int, ...]:
        repeated = sorted({str(value) for value in values if values.count(value) > 1})
        if repeated:
            raise ValueError(f"{', '.join(repeated)} named more than once")
        return values

    @property
    def frost_folder(self) -> str | None:
        """Folder of the photographs; None if there is none."""
        if self.frost is not None:
            return self.frost
        package = find_spec("imagecorruptions")  # found, not imported: it fails on today's NumPy
        folders = package.submodule_search_locations if package else None
        return str(Path(folders[0], "frost")) if folders else None

    @property
    def input_files(self) -> tuple[str, ...]:
        folder = self.frost_folder if "frost" in self.names else None
        return tuple(str(Path(folder, name)) for name in FROST_FILES) if folder else ()


class SegmentationParams(ProbeParams):
    """Classes of patches from frozen patch tokens, by a linear layer and by nearest neighbours."""

    fit: str = Field(description="entry of `transfer` with masks, to fit on")
    test: str = Field(description="entry of `transfer` with masks, to score")
    neighbours: Count = Field(default=20, description="nearest neighbours that vote")

    @property
    def masked_entries(self) -> dict[str, str]:
        return {"fit": self.fit, "test": self.test}


class CorrespondenceParams(ProbeParams):
    """Patches found again under known warps, by the similarity of frozen patch tokens."""

    images: Count = Field(default=500, description="validation images at most, evenly drawn")
    tolerances: Counts = Field(
        default=(1, 2), description="distances from the true place that count, in patches"
    )


class LocalisationParams(ProbeParams):
    """Objects found without labels, from the CLS attention and from clusters of tokens."""

    takes_boxes: ClassVar[bool] = True

    test: str = Field(description="entry of `transfer` with masks or boxes")

    @property
    def masked_entries(self) -> dict[str, str]:
        return {"test": self.test}


class FrozenFeatureParams(ProbeParams):
    """Classification by frozen features: what is fitted on, beside the training images."""

    images_per_class: Count | None = Field(
        default=None,
        description="training images of a class that are fitted on, at most; null: all, whose "
        "features take 8 bytes per dimension and image of memory",
    )
    sets: dict[str, str] = Field(
        default={},
        description="entries of `transfer` with classes: those to fit on, by those to score; of an "
        "entry that is both, half of each class is scored",
    )

    @property
    def transfer_names(self) -> tuple[str, ...]:
        return (*self.sets.values(), *self.sets)

    @property
    def uses_training_images(self) -> bool:
        return True

    @model_validator(mode="after")
    def _check_sets(self) -> Self:
        if CONTROL_SET in self.sets:
            raise ValueError(
                f"sets: found {', '.join(self.sets)} to score; expected none named {CONTROL_SET}: "
                "the validation images are scored always"
            )
        return self


class NeighbourParams(FrozenFeatureParams):
    """Classification by the nearest neighbours of frozen features."""

    k: Count = Field(default=20, description="nearest neighbours that vote")
    temperature: Positive = Field(default=0.07, description="of the votes' weights")


class LinearParams(FrozenFeatureParams):
    """Classification by a linear layer on frozen features."""


class ProbesParams(StrictModel):
    """What is measured of each model beside the accuracy on datasets (docs/evaluation.md)."""

    occlusion: OcclusionParams | None = None
    viewpoint: ViewpointParams | None = None
    corruptions: CorruptionParams | None = None
    segmentation: SegmentationParams | None = None
    correspondence: CorrespondenceParams | None = None
    localisation: LocalisationParams | None = None
    knn: NeighbourParams | None = None
    linear: LinearParams | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Those that run, in the order of the tables."""
        return tuple(name for name in type(self).model_fields if getattr(self, name) is not None)

    @property
    def transfer_names(self) -> tuple[str, ...]:
        """Entries of `transfer` that any of them needs."""
        probes: list[ProbeParams] = [getattr(self, name) for name in self.names]
        return tuple(dict.fromkeys(entry for probe in probes for entry in probe.transfer_names))
