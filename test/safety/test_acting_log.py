"""Which log lines tell of acting bounds."""

from vla_ros.safety import Acting
from vla_ros.safety.acting_log import ActingLog

MS = 1_000_000


def drive(log, pattern, start=0):
    """Step at 100 Hz; `pattern` has an amount or None for each step."""
    lines = []
    for i, amount in enumerate(pattern):
        acting = [] if amount is None else [Acting("workspace", amount)]
        lines += log.update(start + i * 10 * MS, acting)
    return lines


def test_one_line_at_the_start_and_one_at_the_end():
    lines = drive(ActingLog(), [None, 0.1, 0.3, None, 0.2] + [None] * 60)
    assert lines == ["workspace acts (by 0.1)", "workspace acts no longer (by 0.3 at most)"]


def test_a_bound_that_comes_and_goes_is_told_at_most_every_five_seconds():
    log = ActingLog()
    pattern = ([0.1] + [None] * 99) * 20
    lines = drive(log, pattern)
    assert len([line for line in lines if "acts (" in line]) == 4
    assert len(lines) == 8


def test_a_start_is_told_with_its_reason():
    lines = ActingLog().update(0, [Acting("command_frame", 1.0)], "refused: the frame is 'map'")
    assert lines == ["command_frame acts (by 1): refused: the frame is 'map'"]


def test_names_are_those_that_act():
    log = ActingLog()
    drive(log, [0.1])
    assert log.names == ("workspace",)
    drive(log, [None] * 60, start=10 * MS)
    assert log.names == ()


def test_a_clock_that_is_set_back_ends_what_acted():
    log = ActingLog()
    drive(log, [0.1], start=10**12)
    assert log.update(0, []) == ["workspace acts no longer (by 0.1 at most)"]
