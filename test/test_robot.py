"""The robot file: every bound explicit, every error names the key and the file."""

import array
import math
from pathlib import Path

import pytest
import yaml

from vla_ros.robot import ParameterKind, RobotConfig, RobotConfigError, parameters

PANDA = Path(__file__).parents[1] / "config/robots/panda.yaml"
BOUNDS = [name for name in parameters() if name.startswith("bounds.")]


def flat() -> dict[str, object]:
    sections = yaml.safe_load(PANDA.read_text())["/**"]["ros__parameters"]
    return {
        f"{section}.{key}": value
        for section in ("robot", "bounds")
        for key, value in sections[section].items()
    }


def refusal(changes: dict[str, object]) -> str:
    with pytest.raises(RobotConfigError) as info:
        RobotConfig.from_parameters({**flat(), **changes}, "my.yaml")
    assert "my.yaml" in str(info.value)
    return str(info.value)


def test_the_shipped_file_loads_as_the_node_would_build_it():
    config = RobotConfig.load(PANDA)
    assert config == RobotConfig.from_parameters(flat(), "node")
    assert config.joints[6] == "panda_joint7"
    assert config.bounds.workspace_max == (0.75, 0.35, 0.50)


def test_arrays_as_rclpy_hands_them_over():
    given = {k: array.array("d", v) if k == "bounds.effort" else v for k, v in flat().items()}
    assert RobotConfig.from_parameters(given, "node") == RobotConfig.load(PANDA)


def test_every_number_in_the_file_says_its_unit():
    for line in PANDA.read_text().splitlines():
        key = line.strip().split(":")[0]
        if f"bounds.{key}" in BOUNDS and key != "effort_samples":
            assert line.split("#")[1].split(".")[0].split()[0].strip(",") in {
                "m/s", "m/s^2", "rad/s", "rad/s^2", "m", "s", "Nm"
            }, line  # fmt: skip


@pytest.mark.parametrize("name", [n for n in parameters() if n != "robot.gripper_joints"])
def test_a_missing_parameter_is_named(name):
    assert f"{name!r} is missing" in refusal({name: None})


@pytest.mark.parametrize("name", BOUNDS)
@pytest.mark.parametrize("value", ["0.1", True, {"a": 1}, math.nan, math.inf, 10**400])
def test_a_bound_of_wrong_type_or_not_finite_is_named(name, value):
    kind = parameters()[name][0]
    if kind is ParameterKind.NUMBERS and not isinstance(value, (str, dict)):
        value = [value] * len(flat()[name])
    if kind is ParameterKind.COUNT and isinstance(value, int) and not isinstance(value, bool):
        pytest.skip("a whole number, however large, is a count")
    assert name in refusal({name: value})


def test_lists_of_wrong_length():
    assert "bounds.effort" in refusal({"bounds.effort": [1.0, 2.0]})
    assert "must have 3 numbers" in refusal({"bounds.workspace_max": [1.0, 2.0]})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("bounds.workspace_min", [0.8, -0.35, 0.0]),
        ("bounds.gripper_min", 0.09),
        ("bounds.gripper_min", -0.01),
        ("bounds.linear_speed", 0.0),
        ("bounds.linear_acceleration", -1.0),
        ("bounds.effort", [0.0] * 7),
        ("bounds.effort_samples", -1),
        ("bounds.command_max_linear_speed", 0.2),
        ("robot.joints", ["a", "a"]),
        ("robot.joints", []),
        ("robot.base_frame", ""),
    ],
)
def test_contradictory_values_are_named(name, value):
    assert name in refusal({name: value})


def test_a_speed_that_cannot_stop_in_the_workspace():
    message = refusal({"bounds.linear_acceleration": 0.05})
    assert "bounds.linear_speed" in message
    assert "stopping" in message


def test_a_misspelt_bound_gets_a_suggestion():
    assert "did you mean 'bounds.linear_speed'" in refusal({"bounds.linear_sped": 0.1})


def test_parameters_of_others_are_left_alone():
    RobotConfig.from_parameters({**flat(), "rate_hz": 100.0, "topics.x": "y"}, "node")


def test_a_robot_without_gripper():
    given = {k: v for k, v in flat().items() if "gripper" not in k}
    config = RobotConfig.from_parameters(given, "node")
    assert (config.gripper_joints, config.bounds.gripper_max) == ((), 0.0)
    assert "gripper_joints" in refusal({"robot.gripper_joints": None})


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


def test_no_file(tmp_path):
    with pytest.raises(RobotConfigError, match="No such file"):
        RobotConfig.load(tmp_path / "none.yaml")


def test_joints_of_another_robot():
    config = RobotConfig.load(PANDA)
    config.check_joints([*config.joints, *config.gripper_joints, "more"])
    with pytest.raises(RobotConfigError, match=r"lacks.*panda_finger_joint2"):
        config.check_joints([*config.joints, "panda_finger_joint1"], "robot_description")
