"""The robot file: every bound explicit, every error names the key and the file."""

import array
import math
from pathlib import Path

import numpy as np
import pytest
import yaml

from vla_ros.robot import (
    ParameterKind,
    RobotConfig,
    RobotConfigError,
    dynamic_parameters,
    parameters,
)
from vla_ros.volumes import TCP_POINT, Box, Capsule, Cylinder, HalfSpace, Sphere, ToolPoint

ROBOTS = Path(__file__).parents[1] / "config/robots"
PANDA = ROBOTS / "panda.yaml"
FILES = sorted(ROBOTS.glob("*.yaml"))
BOUNDS = [name for name in parameters() if name.startswith("bounds.")]
NUMBERS = [n for n in BOUNDS if parameters()[n].kind is not ParameterKind.TEXTS]
OPTIONAL = [name for name, key in parameters().items() if key.optional]


def flat(path: Path = PANDA) -> dict[str, object]:
    sections = yaml.safe_load(path.read_text())["/**"]["ros__parameters"]
    values = {
        f"{section}.{key}": value
        for section, keys in sections.items()
        for key, value in keys.items()
    }
    for section in ("volumes", "points"):
        for name, parts in sections.get(section, {}).items():
            del values[f"{section}.{name}"]
            values |= {f"{section}.{name}.{key}": value for key, value in parts.items()}
    return values


def made(changes: dict[str, object]) -> RobotConfig:
    """Return the Panda without its keep-outs, changed."""
    volumes = ("volumes.", "points.", "bounds.keep_out")
    plain = {name: value for name, value in flat().items() if not name.startswith(volumes)}
    return RobotConfig.from_parameters({**plain, **changes}, "my.yaml")


def refusal(changes: dict[str, object]) -> str:
    with pytest.raises(RobotConfigError) as info:
        made(changes)
    assert "my.yaml" in str(info.value)
    return str(info.value)


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_every_shipped_file_loads_as_the_node_would_build_it(path):
    config = RobotConfig.load(path)
    assert config == RobotConfig.from_parameters(flat(path), "node")
    assert config.name == path.stem


def test_the_panda():
    config = RobotConfig.load(PANDA)
    assert config.joints[6] == "panda_joint7"
    assert config.bounds.workspace_max == (0.75, 0.35, 0.50)


def test_arrays_as_rclpy_hands_them_over():
    given = {k: array.array("d", v) if k == "bounds.effort" else v for k, v in flat().items()}
    assert RobotConfig.from_parameters(given, "node") == RobotConfig.load(PANDA)


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_every_number_in_the_file_says_its_unit(path):
    slides = {"gripper_min", "gripper_max", "gripper_speed", "gripper_force"}
    seen = set()
    for line in path.read_text().splitlines():
        key = line.strip().split(":")[0]
        if f"bounds.{key}" in NUMBERS and key != "effort_samples":
            unit = line.split("#")[1].split()[0].rstrip(".,:")
            expected = parameters()[f"bounds.{key}"].unit
            turned = {"m": "rad", "m/s": "rad/s", "N": "Nm"}.get(expected)
            assert unit == expected or (key in slides and unit == turned), line
            seen.add(key)
    assert len(seen) == len([n for n in flat(path) if n in NUMBERS]) - 1


@pytest.mark.parametrize("name", [n for n in parameters() if n not in OPTIONAL])
def test_a_missing_parameter_is_named(name):
    assert f"{name!r} is missing" in refusal({name: None})


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", ["0.1", True, {"a": 1}, math.nan, math.inf, 10**400])
def test_a_bound_of_wrong_type_or_not_finite_is_named(name, value):
    kind = parameters()[name].kind
    if kind is ParameterKind.NUMBERS and not isinstance(value, (str, dict)):
        value = [value] * len(flat()[name])
    if kind is ParameterKind.COUNT and isinstance(value, int) and not isinstance(value, bool):
        pytest.skip("a whole number, however large, is a count")
    assert name in refusal({name: value})


