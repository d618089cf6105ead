"""From images to a verdict, link by link: what each stage read and left, with which parameters, at
which commit.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from densecl import paths
from pipelines.stages.dvc_history import PLANNING, File, Record, Stage, Workspace

# First word of a stage's name -> what its link is called, in the order of the chain.
KINDS = {
    "data": "data",
    "render": "data",
    "prepare": "manifest",
    "validate": "validation",
    "train": "training",
    "evaluate": "evaluation",
    "report": "report",
    "gate": "gate",
    "version": "version",
}
CODE = ("densecl/", "steps/")
VALUES = "values"  # the fact that holds what a plan says
SHOWN = 3  # changed files of code that are named


@dataclass(frozen=True)
class Link:
    """One stage, folder of images, verdict or version; notes say what is missing or has changed
    since.
    """

    name: str
    reads: tuple[File, ...] = ()
    writes: tuple[File, ...] = ()
    facts: tuple[tuple[str, str], ...] = ()  # what else is known, by name
    notes: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        return KINDS.get(self.name.partition("@")[0].partition(" ")[0], "stage")


@dataclass(frozen=True)
class Chain:
    """Links in the order of the chain, and which of them (by name) follow from which."""

    asked: str
    found: str  # what that was taken for
    source: str
    git: str
    links: tuple[Link, ...]
    edges: tuple[tuple[str, str], ...]
    notes: tuple[str, ...] = ()


@dataclass
class Builder:
    """The links of some stages of a record, and of what came before and after them."""

    record: Record
    workspace: Workspace
    links: dict[str, Link] = field(default_factory=dict)
    edges: dict[tuple[str, str], None] = field(default_factory=dict)

    def add(self, focus: Iterable[Stage]) -> None:
        """The stages, all that follow from them, and all that these were made from; of a report
        only the focus's cells.
        """
        focus = list(focus)
        after = _closure(focus, self.record.readers)
        before = _closure(
            [s for s in after.values() if s.name != "report" or s in focus], self.record.writers
        )
        for stage in (before | after).values():
            self.links[stage.name] = self._stage(stage)
        for stage in (before | after).values():
            for writer in self.record.writers(stage):
                if writer.name in self.links:
                    self.edges[writer.name, stage.name] = None
            if stage.name.startswith("prepare"):
                self._sources(stage)

    def _sources(self, stage: Stage) -> None:
        """Folders and archives that no stage made are links of their own."""
        for file in stage.reads:
            if not _code(file) and self.record.writer(file.path) is None:
                name = f"data {file.path}"
                self.links[name] = Link(name, writes=(file,), notes=_notes([file], self.workspace))
                self.edges[name, stage.name] = None

    def _stage(self, stage: Stage) -> Link:
        given = tuple(dict.fromkeys(stage.reads))
        plans = [f for f in given if f.path.startswith(f"{paths.PLAN.as_posix()}/")]
        code = [f for f in given if _code(f)]
        reads = tuple(f for f in given if f not in plans and f not in code)
        facts, notes = [("git", self.record.git or "none")], []
        for plan in plans:
            text = self.workspace.text(plan)
            facts.append((f"params {plan.path}", plan.md5))
            if text is not None:
                facts.append((VALUES, _told(text)))
            else:
                notes.append(
                    f"{plan.path}: its content {plan.md5} is in neither the workspace nor DVC's "
                    f"cache"
                )
        if code:
            facts.append(("code", f"{_together(code)} of {len(code)} files"))
        notes += [
            *self._broken(reads),
            *_notes([*plans, *stage.writes], self.workspace),
            *_code_notes(code, self.workspace),
        ]
        return Link(stage.name, reads, stage.writes, tuple(facts), tuple(notes))

    def _broken(self, reads: Iterable[File]) -> list[str]:
        """Files that the stage before left anew after this stage had read them."""
        notes = []
        for file in reads:
            writer = self.record.writer(file.path)
            for out in writer.writes if writer else ():
                left = out.md5 if out.path == file.path else self._inside(out, file)
                if writer and left not in ("", file.md5):
                    notes.append(
                        f"{file.path}: read {file.md5[:12]}, but {writer.name} has left "
                        f"{left[:12]} since"
                    )
        return notes

    def _inside(self, folder: File, file: File) -> str:
        below = file.path.removeprefix(f"{folder.path}/")
        return self.workspace.inside(folder).get(below, "") if below != file.path else ""

    def chain(self, asked: str, found: str, notes: Iterable[str]) -> Chain:
        order = list(dict.fromkeys(KINDS.values()))
        links = sorted(
            self.links.values(),
            key=lambda link: order.index(link.kind) if link.kind in order else len(order),
        )
        return Chain(
            asked,
            found,
            self.record.source,
            self.record.git,
            tuple(links),
            tuple(self.edges),
            tuple(notes),
        )


def model_of(stage: Stage) -> File | None:
    """The model that a training left."""
    return (
        next((f for f in stage.writes if f.path.startswith("models/")), None)
        if _trains(stage)
        else None
    )


def _trains(stage: Stage) -> bool:
    return stage.name.startswith("train@")


def version_links(name: str, number: str, tags: Mapping[str, str]) -> tuple[Link, Link]:
    """The gate's verdict on a model, and the version that it became."""
    judged: dict[str, Any] = json.loads(tags.get("judged", "{}"))
    against = (
        f"version {judged.get('champion')}"
        if judged.get("champion")
        else "no champion: absolute minimums"
    )
    criteria = [(f"{c['name']} {c['dataset']}", c["said"]) for c in judged.get("criteria", ())]
    gate = Link(
        f"gate of version {number}",
        facts=(("said", tags.get("said", "")), ("against", against), *criteria),
    )
    known = ("verdict", "mode", "seed", "fingerprint", "dvc_md5", "git", "zenml_run", "mlflow_run")
    facts = [(key, tags[key] or "none") for key in known if key in tags]
    facts += [
        (key, value) for key, value in sorted(tags.items()) if key.startswith(("sha256.", "md5 "))
    ]
    facts += [("history", line) for line in tags.get("history", "").splitlines()]
    return gate, Link(f"version {number} of {name}", facts=tuple(facts))


