"""Sections of `params.yaml` about images: `render`, `datasets`, `validate` and `data`."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from densecl.config.base import Count, Fraction, Range, StrictModel


class RenderParams(StrictModel):
    """One built-in dataset: how it is drawn, and its folder under data/rendered."""

    style: Literal["photo", "recollected", "adversarial", "rendition", "cue-conflict", "sketch"] = (
        Field(description="drawing style")
    )
    folder: Annotated[str, Field(pattern=r"^[a-z0-9-]+(/[a-z0-9-]+)*$")] = Field(
        description="folder below data/rendered"
    )
    images_per_class: Count = Field(description="images drawn per class")
    size: Annotated[int, Field(ge=32, le=512)] = Field(
        default=64, description="side of an image, in pixels"
    )
    seed: Annotated[int, Field(ge=0)] = Field(default=0, description="seed of the drawing")


class DatasetParams(StrictModel):
    """A dataset on disk: a folder or an archive."""

    root: str = Field(
        description="folder or archive of the dataset, as unpacked or downloaded (docs/datasets.md)"
    )
    tracked_by: str = Field(
        description="folder, archive or version file whose content DVC hashes to detect a change"
    )
    layout: Literal["wnid", "index", "devkit"] = Field(
        default="wnid",
        description="how images are labelled: folders named by wnid, folders named by class index "
        "(ImageNet-V2's, docs/datasets.md), or the flat validation archive with its devkit",
    )
    devkit: str | None = Field(
        default=None,
        description="ImageNet's development kit, a folder or its .tar.gz, which labels the flat "
        "validation archive",
    )
    images: Count | None = Field(
        default=None,
        description="expected number of images; null: the published number where the classes are "
        "those of ImageNet-1k, otherwise any",
    )
    classes: Count | None = Field(
        default=None, description="expected number of classes; null: as for images"
    )

    @model_validator(mode="after")
    def _check_devkit(self) -> Self:
        if (self.layout == "devkit") != (self.devkit is not None):
            raise ValueError(
                f"found layout {self.layout} with devkit {self.devkit}; expected both layout "
                "devkit and a devkit, or neither"
            )
        return self


class ValidateParams(StrictModel):
    bad_images: Literal["stop", "exclude"] = Field(
        default="stop", description="unreadable files stop the pipeline, or are excluded and listed"
    )
    minimum_per_class: Annotated[int, Field(ge=0)] = Field(
        default=1, description="minimum number of images per class"
    )


class ColorJitterParams(StrictModel):
    brightness: Annotated[float, Field(ge=0)] = Field(
        default=0.4,
        description="maximum relative change of brightness, as in torchvision's ColorJitter",
    )
    contrast: Annotated[float, Field(ge=0)] = Field(
        default=0.4, description="maximum relative change of contrast"
    )
    saturation: Annotated[float, Field(ge=0)] = Field(
        default=0.4, description="maximum relative change of saturation"
    )
    hue: Annotated[float, Field(ge=0, le=0.5)] = Field(
        default=0.1, description="maximum shift of hue, as a fraction of the colour circle"
    )


class ViewParams(StrictModel):
    scale: Range = Field(
        description="minimum and maximum area of the crop, as fractions of the image"
    )
    ratio: Range = Field(
        default=(3 / 4, 4 / 3),
        description="minimum and maximum aspect ratio of the crop, width / height",
    )
    blur: Fraction = Field(default=0.0, description="probability of a Gaussian blur")

    @model_validator(mode="after")
    def _check_ranges(self) -> Self:
        if self.scale[0] > self.scale[1] or self.scale[1] > 1:
            raise ValueError(f"scale must be two areas, low <= high <= 1, found {list(self.scale)}")
        if self.ratio[0] > self.ratio[1]:
            raise ValueError(f"ratio must be low <= high, found {list(self.ratio)}")
        return self


class DataParams(StrictModel):
    """The two augmented views per image ("Data Augmentation Strategy" of the method)."""

    cache: Literal["none", "ram"] = Field(
        default="none",
        description="ram: keep decoded training images in memory, for datasets that fit, and "
        "up to 1 GiB of the images that each epoch is validated on",
    )
    reduced_decoding: bool = Field(
        default=False,
        description="decode a training JPEG at 1/2, 1/4 or 1/8 of its size where both crops still "
        "have at least the pixels of a view on each side: faster for images several times as large "
        "as the views; a level differs by a few of 255 and a crop by less than a pixel of the view",
    )
    augment_on: Literal["cpu", "device"] = Field(
        default="cpu",
        description="where colour jitter and blur run: cpu, in the processes of the loader; "
        "device, per batch on the device that trains, for a GPU that waits for the loader. The "
        "parameters of each image are the same; levels differ by less than 1 of 255 on average",
    )
    min_overlap: Fraction = Field(
        default=0.0,
        description="minimum overlap of the two crops, as a fraction of the smaller one; view 2's "
        "crop is drawn again until it holds",
    )
    flip: Fraction = Field(default=0.5, description="probability of a horizontal flip, per view")
    color_jitter: ColorJitterParams = ColorJitterParams()
    view1: ViewParams = ViewParams(scale=(0.08, 1.0))
    view2: ViewParams = ViewParams(scale=(0.2, 1.0), blur=0.2)
    blur_sigma: Range = Field(
        default=(0.1, 2.0),
        description="minimum and maximum sigma of the blur, in pixels of a 224 px image; scaled "
        "with the input size",
    )

    @model_validator(mode="after")
    def _check_reduced_decoding(self) -> Self:
        if self.reduced_decoding and self.cache == "ram":
            raise ValueError(
                "found reduced_decoding with cache: ram, which keeps whole images; expected one of "
                "both; set cache: none or reduced_decoding: false"
            )
        return self
