"""`vla_ros bundle schema`: the manifest's JSON Schema, for editors and for other programs."""

import argparse
import json
import re
from pathlib import Path
from typing import Any

from vla_ros.policy.manifest import Manifest


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    parser.add_argument("--out", type=Path, metavar="FILE", help="write it there, not to stdout")


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of `manifest.yaml`.

    It says what each key may be; that keys do not contradict one another, only loading checks.
    """
    schema = Manifest.model_json_schema()
    for section in (schema, *schema["$defs"].values()):
        _describe(section)
        # Sections that take something else beside a mapping hold the mapping among the choices.
        for choice in section.get("anyOf", ()):
            _describe(choice)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _describe(section: dict[str, Any]) -> None:
    """Move the description of each key from the section's to the key, where editors show it."""
    text, _, keys = section.get("description", "").partition("\n\nAttributes:\n")
    if not keys:
        return
    section["description"] = text
    for entry in re.split(r"\n(?=    \S)", keys):
        name, _, meaning = " ".join(entry.split()).partition(": ")
        section["properties"][name]["description"] = meaning


def run(args: argparse.Namespace) -> int:
    """Print or write the schema; return the exit code."""
    text = json.dumps(json_schema(), indent=2)
    if args.out is None:
        print(text)
    else:
        args.out.write_text(text + "\n", encoding="utf-8")
        print(f"schema: {args.out}")
    return 0
