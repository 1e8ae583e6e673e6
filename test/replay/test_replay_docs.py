"""docs/replay.md: its commands run as written, and its table has every metric."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from panda_bags import ROBOT, motion

from bundles import make_bundle
from vla_ros.replay.metrics import find
from vla_ros.replay.output import write_bag
from vla_ros.replay.replay import Options, replay_bag, result_from_bag
from vla_ros.sim.mujoco_gl import RenderError, check_rendering

REPOSITORY = Path(__file__).resolve().parents[2]
PAGE = (REPOSITORY / "docs" / "replay.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```sh( fails)?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A folder with what the commands name, and the programs that they call."""
    folder = tmp_path_factory.mktemp("story")
    for name in ("config", "bundles"):
        (folder / name).symlink_to(REPOSITORY / name)
    programs = folder / ".bin"
    programs.mkdir()
    for name, words in (("vla_ros", "-m vla_ros.cli"), ("python3", "")):
        program = programs / name
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" {words} "$@"\n')
        program.chmod(0o755)
    return folder


def run(workplace, script):
    environment = {k: v for k, v in os.environ.items() if k != "ROS_DOMAIN_ID"}
    environment["PATH"] = f"{workplace / '.bin'}:{environment['PATH']}"
    environment["PYTHONPATH"] = f"{REPOSITORY}:{environment.get('PYTHONPATH', '')}"
    environment["PYTEST_PLUGINS"] = "vla_ros.replay.pytest_plugin"
    return subprocess.run(
        ["bash", "-e", "-u", "-c", script],
        cwd=workplace,
        env=environment,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )


def test_the_page_has_a_story():
    assert len(BLOCK.findall(PAGE)) >= 6
    assert [fails for fails, _ in BLOCK.findall(PAGE)].count(" fails") == 1


@pytest.mark.demo
@pytest.mark.realtime
@pytest.mark.timeout(600)
def test_the_commands_run_as_written(workplace):
    try:
        check_rendering()
    except RenderError as err:
        pytest.skip(f"the demo cannot run here: {err}")
    for fails, script in BLOCK.findall(PAGE):
        done = run(workplace, script)
        told = f"{script}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        assert done.returncode == (1 if fails else 0), told
        if fails:
            assert "FAILED  speed_max: expected max 0.2, but it is 0.2" in done.stdout, told
            assert "first at " in done.stdout


def test_every_metric_is_in_the_table(tmp_path):
    """By its whole name, or by the family that it belongs to."""
    maker = motion(cameras=True)
    for i in range(30):
        maker.command(maker_time(i), (0.0,), topic="/safe_command")
    bundle = make_bundle(tmp_path / "bundle").path
    both = replay_bag(maker.bag(tmp_path / "bag"), ROBOT, bundle, options=Options())
    write_bag(both, tmp_path / "out")
    live = result_from_bag(tmp_path / "out", ROBOT)
    table = PAGE[PAGE.index("<!-- metrics -->") :]
    listed = set(re.findall(r"`([a-z_]*[a-z](?:\.[a-z0-9<>*]+)?)`", table))
    listed |= {  # "`x.mean`, `.p95`" stands for `x.p95` too
        f"{row.split('.')[0]}{suffix}"
        for row in listed
        for suffix in (".p50", ".p95", ".p99", ".max", ".mean")
        if "." in row
    }
    families = {name.split(".")[0] for name in listed if name.endswith((".<bound>", ".<topic>"))}
    families |= {name.removesuffix(".*") for name in listed if name.endswith(".*")}
    for name in {**both.metrics, **live.metrics}:
        assert name in listed or name.split(".")[0] in families, name
        assert find(both.metrics | live.metrics, name) is not None


def maker_time(i):
    from make_bags import MS, START

    return START + 300 * MS + i * 10 * MS
