"""What our routes answer, as the OpenAPI document at `/openapi.json` describes it."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field


class RoutineEntry(BaseModel):
    """A Routine that the server offers."""

    name: str
    description: str
    version: str = Field(description="Eight hex digits that change with the Routine.")
    inputs: list[str] = Field(description="Names of its inputs, each to be given under `memory_input_<name>`.")
    tools: list[str]


class RoutineList(BaseModel):
    """Every Routine that the server offers."""

    routines: list[RoutineEntry]


class RoutineAnswer(BaseModel):
    """One Routine: as a document, as text, and as one grammar."""

    name: str
    version: str
    document: dict[str, Any]
    text: str
    tools: list[dict[str, Any]] = Field(description="Those that it uses, as MCP has them: name, description, schemas.")
    positions: list[str] = Field(description="Inside a repetition, a position stands for those at all items (`2-1_1@0`, …).")
    lark: str


class CheckAnswer(BaseModel):
    """Everything that is wrong with a Routine, a line each; nothing where all is well."""

    problems: list[str]


class TurnAnswer(BaseModel):
    """What may come next at a position."""

    position: str
    tools: list[str]
    steps: list[str]
    may_end: bool = Field(description="Whether a final answer may come instead of a call.")
    forced: str = Field(description="The text that the turn begins with, whatever is decoded.")
    lark: str


class ErrorBody(BaseModel):
    """What went wrong."""

    message: str
    type: str
    param: str | None = None
    code: int


class ErrorAnswer(BaseModel):
    """An error in the shape of OpenAI's API."""

    error: ErrorBody
