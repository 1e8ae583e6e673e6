"""Every bound of a robot file: its unit, what it means, where it acts, and when it is tighter.

One class, one line a bound. The loader, the nodes' parameters, `vla_ros safety explain` and
tightening at run time all read these lines, so that no bound can be known to one and not another.
"""

from dataclasses import dataclass, field, fields
from functools import lru_cache
from typing import Any

from vla_ros.parameters import Key, ParameterKind, Tighter, Where
from vla_ros.volumes import ToolPoint, Volume


def _key(key: Key) -> Any:  # noqa: ANN401 - what dataclasses.field returns
    return field(metadata={"key": key})


def _limit(text: str, unit: str, where: Where, tighter: Tighter = Tighter.LOWER) -> Any:  # noqa: ANN401
    """Return the field of a number greater than 0."""
    return _key(Key(ParameterKind.NUMBER, text, unit, where, tighter, least=0.0))


def _margin(text: str, unit: str, where: Where, tighter: Tighter = Tighter.HIGHER) -> Any:  # noqa: ANN401
    """Return the field of a number that may be 0."""
    return _key(Key(ParameterKind.NUMBER, text, unit, where, tighter, least=0.0, or_equal=True))


def _each_joint(
    text: str,
    unit: str,
    where: Where = Where.MOTION,
    tighter: Tighter = Tighter.LOWER,
    least: float | None = 0.0,
) -> Any:  # noqa: ANN401
    """Return the field of a list of one number a joint."""
    return _key(Key(ParameterKind.NUMBERS, text, unit, where, tighter, least=least))


def _triple(
    text: str, unit: str, where: Where = Where.PLACE, tighter: Tighter = Tighter.NEVER
) -> Any:  # noqa: ANN401
    """Return the field of a list of three numbers."""
    return _key(Key(ParameterKind.NUMBERS, text, unit, where, tighter, length=3))


def _gripper(text: str, unit: str, tighter: Tighter, least: float | None = None) -> Any:  # noqa: ANN401
    kind = ParameterKind.NUMBER
    return _key(Key(kind, text, unit, Where.GRIPPER, tighter, least=least, gripper=True))


def _names(text: str) -> Any:  # noqa: ANN401
    kind = ParameterKind.TEXTS
    return _key(Key(kind, text, "", Where.PLACE, optional=True))


