"""A bag stepped through the pipeline."""

import ctypes
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import onnxruntime

from vla_ros.observation.joints import JointReader
from vla_ros.policy.backends import BackendOptions
from vla_ros.policy.bundle import MANIFEST, Bundle, sha256
from vla_ros.policy.controller import PolicyController
from vla_ros.policy.policy import Policy
from vla_ros.policy.scheduler import MODES as CHUNK_MODES
from vla_ros.policy.tokens import never_seen
from vla_ros.replay.bags import Bag, open_bag
from vla_ros.replay.columns import CommandColumns, Record
from vla_ros.replay.common import (
    SAFETY_HZ,
    MessageTimes,
    RecordedCommands,
    ReplayError,
    digest,
    finish,
    image_topics,
    judge_ticks,
    need,
    packaged_urdf,
    remap_of,
    topic_names,
    used_remap,
    versions,
)
from vla_ros.replay.engine import End, Item, Latency, PolicySide, SafetySide, read_joints
from vla_ros.replay.expectations import Expectation
from vla_ros.replay.judge import Judge, JudgeError
from vla_ros.replay.result import ReplayResult
from vla_ros.replay.source import ChunkStamps, Event, Kind, Source
from vla_ros.replay.stopwatch import Stopwatch
from vla_ros.robot import RobotConfig
from vla_ros.safety import SafetyFilter

MODES = ("policy+safety", "safety", "policy")
TAIL_NS = 300_000_000
"""The filter is stepped for as long after the bag's last message, to see it come to rest."""


@dataclass(frozen=True, slots=True)
class Options:
    """How to replay.

    Attributes:
        mode: `policy+safety`: from the cameras through the model and the filter. `safety`: from the
            recorded commands through the filter. `policy`: from the cameras through the model,
            compared with the recorded commands.
        latency: `zero`, `fixed:MS` or `measured`.
        rate_hz: Rate of the filter.
        replan_actions: See `PolicyController`.
        chunk_mode: Likewise.
        threads: Threads of one inference.
        recorded_ticks: Whether policy and filter step at the times at which the recorded ones did,
            instead of at their rates from the bag's start.
        received: Whether messages come at the times of their reception instead of their stamps'.
        instruction: Given at the bag's start in place of the recorded ones.
        remap: New name by the name in the bag.
        store: Distribution whose message definitions are used where the bag has none.
        urdf: File of the robot's description, in place of the bag's and the packaged one.

    """

    mode: str = "policy+safety"
    latency: str = "zero"
    rate_hz: float = SAFETY_HZ
    replan_actions: int = 4
    chunk_mode: str = CHUNK_MODES[0]
    threads: int = 1
    recorded_ticks: bool = False
    received: bool = False
    instruction: str | None = None
    remap: Mapping[str, str] = field(default_factory=dict)
    store: str | None = None
    urdf: Path | None = None


def replay_bag(
    bag: str | Path,
    robot_file: str | Path,
    bundle: str | Path | None = None,
    *,
    options: Options | None = None,
    expectations: Sequence[Expectation] = (),
    progress: Callable[[float], None] | None = None,
) -> ReplayResult:
    """Replay a bag.

    Args:
        bag: The bag.
        robot_file: The robot file.
        bundle: The policy bundle's folder; needed but in mode `safety`.
        options: How.
        expectations: What to check.
        progress: Called now and then with the share that is done.

    Raises:
        ReplayError: If the bag lacks what the mode needs.
        BagError: If it cannot be read; and the others of `ERRORS`, for what is wrong with an input.

    """
    begin = time.perf_counter()
    chosen = options or Options()
    if chosen.mode not in MODES:
        msg = f"mode {chosen.mode!r} is none of {', '.join(MODES)}"
        raise ReplayError(msg)
    robot = RobotConfig.load(robot_file)
    model = _load_bundle(chosen.mode, bundle)
    latency = Latency.parse(chosen.latency)
    seen = () if model is None else model.manifest.cameras
    remap = {**remap_of(robot_file), **chosen.remap}
    loading_s = time.perf_counter() - begin
    with open_bag(bag, store=chosen.store, remap=remap) as opened:
        source = Source(
            opened, cameras={camera.name: camera.image for camera in seen}, received=chosen.received
        )
        _check_topics(opened, source, chosen)
        run = _Run(opened, source, robot, Path(robot_file), model, latency, chosen)
        run.step(progress)
        result = run.result(tuple(expectations))
    loading_s += opened.loading_s + run.loading_s
    wall_s = time.perf_counter() - begin - loading_s
    return replace(result, loading_s=loading_s, wall_s=wall_s)


