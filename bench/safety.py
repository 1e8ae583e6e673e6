"""What the safety filter costs: a step with every bound, its memory, and the price of keep-outs.

Run by bench/run.py, in one process on one core. The Panda's robot file bounds everything there is;
the commands come in two kinds: inside all bounds, where the filter passes them on, and pushing
against several at once, where the quadratic program decides.
"""

import gc
import resource
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from vla_ros.paths import share
from vla_ros.robot import RobotConfig
from vla_ros.safety import SafetyFilter
from vla_ros.safety.motion.model import ArmModel
from vla_ros.sim.panda import HOME, urdf
from vla_ros.types import Command, JointSample
from vla_ros.volumes import Sphere

PERIOD_NS = 10_000_000
STEPS = 20_000
GROWTH_STEPS = 1_000_000
KEEP_OUTS = (0, 10, 25, 50, 100, 200)
CLEARANCE = 0.15


def panda() -> RobotConfig:
    """Return the Panda as shipped."""
    return RobotConfig.load(share() / "config" / "robots" / "panda.yaml")


class Drive:
    """A filter at 100 Hz on an arm that goes where it is sent.

    Inputs are made before the steps that are timed.
    """

    def __init__(self, robot: RobotConfig, *, hard: bool, seed: int = 0) -> None:
        """Drive gently, or (`hard`) with saturated commands."""
        self._robot, self._hard = robot, hard
        self._filter = SafetyFilter(robot, urdf(), 100.0)
        self._rng = np.random.default_rng(seed)
        self._model = ArmModel(robot, urdf())
        self._position = HOME.copy()
        self._wish = np.zeros(6)
        self._now = PERIOD_NS
        self.acted = 0

    def step(self) -> float:
        """Make one step; return what it took, in us."""
        self._now += PERIOD_NS
        tick = self._now // PERIOD_NS
        if self._hard and tick % 40 == 0:
            self._wish = self._rng.choice([-0.9, -0.3, 0.3, 0.9], 6)
        elif not self._hard:
            # Slow circles about the home pose: inside every bound, acceleration included.
            angle = tick * 0.01
            self._wish = 0.05 * np.array([np.cos(angle), np.sin(angle), 0, 0, 0, np.cos(angle)])
        effort = self._model.torque(self._position, np.zeros(7), np.zeros(7))
        joints = JointSample(self._now, self._position.copy(), np.zeros(7), effort, 0.08)
        command = Command(self._now, self._robot.base_frame, self._wish.copy(), 0.04)
        begin = time.perf_counter_ns()
        decision = self._filter.step(self._now, command, joints)
        took = (time.perf_counter_ns() - begin) / 1e3
        self._position += decision.joint_velocity * (PERIOD_NS / 1e9)
        self.acted += bool(decision.acting)
        return took


def step_us(robot: RobotConfig, *, hard: bool, steps: int = STEPS) -> dict[str, float]:
    """Time steps; return p50, p99 and max in us, and the share of steps at which a bound acted."""
    drive = Drive(robot, hard=hard)
    for _ in range(500):
        drive.step()
    drive.acted = 0
    took = np.array([drive.step() for _ in range(steps)])
    p50, p99 = np.percentile(took, [50, 99])
    return {
        "p50": round(float(p50), 1),
        "p99": round(float(p99), 1),
        "max": round(float(took.max()), 1),
        "acted_share": round(drive.acted / steps, 3),
    }


def growth_kb(steps: int = GROWTH_STEPS) -> dict[str, float]:
    """Return by how much the process grew over `steps` steps, in kB, after a tenth as warm-up."""
    drive = Drive(panda(), hard=True, seed=1)
    for _ in range(steps // 10):
        drive.step()
    gc.collect()
    before = _resident_kb()
    for _ in range(steps):
        drive.step()
    gc.collect()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"steps": steps, "growth_kb": _resident_kb() - before, "peak_mb": peak // 1024}


def keep_outs() -> dict[str, dict[str, float]]:
    """Time steps with more and more spheres to keep out of, spread around the workspace."""
    robot = panda()
    rng = np.random.default_rng(2)
    figures = {}
    for count in KEEP_OUTS:
        spheres = tuple(
            Sphere(f"ball_{i}", _around(rng), float(rng.uniform(0.01, 0.05))) for i in range(count)
        )
        bounds = replace(robot.bounds, keep_out=(*robot.bounds.keep_out, *spheres))
        figures[str(count)] = step_us(replace(robot, bounds=bounds), hard=True, steps=STEPS // 4)
    return figures


def _around(rng: np.random.Generator) -> tuple[float, float, float]:
    """Return a place in the workspace, but not at the home pose."""
    while True:
        place = rng.uniform([0.25, -0.4, 0.0], [0.8, 0.4, 0.55])
        if np.linalg.norm(place - [0.55, 0.0, 0.25]) > CLEARANCE:
            return (float(place[0]), float(place[1]), float(place[2]))


def _resident_kb() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize() // 1024


def plot(figures: dict[str, dict[str, float]], path: Path) -> None:
    """Draw p50 and p99 of a step, in us, over the number of keep-outs, as SVG."""
    width, height, left, bottom = 640, 360, 60, 310
    counts = [int(name) for name in figures]
    top = max(20.0, 1.1 * max(f["p99"] for f in figures.values()))
    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
            'font-family="sans-serif" font-size="13">'
        ),
        f'<rect width="{width}" height="{height}" fill="white"/>',
        f'<text x="{left}" y="22">SafetyFilter.step (us) over the number of keep-outs</text>',
    ]
    for part in range(5):
        y = bottom - part / 4 * (bottom - 40)
        parts.append(f'<path d="M{left} {y:.0f}H{width - 20}" stroke="#ddd"/>')
        parts.append(
            f'<text x="{left - 8}" y="{y + 4:.0f}" text-anchor="end">{top * part / 4:.0f}</text>'
        )
    for key, colour in (("p50", "#0072b2"), ("p99", "#d55e00")):
        places = [
            (
                left + count / max(counts) * (width - left - 40),
                bottom - figures[str(count)][key] / top * (bottom - 40),
            )
            for count in counts
        ]
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(
            f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>'
        )
        x, y = places[-1]
        parts.append(f'<text x="{x - 30:.0f}" y="{y - 8:.0f}" fill="{colour}">{key}</text>')
    for count in counts:
        x = left + count / max(counts) * (width - left - 40)
        parts.append(f'<text x="{x:.0f}" y="{bottom + 20}" text-anchor="middle">{count}</text>')
    path.write_text("\n".join([*parts, "</svg>"]) + "\n", encoding="utf-8")
