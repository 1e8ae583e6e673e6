"""`vla_ros demo`: the launched nodes, one instruction, a status line, and a folder of results."""

import argparse
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from vla_ros.arguments import positive, whole
from vla_ros.paths import share
from vla_ros.policy.bundle import Bundle
from vla_ros.policy.cadence import CadenceReport
from vla_ros.robot import RobotConfig
from vla_ros.safety.compile import ensure_compiled
from vla_ros.sim.mujoco_gl import APT_LINE, RenderError, check_rendering

if TYPE_CHECKING:
    from vla_ros.nodes.demo_node import DemoSession

NODES = ["camera_node", "policy_node", "safety_node", "sim_node"]
START_TIMEOUT_S = 30.0
# The film goes on for as long after success, in which every node reports once more (1 Hz).
EPILOGUE_S = 1.1
# Domain ids whose ports do not overlap the ephemeral ports of Linux (ROS 2's documentation).
MAX_DOMAIN = 101
# Has the kernel interrupt (PR_SET_PDEATHSIG, 1) the program that it becomes if the demo is killed.
DIE_WITH_PARENT = (
    "import ctypes, os, signal, sys; ctypes.CDLL(None).prctl(1, signal.SIGINT); "
    "os.execv(sys.argv[1], sys.argv[1:])"
)


class DemoError(RuntimeError):
    """The demo cannot run, or was cut short."""


@dataclass(slots=True)
class Outcome:
    """How a run ended.

    Attributes:
        success: Whether the task was done in time.
        reason: In a few words.
        seconds: From the instruction to the end of the task, or of the attempt.
        nodes: The nodes in the graph while it ran.
        start_seconds: From the start of the command to the first motion, or None.

    """

    success: bool = False
    reason: str = "not started"
    seconds: float = 0.0
    nodes: tuple[str, ...] = ()
    start_seconds: float | None = None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument(
        "--instruction", default="pick up the red cube", help="what to do, in words"
    )
    parser.add_argument("--seed", type=whole(0, 2**31 - 1), default=0, help="where the cubes lie")
    parser.add_argument("--timeout", type=positive, default=60.0, help="seconds to give up after")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of the run folders")
    parser.add_argument("--robot", type=Path, help="robot file; the Panda's by default")
    parser.add_argument("--bundle", type=Path, help="policy bundle; panda_pick by default")
    parser.add_argument("--no-video", action="store_true", help="do not draw video.mp4")


def run(args: argparse.Namespace) -> int:
    """Run the demo; return 0 if the task was done, 1 if not, 130 if interrupted."""
    began = time.monotonic()
    if not args.instruction.strip():
        msg = (
            "the instruction is empty: say what to pick, as in --instruction 'pick up the red cube'"
        )
        raise DemoError(msg)
    _ensure_rendering()
    robot = args.robot or share() / "config" / "robots" / "panda.yaml"
    bundle = args.bundle or share() / "bundles" / "panda_pick"
    # Both are loaded again by the nodes; here a mistake ends the command before anything starts.
    RobotConfig.load(robot)
    Bundle.load(bundle)
    # In the node, it would be taken for one that does not start.
    if ensure_compiled():
        began = time.monotonic()
    folder = _make_folder(args.runs)
    # The middleware reads these when it is first imported, here and in the launched nodes.
    os.environ["ROS_DOMAIN_ID"] = str(_choose_domain())
    os.environ.setdefault("ROS_LOCALHOST_ONLY", "1")
    os.environ["ROS_LOG_DIR"] = str((folder / "log").resolve())
    print(f"run folder {folder}, ROS_DOMAIN_ID {os.environ['ROS_DOMAIN_ID']}")

    # Said for both: who is started in the background of a script inherits SIGINT as ignored.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _raise_interrupt)
    outcome = _run_nodes(args, folder, robot, bundle, began)

    # From here on nothing moves: an interrupt ends the reporting, and the bag is whole.
    print("reading the bag ...")
    summary = _summarise(args, folder, robot, outcome)
    if not outcome.nodes and outcome.reason != "interrupted":
        msg = f"not started: {outcome.reason} (see {folder}/log/launch.log)"
        raise DemoError(msg)
    _write_report(folder, robot, summary)
    if not args.no_video and outcome.reason != "interrupted":
        _draw(folder)
    _report(folder, summary)
    if outcome.reason == "interrupted":
        return 130
    return 0 if outcome.success else 1


