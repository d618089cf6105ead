"""A lineage as text for a terminal, and as a Mermaid flowchart."""

from __future__ import annotations

from itertools import groupby

from pipelines.lineage.chain import VALUES, Lineage, LineageNode


def render_text(lineage: Lineage) -> str:
    """The chain for a terminal, followed by its Mermaid source."""
    lines = [lineage.resolved_as, f"from {lineage.source}, {format_commit(lineage)}"]
    lines += [f"! {note}" for note in lineage.notes]
    for kind, nodes in groupby(lineage.nodes, lambda node: node.kind):
        lines += ["", kind.upper()]
        for node in nodes:
            lines += [
                f"  {node.name}",
                *(
                    f"    {part:<7} {what}"
                    for part, what in _list_parts(node)
                    if _is_printed(node, part)
                ),
            ]
    return (
        _remove_control_chars(
            "\n".join([*lines, "", "MERMAID", *render_mermaid(lineage).splitlines()])
        )
        + "\n"
    )


def _is_printed(node: LineageNode, part: str) -> bool:
    """Parameter values are printed for training runs only."""
    return part != VALUES or node.kind == "training"


def format_commit(lineage: Lineage) -> str:
    """The commit that the chain belongs to, in words."""
    if not lineage.git:
        return "in no git commit"
    return f"git {lineage.git}" + (
        " (that commit and changes that are in none)" if lineage.git.endswith("+") else ""
    )


def render_mermaid(lineage: Lineage) -> str:
    """A flowchart; names cannot become its syntax."""
    number = {node.name: f"n{i}" for i, node in enumerate(lineage.nodes)}
    lines = ["flowchart LR"]
    lines += [
        f"  "
        f'{number[node.name]}["{_escape_mermaid(node.name)}<br/>{_escape_mermaid(_format_summary(node))}"]'
        for node in lineage.nodes
    ]
    return "\n".join([*lines, *(f"  {number[a]} --> {number[b]}" for a, b in lineage.edges)]) + "\n"


def _list_parts(node: LineageNode) -> list[tuple[str, str]]:
    def format_file(path: str, md5: str, files: int | None) -> str:
        return f"{path} {md5}" + (f" ({files} files)" if files else "")

    parts = [("reads", format_file(f.path, f.md5, f.files)) for f in node.reads]
    parts += [
        (key.partition(" ")[0], f"{key.partition(' ')[2]} {value}".strip())
        for key, value in node.facts
    ]
    parts += [("left", format_file(f.path, f.md5, f.files)) for f in node.writes]
    return parts + [("!", note) for note in node.notes]


def _format_summary(node: LineageNode) -> str:
    return (
        f"md5 {node.writes[0].md5[:12]}"
        if node.writes
        else next((value for key, value in node.facts), "")
    )


def _escape_mermaid(name: str) -> str:
    return "".join(
        c if c.isalnum() or c in " @/._-:,+…" else f"#{ord(c)};" for c in " ".join(name.split())
    )


def _remove_control_chars(text: str) -> str:
    """Replace what would move a terminal's cursor."""
    return "".join(c if c.isprintable() or c == "\n" else "?" for c in text)
