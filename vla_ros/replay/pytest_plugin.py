"""A pytest plugin: bags as tests of a robot's own package.

The marker `replay` names a bag and what is expected of it, the fixture `replay` replays it:

    @pytest.mark.replay(bag="bags/tuesday", expect="tuesday.yaml")
    def test_tuesday(replay):
        replay()

Paths are relative to the test's file, or to pytest's root. `replay_robot` and `replay_bundle` in
pytest's configuration are the robot file and the bundle of tests that name none.
"""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from vla_ros.replay.result import ReplayResult

MARKER = (
    "replay(bag, robot, bundle, expect, mode, latency, ...): what the fixture `replay` replays; "
    "the arguments of `Replayer.__call__`"
)


def pytest_addoption(parser: "pytest.Parser") -> None:
    """Add the configuration's keys."""
    parser.addini("replay_robot", "robot file of replays that name none")
    parser.addini("replay_bundle", "policy bundle of replays that name none")


def pytest_configure(config: "pytest.Config") -> None:
    """Add the marker."""
    config.addinivalue_line("markers", MARKER)


class Replayer:
    """Replays bags for one test."""

    def __init__(self, request: "pytest.FixtureRequest") -> None:
        """Take the defaults of the test's marker and of the configuration."""
        self._request = request
        # pytest 6, that of Ubuntu 22.04, has no `path`, nor the names that are quoted here.
        self._folder = Path(str(getattr(request.node, "path", None) or request.node.fspath)).parent
        marker = request.node.get_closest_marker("replay")
        self._defaults: dict[str, Any] = {}
        if marker is not None:
            self._defaults = dict(marker.kwargs)
            if marker.args:
                self._defaults["bag"] = marker.args[0]

    def __call__(self, bag: str | Path | None = None, **arguments: Any) -> "ReplayResult":  # noqa: ANN401
        """Replay a bag, and fail the test where it does not do what is expected.

        Args:
            bag: The bag; that of the marker by default.
            arguments: `robot`, `bundle`, `expect` (a file, or a mapping as it holds), `mode` (by
                default `policy+safety` with a bundle and `safety` without; `live` measures the
                recorded run itself), and the fields of `vla_ros.replay.replay.Options`.

        Raises:
            AssertionError: If an expectation is not met.

        """
        __tracebackhide__ = True
        given = {**self._defaults, **arguments}
        if bag is not None:
            given["bag"] = bag
        result = self._replay(given)
        self._note(result)
        broken = [outcome.message for outcome in result.expectations if not outcome.passed]
        if broken:
            raise AssertionError("\n" + "\n".join(broken))
        return result

    def _replay(self, given: dict[str, Any]) -> "ReplayResult":
        # Imported late: pytest loads this plugin in every project.
        from vla_ros.replay import expectations  # noqa: PLC0415
        from vla_ros.replay.replay import Options, replay_bag, result_from_bag  # noqa: PLC0415

        bag = self._path(given.pop("bag", None), "bag")
        robot = self._path(given.pop("robot", None) or self._ini("replay_robot"), "robot")
        bundle = given.pop("bundle", None) or self._ini("replay_bundle")
        expect = given.pop("expect", None)
        chosen: tuple[expectations.Expectation, ...] = ()
        if isinstance(expect, Mapping):
            chosen = expectations.parse(dict(expect), self._request.node.nodeid)
        elif expect is not None:
            chosen = expectations.load(self._path(expect, "expect"))
        mode = given.pop("mode", None) or ("policy+safety" if bundle else "safety")
        if mode == "live":
            return result_from_bag(bag, robot, expectations=chosen, **given)
        folder = None if mode == "safety" else self._path(bundle, "bundle")
        options = Options(mode=mode, **given)
        return replay_bag(bag, robot, folder, options=options, expectations=chosen)

    def _path(self, given: str | Path | None, what: str) -> Path:
        if not given:
            msg = f"name the {what} of this replay, in its marker or its call"
            raise pytest.UsageError(msg)
        beside = self._folder / given
        return beside if beside.exists() else self._request.config.rootpath / given

    def _ini(self, name: str) -> str:
        return str(self._request.config.getini(name) or "")

    def _note(self, result: "ReplayResult") -> None:
        """Put hash and violations into pytest's own JUnit, and warnings among its own."""
        properties = self._request.node.user_properties
        properties.append(("replay_bag", str(result.bag)))
        properties.append(("replay_hash", result.hash))
        properties.append(("replay_violations", str(result.violations)))
        for text in result.warnings:
            warnings.warn(f"{result.bag}: {text}", pytest.PytestWarning, stacklevel=3)


@pytest.fixture
def replay(request: "pytest.FixtureRequest") -> Replayer:
    """Return what replays bags: see `Replayer`."""
    return Replayer(request)
