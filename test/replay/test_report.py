"""The report is whole, small and safe to send, and looks as it should in a real browser."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import panda_bags
import pytest
from browser import Browser, find
from make_bags import Form, make_bag, scene, shared_bags
from sample_run import NO_COMMANDS, NO_JOINTS, START, sample_pictures, sample_run

from vla_ros.cli import main
from vla_ros.replay.bags import open_bag
from vla_ros.replay.report import Pictures, read_pictures, write_report
from vla_ros.replay.report.decimate import kept, simplified, spans
from vla_ros.replay.report.histogram import Histogram
from vla_ros.replay.report.html import el, text
from vla_ros.replay.report.scale import Axis, clock, number
from vla_ros.replay.report.space import outlines
from vla_ros.replay.result import Instruction
from vla_ros.types import Frame
from vla_ros.volumes import Box, Capsule, Cylinder, HalfSpace, Sphere

EVIL = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">'\"&"
needs_browser = pytest.mark.skipif(
    find() is None, reason="no Chromium is installed: apt-get install chromium"
)


class Page(HTMLParser):
    """The elements and the text of a page."""

    def __init__(self, path: Path):
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.tags: list[tuple[str, dict]] = []
        self.text = ""
        self._silent = False
        self.feed(self.source)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._silent = tag in ("script", "style")

    def handle_data(self, data):
        if not self._silent:
            self.text += data

    def handle_endtag(self, _tag):
        self._silent = False


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """The report of a run with something of everything."""
    path = tmp_path_factory.mktemp("report") / "report.html"
    run = sample_run()
    write_report(run, path, pictures=sample_pictures(run))
    return path


@pytest.fixture(scope="module")
def browser():
    opened = Browser()
    yield opened
    opened.close()


# --- what it says ---------------------------------------------------------------------------------


def test_it_says_what_was_asked_and_what_came_of_it(report):
    said = Page(report).text
    for words in (
        *("pick up the red cube", "panda_pick", "policy+safety", "fixed:40", "9f" * 32, "0.1.0"),
        *("failed", "3 of 490 ticks outside a bound", "1 of 2 expectations met", "first broken"),
        *("Violations 3 ticks outside a bound, as judged", "violations: 3"),
        *("12 messages are damaged", "no command for 0.1 s", "bin, lamp, post", "under"),
    ):
        assert words in said or words == "under", words
    for bound in ("linear_speed", "workspace", "gripper_speed", "command_timeout"):
        assert re.search(rf"{bound}\s+[\d.]+ % of ticks, by [\d.]+", said), bound


def test_bounds_of_several_joints_have_one_line_and_a_stop_its_reason(tmp_path):
    run = sample_run()
    ticks = run.ticks
    times = np.arange(len(ticks)) / 100
    stopped = times > 4.0
    state = tuple("PROTECTIVE_STOP" if x else "RUNNING" for x in stopped)
    reason = tuple("the TCP is pushed with 41 N" if x else "" for x in stopped)
    acting = {
        "joint_speed.panda_joint2": np.where((times > 1.0) & (times < 1.5), 0.2, 0.0),
        "joint_speed.panda_joint4": np.where((times > 1.25) & (times < 2.0), 0.1, 0.0),
    }
    run = replace(run, ticks=replace(ticks, acting=acting, state=state, reason=reason))
    write_report(run, tmp_path / "r.html", pictures=Pictures())
    said = Page(tmp_path / "r.html").text
    assert re.search(
        r"joint_speed\s+20.2 % of ticks, by 0.2 rad/s at most: panda_joint2, panda_joint4", said
    )
    assert "PROTECTIVE_STOP at 4.01 s: the TCP is pushed with 41 N" in said


@pytest.mark.parametrize(
    ("change", "task", "word"),
    [
        ({"violations": 0, "expectations": ()}, None, "passed"),
        ({"violations": 0, "expectations": ()}, (False, "not done after 60 s"), "failed"),
        ({"violations": 0, "expectations": ()}, (True, "done"), "passed"),
        ({"violations": None, "expectations": ()}, None, "not judged"),
        ({"violations": 3, "expectations": ()}, None, "failed"),
        ({"violations": 0}, None, "failed"),
    ],
)
def test_the_verdict(tmp_path, change, task, word):
    run = replace(sample_run(), **change)
    write_report(run, tmp_path / "r.html", pictures=Pictures(), task=task)
    page = Page(tmp_path / "r.html")
    assert f'<strong class="word">{word}</strong>' in page.source
    assert f": {word}</title>" in page.source


def test_a_run_in_which_nothing_moved_has_not_passed(tmp_path):
    run = replace(sample_run(), violations=0, expectations=())
    held = replace(run.ticks, state=("HOLDING",) * len(run.ticks))
    write_report(replace(run, ticks=held), tmp_path / "r.html", pictures=Pictures())
    assert '<strong class="word">nothing moved</strong>' in Page(tmp_path / "r.html").source


def test_the_same_run_gives_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        run = sample_run()
        write_report(run, tmp_path / name, pictures=sample_pictures(run))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_everything_is_in_the_one_file(report):
    page = Page(report)
    assert not [tag for tag, _ in page.tags if tag in ("link", "iframe", "object", "base")]
    for tag, attributes in page.tags:
        for key in ("src", "href", "xlink:href", "action"):
            assert attributes.get(key, "data:").startswith("data:"), (tag, attributes)
    policy = next(a["content"] for _, a in page.tags if "content" in a and "src" in a["content"])
    assert policy.startswith("default-src 'none'")
    assert "url(" not in page.source
    assert "@import" not in page.source


def test_what_a_bag_holds_stays_text(tmp_path):
    run = sample_run(text=EVIL)
    write_report(run, tmp_path / "r.html", pictures=sample_pictures(run, EVIL))
    evil, good = Page(tmp_path / "r.html"), sample_run()
    write_report(good, tmp_path / "good.html", pictures=sample_pictures(good))
    assert evil.text.count("<script>") >= 8
    # No more kinds of elements and attributes than without it, and the one script.
    kinds = {(tag, *sorted(attributes)) for tag, attributes in evil.tags}
    expected = {(t, *sorted(a)) for t, a in Page(tmp_path / "good.html").tags}
    assert kinds <= expected
    assert [tag for tag, _ in evil.tags].count("script") == 1


@pytest.mark.parametrize(
    ("raw", "escaped"),
    [
        ("</style>", "&lt;/style&gt;"),
        ("\x00\x1b\x07", "\ufffd\ufffd\ufffd"),
        ("\ud800", "?"),
        ("a\n\tb", "a\n\tb"),
    ],
)
def test_text_is_escaped(raw, escaped):
    assert text(raw) == escaped
    assert el("p", raw, title=raw) == f'<p title="{escaped}">{escaped}</p>'


# --- what is missing ------------------------------------------------------------------------------


def bare(**change):
    """A run of a bag that holds next to nothing."""
    empty = {
        "ticks": None,
        "commands": NO_COMMANDS,
        "recorded": None,
        "joints": NO_JOINTS,
        "chunks": None,
        "inference_ms": np.empty(0),
        "metrics": {},
        "expectations": (),
        "instructions": (),
        "violations": None,
        "violations_by_bound": {},
        "end_ns": START,
    }
    return replace(sample_run(), **{**empty, **change})


def test_an_empty_recording_is_said_to_be_empty(tmp_path):
    write_report(bare(), tmp_path / "r.html", pictures=Pictures())
    said = Page(tmp_path / "r.html").text
    for words in (
        *("without an instruction", "no pictures to show", "no commands in this recording"),
        *("Where the tool was is not known", "no joint states", "No latency to show"),
    ):
        assert words in said, words


def test_what_a_robot_does_not_measure_is_named(tmp_path):
    run = sample_run()
    count = len(run.joints)
    joints = replace(
        run.joints, effort=np.full((count, 7), np.nan), tcp=np.full((count, 3), np.nan)
    )
    run = replace(run, joints=joints, instructions=(Instruction(START, " "),))
    write_report(run, tmp_path / "r.html", pictures=Pictures())
    said = Page(tmp_path / "r.html").text
    assert said.count("Effort not measured") == 7
    assert "Where the tool was is not known" in said


def test_an_effort_that_nobody_supervises_has_no_range(tmp_path):
    run = sample_run()
    bounds = replace(run.robot.bounds, effort_samples=0)
    run = replace(run, robot=replace(run.robot, bounds=bounds))
    write_report(run, tmp_path / "r.html", pictures=Pictures())
    said = Page(tmp_path / "r.html").text
    assert said.count("Effort in the driver's unit") == 7
    assert "of -78.3 to 78.3" not in said


@pytest.mark.parametrize(
    ("urdf", "unit"),
    [
        ('<robot><joint name="panda_finger_joint1" type="prismatic"/></robot>', "mm"),
        ('<robot><joint name="panda_finger_joint1" type="revolute"/></robot>', "rad"),
        ("no URDF", "mm"),
    ],
)
def test_fingers_that_turn_are_told_in_radians(tmp_path, urdf, unit):
    run = replace(sample_run(), urdf=urdf)
    write_report(run, tmp_path / "r.html", pictures=Pictures())
    assert f"Gripper opening {unit}" in Page(tmp_path / "r.html").text


def test_one_message_of_each_is_drawn(tmp_path):
    run = sample_run()
    ticks, joints = run.ticks, run.joints
    one = replace(
        run,
        end_ns=START,
        ticks=replace(
            ticks,
            **{
                name: getattr(ticks, name)[:1]
                for name in ("stamp_ns", "desired", "safe", "gripper_desired", "gripper", "state")
            },
            command_stamp_ns=ticks.command_stamp_ns[:1],
            reason=ticks.reason[:1],
            acting={name: amount[:1] for name, amount in ticks.acting.items()},
            joint_position=ticks.joint_position[:1],
        ),
        joints=replace(
            joints,
            **{
                name: getattr(joints, name)[:1]
                for name in ("stamp_ns", "position", "velocity", "effort", "gripper", "tcp")
            },
        ),
    )
    assert write_report(one, tmp_path / "r.html", pictures=Pictures()) > 10_000


@pytest.mark.parametrize("value", [np.nan, np.inf, -1e300, 1e308])
def test_no_number_breaks_a_plot(tmp_path, value):
    run = sample_run()
    desired = run.ticks.desired.copy()
    desired[100:110] = value
    run = replace(run, ticks=replace(run.ticks, desired=desired))
    write_report(run, tmp_path / "r.html", pictures=Pictures())
    page = Page(tmp_path / "r.html")
    for tag, attributes in page.tags:
        if tag == "path":
            assert re.fullmatch(r"[Mlhv0-9. -]*", attributes["d"]), attributes["d"][:200]
        # The bounds keep most of the room, whatever was asked for.
        if tag == "svg" and "velocity" in attributes["aria-label"]:
            assert abs(float(attributes["data-low"])) < 8.0
            assert abs(float(attributes["data-high"])) < 8.0


def test_stamps_from_another_time_do_not_squeeze_the_rest(tmp_path):
    run = sample_run()
    stamps = run.joints.stamp_ns.copy()
    stamps[5:8] = 0
    run = replace(run, joints=replace(run.joints, stamp_ns=stamps))
    write_report(run, tmp_path / "r.html", pictures=Pictures())
    page = Page(tmp_path / "r.html")
    assert "stamps lie outside of the recording's time" in page.text
    assert 'data-end="4.89"' in page.source


# --- long recordings ------------------------------------------------------------------------------


def test_ten_minutes_make_a_small_file(tmp_path):
    run = sample_run(600.0)
    size = write_report(run, tmp_path / "r.html", pictures=sample_pictures(run))
    assert size < 1_500_000


def test_thinning_keeps_peaks_and_gaps():
    times = np.arange(100_000) / 100
    values = np.sin(times)
    values[12_345], values[54_321] = 9.0, -9.0
    values[70_000:70_010] = np.nan
    index = kept(times, values, 500)
    assert len(index) <= 3 * 500
    assert {12_345, 54_321, 0, 99_999} <= set(index.tolist())
    assert np.isnan(values[index]).any()
    assert (np.diff(index) > 0).all()
    few = kept(times[:900], values[:900], 500)
    assert few.tolist() == list(range(900))
    assert kept(times, np.full(len(times), np.nan), 500).size >= 1


def test_a_way_is_thinned_within_its_tolerance():
    times = np.linspace(0.0, 60.0, 6001)
    way = np.stack([0.3 * np.sin(times), 0.2 * np.cos(2 * times), 0.01 * times], axis=1)
    index = simplified(times, way, 5e-4)
    assert len(index) < 1500
    drawn = np.stack([np.interp(times, times[index], way[index, i]) for i in range(3)], axis=1)
    assert np.linalg.norm(drawn - way, axis=1).max() <= 5.01e-4
    noise = np.random.default_rng(0).normal(size=(12_000, 3))
    assert len(simplified(np.arange(12_000.0), noise, 1e-3)) <= 3000


def test_spans_of_time():
    times = np.array([0.0, 0.1, 0.2, 0.3, 0.4])
    active = np.array([False, True, True, False, True])
    assert np.allclose(spans(times, active), [(0.1, 0.3), (0.4, 0.5)])
    assert np.allclose(spans(times, active, 0.15), [(0.1, 0.5)])
    assert spans(np.empty(0), np.empty(0, bool)) == []


# --- figures and outlines -------------------------------------------------------------------------


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-3.0, 3e5), (1e-9, 2e-9), (-0.1, 0.7)])
def test_labels_are_few_and_inside(low, high):
    ticks = Axis(low, high).ticks(6)
    assert 2 <= len(ticks) <= 7
    assert low - 1e-9 <= ticks[0]
    assert ticks[-1] <= high + 1e-9 * abs(high)


def test_figures():
    assert [number(v) for v in (0.0, 0.3, 12.345, 1234567.0, 1e-7, float("nan"))] == [
        *("0", "0.3", "12.3", "1234567", "1.00e-07", "nan")
    ]
    assert [clock(s) for s in (1.5, 119.99, 120.0, 754.321)] == [
        "1.50 s",
        "119.99 s",
        "2:00.00",
        "12:34.32",
    ]
    assert [clock(s, 60, minutes=True) for s in (0, 60, 600)] == ["0:00", "1:00", "10:00"]


def test_histograms():
    page = Histogram("Latency", "ms", np.array([1.0, 2.0, 2.0, np.nan, 300.0]), 10.0).html()
    # What is over the end of the axis is in its last bar.
    assert "p50 <b>2</b>" in page
    assert "max <b>300</b>" in page
    assert "4 values" in page
    assert page.count('class="bar"') == 3
    assert "none measured" in Histogram("Latency", "ms", np.array([np.nan])).html()


def test_outlines_are_what_a_volume_looks_like():
    """A point is inside an outline if it is inside the volume at some depth."""
    volumes = (
        Box("b", (0.1, 0.2, 0.3), (0.3, 0.5, 0.7), (0.2, 0.4, 0.6)),
        Sphere("s", (0.1, 0.0, 0.2), 0.3),
        Capsule("c", (0.0, 0.0, 0.0), (0.3, 0.2, 0.5), 0.1),
        Cylinder("y", (0.1, 0.2, 0.0), (0.0, 0.0, 1.0), 0.4),
        HalfSpace("h", (1.0, 0.0, 0.0), 0.2),
    )
    grid = np.linspace(-0.8, 1.0, 31)
    x, y, z = (axis.ravel() for axis in np.meshgrid(grid, grid, grid, indexing="ij"))
    points = np.stack([x, y, z], axis=1)
    for volume in volumes:
        inside = points[volume.distance(points) < -0.02]
        outside = points[volume.distance(points) > 0.1]
        for across, up in ((0, 1), (0, 2), (1, 2)):
            for line in outlines(volume, across, up):
                polygon = line.astype(np.float32)
                here = [within(polygon, p) for p in inside[::97, [across, up]]]
                assert all(here), (volume.shape, across, up)
                # Beyond the outline there is nothing of the volume at any depth.
                flat = np.unique(outside[:, [across, up]], axis=0)
                for p in flat[::29]:
                    column = points[(points[:, across] == p[0]) & (points[:, up] == p[1])]
                    if volume.distance(column).min() > 0.1:
                        assert not within(polygon, p), (volume.shape, p)


def within(polygon, point):
    return cv2.pointPolygonTest(polygon, (float(point[0]), float(point[1])), False) >= 0


# --- from bags ------------------------------------------------------------------------------------


def test_the_command_draws_a_recorded_run(tmp_path, capsys):
    bag = panda_bags.motion(2.0, cameras=True).bag(tmp_path / "run" / "bag")
    summary = {"success": True, "reason": "done", "seconds": 1.8}
    (tmp_path / "run" / "summary.json").write_text(json.dumps(summary))
    robot = ["--robot", str(panda_bags.ROBOT), "--urdf", str(urdf(tmp_path))]
    assert main(["report", str(tmp_path / "run"), *robot]) == 0
    assert "report.html" in capsys.readouterr().out
    page = Page(tmp_path / "run" / "report.html")
    assert "Task done: done after 1.8 s" in page.text
    assert [tag for tag, _ in page.tags].count("img") == 24
    assert main(["report", str(bag), *robot, "-o", str(tmp_path / "sub" / "r.html")]) == 0
    assert "Task" not in Page(tmp_path / "sub" / "r.html").text
    assert main(["report", str(tmp_path / "none"), *robot]) == 2
    assert "none" in capsys.readouterr().err


def urdf(folder):
    from robots import simple_urdf

    path = folder / "robot.urdf"
    path.write_text(simple_urdf())
    return path


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_only_the_pictures_that_are_shown_are_read(tmp_path, storage):
    messages = scene(20)
    path = make_bag(tmp_path / "bag", messages, Form(storage=storage))
    own = [m.received_ns for m in messages if m.topic == "/front/image_raw"]
    with open_bag(path) as bag:
        asked = [own[0], own[3] + 1, own[4], own[-1], own[-1] + 1]
        read = [m.received_ns for m in bag.messages(["/front/image_raw"], at_ns=asked)]
    assert read == [own[0], own[4], own[-1]]


def test_pictures_are_spread_over_the_recording(tmp_path):
    maker = panda_bags.motion(3.0, cameras=True)
    # The last one is cut short: it is left out, and said.
    broken = max(
        (m for m in maker.messages if m.topic == "/front/image_raw"), key=lambda m: m.received_ns
    )
    maker.messages.remove(broken)
    maker.messages.append(replace(broken, data=broken.data[:-40_000]))
    run = replace(
        sample_run(),
        bag=maker.bag(tmp_path / "bag"),
        cameras={"front": "/front/image_raw", "wrist": "/wrist/image_raw"},
    )
    pictures = read_pictures(run)
    front = [f.stamp_ns for f in pictures.frames if f.camera == "front"]
    wrist = [f.stamp_ns for f in pictures.frames if f.camera == "wrist"]
    assert (len(front), len(wrist)) == (11, 12)
    assert wrist[-1] - wrist[0] > 2.9e9
    assert pictures.problems == ("/front/image_raw: 1 pictures cannot be shown",)


@pytest.mark.skipif(not shared_bags(), reason="the recorded bags of a real ROS 2 are not here")
def test_bags_of_a_real_ros(tmp_path):
    for bag in shared_bags():
        out = tmp_path / f"{bag.name}.html"
        robot = ["--robot", str(panda_bags.ROBOT)]
        assert main(["replay", str(bag), *robot, "--mode", "safety", "--report", str(out)]) == 0
        page = Page(out)
        assert "pick up the" in page.text
        assert out.stat().st_size < 1_000_000


# --- in a browser ---------------------------------------------------------------------------------

# Rectangles of what must not lie over each other: in the page, and in each group of texts.
LAYOUT = """(() => {
  const box = (e) => {
    const r = e.getBoundingClientRect();
    return [r.left, r.top, r.right, r.bottom];
  };
  const named = (e) => [e.textContent.slice(0, 40), box(e)];
  const shown = (e) => e.getClientRects().length > 0;
  const all = (s, root) => [...(root || document).querySelectorAll(s)].filter(shown);
  const groups = [["sections", all("header, section, footer")]];
  for (const one of all(".xs, .tiles, figcaption, .kind, .verdict ul, .views, .strip, .joint"))
    groups.push([one.className || one.tagName, [...one.children].filter(shown)]);
  for (const area of all(".area")) groups.push(["y labels", all(".y", area)]);
  return {
    width: [document.documentElement.scrollWidth, innerWidth],
    spilled: all("dt, dd, th, td, li, p, h1, h2, h3, pre, figcaption, .head").filter(
      (e) => e.scrollWidth > e.clientWidth + 1).map(named),
    groups: groups.map(([name, list]) => [name, list.map(named)]),
    plots: all(".plot .area").map((e) => [e.closest("figure").textContent.slice(0, 30), box(e)]),
    lanes: all(".lane .area").map((e) => [e.closest(".lane").textContent.slice(0, 30), box(e)]),
    texts: all("h1, h2, h3, p, li, dt, dd, th, td, span, b, pre, code, figcaption").map(named),
    images: [...document.images].map((i) => [i.complete, i.naturalWidth]),
  };
})()"""


def seen(png):
    """The pixels of a picture, RGB."""
    picture = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
    return picture[..., ::-1].astype(np.int16)


def overlap(a, b):
    wide = min(a[2], b[2]) - max(a[0], b[0])
    high = min(a[3], b[3]) - max(a[1], b[1])
    return wide > 1.0 and high > 1.0


def check_layout(browser, width):
    layout = browser.run(LAYOUT)
    assert layout["width"] == [width, width], "the page scrolls sideways"
    assert layout["spilled"] == []
    for name, members in layout["groups"]:
        for i, (one, a) in enumerate(members):
            for other, b in members[i + 1 :]:
                assert not overlap(a, b), f"{name}: {one!r} lies over {other!r}: {a} {b}"
    assert len(layout["plots"]) > 25
    for name, (left, top, right, bottom) in layout["plots"]:
        assert right - left >= 120, name
        assert bottom - top >= 40, name
    assert len(layout["lanes"]) == 8
    for name, (left, top, right, bottom) in layout["lanes"]:
        assert right - left >= 200, name
        assert bottom - top >= 10, name
    for said, (left, _, right, _) in layout["texts"]:
        assert left >= -1, said
        assert right <= width + 1, said
    assert len(layout["images"]) == 24
    assert all(done and size for done, size in layout["images"])


@needs_browser
@pytest.mark.parametrize(
    ("width", "dark"),
    [(1400, False), (1400, True), (800, False), (390, False), (390, True), (320, False)],
)
def test_it_is_laid_out(report, browser, width, dark):
    browser.open(report, width, dark=dark, phone=width < 500)
    check_layout(browser, width)
    picture = seen(browser.screenshot())
    assert picture.shape[1] == width
    assert (picture.mean() < 80) if dark else (picture.mean() > 200)
    # Every stretch of the page has something on it.
    for begin in range(0, len(picture) - 300, 300):
        assert picture[begin : begin + 300].std() > 3.0, begin
    # The curves of what was asked for and of what was sent are there to be seen.
    colours = (
        {"safe": (109, 179, 255), "desired": (255, 155, 77)}
        if dark
        else {"safe": (10, 95, 194), "desired": (217, 96, 10)}
    )
    for name, colour in colours.items():
        near = (np.abs(picture - np.array(colour)).max(axis=2) < 12).sum()
        assert near > 400, (name, near)
    browser.run("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    check_layout(browser, width)
    assert browser.errors() == []
    assert [
        url for url in browser.requests() if not url.startswith(("data:", report.as_uri()))
    ] == []


@needs_browser
def test_every_plot_is_read_at_the_time_under_the_pointer(report, browser):
    run = sample_run()
    browser.open(report, 1400)
    place = """(() => { const a = document.querySelectorAll(".area.timed")[0];
      a.scrollIntoView({ block: "center" });
      const r = a.getBoundingClientRect(); return [r.left, r.top, r.width, r.height]; })()"""
    left, top, width, height = browser.run(place)
    share = 0.44
    browser.move(left + share * width, top + height / 2)
    read = """(() => ({
      said: [...document.querySelectorAll(".readout *")].map((e) => e.textContent),
      plots: Object.fromEntries([...document.querySelectorAll(".plot:not(.small)")].map((f) => [
        f.querySelector(".title").firstChild.textContent,
        [...f.querySelectorAll(".key output")].map((e) => e.textContent)])),
      small: [...document.querySelectorAll(".joint .note")].map((e) => +e.textContent),
      hairs: [...document.querySelectorAll(".hair")].filter((e) => !e.hidden).length,
      dots: [...document.querySelectorAll(".dot")].map(
        (e) => [parseFloat(e.style.left), parseFloat(e.style.top)]),
      now: [...document.querySelectorAll(".moment.now")].map((e) => +e.dataset.t),
    }))()"""
    said = browser.run(read)
    tick = round(share * run.duration_s * 100)
    assert float(said["said"][0].split()[0]) == pytest.approx(share * run.duration_s, abs=0.01)
    assert {"RUNNING", "linear_speed", "workspace"} <= set(said["said"])
    expected = [np.linalg.norm(v[tick, :3]) for v in (run.ticks.desired, run.ticks.safe)]
    assert [float(v) for v in said["plots"]["Linear velocity"][1:]] == pytest.approx(
        expected, abs=0.01
    )
    measured = np.stack([run.joints.position, run.joints.velocity, run.joints.effort], axis=2)
    assert said["small"] == pytest.approx(measured[tick].ravel().tolist(), rel=0.02, abs=0.02)
    assert said["hairs"] > 25
    assert len(said["dots"]) == 3
    assert all(0 < a < 100 and 0 < b < 100 for a, b in said["dots"])
    assert said["now"] == [pytest.approx(1000 * share * run.duration_s, abs=210)]
    browser.move(left, top - 60)
    assert browser.run("document.querySelector('.readout').hidden")


@needs_browser
def test_a_span_is_looked_at_closely(report, browser):
    browser.open(report, 1400)
    script = """(() => { const a = document.querySelectorAll(".area.timed")[0];
      const r = a.getBoundingClientRect();
      const send = (kind, share) => a.dispatchEvent(new PointerEvent(kind, { bubbles: true,
        pointerId: 1, pointerType: "mouse", button: 0, clientX: r.left + share * r.width }));
      a.setPointerCapture = () => {};
      send("pointerdown", 0.25); send("pointermove", 0.5); send("pointerup", 0.5);
      const state = () => [
        [...document.querySelectorAll(".timed svg")].map((s) => s.viewBox.baseVal.width),
        document.querySelector(".xs.clock span").textContent];
      const close = state();
      a.dispatchEvent(new MouseEvent("dblclick", { bubbles: true }));
      return [close, state()]; })()"""
    (close, first), (whole, begin) = browser.run(script)
    assert close == [pytest.approx(5000, rel=0.01)] * len(close)
    assert first == "1.4 s"
    assert set(whole) == {20_000}
    assert begin == "0.0 s"


@needs_browser
def test_text_of_a_bag_does_nothing_in_a_browser(tmp_path, browser):
    run = sample_run(text=EVIL)
    write_report(run, tmp_path / "r.html", pictures=sample_pictures(run, EVIL))
    browser.open(tmp_path / "r.html", 1400)
    assert browser.run("document.title").startswith("pick up the red cube<script>")
    assert browser.run("document.querySelectorAll('script').length") == 1
    assert browser.run("document.querySelectorAll('img').length") == 24
    assert browser.errors() == []


@needs_browser
def test_a_recording_of_nothing_is_laid_out_too(tmp_path, browser):
    write_report(bare(), tmp_path / "r.html", pictures=Pictures())
    for width in (1400, 390):
        browser.open(tmp_path / "r.html", width)
        layout = browser.run(LAYOUT)
        assert layout["width"] == [width, width]
        boxes = [box for _, box in layout["groups"][0][1]]
        assert len(boxes) == 9
        assert not any(overlap(a, b) for i, a in enumerate(boxes) for b in boxes[i + 1 :])
        assert browser.errors() == []


@needs_browser
def test_pictures_of_any_shape_are_shown_small(tmp_path, browser):
    run = sample_run()
    shapes = ((4000, 3), (3, 4000), (1, 1), (1200, 1920), (96, 96))
    frames = tuple(
        Frame(f"c{i}", START, np.full((*shape, 3), 90, np.uint8)) for i, shape in enumerate(shapes)
    )
    assert write_report(run, tmp_path / "r.html", pictures=Pictures(frames)) < 400_000
    browser.open(tmp_path / "r.html", 1400)
    boxes = browser.run(
        "[...document.images].map((i) => [i.naturalWidth, i.offsetWidth, i.offsetHeight])"
    )
    assert len(boxes) == 5
    for natural, width, height in boxes:
        assert 0 < natural <= 176
        assert 0 < width <= 110
        assert 0 < height <= 180
    assert browser.errors() == []


@needs_browser
def test_it_can_be_printed(report, browser):
    browser.open(report, 1400)
    pdf = browser.pdf()
    assert pdf.startswith(b"%PDF")
    assert 2 <= len(re.findall(rb"/Type\s*/Page\b", pdf)) <= 5
