"""Sections of `params.yaml` about images: `render`, `datasets`, `validate` and `data`."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from densecl.config.base import Count, Fraction, Range, StrictModel


class RenderParams(StrictModel):
    """Built-in images, a dataset or an entry of `transfer`: how they are drawn, and their folder
    under data/rendered.
    """

    style: Literal[
        "photo",
        "viewpoint",
        "new-classes",
        "recollected",
        "adversarial",
        "rendition",
        "cue-conflict",
        "sketch",
    ] = Field(description="drawing style; new-classes: photographs of six shapes that no other has")
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
        description="folder or archive of the dataset, as unpacked or downloaded, or shards at "
        "s3://, gs:// or file:// (layouts webdataset and parquet): a folder, a prefix or a list "
        "such as s3://bucket/train-{000000..000146}.tar (docs/datasets.md)"
    )
    tracked_by: str = Field(
        description="folder, archive or version file whose content DVC hashes to detect a change; "
        "of shards at s3:// and the like their index, which plan writes and git keeps, such as "
        "shards/imagenet-train.json"
    )
    layout: Literal["wnid", "index", "groups", "devkit", "kaggle", "webdataset", "parquet"] = Field(
        default="wnid",
        description="how images are labelled: folders named by wnid, folders named by class index "
        "(ImageNet-V2's, docs/datasets.md), folders named by group of classes (evaluate."
        "class_groups), the flat validation archive with its devkit, Kaggle's CLS-LOC, tars of "
        "webdataset, or Parquet files of Hugging Face",
    )
    class_map: str | None = Field(
        default=None,
        description="CSV with the columns folder and class: the class of each folder, where it is "
        "not the folder's name; other folders are left out and counted",
    )
    class_list: str | None = Field(
        default=None,
        description="file with one class per line, in the order of integer labels (layouts "
        "webdataset and parquet), where the dataset does not name its classes or names them "
        "otherwise than the train set",
    )
    split: str | None = Field(
        default=None,
        description="which of several splits in one folder (layouts webdataset and parquet), by "
        "the names of the files: train of train-00000-of-00294.parquet",
    )
    title: str | None = Field(
        default=None,
        min_length=1,
        max_length=60,
        pattern=r"^[^\x00-\x1f\x7f]+$",  # one line in a terminal
        exclude_if=lambda title: title is None,
        description="name in tables, pages and messages, such as Our photographs; null: the name "
        "of the entry, which also says how the dataset is scored",
    )
    devkit: str | None = Field(
        default=None,
        description="ImageNet's development kit, a folder or its .tar.gz, which labels the flat "
        "validation archive",
    )
    recursive: bool = Field(
        default=False,
        description="images in subfolders of a class folder, at any depth, belong to its class; "
        "false: they are counted and left out",
    )
    follow_links: Literal["anywhere", "inside"] = Field(
        default="anywhere",
        description="links to files and folders that are followed: all, or, of a dataset that you "
        "do not trust, only those to places below its root",
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
        has_shards = self.layout in ("webdataset", "parquet")
        if "://" in self.root and not has_shards:
            raise ValueError(
                f"found layout {self.layout} with root {self.root}, expected webdataset or "
                "parquet: only shards are read from a store; `python -m steps pack` writes some"
            )
        if "://" in self.tracked_by:
            raise ValueError(
                f"found tracked_by {self.tracked_by}, expected a local file, which plan writes: "
                "the index of the shards, such as shards/imagenet-train.json"
            )
        if "://" in self.root and not self.tracked_by.endswith(".json"):
            raise ValueError(
                f"found tracked_by {self.tracked_by} of the shards at {self.root}, expected a "
                ".json file, which plan writes: their index, such as shards/imagenet-train.json"
            )
        if not has_shards and (self.class_list is not None or self.split is not None):
            raise ValueError(
                f"found layout {self.layout} with class_list or split, expected webdataset or "
                "parquet; remove them, or name the class of each folder in class_map"
            )
        if self.class_map is not None and self.layout != "wnid":
            raise ValueError(
                f"found layout {self.layout} with class_map, expected wnid: the map says the class "
                "of each folder; remove one of both"
            )
        return self


class ValidateParams(StrictModel):
    bad_images: Literal["stop", "exclude"] = Field(
        default="stop",
        description="unreadable files, and images of evaluation datasets that are in the train set "
        "too, stop the pipeline, or are excluded and listed",
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
    exif: Literal["ignore", "apply"] = Field(
        default="ignore",
        description="EXIF orientation: ignore, as timm and torchvision do for the published "
        "datasets; apply, images are turned upright in training, evaluation and serving",
    )
    order: Literal["images", "shards"] = Field(
        default="images",
        exclude_if=lambda order: order == "images",  # as in plans that know no other
        description="order of an epoch: images, all of them drawn anew; shards, blocks of shards "
        "drawn anew and the images of a block drawn in it, for a train set that is larger than the "
        "cache of a machine (docs/datasets.md). It is another order, so another result",
    )
    block_shards: Count = Field(
        default=16,
        exclude_if=lambda shards: shards == 16,
        description="shards of a block of order: shards; a machine needs room for two blocks",
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
