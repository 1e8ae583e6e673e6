"""A replay steps the pipeline the same way every time, and says what came of it."""

import json
import re
import xml.etree.ElementTree as ET
from dataclasses import replace

import numpy as np
import pytest
from make_bags import MS, START, Form, shared_bags
from panda_bags import PERIOD, ROBOT, Maker, motion

from bundles import forward_actions, make_bundle
from vla_ros import cli
from vla_ros.policy.scheduler import MODES as CHUNK_MODES
from vla_ros.replay.bags import open_bag
from vla_ros.replay.common import packaged_urdf
from vla_ros.replay.replay import (
    Options,
    ReplayError,
    replay_bag,
    result_from_bag,
    to_json,
)
from vla_ros.robot import RobotConfig

SAFETY = Options(mode="safety")
POLICY = Options(mode="policy")
BOTH = Options(mode="policy+safety")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """Moves along the tool's x, faster from action to action."""
    return make_bundle(tmp_path_factory.mktemp("bundle")).path


@pytest.fixture(scope="module")
def moving(tmp_path_factory):
    return motion(cameras=True).bag(tmp_path_factory.mktemp("moving") / "bag")


def value(result, name):
    return result.metrics[name].value


def test_commands_within_the_bounds_pass_unchanged(moving):
    result = replay_bag(moving, ROBOT, options=SAFETY)
    assert result.violations == 0
    assert value(result, "changed_in_bounds") == 0
    assert value(result, "unchanged_share") == 1.0
    assert value(result, "change_translation.max") < 1e-6
    assert value(result, "nan_count") == value(result, "nan_sent") == 0
    assert result.ticks.safe[:, 1].max() == pytest.approx(0.1, abs=1e-6)


def test_a_command_that_is_too_fast_is_cut_and_the_bound_named(tmp_path):
    bag = motion(speed=0.6).bag(tmp_path / "bag")
    result = replay_bag(bag, ROBOT, options=SAFETY)
    assert result.violations == 0
    assert value(result, "speed_max") <= 0.3 + 1e-9
    assert value(result, "acting_share.linear_speed") > 0.1
    assert value(result, "unchanged_share") < 0.9


def test_the_arm_stops_after_the_last_command(moving):
    result = replay_bag(moving, ROBOT, options=SAFETY)
    assert 0.1 < value(result, "time_to_stop_s") < 0.3
    assert value(result, "fault_stops") == 1
    assert value(result, "fault_to_stop_s") < 0.2
    assert np.all(result.ticks.safe[-1] == 0.0)


def test_the_same_inputs_make_the_same_bytes(moving, bundle):
    for options, folder in ((SAFETY, None), (POLICY, bundle), (BOTH, bundle)):
        results = [replay_bag(moving, ROBOT, folder, options=options) for _ in range(3)]
        texts = {json.dumps(to_json(result)) for result in results}
        assert len(texts) == 1
        assert len(results[0].hash) == 64


def test_how_late_a_message_was_recorded_changes_nothing(tmp_path):
    hashes = set()
    for seed in range(3):
        rng = np.random.default_rng(seed)
        maker = motion()
        stamped = [m for m in maker.messages if m.topic != "/gripper_command"]
        late = {id(m): int(rng.integers(0, 400 * MS)) for m in stamped}
        maker.messages = [
            replace(m, received_ns=m.received_ns + late.get(id(m), 0))
            if m.topic in ("/command", "/joint_states")
            else m
            for m in maker.messages
        ]
        bag = maker.bag(tmp_path / f"bag{seed}")
        hashes.add(replay_bag(bag, ROBOT, options=SAFETY).hash)
    assert len(hashes) == 1


def test_every_form_of_a_bag_has_the_same_hash(tmp_path):
    forms = [
        Form("sqlite3"),
        Form("mcap"),
        Form("mcap", "lz4", "chunk"),
        Form("sqlite3", files=3),
        Form("sqlite3", "zstd", "file"),
    ]
    hashes = {
        replay_bag(motion().bag(tmp_path / f"bag{i}", form), ROBOT, options=SAFETY).hash
        for i, form in enumerate(forms)
    }
    assert len(hashes) == 1