@pytest.mark.parametrize("name", [n for n in NUMBERS if isinstance(flat()[n], list)])
def test_a_list_of_wrong_length_is_named(name):
    message = refusal({name: [*flat()[name], flat()[name][0]]})
    assert name in message
    assert "numbers" in message


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("bounds.workspace_min", [0.8, -0.35, 0.0]),
        ("bounds.gripper_min", 0.09),
        ("bounds.gripper_speed", 0.0),
        ("bounds.linear_speed", 0.0),
        ("bounds.linear_acceleration", -1.0),
        ("bounds.effort", [0.0] * 7),
        ("bounds.effort", [69.0] * 7),
        ("bounds.effort_samples", -1),
        ("bounds.payload_mass", -0.1),
        ("bounds.estop_heartbeat", -0.1),
        ("bounds.command_max_linear_speed", 0.2),
        ("bounds.rest_joint_speed", 0.74),
        ("bounds.joint_position_min", [2.9] * 7),
        ("bounds.stopping_time", 0.04),
        ("bounds.tool_cone_angle", 3.2),
        ("bounds.tool_axis", [0.0, 0.0, 2.0]),
        ("robot.joints", ["a", "a"]),
        ("robot.joints", []),
        ("robot.base_frame", ""),
        ("robot.gripper_joints", ["panda_joint1"]),
        ("bounds.keep_out", []),
    ],
)
def test_contradictory_values_are_named(name, value):
    assert name in refusal({name: value})


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"bounds.linear_acceleration": 2.9}, "bounds.linear_speed"),
        ({"bounds.angular_acceleration": 15.9}, "bounds.angular_speed"),
        ({"bounds.joint_acceleration": [15.0, 7.3, 10.0, 12.5, 15.0, 20.0, 20.0]}, "joint_speed"),
        ({"bounds.linear_jerk": 499.0}, "bounds.linear_jerk"),
        ({"bounds.angular_jerk": 1999.0}, "bounds.angular_jerk"),
    ],
)
def test_a_speed_that_the_stop_plan_cannot_stop(changes, name):
    """Braking holds v / (stopping_time - stopping_ramp), and turns about within one ramp."""
    message = refusal(changes)
    assert name in message
    assert "stopping" in message


def test_a_speed_that_cannot_stop_in_the_workspace():
    message = refusal({"bounds.workspace_min": [0.72, -0.35, 0.005]})
    assert "bounds.linear_speed" in message
    assert "0.041 m" in message  # 0.3 (0.05 + 0.12 / 2) + 2 x 0.004


def test_a_misspelt_name_gets_a_suggestion():
    assert "did you mean 'bounds.linear_speed'" in refusal({"bounds.linear_sped": 0.1})
    assert "did you mean 'robot.joints'" in refusal({"robot.joint": ["a"]})
    assert "did you mean 'volumes.a.center'" in refusal(volume("keep_out", SPHERE, centre=[0, 0]))


def test_parameters_of_others_are_left_alone():
    made({"rate_hz": 100.0, "topics.x": "y"})


def test_a_robot_without_gripper():
    given = {k: v for k, v in flat().items() if "gripper" not in k}
    config = RobotConfig.from_parameters(given, "node")
    assert (config.gripper_joints, config.bounds.gripper_max) == ((), 0.0)
    assert "gripper_joints" in refusal({"robot.gripper_joints": None})


# --- volumes and points --------------------------------------------------------------------------

SPHERE = {"shape": "sphere", "center": [0.5, 0.0, 0.2], "radius": 0.1}
BOX = {"shape": "box", "center": [0.5, 0.0, 0.2], "rpy": [0.0, 0.0, 1.0], "size": [0.2, 0.3, 0.4]}
CYLINDER = {"shape": "cylinder", "center": [0.5, 0.0, 0.2], "axis": [0, 0, 1], "radius": 0.3}
HALF_SPACE = {"shape": "half_space", "normal": [1.0, 0.0, 0.0], "offset": 0.6}
CAPSULE = {"shape": "capsule", "from": [0.5, 0.0, 0.0], "to": [0.5, 0.0, 0.3], "radius": 0.1}


def volume(where: str, parts: dict[str, object], **changes: object) -> dict[str, object]:
    parts = {**parts, **changes}
    return {f"bounds.{where}": ["a"], **{f"volumes.a.{key}": v for key, v in parts.items()}}


