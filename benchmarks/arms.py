"""The arms of the benchmark: one grammar, compiled and followed by this package, by llguidance and by xgrammar.

In: a case and a vocabulary. Out: rows of allowed tokens, int32 [words], bit 1 = allowed. Every arm runs on one thread, each
as vLLM runs it: no cache over grammars, the vocabulary's own data made beforehand.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from lark import Lark

from benchmarks.results import Measurement, quantiles
from benchmarks.vocabularies import Tokenization
from benchmarks.workload import Case
from routine_grammar.automaton.automaton import Automaton
from routine_grammar.automaton.leaf import LeafLibrary
from routine_grammar.grammar.ebnf import grammar_to_ebnf
from routine_grammar.grammar.lark_reader import read_lark
from routine_grammar.grammar.payload import load_program
from routine_grammar.masks.leaf_rows import VocabularyRows
from routine_grammar.masks.matcher import Matcher
from routine_grammar.masks.rows import TokenRows

OURS, OURS_COLD = "routine_grammar", "routine_grammar, no leaf yet"
OURS_TREE, OURS_LARK = "routine_grammar, from a tree", "routine_grammar, from Lark"
LLGUIDANCE, XGRAMMAR = "llguidance", "xgrammar"
_NO_FORCING = '%llguidance {"no_forcing": true}\n'

Row = npt.NDArray[np.int32]


class Following(Protocol):
    """One sequence under a compiled grammar. `row` is what `fill` writes."""

    row: Row

    def fill(self) -> None:
        """Write the tokens allowed next."""

    def accept(self, token: int) -> bool:
        """Take a token; False where it is not allowed, and then the sequence is over."""

    def may_end(self) -> bool:
        """Whether the text may end here."""


class Compiled(Protocol):
    """A compiled grammar."""

    @property
    def nbytes(self) -> int:
        """The bytes that it takes by now, as far as its library tells; else 0."""

    def start(self) -> Following:
        """A sequence from its beginning; what earlier ones computed is kept."""


class Arm(Protocol):
    """A library that compiles a grammar's text, or what else it is given as."""

    name: str

    def text(self, case: Case) -> Any:
        """The case's grammar as this arm reads it."""

    def compile(self, text: Any) -> Compiled:
        """Compile it from nothing but what belongs to the vocabulary."""


def make_arms(tokenization: Tokenization) -> list[Arm]:
    """This package, and the peers that are installed."""
    ours = (OurArm(tokenization), OurColdArm(tokenization), OurTreeArm(tokenization), OurLarkArm(tokenization))
    return [*ours, *make_peers(tokenization)]


def make_peers(tokenization: Tokenization) -> list[Arm]:
    """The peers that are installed."""
    arms: list[Arm] = []
    if importlib.util.find_spec("llguidance") is not None:
        arms.append(GuidanceArm(tokenization))
    if importlib.util.find_spec("xgrammar") is not None:
        arms.append(XgrammarArm(tokenization))
    return arms


class OurArm:
    """This package; the vocabulary's leaf rows and the leaves compiled so far are kept, as they are in a server."""

    name = OURS

    def __init__(self, tokenization: Tokenization) -> None:
        self._vocabulary = tokenization.vocabulary
        self._rows = VocabularyRows.shared(self._vocabulary)

    def text(self, case: Case) -> Any:
        """The payload that travels in a request."""
        return case.grammar.payload

    def compile(self, text: Any) -> OurCompiled:
        """Read the payload and build its automaton."""
        automaton = Automaton(load_program(text), self._vocabulary.special)
        return OurCompiled(TokenRows(automaton, self._rows))


class OurTreeArm(OurArm):
    """This package where the grammar was made in the same process."""

    name = OURS_TREE

    def text(self, case: Case) -> Any:
        """The tree."""
        return case.grammar.tree

    def compile(self, text: Any) -> OurCompiled:
        """Build its automaton."""
        return OurCompiled(TokenRows(Automaton(text, self._vocabulary.special), self._rows))


