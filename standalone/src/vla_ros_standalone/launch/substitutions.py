"""Substitutions such as ``$(var name)``, with the grammar of ``launch.frontend``."""

from __future__ import annotations

import ast
import operator
import os
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import yaml
from ament_index_python.packages import (
    PackageNotFoundError,
    get_package_prefix,
    get_package_share_directory,
)

if TYPE_CHECKING:
    from collections.abc import Callable


class LaunchError(Exception):
    """A launch file, or an argument for one, that cannot be used."""


@dataclass(slots=True)
class Context:
    """What substitutions refer to: it changes as the actions of a launch file are carried out."""

    configurations: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    file: str = ""


@dataclass(frozen=True, slots=True)
class Call:
    """A substitution with its arguments, each a template."""

    name: str
    arguments: tuple[Template, ...]


Template = tuple["str | Call", ...]
"""Text and substitutions, to be put together in this order."""


def parse(text: str) -> Template:
    """Read a template.

    Raises:
        LaunchError: A substitution is malformed or not known.
    """
    return _Scanner(text).template(end="")


def perform(template: Template, context: Context) -> str:
    """Give the text of a template.

    Raises:
        LaunchError: A variable, environment variable or package does not exist.
    """
    return "".join(
        part
        if isinstance(part, str)
        else _SUBSTITUTIONS[part.name].perform(
            context, *(perform(argument, context) for argument in part.arguments)
        )
        for part in template
    )


def substitute(text: str, context: Context) -> str:
    """Read a template and give its text."""
    return perform(parse(text), context)


def boolean(text: str) -> bool:
    """Read what ``if`` and ``unless`` take: true, false, 1 or 0 in any case.

    Raises:
        LaunchError: It is something else.
    """
    word = text.strip().lower()
    if word not in ("true", "1", "false", "0"):
        msg = f"'{text}' is no condition: true, 1, false or 0 is needed"
        raise LaunchError(msg)
    return word in ("true", "1")


def coerce(text: str, kind: str | None = None) -> object:
    """Convert a value as ``launch`` does: by YAML's rules, or to the type that a file names.

    Args:
        text: The value after substitution.
        kind: ``str``, ``bool``, ``int``, ``float``, ``list_of_str`` and so on; None or ``yaml`` for
            what the YAML says.

    Raises:
        LaunchError: It is not of that type, or of none that a parameter can have.
    """
    if kind == "str":
        return text
    if kind in ("int", "float"):
        try:
            return {"int": int, "float": float}[kind](text)
        except ValueError:
            msg = f"'{text}' is not of type {kind}"
            raise LaunchError(msg) from None
    if not text:
        return text
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        msg = f"'{text}' is not YAML; give type=\"str\" if it is meant as text"
        raise LaunchError(msg) from None
    if not _is_parameter(value):
        msg = f"'{text}' is no value of one of the types bool, int, float, str or their lists"
        raise LaunchError(msg)
    if kind not in (None, "yaml"):
        wanted = _TYPES[kind.removeprefix("list_of_")]
        items = value if kind.startswith("list_of_") else [value]
        if not isinstance(items, list) or not all(isinstance(item, wanted) for item in items):
            msg = f"'{text}' is not of type {kind}"
            raise LaunchError(msg)
    return value


_TYPES = {"str": str, "bool": bool, "int": int, "float": float}
VALUE_TYPES = frozenset({*_TYPES, *(f"list_of_{name}" for name in _TYPES), "yaml"})
"""What the attribute ``type`` of ``param`` may be."""


def _is_parameter(value: object) -> bool:
    if isinstance(value, list):
        return len({type(item) for item in value}) <= 1 and all(
            isinstance(item, tuple(_TYPES.values())) for item in value
        )
    return isinstance(value, tuple(_TYPES.values()))


def _variable(context: Context, name: str, *default: str) -> str:
    value = context.configurations.get(name, *default)
    if value is None:
        known = ", ".join(sorted(context.configurations)) or "none"
        msg = f"no variable '{name}' is set here; set are: {known}"
        raise LaunchError(msg)
    return value


def _environment(context: Context, name: str, *default: str) -> str:
    value = context.environment.get(name, *default)
    if value is None:
        msg = f"environment variable '{name}' does not exist"
        raise LaunchError(msg)
    return value


def _package(find: Callable[[str], str]) -> Callable[..., str]:
    def perform_find(_: Context, name: str) -> str:
        try:
            return find(name)
        except PackageNotFoundError as error:
            raise LaunchError(str(error)) from None

    return perform_find


def _truth(text: str) -> bool:
    value = coerce(text, "bool")
    if not isinstance(value, bool):
        msg = f"'{text}' is not true or false"
        raise LaunchError(msg)
    return value


