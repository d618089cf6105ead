"""Reasons of missing seeds, in the notes of tables."""

from densecl.analysis.results import SeedResults, merge_seeds


def test_one_reason_of_many_seeds_is_said_once():
    reasons = ["seed 0: no file a", "no seed in common", "seed 2: no masks", "seed 11: no file a"]
    assert merge_seeds([*reasons, "seed 0: no file a"]) == [
        "seeds 0, 11: no file a",
        "no seed in common",
        "seed 2: no masks",
    ]
    assert SeedResults(missing=["seed 1: two\nlines", "seed 3: two\nlines"]).note == (
        "seeds 1, 3: two\nlines"
    )
    assert merge_seeds(["x", "seed 0: x"]) == ["x", "seed 0: x"]
    assert merge_seeds([]) == []
