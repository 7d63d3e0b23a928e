"""Strongly connected components of a directed graph: which rules call each other in a circle. Knows no grammar."""

from __future__ import annotations

from collections.abc import Collection, Mapping


def components(following: Mapping[str, Collection[str]]) -> list[tuple[str, ...]]:
    """The strongly connected components of a graph given by every node's successors, each after all that it leads to.

    Linear in nodes and edges, and not recursive: both directions are walked once (Kosaraju's and Sharir's algorithm).
    """
    leading: dict[str, list[str]] = {node: [] for node in following}
    for node, others in following.items():
        for other in others:
            leading[other].append(node)
    found: list[tuple[str, ...]] = []
    taken = set[str]()
    # On the reversed graph the components that all others lead to come first, so the order below is callees first.
    for root in reversed(_finished(leading)):
        if root in taken:
            continue
        component, todo = [], [root]
        taken.add(root)
        while todo:
            node = todo.pop()
            component.append(node)
            fresh = [other for other in dict.fromkeys(following[node]) if other not in taken]
            taken.update(fresh)
            todo += fresh
        found.append(tuple(component))
    return found


def _finished(following: Mapping[str, Collection[str]]) -> list[str]:
    """All nodes in the order in which a depth-first search is done with them."""
    done: list[str] = []
    seen = set[str]()
    for root in following:
        if root in seen:
            continue
        seen.add(root)
        todo = [(root, iter(following[root]))]
        while todo:
            node, rest = todo[-1]
            fresh = next((other for other in rest if other not in seen), None)
            if fresh is None:
                done.append(node)
                todo.pop()
            else:
                seen.add(fresh)
                todo.append((fresh, iter(following[fresh])))
    return done
