"""Numbers on the command line are refused at once where they make no sense, in one line."""

import argparse

import pytest

from vla_ros.arguments import positive, real, whole
from vla_ros.cli import main

BAG = ["nowhere", "--robot", "nowhere.yaml"]


@pytest.mark.parametrize(
    ("read", "good", "bad"),
    [
        (whole(1), ["1", "100000"], ["0", "-1", "1.5", "nan", ""]),
        (whole(0, 9), ["0", "9"], ["-1", "10"]),
        (real(0.0), ["0", "1e6"], ["-1e-9", "nan", "inf", "one"]),
        (real(10.0, 1000.0), ["10", "1000"], ["9.9", "1000.1", "inf", "-inf"]),
        (positive, ["1e-9", "5"], ["0", "-1", "nan", "inf"]),
    ],
)
def test_what_is_within_is_read_and_all_else_refused(read, good, bad):
    assert [read(text) for text in good] == [float(text) for text in good]
    for text in bad:
        with pytest.raises(argparse.ArgumentTypeError, match="is not a"):
            read(text)


@pytest.mark.parametrize(
    "words",
    [
        ["replay", *BAG, "--rate", "inf"],
        ["replay", *BAG, "--rate", "1e9"],
        ["replay", *BAG, "--threads", "0"],
        ["replay", *BAG, "--replan-actions", "-1"],
        ["judge", *BAG, "--rate", "0"],
        ["play", "nowhere", "--start-offset", "nan"],
        ["demo", "--timeout", "nan"],
        ["demo", "--seed", "-1"],
        ["eval", "--seed", "-1"],
        ["eval", "--time-limit", "-1"],
        ["eval", "--episodes", "0"],
        ["eval", "--latency-ms", "nan"],
        ["eval", "--inference-ms", "-1"],
        ["safety", "campaign", "--robot", "panda", "--rate", "0"],
        ["safety", "campaign", "--robot", "panda", "--ticks", "0"],
        ["safety", "closed-loop", "--seconds", "nan"],
        ["safety", "closed-loop", "--episodes", "0"],
        ["safety", "explain", "panda", "--rate-hz", "0"],
        ["safety", "explain", "panda", "--rate-hz", "nan"],
        ["export", "onnx", "x.onnx", "--manifest", "m", "--out", "o", "--observations", "0"],
        ["bundle", "check", "nowhere", "--max-gb", "nan"],
        ["bundle", "check", "nowhere", "--threads", "-2"],
    ],
)
def test_a_command_tells_the_option_in_one_line_and_starts_nothing(words, capsys):
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == 2
    out, err = capsys.readouterr()
    assert not out
    assert err.count("\n") == 1
    assert f"argument {words[-2]}: {words[-1]} is not a" in err
