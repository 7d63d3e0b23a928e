from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from routine_grammar.automaton.components import components

NODES = "abcdefg"
graphs = st.fixed_dictionaries({node: st.lists(st.sampled_from(NODES), max_size=3) for node in NODES})


def reached(graph: dict[str, list[str]], start: str) -> set[str]:
    found, todo = {start}, [start]
    while todo:
        fresh = set(graph[todo.pop()]) - found
        found |= fresh
        todo += fresh
    return found


@given(graphs)
def test_components_are_the_circles_each_after_what_it_leads_to(graph: dict[str, list[str]]) -> None:
    found = components(graph)
    reach = {node: reached(graph, node) for node in NODES}
    assert sorted(node for component in found for node in component) == sorted(NODES)
    done = set[str]()
    for component in found:
        for node in component:
            assert {other for other in reach[node] if node in reach[other]} == set(component)
            assert reach[node] - set(component) <= done
        done |= set(component)


def test_a_chain_of_any_length_needs_no_recursion() -> None:
    chain: dict[str, list[str]] = {str(n): [str(n + 1)] for n in range(50_000)} | {"50000": ["0"]}
    assert [len(component) for component in components(chain)] == [50_001]