def test_the_policy_alone_is_compared_with_the_recorded_commands(moving, bundle):
    result = replay_bag(moving, ROBOT, bundle, options=POLICY)
    assert result.ticks is None
    assert result.violations is None
    assert len(result.commands) > 25
    # The model moves along the tool's x and not y, the recorded commands along y at 0.1 m/s.
    moved = np.array([not hold for hold in result.commands.hold])
    assert moved.sum() > 20
    assert value(result, "error_translation.mean") > 0.05
    # Its gripper is open at 0.08 m, the recorded one at 0.04 m.
    assert value(result, "error_gripper.mean") == pytest.approx(0.04, abs=1e-6)
    assert value(result, "hold_share") < 0.1
    assert value(result, "instruction_changes_ignored") == 0


def test_the_recorded_commands_are_met_by_a_model_that_makes_them(tmp_path):
    # 1 mm in a thirtieth of a second along the tool's x is 0.03 m/s; the tool points down.
    actions = forward_actions()
    actions[0, :, 0] = 1.0
    actions[0, :, 1] = -5.0  # takes out the third word's share on y: "the" has the number 4,
    bundle = make_bundle(tmp_path / "bundle", actions).path  # and "red" 5
    maker = motion(cameras=True)
    told = replay_bag(maker.bag(tmp_path / "bag"), ROBOT, bundle, options=POLICY)
    first = int(np.flatnonzero([not hold for hold in told.commands.hold])[0])
    twist = told.commands.twist[first]
    maker = Maker()
    for i in range(100):
        maker.joints(START + i * 10 * MS)
    maker.text("/instruction", START, "pick up the red cube")
    for i in range(30):
        at = START + 10 * MS + i * PERIOD
        maker.image("front", at, shade=i)
        maker.image("wrist", at, shade=i)
        maker.command(at, twist)
        maker.gripper(at, 0.08)
    result = replay_bag(maker.bag(tmp_path / "second"), ROBOT, bundle, options=POLICY)
    for name in ("error_translation.max", "error_rotation.max", "error_gripper.max"):
        assert value(result, name) < 1e-9, name


def test_latency_delays_the_first_chunk_by_as_much(moving, bundle):
    def started(latency):
        options = replace(BOTH, latency=latency)
        result = replay_bag(moving, ROBOT, bundle, options=options)
        assert result.violations == 0
        return result.chunks

    zero, late = started("zero"), started("fixed:55.5")
    assert late.started_ns[0] - zero.started_ns[0] == 55_500_000
    assert late.observed_ns[0] == zero.observed_ns[0]
    assert zero.started_ns[0] == zero.observed_ns[0] + MS  # the second camera's frame


@pytest.mark.parametrize("mode", CHUNK_MODES)
def test_chunks_take_over_as_asked_and_the_same_on_every_run(moving, bundle, mode):
    options = replace(BOTH, latency="fixed:60", chunk_mode=mode)
    result = replay_bag(moving, ROBOT, bundle, options=options)
    assert result.hash == replay_bag(moving, ROBOT, bundle, options=options).hash != ""
    assert len(result.chunks.started_ns) > 1
    moves = result.commands.twist.any(axis=1)
    first = np.argmax(moves)
    assert moves[first : first + 24].all() == (mode != "synchronous")


def test_a_measured_latency_is_that_of_the_recorded_chunks(tmp_path, bundle):
    maker = motion(cameras=True)
    begin = START + 10 * MS
    # Every fourth picture was made into a chunk, which came 40 ms later; one came after 70 ms.
    for i in range(0, 28, 4):
        late = 70 if i == 8 else 40
        maker.chunk(begin + i * PERIOD, begin + i * PERIOD + late * MS)
    bag = maker.bag(tmp_path / "bag")
    options = replace(BOTH, latency="measured")
    result = replay_bag(bag, ROBOT, bundle, options=options)
    assert result.hash == replay_bag(bag, ROBOT, bundle, options=options).hash != ""
    assert result.warnings == ()
    late = (result.chunks.started_ns - result.chunks.observed_ns) / MS
    assert late[0] == 40.0
    # Later ones wait for the policy's next step, or are as late as usual where none was recorded.
    assert np.all((late >= 40.0) & (late <= 70.0 + PERIOD / MS))
    ours = dict(zip(result.chunks.observed_ns.tolist(), late.tolist(), strict=True))
    if begin + 8 * PERIOD in ours:
        assert ours[begin + 8 * PERIOD] >= 70.0


