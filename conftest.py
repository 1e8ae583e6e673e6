"""Another chance for tests of real time, which a busy machine can fail without being wrong."""

import pytest
from _pytest.runner import runtestprotocol

ATTEMPTS = 3


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Take every test that runs processes as one of real time."""
    for item in items:
        if item.path.parent.name == "nodes" or item.path.name in {
            "test_demo.py",
            "test_launch.py",
            "test_rclpy_executors.py",
            "test_rclpy_processes.py",
            "test_rclpy_time.py",
        }:
            item.add_marker(pytest.mark.realtime)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    """Run a test of real time up to three times; it fails if it never passes."""
    if item.get_closest_marker("realtime") is None:
        return None
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    for attempt in range(1, ATTEMPTS + 1):
        item._initrequest()  # noqa: SLF001 - fresh fixtures: pytest has no public way to run twice
        reports = runtestprotocol(item, log=False, nextitem=nextitem)
        failed = [report for report in reports if report.failed]
        if not failed or attempt == ATTEMPTS:
            break
        terminal = item.config.pluginmanager.get_plugin("terminalreporter")
        if terminal is not None:
            reason = str(failed[0].longrepr).splitlines()[-1]
            terminal.write_line(f"\n{item.nodeid}: attempt {attempt} failed ({reason}), again")
    for report in reports:
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True
