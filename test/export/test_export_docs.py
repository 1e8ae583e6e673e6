"""docs/exporting.md: its commands run as written; beside lerobot, all of them."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from vla_ros.export import parity
from vla_ros.export.lerobot.checkpoint import ENVIRONMENT, KINDS
from vla_ros.export.meaning import ACTION_TYPES

pytest.importorskip("torch", reason="needs torch: requirements/learn.txt")

pytestmark = [pytest.mark.timeout(600), pytest.mark.slow]

REPOSITORY = Path(__file__).resolve().parents[2]
PAGE = (REPOSITORY / "docs" / "exporting.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
HAS_LEROBOT = importlib.util.find_spec("lerobot") is not None


@pytest.fixture
def workplace(tmp_path):
    for name in ("bundles", "test"):
        (tmp_path / name).symlink_to(REPOSITORY / name)
    for name in (".venv", ENVIRONMENT):
        (tmp_path / name).symlink_to(sys.prefix)
    programs = tmp_path / ".bin"
    programs.mkdir()
    program = programs / "vla_ros"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m vla_ros.cli "$@"\n')
    program.chmod(0o755)
    return tmp_path


def _needs_lerobot(script):
    return any(word in script for word in (ENVIRONMENT, "export lerobot", "act_bundle"))


def test_the_commands_run_as_written(workplace):
    scripts = [script for script in BLOCKS if not script.startswith("make ")]
    scripts = [script for script in scripts if HAS_LEROBOT or not _needs_lerobot(script)]
    assert len(scripts) == (6 if HAS_LEROBOT else 2)
    for script in scripts:
        done = subprocess.run(
            ["bash", "-e", "-u", "-c", script],
            cwd=workplace,
            env={
                **os.environ,
                "PATH": f"{workplace / '.bin'}:{os.environ['PATH']}",
                "PYTHONPATH": str(REPOSITORY),
            },
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, (script, done.stderr)
    made = {path.parent.name for path in workplace.glob("runs/export/*/manifest.yaml")}
    expected = {"mine", "mine_bundle", "mine_bundle_int8", "torch_bundle"}
    if HAS_LEROBOT:
        expected |= {"act_bundle", "smolvla_bundle", "smolvla_bundle_fp16", "smolvla_bundle_int8"}
    assert made == expected


def test_what_can_be_exported_and_said_is_on_the_page():
    for word in (*ACTION_TYPES, parity.REPORT, "fp16", "int8", "--observations"):
        assert word in PAGE, word
    for kind in KINDS:
        assert kind in PAGE.lower(), kind