def _closure(start: Iterable[Stage], near: Callable[[Stage], list[Stage]]) -> dict[str, Stage]:
    found: dict[str, Stage] = {}
    waiting = list(start)
    while waiting:
        stage = waiting.pop(0)
        if stage.name not in found and stage.name != PLANNING:
            found[stage.name] = stage
            waiting += near(stage)
    return found


def _code(file: File) -> bool:
    return file.path.startswith(CODE)


def _together(files: Iterable[File]) -> str:
    """One md5 of several files."""
    listed = "".join(f"{f.path} {f.md5}\n" for f in sorted(files, key=lambda f: f.path))
    return hashlib.md5(listed.encode(), usedforsecurity=False).hexdigest()


def _notes(files: Iterable[File], workspace: Workspace) -> tuple[str, ...]:
    seen = [(file, workspace.changed(file)) for file in files]
    return tuple(f"{file.path}: recorded {file.md5[:12]}, {how}" for file, how in seen if how)


def _code_notes(code: list[File], workspace: Workspace) -> list[str]:
    changed = [file.path for file in code if workspace.changed(file)]
    if not changed:
        return []
    more = f" and {len(changed) - SHOWN} more" if len(changed) > SHOWN else ""
    return [
        f"code: {len(changed)} of {len(code)} files have changed since: "
        f"{', '.join(changed[:SHOWN])}{more}"
    ]


def _told(text: str) -> str:
    """A plan's keys and values; the report's copy of all params apart, which the other plans
    hold.
    """
    plan = {key: value for key, value in json.loads(text).items() if key != "params"}
    return ", ".join(f"{key} {json.dumps(value)}" for key, value in flat(plan))


def flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Nested keys joined by dots, with their values."""
    pairs: list[tuple[str, Any]] = []
    for key, value in values.items():
        pairs += (
            flat(value, f"{prefix}{key}.")
            if isinstance(value, dict) and value
            else [(prefix + key, value)]
        )
    return pairs
