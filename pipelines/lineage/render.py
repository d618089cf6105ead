"""Render a lineage as text for a terminal and as a Mermaid flowchart."""

from itertools import groupby

from densecl.analysis.dvc_lock import LockedFile
from pipelines.lineage.chain import Lineage, LineageNode


def render_text(lineage: Lineage) -> str:
    """The chain as text, followed by its Mermaid source."""
    snapshot = lineage.snapshot
    commit = f"git {snapshot.git}" if snapshot.git else "in no git commit"
    lines = [lineage.resolved_as, f"from {snapshot.source}, {commit}"]
    lines += [f"! {note}" for note in lineage.notes]
    for kind, nodes in groupby(lineage.nodes, lambda node: node.kind):
        lines += ["", kind.upper()]
        for node in nodes:
            lines += [
                f"  {node.name}",
                *(f"    {part:<7} {what}" for part, what in _list_parts(node)),
            ]
    lines += ["", "MERMAID", *render_mermaid(lineage).splitlines()]
    # Without what would move a terminal's cursor.
    return "".join(c if c.isprintable() or c == "\n" else "?" for c in "\n".join(lines)) + "\n"


def render_mermaid(lineage: Lineage) -> str:
    """A flowchart; names are escaped."""
    ids = {node.name: f"n{i}" for i, node in enumerate(lineage.nodes)}
    lines = ["flowchart LR"]
    for node in lineage.nodes:
        summary = node.writes[0].md5[:12] if node.writes else node.facts[0][1]
        label = f"{_escape_mermaid(node.name)}<br/>{_escape_mermaid(summary)}"
        lines.append(f'  {ids[node.name]}["{label}"]')
    return "\n".join([*lines, *(f"  {ids[a]} --> {ids[b]}" for a, b in lineage.graph.edges)]) + "\n"


def _list_parts(node: LineageNode) -> list[tuple[str, str]]:
    """Printed parts of a node: a label, then its text."""

    def format_file(file: LockedFile) -> str:
        return f"{file.path} {file.md5}" + (f" ({file.files} files)" if file.files else "")

    facts = [(key.split()[0], " ".join([*key.split()[1:], value])) for key, value in node.facts]
    return [
        *(("reads", format_file(file)) for file in node.reads),
        *facts,
        *(("left", format_file(file)) for file in node.writes),
        *(("!", note) for note in node.notes),
    ]


def _escape_mermaid(name: str) -> str:
    return "".join(
        c if c.isalnum() or c in " @/._-:,+…" else f"#{ord(c)};" for c in " ".join(name.split())
    )