@pytest.mark.parametrize(
    ("where", "parts", "expected"),
    [
        ("workspace", SPHERE, Sphere("a", (0.5, 0.0, 0.2), 0.1)),
        ("workspace", {**SPHERE, "inner_radius": 0.02}, Sphere("a", (0.5, 0.0, 0.2), 0.1, 0.02)),
        ("workspace", BOX, Box("a", (0.5, 0.0, 0.2), (0.0, 0.0, 1.0), (0.2, 0.3, 0.4))),
        ("workspace", CYLINDER, Cylinder("a", (0.5, 0.0, 0.2), (0.0, 0.0, 1.0), 0.3)),
        ("workspace", HALF_SPACE, HalfSpace("a", (1.0, 0.0, 0.0), 0.6)),
        ("keep_out", SPHERE, Sphere("a", (0.5, 0.0, 0.2), 0.1)),
        ("keep_out", BOX, Box("a", (0.5, 0.0, 0.2), (0.0, 0.0, 1.0), (0.2, 0.3, 0.4))),
        ("keep_out", CAPSULE, Capsule("a", (0.5, 0.0, 0.0), (0.5, 0.0, 0.3), 0.1)),
    ],
)
def test_volumes(where, parts, expected):
    assert getattr(made(volume(where, parts)).bounds, where) == (expected,)


def test_points_of_the_tool():
    assert made({}).bounds.workspace_points == (TCP_POINT,)
    config = made(
        {
            "bounds.keep_out_points": ["tcp", "knuckle"],
            "points.knuckle.position": [0.0, 0.1, -0.05],
            "points.knuckle.radius": 0.03,
        }
    )
    knuckle = ToolPoint("knuckle", (0.0, 0.1, -0.05), 0.03)
    assert config.bounds.keep_out_points == (TCP_POINT, knuckle)
    assert config.bounds.workspace_points == (TCP_POINT,)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"bounds.keep_out": ["a"]}, ["volumes.a.shape", "is missing"]),
        (volume("keep_out", SPHERE, shape="ball"), ["volumes.a.shape", "one of"]),
        (volume("keep_out", HALF_SPACE), ["volumes.a.shape", "bounds.keep_out", "capsule"]),
        (volume("keep_out", CYLINDER), ["volumes.a.shape", "bounds.keep_out"]),
        (volume("workspace", CAPSULE), ["volumes.a.shape", "bounds.workspace"]),
        (volume("keep_out", SPHERE, radius=None), ["volumes.a.radius", "is missing"]),
        (volume("keep_out", SPHERE, radius=0.0), ["volumes.a.radius", "greater than 0"]),
        (volume("keep_out", SPHERE, radius=math.nan), ["volumes.a.radius", "finite"]),
        (volume("keep_out", SPHERE, center=[0.0, 0.0]), ["volumes.a.center", "3 numbers"]),
        (volume("keep_out", SPHERE, size=[1.0, 1.0, 1.0]), ["volumes.a.size", "sphere has"]),
        (volume("keep_out", SPHERE, inner_radius=0.05), ["volumes.a.inner_radius", "solid"]),
        (volume("workspace", SPHERE, inner_radius=0.1), ["volumes.a.inner_radius", "less"]),
        (volume("workspace", HALF_SPACE, normal=[1.0, 1.0, 0.0]), ["volumes.a.normal", "length 1"]),
        ({"volumes.b.radius": 1.0}, ["volumes.b.radius", "neither in"]),
        ({"volumes": 3}, ["volumes"]),
        ({"bounds.keep_out": ["a b"]}, ["bounds.keep_out[0]", "letters"]),
        ({**volume("keep_out", SPHERE), "bounds.keep_out": ["a", "a"]}, ["keep_out", "twice"]),
        ({"bounds.keep_out_points": ["p"]}, ["points.p.position", "is missing"]),
        ({"points.tcp.radius": 0.1}, ["points.tcp"]),
        ({"bounds.keep_out_points": ["tcp"], "points.tcp.radius": 0.1}, ["TCP itself"]),
    ],
)
def test_a_wrong_volume_or_point_is_named(changes, words):
    message = refusal(changes)
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("changes", "room"),
    [
        (volume("workspace", HALF_SPACE, offset=0.29), True),
        (volume("workspace", HALF_SPACE, offset=0.27), False),
        # A shell that crosses the box's corner alone.
        (volume("workspace", SPHERE, center=[0.0, 0.0, 0.0], radius=0.3, inner_radius=0.29), True),
        (volume("workspace", SPHERE, center=[0.0, 0.0, 0.0], radius=0.285), False),
        (volume("keep_out", SPHERE, radius=2.0), False),
        (volume("keep_out", SPHERE, radius=0.3), True),
        (volume("keep_out", BOX, rpy=[0, 0, 0], size=[0.44, 2.0, 2.0]), True),
        (volume("keep_out", BOX, rpy=[0, 0, 0], size=[0.49, 2.0, 2.0]), False),
    ],
)
def test_volumes_that_leave_the_tcp_no_place(changes, room):
    if room:
        made(changes)
    else:
        assert "no place" in refusal(changes)


