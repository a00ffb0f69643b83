"""Refuse a model whose tensors have no place in any memory, once the size of the image is known."""

from __future__ import annotations

from typing import TYPE_CHECKING

from exporters.limits import check_growth, check_loops, check_sizes

if TYPE_CHECKING:
    from exporters.passes import Normal


def bound_sizes(normal: Normal) -> None:
    """Refuse tensors with more elements than allowed, and loops with more turns."""
    graph = normal.graph()
    check_loops(graph)
    check_sizes(graph)


def bound_growth(normal: Normal) -> None:
    """Refuse, once shape arithmetic is folded, tensors with more elements than allowed or of a size that nothing bounds."""
    graph = normal.graph()
    check_sizes(graph)
    check_growth(graph, normal.image)