class OurLarkArm(OurArm):
    """This package where the grammar comes as Lark text."""

    name = OURS_LARK

    def text(self, case: Case) -> Any:
        """Lark."""
        return case.grammar.lark

    def compile(self, text: Any) -> OurCompiled:
        """Read the text and build its automaton."""
        return OurCompiled(TokenRows(Automaton(read_lark(text), self._vocabulary.special), self._rows))


class OurColdArm:
    """This package as in a process's very first turn: no leaf compiled, no leaf row made."""

    name = OURS_COLD

    def __init__(self, tokenization: Tokenization) -> None:
        self._vocabulary = tokenization.vocabulary
        _ = self._vocabulary.trie

    def text(self, case: Case) -> str:
        """The payload that travels in a request."""
        return case.grammar.payload

    def compile(self, text: str) -> OurCompiled:
        """Read the payload, compile its leaves and build its automaton."""
        library = LeafLibrary()
        automaton = Automaton(load_program(text), self._vocabulary.special, library)
        return OurCompiled(TokenRows(automaton, VocabularyRows(self._vocabulary, library)))


@dataclass(frozen=True)
class OurCompiled:
    """Rows of an automaton."""

    rows: TokenRows

    @property
    def nbytes(self) -> int:
        """The bytes of the automaton, and of the rows that are kept."""
        return self.rows.nbytes

    def start(self) -> OurFollowing:
        """A new matcher."""
        return OurFollowing(self.rows)


class OurFollowing:
    """A matcher of ours."""

    def __init__(self, rows: TokenRows) -> None:
        self._matcher = Matcher(rows)
        self.row = np.zeros(rows.vocabulary.words, np.int32)

    def fill(self) -> None:
        """Write the tokens allowed next."""
        self._matcher.fill(self.row)

    def accept(self, token: int) -> bool:
        """Take a token."""
        return self._matcher.advance(token)

    def may_end(self) -> bool:
        """Whether the text may end here."""
        return self._matcher.may_end


class GuidanceArm:
    """llguidance with its own defaults; with `forcing` its rows narrow to the canonical token where text is forced."""

    name = LLGUIDANCE

    def __init__(self, tokenization: Tokenization, *, forcing: bool = True) -> None:
        import llguidance

        self._vocabulary, self._forcing = tokenization.vocabulary, forcing
        self.tokenizer = llguidance.LLTokenizer(llguidance.TokenizerWrapper(_GuidanceTokens(tokenization)))

    def text(self, case: Case) -> str:
        """Lark."""
        return ("" if self._forcing else _NO_FORCING) + case.grammar.lark_for("llguidance", self._vocabulary)

    def compile(self, text: str) -> GuidanceCompiled:
        """Parse the Lark and build its lexer and parser; raises `ValueError` where llguidance refuses it."""
        import llguidance

        matcher = llguidance.LLMatcher(self.tokenizer, llguidance.grammar_from("grammar", text), log_level=0)
        if matcher.is_error():
            raise ValueError(f"llguidance refuses the grammar: {matcher.get_error()}")
        return GuidanceCompiled(matcher, self._vocabulary.words)


class _GuidanceTokens:
    """A vocabulary as llguidance reads it."""

    bos_token_id = None

    def __init__(self, tokenization: Tokenization) -> None:
        vocabulary = tokenization.vocabulary
        names = {token: name for name, token in vocabulary.special.items()}
        self.tokens = [data or names.get(token, f"<[{token}]>").encode() for token, data in enumerate(vocabulary.tokens)]
        self.special_token_ids = [token for token, data in enumerate(vocabulary.tokens) if not data]
        self.eos_token_id = vocabulary.eos[0]
        self._encode = tokenization.encode

    def __call__(self, text: bytes) -> list[int]:
        return self._encode(text.decode())


