"""The command ``vla_ros_launch``, with the arguments of ``ros2 launch``."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
from pathlib import Path

from ament_index_python.packages import PackageNotFoundError, get_package_share_directory

from vla_ros_standalone.launch.description import Launch, arguments
from vla_ros_standalone.launch.runner import Log, run
from vla_ros_standalone.launch.substitutions import Context, LaunchError


def main(argv: list[str] | None = None) -> int:
    """Run a launch file; give the exit status: 0, 1 after an error, 130 after an early Ctrl-C."""
    parser = argparse.ArgumentParser(
        prog="vla_ros_launch",
        usage="%(prog)s [-s] [-a] PACKAGE FILE | PATH  [NAME:=VALUE ...]",
        description="Run an XML launch file, as ros2 launch does.",
    )
    parser.add_argument(
        "-s",
        "--show-args",
        "--show-arguments",
        action="store_true",
        help="show the arguments of the launch file, and do nothing else",
    )
    parser.add_argument(
        "-a",
        "--show-all-subprocesses-output",
        action="store_true",
        help="show the output of every process, whatever the launch file says",
    )
    parser.add_argument("target", help="path of a launch file, or the name of a package")
    parser.add_argument("rest", nargs="*", help="file name, if a package was named; NAME:=VALUE")
    options = parser.parse_args(argv)
    if options.show_all_subprocesses_output:
        os.environ["OVERRIDE_LAUNCH_PROCESS_OUTPUT"] = "both"
    try:
        file, given = _target(options.target, options.rest)
        if options.show_args:
            _show(file)
            return 0
        return _launch(file, given)
    except LaunchError as error:
        print(f"[ERROR] [launch]: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _target(target: str, rest: list[str]) -> tuple[str, dict[str, str]]:
    """Tell file and arguments apart, as ``ros2 launch`` does: an existing file comes first."""
    if os.path.isfile(target):
        return target, _given(rest)
    if not rest or ":=" in rest[0]:
        msg = f"no launch file '{target}'; with a package, the file's name follows"
        raise LaunchError(msg)
    name, *rest = rest
    try:
        share = get_package_share_directory(target)
    except PackageNotFoundError as error:
        raise LaunchError(str(error)) from None
    # A source tree holds more than the package would install.
    folder = Path(share) / "launch"
    found = sorted(folder.rglob(name)) if folder.is_dir() else []
    if len(found) != 1:
        known = ", ".join(sorted(path.name for path in folder.glob("*.xml"))) or "none"
        what = "found more than once" if found else "not found"
        msg = f"'{name}' {what} in {folder} (launch files there: {known})"
        raise LaunchError(msg)
    return str(found[0]), _given(rest)


def _given(words: list[str]) -> dict[str, str]:
    given = {}
    for word in words:
        name, separator, value = word.partition(":=")
        if not (name and separator and value):
            msg = f"malformed launch argument '{word}', expected format '<name>:=<value>'"
            raise LaunchError(msg)
        given[name] = value
    return given


def _show(file: str) -> None:
    found = arguments(os.path.abspath(file), Context(environment=dict(os.environ)))
    print("Arguments (pass arguments as '<name>:=<value>'):")
    for argument in found:
        print(f"\n    '{argument.name}':\n        {argument.description}")
        if argument.default is not None:
            print(f"        (default: '{argument.default}')")
    if not found:
        print("\n  No arguments.")


def _launch(file: str, given: dict[str, str]) -> int:
    with tempfile.TemporaryDirectory(prefix="vla_ros_launch_") as folder:
        messages: list[str] = []
        launch = Launch(given, Path(folder), messages.append)
        processes = launch.run(file)
        patience = {
            f"{name}_s": _seconds(launch.context.configurations, name)
            for name in ("sigterm_timeout", "sigkill_timeout")
        }
        with contextlib.closing(Log(dict(os.environ))) as log:
            log.info("launch", f"All log files can be found below {log.directory}")
            log.info("launch", "Default logging verbosity is set to INFO")
            for message in messages:
                log.info("launch.user", message)
            return run(processes, log, **patience)


def _seconds(settings: dict[str, str], name: str) -> float:
    value = settings.get(name, "5")
    try:
        seconds = float(value)
    except ValueError:
        msg = f"{name} must be a number of seconds, not '{value}'"
        raise LaunchError(msg) from None
    if not 0 <= seconds < float("inf"):
        msg = f"{name} must not be negative or infinite: {value}"
        raise LaunchError(msg)
    return seconds


if __name__ == "__main__":
    sys.exit(main())
