"""Promise: `vla_ros demo` runs the whole loop, tells the truth of it, and leaves nothing behind."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from rosbags.highlevel import AnyReader

from vla_ros import demo
from vla_ros.policy.cadence import STAGES, CadenceReport
from vla_ros.sim.mujoco_gl import APT_LINE, RenderError

pytestmark = [pytest.mark.demo, pytest.mark.timeout(180)]

KEYS = {
    "success": bool,
    "instruction": str,
    "seed": int,
    "seconds": float,
    "image_to_command_ms": dict,
    "image_to_safe_command_ms": dict,
    "policy_hz": float,
    "safe_command_hz": float,
    "violations": int,
    "nodes": list,
    "cadence": dict,
}
RECORDED = {
    "/command",
    "/gripper_command",
    "/safe_command",
    "/safe_gripper_command",
    "/joint_states",
    "/instruction",
    "/policy/chunk",
    "/observation/front",
    "/observation/wrist",
    "/robot_description",
    "/task/success",
    "/diagnostics",
}


def start(runs: Path, *arguments: str, domain: int | None = None) -> "subprocess.Popen[str]":
    environment = {k: v for k, v in os.environ.items() if k != "ROS_DOMAIN_ID"}
    if domain is not None:
        environment["ROS_DOMAIN_ID"] = str(domain)
    return subprocess.Popen(
        [sys.executable, "-m", "vla_ros.cli", "demo", "--runs", str(runs), *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def descendants(process: "subprocess.Popen[str]") -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def topics(bag: Path) -> set[str]:
    with AnyReader([bag]) as reader:
        return {connection.topic for connection in reader.connections if connection.msgcount}


@pytest.mark.parametrize(
    ("instruction", "seed"),
    [
        ("pick up the red cube", 0),
        ("pick up the green cube", 0),
        # Phrased as no training sentence is.
        ("fetch the blue block", 0),
    ],
)
def test_the_arm_picks_the_cube_that_is_named(tmp_path: Path, instruction: str, seed: int) -> None:
    video = [] if instruction.endswith("red cube") else ["--no-video"]
    with start(tmp_path, "--instruction", instruction, "--seed", str(seed), *video) as demo:
        output, errors = demo.communicate()
    assert demo.returncode == 0, output + errors
    folder = tmp_path / "latest"
    summary = json.loads((folder / "summary.json").read_text())
    for key, kind in KEYS.items():
        assert isinstance(summary[key], kind), key
    assert summary["success"] is True
    assert summary["instruction"] == instruction
    assert summary["violations"] == 0
    assert set(summary["nodes"]) >= {"camera_node", "policy_node", "safety_node", "sim_node"}
    assert list(summary["cadence"]["stages_ms"]) == list(STAGES)
    assert summary["cadence"]["cycles"] > 20
    assert CadenceReport.from_dict(summary["cadence"]).table() in output
    recorded = topics(folder / "bag")
    assert recorded >= RECORDED
    assert not [topic for topic in recorded if topic.endswith("image_raw")]
    report = (folder / "report.html").read_text()
    assert "Task done: done after" in report
    assert instruction in report
    if not video:
        header = (folder / "video.mp4").read_bytes()[:12]
        assert header[4:8] == b"ftyp"


def test_ctrl_c_leaves_no_process_and_a_readable_bag(tmp_path: Path) -> None:
    # An instruction that names no cube is never done.
    demo = start(tmp_path, "--instruction", "pick up the purple cube")
    deadline = time.monotonic() + 40.0
    while time.monotonic() < deadline and len(descendants(demo)) < 5:
        time.sleep(0.1)
    time.sleep(5.0)
    children = descendants(demo)
    assert len(children) >= 5
    demo.send_signal(signal.SIGINT)
    demo.communicate(timeout=40.0)
    assert demo.returncode == 130
    assert not [child for child in children if child.is_running()]
    assert "/joint_states" in topics(tmp_path / "latest" / "bag")
    summary = json.loads((tmp_path / "latest" / "summary.json").read_text())
    assert (summary["success"], summary["reason"]) == (False, "interrupted")


def test_a_killed_demo_takes_its_nodes_with_it(tmp_path: Path) -> None:
    demo = start(tmp_path, "--instruction", "pick up the purple cube")
    deadline = time.monotonic() + 40.0
    while time.monotonic() < deadline and len(descendants(demo)) < 5:
        time.sleep(0.1)
    children = descendants(demo)
    demo.kill()
    demo.communicate()
    _, alive = psutil.wait_procs(children, timeout=20.0)
    assert not alive


@pytest.mark.parametrize(
    ("arguments", "domain", "code", "told"),
    [
        (["--bundle", "/nowhere/bundle"], None, 1, "/nowhere/bundle"),
        (["--robot", "/nowhere/robot.yaml"], None, 1, "/nowhere/robot.yaml"),
        (["--instruction", "  "], None, 1, "the instruction is empty"),
        (["--seed", "-1"], None, 2, "--seed: -1 is not a whole number from 0 to 2147483647"),
        ([], 5000, 1, "ROS_DOMAIN_ID"),
    ],
)
def test_bad_input_ends_with_one_clear_line(
    tmp_path: Path, arguments: list[str], domain: int | None, code: int, told: str
) -> None:
    with start(tmp_path, *arguments, domain=domain) as demo:
        output, errors = demo.communicate(timeout=40.0)
    assert demo.returncode == code, output + errors
    assert told in errors
    assert "Traceback" not in output + errors


def test_a_second_demo_on_the_same_domain_is_refused(tmp_path: Path) -> None:
    first = start(tmp_path / "a", "--instruction", "pick up the purple cube", domain=84)
    try:
        deadline = time.monotonic() + 40.0
        while time.monotonic() < deadline and len(descendants(first)) < 5:
            time.sleep(0.1)
        time.sleep(4.0)
        with start(tmp_path / "b", domain=84) as second:
            _, errors = second.communicate(timeout=40.0)
        assert second.returncode == 1
        assert "ROS_DOMAIN_ID 84 already has" in errors
    finally:
        first.send_signal(signal.SIGINT)
        first.communicate(timeout=40.0)


def test_as_root_gl_is_installed_and_the_demo_starts_over_with_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_gl() -> None:
        raise RenderError(APT_LINE)

    ran, restarted = [], []
    monkeypatch.setenv("MUJOCO_GL", "disable")
    monkeypatch.setattr(demo, "check_rendering", no_gl)
    monkeypatch.setattr(demo.os, "geteuid", lambda: 0)
    monkeypatch.setattr(demo.shutil, "which", lambda _: "/usr/bin/apt-get")
    monkeypatch.setattr(demo.subprocess, "run", lambda command, **_: ran.append(command))
    monkeypatch.setattr(demo.os, "execve", lambda *arguments: restarted.append(arguments))
    demo._ensure_rendering()
    assert [*APT_LINE.split(), "-y", "-qq"] in ran
    # With it, MuJoCo would go on without GL.
    assert "MUJOCO_GL" not in restarted[0][2]

    monkeypatch.setattr(demo.os, "geteuid", lambda: 1000)
    with pytest.raises(RenderError, match="libegl1"):
        demo._ensure_rendering()