@dataclass(frozen=True, slots=True)
class Bounds:
    """What the motion of the robot must keep, in SI units: each line says what.

    Directions have length 1. Without a gripper its numbers are 0. `workspace` and `keep_out` are
    lists of names in the file, and of volumes here; likewise the points.
    """

    linear_speed: float = _limit("Greatest TCP speed", "m/s", Where.MOTION)
    linear_acceleration: float = _limit("Greatest TCP acceleration", "m/s^2", Where.MOTION)
    linear_jerk: float = _limit("Greatest TCP jerk", "m/s^3", Where.MOTION)
    angular_speed: float = _limit("Greatest TCP angular speed", "rad/s", Where.MOTION)
    angular_acceleration: float = _limit(
        "Greatest TCP angular acceleration", "rad/s^2", Where.MOTION
    )
    angular_jerk: float = _limit("Greatest TCP angular jerk", "rad/s^3", Where.MOTION)

    joint_position_min: tuple[float, ...] = _each_joint(
        "Least position of each joint", "rad", tighter=Tighter.HIGHER, least=None
    )
    joint_position_max: tuple[float, ...] = _each_joint(
        "Greatest position of each joint", "rad", least=None
    )
    joint_speed: tuple[float, ...] = _each_joint("Greatest speed of each joint", "rad/s")
    joint_acceleration: tuple[float, ...] = _each_joint(
        "Greatest acceleration of each joint", "rad/s^2"
    )
    joint_torque: tuple[float, ...] = _each_joint(
        "Greatest torque that the motion takes, gravity included", "Nm"
    )
    joint_torque_rate: tuple[float, ...] = _each_joint(
        "Greatest change of that torque in time", "Nm/s"
    )

    stopping_time: float = _limit(
        "Time to rest from any motion, ramps included", "s", Where.PLAN, Tighter.NEVER
    )
    stopping_ramp: float = _limit(
        "Time in which braking sets in, and lets go", "s", Where.PLAN, Tighter.NEVER
    )
    reaction_delay: float = _limit(
        "Time until a command shows in the measured position", "s", Where.PLAN, Tighter.NEVER
    )
    tracking_error: float = _margin("Margin kept to every volume", "m", Where.PLACE)
    joint_position_error: float = _margin("Margin kept to the joints' ranges", "rad", Where.MOTION)

    workspace_min: tuple[float, float, float] = _triple(
        "Lower corner of the TCP's box, base frame", "m", tighter=Tighter.HIGHER
    )
    workspace_max: tuple[float, float, float] = _triple(
        "Upper corner of that box", "m", tighter=Tighter.LOWER
    )
    workspace: tuple[Volume, ...] = _names("Volumes to stay inside of")
    keep_out: tuple[Volume, ...] = _names("Volumes to stay out of")
    workspace_points: tuple[ToolPoint, ...] = _names("Points that stay inside; left out: the TCP")
    keep_out_points: tuple[ToolPoint, ...] = _names("Points that stay out; left out: the TCP")

    tool_axis: tuple[float, float, float] = _triple("Direction of the tool, TCP frame", "-")
    tool_cone_axis: tuple[float, float, float] = _triple(
        "Middle of the cone that it stays in, base frame", "-"
    )
    tool_cone_angle: float = _limit("Greatest angle between the two; pi: any", "rad", Where.PLACE)
    singularity_distance: float = _limit(
        "Least singular value of the TCP's Jacobian",
        "-",
        Where.PLACE,
        Tighter.HIGHER,
    )
    characteristic_length: float = _limit(
        "Metres that count as a radian there", "m", Where.PLACE, Tighter.NEVER
    )

    gripper_min: float = _gripper("Smallest opening", "m", Tighter.HIGHER)
    gripper_max: float = _gripper("Greatest opening", "m", Tighter.LOWER)
    gripper_speed: float = _gripper("Greatest speed of the opening", "m/s", Tighter.LOWER, 0.0)
    gripper_force: float = _gripper(
        "Greatest measured force of the fingers", "N", Tighter.LOWER, 0.0
    )

    effort: tuple[float, ...] = _each_joint(
        "Greatest measured effort of each joint, gravity included", "Nm", Where.STOP
    )
    effort_samples: int = _key(
        Key(
            ParameterKind.COUNT,
            "Samples in a row over `effort` that stop the arm; 0: it measures none",
            "-",
            Where.STOP,
            Tighter.LOWER_OR_ON,
            least=0.0,
            or_equal=True,
        )
    )
    external_torque: tuple[float, ...] = _each_joint(
        "Greatest torque on each joint from outside", "Nm", Where.STOP
    )
    external_torque_time: float = _limit(
        "Time constant of the filter of that torque", "s", Where.STOP
    )
    contact_force: float = _limit("Greatest force on the TCP from outside", "N", Where.STOP)

    payload_mass: float = _margin("Mass of what the tool carries", "kg", Where.MODEL, Tighter.NEVER)
    payload_com: tuple[float, float, float] = _triple(
        "Its centre of mass, TCP frame", "m", Where.MODEL
    )

    command_timeout: float = _limit("Stop after this time without command", "s", Where.INPUT)
    refused_command_hold: float = _limit(
        "Stillness after a refused command", "s", Where.INPUT, Tighter.HIGHER
    )
    command_max_age: float = _limit("Greatest age of a command on arrival", "s", Where.INPUT)
    stamp_max_future: float = _limit("Greatest lead of a stamp", "s", Where.INPUT)
    command_max_linear_speed: float = _limit("Refuse faster commands", "m/s", Where.INPUT)
    command_max_angular_speed: float = _limit("Refuse faster commands", "rad/s", Where.INPUT)
    joint_state_timeout: float = _limit("Greatest age of joint states", "s", Where.INPUT)
    rest_joint_speed: float = _limit("Slower joints count as still", "rad/s", Where.INPUT)
    estop_heartbeat: float = _key(
        Key(
            ParameterKind.NUMBER,
            "Stop after this time without e-stop message; 0: none due",
            "s",
            Where.INPUT,
            Tighter.LOWER_OR_ON,
            least=0.0,
            or_equal=True,
        )
    )
    overrun_time: float = _limit("A tick later than this is a fault", "s", Where.INPUT)

    @property
    def stopping_distance(self) -> float:
        """Return what the TCP still travels from `linear_speed`, in m, after the command to stop.

        It moves on unbraked for `reaction_delay`; then the speed falls from v to 0 along a curve
        that is symmetric about its middle, so that the way is v stopping_time / 2.
        """
        return self.linear_speed * (self.reaction_delay + self.stopping_time / 2.0)


@lru_cache(maxsize=1)
def keys() -> dict[str, Key]:
    """Return what is to be known of each bound, by its name, in the order of the file."""
    return {entry.name: entry.metadata["key"] for entry in fields(Bounds)}
