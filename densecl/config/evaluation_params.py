"""Sections of `params.yaml` beside training: `cost`, `evaluate`, `report`, `retraining`."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, PositiveInt, model_validator

from densecl.config.base import Count, Fraction, NonEmptyNames, Positive, StrictModel
from densecl.config.model_params import OtherModelParams, check_model_names
from densecl.config.probe_params import ProbesParams

PublishedGroups = Literal["cue-conflict", "imagenet-9", "objectnet"]
Combination = Literal["max", "mean"]
OutsideRule = Literal["masked", "wrong"]


class ClassGroupsParams(StrictModel):
    """How a dataset is scored whose folders are groups of classes."""

    groups: PublishedGroups | dict[str, NonEmptyNames] = Field(
        description="wnids by group, the name of a folder; or the name of a published list"
    )
    combine: Combination = Field(
        default="max", description="value of a group: of its classes' probabilities"
    )
    outside: OutsideRule = Field(
        default="masked",
        description="classes of no group: masked, or a prediction of one is wrong",
    )

    @model_validator(mode="after")
    def _check_groups(self) -> Self:
        if isinstance(self.groups, str):
            return self
        if len(self.groups) < 2:
            raise ValueError(f"groups: found {len(self.groups)}, expected 2 or more")
        group_of: dict[str, str] = {}
        for group, wnids in self.groups.items():
            for wnid in wnids:
                if group_of.setdefault(wnid, group) != group:
                    raise ValueError(
                        f"groups: found {wnid} in {group_of[wnid]!r} and in {group!r}, expected "
                        f"each class in one group; remove it from the other"
                    )
        return self


class EvaluateParams(StrictModel):
    datasets: NonEmptyNames = Field(
        description="datasets to evaluate; must include imagenet, the control of the others"
    )
    batch_size: Count = Field(default=256, description="images per batch")
    # Where results are kept, not what they are: in no plan file that a stage depends on.
    cell_cache: Annotated[str, Field(min_length=1)] | None = Field(
        default="cache/evaluation",
        exclude=True,
        description="folder or fsspec URL (s3://bucket/prefix) of kept predictions, which machines "
        "may share; only missing predictions are computed; null: no cache",
    )
    require: Literal["all", "present"] = Field(
        default="all", description="present: missing or failing datasets are reported and skipped"
    )
    preprocess: dict[str, Literal["model", "as-is"]] = Field(
        default={},
        description="per dataset: the model's own preprocessing, or as-is for images that have the "
        "input size; otherwise the protocol's",
    )
    protocol: dict[str, str] = Field(
        default={},
        description="per dataset: a protocol of densecl/evaluation/protocols.py; otherwise the one "
        "of its own name, or folder",
    )
    classes: dict[str, NonEmptyNames] = Field(
        default={}, description="per dataset: wnids of the classes that it is scored over"
    )
    class_groups: dict[str, ClassGroupsParams] = Field(
        default={},
        description="per dataset whose folders are groups of classes (layout groups): its groups, "
        "where they are not those of its protocol",
    )
    probes: ProbesParams = ProbesParams()
    models: Annotated[dict[str, OtherModelParams], AfterValidator(check_model_names)] = Field(
        default={},
        description="models to evaluate beside the modes, by name (docs/probes/other-models.md)",
    )


class CostParams(StrictModel):
    """When the stage `cost` stops measuring."""

    seconds: Positive = Field(
        default=100.0, description="seconds after which timing stops in any case"
    )
    images: PositiveInt | None = Field(
        default=None,
        description="images of a timed step, at most those of a training step (the default); fewer "
        "give shorter steps and so narrower intervals where the machine is not quiet",
    )
    precision: Positive = Field(
        default=0.03,
        description="timing stops earlier once each interval is narrower than this share of its "
        "ratio",
    )


class ReportParams(StrictModel):
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = Field(
        default=0.95, description="confidence level of all intervals and tests"
    )


class GateParams(StrictModel):
    """What a candidate must show compared with the champion and the anchor, on the same images."""

    margin: Fraction = Field(
        default=0.01,
        description="non-inferiority margin on validation: the lower confidence bound of "
        "(candidate - champion) must exceed -margin",
    )
    cumulative_margin: Fraction | None = Field(
        default=None,
        description="the same margin against the anchor, however many champions came in between; "
        "null: margin",
    )
    max_drop: Fraction = Field(
        default=0.02,
        description="maximum drop on any dataset: a larger one that is statistically significant "
        "rejects the candidate",
    )
    minimum: dict[str, Fraction] = Field(
        default={},
        description="per dataset: minimum top-1 of every candidate; on validation it must always "
        "exceed chance",
    )

    @property
    def anchor_margin(self) -> float:
        """Non-inferiority margin against the anchor."""
        return self.margin if self.cumulative_margin is None else self.cumulative_margin

    @property
    def anchor_max_drop(self) -> float:
        """Maximum drop against the anchor on any dataset."""
        return max(self.max_drop, self.anchor_margin)

    @model_validator(mode="after")
    def _check_margins(self) -> Self:
        if self.anchor_margin < self.margin:
            raise ValueError(
                f"cumulative_margin: found {self.cumulative_margin:g}, expected at least margin "
                f"({self.margin:g}): one step may not fall further than all of them; raise it or "
                "lower margin"
            )
        return self


class NotifyParams(StrictModel):
    webhook: str | None = Field(
        default=None,
        description="http(s) address that receives the outcome as JSON (Slack displays it), or "
        "$NAME of the environment variable that holds the address",
    )
    file: str | None = Field(
        default=None,
        description="file to which the outcome is appended, one JSON line per retraining",
    )


class RetrainingParams(StrictModel):
    """Read by `python -m pipelines retraining` only: a change reruns no stage."""

    mode: str | None = Field(
        default=None, description="mode of the candidate; null: the first entry of modes"
    )
    registry: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")] = Field(
        default="densecl-vit", description="name of the model in MLflow's registry"
    )
    anchor: Count | None = Field(
        default=None,
        description="version that was champion and that no later candidate may fall behind; null: "
        "the one last promoted by hand, or the first champion",
    )
    gate: GateParams = GateParams()
    git: Literal["tag", "commit", "off"] = Field(
        default="tag",
        description="record params, dvc.lock and small reports of each retraining in git: under a "
        "tag, or also as commits of branch",
    )
    branch: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9/_-]*$")] = Field(
        default="retraining", description="branch of those commits"
    )
    notify: NotifyParams = NotifyParams()
