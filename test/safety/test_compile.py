"""Who has to wait for the compiler is told so; once it is done, nothing is said."""

import pytest

from vla_ros import cli
from vla_ros.paths import share

BAG = ["replay", "nowhere", "--robot", str(share() / "config" / "robots" / "panda.yaml")]
SAID = "compiling the safety filter, once: up to a minute ...\n"


@pytest.fixture(params=[True, False])
def kept(request, monkeypatch):
    monkeypatch.setattr("vla_ros.safety.compile.is_kept", lambda: request.param)
    return request.param


def test_it_is_said_before_a_filter_is_made(kept, capsys):
    assert cli.main(["safety", "compile"]) == 0
    assert capsys.readouterr() == ("the safety filter is ready\n", "" if kept else SAID)


@pytest.mark.parametrize(("mode", "makes_one"), [("safety", True), ("live", False)])
def test_a_replay_says_so_too_unless_it_steps_no_filter(kept, capsys, mode, makes_one):
    assert cli.main([*BAG, "--mode", mode]) == 2
    assert (SAID in capsys.readouterr().err) is (makes_one and not kept)