def test_a_point_of_radius_needs_its_room():
    points = {"points.ball.position": [0.0, 0.0, 0.0], "points.ball.radius": 0.05}
    tube = volume("workspace", CYLINDER, radius=0.05)
    made(tube)
    assert "no place" in refusal({**tube, **points, "bounds.workspace_points": ["ball"]})


@pytest.mark.parametrize(
    "shape",
    [
        Box("a", (0.1, -0.2, 0.3), (0.3, -0.4, 0.5), (0.2, 0.4, 0.6)),
        Sphere("a", (0.1, -0.2, 0.3), 0.4),
        Sphere("a", (0.1, -0.2, 0.3), 0.4, 0.2),
        Cylinder("a", (0.1, -0.2, 0.3), (0.6, 0.0, 0.8), 0.4, 0.2),
        HalfSpace("a", (0.6, 0.0, 0.8), 0.1),
        Capsule("a", (0.1, -0.2, 0.3), (0.4, 0.3, 0.2), 0.3),
    ],
    ids=lambda s: f"{s.shape}{'_shell' if getattr(s, 'inner_radius', 0.0) else ''}",
)
def test_distances_to_volumes(shape):
    """The gradient of an exact distance has length 1 nearly everywhere, and never more."""
    points = np.random.default_rng(0).uniform(-1.0, 1.0, (500, 3))
    step = 1e-6
    gradient = np.stack(
        [
            (shape.distance(points + step * e) - shape.distance(points - step * e)) / (2 * step)
            for e in np.eye(3)
        ],
        axis=1,
    )
    lengths = np.linalg.norm(gradient, axis=1)
    assert lengths.max() < 1.0 + 1e-6
    assert np.median(lengths) == pytest.approx(1.0, abs=1e-6)
    # Walking the distance back along the gradient ends on the surface.
    regular = lengths > 1.0 - 1e-6
    feet = points[regular] - gradient[regular] * shape.distance(points)[regular, np.newaxis]
    assert np.median(np.abs(shape.distance(feet))) < 1e-6


def test_distances_by_hand():
    origin = np.zeros((1, 3))
    assert Box("a", (1.0, 0.0, 0.0), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)).distance(origin) == 0.5
    turned = Box("a", (1.0, 0.0, 0.0), (0.0, 0.0, math.pi / 2), (1.0, 0.5, 1.0))
    assert turned.distance(origin) == pytest.approx(0.75)
    assert Sphere("a", (0.0, 0.0, 0.1), 0.4, 0.2).distance(origin) == pytest.approx(0.1)
    assert HalfSpace("a", (0.0, 0.0, 1.0), 0.3).distance(origin) == pytest.approx(-0.3)


def test_names_of_volumes_for_a_node():
    """A node declares what the lists name, and leaves what is wrong to the loader's error."""
    names = dynamic_parameters({"bounds.keep_out": ["a", "b c", 3], "bounds.workspace": 3.0})
    assert "volumes.a.from" in names
    assert not [n for n in names if "b c" in n]
    assert "points.p.radius" in dynamic_parameters({"bounds.workspace_points": ["p"]})


# --- tightening ----------------------------------------------------------------------------------

VECTORS = {"joint_position_min", "joint_position_max", "workspace_min", "workspace_max"}


@pytest.mark.parametrize(
    ("name", "tighter", "looser"),
    [
        ("linear_speed", 0.2, 0.31),
        ("bounds.linear_speed", 0.2, 0.31),
        ("angular_acceleration", 19.0, 21.0),
        ("joint_speed", [0.5] * 7, [1.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5]),
        ("joint_position_min", [-1.0] * 3 + [-2.0, -1.0, 0.5, -1.0], [-2.9] * 7),
        ("workspace_min", [0.3, -0.3, 0.01], [0.3, -0.3, 0.0]),
        ("workspace_max", [0.7, 0.3, 0.4], [0.7, 0.3, 0.6]),
        ("tracking_error", 0.01, 0.001),
        ("tool_cone_angle", 0.5, 1.3),
        ("singularity_distance", 0.12, 0.01),
        ("gripper_min", 0.01, -0.01),
        ("gripper_force", 10.0, 71.0),
        ("effort_samples", 2, 6),
        ("effort_samples", 2, 0),
        ("refused_command_hold", 1.0, 0.1),
        ("command_timeout", 0.05, 0.2),
        ("external_torque", [5.0] * 7, [5.0] * 6 + [30.0]),
    ],
)  # fmt: skip
def test_tightening_and_never_loosening(name, tighter, looser):
    config = made({})
    same = getattr(config.bounds, name.removeprefix("bounds."))
    assert config.tightened(name, same) == config
    new = config.tightened(name, tighter)
    value = getattr(new.bounds, name.removeprefix("bounds."))
    assert (list(value) if isinstance(value, tuple) else value) == tighter
    with pytest.raises(RobotConfigError, match=r"can only be tightened.*change the robot file"):
        config.tightened(name, looser)


