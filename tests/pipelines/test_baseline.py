"""A kill at any moment between the verdict and the baseline leaves neither a champion that is
judged anew nor one lost.
"""

from pathlib import Path

import pytest

from densecl import paths
from densecl.errors import DataError
from pipelines.gate import drift
from pipelines.registry import baseline, commands, registry
from pipelines.schemas import SourceChanges
from tests.pipelines.conftest import verdict
from tests.pipelines.factories import small_params

NAME = "densecl-vit"


class Killed(BaseException):
    """In place of a signal."""


def write(text: str) -> None:
    for name in small_params().datasets:
        paths.manifest_file(name).parent.mkdir(parents=True, exist_ok=True)
        paths.manifest_file(name).write_text(text)


def remembered() -> set[str]:
    return {path.read_text() for path in paths.BASELINE.glob("*.parquet")}


@pytest.fixture
def seen(project) -> SourceChanges:
    """What was before, in the baseline, and what is new, in the manifests."""
    write("before")
    found = SourceChanges(sets=(), params=(), made_of={"a": 1})
    paths.BASELINE.mkdir(parents=True)
    drift.write_baseline(small_params(), found, paths.BASELINE)
    write("new")
    return found


@pytest.mark.parametrize(
    ("promoted", "moved", "counts"),
    [
        (True, True, "new"),
        (True, False, "before"),  # the candidate is judged again, and found as the same version
        (False, False, "new"),
    ],
)
def test_the_baseline_follows_the_registry(trained, seen, promoted, moved, counts):
    made = registry.register_model(NAME, trained("a"), verdict(promoted), {})
    baseline.write_next_baseline(small_params(), seen, made)
    assert remembered() == {"before"}
    if moved:
        registry.promote_version(NAME, made.version, "ann", "the gate")
    write("newer still")
    baseline.resolve_next_baseline()
    assert remembered() == {counts}
    assert not paths.BASELINE_NEXT.exists()


def test_a_kill_while_the_baseline_is_accepted_is_recovered(trained, seen, monkeypatch):
    made = registry.register_model(NAME, trained("a"), verdict(), {})
    registry.promote_version(NAME, made.version, "ann", "the gate")
    baseline.write_next_baseline(small_params(), seen, made)

    def killed(*_):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", killed)
        with pytest.raises(Killed):
            baseline.resolve_next_baseline()
    assert remembered() == set()
    baseline.resolve_next_baseline()
    assert remembered() == {"new"}
    assert not paths.BASELINE_NEXT.exists()


def test_a_proposal_that_was_not_finished_does_not_count(trained, seen, monkeypatch):
    made = registry.register_model(NAME, trained("a"), verdict(), {})

    def killed(*_):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(baseline, "write_json", killed)
        with pytest.raises(Killed):
            baseline.write_next_baseline(small_params(), seen, made)
    baseline.resolve_next_baseline()
    assert remembered() == {"before"}
    assert not paths.BASELINE_NEXT.exists()


@pytest.mark.parametrize("lost", ["*.parquet", paths.BASELINE_PLAN.name, "version.json"])
def test_a_damaged_proposal_does_not_replace_a_baseline(trained, seen, lost):
    made = registry.register_model(NAME, trained("a"), verdict(), {})
    registry.promote_version(NAME, made.version, "ann", "the gate")
    baseline.write_next_baseline(small_params(), seen, made)
    for path in paths.BASELINE_NEXT.glob(lost):
        if path == baseline.VERSION_FILE:
            path.write_text("\0")
        else:
            path.unlink()
    with pytest.raises(DataError, match=f"; remove {paths.BASELINE_NEXT}: the changes are then "):
        baseline.resolve_next_baseline()
    assert remembered() == {"before"}


def test_a_rollback_after_a_kill_is_not_undone_by_the_next_retraining(trained, seen):
    """The candidate had been judged: dropping its baseline would judge and promote it again."""
    for name in ("a", "b"):
        made = registry.register_model(NAME, trained(name), verdict(), {})
        registry.promote_version(NAME, made.version, "ann", "the gate")
    baseline.write_next_baseline(small_params(), seen, made)  # killed before it is accepted
    commands.rollback("bad in production", "ann")
    assert registry.get_champion(NAME).version == "1"
    baseline.resolve_next_baseline()
    assert remembered() == {"new"}
    assert not paths.BASELINE_NEXT.exists()


def test_a_promotion_by_hand_after_a_kill_counts_what_was_judged(trained, seen):
    """Killed before the alias moved: the person moves it."""
    for name in ("a", "b"):
        made = registry.register_model(NAME, trained(name), verdict(), {})
    registry.promote_version(NAME, "1", "ann", "the gate")
    baseline.write_next_baseline(small_params(), seen, made)
    commands.promote("2", "seen to be better", "ann")
    assert remembered() == {"new"}


def test_a_damaged_proposal_keeps_nobody_from_a_rollback(trained, seen, capsys):
    for name in ("a", "b"):
        made = registry.register_model(NAME, trained(name), verdict(), {})
        registry.promote_version(NAME, made.version, "ann", "the gate")
    baseline.write_next_baseline(small_params(), seen, made)
    baseline.VERSION_FILE.write_text("\0")
    commands.rollback("bad in production", "ann")
    assert registry.get_champion(NAME).version == "1"
    assert "warning: data/baseline-next/version.json: " in capsys.readouterr().err
