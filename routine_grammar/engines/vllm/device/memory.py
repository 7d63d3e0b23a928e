"""What lies where in the memory that devices keep for tables of grammars: an engine core decides, and its workers follow.

In: packed tables, which requests hold and let go. Out: places for them, and what workers have to be sent. It runs where
requests are scheduled, knows no device, and is the same for every rank.
"""

from __future__ import annotations

import hashlib
from bisect import insort
from dataclasses import dataclass, field

from routine_grammar.masks.flat.packed import PackedTable, Words

Part = tuple[int, Words]  # the word at which something begins, and it


@dataclass(eq=False, slots=True)
class Block:
    """Words that lie at `begin`, over other blocks that they name the places of. Whoever has it for use is counted."""

    key: bytes
    begin: int
    words: Words
    beneath: tuple[Block, ...] = ()
    users: int = 0
    was_sent: bool = False
    last_use: int = field(default=0)

    @property
    def end(self) -> int:
        """The word behind it."""
        return self.begin + len(self.words)


class DeviceMemory:
    """`words` words of 8 bytes, of which the first `begin` are others'. What is used no more goes when room is needed.

    Content is told by its digest: two requests of one grammar hold one block, and so do two grammars of one bitmap.
    """

    def __init__(self, words: int, begin: int) -> None:
        self._begin, self._words = begin, words
        self._blocks: list[Block] = []  # by where they begin
        self._by_key: dict[bytes, Block] = {}
        self._uses = 0

    def hold(self, table: PackedTable) -> Block | None:
        """The block of a table, which stays until it is let go as often as it was held. None where there is no room for it."""
        key = table.digest
        block = self._by_key.get(key)
        if block is None:
            bases: list[Block] = []
            for base in table.bases:
                found = self._hold(hashlib.blake2b(base.tobytes(), digest_size=16).digest(), base, ())
                if found is None:
                    break
                bases.append(found)
            else:
                block = self._put(key, table.placed([base.begin for base in bases]), tuple(bases))
            if block is None:
                for base_block in bases:
                    self.let_go(base_block)
                return None
        self._use(block)
        return block

    def _hold(self, key: bytes, words: Words, beneath: tuple[Block, ...]) -> Block | None:
        block = self._by_key.get(key) or self._put(key, words, beneath)
        if block is not None:
            self._use(block)
        return block

    def _use(self, block: Block) -> None:
        block.users += 1
        self._uses += 1
        block.last_use = self._uses

    def let_go(self, block: Block) -> None:
        """Use a block no more. It stays where it is until something else needs the room."""
        block.users -= 1

    @staticmethod
    def parts(block: Block) -> tuple[Part, ...]:
        """What workers have not been sent yet of a block and those beneath it: they have it from now on."""
        unsent = [each for each in (*block.beneath, block) if not each.was_sent]
        for each in unsent:
            each.was_sent = True
        return tuple((each.begin, each.words) for each in unsent)

    def _put(self, key: bytes, words: Words, beneath: tuple[Block, ...]) -> Block | None:
        begin = self._room(len(words))
        if begin is None:
            return None
        block = self._by_key[key] = Block(key, begin, words, beneath)
        insort(self._blocks, block, key=lambda each: each.begin)
        return block

    def _room(self, size: int) -> int | None:
        """Where so many words are free, once what was used longest ago has made room for them."""
        if size > self._words - self._begin:
            return None
        while True:
            end = self._begin
            for block in self._blocks:
                if block.begin - end >= size:
                    return end
                end = block.end
            if self._words - end >= size:
                return end
            if not self._drop_oldest():
                return None  # what is in use leaves no gap that is large enough

    def _drop_oldest(self) -> bool:
        unused = [block for block in self._blocks if not block.users]
        if not unused:
            return False
        oldest = min(unused, key=lambda block: block.last_use)
        self._blocks.remove(oldest)
        del self._by_key[oldest.key]
        for base in oldest.beneath:
            self.let_go(base)
        return True

    def __len__(self) -> int:
        """How many blocks lie there."""
        return len(self._blocks)
