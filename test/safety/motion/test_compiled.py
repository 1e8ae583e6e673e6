"""What is compiled: anew when a source changes, and never while the arm moves."""

import importlib
import json
import os
import pkgutil
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numba
import numpy as np
import pytest

from vla_ros import robots
from vla_ros.paths import share
from vla_ros.robot import RobotConfig
from vla_ros.safety import motion as package
from vla_ros.safety.motion import (
    JointVelocityTarget,
    MotionLimiter,
    PoseTarget,
    TwistTarget,
    compiled,
)
from vla_ros.safety.observer import MomentumObserver

FOLDER = Path(package.__file__).parent
STARTS = {
    "panda": [0.0, 0.15, 0.0, -2.2, 0.0, 2.35, 0.785],
    "so101": [0.0, -0.4, 0.6, 0.9, 0.0],
}


@pytest.fixture
def sources(tmp_path, monkeypatch):
    """Return a copy of the sources, which the module then takes for its own."""
    copy = tmp_path / "motion"
    copy.mkdir()
    for source in FOLDER.glob("*.py"):
        shutil.copy(source, copy)
    monkeypatch.setattr(compiled, "__file__", str(copy / "compiled.py"))
    return copy


def test_what_is_kept_is_of_the_sources_as_they_are(sources):
    """Of all in the folder: Numba by itself looks at the function's own file only."""
    kept = compiled._folder()
    assert kept == compiled._FOLDER
    for source in sorted(sources.glob("*.py")):
        before = source.read_bytes()
        source.write_bytes(before + b"# changed\n")
        assert compiled._folder() != kept
        source.write_bytes(before)
    assert compiled._folder() == kept
    (sources / "another.py").write_text("x = 1\n")
    assert compiled._folder() != kept


def test_when_they_were_written_does_not_matter(sources):
    kept = compiled._folder()
    for source in sources.glob("*.py"):
        os.utime(source, (1.0, 1.0))
    assert compiled._folder() == kept


def test_it_is_kept_where_the_user_keeps_such_things(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert compiled._folder().parent == tmp_path / "cache/vla_ros/compiled"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert compiled._folder().parent == tmp_path / "home/.cache/vla_ros/compiled"


def test_what_is_of_other_sources_is_removed_when_there_are_new_ones(tmp_path):
    old, recent, new = (tmp_path / name for name in ("old", "recent", "new"))
    for folder in (old, recent):
        folder.mkdir()
        (folder / "index").touch()
    long_ago = time.time() - compiled._FORGET_S - 60.0
    os.utime(old, (long_ago, long_ago))
    assert compiled._make(recent)
    assert old.exists()
    assert compiled._make(new)
    assert not old.exists()
    assert recent.exists()
    assert new.exists()


def test_it_is_kept_only_once_all_of_it_is_compiled(tmp_path):
    """An import makes the folder, and half a run some of its files: neither is the whole."""
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}

    def run(code):
        call = [sys.executable, "-c", f"from vla_ros.safety.motion import compiled; {code}"]
        return subprocess.run(call, check=True, capture_output=True, text=True, env=environment)

    ask = "import vla_ros.safety.motion as m; print(m.is_kept())"
    assert run(ask).stdout == "False\n"
    run("compiled.note_complete()")
    assert run(ask).stdout == "True\n"


def test_what_is_compiled_of_another_workspace_is_not_taken_for_kept(tmp_path):
    """Its sources may be the same; Numba compiles those of each place, and that takes a minute."""
    places = [tmp_path / name for name in ("first", "second")]
    for place in places:
        shutil.copytree(
            FOLDER.parents[1], place / "vla_ros", ignore=shutil.ignore_patterns("*.pyc")
        )

    def run(place, code):
        environment = {**os.environ, "PYTHONPATH": str(place), "XDG_CACHE_HOME": str(tmp_path)}
        call = [sys.executable, "-c", f"from vla_ros.safety.motion import compiled; {code}"]
        done = subprocess.run(
            call, check=True, capture_output=True, text=True, env=environment, cwd=place
        )
        return done.stdout

    assert run(places[0], "compiled.note_complete(); print(compiled._FOLDER)") == run(
        places[1], "print(compiled._FOLDER)"
    )
    assert run(places[0], "print(compiled.is_kept())") == "True\n"
    assert run(places[1], "print(compiled.is_kept())") == "False\n"


def test_where_nothing_can_be_kept_that_is_no_error(tmp_path):
    (tmp_path / "file").touch()
    assert not compiled._make(tmp_path / "file" / "folder")


