"""The chain from images to a verdict: what each stage read and wrote, with which parameters."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import networkx

from densecl import paths
from densecl.analysis.dvc_lock import LockedFile, LockedStage
from densecl.config.flatten import flatten
from pipelines.schemas import GateVerdict
from pipelines.stages.dvc_history import LockSnapshot, WorkspaceState

# First word of a node's name -> what its link is called, in the order of the chain.
NODE_KINDS = {
    "data": "data",
    "render": "data",
    "prepare": "manifest",
    "prepare-transfer": "manifest",
    "validate": "validation",
    "train": "training",
    "evaluate": "evaluation",
    "report": "report",
    "gate": "gate",
    "version": "version",
    "stage": "stage",  # any other
}
KIND_ORDER = list(NODE_KINDS.values())
PRINTED_TAGS = (
    "verdict",
    "said",
    "judged",
    "history",
)  # of a version; the others follow as they are


@dataclass
class LineageNode:
    """One stage, folder of images, verdict or version; notes state what is missing or has changed
    since.
    """

    name: str
    reads: list[LockedFile] = field(default_factory=list)
    writes: list[LockedFile] = field(default_factory=list)
    facts: list[tuple[str, str]] = field(default_factory=list)  # what else is known, by name
    notes: list[str] = field(default_factory=list)

    @property
    def kind(self) -> str:
        return NODE_KINDS.get(self.name.partition("@")[0].partition(" ")[0], "stage")


class Lineage:
    """The nodes of some stages of a record, with everything before and after them."""

    def __init__(
        self, resolved_as: str, snapshot: LockSnapshot, workspace: WorkspaceState, notes: list[str]
    ) -> None:
        self.resolved_as = resolved_as  # what the query was taken for
        self.snapshot, self.workspace, self.notes = snapshot, workspace, notes
        self.graph = networkx.DiGraph()  # names of nodes
        self._nodes: dict[str, LineageNode] = {}

    @property
    def nodes(self) -> list[LineageNode]:
        """Nodes in the order of the chain."""
        return sorted(self._nodes.values(), key=lambda node: KIND_ORDER.index(node.kind))

    def add_stages(self, focus: Iterable[LockedStage]) -> None:
        """Add stages, everything that depends on them, and everything that they depend on; of a
        report only the cells in focus.
        """
        stages = self.snapshot.stages
        graph = networkx.DiGraph(
            (writer.name, reader.name)
            for writer in stages.values()
            for reader in stages.values()
            if any(_is_overlapping(out, dep) for out in writer.writes for dep in reader.reads)
        )
        graph.add_nodes_from(stages)
        start = {stage.name for stage in focus}
        after = start.union(*(networkx.descendants(graph, name) for name in start))
        origins = after - ({"report"} - start)
        names = after.union(*(networkx.ancestors(graph, name) for name in origins))
        self.graph.update(graph.subgraph(names))
        for stage in (stages[name] for name in stages if name in names):
            self._nodes[stage.name] = self._build_node(stage)
            if stage.name.startswith("prepare"):
                self._add_sources(stage)

    def add_version(self, name: str, number: str, tags: Mapping[str, str], training: str) -> None:
        """Add the gate's verdict on a trained model, and the version that was registered."""
        verdict = GateVerdict.model_validate_json(tags["judged"])
        champion, anchor = (
            f"version {model}" if model else "none" for model in (verdict.champion, verdict.anchor)
        )
        gate, version = f"gate of version {number}", f"version {number} of {name}"
        self._nodes[gate] = LineageNode(
            gate,
            facts=[
                ("said", verdict.said),
                ("champion", champion),
                ("anchor", anchor),
                *((f"{c.name} {c.dataset}", c.said) for c in verdict.criteria),
            ],
        )
        self._nodes[version] = LineageNode(
            version,
            facts=[
                ("verdict", tags["verdict"]),
                *((key, tags[key] or "none") for key in sorted(tags) if key not in PRINTED_TAGS),
                *(("history", line) for line in tags.get("history", "").splitlines()),
            ],
        )
        judged = [n for n in self.graph.successors(training) if n.startswith("evaluate@")]
        self.graph.add_edges_from((cell, gate) for cell in judged or [training])
        self.graph.add_edge(gate, version)

    def _add_sources(self, stage: LockedStage) -> None:
        """Add folders and archives that no stage wrote."""
        for file in stage.reads:
            if not (file.is_code or _is_plan(file) or self._list_outs(file)):
                name = f"data {file.path}"
                self._nodes[name] = LineageNode(
                    name, writes=[file], notes=self._describe_changes([file])
                )
                self.graph.add_edge(name, stage.name)

    def _build_node(self, stage: LockedStage) -> LineageNode:
        files = dict.fromkeys(stage.reads)
        plans = list(filter(_is_plan, files))
        code = [file for file in files if file.is_code]
        node = LineageNode(
            stage.name,
            [file for file in files if file not in plans and file not in code],
            list(stage.writes),
            [(f"params {plan.path}", plan.md5) for plan in plans],
            self._describe_changes([*plans, *stage.writes, *code]),
        )
        if code:
            node.facts.append(("code", ", ".join(f"{file.path} {file.md5[:12]}" for file in code)))
        for plan in plans if node.kind == "training" else ():
            text = self.workspace.read_text(plan)
            if text is None:
                node.notes.append(
                    f"{plan.path}: its content {plan.md5} is in neither the workspace nor DVC's "
                    f"cache"
                )
            else:
                values = flatten(json.loads(text)).items()
                node.facts.append(("values", ", ".join(f"{k} {json.dumps(v)}" for k, v in values)))
        for file in node.reads:
            for writer, out in self._list_outs(file):
                inside = self.workspace.list_folder(out).get(file.path[len(out.path) + 1 :], "")
                left = out.md5 if out.path == file.path else inside
                if left not in ("", file.md5):
                    node.notes.append(
                        f"{file.path}: read {file.md5[:12]}, but {writer} has left {left[:12]} "
                        f"since"
                    )
        return node

    def _list_outs(self, file: LockedFile) -> list[tuple[str, LockedFile]]:
        """Outs of stages that contain a path: the file, its parent folder, or entries below it."""
        return [
            (stage.name, out)
            for stage in self.snapshot.stages.values()
            for out in stage.writes
            if _is_overlapping(out, file)
        ]

    def _describe_changes(self, files: Iterable[LockedFile]) -> list[str]:
        changes = [(file, self.workspace.describe_change(file)) for file in files]
        return [
            f"{file.path}: recorded {file.md5[:12]}, {change}" for file, change in changes if change
        ]


def _is_plan(file: LockedFile) -> bool:
    return file.path.startswith(f"{paths.PLANS.as_posix()}/")


def _is_overlapping(first: LockedFile, second: LockedFile) -> bool:
    a, b = f"{first.path}/", f"{second.path}/"
    return a.startswith(b) or b.startswith(a)