class _Run:
    """One replay of an open bag."""

    def __init__(
        self,
        bag: Bag,
        source: Source,
        robot: RobotConfig,
        robot_file: Path,
        bundle: Bundle | None,
        latency: Latency,
        options: Options,
    ) -> None:
        self._bag = bag
        self._source = source
        self._robot = robot
        self._robot_file = robot_file
        self._bundle = bundle
        self._options = options
        self._loading = Stopwatch()
        self._record = Record(robot)
        self._stamps = MessageTimes()
        self._asked, self._sent = RecordedCommands(), RecordedCommands()
        self._recorded = {
            Kind.COMMAND: self._asked,
            Kind.GRIPPER: self._asked,
            Kind.SAFE: self._sent,
            Kind.SAFE_GRIPPER: self._sent,
        }
        self._recorded_chunks: list[ChunkStamps] = []
        self._ticks_ns: dict[Kind, list[int]] = {}
        self._description = ""
        self._warnings: list[str] = []
        self._gaps: list[tuple[int, int]] = []
        self._start_ns: int | None = None
        self._end_ns = 0
        bag.prepare([*source.topics.values(), *source.cameras.values()])
        self._look_ahead(latency)
        with self._loading:
            self._chain = robot.chain(self._urdf)
            self._judge = self._make_judge()
            self._safety = self._make_safety()
            self._policy = self._make_policy()

    @property
    def loading_s(self) -> float:
        """Seconds that it took to make the models of both sides, and the judge's."""
        return self._loading.seconds

    @property
    def _urdf(self) -> str:
        return self._given_urdf or self._description

    def _look_ahead(self, latency: Latency) -> None:
        """Read what has to be known before the first message: a few small topics."""
        options = self._options
        wanted = {Kind.DESCRIPTION}
        if latency.name == "measured":
            wanted.add(Kind.CHUNK)
        if options.recorded_ticks:
            wanted |= {Kind.SAFE, Kind.COMMAND}
        times: dict[Kind, list[int]] = {Kind.SAFE: [], Kind.COMMAND: []}
        for event in self._source.events(wanted):
            if event.kind is Kind.DESCRIPTION:
                self._description = event.value
            elif event.kind is Kind.CHUNK:
                if event.value.actions:
                    self._recorded_chunks.append(event.value)
            else:
                times[event.kind].append(event.value.stamp_ns)
        if options.recorded_ticks:
            self._ticks_ns = times
        self._latency = latency.recorded(self._recorded_chunks)
        self._given_urdf = None
        if options.urdf is not None:
            self._given_urdf = options.urdf.read_text(encoding="utf-8")
        elif not self._description:
            self._given_urdf = packaged_urdf(self._robot, self._bag.path)

    def _make_safety(self) -> SafetySide | None:
        options = self._options
        if options.mode == "policy":
            return None
        try:
            safety = SafetyFilter(self._robot, self._given_urdf, options.rate_hz)
        except ValueError as err:
            raise ReplayError(str(err)) from err
        return SafetySide(
            safety,
            self._record,
            rate_hz=options.rate_hz,
            ticks_ns=self._ticks_ns.get(Kind.SAFE),
        )

    def _make_policy(self) -> PolicySide | None:
        options, bundle = self._options, self._bundle
        if bundle is None:
            return None
        return PolicySide(
            PolicyController(
                bundle,
                self._robot,
                None if self._given_urdf is None else self._chain,
                replan_actions=options.replan_actions,
                chunk_mode=options.chunk_mode,
            ),
            Policy(bundle, BackendOptions(threads=options.threads), chain=self._chain),
            self._record,
            period_ns=bundle.period_ns,
            latency=self._latency,
            ticks_ns=self._ticks_ns.get(Kind.COMMAND),
            send_in=None if options.mode == "policy" else self._robot.base_frame,
        )

    def _fed(self) -> set[Kind]:
        """Return what goes into the pipeline; other kinds are kept to compare with."""
        fed = {Kind.JOINTS, Kind.INSTRUCTION}
        if self._given_urdf is None:
            fed.add(Kind.DESCRIPTION)
        if self._options.mode != "policy":
            fed.add(Kind.ESTOP)
        if self._bundle is not None:
            fed.add(Kind.FRAME)
        else:
            fed |= {Kind.COMMAND, Kind.GRIPPER}
        return fed

    def step(self, progress: Callable[[float], None] | None) -> None:
        """Step both sides through the bag."""
        read = self._read()
        items: Iterator[Item] = read if self._policy is None else self._policy.through(read)
        for count, item in enumerate(items):
            if self._safety is not None:
                self._safety.take(item)
            if type(item) is Event:
                # Behind the steps that were before it, which did not know of it.
                self._record.add_input(item)
            if progress is not None and count % 256 == 0:
                done = item.time_ns - (self._start_ns or item.time_ns)
                progress(min(done / max(self._bag.duration_ns, 1), 1.0))
        for side in (self._policy, self._safety):
            if side is not None:
                self._gaps = side.gaps
                self._loading.seconds += side.loading.seconds
        if self._policy is not None:
            told = {instruction.text for instruction in self._record.instructions}
            if unknown := self._policy.unknown_words(sorted(told)):
                self._warnings.append(never_seen(unknown))
        # Models and pictures make room for judging.
        self._policy = self._safety = None
        _give_memory_back()

    def _read(self) -> Iterator[Event | End]:
        """Yield what goes into the policy or the filter, and keep what else there is."""
        fed = self._fed()
        kinds = fed | {Kind.COMMAND, Kind.GRIPPER}
        if self._options.mode != "policy":
            kinds |= {Kind.SAFE, Kind.SAFE_GRIPPER}
        yield from read_joints(self._kept(self._events(kinds), fed), JointReader(self._robot))
        if self._start_ns is not None:
            tail_ns = 0 if self._options.mode == "policy" else TAIL_NS
            yield End(self._end_ns + tail_ns + 1)

    def _kept(self, events: Iterator[Event], fed: set[Kind]) -> Iterator[Event]:
        """Yield the events that are fed, having kept the times of all, and recorded commands."""
        for event in events:
            if self._start_ns is None:
                self._start_ns = event.time_ns
            self._end_ns = max(self._end_ns, event.time_ns)
            kind = event.kind
            if kind is Kind.FRAME:
                self._stamps.add(self._source.cameras[event.value.camera], event.time_ns)
            elif (topic := self._source.topics.get(kind)) is not None:
                self._stamps.add(topic, event.time_ns)
            if (recorded := self._recorded.get(kind)) is not None:
                recorded.take(event)
            if kind in fed:
                yield event

    def _events(self, kinds: set[Kind]) -> Iterator[Event]:
        """Return the source's events, the instructions replaced where one is given."""
        given = self._options.instruction
        if given is None:
            return self._source.events(kinds)
        return _told(given, self._source.events(kinds - {Kind.INSTRUCTION}))

    def result(self, expectations: tuple[Expectation, ...]) -> ReplayResult:
        """Return what came of it."""
        record, options = self._record, self._options
        if record.refused.get("joint_states") and not len(record.samples):
            msg = f"bag {self._bag.path}: {record.refused['joint_states'][1]}"
            raise ReplayError(msg)
        joints = record.samples.joints(self._chain)
        ticks = None if options.mode == "policy" else record.steps.ticks(joints)
        recorded = self._asked.commands()
        stepped = self._bundle is not None
        commands = record.policy.commands() if stepped else recorded
        if commands is None:
            commands = CommandColumns().commands()
        repeats = self._latency.repeats or not stepped
        result = ReplayResult(
            bag=self._bag.path,
            robot=self._robot,
            robot_file=self._robot_file,
            mode=options.mode,
            latency=options.latency if stepped else "none",
            start_ns=self._start_ns or 0,
            end_ns=self._end_ns,
            instructions=tuple(record.instructions),
            cameras=self._source.cameras or image_topics(self._bag),
            ticks=ticks,
            commands=commands,
            recorded=recorded if stepped else None,
            recorded_safe=self._sent.commands(),
            joints=joints,
            chunks=record.chunks() if stepped else None,
            inference_ms=np.array(record.inference_s, np.float64) * 1e3,
            hash=digest(commands if stepped else None, ticks) if repeats else "",
            versions=self._versions(),
            urdf=self._urdf,
            remap=used_remap(self._bag),
            filter_s=record.filter_s,
        )
        verdict = None
        if ticks is not None and self._judge is not None:
            verdict = judge_ticks(self._judge, ticks)
        self._warn(repeats=repeats)
        warnings = (*self._bag.warnings, *self._source.warnings, *self._warnings)
        return finish(result, verdict, self._stamps, warnings, expectations)

    def _make_judge(self) -> Judge | None:
        if self._options.mode == "policy":
            return None
        try:
            return Judge(self._robot_file, self._urdf, self._options.rate_hz)
        except JudgeError as err:
            self._warnings.append(f"not judged: {err}")
            return None

    def _warn(self, *, repeats: bool) -> None:
        for what, (count, first) in sorted(self._record.refused.items()):
            self._warnings.append(f"{what}: {count} times nothing usable; the first: {first}")
        for begin, end in self._gaps:
            at = (begin - (self._start_ns or 0)) / 1e9
            self._warnings.append(
                f"the bag is silent for {(end - begin) / 1e9:.1f} s from {at:.3f} s on: not stepped"
            )
        if not repeats:
            self._warnings.append(
                "the latency was measured in this run, as the bag has no /policy/chunk: no two "
                "runs are the same, and there is no hash"
            )

    def _versions(self) -> dict[str, str]:
        found = versions(self._robot_file, self._urdf)
        if self._bundle is not None:
            found["bundle"] = self._bundle.manifest.name
            found["bundle_sha256"] = sha256(self._bundle.path / MANIFEST)
            found["onnxruntime"] = str(onnxruntime.__version__)
        return found


