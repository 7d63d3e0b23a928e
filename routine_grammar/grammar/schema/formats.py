"""Formats of strings as expressions of JSON Schema, found in exactly the texts of the format."""

from __future__ import annotations

import warnings
from typing import Any

from routine_grammar.errors import SchemaWarning
from routine_grammar.grammar.schema.shapes import String
from routine_grammar.routine.schema_types import rewritten

_MONTHS = "(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|02-(?:0[1-9]|1[0-9]|2[0-8])"
_LEAP_YEARS = "(?:[0-9][0-9](?:0[48]|[2468][048]|[13579][26])|(?:[02468][048]|[13579][26])00)"
DATE = f"(?:[0-9]{{4}}-(?:{_MONTHS})|{_LEAP_YEARS}-02-29)"
_HOURS, _SIXTY = "(?:[01][0-9]|2[0-3])", "[0-5][0-9]"
_OFFSET = f"(?:[zZ]|[+-]{_HOURS}:{_SIXTY})"
# A leap second is told by the time in UTC alone: with another offset it is another minute's.
TIME = rf"(?:{_HOURS}:{_SIXTY}:{_SIXTY}(?:\.[0-9]+)?{_OFFSET}|23:59:60(?:\.[0-9]+)?(?:[zZ]|[+-]00:00))"
_TIMES = "(?:[0-9]+H(?:[0-9]+M(?:[0-9]+S)?)?|[0-9]+M(?:[0-9]+S)?|[0-9]+S)"
_DAYS = "(?:[0-9]+Y(?:[0-9]+M(?:[0-9]+D)?)?|[0-9]+M(?:[0-9]+D)?|[0-9]+D)"
DURATION = f"P(?:{_DAYS}(?:T{_TIMES})?|T{_TIMES}|[0-9]+W)"
_LABEL = "[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?"
HOSTNAME = rf"{_LABEL}(?:\.{_LABEL})*"
_BYTE = "(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
IPV4 = rf"{_BYTE}(?:\.{_BYTE}){{3}}"
_PIECE = "[0-9a-fA-F]{1,4}"
_LAST = f"(?:{_PIECE}:{_PIECE}|{IPV4})"
IPV6 = (
    "(?:"
    + "|".join(
        (
            f"(?:{_PIECE}:){{6}}{_LAST}",
            f"::(?:{_PIECE}:){{5}}{_LAST}",
            f"(?:{_PIECE})?::(?:{_PIECE}:){{4}}{_LAST}",
            *(f"(?:(?:{_PIECE}:){{0,{n}}}{_PIECE})?::(?:{_PIECE}:){{{4 - n}}}{_LAST}" for n in (1, 2)),
            f"(?:(?:{_PIECE}:){{0,3}}{_PIECE})?::{_PIECE}:{_LAST}",
            f"(?:(?:{_PIECE}:){{0,4}}{_PIECE})?::{_LAST}",
            f"(?:(?:{_PIECE}:){{0,5}}{_PIECE})?::{_PIECE}",
            f"(?:(?:{_PIECE}:){{0,6}}{_PIECE})?::",
        )
    )
    + ")"
)
_ATOM = "[a-zA-Z0-9!#$%&'*+/=?^_`{|}~-]+"
_QUOTED = r'"(?:[ !#-\[\]-~]|\\[ -~])*"'
EMAIL = rf"(?:{_ATOM}(?:\.{_ATOM})*|{_QUOTED})@(?:{HOSTNAME}|\[{IPV4}\]|\[IPv6:{IPV6}\])"
_HEX = "%[0-9a-fA-F]{2}"