def _run_nodes(
    args: argparse.Namespace, folder: Path, robot: Path, bundle: Path, began: float
) -> Outcome:
    """Launch the nodes, give the instruction, watch; end every process, whatever happens."""
    # Imported late: rclpy joins with the environment set above.
    from vla_ros.nodes.demo_node import DemoSession  # noqa: PLC0415

    outcome = Outcome()
    launch: subprocess.Popen[bytes] | None = None
    session = DemoSession(folder / "bag", os.environ.get("ROS_DISTRO", "humble"))
    try:
        session.spin(0.5)
        if others := session.node.node_names():
            msg = (
                f"ROS_DOMAIN_ID {os.environ['ROS_DOMAIN_ID']} already has {', '.join(others)}: "
                "end those nodes, or choose another ROS_DOMAIN_ID"
            )
            outcome.reason = msg
            return outcome
        launch = _launch(folder, robot, bundle, args.seed)
        _watch(session, launch, folder, args, outcome, began)
    except KeyboardInterrupt:
        outcome.reason = "interrupted"
    except DemoError as err:
        outcome.reason = str(err)
    finally:
        try:
            if launch is not None:
                _end(launch)
        finally:
            session.close()
    return outcome


def _watch(
    session: "DemoSession",
    launch: "subprocess.Popen[bytes]",
    folder: Path,
    args: argparse.Namespace,
    outcome: Outcome,
    began: float,
) -> None:
    node, progress = session.node, session.node.progress
    while not (progress.robot_ready and set(NODES) <= set(node.node_names())):
        session.spin(0.1)
        _check_alive(launch, folder)
        _show(f"starting   {node_list(node.node_names())}")
        if time.monotonic() - began > START_TIMEOUT_S:
            missing = sorted(set(NODES) - set(node.node_names()))
            outcome.reason = f"not ready after {START_TIMEOUT_S:.0f} s: {missing or 'no messages'}"
            return
    # The recorder looks for new topics at 5 Hz: let it find the last ones before anything moves.
    session.spin(0.4)
    outcome.nodes = tuple(node.node_names())
    start_ns = node.instruct(args.instruction)
    started = time.monotonic()
    outcome.reason = f"not done after {args.timeout:.0f} s"
    while (elapsed := time.monotonic() - started) < args.timeout:
        session.spin(0.1)
        _check_alive(launch, folder)
        _show(
            f"{elapsed:5.1f} s   {progress.speed_m_s:.2f} m/s   "
            f"policy: {progress.policy}   safety: {progress.safety}"
        )
        if progress.success:
            outcome.success, outcome.reason = True, "done"
            break
    outcome.seconds = time.monotonic() - started
    if progress.first_motion_ns is not None:
        outcome.start_seconds = started - began + (progress.first_motion_ns - start_ns) / 1e9
    _show("")
    session.spin(EPILOGUE_S)


def node_list(names: list[str]) -> str:
    """Return the demo's nodes, those that are there marked."""
    return "  ".join(f"[{'x' if name in names else ' '}] {name}" for name in NODES)


def _show(line: str) -> None:
    """Show the status line in place on a terminal; elsewhere say nothing."""
    if sys.stdout.isatty():
        width = shutil.get_terminal_size().columns - 1
        print(f"\r{line[:width]:<{width}}", end="" if line else "\r", flush=True)