@dataclass(frozen=True)
class GuidanceCompiled:
    """A matcher that takes no token itself: one that refused a token can't be reset."""

    matcher: Any
    words: int
    nbytes: int = 0  # it does not say

    def start(self) -> GuidanceFollowing:
        """A copy of the matcher; it shares the lexer, which keeps what it has computed."""
        return GuidanceFollowing(self.matcher.deep_copy(), self.words)


class GuidanceFollowing:
    """A matcher of llguidance's."""

    def __init__(self, matcher: Any, words: int) -> None:
        import llguidance.numpy

        self._matcher = matcher
        self._fill = llguidance.numpy.fill_next_token_bitmask
        self._rows = np.zeros((1, words), np.int32)
        self.row = self._rows[0]

    def fill(self) -> None:
        """Write the tokens allowed next."""
        self._fill(self._matcher, self._rows)

    def accept(self, token: int) -> bool:
        """Take a token."""
        return bool(self._matcher.consume_token(token))

    def may_end(self) -> bool:
        """Whether the text may end here."""
        return bool(self._matcher.is_accepting())


class XgrammarArm:
    """xgrammar without its cache over grammars."""

    name = XGRAMMAR

    def __init__(self, tokenization: Tokenization) -> None:
        import xgrammar

        vocabulary = tokenization.vocabulary
        tokens = list(vocabulary.tokens)
        for name, token in vocabulary.special.items():
            tokens[token] = name.encode() if token not in vocabulary.eos else b""
        self._eos = vocabulary.eos[0]
        self._info = xgrammar.TokenizerInfo(tokens, xgrammar.VocabType.RAW, stop_token_ids=list(vocabulary.eos))

    def text(self, case: Case) -> str:
        """EBNF."""
        return grammar_to_ebnf(case.grammar.tree)

    def compile(self, text: str) -> XgrammarCompiled:
        """Parse the EBNF and make the masks of its states."""
        import xgrammar

        compiler = xgrammar.GrammarCompiler(self._info, max_threads=1, cache_enabled=False)
        return XgrammarCompiled(compiler.compile_grammar(text), self._info.vocab_size, self._eos)


@dataclass(frozen=True)
class XgrammarCompiled:
    """A compiled grammar of xgrammar's."""

    compiled: Any
    vocabulary_size: int
    eos: int

    @property
    def nbytes(self) -> int:
        """The bytes of the compiled grammar."""
        return int(self.compiled.memory_size_bytes)

    def start(self) -> XgrammarFollowing:
        """A new matcher."""
        return XgrammarFollowing(self)


class XgrammarFollowing:
    """A matcher of xgrammar's."""

    def __init__(self, grammar: XgrammarCompiled) -> None:
        import xgrammar

        self._eos = grammar.eos
        self._matcher = xgrammar.GrammarMatcher(grammar.compiled)
        self._rows = xgrammar.allocate_token_bitmask(1, grammar.vocabulary_size)
        self.row = self._rows.numpy()[0]

    def fill(self) -> None:
        """Write the tokens allowed next."""
        self._matcher.fill_next_token_bitmask(self._rows)

    def accept(self, token: int) -> bool:
        """Take a token."""
        return bool(self._matcher.accept_token(token))

    def may_end(self) -> bool:
        """Whether the text may end here; ends it where it may."""
        return bool(self._matcher.accept_token(self._eos))


def allows(following: Following, tokens: Sequence[int]) -> bool:
    """Whether the tokens, from the beginning of a sequence, are a whole text."""
    return all(map(following.accept, tokens)) and following.may_end()


def parse_times(cases: Sequence[Case], times: int) -> list[Measurement]:
    """The milliseconds that the parser of the lark package takes over the Lark text of each case, which is part of ours."""
    parser = Lark.open_from_package("lark", "lark.lark", ("grammars",), parser="lalr")
    found = []
    for case in cases:
        text, took = case.grammar.lark.rstrip() + "\n", list[float]()
        for _ in range(times):
            begin = perf_counter()
            parser.parse(text)
            took.append(1e3 * (perf_counter() - begin))
        found.append(quantiles(case.name, OURS_LARK, "of it: lark's parser", "ms", took))
    return found
