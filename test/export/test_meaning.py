"""Promise: what a model's numbers mean is asked for, all at once, and then followed exactly."""

import argparse

import numpy as np
import pytest
from pydantic import TypeAdapter

from vla_ros.export import finish
from vla_ros.export.error import ExportError
from vla_ros.export.meaning import Units, add_arguments, read_meaning
from vla_ros.policy.manifest import Normalisation
from vla_ros.policy.normalise import denormalise, normalise


def _read(words, *, state=6, action=6):
    parser = argparse.ArgumentParser()
    finish.add_arguments(parser)
    add_arguments(parser)
    args = parser.parse_args(["--out", "somewhere/pick", *words.split()])
    return read_meaning(args, state_size=state, action_size=action, source="the checkpoint")


def test_a_robot_names_the_joints_of_state_and_action():
    found = _read("--robot so101 --action joint_position --rate 30")
    assert found.name == "pick"
    assert found.action["names"][0] == "shoulder_pan"
    assert found.action["names"][-1] == "gripper"
    assert found.action["gripper"] == {"closed_m": -0.17, "open_m": 1.7, "mode": "continuous"}
    assert found.state_names[-2:] == ("joint.position.wrist_roll", "gripper.opening")


def test_all_that_is_missing_is_said_at_once():
    with pytest.raises(ExportError) as caught:
        _read("")
    assert "the checkpoint does not say, so give" in str(caught.value)
    for flag in ("--action (", "--rate (", "--robot or --state"):
        assert flag in str(caught.value)
    with pytest.raises(ExportError, match=r"--rate .*--reference .*--frame .*--gripper-open"):
        _read("--action delta_pose --rotation rotation_vector --state a", state=1, action=7)


def test_names_that_do_not_fit_the_model():
    with pytest.raises(ExportError, match="its action has 4 entries, but 6 are named"):
        _read(
            "--robot so101 --action joint_delta --reference observation --rate 5 "
            "--joints a,b,c,d,e,gripper --gripper-open 0.1",
            action=4,
        )
    with pytest.raises(ExportError, match="its state has 9 entries, but 6 are named"):
        _read("--robot so101 --action joint_position --rate 30", state=9)


def test_a_file_says_the_same_and_flags_win(tmp_path):
    file = tmp_path / "meaning.yaml"
    file.write_text(
        "rate_hz: 10\nrobot: so101\naction: {type: joint_position}\n"
        "units: {angles: deg, gripper: [0, 100]}\n"
        "cameras: {front: {crop: [0, 0, 0.5, 1]}}\n"
    )
    found = _read(f"--meaning {file} --rate 30")
    assert found.action["rate_hz"] == 30.0
    assert found.cameras == {"front": {"crop": [0, 0, 0.5, 1]}}
    numbers = np.array([180.0, 90.0, 0.0, 0.0, 0.0, 50.0])
    expected = [np.pi, np.pi / 2, 0.0, 0.0, 0.0]
    assert np.allclose(found.action_units.from_model(numbers), [*expected, 0.5])
    # Half open is between -0.17 and 1.7 rad, which is what the robot measures.
    assert np.allclose(found.state_units.from_model(numbers), [*expected, 0.765])


def test_a_misspelt_key_is_an_error(tmp_path):
    file = tmp_path / "meaning.yaml"
    file.write_text("action: {typ: pose}\n")
    with pytest.raises(ExportError, match=r"action\.typ: is unknown; there are type, frame"):
        _read(f"--meaning {file}")


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ("action: pose", r"action: is 'pose', but must be a mapping"),
        ("action: {gripper: 0.1}", r"action\.gripper: is 0\.1, but must be a mapping"),
        ("action: {names: a}", r"action\.names: is 'a', but must be a list"),
        ("state: {names: a}", r"state\.names: is 'a', but must be a list"),
        ("cameras: {front: 1}", r"cameras\.front: is 1, but must be a mapping"),
        ("cameras: {front: {size: 1}}", r"front\.size: is unknown; there are source_aspect, crop"),
        ("rate_hz: fast", r"rate: is 'fast'; actions a second, more than 0"),
        ("rate_hz: 0", r"rate: is 0; actions a second, more than 0"),
        (
            "units: {gripper: [0, wide]}",
            r"units\.gripper: is \[0, 'wide'\], but must be two numbers",
        ),
        ("action: {gripper: {open_m: wide}}", r"open_m: is 'wide', but must be a number"),
        (
            "action: {gripper: {open_m: -1}}",
            r"is -0\.17 closed and -1 open: --gripper-open must be",
        ),
    ],
)
def test_a_value_that_makes_no_sense_is_named(tmp_path, content, fault):
    file = tmp_path / "meaning.yaml"
    file.write_text(content)
    words = f"--meaning {file} --robot so101 --action joint_position"
    with pytest.raises(ExportError, match=fault):
        _read(words if content.startswith("rate") else f"{words} --rate 30")


def test_an_unknown_robot_lists_the_known_ones():
    with pytest.raises(ExportError, match=r"--robot r2d2: there is no such .* panda, so101, ur5e"):
        _read("--robot r2d2")


@pytest.mark.parametrize(
    "spec",
    [
        {"type": "identity"},
        {"type": "mean_std", "mean": [10.0, 20.0], "std": [30.0, 0.0], "eps": 1e-8},
        {"type": "min_max", "min": [-90.0, 0.0], "max": [90.0, 100.0]},
        {"type": "quantiles", "low": [-45.0, 5.0], "high": [60.0, 95.0]},
    ],
)
def test_a_normalisation_of_other_units_is_the_same_function(spec):
    units = Units((180.0 / np.pi, 100.0), (0.0, 3.0))
    adapter = TypeAdapter(Normalisation)
    model = adapter.validate_python(spec)
    values = np.array([[0.3, 0.5], [-1.0, 0.9]])
    own = adapter.validate_python(units.convert(spec, inverse=False))
    expected = normalise(units.to_model(values), model)
    assert np.allclose(normalise(values, own), expected, rtol=1e-9, atol=1e-9)
    back = adapter.validate_python(units.convert(spec, inverse=True))
    outputs = np.array([[0.1, -0.4], [2.0, 1.0]])
    expected = units.from_model(denormalise(outputs, model))
    assert np.allclose(denormalise(outputs, back), expected, rtol=1e-9, atol=1e-9)