def _launch(folder: Path, robot: Path, bundle: Path, seed: int) -> "subprocess.Popen[bytes]":
    """Start the launch file with `ros2 launch`, or without ROS 2 by `standalone`."""
    file = str(share() / "launch" / "sim.launch.xml")
    ros2 = shutil.which("ros2") if "AMENT_PREFIX_PATH" in os.environ else None
    runner = [ros2, "launch"] if ros2 else [sys.executable, "-m", "vla_ros_standalone.launch"]
    arguments = [f"robot:={robot.resolve()}", f"bundle:={bundle.resolve()}", f"seed:={seed}"]
    with (folder / "log" / "launch.log").open("wb") as log:
        return subprocess.Popen(  # noqa: S603 - arguments of our own, no shell
            [sys.executable, "-c", DIE_WITH_PARENT, *runner, file, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            # Its own session: a terminal's Ctrl-C reaches this process alone, which ends it.
            start_new_session=True,
        )


def _end(launch: "subprocess.Popen[bytes]") -> None:
    """Interrupt the launch, which ends its nodes; it is killed if it has not ended after 15 s."""
    launch.send_signal(signal.SIGINT)
    try:
        launch.wait(15.0)
    except subprocess.TimeoutExpired:
        os.killpg(launch.pid, signal.SIGKILL)
        launch.wait()


def _check_alive(launch: "subprocess.Popen[bytes]", folder: Path) -> None:
    """Raise DemoError, with what the node said, if the launch or one of its nodes has ended."""
    if launch.poll() is not None:
        msg = f"the launch ended with exit code {launch.returncode}, see {folder}/log/launch.log"
        raise DemoError(msg)
    lines = (folder / "log" / "launch.log").read_text(errors="replace").splitlines()
    dead = [line for line in lines if "process has died" in line]
    if dead:
        told = [line for line in lines if "FATAL" in line] or dead
        raise DemoError(told[0])


def _make_folder(runs: Path) -> Path:
    """Make runs/<time>/log and point runs/latest at it."""
    name = datetime.now().astimezone().strftime("%Y-%m-%d_%H-%M-%S")
    folder = runs / name
    number = 1
    while True:
        try:
            (folder / "log").mkdir(parents=True, exist_ok=False)
            break
        except FileExistsError:
            number += 1
            folder = runs / f"{name}_{number}"
    link = runs / f".latest.{os.getpid()}"
    link.symlink_to(folder.name)
    link.replace(runs / "latest")
    return folder


def _choose_domain() -> int:
    """Return ROS_DOMAIN_ID if it is set, otherwise one whose first discovery port is free."""
    given = os.environ.get("ROS_DOMAIN_ID")
    if given:
        if not given.isdecimal() or int(given) > 232:  # noqa: PLR2004 - the last one with valid ports
            msg = f"ROS_DOMAIN_ID is {given!r}: it must be a whole number from 0 to 232"
            raise DemoError(msg)
        return int(given)
    for domain in range(MAX_DOMAIN, 0, -1):
        # Port of the first participant's discovery (DDSI-RTPS 2.3, section 9.6.1.1).
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind(("127.0.0.1", 7400 + 250 * domain + 10))
            except OSError:
                continue
            return domain
    msg = f"all DDS domains from 1 to {MAX_DOMAIN} are taken: end other nodes or set ROS_DOMAIN_ID"
    raise DemoError(msg)


def _ensure_rendering() -> None:
    """Install the GL libraries as root; otherwise say how."""
    try:
        check_rendering()
    except RenderError:
        if os.geteuid() != 0 or shutil.which("apt-get") is None:
            raise
        print(f"no headless GL here; running: {APT_LINE}")
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for command in (["apt-get", "update", "-qq"], [*APT_LINE.split(), "-y", "-qq"]):
            subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)  # noqa: S603
        # MuJoCo settled without GL while it was imported, and said so in MUJOCO_GL: start over.
        del environment["MUJOCO_GL"]
        os.execve(sys.executable, [sys.executable, *sys.argv], environment)  # noqa: S606


def _raise_interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _summarise(
    args: argparse.Namespace, folder: Path, robot: Path, outcome: Outcome
) -> dict[str, Any]:
    from vla_ros.replay.summary import summarise  # noqa: PLC0415 - reads bags: after the run

    summary: dict[str, Any] = {
        "success": outcome.success,
        "reason": outcome.reason,
        "instruction": args.instruction,
        "seed": args.seed,
        "seconds": round(outcome.seconds, 3),
        "start_seconds": outcome.start_seconds and round(outcome.start_seconds, 3),
        "nodes": list(outcome.nodes),
        **summarise(folder / "bag", robot),
    }
    partial = folder / "summary.json.partial"
    partial.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    partial.replace(folder / "summary.json")
    return summary


def _draw(folder: Path) -> None:
    from vla_ros.replay.video import VideoError, write_video  # noqa: PLC0415 - as above

    print("drawing the video ...")
    try:
        write_video(folder / "bag", folder / "video.mp4")
    except VideoError as err:
        print(err, file=sys.stderr)


def _write_report(folder: Path, robot: Path, summary: dict[str, Any]) -> None:
    from vla_ros.replay.common import ERRORS  # noqa: PLC0415 - reads bags: after the run
    from vla_ros.replay.live import result_from_bag  # noqa: PLC0415
    from vla_ros.replay.report import write_report  # noqa: PLC0415
    from vla_ros.replay.report.command import how_it_ended  # noqa: PLC0415

    try:
        result = result_from_bag(folder / "bag", robot)
        write_report(result, folder / "report.html", task=how_it_ended(summary))
    except ERRORS as err:
        print(f"no report: {err}", file=sys.stderr)


def _report(folder: Path, summary: dict[str, Any]) -> None:
    for key in (
        *("success", "reason", "instruction", "seed", "seconds", "start_seconds"),
        *("image_to_command_ms", "image_to_safe_command_ms"),
        *("policy_hz", "safe_command_hz", "violations"),
    ):
        print(f"  {key:<26}{_plain(summary.get(key))}")
    if (cadence := summary["cadence"]) is not None:
        print(CadenceReport.from_dict(cadence).table())
    print(f"  {folder}/report.html, summary.json, video.mp4, bag/, log/")
    if not summary["success"]:
        log = folder / "log" / "launch.log"
        lines = [line for line in log.read_text(errors="replace").splitlines() if "_node" in line]
        told = [line for line in lines if any(level in line for level in ("[WARN]", "[ERROR]"))]
        print(f"the last warnings in {log}:", file=sys.stderr)
        print("\n".join(f"  {line}" for line in told[-5:]), file=sys.stderr)


def _plain(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_plain(item)}" for key, item in value.items())
    return f"{value:.1f}" if isinstance(value, float) else str(value)