def test_without_recorded_chunks_a_measured_latency_has_no_hash(moving, bundle):
    result = replay_bag(moving, ROBOT, bundle, options=replace(BOTH, latency="measured"))
    assert result.hash == ""
    assert any("no two runs are the same" in warning for warning in result.warnings)


def test_instructions_are_honoured_or_not(tmp_path, bundle):
    maker = motion(2.0, cameras=True)
    maker.text("/instruction", START + 700 * MS, "pick up the green cube")
    maker.text("/instruction", START + 1300 * MS, "")
    result = replay_bag(maker.bag(tmp_path / "bag"), ROBOT, bundle, options=BOTH)
    assert value(result, "instruction_changes") == 3
    assert value(result, "instruction_changes_honoured") == 3
    assert [told.text for told in result.instructions][2] == ""
    assert np.diff(result.commands.stamp_ns).min() > 0
    after = result.commands.stamp_ns >= START + 1300 * MS
    assert not result.commands.twist[after].any()


def test_a_description_that_is_told_again_changes_nothing(tmp_path, bundle):
    urdf = packaged_urdf(RobotConfig.load(ROBOT), ROBOT)
    hashes = set()
    for times in ((0,), (0, 400, 700)):
        maker = motion(cameras=True)
        for at in times:
            maker.text("/robot_description", START + at * MS, urdf)
        bag = maker.bag(tmp_path / f"bag{len(times)}")
        hashes.add(replay_bag(bag, ROBOT, bundle, options=BOTH).hash)
    assert len(hashes) == 1


def test_an_instruction_can_be_given_in_place_of_the_recorded(tmp_path, bundle):
    bag = motion(cameras=True, instruction=None).bag(tmp_path / "bag")
    silent = replay_bag(bag, ROBOT, bundle, options=BOTH)
    assert any("no instruction" in warning for warning in silent.warnings)
    assert not silent.commands.twist.any()
    told = replay_bag(bag, ROBOT, bundle, options=replace(BOTH, instruction="pick up the red cube"))
    assert told.warnings == ()
    assert told.commands.twist.any()


def test_words_that_the_model_has_never_seen_are_told(tmp_path, bundle):
    """As policy_node warns of them: what it does with the rest may be what nobody meant."""
    bag = motion(cameras=True, instruction="fly to the red cube").bag(tmp_path / "bag")
    result = replay_bag(bag, ROBOT, bundle, options=BOTH)
    assert result.warnings == ("the model has never seen 'fly', 'to', and ignores it",)


def test_an_estop_in_the_bag_stops_the_arm(tmp_path):
    maker = motion()
    maker.flag("/estop", START + 500 * MS, True)
    result = replay_bag(maker.bag(tmp_path / "bag"), ROBOT, options=SAFETY)
    later = result.ticks.stamp_ns > START + 800 * MS
    assert {s for s, at in zip(result.ticks.state, later, strict=True) if at} == {"EMERGENCY_STOP"}
    assert not result.ticks.safe[later].any()


def test_nan_in_the_recorded_commands_is_counted_and_never_sent(tmp_path):
    maker = motion()
    maker.command(START + 401 * MS, (np.nan, 0.0, 0.0))
    result = replay_bag(maker.bag(tmp_path / "bag"), ROBOT, options=SAFETY)
    assert value(result, "nan_count") == 1
    assert value(result, "nan_sent") == 0
    assert result.violations == 0


def test_nan_in_what_is_compared_with_is_left_out(tmp_path, bundle):
    maker = motion(cameras=True)
    maker.command(START + 401 * MS, (np.nan, 0.0, 0.0))
    maker.gripper(START + 402 * MS, np.nan)
    result = replay_bag(maker.bag(tmp_path / "bag"), ROBOT, bundle, options=POLICY)
    assert value(result, "error_translation.max") < 1.0
    json.dumps(to_json(result), allow_nan=False)


