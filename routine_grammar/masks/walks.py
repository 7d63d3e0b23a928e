"""Walks of a vocabulary's trie through an automaton, compiled by numba: which tokens are allowed, where tokens lead.

Functions answer `NEED - i` where skeleton state i has to be expanded first, and start afresh when called again.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from routine_grammar.automaton import tables
from routine_grammar.automaton.step import DEAD, HEAD, NEED, RETURN, Configuration, copy, step, take_bytes
from routine_grammar.automaton.tables import Handle, completes, counted_row, leaf_accepts, leaf_next
from routine_grammar.jit import jit
from routine_grammar.masks.vocabulary import Trie

Ids = npt.NDArray[np.int32]


@jit
def take_token(
    t: Handle,
    before: Configuration,
    row: Configuration,
    blob: npt.NDArray[np.uint8],
    offsets: npt.NDArray[np.int64],
    token: int,
) -> int:
    """Write the configuration after a token's bytes to `row`; returns its state, or the code that stopped it."""
    copy(row, before)
    return take_bytes(t, row, blob[offsets[token] : offsets[token + 1]])


@jit
def walk_trie(t: Handle, trie: Trie, rows: npt.NDArray[np.int32], out: Ids) -> int:
    """Write every token that the configuration `rows[0]` allows; returns how many, or NEED - i.

    `rows` [longest token + 2, configuration] int32 is scratch behind its first row.
    """
    count = 0
    node = 0
    while node < len(trie.byte):
        depth = trie.depth[node]
        row = rows[depth + 1]
        copy(row, rows[depth])
        state = step(t, row, trie.byte[node])
        if state <= NEED:
            return state
        if state < 0:
            node = trie.skip[node]
            continue
        token = trie.token[node]
        while token >= 0:
            out[count] = token
            count += 1
            token = trie.same[token]
        node += 1
    return count


@jit
def scan_leaf(t: Handle, trie: Trie, start: int, states: Ids, base: npt.NDArray[np.uint32], tokens: Ids, exits: Ids) -> int:
    """Walk the whole vocabulary through a leaf from state `start`.

    Sets the bits of the tokens that stay in the leaf (or leave it with their last byte) in `base`, and writes the tokens
    that leave it earlier, each with the number of its bytes that the leaf takes (at least one), to `tokens` and `exits`.
    Returns how many those are. `states` [longest token + 1] is scratch: a state, or -3 - n once left after n bytes.
    """
    count = 0
    node = 0
    while node < len(trie.byte):
        depth = trie.depth[node]
        state = start if depth == 0 else states[depth - 1]
        if state >= 0:
            target = leaf_next(t, state, trie.byte[node])
            if target == RETURN:
                target = -3 - (depth + 1)
            elif target == DEAD:
                target = -3 - depth if depth > 0 and leaf_accepts(t, state) else DEAD
        else:
            target = state
        if target == DEAD:
            node = trie.skip[node]
            continue
        states[depth] = target
        token = trie.token[node]
        while token >= 0:
            if target >= 0 or target == -3 - (depth + 1):
                base[token >> 5] |= np.uint32(1) << np.uint32(token & 31)
            else:
                tokens[count] = token
                exits[count] = -3 - target
                count += 1
            token = trie.same[token]
        node += 1
    return count


@jit
def scan_counted(t: Handle, trie: Trie, start: int, states: Ids, counts: Ids, needs: Ids, tokens: Ids, exits: Ids) -> int:
    """Count the characters of every token through a counted leaf from state `start`.

    `needs` [vocabulary], -1 at first, is set for the tokens that stay in the leaf, or leave it with their last byte: the
    characters that they complete and that it then takes at least to the end; to the former alone, complemented, for the
    latter. Tokens that leave it earlier are written to `tokens`, in the order in which `scan_leaf` writes them, each with the
    number of characters that it completes in the leaf to `exits`. Returns how many those are. `states` and `counts`
    [longest token + 1] are scratch.
    """
    count = 0
    node = 0
    while node < len(trie.byte):
        depth = trie.depth[node]
        state = start if depth == 0 else states[depth - 1]
        completed = 0 if depth == 0 else counts[depth - 1]
        if state >= 0:
            target = leaf_next(t, state, trie.byte[node])
            if target >= 0:
                completed += completes(t, counted_row(t, target))
            elif target == RETURN:
                target = -3 - depth
        else:
            target = state
        if target == DEAD:
            node = trie.skip[node]
            continue
        states[depth] = target
        counts[depth] = completed
        token = trie.token[node]
        while token >= 0:
            if target >= 0:
                needs[token] = completed + tables.counts(t, counted_row(t, target), 0)
            elif target == -3 - depth:
                needs[token] = -2 - completed
            else:
                tokens[count] = token
                exits[count] = completed
                count += 1
            token = trie.same[token]
        node += 1
    return count


