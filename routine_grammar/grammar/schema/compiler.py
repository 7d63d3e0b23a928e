"""Schemas to grammar trees: enforced exactly, or declined by an error that names pointer and keyword.

Texts have one spelling of space, properties in the schema's order. Each schema that is referred to becomes a rule, so that
recursive schemas work. Instances are judged as the schema's draft does (2020-12 where it names none), formats included.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from routine_grammar.effort import bounded
from routine_grammar.errors import GrammarError, GrammarTooLargeError, SchemaError, UnsupportedSchemaError
from routine_grammar.grammar.json_text import EXACT, JsonForm
from routine_grammar.grammar.schema.blaming import blamed, reference, too_large
from routine_grammar.grammar.schema.documents import Place, against_metaschema, document, has_names_alone
from routine_grammar.grammar.schema.layout import Layout, LeafNames
from routine_grammar.grammar.schema.reading import Reader
from routine_grammar.grammar.schema.refusals import Circle, Undecided
from routine_grammar.grammar.schema.shapes import Shape
from routine_grammar.grammar.tree import Call, Choice, Grammar, Node, allows_text


class SchemaCompiler:
    """Compiles schemas of one document (which `$ref`s point into) to nodes, adding the rules they call to `rules`."""

    def __init__(
        self, schema: Any, form: JsonForm, rules: dict[str, Node], prefix: str = "", leaves: LeafNames | None = None
    ) -> None:
        self.rules = rules
        self._document = schema
        with self._telling(""):
            self.root = document(schema)
        self.reader = Reader(self.root)
        self.leaves = leaves or LeafNames()
        self.layout = Layout(self.reader.algebra, form, rules, prefix, self.leaves)

    def shape(self, place: Place) -> Shape:
        """The shape of a schema of the document; raises as `node`."""
        with self._telling(place.pointer):
            shape = self.reader.shape(place)
        if not shape:
            raise self.reader.nothing_allowed(place)
        return shape

    def named(self, name: str, pointer: str) -> Shape:
        """The shape that a name stands for; raises as `node`."""
        with self._telling(pointer):
            return self.reader.algebra.shape(name)

    def node(self, shape: Shape, pointer: str = "") -> Node:
        """The texts of a shape's values.

        Raises `UnsupportedSchemaError` for what can't be enforced, `SchemaError` for what is wrong or allows nothing.
        """
        with self._telling(pointer):
            node, made = self.layout.finish(self.layout.node(shape))
        for rule in made:
            if self._comes_to(rule):
                at = reference(self._document, pointer, rule)
                raise SchemaError(f"a $ref ({rule}) leads to itself and to nothing else", pointer=at)
        if made and not allows_text(node, self.rules):
            raise SchemaError("allows no value of finite size: it requires itself again and again", pointer=pointer)
        return node

    @contextmanager
    def _telling(self, pointer: str) -> Iterator[None]:
        """Turns what can't be decided, is too deep, or is no schema where references led, into errors with a pointer."""
        try:
            with bounded():
                yield
        except Circle as error:
            raise SchemaError(f"a $ref {error}", pointer=reference(self._document, pointer)) from error
        except Undecided as error:
            message = f"'$ref' is not supported here: {error}"
            refusal = UnsupportedSchemaError(message, pointer=pointer, keyword="$ref")
            raise blamed(self._document, refusal) from error
        except UnsupportedSchemaError as error:
            raise blamed(self._document, error) from error.__cause__
        except GrammarError as error:
            raise too_large(self._document, error, pointer) from error
        except RecursionError:
            # Its traceback is of a thousand frames.
            raise too_large(self._document, GrammarTooLargeError("nested too deep"), pointer) from None
        except (AttributeError, TypeError) as error:
            if not has_names_alone(self._document):
                raise SchemaError("no JSON: a name that is no string") from error
            if (fault := against_metaschema(self._document)) is None:
                raise
            raise fault from error

    def _comes_to(self, rule: str) -> bool:
        """Whether a rule calls itself before anything is read."""
        seen, todo = set[str](), [self.rules[rule]]
        while todo:
            match todo.pop():
                case Choice(items):
                    todo += items
                case Call(other) if other not in seen:
                    seen.add(other)
                    todo.append(self.rules[other])
        return rule in seen


def schema_to_grammar(schema: Any, form: JsonForm = EXACT) -> Grammar:
    """The grammar of all texts of values valid against a schema.

    Raises `UnsupportedSchemaError` and `SchemaError` as `SchemaCompiler.node`, and for what is no JSON Schema at all.
    """
    rules: dict[str, Node] = {}
    with bounded():
        compiler = SchemaCompiler(schema, form, rules)
        node = compiler.node(compiler.shape(compiler.root))
        with declining(schema):
            return Grammar(node, rules)


@contextmanager
def declining(schema: Any, pointer: str = "") -> Iterator[None]:
    """Turns what is wrong with the grammar of a schema, in a document at a pointer, into an `UnsupportedSchemaError`."""
    try:
        yield
    except UnsupportedSchemaError as error:
        raise blamed(schema, error) from error.__cause__
    except GrammarError as error:
        raise too_large(schema, error, pointer) from error