def test_a_long_silence_is_not_stepped_through(tmp_path):
    maker = motion()
    late = 86_400_000 * MS
    maker.joints(START + late)
    maker.command(START + late, (0.0,))
    result = replay_bag(maker.bag(tmp_path / "bag"), ROBOT, options=SAFETY)
    assert len(result.ticks) < 400
    assert any("silent for 86399" in warning for warning in result.warnings)


def test_an_output_bag_holds_the_run_and_replays_to_the_same(tmp_path, moving):
    from vla_ros.replay.output import write_bag

    result = replay_bag(moving, ROBOT, options=SAFETY)
    write_bag(result, tmp_path / "out")
    live = result_from_bag(tmp_path / "out", ROBOT)
    assert live.mode == "live"
    assert np.array_equal(live.ticks.safe, result.ticks.safe)
    assert np.array_equal(live.ticks.stamp_ns, result.ticks.stamp_ns)
    assert live.ticks.state == result.ticks.state
    assert np.array_equal(live.ticks.command_stamp_ns, result.ticks.command_stamp_ns)
    assert np.nanmax(np.abs(live.ticks.desired - result.ticks.desired)) == 0.0
    assert live.violations == 0
    again = replay_bag(tmp_path / "out", ROBOT, options=replace(SAFETY, recorded_ticks=True))
    assert value(again, "safe_error_translation.max") == 0.0
    assert value(again, "safe_error_rotation.max") == 0.0


@pytest.mark.parametrize(
    ("topic", "options", "says"),
    [
        ("/joint_states", SAFETY, "no messages on /joint_states"),
        ("/command", SAFETY, "no messages on /command"),
        ("/wrist/image_raw", BOTH, "no pictures of camera 'wrist'"),
        ("/command", POLICY, "to compare with"),
    ],
)
def test_a_bag_that_lacks_a_topic_is_refused_by_name(tmp_path, bundle, topic, options, says):
    maker = motion(cameras=True)
    maker.messages = [m for m in maker.messages if m.topic != topic]
    bag = maker.bag(tmp_path / "bag")
    with pytest.raises(ReplayError, match=says):
        replay_bag(bag, ROBOT, bundle, options=options)


def test_a_topic_is_found_after_renaming(tmp_path):
    maker = motion()
    maker.messages = [
        replace(m, topic="/robot/joints") if m.topic == "/joint_states" else m
        for m in maker.messages
    ]
    bag = maker.bag(tmp_path / "bag")
    options = replace(SAFETY, remap={"/robot/joints": "/joint_states"})
    assert replay_bag(bag, ROBOT, options=options).violations == 0
    with pytest.raises(ReplayError, match="no topic /robot/joint to rename"):
        replay_bag(bag, ROBOT, options=replace(SAFETY, remap={"/robot/joint": "/joint_states"}))


def test_the_robot_file_can_name_a_driver_s_topics(tmp_path):
    maker = motion()
    maker.messages = [
        replace(m, topic="/arm/joints") if m.topic == "/joint_states" else m for m in maker.messages
    ]
    bag = maker.bag(tmp_path / "bag")
    robot = tmp_path / "robot.yaml"
    rules = "    replay:\n      remap: ['/arm/joints:=/joint_states', '/not/here:=/estop']\n"
    robot.write_text(ROBOT.read_text() + rules)
    result = replay_bag(bag, robot, options=SAFETY)
    assert result.violations == 0
    assert result.remap == {"/arm/joints": "/joint_states"}
    robot.write_text(ROBOT.read_text() + "    replay:\n      remap: ['/arm/joints']\n")
    with pytest.raises(ReplayError, match=r"robot.yaml: 'replay.remap' /arm/joints: must be"):
        replay_bag(bag, robot, options=SAFETY)


def test_joints_of_another_robot_are_refused(tmp_path):
    maker = Maker()
    for i in range(30):
        maker.joints(START + i * 10 * MS, names=[f"ur_{k}" for k in range(9)])
        maker.command(START + i * 10 * MS, (0.0,))
    with pytest.raises(ReplayError, match="use the robot file of this robot"):
        replay_bag(maker.bag(tmp_path / "bag"), ROBOT, options=SAFETY)