@jit
def scan_landings(t: Handle, trie: Trie, start: int, states: Ids, counts: Ids, lands: Ids, completed: Ids) -> None:
    """Write where every token leads that stays in a leaf from state `start`: `lands` [vocabulary], all DEAD at first.

    RETURN where the leaf ends with its last byte. `completed` [vocabulary] are the characters that it completes where these
    are counted, else 0. `states` and `counts` [longest token + 1] are scratch.
    """
    node = 0
    while node < len(trie.byte):
        depth = trie.depth[node]
        state = start if depth == 0 else states[depth - 1]
        done = 0 if depth == 0 else counts[depth - 1]
        target = leaf_next(t, state, trie.byte[node])
        if target >= 0 and counted_row(t, target) >= 0:
            done += completes(t, counted_row(t, target))
        token = trie.token[node]
        while token >= 0:
            lands[token] = target
            completed[token] = done
            token = trie.same[token]
        if target < 0:
            node = trie.skip[node]
            continue
        states[depth] = target
        counts[depth] = done
        node += 1


@jit
def is_same(one: Configuration, other: Configuration) -> bool:
    """Whether two configurations are equal: what stands behind a stack does not count."""
    place = 0
    while place < HEAD + one[1] and one[place] == other[place]:
        place += 1
    return bool(place == HEAD + one[1])


@jit
def group_tokens(t: Handle, trie: Trie, rows: npt.NDArray[np.int32], groups: Ids, leads: npt.NDArray[np.int32]) -> int:
    """Sort the tokens that the configuration `rows[0]` allows by where each leads: `groups[i]` is token i's row of `leads`.

    `groups` [tokens of the trie] is -1 at first. Returns how many rows of `leads` are used, DEAD where they don't suffice, or
    NEED - i. `rows` [longest token + 2, configuration] int32 is scratch behind its first row.
    """
    used = group = 0
    node = 0
    while node < len(trie.byte):
        depth = trie.depth[node]
        row = rows[depth + 1]
        copy(row, rows[depth])
        state = step(t, row, trie.byte[node])
        if state <= NEED:
            return state
        if state < 0:
            node = trie.skip[node]
            continue
        token = trie.token[node]
        if token >= 0:
            if group >= used or not is_same(row, leads[group]):
                group = 0
                while group < used and not is_same(row, leads[group]):
                    group += 1
                if group == len(leads):
                    return DEAD
                if group == used:
                    leads[group] = row
                    used += 1
            while token >= 0:
                groups[token] = group
                token = trie.same[token]
        node += 1
    return used


@jit
def child(trie: Trie, node: int, byte: int) -> int:
    """The node of a byte below a node, or -1."""
    last = trie.skip[node]
    below = node + 1
    while below < last and trie.byte[below] != byte:
        below = trie.skip[below]
    return int(below) if below < last else -1


@jit
def fewest_tokens(trie: Trie, pieces: Ids, costs: Ids) -> int:
    """Fewest tokens that spell the pieces (bytes, and from 256 on symbols of one token each). `costs` is scratch."""
    end = len(pieces)
    costs[end] = 0
    for start in range(end - 1, -1, -1):
        best = 1 << 30
        if pieces[start] >= 256:
            best = 1 + costs[start + 1]
        else:
            node = trie.root[pieces[start]]
            place = start
            while node >= 0:
                place += 1
                if trie.token[node] >= 0 and 1 + costs[place] < best:
                    best = 1 + costs[place]
                if place == end or pieces[place] >= 256:
                    break
                node = child(trie, node, pieces[place])
        costs[start] = best
    return int(costs[0])


@jit
def goes_on(trie: Trie, text: npt.NDArray[np.uint8], follows: npt.NDArray[np.bool_]) -> bool:
    """Whether some token begins with the text and goes on with one of the bytes that may follow."""
    node = trie.root[text[0]]
    for place in range(1, len(text)):
        if node < 0:
            return False
        node = child(trie, node, text[place])
    if node < 0:
        return False
    last = trie.skip[node]
    next_node = node + 1
    while next_node < last:
        if follows[trie.byte[next_node]]:
            return True
        next_node = trie.skip[next_node]
    return False


@jit
def pack(tokens: Ids, words: Ids, bits: npt.NDArray[np.uint32]) -> tuple[int, int]:
    """Sort tokens in place, each once, and write the words of a packed row that they are in, with their bits.

    Returns how many tokens and words there are. `words` and `bits` have room for as many as there are tokens.
    """
    tokens.sort()
    count = used = 0
    for place in range(len(tokens)):
        token = tokens[place]
        if count and tokens[count - 1] == token:
            continue
        tokens[count] = token
        count += 1
        if not used or words[used - 1] != token >> 5:
            words[used] = token >> 5
            bits[used] = 0
            used += 1
        bits[used - 1] |= np.uint32(1) << np.uint32(token & 31)
    return count, used


@jit
def write_row(out: Ids, base: Ids, words: Ids, bits: Ids) -> None:
    """Overwrite a packed row with a base, which may be shorter, and some words' bits beside it."""
    out[: len(base)] = base
    out[len(base) :] = 0
    for place in range(len(words)):
        out[words[place]] |= bits[place]
