"""Sections of `params.yaml` about training: `network`, `contrast` and `train`."""

import operator
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from densecl.config.base import Count, Fraction, Mode, Names, Positive, StrictModel


class NetworkParams(StrictModel):
    """Any timm VisionTransformer, Eva or Beit with a CLS token."""

    model_name: str = Field(description="timm's name of the architecture")
    model_args: dict[str, Any] = Field(
        default={},
        description="further arguments of timm.create_model, such as img_size or drop_rate",
    )
    pretrained: bool = Field(
        default=False, description="start from timm's weights for the model, which timm downloads"
    )
    checkpoint: str | None = Field(
        default=None,
        description="start from this local state dict (.safetensors), converted by timm as if it "
        "had downloaded it",
    )

    @model_validator(mode="after")
    def _check_initial_weights(self) -> Self:
        if self.pretrained and self.checkpoint:
            raise ValueError(
                "pretrained and checkpoint exclude each other: set pretrained to false to start "
                "from the file"
            )
        return self


class GlobalContrastParams(StrictModel):
    lambda_weight: Fraction = Field(
        default=0.5,
        description="weight of the contrastive loss; classification has 1 - lambda. At 1 a linear "
        "probe is fitted after training",
    )
    contrastive_weight_adaptive: bool = Field(
        default=False,
        description="raise lambda from 0 to lambda_weight over ramp_epochs, along half a cosine",
    )
    ramp_epochs: Positive = Field(default=10.0, description="length of the lambda ramp, in epochs")
    queue_size: Count = Field(
        default=65536,
        description="entries of the memory queue; reduced, with a warning, to half of the keys "
        "that one epoch writes",
    )
    temperature: Annotated[float, Field(ge=0.01, le=1)] = Field(
        default=0.2, description="temperature of InfoNCE; its initial value if it is learned"
    )
    learnable_temp: bool = Field(
        default=False, description="learn the temperature, within [0.01, 1]"
    )
    dense_dim: Count = Field(
        default=128, description="projection dimension of the head, in both modes"
    )
    negatives: Literal["all", "other_class"] = Field(
        default="all",
        description="negatives: all entries of other images, or only those of other classes",
    )
    key_encoder: Literal["shared", "momentum"] = Field(
        default="shared",
        description="keys come from the trained weights, or from their exponential moving average",
    )
    key_momentum: Fraction = Field(
        default=0.99, description="initial momentum of the key encoder; rises to 1 during training"
    )
    symmetric: bool = Field(default=False, description="also score view 2 against view 1")


class DenseContrastParams(GlobalContrastParams):
    sampling_strategy: Literal["random", "diverse", "hardest"] = Field(
        default="random", description="how the patches of view 1 that become queries are sampled"
    )
    patches_per_image: Count = Field(
        default=50, description="sampled patches per image; all of them where it has fewer"
    )
    correspondence_features: Literal["dense", "backbone", "geometric"] = Field(
        default="dense",
        description="patches are matched by the head's features, by the backbone's, or by the "
        "geometry of the crops",
    )
    correspondence_filter: Literal["none", "mutual", "threshold"] = Field(
        default="none",
        description="matches that are used: all, mutual nearest neighbours, or those whose cosine "
        "reaches correspondence_threshold",
    )
    correspondence_threshold: Annotated[float, Field(ge=-1, le=1)] = Field(
        default=0.5, description="minimum cosine of a match, for the filter of that name"
    )
    memory_unit: Literal["patch", "image"] = Field(
        default="patch",
        description="what the queue stores per image: its sampled keys, or one pooled key",
    )
    memory_per_image: Count | None = Field(
        default=None, description="maximum number of keys stored per image; null: every sampled key"
    )

    @model_validator(mode="after")
    def _check_exclusive_options(self) -> Self:
        if self.correspondence_features == "geometric" and self.correspondence_filter != "none":
            raise ValueError(
                f"correspondence_filter: found {self.correspondence_filter}, expected none: "
                "geometric matches are always true"
            )
        if self.memory_unit == "image" and self.memory_per_image is not None:
            raise ValueError(
                f"memory_per_image: found {self.memory_per_image}, expected null: memory_unit "
                "image stores one pooled key per image"
            )
        return self


class ContrastParams(DenseContrastParams):
    """Values of both contrastive modes, and overrides per mode."""

    dense: dict[str, Any] = Field(
        default={}, description="keys of this section that differ in mode dense"
    )
    global_: dict[str, Any] = Field(
        default={}, alias="global", description="keys of this section that differ in mode global"
    )

    def resolve_mode(self, mode: Mode) -> GlobalContrastParams | None:
        """The values that `mode` reads; None for mode none."""
        if mode == "none":
            return None
        mode_type: type[GlobalContrastParams] = (
            DenseContrastParams if mode == "dense" else GlobalContrastParams
        )
        base = {name: getattr(self, name) for name in mode_type.model_fields}
        return mode_type.model_validate(base | (self.dense if mode == "dense" else self.global_))


