"""Where schemas stand: a document, its draft, and what its references lead to, without any network.

Besides the document itself, the metaschemas of all drafts are known.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple

import referencing.jsonschema
from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match
from jsonschema.validators import validator_for
from jsonschema_specifications import REGISTRY
from referencing import Registry, Resource, Specification
from referencing.exceptions import InvalidAnchor, NoSuchAnchor, PointerToNowhere, Unresolvable
from referencing.jsonschema import DRAFT202012, DynamicAnchor, UnknownDialect, specification_with

from routine_grammar.errors import GrammarTooLargeError, SchemaError, UnsupportedSchemaError

MAX_SCHEMA_CHARS = 4 * 2**20
_DRAFTS = {
    3: referencing.jsonschema.DRAFT3,
    4: referencing.jsonschema.DRAFT4,
    6: referencing.jsonschema.DRAFT6,
    7: referencing.jsonschema.DRAFT7,
    201909: referencing.jsonschema.DRAFT201909,
    202012: referencing.jsonschema.DRAFT202012,
}
_ORDER = list(_DRAFTS.values())
# As drafts are named in the wild: by either scheme, with or without `#`, of no draft (the latest), and with a dash in the host.
_SPELLED = re.compile(r"https?://json-schema[.-]org/(?:draft[-/](0[3467]|2019-09|2020-12)/)?schema#?")


class Anchored(NamedTuple):
    """A schema with an anchor, and the resolver of the resource that it is in."""

    name: str
    is_dynamic: bool
    schema: Any
    resolver: Any


Scope = tuple[Anchored, ...]
_AnchorsKnown = dict[int, tuple[Any, Scope]]  # by a resource's `id`; the resource itself is kept, so that no other has it


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """A schema and where it stands; `pointer` is a JSON pointer for people, `draft` a specification of JSON Schema.

    `passed`: of the resources that led here by references, the first schema with each dynamic anchor.
    """

    schema: Any
    pointer: str
    draft: Specification[Any]
    resolver: Any
    passed: Scope = ()
    _anchors: _AnchorsKnown = field(default_factory=dict)

    def at(self, *path: str | int) -> Place:
        """The schema below, by keywords, names and places in lists."""
        schema: Any = self.schema
        for part in path:
            schema = schema[part]
        pointer = self.pointer + "".join(f"/{escaped(part)}" for part in path)
        if isinstance(schema, Mapping) and isinstance(schema.get("$id" if self.is_from(6) else "id"), str):
            resource: Resource[Any] = self.draft.create_resource(schema)
            return Place(schema, pointer, self.draft, self.resolver.in_subresource(resource), self.scope, self._anchors)
        return Place(schema, pointer, self.draft, self.resolver, self.passed, self._anchors)

    def is_from(self, draft: int) -> bool:
        """Whether the schema is of a draft (a number, or the year and month of the newer ones) or a later one."""
        return _ORDER.index(self.draft) >= _ORDER.index(_DRAFTS[draft])

    def target(self, keyword: str) -> Place:
        """The schema that a reference leads to. Raises `SchemaError` where there is none, or none that is known here."""
        reference = self.schema[keyword]
        at = f"{self.pointer}/{keyword}"
        if not isinstance(reference, str):
            raise SchemaError(f"expected a reference, got {reference!r:.80}", pointer=at)
        try:
            found = self._anchored(reference, keyword) or self.resolver.lookup(reference)
        except (NoSuchAnchor, InvalidAnchor, PointerToNowhere, ValueError, TypeError, AttributeError) as error:
            raise SchemaError(f"{keyword} {reference!r:.120} points to nothing", pointer=at) from error
        except Unresolvable as error:
            message = f"{keyword} {reference!r:.120} leads out of this schema, which is not supported"
            raise UnsupportedSchemaError(message, pointer=at, keyword=keyword) from error
        pointer = reference[1:] if reference == "#" or reference.startswith("#/") else at
        schema = found.schema if isinstance(found, Anchored) else found.contents
        return Place(schema, pointer, _draft_of(schema, at, self.draft), found.resolver, self.scope, self._anchors)

    @property
    def scope(self) -> Scope:
        """The first schema with each dynamic anchor, in the resources that led here and in the own one."""
        names = {anchored.name for anchored in self.passed}
        own = self._anchors_of(self.resolver.lookup("#")) if self.is_from(202012) else ()
        return (*self.passed, *(anchored for anchored in own if anchored.is_dynamic and anchored.name not in names))

    def _anchored(self, reference: str, keyword: str) -> Anchored | None:
        """What a reference by an anchor leads to in the drafts that have dynamic ones; None for any other."""
        resource, mark, name = reference.partition("#")
        if not self.is_from(202012) or not mark or not name or name.startswith("/"):
            return None
        anchors = self._anchors_of(self.resolver.lookup(resource or "#"))
        found = next((anchored for anchored in anchors if anchored.name == name), None)
        if found is not None and found.is_dynamic and keyword == "$dynamicRef":
            return next((anchored for anchored in self.scope if anchored.name == name), found)
        return found

    def _anchors_of(self, resource: Any) -> Scope:
        """The anchors of a resource, as a reference to the whole of it was resolved."""
        schema, resolver = resource.contents, resource.resolver
        if id(schema) not in self._anchors:
            self._anchors[id(schema)] = schema, tuple(_anchors_in(DRAFT202012.create_resource(schema), resolver))
        return self._anchors[id(schema)][1]


def _anchors_in(resource: Resource[Any], resolver: Any) -> Iterator[Anchored]:
    """The anchors in a resource, but for those in resources of their own."""
    todo = [resource]
    while todo:
        part = todo.pop()
        for anchor in part.anchors():
            yield Anchored(anchor.name, isinstance(anchor, DynamicAnchor), part.contents, resolver)
        schemas = (inner for inner in part.subresources() if isinstance(inner.contents, Mapping))  # others hold no anchors
        todo += [inner for inner in schemas if inner.id() is None]


def escaped(part: str | int) -> str:
    """A part of a JSON pointer."""
    return str(part).replace("~", "~0").replace("/", "~1")


def document(schema: Any) -> Place:
    """The place of a whole document.

    Raises `SchemaError` for what is no JSON or of a draft that is not known, `GrammarTooLargeError` for what is too large.
    """
    try:
        size = len(json.dumps(schema))
    except (TypeError, ValueError) as error:
        raise SchemaError(f"no JSON: {error}") from error
    except RecursionError as error:
        raise GrammarTooLargeError("nested too deep") from error
    if size > MAX_SCHEMA_CHARS:
        raise GrammarTooLargeError(f"has {size} characters; the bound is {MAX_SCHEMA_CHARS}")
    if not isinstance(schema, Mapping | bool):
        raise SchemaError(f"expected a schema, an object or a boolean, got {schema!r:.80}")
    draft = _draft_of(schema, "", DRAFT202012)
    resource: Resource[Any] = draft.create_resource(schema)
    return Place(schema, "", draft, _known().resolver_with_root(resource))


def has_names_alone(schema: Any) -> bool:
    """Whether all names in a document are strings, as those of JSON are."""
    todo = [schema]
    while todo:
        match todo.pop():
            case Mapping() as names:
                if not all(isinstance(name, str) for name in names):
                    return False
                todo += names.values()
            case list(items):
                todo += items
    return True


def against_metaschema(schema: Any) -> SchemaError | None:
    """What the metaschema of its draft says against a schema; None where it says nothing.

    References are resolved by a library that expects schemas which conform to it, and fails in any way on others.
    """
    validator = validator_for(schema, default=Draft202012Validator)
    error = best_match(validator(validator.META_SCHEMA).iter_errors(schema))
    if error is None:
        return None
    return SchemaError(f"{error.message:.200}", pointer="".join(f"/{escaped(part)}" for part in error.absolute_path))


@cache
def _known() -> Registry[Any]:
    known: Registry[Any] = REGISTRY
    return known


def _draft_of(schema: Any, pointer: str, usual: Specification[Any]) -> Specification[Any]:
    name = schema.get("$schema") if isinstance(schema, Mapping) else None
    if name is None:
        return usual
    if isinstance(name, str) and (known := _SPELLED.fullmatch(name)):
        return _DRAFTS[int((known.group(1) or "202012").replace("-", ""))]
    try:
        return specification_with(name)
    except (UnknownDialect, AttributeError, TypeError) as error:
        message = f"$schema {name!r:.120} is no draft of JSON Schema that is known"
        raise UnsupportedSchemaError(message, pointer=f"{pointer}/$schema", keyword="$schema") from error
