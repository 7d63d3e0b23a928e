"""The demo model's tokenizer: byte-level BPE, trained on a small text that this module writes itself.

Out: the bytes of a Hugging Face `tokenizer.json` with `VOCABULARY_SIZE` tokens, the same on every machine: no file,
clock, random number or hash order goes into the text. The markers of Qwen's chat format are added tokens, as Qwen3 has
them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import cycle, islice

from tokenizers import AddedToken, Regex, Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel, Sequence, Split
from tokenizers.trainers import BpeTrainer

VOCABULARY_SIZE = 2048
END_OF_TEXT = "<|endoftext|>"
END_OF_MESSAGE = "<|im_end|>"
_CONTROL_MARKERS = (END_OF_TEXT, "<|im_start|>", END_OF_MESSAGE)
_TEXT_MARKERS = ("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<think>", "</think>")
# How Qwen cuts text: contractions, words with one leading character, single digits, punctuation, line ends, space.
_PIECES = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def _words(text: str) -> list[str]:
    return text.split()


_FUNCTION_WORDS = _words("""
the of and to a in is that for it as with on be by this from or are not an at which can if when then all each one has
must may will was were have had do does but no any other into than only its their more after before where there these
those how what who you your we our they them he she his her so such some between through over under about against
during while until
""")
_VERBS = _words("""
add apply approve ask assign attach book build call cancel change check choose clone close commit compare compute
confirm convert copy count create decide delete deliver deny describe download edit email end escalate fetch file fill
filter find finish forward get give grant group handle import include insert inspect issue join keep list load lock
look make mark match merge move notify open order pay plan post print process publish pull push query read receive
record refund reject release remove rename repeat replace reply report request reserve reset resolve restore return
review run save schedule search select send set show sign sort split start stop store submit summarise switch sync test
tell track translate transfer unlock update upload use validate verify view wait write
""")
_NOUNS = _words("""
account action address agent amount answer argument article author balance bank benefit bill board body branch budget
building calendar card case category channel chat check city claim class client code column comment commit company
condition contact content contract cost country course currency customer data database date day default department
detail device diff directory discount document domain draft duration email employee entry error event example expense
family field file folder form format function group guide hash head history holiday hour image index input invoice
issue item job key label language layer leave level library limit line link list location log machine mail manager
memory menu message method minute mode model module money month name network node note notice number object offer
office operation option order output owner package page parameter part password path payment people period person phone
place plan point policy position price process product profile program project property question queue range rate
reason receipt recipient record ref reference region release repo report repository request response result review role
room route routine row rule salary schedule schema score second section sender sequence server service shift
signature size source stage standard state status step store string subject summary system table target task tax team
template ticket time timestamp timezone title token tool topic total travel type unit update url user value variable
vendor version visit week weight word work worker year zone
""")
_QUALITIES = _words("""
active all available bad best big blue central clean clear closed common complete correct current daily dark early easy
empty exact external false final first free fresh full general good great green half hard heavy high important internal
invalid large last late left light local long low main maximum minimum missing monthly new next null old open optional
overdue past pending personal possible present private public quick ready recent red regular remote required right safe
same short simple single small special staged strong true unique unread unstaged urgent valid weekly whole wide wrong
yearly
""")
_KEYWORDS = _words("""
and as assert async await break case class continue def del elif else except False finally for from global if import in
is lambda match None nonlocal not or pass raise return self True try while with yield int str float bool bytes dict
list tuple
""")
_PLACES = ("Europe/Berlin", "Europe/London", "America/New_York", "Asia/Tokyo", "Africa/Cairo", "UTC")


def demo_tokenizer_json() -> bytes:
    """Train the demo tokenizer and return its `tokenizer.json`; a fifth of a second, no files and no network."""
    markers = [AddedToken(text, special=True, normalized=False) for text in _CONTROL_MARKERS]
    markers += [AddedToken(text, special=False, normalized=False) for text in _TEXT_MARKERS]
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = Sequence([Split(Regex(_PIECES), "isolated"), ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = ByteLevelDecoder()
    trainer = BpeTrainer(
        vocab_size=VOCABULARY_SIZE - len(markers),
        initial_alphabet=sorted(ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_training_text(), trainer)
    tokenizer.add_tokens(markers)
    return (tokenizer.to_str(pretty=True) + "\n").encode()


def _training_text() -> Iterator[str]:
    """Sentences, tool calls, lists of tools and code: about what a server of tool calls sees."""
    yield from _sentences()
    yield from _tool_calls()
    yield from _code_lines()
    # What every JSON text has earns its own token, whatever the rest says.
    yield from ['{"name": "', '", "arguments": {"', '"}}\n', '": "', '", "', '": {"', '"}, {"', '": ["'] * 40
    # The alphabet covers the bytes of all scripts; a few common letters earn a token as well.
    yield from ["ä ö ü ß é è à ç ñ – — “ ” € £ °"] * 8


def _sentences() -> Iterator[str]:
    function_words = _by_rank(_FUNCTION_WORDS, most=60)
    verbs, nouns, qualities = cycle(_VERBS), cycle(_NOUNS), cycle(_QUALITIES)
    small = cycle(function_words)
    for number, verb in enumerate(islice(verbs, 3 * len(_NOUNS)), 1):
        first, second, third = next(nouns), next(nouns), next(nouns)
        quality = next(qualities)
        yield f"Step {number % 12}. {verb.capitalize()} {next(small)} {quality} {first} {next(small)} {second}. "
        yield f"If {next(small)} {third} is {quality}, {verb} {next(small)} {first}s; otherwise {next(small)}.\n"


def _tool_calls() -> Iterator[str]:
    verbs, nouns, qualities, places = cycle(_VERBS), cycle(_NOUNS), cycle(_QUALITIES), cycle(_PLACES)
    for number in range(2 * len(_NOUNS)):
        noun, other = next(nouns), next(nouns)
        arguments = {
            f"{noun}_id": number,
            other: f"{next(qualities)} {noun}",
            f"max_{noun}": [number % 7, number % 10],
            "timezone": next(places),
            "repo_path": f"/tmp/{other}",
            "memory": f"memory_{number % 9}_{noun}",
        }
        call = {"name": f"{next(verbs)}_{noun}", "arguments": arguments}
        yield json.dumps(call) + "\n"
        properties = {other: {"type": "string", "description": noun}}
        parameters = {"type": "object", "properties": properties, "required": [other]}
        yield json.dumps({"type": "function", "function": {"name": noun, "parameters": parameters}}) + "\n"


def _code_lines() -> Iterator[str]:
    nouns = cycle(_NOUNS)
    for keyword in _KEYWORDS * 6:
        noun, other = next(nouns), next(nouns)
        yield f"    {keyword} {noun}_{other}:\n        {noun} = {other}[0] + self.{noun}({other}, {noun}=None)\n"


def _by_rank(words: list[str], *, most: int) -> list[str]:
    """The words as often as natural text has them: the first `most` times, the n-th most/n times, mixed."""
    copies = [(turn, word) for rank, word in enumerate(words, 1) for turn in range(max(1, most // rank))]
    return [word for _, word in sorted(copies)]
