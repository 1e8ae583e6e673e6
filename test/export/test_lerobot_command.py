"""Promise: one command exports a LeRobot checkpoint; where lerobot is not, it says what to do."""

import sys

import pytest
from plain_checkpoint import write_checkpoint

from vla_ros.cli import main
from vla_ros.export.lerobot import command

WORDS = "--joints a,b,gripper --gripper-open 0.1 --state joint.position.a,joint.position.b,x"
MEANING = f"--action joint_position --rate 30 {WORDS}".split()


@pytest.fixture
def no_lerobot(monkeypatch):
    find = command.importlib.util.find_spec
    monkeypatch.setattr(
        command.importlib.util, "find_spec", lambda name: None if name == "lerobot" else find(name)
    )


def _words(tmp_path, *flags):
    checkpoint = write_checkpoint(tmp_path / "checkpoint")
    return ["export", "lerobot", str(checkpoint), "--out", str(tmp_path / "bundle"), *flags]


@pytest.mark.usefixtures("no_lerobot")
def test_without_lerobot_it_names_the_command_that_makes_the_environment(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(command, "share", lambda: tmp_path)
    assert main(_words(tmp_path, *MEANING)) == 1
    assert "`make .venv-lerobot` makes an environment" in capsys.readouterr().err
    assert not (tmp_path / "bundle").exists()


@pytest.mark.usefixtures("no_lerobot")
@pytest.mark.skipif(sys.platform == "win32", reason="the stand-in for Python is a shell script")
def test_with_an_environment_it_runs_itself_there(tmp_path, monkeypatch):
    monkeypatch.setattr(command, "share", lambda: tmp_path)
    python = tmp_path / ".venv-lerobot" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(
        f'#!/bin/sh\nfor word in "$@"; do echo "$word"; done > {tmp_path}/said\nexit 7\n'
    )
    python.chmod(0o755)
    words = _words(tmp_path, *MEANING)
    assert main(words) == 7
    assert (tmp_path / "said").read_text().split("\n")[:-1] == ["-m", "vla_ros.cli", *words]


@pytest.mark.usefixtures("no_lerobot")
def test_what_is_missing_is_said_before_lerobot_is_looked_for(tmp_path, capsys):
    assert main(_words(tmp_path)) == 1
    error = capsys.readouterr().err
    assert "--action (" in error
    assert "--rate (" in error
    assert "make .venv-lerobot" not in error


@pytest.mark.usefixtures("no_lerobot")
@pytest.mark.parametrize(
    ("flags", "fault"),
    [
        (["--language-model", "nowhere"], "--language-model nowhere: there is no such folder"),
        (["--meaning", "cameras.yaml"], "cameras.yaml: cameras: 'side': the checkpoint has front"),
        (["--out", "checkpoint"], "--out checkpoint: checkpoint lies in it: name another folder"),
    ],
)
def test_a_flag_at_fault_is_said_before_lerobot_is_looked_for(
    tmp_path, monkeypatch, capsys, flags, fault
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cameras.yaml").write_text("cameras: {side: {crop: [0, 0, 1, 1]}}")
    write_checkpoint(tmp_path / "checkpoint")
    words = ["export", "lerobot", "checkpoint", "--out", "bundle", *MEANING, *flags]
    assert main(words) == 1
    assert fault in capsys.readouterr().err


def test_the_name_of_a_checkpoint_on_the_hub_is_answered_by_how_to_fetch_it(tmp_path, capsys):
    assert main(["export", "lerobot", "lerobot/act_aloha", "--out", str(tmp_path / "b")]) == 1
    error = capsys.readouterr().err
    assert "lerobot/act_aloha: there is no such folder" in error
    assert "hf download" in error
