"""docs/chunks.md says what is so: its modes and defaults, and figures for every mode."""

import re
from pathlib import Path

import pytest

from vla_ros.policy.controller import INFERENCE_TIMEOUT_S
from vla_ros.policy.latency import KEPT
from vla_ros.policy.scheduler import ENSEMBLE_DECAY, MODES, SEAM_RATIO

REPOSITORY = Path(__file__).parents[2]
PAGE = (REPOSITORY / "docs" / "chunks.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_is_described_and_measured(mode):
    assert re.search(rf"^\| `{mode}`", PAGE, re.MULTILINE)
    measured = re.findall(rf"^\| {mode} \| (\d+) ms \|", PAGE, re.MULTILINE)
    assert [int(ms) for ms in measured] == [0, 50, 150, 300, 500]


def test_the_default_is_the_first_mode():
    assert re.findall(r"^\| `(\w+)` \(default\)", PAGE, re.MULTILINE) == [MODES[0]]


def test_its_numbers_are_those_of_the_code():
    assert f"`inference_timeout` ({INFERENCE_TIMEOUT_S:g} s)" in PAGE
    assert f"at most {SEAM_RATIO:g} times" in PAGE
    assert f"exp(-{ENSEMBLE_DECAY:g} i)" in PAGE
    assert f"of the last {KEPT}" in PAGE


def test_the_smooth_modes_neither_pause_nor_jump_in_its_figures():
    rows = re.findall(
        r"^\| (blend|rtc|ensemble) \| \d+ ms \| \d+% \| ([\d.]+) \| ([\d.]+) \|", PAGE, re.MULTILINE
    )
    assert len(rows) == 15
    assert all(float(pauses) == 0.0 and float(seam) <= SEAM_RATIO for _, pauses, seam in rows)