@pytest.mark.parametrize(
    "name",
    ["stopping_time", "reaction_delay", "payload_mass", "tool_axis", "keep_out", "workspace"],
)
def test_what_describes_the_robot_is_not_changed(name):
    with pytest.raises(RobotConfigError, match="cannot be changed"):
        made({}).tightened(name, 0.1)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("linear_sped", 0.1, "did you mean 'bounds.linear_speed'"),
        ("linear_speed", math.nan, "finite"),
        ("linear_speed", 0.0, "greater than 0"),
        ("linear_speed", "0.1", "a number"),
        ("linear_speed", True, "a number"),
        ("joint_speed", [0.1], "7 numbers"),
        ("linear_acceleration", 2.9, "stopping"),
        ("tracking_error", 0.3, "stopping from it"),
    ],
)
def test_a_tightening_that_cannot_be(name, value, words):
    with pytest.raises(RobotConfigError, match=words) as info:
        made({}).tightened(name, value)
    assert "panda" in str(info.value)


def test_every_bound_has_a_rule_and_no_rule_loosens():
    """Whatever is allowed in both directions would be no bound."""
    config = made({})
    for name in NUMBERS:
        old = getattr(config.bounds, name.removeprefix("bounds."))
        allowed = 0
        for change in (-1, 1):
            step = change if isinstance(old, int) else change * 1e-6
            value = [v + step for v in old] if isinstance(old, tuple) else old + step
            try:
                config.tightened(name, value)
            except RobotConfigError:
                continue
            allowed += 1
        assert allowed <= 1, name


def test_a_supervision_that_is_off_may_be_switched_on_and_not_off():
    config = made({"bounds.estop_heartbeat": 0.0}).tightened("estop_heartbeat", 0.2)
    with pytest.raises(RobotConfigError, match="can only be tightened"):
        config.tightened("estop_heartbeat", 0.0)


def test_speed_scale():
    config = made({})
    slow = config.slowed(0.5)
    assert slow.bounds.linear_speed == pytest.approx(0.15)
    assert slow.bounds.joint_speed == pytest.approx([v / 2 for v in config.bounds.joint_speed])
    assert slow.bounds.gripper_speed == pytest.approx(config.bounds.gripper_speed / 2)
    assert slow.bounds.linear_acceleration == config.bounds.linear_acceleration
    assert config.slowed(1.0) == config
    for scale in (0.0, -1.0, 1.0001, math.nan):
        with pytest.raises(RobotConfigError, match="'speed_scale'"):
            config.slowed(scale)
    with pytest.raises(RobotConfigError, match="rest_joint_speed"):
        config.slowed(0.01)


# --- files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("a: [", "not YAML"),
        ("robot: {}", "no section"),
        ("/**: {ros__parameters: 3}", "no section"),
        ("", "no section"),
        ("\xff\xfe", "not YAML"),
    ],
)
def test_a_broken_file(tmp_path, content, why):
    path = tmp_path / "r.yaml"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(RobotConfigError, match=why) as info:
        RobotConfig.load(path)
    assert str(path) in str(info.value)


def test_lists_that_ros_does_not_read(tmp_path):
    """rcl refuses a list of whole and decimal numbers, so a file with one is told off here."""
    path = tmp_path / "r.yaml"
    path.write_text(PANDA.read_text().replace("[0.0, 0.0, -1.0]", "[0, 0.0, -1.0]"))
    with pytest.raises(RobotConfigError, match=r"tool_cone_axis.*decimal point"):
        RobotConfig.load(path)


def test_no_file(tmp_path):
    with pytest.raises(RobotConfigError, match="No such file"):
        RobotConfig.load(tmp_path / "none.yaml")


def test_joints_of_another_robot():
    config = RobotConfig.load(PANDA)
    config.check_joints([*config.joints, *config.gripper_joints, "more"])
    with pytest.raises(RobotConfigError, match=r"lacks.*panda_finger_joint2"):
        config.check_joints([*config.joints, "panda_finger_joint1"], "robot_description")