class TestCommand:
    """`vla_ros replay` as it is typed."""

    def test_without_expectations_it_succeeds(self, moving, capsys):
        assert cli.main(["replay", str(moving), "--robot", str(ROBOT)]) == 0
        said = capsys.readouterr().out
        assert "times real time" in said
        assert "violations" in said

    def test_outcomes_go_to_exit_code_json_and_junit(self, tmp_path, moving, capsys):
        expect = tmp_path / "expect.yaml"
        expect.write_text("violations: {equals: 0}\nspeed_max: {max: 0.05}\n")
        out, junit = tmp_path / "a" / "out.json", tmp_path / "b" / "junit.xml"
        words = ["replay", str(moving), "--robot", str(ROBOT), "--expect", str(expect)]
        assert cli.main([*words, "--json", str(out), "--junit", str(junit)]) == 1
        written = json.loads(out.read_text())
        assert written["passed"] is False
        assert written["violations"] == 0
        assert written["metrics"]["speed_max"] == pytest.approx(0.1, abs=1e-6)
        assert [o["passed"] for o in written["expectations"]] == [True, False]
        suite = ET.parse(junit).getroot().find("testsuite")
        assert (suite.get("tests"), suite.get("failures")) == ("2", "1")
        assert "speed_max" in suite.findall("testcase")[1].find("failure").text
        said = capsys.readouterr().out
        assert "FAILED  speed_max: expected max 0.05, but it is 0.1 m/s" in said
        assert "first at 0." in said

    def test_it_says_how_fast_it_was_and_whose_time_that_was(self, moving, capsys):
        assert cli.main(["replay", str(moving), "--robot", str(ROBOT)]) == 0
        said = capsys.readouterr().out
        times = int(re.search(r"\((\d+) times real time\)", said)[1])
        wall_s = float(re.search(r" s in ([0-9.]+) s \(", said)[1])
        duration_s = float(re.search(r": ([0-9.]+) s in ", said)[1])
        assert times == pytest.approx(duration_s / wall_s, rel=0.05)
        model, kept, rest = map(int, re.findall(r"(\d+)%", said))
        assert model == 0  # there is no model in mode safety
        assert min(kept, rest) > 0
        assert kept + rest == pytest.approx(100, abs=1)
        assert float(re.search(r"loading took ([0-9.]+) s", said)[1]) > 0.0

    def test_the_file_is_the_same_byte_for_byte_on_every_run(self, tmp_path, moving):
        files = [tmp_path / "one.json", tmp_path / "two.json"]
        for file in files:
            words = ["replay", str(moving), "--robot", str(ROBOT), "--json", str(file)]
            assert cli.main(words) == 0
        assert files[0].read_bytes() == files[1].read_bytes()

    def test_the_chunks_options_are_those_of_eval(self, tmp_path, moving, bundle):
        """--inference-ms says what --latency fixed: does."""
        words = ["replay", str(moving), "--robot", str(ROBOT), "--bundle", str(bundle)]
        words += ["--chunk-mode", "rtc"]
        hashes = []
        for i, latency in enumerate((["--inference-ms", "60"], ["--latency", "fixed:60.0"])):
            file = tmp_path / f"{i}.json"
            assert cli.main([*words, *latency, "--json", str(file)]) == 0
            hashes.append(json.loads(file.read_text())["hash"])
        options = replace(BOTH, latency="fixed:60", chunk_mode="rtc")
        assert hashes == [replay_bag(moving, ROBOT, bundle, options=options).hash] * 2

    def test_a_rate_too_low_for_the_robot_is_an_input_at_fault(self, moving, capsys):
        """It stops in 0.12 s, which takes 25 Hz."""
        words = ["replay", str(moving), "--robot", str(ROBOT)]
        assert cli.main([*words, "--rate", "10"]) == 2
        assert "a rate of 10.0 Hz is too low" in capsys.readouterr().err

    def test_two_latencies_are_one_too_many(self, moving, bundle, capsys):
        words = ["replay", str(moving), "--robot", str(ROBOT), "--bundle", str(bundle)]
        with pytest.raises(SystemExit) as end:
            cli.main([*words, "--latency", "measured", "--inference-ms", "60"])
        assert end.value.code == 2
        assert "not allowed with argument --latency" in capsys.readouterr().err

    def test_the_hash_can_be_expected(self, moving):
        words = ["replay", str(moving), "--robot", str(ROBOT), "--expect-hash"]
        known = replay_bag(moving, ROBOT, options=SAFETY).hash
        assert cli.main([*words, known]) == 0
        assert cli.main([*words, "0" * 64]) == 1
        assert cli.main([*words, "0"]) == 2

    @pytest.mark.parametrize(
        "words",
        [
            ["--mode", "policy"],
            ["--remap", "nonsense"],
            ["--remap", "/none:=/command"],
            ["--bundle", "nowhere"],
            ["--latency", "soon", "--bundle", "nowhere"],
            ["--expect", "nowhere.yaml"],
            ["--urdf", "nowhere.urdf"],
            ["--store", "atlantis"],
        ],
        ids=" ".join,
    )
    def test_wrong_input_is_said_in_one_line_with_code_2(self, moving, words, capsys):
        assert cli.main(["replay", str(moving), "--robot", str(ROBOT), *words]) == 2
        said = capsys.readouterr().err
        assert said.startswith("vla_ros replay: ")
        assert said.count("\n") == 1

    def test_an_unknown_metric_is_wrong_input(self, tmp_path, moving, capsys):
        expect = tmp_path / "expect.yaml"
        expect.write_text("violation: {equals: 0}\n")
        words = ["replay", str(moving), "--robot", str(ROBOT), "--expect", str(expect)]
        assert cli.main(words) == 2
        assert "did you mean violations" in capsys.readouterr().err

    def test_the_outputs_are_written_as_a_bag(self, tmp_path, moving, capsys):
        words = ["replay", str(moving), "--robot", str(ROBOT), "--out", str(tmp_path / "out")]
        assert cli.main(words) == 0
        with open_bag(tmp_path / "out") as bag:
            assert bag.topics["/safe_command"].count > 100
        assert cli.main(words) == 2
        assert "exists" in capsys.readouterr().err


