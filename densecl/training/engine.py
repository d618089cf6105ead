"""Data-parallel training by torch's own engines: DDP, or FSDP2 for models that need its memory."""

import copy
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Literal

from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    set_model_state_dict,
)
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from densecl import distributed
from densecl.contrast.build import AnyObjective
from densecl.contrast.key_encoder import MomentumKeyEncoder
from densecl.network.heads import ProjectionHead
from densecl.network.vit import Backbone
from densecl.training.batch_scorer import BatchScorer

# MB of gradients that are averaged at once, while the backward pass computes the next. All of a
# ViT-Ti are 23 MB: one bucket of torch's default of 25 would overlap with nothing.
BUCKET_MB = 5
WHOLE_STATE = StateDictOptions(full_state_dict=True)
OFFLOADED_STATE = StateDictOptions(full_state_dict=True, cpu_offload=True)  # {} but on rank 0


class Engine:
    """Scores batches such that a backward pass leaves the mean gradient of all ranks.

    With one process it is the scorer itself. Build it before the optimizer: FSDP2 replaces the
    parameters by shards.
    """

    def __init__(
        self,
        scorer: BatchScorer,
        objective: AnyObjective,
        ema_model: Backbone | None,
        parallel: Literal["ddp", "fsdp"],
    ) -> None:
        self.parts = nn.ModuleDict({"model": scorer.model, "objective": objective})
        if ema_model:
            self.parts["ema"] = ema_model
        self.score: nn.Module = scorer
        self.whole_parts: nn.ModuleDict | None = None  # on the CPU
        if distributed.get_world_size() == 1:
            return
        if parallel == "ddp":
            self.score = wrap_in_ddp(scorer)
            return
        self.whole_parts = copy.deepcopy(self.parts).cpu()
        shard_scorer(scorer)
        for module in self.parts.modules():
            if isinstance(module, MomentumKeyEncoder) or module is ema_model:
                shard_copy(module)

    @property
    def is_sharded(self) -> bool:
        """Whether no rank has whole weights."""
        return self.whole_parts is not None

    def accumulate_locally(self) -> AbstractContextManager[None]:
        """Within it, DDP adds gradients without averaging them; for all micro-batches but the last.

        FSDP2 averages each, as whole gradients would need the memory that it saves.
        """
        if isinstance(self.score, DistributedDataParallel):
            return self.score.no_sync()
        return nullcontext()

    @contextmanager
    def gather_parts(self) -> Iterator[nn.ModuleDict]:
        """`model`, `objective` and `ema` with whole weights; every rank must enter."""
        if self.whole_parts is None:
            yield self.parts
            return
        device = next(self.parts.parameters()).device
        self.whole_parts.load_state_dict(get_model_state_dict(self.parts, options=WHOLE_STATE))
        yield self.whole_parts.to(device)
        self.whole_parts.cpu()

    def collect_weights(self) -> dict[str, Any]:
        """The whole state of `parts` on the CPU of rank 0; every rank must call it."""
        return get_model_state_dict(self.parts, options=OFFLOADED_STATE)

    def load_weights(self, weights: dict[str, Any]) -> None:
        """Load what `collect_weights` returned, with any engine."""
        set_model_state_dict(self.parts, weights, options=WHOLE_STATE)


def wrap_in_ddp(scorer: BatchScorer) -> DistributedDataParallel:
    """DDP without messages about buffers, which no step changes."""
    return DistributedDataParallel(
        scorer,
        forward_sync_buffers=False,
        gradient_as_bucket_view=True,
        bucket_cap_mb=BUCKET_MB,
    )


def shard_scorer(scorer: BatchScorer) -> None:
    """Shard each block, each head, and the rest, which is gathered for a whole step."""
    _shard_blocks_and_heads(scorer)
    # Whole until its backward pass, which begins at once: the gradient alignment reads it too.
    last_block: Any = scorer.model.blocks[-1]
    last_block.set_reshard_after_forward(False)
    fully_shard(scorer)


def shard_copy(module: nn.Module) -> None:
    """Shard a moving average of the weights, so that it can be updated shard by shard."""
    _shard_blocks_and_heads(module)
    # No backward pass frees the whole weights of the last forward pass.
    fully_shard(module, reshard_after_forward=True)


def _shard_blocks_and_heads(root: nn.Module) -> None:
    for module in list(root.modules()):
        if isinstance(module, Backbone):
            for block in module.blocks:
                fully_shard(block)
        elif isinstance(module, ProjectionHead):
            fully_shard(module)