def test_functions_are_kept_in_that_folder():
    places = {function._cache._impl.locator.get_cache_path() for function in functions().values()}
    assert places
    assert all(Path(place).is_relative_to(compiled._FOLDER) for place in places)
    assert Path(numba.config.CACHE_DIR) != compiled._FOLDER


def functions():
    """Return all that is compiled, by name."""
    found = {}
    for module in pkgutil.iter_modules([str(FOLDER)]):
        content = vars(importlib.import_module(f"{package.__name__}.{module.name}"))
        for value in content.values():
            if isinstance(value, numba.core.dispatcher.Dispatcher):
                found[f"{value.__module__}.{value.__name__}"] = value
    return found


def counts():
    """Return how often each function was compiled or loaded, and for how many kinds of arguments.

    Loaded counts: on the machine where nothing is kept yet, it is compiled instead.
    """
    return {
        name: (
            len(function.signatures),
            sum(function.stats.cache_hits.values()),
            sum(function.stats.cache_misses.values()),
        )
        for name, function in functions().items()
    }


def targets(joints, place, rng):
    """Return one target of each kind, gentle and saturated ones."""
    size = float(rng.choice([0.01, 0.1, 3.0]))
    twist, speeds = size * rng.normal(size=6), size * rng.normal(size=joints)
    goal = place + 0.3 * size * rng.normal(size=3)
    yield TwistTarget(tuple(twist[:3].tolist()), tuple(twist[3:].tolist()))
    yield JointVelocityTarget(tuple(speeds.tolist()))
    yield PoseTarget(tuple(goal.tolist()), (1.0, 0.0, 0.0, 0.0))
    yield None


def drive(name, output):
    """Take 50 ticks of each kind of target; tell what was compiled meanwhile, and what moved."""
    robot = RobotConfig.load(share() / "config" / "robots" / f"{name}.yaml")
    urdf = robots.urdf(name)
    limiter, chain = MotionLimiter(robot, urdf, 100.0, output=output), robot.chain(urdf)
    before = counts()
    observer = MomentumObserver(limiter.links, 0.03)
    rng = np.random.default_rng(0)
    q = np.array(STARTS[name])
    acted, certified, moved = set(), set(), 0.0
    for tick in range(4 * 50):
        if tick % 4 == 0:
            wishes = list(targets(len(q), chain.pose(q)[0], rng))
        seconds = float(rng.choice([0.01, 0.01, 0.0, 0.012, 0.05]))
        seen = None if tick % 10 == 9 else q.tolist()
        motion = limiter.step(seconds, wishes[tick // 50], seen, 0.0 if tick % 3 else 0.004)
        q = q + 0.01 * motion.joint_velocity
        moved += float(np.abs(motion.joint_velocity).max())
        observer.add(10_000_000 * tick, q, motion.joint_velocity, np.zeros(len(q)))
        observer.contact_force()
        acted |= set(motion.acting)
        # 0 where a new plan was verified at this tick.
        certified.add(bool(limiter._state["since"] == 0.0))
        if tick % 50 == 40:
            limiter.tighten(robot.slowed(0.5))
        elif tick % 50 == 0:
            limiter.tighten(robot)
    in_motion = changed(before, counts())
    before = counts()
    assert motion.margins["workspace"] > 0.0
    return {
        "in motion": in_motion,
        "to tell": changed(before, counts()),
        "moved": moved,
        "acted": sorted(acted),
        "certified": sorted(certified),
        "functions": len(before),
    }


def changed(before, after):
    return sorted(name for name in after if after[name] != before[name])


@pytest.fixture(scope="module")
def driven():
    """Return what `drive` finds in a process in which nothing was loaded before."""
    found = {}

    def of(name, output):
        if (name, output) not in found:
            call = [sys.executable, __file__, name, output]
            done = subprocess.run(call, check=True, capture_output=True, text=True)
            found[name, output] = json.loads(done.stdout)
        return found[name, output]

    return of


@pytest.mark.parametrize("output", ["twist", "joint_velocity"])
@pytest.mark.parametrize("name", STARTS)
def test_nothing_is_compiled_in_motion(driven, name, output):
    """Half a minute of it, or a tenth of a second, would come while the robot waits for a tick."""
    found = driven(name, output)
    assert found["in motion"] == []
    # They were ticks of every sort.
    assert found["functions"] > 50
    assert found["moved"] > 0.0
    assert len(found["acted"]) > 3
    assert found["certified"] == [False, True]


@pytest.mark.parametrize("output", ["twist", "joint_velocity"])
def test_nothing_is_compiled_to_tell_what_is_left(driven, output):
    assert driven("panda", output)["to tell"] == []


if __name__ == "__main__":
    sys.stdout.write(json.dumps(drive(*sys.argv[1:])))