@pytest.mark.skipif(not shared_bags(), reason="no ../shared/bags beside the repository")
@pytest.mark.parametrize("bag", shared_bags(), ids=lambda path: path.name)
class TestRecordedByRos2:
    """Bags that a real ROS 2 recorded."""

    def test_commands_within_the_bounds_pass_unchanged(self, bag):
        result = replay_bag(bag, ROBOT, options=SAFETY)
        assert result.violations == 0
        assert value(result, "changed_in_bounds") == 0
        # The expert is faster than the robot file in places; elsewhere nothing is changed.
        assert value(result, "unchanged_share") > 0.1
        acting = sum(amounts != 0.0 for amounts in result.ticks.acting.values()) > 0
        followed = result.ticks.command_stamp_ns >= 0
        change = np.abs(result.ticks.safe - result.ticks.desired).max(axis=1)
        assert change[followed & ~acting].max() < 1e-6

    def test_the_hash_is_stable_over_twenty_runs_with_one_and_two_threads(self, bag):
        bundle = ROBOT.parents[2] / "bundles" / "panda_pick"
        for mode in ("policy", "policy+safety"):
            hashes = {
                replay_bag(bag, ROBOT, bundle, options=Options(mode=mode, threads=threads)).hash
                for threads in (1, 2)
                for _ in range(10)
            }
            assert len(hashes) == 1
            assert hashes != {""}

    def test_the_policy_is_compared_with_the_expert(self, bag):
        bundle = ROBOT.parents[2] / "bundles" / "panda_pick"
        result = replay_bag(bag, ROBOT, bundle, options=POLICY)
        assert 0.0 < value(result, "error_translation.mean") < 0.2
        assert 0.0 < value(result, "error_rotation.mean") < 0.5
        assert 0.0 <= value(result, "error_gripper.mean") < 0.04
