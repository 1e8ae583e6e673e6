"""The manifest's YAML, read so that no text can exhaust memory, run code or say two things."""

from dataclasses import dataclass, field
from typing import Any

import yaml

from vla_ros.yaml_text import parse_yaml

_DEEPEST = 24
_MOST_VALUES = 100_000
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class ManifestTextError(ValueError):
    """The text is not YAML, or more of it than a manifest needs."""


def parse_manifest_text(text: str) -> object:
    """Return what the YAML of a manifest holds.

    Beside the safe loader's own rules: no tags, no key twice in one mapping, and bounds on nesting
    and on the values that aliases make of a small file.

    Raises:
        ManifestTextError: If it breaks a rule, with the line.

    """
    try:
        _check_events(text)
        return parse_yaml(text)
    except ManifestTextError:
        raise
    # A ValueError is of what only looks like a number or a date, such as 2024-13-01.
    except (yaml.YAMLError, ValueError) as err:
        msg = f"is not YAML: {' '.join(str(err).split()):.300}"
        raise ManifestTextError(msg) from err


@dataclass(slots=True)
class _Open:
    """A collection that has begun: its values with those that aliases repeat, and its keys."""

    anchor: str | None
    is_mapping: bool
    values: int = 1
    keys: set[str] = field(default_factory=set)
    at_key: bool = True


def _check_events(text: str) -> None:
    stack = [_Open(None, is_mapping=False)]
    sizes: dict[str | None, int] = {}
    for event in yaml.parse(text, _LOADER):
        if isinstance(event, yaml.CollectionEndEvent):
            closed = stack.pop()
            sizes[closed.anchor] = closed.values
            _add(stack[-1], closed.values, event)
        elif isinstance(event, yaml.NodeEvent):
            _check_key(stack[-1], event)
            tag = getattr(event, "tag", None)
            if tag is not None:
                _refuse(event, f"the tag {tag!r:.60} is not taken: leave it out")
            if isinstance(event, yaml.CollectionStartEvent):
                stack.append(
                    _Open(event.anchor, is_mapping=isinstance(event, yaml.MappingStartEvent))
                )
                if len(stack) > _DEEPEST:
                    _refuse(event, f"is nested more than {_DEEPEST} deep")
            else:
                _add(stack[-1], _size(event, sizes), event)


def _size(event: Any, sizes: dict[str | None, int]) -> int:  # noqa: ANN401 - PyYAML's events
    """Return how many values a scalar or an alias stands for; remember a scalar's anchor."""
    if not isinstance(event, yaml.AliasEvent):
        sizes[event.anchor] = 1
    elif event.anchor not in sizes:
        _refuse(event, f"the alias *{event.anchor:.60} has no anchor before it")
    return sizes[event.anchor]


def _check_key(parent: _Open, event: Any) -> None:  # noqa: ANN401
    if parent.is_mapping:
        if parent.at_key and isinstance(event, yaml.ScalarEvent):
            if event.value in parent.keys:
                _refuse(event, f"the key {event.value!r:.60} is given twice: leave one out")
            parent.keys.add(event.value)
        parent.at_key = not parent.at_key


def _add(parent: _Open, values: int, event: Any) -> None:  # noqa: ANN401
    parent.values += values
    if parent.values > _MOST_VALUES:
        _refuse(event, f"holds more than {_MOST_VALUES} values")


def _refuse(event: Any, fault: str) -> None:  # noqa: ANN401
    msg = f"line {event.start_mark.line + 1}: {fault}"
    raise ManifestTextError(msg)
