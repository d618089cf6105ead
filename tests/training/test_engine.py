"""What the engines of data-parallel training need, in one process."""

import copy

import pytest
import torch

from densecl import distributed
from densecl.config.params import DenseContrastParams
from densecl.contrast import NewKeys
from densecl.training.gathering import KeyPart, gather_ranks
from densecl.training.votes import Decision, Votes
from tests.training.test_optimisation import stepper
from tests.training.test_trainer import CONTRASTS, batch_of

NONE = Decision(stop=False, save=False)


@pytest.mark.parametrize("mode", ["dense", "global", "none"])
def test_checkpointed_activations_change_no_bit(mode):
    ends = []
    for checkpointed in (False, True):
        learner = stepper(CONTRASTS[mode], checkpoint_activations=checkpointed)
        torch.manual_seed(0)
        for step in range(3):
            metrics = learner(batch_of(8), 0.5, step, diagnostics=True)
        ends.append([*metrics.values(), *learner.model.state_dict().values()])
    assert all(torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in zip(*ends, strict=True))


def test_a_rehearsal_changes_nothing_but_the_drawn_samples():
    learner = stepper(CONTRASTS["dense"], ema_decay=0.9)
    learner(batch_of(8), 0.5, 0)
    before = {k: v.clone() for k, v in learner.engine.parts.state_dict().items()}
    moments = [s["exp_avg"].clone() for s in learner.optimizer.state.values()]
    learner.rehearse(4)
    after = learner.engine.parts.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(
        torch.equal(a, s["exp_avg"])
        for a, s in zip(moments, learner.optimizer.state.values(), strict=True)
    )
    assert all(p.grad is None for p in learner.parameters)


def test_a_state_restores_every_weight_and_moment():
    first, second = (stepper(CONTRASTS["global"], layer_decay=0.7) for _ in range(2))
    for step in range(2):
        first(batch_of(8), 0.5, step)
    second.load_state(copy.deepcopy(first.collect_state()))
    ends = [learner(batch_of(8), 0.5, 2) for learner in (first, second)]
    assert all(
        torch.equal(ends[0][name].nan_to_num(), ends[1][name].nan_to_num()) for name in ends[0]
    )
    states = [learner.engine.parts.state_dict() for learner in (first, second)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_a_state_before_the_first_step_has_no_moments():
    """torch would take a step of its own to make some, and count it."""
    learner = stepper(None)
    state = learner.collect_state()
    assert state["optimizer"] is None
    learner.load_state(state)
    assert not learner.optimizer.state


def test_keys_per_image_bound_the_new_keys():
    for settings in (
        DenseContrastParams(patches_per_image=50, dense_dim=8),  # of 16 patches
        DenseContrastParams(patches_per_image=5, memory_per_image=3, dense_dim=8),
        DenseContrastParams(memory_unit="image", dense_dim=8),
        DenseContrastParams(correspondence_filter="mutual", dense_dim=8),
        CONTRASTS["global"],
        None,
    ):
        learner = stepper(settings)
        for keys in learner.scorer(batch_of(4)).new_keys:
            limit = 4 * learner.objective.keys_per_image
            assert len(keys.image_ids) <= limit
            assert len(keys.image_ids) == limit or learner.objective.keys_vary


def keys_of(rows: list[int]) -> NewKeys:
    ids = torch.tensor(rows, dtype=torch.long)
    return NewKeys(ids[:, None] * torch.ones(1, 2), ids, ids % 3)


def test_gathered_keys_are_in_the_order_of_one_process(monkeypatch):
    """Two ranks, two parts; the filter has left rank 0 two rows and one, rank 1 none and two."""
    ranks = [[keys_of([0, 1]), keys_of([4])], [keys_of([]), keys_of([6, 7])]]

    def all_gather(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        other = NewKeys.concatenate(keys.pad(2) for keys in ranks[1])
        return tuple(
            torch.stack(pair) for pair in zip(tensors, (tensors[0] + 2, *other), strict=True)
        )

    monkeypatch.setattr(distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(distributed, "all_gather", all_gather)
    own = [KeyPart(keys, 2) for keys in ranks[0]]
    keys, metrics = gather_ranks(own, keys_vary=True, metrics={"loss": torch.tensor(1.0)})
    assert keys.image_ids.tolist() == [0, 1, 4, 6, 7]
    assert keys.class_ids.tolist() == [0, 1, 1, 0, 1]
    assert keys.features[:, 0].tolist() == [0, 1, 4, 6, 7]
    assert float(metrics["loss"]) == 2


def test_one_process_decides_at_once_and_casts_no_vote():
    votes = Votes(torch.device("cpu"))
    assert votes.cast() == {}
    assert votes.decide(Decision(stop=True, save=False)) == Decision(stop=True, save=False)


def create_ranks(monkeypatch, device: str) -> list[Votes]:
    """Votes of two ranks; on a GPU those of the last step are still on their way."""
    monkeypatch.setattr(distributed, "get_world_size", lambda: 2)
    ranks = [Votes(torch.device("cpu")) for _ in range(2)]
    for rank in ranks:
        rank.is_async = device == "cuda"
    return ranks


def decide_step(ranks: list[Votes], wishes: list[Decision]) -> Decision:
    """What both ranks do after a step."""
    cast = [rank.cast() for rank in ranks]
    means = {name: (cast[0][name] + cast[1][name]) / 2 for name in cast[0]}
    assert all(set(rank.count({"loss": torch.tensor(1.0)} | means)) == {"loss"} for rank in ranks)
    decided = {rank.decide(wish) for rank, wish in zip(ranks, wishes, strict=True)}
    assert len(decided) == 1
    return decided.pop()


@pytest.mark.parametrize(("device", "delay"), [("cpu", 1), ("cuda", 2)])
def test_ranks_decide_alike_once_the_votes_have_been_counted(monkeypatch, device, delay):
    ranks = create_ranks(monkeypatch, device)
    decisions = [
        decide_step(ranks, [NONE, Decision(stop=step == 0, save=False)]) for step in range(4)
    ]
    assert [decision.stop for decision in decisions] == [step == delay for step in range(4)]


@pytest.mark.parametrize("lag", [0, 1])
@pytest.mark.parametrize(("device", "delay"), [("cpu", 1), ("cuda", 2)])
def test_a_due_checkpoint_is_saved_once(monkeypatch, device, delay, lag):
    """Due 10 steps after the last one, on the second rank `lag` steps later."""
    ranks, saved = create_ranks(monkeypatch, device), [0]
    for step in range(1, 41):
        wishes = [Decision(False, step - saved[-1] >= 10 + late) for late in (0, lag)]
        if decide_step(ranks, wishes).save:
            saved.append(step)
    assert saved == list(range(0, 41, 10 + delay))
