"""Running a launch file's processes: their output, their respawning and their end.

Each process has a session of its own, so that a Ctrl-C in the terminal reaches only the runner,
which passes it on. What a process leaves behind in its group is killed when the process has ended,
and the kernel kills the processes should the runner itself be killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from vla_ros_standalone.launch.description import Process

_LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1
_CHUNK = 1 << 16
_DRAIN_S = 1.0
"""How long to wait for the end of a dead process's output."""


class Log:
    """Writes to the screen and to ``launch.log``, in the formats of ``launch``.

    Args:
        environment: ``ROS_LOG_DIR`` or ``ROS_HOME`` in it say where the folder of this run goes.
    """

    def __init__(self, environment: dict[str, str]) -> None:
        home = environment.get("ROS_HOME") or os.path.join(os.path.expanduser("~"), ".ros")
        base = Path(environment.get("ROS_LOG_DIR") or os.path.join(home, "log"))
        moment = datetime.now().astimezone().strftime("%Y-%m-%d-%H-%M-%S-%f")
        self.directory = base / f"{moment}-{socket.gethostname()}-{os.getpid()}"
        self.directory.mkdir(parents=True)
        self._file = (self.directory / "launch.log").open("w", encoding="utf-8")

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def info(self, name: str, message: str) -> None:
        """Log for ``launch`` or for a process by its label."""
        self.line(f"[INFO] [{name}]: {message}", "both")

    def warning(self, name: str, message: str) -> None:
        """Log what went wrong."""
        self.line(f"[WARNING] [{name}]: {message}", "both")

    def error(self, name: str, message: str) -> None:
        """Log what failed."""
        self.line(f"[ERROR] [{name}]: {message}", "both")

    def line(self, text: str, output: str) -> None:
        """Write a line to the ``screen``, the ``log`` or ``both``."""
        if output in ("log", "both"):
            self._file.write(f"{time.time():.7f} {text}\n")
            self._file.flush()
        if output in ("screen", "both"):
            with contextlib.suppress(BrokenPipeError):  # whoever read it has gone; the file has it
                print(text, flush=True)


class Runner:
    """Runs processes until all have ended.

    Args:
        processes: What to run.
        log: Where to write.
        sigterm_timeout_s: Time from SIGINT to SIGTERM.
        sigkill_timeout_s: Time from SIGTERM to SIGKILL.
    """

    def __init__(
        self,
        processes: Iterable[Process],
        log: Log,
        *,
        sigterm_timeout_s: float = 5.0,
        sigkill_timeout_s: float = 5.0,
    ) -> None:
        self._processes = list(processes)
        self._log = log
        self._sigterm_timeout_s = sigterm_timeout_s
        self._sigkill_timeout_s = sigkill_timeout_s
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._ending = asyncio.Event()
        self._failed = False
        # A thread for each process waits for its end: asyncio's own wait also waits for whatever
        # the process left behind to close its output.
        self._waiters = ThreadPoolExecutor(max_workers=max(1, len(self._processes)))

    async def run(self) -> int:
        """Run; give 0, or 1 where a process could not be started."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self._interrupted, number)
        ends = [asyncio.ensure_future(self._keep_running(p)) for p in self._processes]
        ladder = asyncio.ensure_future(self._end_all())
        await asyncio.gather(*ends)
        ladder.cancel()
        self._waiters.shutdown()
        return int(self._failed)

    def _interrupted(self, number: int) -> None:
        how = "ctrl-c (SIGINT)" if number == signal.SIGINT else signal.Signals(number).name
        if self._ending.is_set():
            self._log.warning("launch", f"user interrupted with {how} again, ignoring...")
        else:
            self._log.warning("launch", f"user interrupted with {how}")
            self._ending.set()

    async def _keep_running(self, process: Process) -> None:
        while not self._ending.is_set():
            try:
                child = self._start(process)
            except OSError as error:
                self._log.error(process.name, f"cannot be started: {error}")
                self._failed = True
                self._ending.set()
                return
            self._running[process.name] = child
            self._log.info(process.name, f"process started with pid [{child.pid}]")
            await self._watch(process, child)
            if process.shutdown_on_exit and not self._ending.is_set():
                self._log.info(
                    "launch", f"process[{process.name}] was required: shutting down launched system"
                )
                self._ending.set()
            if not process.respawn:
                return
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._ending.wait(), process.respawn_delay)

    def _start(self, process: Process) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            " ".join(process.command) if process.shell else process.command,
            shell=process.shell,
            env=process.environment,
            cwd=process.directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
            # Called where no thread of this process does more than wait, so no lock can be held.
            preexec_fn=_die_with(os.getpid()),  # noqa: PLW1509
        )

    async def _watch(self, process: Process, child: subprocess.Popen[bytes]) -> None:
        """Pass a process's output on until it has ended, and leave nothing of it behind."""
        errors = "both" if process.output == "log" else process.output
        streams = [
            asyncio.ensure_future(self._copy(child.stdout, process, process.output)),
            asyncio.ensure_future(self._copy(child.stderr, process, errors)),
        ]
        loop = asyncio.get_running_loop()
        status = await loop.run_in_executor(self._waiters, child.wait)
        del self._running[process.name]
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
        await asyncio.wait(streams, timeout=_DRAIN_S)
        for stream in streams:
            stream.cancel()
        if status == 0:
            self._log.info(process.name, f"process has finished cleanly [pid {child.pid}]")
        else:
            command = " ".join(filter(str.strip, process.command))
            self._log.error(
                process.name,
                f"process has died [pid {child.pid}, exit code {status}, cmd '{command}'].",
            )

    async def _copy(self, pipe: IO[bytes], process: Process, output: str) -> None:
        stream = asyncio.StreamReader()
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(stream), pipe
        )
        rest = b""
        with contextlib.closing(transport):
            while chunk := await stream.read(_CHUNK):
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    self._log.line(f"[{process.name}] {line.decode(errors='replace')}", output)
            if rest:
                self._log.line(f"[{process.name}] {rest.decode(errors='replace')}", output)

    async def _end_all(self) -> None:
        """Once the end has begun, bring it about: SIGINT, then SIGTERM, then SIGKILL."""
        await self._ending.wait()
        steps = (
            (signal.SIGINT, self._sigterm_timeout_s),
            (signal.SIGTERM, self._sigkill_timeout_s),
            (signal.SIGKILL, 0.0),
        )
        # What starts from here on has seen that the end has begun, so this is all there is.
        waited = 0.0
        for index, (number, patience) in enumerate(steps):
            for name, child in list(self._running.items()):
                if index:
                    self._log.error(
                        name,
                        f"process[{name}] failed to terminate '{waited:g}' seconds after receiving "
                        f"'{steps[index - 1][0].name}', escalating to '{number.name}'",
                    )
                self._log.info(name, f"sending signal '{number.name}' to process[{name}]")
                with contextlib.suppress(ProcessLookupError):
                    child.send_signal(number)
            await asyncio.sleep(patience)
            waited += patience


def _die_with(parent: int) -> Callable[[], None]:
    """Make what the child does before it becomes the program: ask to be killed with its parent."""

    def prepare() -> None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before the request
            os._exit(1)

    return prepare


def run(
    processes: Iterable[Process], log: Log, *, sigterm_timeout_s: float, sigkill_timeout_s: float
) -> int:
    """Run processes until all have ended; give the exit status of the launch."""

    async def main() -> int:
        runner = Runner(
            processes, log, sigterm_timeout_s=sigterm_timeout_s, sigkill_timeout_s=sigkill_timeout_s
        )
        return await runner.run()

    sys.stdout.flush()
    return asyncio.run(main())
