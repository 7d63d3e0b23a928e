"""Tries over tokens: in preorder, so that a walk goes from left to right through flat arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from routine_grammar.automaton.tables import Addresses
from routine_grammar.jit import jit

Ids = npt.NDArray[np.int32]

# Places of a trie's arrays behind its handle.
BYTES, DEPTHS, SKIPS, TOKENS, SAME, ROOTS = range(1, 7)
LAST_OF_TRIE = ROOTS


class Trie:
    """A trie in preorder: node i has `byte[i]` at `depth[i]` (from 0), and `skip[i]` is the next node outside its subtree.

    `token[i]` is a token that ends at the node, or -1; `same[token]` the next token of equal bytes, or -1. `root[b]` is the
    node of first byte b, or -1. All int32 but `byte`. Compiled code finds them by `handle`, as long as this lives.
    """

    def __init__(self, byte: npt.NDArray[np.uint8], depth: Ids, skip: Ids, token: Ids, same: Ids, root: Ids) -> None:
        self.byte, self.depth, self.skip, self.token, self.same, self.root = byte, depth, skip, token, same, root
        self._addresses = Addresses(LAST_OF_TRIE)
        self.set_in(self._addresses)
        self.handle = self._addresses.handle

    @property
    def nbytes(self) -> int:
        """The bytes of its arrays."""
        return sum(array.nbytes for array in (self.byte, self.depth, self.skip, self.token, self.same, self.root))

    def set_in(self, addresses: Addresses) -> None:
        """Have compiled code find the trie by other addresses, too, of which it has the first."""
        arrays: tuple[npt.NDArray[Any], ...] = (self.byte, self.depth, self.skip, self.token, self.same, self.root)
        for place, array in zip((BYTES, DEPTHS, SKIPS, TOKENS, SAME, ROOTS), arrays, strict=True):
            addresses.set(place, array)


def build_trie(tokens: Sequence[bytes]) -> Trie:
    """The trie over all tokens that are not empty."""
    order = sorted((index for index, data in enumerate(tokens) if data), key=tokens.__getitem__)
    ordered = [tokens[index] for index in order]
    starts = np.zeros(len(order) + 1, np.int64)
    np.cumsum(np.fromiter(map(len, ordered), np.int64, len(order)), out=starts[1:])
    blob = np.frombuffer(b"".join(ordered), np.uint8)
    byte, same, root = np.zeros(len(blob), np.uint8), np.full(len(tokens), -1, np.int32), np.full(256, -1, np.int32)
    depth, skip, token = np.zeros((3, len(blob)), np.int32)
    nodes = _build(blob, starts, np.array(order, np.int32), byte, depth, skip, token, same, root)
    return Trie(byte[:nodes].copy(), depth[:nodes].copy(), skip[:nodes].copy(), token[:nodes].copy(), same, root)


@jit
def _build(
    blob: npt.NDArray[np.uint8],
    starts: npt.NDArray[np.int64],
    ids: Ids,
    byte: npt.NDArray[np.uint8],
    depth: Ids,
    skip: Ids,
    token: Ids,
    same: Ids,
    root: Ids,
) -> int:
    """Write a trie over sorted tokens, token i being bytes `starts[i]` to `starts[i + 1]` of `blob`; returns how many nodes."""
    path = np.zeros(1 + len(blob), np.int32)  # the nodes of the token before
    nodes = before = 0
    for number in range(len(ids)):
        data = blob[starts[number] : starts[number + 1]]
        common = 0
        while common < min(len(data), before) and byte[path[common]] == data[common]:
            common += 1
        last = path[max(common - 1, 0)]
        if common == len(data) == before:  # the token before, once more
            same[ids[number]] = token[last]
            token[last] = ids[number]
            continue
        for place in range(common, before):
            skip[path[place]] = nodes
        for place in range(common, len(data)):
            path[place] = nodes
            byte[nodes], depth[nodes], token[nodes] = data[place], place, -1
            nodes += 1
        if common == 0:
            root[data[0]] = path[0]
        token[path[len(data) - 1]] = ids[number]
        before = len(data)
    for place in range(before):
        skip[path[place]] = nodes
    return nodes
