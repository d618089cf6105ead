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
from densecl.config.flatten import flatten
from pipelines.stages.dvc_history import (
    PLANNING,
    LockedFile,
    LockedStage,
    LockSnapshot,
    WorkspaceState,
)

# First word of a stage's name -> what its link is called, in the order of the chain.
NODE_KINDS = {
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
CODE_FOLDERS = ("densecl/", "steps/")
VALUES = "values"  # the fact that holds what a plan says
MAX_NAMED_FILES = 3  # changed files of code that are named


@dataclass(frozen=True)
class LineageNode:
    """One stage, folder of images, verdict or version; notes say what is missing or has changed
    since.
    """

    name: str
    reads: tuple[LockedFile, ...] = ()
    writes: tuple[LockedFile, ...] = ()
    facts: tuple[tuple[str, str], ...] = ()  # what else is known, by name
    notes: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        return NODE_KINDS.get(self.name.partition("@")[0].partition(" ")[0], "stage")


@dataclass(frozen=True)
class Lineage:
    """Links in the order of the chain, and which of them (by name) follow from which."""

    query: str
    resolved_as: str  # what that was taken for
    source: str
    git: str
    nodes: tuple[LineageNode, ...]
    edges: tuple[tuple[str, str], ...]
    notes: tuple[str, ...] = ()


@dataclass
class LineageBuilder:
    """The links of some stages of a record, and of what came before and after them."""

    record: LockSnapshot
    workspace: WorkspaceState
    nodes: dict[str, LineageNode] = field(default_factory=dict)
    edges: dict[tuple[str, str], None] = field(default_factory=dict)

    def add_stages(self, focus: Iterable[LockedStage]) -> None:
        """The stages, all that follow from them, and all that these were made from; of a report
        only the focus's cells.
        """
        focus = list(focus)
        after = _collect_reachable(focus, self.record.list_readers)
        before = _collect_reachable(
            [s for s in after.values() if s.name != "report" or s in focus],
            self.record.list_writers,
        )
        for stage in (before | after).values():
            self.nodes[stage.name] = self._build_node(stage)
        for stage in (before | after).values():
            for writer in self.record.list_writers(stage):
                if writer.name in self.nodes:
                    self.edges[writer.name, stage.name] = None
            if stage.name.startswith("prepare"):
                self._add_sources(stage)

    def _add_sources(self, stage: LockedStage) -> None:
        """Folders and archives that no stage made are links of their own."""
        for file in stage.reads:
            if not _is_code(file) and self.record.find_writer(file.path) is None:
                name = f"data {file.path}"
                self.nodes[name] = LineageNode(
                    name, writes=(file,), notes=_describe_changes([file], self.workspace)
                )
                self.edges[name, stage.name] = None

    def _build_node(self, stage: LockedStage) -> LineageNode:
        dependencies = tuple(dict.fromkeys(stage.reads))
        plans = [f for f in dependencies if f.path.startswith(f"{paths.PLANS.as_posix()}/")]
        code = [f for f in dependencies if _is_code(f)]
        reads = tuple(f for f in dependencies if f not in plans and f not in code)
        facts, notes = [("git", self.record.git or "none")], []
        for plan in plans:
            text = self.workspace.read_text(plan)
            facts.append((f"params {plan.path}", plan.md5))
            if text is not None:
                facts.append((VALUES, _format_plan(text)))
            else:
                notes.append(
                    f"{plan.path}: its content {plan.md5} is in neither the workspace nor DVC's "
                    f"cache"
                )
        if code:
            facts.append(("code", f"{_hash_files(code)} of {len(code)} files"))
        notes += [
            *self._find_stale_reads(reads),
            *_describe_changes([*plans, *stage.writes], self.workspace),
            *_describe_code_changes(code, self.workspace),
        ]
        return LineageNode(stage.name, reads, stage.writes, tuple(facts), tuple(notes))

    def _find_stale_reads(self, reads: Iterable[LockedFile]) -> list[str]:
        """Files that the stage before left anew after this stage had read them."""
        notes = []
        for file in reads:
            writer = self.record.find_writer(file.path)
            for out in writer.writes if writer else ():
                left = out.md5 if out.path == file.path else self._get_md5_inside(out, file)
                if writer and left not in ("", file.md5):
                    notes.append(
                        f"{file.path}: read {file.md5[:12]}, but {writer.name} has left "
                        f"{left[:12]} since"
                    )
        return notes

    def _get_md5_inside(self, folder: LockedFile, file: LockedFile) -> str:
        subpath = file.path.removeprefix(f"{folder.path}/")
        return self.workspace.list_folder(folder).get(subpath, "") if subpath != file.path else ""

    def to_lineage(self, query: str, resolved_as: str, notes: Iterable[str]) -> Lineage:
        order = list(dict.fromkeys(NODE_KINDS.values()))
        nodes = sorted(
            self.nodes.values(),
            key=lambda node: order.index(node.kind) if node.kind in order else len(order),
        )
        return Lineage(
            query,
            resolved_as,
            self.record.source,
            self.record.git,
            tuple(nodes),
            tuple(self.edges),
            tuple(notes),
        )


def find_model(stage: LockedStage) -> LockedFile | None:
    """The model that a training left."""
    return (
        next((f for f in stage.writes if f.path.startswith("models/")), None)
        if _is_training(stage)
        else None
    )


def _is_training(stage: LockedStage) -> bool:
    return stage.name.startswith("train@")


def build_version_nodes(
    name: str, number: str, tags: Mapping[str, str]
) -> tuple[LineageNode, LineageNode]:
    """The gate's verdict on a model, and the version that it became."""
    judged: dict[str, Any] = json.loads(tags.get("judged", "{}"))
    against = (
        f"version {judged.get('champion')}"
        if judged.get("champion")
        else "no champion: absolute minimums"
    )
    criteria = [(f"{c['name']} {c['dataset']}", c["said"]) for c in judged.get("criteria", ())]
    gate = LineageNode(
        f"gate of version {number}",
        facts=(("said", tags.get("said", "")), ("against", against), *criteria),
    )
    tag_names = (
        "verdict",
        "mode",
        "seed",
        "fingerprint",
        "dvc_md5",
        "git",
        "zenml_run",
        "mlflow_run",
    )
    facts = [(key, tags[key] or "none") for key in tag_names if key in tags]
    facts += [
        (key, value) for key, value in sorted(tags.items()) if key.startswith(("sha256.", "md5 "))
    ]
    facts += [("history", line) for line in tags.get("history", "").splitlines()]
    return gate, LineageNode(f"version {number} of {name}", facts=tuple(facts))


def _collect_reachable(
    start: Iterable[LockedStage], get_neighbours: Callable[[LockedStage], list[LockedStage]]
) -> dict[str, LockedStage]:
    reached: dict[str, LockedStage] = {}
    pending = list(start)
    while pending:
        stage = pending.pop(0)
        if stage.name not in reached and stage.name != PLANNING:
            reached[stage.name] = stage
            pending += get_neighbours(stage)
    return reached


def _is_code(file: LockedFile) -> bool:
    return file.path.startswith(CODE_FOLDERS)


def _hash_files(files: Iterable[LockedFile]) -> str:
    """One md5 of several files."""
    listing = "".join(f"{f.path} {f.md5}\n" for f in sorted(files, key=lambda f: f.path))
    return hashlib.md5(listing.encode(), usedforsecurity=False).hexdigest()


def _describe_changes(files: Iterable[LockedFile], workspace: WorkspaceState) -> tuple[str, ...]:
    changes = [(file, workspace.describe_change(file)) for file in files]
    return tuple(
        f"{file.path}: recorded {file.md5[:12]}, {change}" for file, change in changes if change
    )


def _describe_code_changes(code: list[LockedFile], workspace: WorkspaceState) -> list[str]:
    changed = [file.path for file in code if workspace.describe_change(file)]
    if not changed:
        return []
    more = f" and {len(changed) - MAX_NAMED_FILES} more" if len(changed) > MAX_NAMED_FILES else ""
    return [
        f"code: {len(changed)} of {len(code)} files have changed since: "
        f"{', '.join(changed[:MAX_NAMED_FILES])}{more}"
    ]


def _format_plan(text: str) -> str:
    """A plan's keys and values; the report's copy of all params apart, which the other plans
    hold.
    """
    plan = {key: value for key, value in json.loads(text).items() if key != "params"}
    return ", ".join(f"{key} {json.dumps(value)}" for key, value in flatten(plan).items())
