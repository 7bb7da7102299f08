"""The graph of sources, flows and tables as SVG, laid out in layers: across for a wide page, downwards for a phone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from microbatch.config import LoadedJob
from microbatch.job import Source, snapshots_of

CHARACTER = 7.3  # pixels of a character in the page's 12 pixel monospace
HEIGHT, GAP, STEP = 44, 18, 40  # pixels: of a node, between nodes of a layer, between layers


@dataclass
class Node:
    """A source, a flow or a table; `id` is unique. Its place is set by the layout."""

    id: str
    kind: str
    name: str
    note: str
    layer: int = 0
    x: float = 0
    y: float = 0
    width: float = 0
    href: str = ""
    state: str = ""


@dataclass(frozen=True)
class Edge:
    """From a node to a node; `dashed`: looked up whole, as a snapshot."""

    start: str
    end: str
    dashed: bool = False
    path: str = ""


@dataclass(frozen=True)
class Drawing:
    """A graph with all places set."""

    width: float
    height: float
    nodes: list[Node] = field(default_factory=list)
    edges: list[Edge] = field(default_factory=list)


def draw(job: LoadedJob, notes: Mapping[str, str], states: Mapping[str, str], down: bool) -> Drawing:
    """Lay the job's graph out.

    Args:
        notes: a line about each flow, by its name.
        states: how each flow's last run ended.
        down: layers go downwards, for a narrow page.
    """
    nodes, edges = _parts(job, notes, states)
    layers: dict[int, list[Node]] = {}
    for node in nodes.values():
        layers.setdefault(node.layer, []).append(node)
    _order(layers, edges, nodes)
    return _down(layers, edges, nodes) if down else _across(layers, edges, nodes)


def _parts(job: LoadedJob, notes: Mapping[str, str], states: Mapping[str, str]) -> tuple[dict[str, Node], list[Edge]]:
    nodes: dict[str, Node] = {}
    edges: list[Edge] = []

    def node(kind: str, name: str, note: str = "", layer: int = 0) -> Node:
        return nodes.setdefault(f"{kind} {name}", Node(f"{kind} {name}", kind, name, note, layer))

    for flow in job.flows:
        if isinstance(flow.reads, Source):
            start = node("source", flow.reads.name, job.conf.sources[flow.reads.name].kind)
        else:
            start = node("table", flow.reads, "of another job")
        looked_up = [node("table", snapshot.table, "of another job") for snapshot in snapshots_of(flow).values()]
        layer = 1 + max(each.layer for each in (start, *looked_up))
        made = node("flow", flow.name, notes.get(flow.name, ""), layer)
        made.href, made.state = f"#flow-{job.name}-{flow.name}", states.get(flow.name, "")
        target = node("table", flow.writes.table, type(flow.writes).__name__.lower(), layer + 1)
        edges.append(Edge(start.id, made.id))
        edges += [Edge(each.id, made.id, dashed=True) for each in looked_up]
        edges.append(Edge(made.id, target.id))
    return nodes, edges


def _order(layers: Mapping[int, list[Node]], edges: Sequence[Edge], nodes: Mapping[str, Node]) -> None:
    """Put each node near the middle of what it comes from, so that few lines cross."""
    place = {node.id: float(at) for layer in layers.values() for at, node in enumerate(layer)}
    for number in sorted(layers):
        for node in layers[number]:
            before = [place[edge.start] for edge in edges if edge.end == node.id and not edge.dashed]
            place[node.id] = sum(before) / len(before) if before else place[node.id]
        layers[number].sort(key=lambda node: place[node.id])
        for at, node in enumerate(layers[number]):
            place[node.id] = max(place[node.id], float(at))


def _across(layers: Mapping[int, list[Node]], edges: Sequence[Edge], nodes: Mapping[str, Node]) -> Drawing:
    tallest = max(len(layer) for layer in layers.values())
    height, x = tallest * (HEIGHT + GAP) + GAP, 8.0
    for number in sorted(layers):
        layer = layers[number]
        width = max(_width(node) for node in layer)
        top = (height - len(layer) * (HEIGHT + GAP) + GAP) / 2
        for at, node in enumerate(layer):
            node.x, node.y, node.width = x, top + at * (HEIGHT + GAP), width
        x += width + STEP
    drawn = []
    for edge in edges:
        start, end = nodes[edge.start], nodes[edge.end]
        x1, y1, x2, y2 = start.x + start.width, start.y + HEIGHT / 2, end.x, end.y + HEIGHT / 2
        bend = max(STEP / 2, (x2 - x1) / 2)
        path = f"M{x1:.0f},{y1:.0f} C{x1 + bend:.0f},{y1:.0f} {x2 - bend:.0f},{y2:.0f} {x2:.0f},{y2:.0f}"
        drawn.append(Edge(edge.start, edge.end, edge.dashed, path))
    return Drawing(x - STEP + 8, height, [*nodes.values()], drawn)


def _down(layers: Mapping[int, list[Node]], edges: Sequence[Edge], nodes: Mapping[str, Node]) -> Drawing:
    widths = [sum(_width(node) + GAP for node in layer) for layer in layers.values()]
    width, y = max(widths) + GAP, 8.0
    for number in sorted(layers):
        layer = layers[number]
        x = (width - sum(_width(node) + GAP for node in layer) + GAP) / 2
        for node in layer:
            node.x, node.y, node.width = x, y, _width(node)
            x += node.width + GAP
        y += HEIGHT + STEP
    drawn = []
    for edge in edges:
        start, end = nodes[edge.start], nodes[edge.end]
        x1, y1, x2, y2 = start.x + start.width / 2, start.y + HEIGHT, end.x + end.width / 2, end.y
        bend = max(STEP / 2, (y2 - y1) / 2)
        path = f"M{x1:.0f},{y1:.0f} C{x1:.0f},{y1 + bend:.0f} {x2:.0f},{y2 - bend:.0f} {x2:.0f},{y2:.0f}"
        drawn.append(Edge(edge.start, edge.end, edge.dashed, path))
    return Drawing(width, y - STEP + 8, [*nodes.values()], drawn)


def _width(node: Node) -> float:
    return max(96, max(len(node.name) * CHARACTER, len(node.note) * 6.4) + 22)
