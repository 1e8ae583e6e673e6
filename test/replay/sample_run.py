"""A run to draw: an arm that is asked for more than its bounds allow, for as long as wanted."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from robots import panda

from vla_ros.replay.report import Pictures
from vla_ros.replay.result import (
    Chunks,
    Commands,
    Instruction,
    Joints,
    Metric,
    Outcome,
    ReplayResult,
    Series,
    Ticks,
)
from vla_ros.types import Frame
from vla_ros.volumes import Box, Capsule, Cylinder, HalfSpace, Sphere

START = 1_700_000_000_000_000_000
NONE = np.empty(0, np.int64)
NO_COMMANDS = Commands(NONE, np.empty((0, 6)), np.empty(0))
NO_JOINTS = Joints(NONE, *(np.empty((0, 7)) for _ in range(3)), np.empty(0), np.empty((0, 3)))


def sample_run(seconds: float = 4.9, text: str = "") -> ReplayResult:
    """Return a run with something of everything; `text` is added to all that a bag can say."""
    count = round(seconds * 100)
    t = np.arange(count) / 100
    stamps = START + np.arange(count) * 10_000_000
    rng = np.random.default_rng(0)
    columns = [0.28 * np.sin(2 * t), 0.2 * np.cos(3 * t), -0.15 * np.sin(1.3 * t)]
    columns += [0.5 * np.sin(4 * t), 0.9 * np.sin(t), 1.5 * np.sin(2 * t)]
    desired = np.stack(columns, axis=1)
    speed = np.linalg.norm(desired[:, :3], axis=1)
    safe = desired * np.minimum(1.0, 0.3 / np.maximum(speed, 1e-9))[:, None]
    silent = (t > 4.2) & (t < 4.5)
    desired[silent], safe[silent] = np.nan, 0.0
    acting = {
        f"linear_speed{text}": np.maximum(speed - 0.3, 0.0),
        "workspace": np.where((t > 2.0) & (t < 2.3), 0.05, 0.0),
        "gripper_speed": np.where((t > 1.0) & (t < 1.5), 0.01, 0.0),
        "command_timeout": np.where(silent, 0.1, 0.0),
    }
    position = np.stack([0.3 * np.sin(t + i) for i in range(7)], axis=1)
    tcp = np.stack(
        [0.5 + 0.2 * np.sin(t), 0.3 * np.cos(1.7 * t), 0.25 + 0.24 * np.cos(0.9 * t)], axis=1
    )
    effort = 30.0 * np.cos(position) * np.array([1, 1, 1, 1, 0.2, 0.2, 0.4])
    opening = 0.04 + 0.03 * np.sin(t)
    state = tuple(
        f"STARTING{text}" if x < 0.2 else "HOLDING" if gone else "RUNNING"
        for x, gone in zip(t, silent, strict=True)
    )
    sparse = stamps[::3]
    chunk = sparse[::4]
    late = chunk + rng.gamma(4.0, 4e6, len(chunk)).astype(np.int64)
    gaps = np.diff(sparse) / 1e9
    bounds = replace(
        panda().bounds,
        workspace=(
            Cylinder("reach", (0.0, 0.0, 0.0), (0.0, 0.0, 1.0), 0.72, 0.3),
            HalfSpace("table", (0.0, 0.0, -1.0), 0.0),
        ),
        keep_out=(
            Box("bin", (0.65, 0.2, 0.1), (0.0, 0.0, 0.5), (0.12, 0.12, 0.2)),
            Sphere("lamp", (0.35, -0.2, 0.4), 0.07),
            Capsule("post", (0.7, -0.3, 0.0), (0.7, -0.3, 0.45), 0.03),
        ),
    )
    return ReplayResult(
        bag=Path(f"bags/last_week{text.replace('/', '|')}"),
        robot=replace(panda(), bounds=bounds),
        robot_file=Path("config/robots/panda.yaml"),
        mode="policy+safety",
        latency="fixed:40",
        start_ns=START,
        end_ns=int(stamps[-1]),
        instructions=(
            Instruction(START, f"wait{text}"),
            Instruction(START + 10**9, f"pick up the red cube{text}"),
        ),
        cameras={},
        ticks=Ticks(
            stamp_ns=stamps,
            desired=desired,
            safe=safe,
            gripper_desired=np.full(count, 0.05),
            gripper=opening,
            command_stamp_ns=stamps - 5_000_000,
            state=state,
            reason=tuple(f"no command for 0.1 s{text}" if gone else "" for gone in silent),
            acting=acting,
            joint_position=position,
        ),
        commands=Commands(
            sparse,
            desired[::3],
            np.full(len(sparse), 0.05),
            tuple(f"no instruction{text}" if x < 0.5 else "" for x in t[::3]),
        ),
        recorded=Commands(sparse, 0.9 * np.nan_to_num(desired[::3]), np.full(len(sparse), 0.05)),
        recorded_safe=None,
        joints=Joints(stamps, position, np.gradient(position, 0.01, axis=0), effort, opening, tcp),
        chunks=Chunks(chunk, late, np.full(len(chunk), 16)),
        inference_ms=rng.gamma(9.0, 0.3, len(chunk)),
        hash="9f" * 32,
        violations=3,
        violations_by_bound={f"linear_speed{text}": 3, "workspace": 0},
        metrics={
            "violations": Metric(3.0, "1", "steps outside a bound", None, (f"tick 100{text}",)),
            f"violations.linear_speed{text}": Metric(
                3.0, "1", "", Series(stamps, np.isin(np.arange(count), [100, 101, 102]) + 0.0)
            ),
            "acting_share": Metric(0.393, "1", f"share of the steps{text}"),
            "image_to_command_ms.p50": Metric(15.0, "ms", "", Series(late, (late - chunk) / 1e6)),
            "time_to_stop_s": Metric(0.00912, "s", "from the last command to rest"),
            "error_translation.mean": Metric(0.0768, "m/s", "from the recorded commands"),
            "error_rotation.mean": Metric(0.0598, "rad/s", "from the recorded commands"),
            f"longest_gap_s.command{text}": Metric(0.03, "s", "", Series(sparse[1:], gaps)),
        },
        expectations=(
            Outcome(
                "violations", "equals 0", 3.0, "1", False, 1.23, f"violations: 3{text}\n 1.23 s"
            ),
            Outcome(f"time_to_stop_s{text}", "max 0.3", 0.214, "s", True),
        ),
        warnings=(f"/joint_states: 12 messages are damaged{text}",),
        versions={"vla_ros": "0.1.0", "bundle": f"panda_pick{text}"},
    )


def sample_pictures(run: ReplayResult, text: str = "") -> Pictures:
    """Return twelve pictures of two cameras."""
    frames = []
    for camera, (height, width) in {"front": (96, 96), f"wrist{text}": (80, 96)}.items():
        y, x = np.mgrid[0:height, 0:width]
        for index in range(12):
            image = np.stack([120 + 80 * np.sin(x / 9 + index), 100 + y, 200 - x], axis=2)
            stamp = run.start_ns + round(index * run.duration_s / 12 * 1e9)
            frames.append(Frame(camera, stamp, image.clip(0, 255).astype(np.uint8)))
    return Pictures(tuple(frames), ((f"/front: 2 pictures cannot be shown{text}",) if text else ()))