_COMPARISONS: dict[type[ast.cmpop], Callable[[object, object], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}


def _compare(_: Context, expression: str) -> str:
    """Give what Python does, of the one kind of expression that is needed: 'a' == 'b', or !=."""
    try:
        tree = ast.parse(expression.strip(), mode="eval").body
    except SyntaxError:
        tree = None
    match tree:
        case ast.Compare(ast.Constant(left), [comparison], [ast.Constant(right)]) if (
            type(comparison) in _COMPARISONS
        ):
            return str(_COMPARISONS[type(comparison)](left, right))
    msg = f"eval knows comparisons of two constants by == and != alone, not: {expression}"
    raise LaunchError(msg)


@dataclass(frozen=True, slots=True)
class _Substitution:
    perform: Callable[..., str]
    fewest: int
    most: int


_SUBSTITUTIONS = {
    "var": _Substitution(_variable, 1, 2),
    "env": _Substitution(_environment, 1, 2),
    "find-pkg-share": _Substitution(_package(get_package_share_directory), 1, 1),
    "find-pkg-prefix": _Substitution(_package(get_package_prefix), 1, 1),
    "dirname": _Substitution(lambda context: os.path.dirname(context.file), 0, 0),
    "filename": _Substitution(lambda context: context.file, 0, 0),
    "not": _Substitution(lambda _, a: str(not _truth(a)).lower(), 1, 1),
    "and": _Substitution(lambda _, a, b: str(_truth(a) and _truth(b)).lower(), 2, 2),
    "eval": _Substitution(_compare, 1, 1),
    "or": _Substitution(lambda _, a, b: str(_truth(a) or _truth(b)).lower(), 2, 2),
}

_IDENTIFIER = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")


class _Scanner:
    """Recursive descent over ``launch``'s grammar.lark, less quotes within quotes."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def error(self, what: str) -> LaunchError:
        return LaunchError(f"{what} at character {self.at + 1} of '{self.text}'")

    def peek(self, count: int = 1) -> str:
        return self.text[self.at : self.at + count]

    def template(self, end: str) -> Template:
        """Read up to a closing quote, or to the end of the text."""
        parts: list[str | Call] = []
        while self.peek() != end:
            if not self.peek():
                msg = f"{end} is missing"
                raise self.error(msg)
            parts.append(self.call(quoted=bool(end)) if self.peek(2) == "$(" else self.character())
        return _join(parts)

    def character(self) -> str:
        """Read a character, or the one behind a backslash."""
        self.at += 2 if self.peek() == "\\" and self.at + 1 < len(self.text) else 1
        return self.text[self.at - 1]

    def call(self, *, quoted: bool) -> Call:
        self.at += 2
        match = _IDENTIFIER.match(self.text, self.at)
        if match is None:
            msg = "the name of a substitution is missing"
            raise self.error(msg)
        name = match[0]
        if name not in _SUBSTITUTIONS:
            known = ", ".join(sorted(_SUBSTITUTIONS))
            msg = f"substitution '{name}' is not known (known are {known})"
            raise self.error(msg)
        self.at = match.end()
        arguments = []
        while self.peek() == " ":
            self.at += 1
            arguments.append(self.argument(quoted=quoted))
        if self.peek() != ")":
            msg = "')' is missing"
            raise self.error(msg)
        self.at += 1
        known = _SUBSTITUTIONS[name]
        if not known.fewest <= len(arguments) <= known.most:
            counts = f"{known.fewest}" + (f" or {known.most}" if known.most > known.fewest else "")
            msg = f"'{name}' takes {counts} arguments, not {len(arguments)}:"
            raise self.error(msg)
        return Call(name, tuple(arguments))

    def argument(self, *, quoted: bool) -> Template:
        quote = self.peek()
        if quote in ("'", '"') and not quoted:
            self.at += 1
            inside = self.template(end=quote)
            self.at += 1
            return inside
        parts: list[str | Call] = []
        while self.peek() not in (" ", ")"):
            if self.peek(2) == "$(":
                parts.append(self.call(quoted=quoted))
            elif self.peek() in ("", "'", '"', "("):
                msg = "an argument ends with a space or ')', which is missing"
                raise self.error(msg)
            else:
                parts.append(self.character())
        if not parts:
            msg = "one space, and no more, stands between arguments:"
            raise self.error(msg)
        return _join(parts)


def _join(parts: list[str | Call]) -> Template:
    """Join neighbouring texts."""
    joined: list[str | Call] = []
    for part in parts:
        if joined and isinstance(part, str) and isinstance(joined[-1], str):
            joined[-1] += part
        else:
            joined.append(part)
    return tuple(joined)