def _references(more: str, private: str) -> tuple[str, str]:
    """URIs, and references to them, as RFC 3986 has them; with more characters, and some in queries alone, RFC 3987's IRIs."""
    pchar = f"(?:[a-zA-Z0-9._~!$&'()*+,;=:@{more}-]|{_HEX})"
    user = f"(?:[a-zA-Z0-9._~!$&'()*+,;=:{more}-]|{_HEX})*"
    name = f"(?:[a-zA-Z0-9._~!$&'()*+,;={more}-]|{_HEX})*"
    no_colon = f"(?:[a-zA-Z0-9._~!$&'()*+,;=@{more}-]|{_HEX})"
    host = rf"(?:\[(?:{IPV6}|[vV][0-9a-fA-F]+\.[a-zA-Z0-9._~!$&'()*+,;=:-]+)\]|{name})"
    path = f"(?:/{pchar}*)*"
    tail = rf"(?:\?(?:{pchar}|[/?{private}])*)?(?:#(?:{pchar}|[/?])*)?"
    rooted = f"//(?:{user}@)?{host}(?::[0-9]*)?{path}|/(?:{pchar}+{path})?"
    whole = f"[a-zA-Z][a-zA-Z0-9+.-]*:(?:{rooted}|{pchar}+{path})?{tail}"
    return whole, f"(?:{whole}|(?:{rooted}|{no_colon}+{path})?{tail})"


URI, URI_REFERENCE = _references("", "")
_BASIC = r"\xa0-\ud7ff\uf900-\ufdcf\ufdf0-\uffef"  # characters beyond ASCII, of the first plane
_PLANES = "".join(rf"\u{{{plane:x}0000}}-\u{{{plane:x}fffd}}" for plane in range(1, 14))
IRI, IRI_REFERENCE = _references(
    rf"{_BASIC}{_PLANES}\u{{e1000}}-\u{{efffd}}", r"\u{e000}-\u{f8ff}\u{f0000}-\u{ffffd}\u{100000}-\u{10fffd}"
)
UUID = "[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}"
BYTE = "(?:[a-zA-Z0-9+/]{4})*(?:[a-zA-Z0-9+/]{2}==|[a-zA-Z0-9+/]{3}=)?"
_VARCHAR = f"(?:[a-zA-Z0-9_]|{_HEX})"
_VARIABLE = rf"{_VARCHAR}(?:\.?{_VARCHAR})*(?::[1-9][0-9]{{0,3}}|\*)?"
_LITERAL = rf"(?:[!#$&(-;=?-\[\]_a-z~{_BASIC}\u{{e000}}-\u{{f8ff}}\u{{10000}}-\u{{10fffd}}]|{_HEX})"
URI_TEMPLATE = rf"(?:{_LITERAL}|\{{[+#./;?&=,!@|]?{_VARIABLE}(?:,{_VARIABLE})*\}})*"
JSON_POINTER = "(?:/(?:[^/~]|~[01])*)*"

_EXPRESSIONS = {
    "date": DATE,
    "time": TIME,
    "date-time": f"{DATE}[tT]{TIME}",
    "duration": DURATION,
    "email": EMAIL,
    "hostname": HOSTNAME,
    "ipv4": IPV4,
    "ipv6": IPV6,
    "uri": URI,
    "uri-reference": URI_REFERENCE,
    "iri": IRI,
    "iri-reference": IRI_REFERENCE,
    "uuid": UUID,
    "byte": BYTE,
    "uri-template": URI_TEMPLATE,
    "json-pointer": JSON_POINTER,
    "relative-json-pointer": f"(?:0|[1-9][0-9]*)(?:#|{JSON_POINTER})",
}
_MOST = {"hostname": 253}
# Of numbers, and of what no text is wrong for.
SAYS_NOTHING = frozenset(("float", "double", "password", "binary", "textarea", "html", "markdown"))
INTEGERS = {"int32": 31, "int64": 63}
NAMES = tuple(_EXPRESSIONS)


def without_unknown_formats(schema: Any, where: str = "") -> Any:
    """A schema without the formats that are not known, and a `SchemaWarning` that names them and `where` it is."""
    ignored: list[str] = []

    def known(name: Any, pointer: str) -> Any:
        if isinstance(name, str) and name not in _EXPRESSIONS and name not in SAYS_NOTHING and name not in INTEGERS:
            ignored.append(f"{pointer}: {name!r:.80}")
            return None
        return name

    read = rewritten(schema, "format", known)
    if ignored:
        told = f"{where}formats that are not known are not enforced: {'; '.join(ignored)}"
        warnings.warn(SchemaWarning(told), stacklevel=2)
    return read if ignored else schema


def format_of(name: str) -> String | None:
    """The strings of a format; None where it is not known."""
    expression = _EXPRESSIONS.get(name)
    return String(found=frozenset((f"^(?:{expression})$",)), high=_MOST.get(name)) if expression is not None else None
