"""docs/bundles.md: its commands run as written, print what it shows, and it names every key."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from blank_bundles import content

from vla_ros.policy.bundle import Limits
from vla_ros.policy.commands.schema import json_schema
from vla_ros.policy.manifest import parse_manifest

REPOSITORY = Path(__file__).resolve().parents[2]
PAGE = (REPOSITORY / "docs" / "bundles.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```sh( fails)?\n(.*?)^```\n((?:\n?    [^\n]*\n)*)", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    (folder / "bundles").symlink_to(REPOSITORY / "bundles")
    programs = folder / ".bin"
    programs.mkdir()
    program = programs / "vla_ros"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m vla_ros.cli "$@"\n')
    program.chmod(0o755)
    return folder


def run(workplace, script):
    path = f"{workplace / '.bin'}:{os.environ['PATH']}"
    return subprocess.run(
        ["bash", "-e", "-u", "-c", script],
        cwd=workplace,
        env={**os.environ, "PATH": path, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def without_times(text):
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return [re.sub(r"in [\d.]+ ms", "in T ms", line) for line in lines]


def test_the_commands_run_as_written_and_print_what_is_shown(workplace):
    blocks = BLOCK.findall(PAGE)
    assert [fails for fails, _, _ in blocks] == ["", "", "", " fails"]
    shown = 0
    for fails, script, expected in blocks:
        done = run(workplace, script)
        assert done.returncode == (1 if fails else 0), (script, done.stderr)
        if expected:
            shown += 1
            printed = done.stderr if fails else done.stdout
            assert without_times(printed) == without_times(expected)
    assert shown == 3


def test_the_server_of_the_page_is_a_manifest():
    (block,) = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    data = content("direct") | yaml.safe_load(block) | {"files": {}}
    data["cameras"][0] |= {"input": "observation/image", "size": [224, 224], "layout": "nhwc"}
    data["state"] = {
        "input": "observation/state",
        "names": [f"joint.position.j{i}" for i in range(8)],
        "normalisation": {"type": "identity"},
    }
    names = ["x", "y", "z", "rx", "ry", "rz", "gripper"]
    data["action"] |= {"chunk": 10, "rotation": "rotation_vector", "names": names}
    data["action"]["normalisation"] = {"type": "identity"}
    manifest = parse_manifest(data, Path("here"))
    assert manifest.graphs[0].inputs["prompt"].type == "string"


def test_every_key_and_every_choice_is_on_the_page():
    schema = json_schema()
    words = set(re.findall(r"[A-Za-z0-9_]+", PAGE))
    for section in (schema, *schema["$defs"].values()):
        for choice in (section, *section.get("anyOf", ())):
            for name, key in choice.get("properties", {}).items():
                assert name in words, name
                for part in key.get("anyOf", [key]):
                    for value in part.get("enum", [part.get("const")]):
                        assert value is None or str(value) in words, (name, value)


def test_the_limits_on_the_page_are_those_of_the_code():
    limits = Limits()
    said = f"{limits.files} files of {limits.total_bytes // 10**9} GB together"
    assert f"at most {limits.manifest_bytes // 10**6} MB of plain YAML" in PAGE
    assert said in PAGE
