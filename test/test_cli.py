"""The command as a process."""

import subprocess
import sys


def test_a_reader_that_has_seen_enough_is_no_error():
    """As in `vla_ros ... | head`: no message, and no traceback at the end either."""
    process = subprocess.Popen(
        [sys.executable, "-m", "vla_ros.cli", "bundle", "schema"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait(30) == 141