def _give_memory_back() -> None:
    """Have the C library return what was freed to the system, where it is one that can."""
    if sys.platform == "linux" and hasattr(library := ctypes.CDLL(None), "malloc_trim"):
        library.malloc_trim(0)


def _told(text: str, events: Iterator[Event]) -> Iterator[Event]:
    """Yield an instruction at the time of the first event, and the events."""
    first = next(events, None)
    if first is not None:
        yield Event(first.time_ns, int(Kind.INSTRUCTION) * 64, -1, Kind.INSTRUCTION, text)
        yield first
        yield from events


def _load_bundle(mode: str, bundle: str | Path | None) -> Bundle | None:
    if mode == "safety":
        return None
    if bundle is None:
        msg = f"mode {mode} runs a model: name its bundle with --bundle, or use --mode safety"
        raise ReplayError(msg)
    return Bundle.load(bundle)


def _check_topics(bag: Bag, source: Source, options: Options) -> None:
    """Refuse a bag that lacks what the mode cannot do without."""
    recorded = {topic.recorded_name for topic in bag.topics.values()}
    for name in options.remap:
        if name not in recorded:
            msg = f"bag {bag.path} has no topic {name} to rename; it has {topic_names(bag)}"
            raise ReplayError(msg)
    need(bag, Kind.JOINTS, "without which the arm may not move")
    if options.mode != "policy+safety":
        why = "which the filter follows" if options.mode == "safety" else "to compare with"
        need(bag, Kind.COMMAND, why)
    if options.mode != "safety" and (missing := source.missing_cameras):
        patterns = f"/{missing[0]}/image_raw or /{missing[0]}/image_raw/compressed"
        msg = (
            f"bag {bag.path} has no pictures of camera {missing[0]!r}, which the bundle needs "
            f"({patterns}); it has {topic_names(bag)}: rename one with --remap from:=to"
        )
        raise ReplayError(msg)
    if options.recorded_ticks:
        kind = Kind.COMMAND if options.mode == "policy" else Kind.SAFE
        need(bag, kind, "whose times --ticks recorded takes")