class TrainParams(StrictModel):
    batch_size: Count = Field(default=256, description="images per step, each in two views")
    epochs: Count = Field(default=100, description="passes over the training dataset")
    grad_accumulation: Count = Field(
        default=1, description="micro-batches per step, processed one after the other"
    )
    learning_rate: Positive = Field(default=1e-5, description="peak learning rate")
    learning_rate_batch: Count | None = Field(
        default=None,
        description="batch size for which learning_rate is given; it is scaled linearly to "
        "batch_size. null: learning_rate is absolute",
    )
    layer_decay: Annotated[float, Field(gt=0, le=1)] | None = Field(
        default=None,
        description="factor of the learning rate from each block to the one before it; null: one "
        "rate for all",
    )
    drop_path: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.0, description="rate of stochastic depth in the last block"
    )
    ema_decay: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        default=None,
        description="decay of the exponential moving average of the weights, which is then "
        "exported; null: the weights themselves are",
    )
    precision: Literal["fp32", "tf32", "bf16"] = Field(
        default="fp32",
        description="precision of the products of backbone, heads and memory queue: tf32 and bf16 "
        "lower them; evaluation is always fp32",
    )
    compile: bool = Field(
        default=False,
        description="torch.compile each transformer block; pays off where training takes hours",
    )
    weight_decay: Annotated[float, Field(ge=0)] = Field(
        default=0.05,
        description="weight decay of AdamW; norms, biases, position embeddings and the temperature "
        "have none",
    )
    warmup_epochs: Annotated[float, Field(ge=0)] = Field(
        default=5.0, description="epochs of linear learning rate warm-up; fewer than epochs"
    )
    grad_clip: Positive | None = Field(
        default=5.0, description="maximum gradient norm; null: no clipping"
    )
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.0, description="label smoothing of the classification loss"
    )
    random_erasing: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.0,
        exclude_if=operator.not_,  # as in plans from before it
        description="probability that rectangles of a view, each of 2 to 33 % of its area, are "
        "painted over with the mean colour (docs/variants.md)",
    )
    random_erasing_count: Count = Field(
        default=1,
        exclude_if=lambda count: count == 1,
        description="rectangles of a view that random_erasing paints over; they may overlap",
    )
    steps_per_epoch: Count | None = Field(
        default=None,
        description="end each epoch after this many steps, for trials; null: all images",
    )
    threads: Count | None = Field(
        default=None,
        description="threads of each training process; weights depend on it in their last bits. "
        "null: 1 on a CPU, whatever its cores; on a GPU, OMP_NUM_THREADS (1 if unset)",
    )
    # How a run is carried out, not what it computes: in no plan file that a stage depends on, so a
    # change reruns nothing.
    checkpoint_minutes: Annotated[Positive, Field(exclude=True)] = Field(
        default=10.0,
        description="minutes between checkpoints within an epoch; each epoch ends with one",
    )
    processes: Annotated[Count, Field(exclude=True)] = Field(
        default=1, description="processes on each machine that share each batch"
    )
    parallel: Annotated[Literal["ddp", "fsdp"], Field(exclude=True)] = Field(
        default="ddp",
        description="torch's engine with several processes: ddp copies the model to each, fsdp "
        "shards it, for models too large for that; weights differ in their last bits",
    )
    checkpoint_activations: Annotated[bool, Field(exclude=True)] = Field(
        default=False,
        description="compute each transformer block again in the backward pass instead of storing "
        "its activations: one forward pass more, less memory, the same bits",
    )
    validate_on: Names | None = Field(
        default=None,
        description="datasets whose top-1 and top-5 are logged after each epoch; null: all "
        "evaluated",
    )

    @property
    def peak_learning_rate(self) -> float:
        """Peak learning rate at this batch size (Goyal et al. 2017)."""
        batch = self.learning_rate_batch
        return self.learning_rate * (self.batch_size / batch if batch else 1)

    @model_validator(mode="after")
    def _check_numbers(self) -> Self:
        if self.warmup_epochs >= self.epochs:
            raise ValueError(
                f"warmup_epochs must be below epochs ({self.epochs}), found {self.warmup_epochs}"
            )
        if self.random_erasing_count > 1 and not self.random_erasing:
            raise ValueError(
                f"random_erasing_count: found {self.random_erasing_count} where random_erasing is "
                "0, expected a probability of random_erasing to go with it"
            )
        if self.batch_size % (self.grad_accumulation * self.processes):
            raise ValueError(
                f"grad_accumulation x processes: found {self.grad_accumulation} x "
                f"{self.processes}, expected a divisor of batch_size ({self.batch_size}): each "
                "process takes the same part of every micro-batch"
            )
        return self
