"""`python -m pipelines promote` and `rollback`: a person chooses the champion."""

import getpass

from densecl import paths
from densecl.config.params import load_params
from densecl.runtime.locks import hold_lock
from pipelines.registry import anchor, registry


def promote(version: str, why: str, who: str | None = None) -> None:
    """`python -m pipelines promote VERSION --why TEXT`: the version becomes champion and anchor."""
    settings = load_params(paths.PARAMS).retraining
    name = settings.registry
    # A retraining at work would judge against one champion and replace another.
    with hold_lock(paths.RETRAINING_LOCK):
        before = registry.get_champion(name).version
        now = registry.promote_version(name, version, who or getpass.getuser(), why, by_hand=True)
        anchor.record_choice(name, now)
        registry.fetch_card(name, now)
        print(f"{name}: version {now} is champion; before: {before or 'none'}")
        _print_anchor(name, settings.anchor)


def rollback(why: str, who: str | None = None) -> None:
    """`python -m pipelines rollback --why TEXT`."""
    settings = load_params(paths.PARAMS).retraining
    name = settings.registry
    with hold_lock(paths.RETRAINING_LOCK):
        before = registry.get_champion(name).version
        now = registry.rollback_champion(name, who or getpass.getuser(), why)
        registry.fetch_card(name, now)
        print(f"{name}: version {now} is champion again; rolled back: {before}")
        _print_anchor(name, settings.anchor)


def _print_anchor(name: str, named: int | None) -> None:
    if found := anchor.resolve_anchor(name, named):
        print(f"{name}: version {found.version} is the anchor, {found.origin}")
