"""`vla_ros safety explain`: what a robot file bounds, and how the arm stops under it."""

import argparse
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from vla_ros.arguments import real
from vla_ros.bounds import Bounds, keys
from vla_ros.parameters import ParameterKind, Where
from vla_ros.paths import share
from vla_ros.robot import RobotConfig, RobotConfigError
from vla_ros.safety import RATES_HZ
from vla_ros.safety.motion.plan import StopPlan
from vla_ros.volumes import TCP_POINT, ToolPoint, Volume

WIDTH = 80
"""Columns of the report: those of a terminal."""
_TEXT_AT = 54
_SHARES = (0.25, 0.5, 0.75, 1.0)
_DISTANCES = (0.0, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1)
_LONGEST_PERIOD = 1.5
"""Longest tick of the filter, in periods."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    parser.add_argument("robot", help="a robot file, or the name of one in config/robots")
    parser.add_argument("--plot", type=Path, metavar="F.png", help="draw the admissible speeds")
    parser.add_argument(
        "--rate-hz", type=real(*RATES_HZ), default=100.0, help="rate of safety_node (%(default)g)"
    )


def run(args: argparse.Namespace) -> int:
    """Print the report, and draw the plot if asked to.

    Raises:
        RobotConfigError: If the file cannot be read, or contradicts itself.

    """
    path = robot_file(args.robot)
    robot = RobotConfig.load(path)
    print(report(robot, args.rate_hz, str(path)))
    if args.plot is not None:
        # Drawing loads OpenCV, which the table does without.
        from vla_ros.safety.explain_plot import save_plot  # noqa: PLC0415

        save_plot(robot, args.rate_hz, args.plot)
        print(f"\nplot: {args.plot}")
    return 0


def robot_file(given: str) -> Path:
    """Return the path of a robot file, which may be given by the name of a shipped one.

    Raises:
        RobotConfigError: If there is neither such a file nor such a robot.

    """
    path = Path(given)
    if path.exists():
        return path
    shipped = share() / "config" / "robots"
    if (shipped / f"{given}.yaml").exists():
        return shipped / f"{given}.yaml"
    names = ", ".join(sorted(p.stem for p in shipped.glob("*.yaml")))
    msg = f"robot file {given}: there is no such file, nor a robot of that name; there are {names}"
    raise RobotConfigError(msg)


@dataclass(frozen=True, slots=True)
class Stopping:
    """How far the arm goes until it rests, for the TCP or for a joint.

    Attributes:
        way: What is still sent after the decision to stop, in units of the speed, s.
        slow_way: What the filter leaves for it when it approaches a boundary, s: more than `way`,
            so that it slows down gently.
        delay: What was sent before and is still to show in the measured position, s.
        braking_time: The speed over it is the deceleration of the plan, s.
        speed: The greatest speed.
        margin: Distance that is kept to every boundary.

    """

    way: float
    slow_way: float
    delay: float
    braking_time: float
    speed: float
    margin: float

    @classmethod
    def of(cls, bounds: Bounds, rate_hz: float, speed: float, margin: float) -> "Stopping":
        """Return the figures for one of the speeds of a robot file, and a rate of the filter."""
        tick = _LONGEST_PERIOD / rate_hz
        plan = StopPlan.of(bounds.stopping_time, bounds.stopping_ramp, tick)
        return cls(
            way=plan.way,
            slow_way=plan.slow_way,
            delay=bounds.reaction_delay,
            braking_time=1.0 / plan.rate,
            speed=speed,
            margin=margin,
        )

    @property
    def full_speed_from(self) -> float:
        """Return the distance from a boundary at which the greatest speed is still let pass."""
        return self.margin + self.speed * (self.delay + self.slow_way)

    @property
    def stops_from(self) -> float:
        """Return the least distance from which the greatest speed can be stopped in time."""
        return self.margin + self.speed * (self.delay + self.way)

    def admissible(self, distance: float) -> float:
        """Return the greatest steady speed that is let pass, at a measured distance.

        v (delay + slow_way) <= distance - margin: what was sent and has not shown yet, and what is
        left for slowing down.
        """
        return self._under(distance, self.slow_way)

    def stoppable(self, distance: float) -> float:
        """Return the greatest steady speed that can be stopped in time: v (delay + way)."""
        return self._under(distance, self.way)

    def _under(self, distance: float, way: float) -> float:
        return min(self.speed, max(distance - self.margin, 0.0) / (self.delay + way))


def tcp_stopping(bounds: Bounds, rate_hz: float) -> Stopping:
    """Return how the TCP stops before the faces of volumes, in m."""
    return Stopping.of(bounds, rate_hz, bounds.linear_speed, bounds.tracking_error)


def joint_stoppings(bounds: Bounds, rate_hz: float) -> list[Stopping]:
    """Return how each joint stops before the ends of its range, in rad."""
    margin = bounds.joint_position_error
    return [Stopping.of(bounds, rate_hz, speed, margin) for speed in bounds.joint_speed]


def report(robot: RobotConfig, rate_hz: float, source: str) -> str:
    """Return the bounds as tables, and the stopping distances that follow from them.

    Args:
        robot: A valid robot.
        rate_hz: Rate of the filter.
        source: Where it was read from.

    Returns:
        Lines of at most `WIDTH` columns, but for a longer `source`.

    """
    gripper = (
        f"gripper: {', '.join(robot.gripper_joints)}" if robot.gripper_joints else "no gripper"
    )
    text = f"{len(robot.joints)} joints from {robot.base_frame} to {robot.tcp_frame}; {gripper}"
    lines = [f"{robot.name}: {source}", *textwrap.wrap(text, WIDTH)]
    for where in Where:
        lines += _group(robot, where)
    lines += _consequences(robot, rate_hz)
    return "\n".join(line.rstrip() for line in lines)


def _group(robot: RobotConfig, where: Where) -> Iterator[str]:
    bounds = robot.bounds
    if where is Where.GRIPPER and not robot.gripper_joints:
        return
    off = where is Where.STOP and not bounds.effort_samples
    yield from _heading(where.value + (" (OFF: effort_samples is 0)" if off else ""))
    for name, key in keys().items():
        if key.where is not where or _is_per_joint(name):
            continue
        unit = "" if where is Where.GRIPPER else key.unit
        yield from _row(name, _shown(getattr(bounds, name)), unit, key.text)
    if where is Where.MOTION:
        yield from _joint_table(robot)
    if where is Where.STOP:
        yield from _effort_table(robot)
    if where is Where.PLACE:
        yield from _volume_table(bounds)


def _heading(text: str) -> Iterator[str]:
    yield ""
    yield text
    yield "-" * min(len(text), WIDTH)


def _is_per_joint(name: str) -> bool:
    key = keys()[name]
    return key.kind is ParameterKind.NUMBERS and not key.length


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return " ".join(_shown(item) for item in value) or "none"
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(getattr(value, "name", value))


def _row(name: str, value: str, unit: str, text: str) -> Iterator[str]:
    start = f"  {name:<25} {value:>16} {'' if unit == '-' else unit:<8}"
    first, *rest = textwrap.wrap(text, WIDTH - _TEXT_AT)
    if len(start) > _TEXT_AT:
        # A list of names that is wider than its column stands on lines of its own.
        yield from textwrap.wrap(
            start.strip(), WIDTH, initial_indent="  ", subsequent_indent="    "
        )
        start = ""
    yield f"{start:<{_TEXT_AT}}{first}"
    yield from (" " * _TEXT_AT + line for line in rest)


def _table(heads: Sequence[tuple[str, str]], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield columns under their heads (a word, and its unit): the first left, the others right."""
    units = [unit for _, unit in heads]
    cells = [[head for head, _ in heads], *([units] if any(units) else []), *rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(heads))]
    for row in cells:
        first, *others = (cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        yield "  " + "  ".join([first.strip().ljust(widths[0]), *others])


def _joint_table(robot: RobotConfig) -> Iterator[str]:
    bounds = robot.bounds
    heads = [
        ("joint_...", ""),
        ("position_min", "rad"),
        ("_max", "rad"),
        ("speed", "rad/s"),
        ("acceleration", "rad/s^2"),
        ("torque", "Nm"),
        ("_rate", "Nm/s"),
    ]
    columns = (
        bounds.joint_position_min,
        bounds.joint_position_max,
        bounds.joint_speed,
        bounds.joint_acceleration,
        bounds.joint_torque,
        bounds.joint_torque_rate,
    )
    yield ""
    yield from _table(heads, _joint_rows(robot, columns))


def _effort_table(robot: RobotConfig) -> Iterator[str]:
    heads = [("", ""), ("effort", "Nm"), ("external_torque", "Nm")]
    columns = (robot.bounds.effort, robot.bounds.external_torque)
    yield ""
    yield from _table(heads, _joint_rows(robot, columns))


def _joint_rows(robot: RobotConfig, columns: Sequence[Sequence[float]]) -> list[list[str]]:
    return [
        [joint, *(_shown(column[i]) for column in columns)] for i, joint in enumerate(robot.joints)
    ]


def _volume_table(bounds: Bounds) -> Iterator[str]:
    points = dict.fromkeys((*bounds.workspace_points, *bounds.keep_out_points))
    lines = [
        *_described("inside of", bounds.workspace),
        *_described("out of", bounds.keep_out),
        *_described("point", [point for point in points if point != TCP_POINT]),
    ]
    if lines:
        yield ""
    yield from lines


def _described(what: str, items: Sequence[Volume | ToolPoint]) -> Iterator[str]:
    for item in items:
        numbers = ", ".join(
            f"{field.name} {_shown(getattr(item, field.name))}"
            for field in fields(item)
            if field.name != "name"
        )
        shape = getattr(item, "shape", "ball, TCP frame")
        yield from textwrap.wrap(
            f"{what:<9} {item.name}: {shape}, {numbers} m",
            WIDTH,
            initial_indent="  ",
            subsequent_indent=" " * 12,
        )


def _consequences(robot: RobotConfig, rate_hz: float) -> Iterator[str]:
    bounds = robot.bounds
    tcp = tcp_stopping(bounds, rate_hz)
    yield from _heading(f"What follows, with the filter at {rate_hz:g} Hz: stopping the TCP")
    heads = [
        ("from", "m/s"),
        ("braking with", "m/s^2"),
        ("at rest after", "s"),
        ("sent until then", "m"),
        ("with reaction_delay", "m"),
    ]
    yield from _table(
        heads,
        [
            [
                f"{speed:.3f}",
                f"{speed / tcp.braking_time:.2f}",
                f"{tcp.delay + bounds.stopping_time:.3f}",
                f"{speed * tcp.way:.4f}",
                f"{speed * (tcp.way + tcp.delay):.4f}",
            ]
            for speed in (share * tcp.speed for share in _SHARES)
        ],
    )
    seconds = bounds.command_timeout + 1.0 / rate_hz + tcp.delay + bounds.stopping_time
    silent = (bounds.command_timeout + 1.0 / rate_hz + tcp.delay + tcp.way) * tcp.speed
    yield ""
    yield from textwrap.wrap(
        f"A source that falls silent at full speed: at rest {seconds:.3f} s after its last command "
        f"(command_timeout, a period, reaction_delay, stopping_time), at most {silent:.3f} m on.",
        WIDTH,
        initial_indent="  ",
        subsequent_indent="  ",
    )

    yield from _heading("Approach: the TCP's speed toward a face, against its distance from it")
    distances = sorted({*_DISTANCES, round(tcp.full_speed_from, 4)})
    yield from _table(
        [("distance, mm", ""), *((f"{1e3 * d:g}", "") for d in distances)],
        [
            ["let pass, m/s", *(f"{tcp.admissible(d):.3f}" for d in distances)],
            ["could stop, m/s", *(f"{tcp.stoppable(d):.3f}" for d in distances)],
        ],
    )
    yield ""
    yield from textwrap.wrap(
        f"About (distance - {tcp.margin:g}) / ({tcp.delay:g} + {tcp.slow_way:.3f}) is let pass, "
        "at the measured distance of an arm that takes reaction_delay to show a command: "
        f"tracking_error is kept, and {tcp.slow_way:.3f} s times the speed, to slow down gently. A "
        f"stop itself takes {tcp.way:.3f} s times the speed. A few millimetres more are kept for "
        "what joint_position_error moves the TCP by. Motion along a face or away from it is not "
        "slowed down.",
        WIDTH,
        initial_indent="  ",
        subsequent_indent="  ",
    )

    yield from _heading("Joints: stopping before the ends of their ranges")
    heads = [
        ("", ""),
        ("from", "rad/s"),
        ("braking with", "rad/s^2"),
        ("stops within", "rad"),
        ("full speed from", "rad"),
    ]
    stoppings = joint_stoppings(bounds, rate_hz)
    yield from _table(
        heads,
        [
            [
                joint,
                f"{stop.speed:.3f}",
                f"{stop.speed / stop.braking_time:.2f}",
                f"{stop.speed * (stop.way + stop.delay):.3f}",
                f"{stop.full_speed_from:.3f}",
            ]
            for joint, stop in zip(robot.joints, stoppings, strict=True)
        ],
    )
