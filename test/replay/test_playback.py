"""When messages and times of a playback are published, without a middleware."""

import math
import threading
import time

import pytest

from vla_ros.replay.bags import BagError, BagMessage
from vla_ros.replay.play import played_topics
from vla_ros.replay.playback import Pace, Playback, ReadAhead, timeline

MS = 1_000_000


def message(time_ns, topic="/a", data=b""):
    return BagMessage(topic, "std_msgs/msg/String", time_ns, data, None)


class Nodes:
    """Keeps what is published, in order; nodes in lockstep follow the topics in `followed`."""

    def __init__(self, followed=()):
        self.log = []
        self.followed = followed

    def publish(self, topic, data):
        self.log.append((topic, data))

    def publish_clock(self, time_ns):
        self.log.append(time_ns)

    def follows(self, topic):
        return topic in self.followed

    def settle(self, topic):
        self.log.append(f"settle {topic or 'clock'}")


class Script:
    """Presses keys, one at each wait."""

    def __init__(self, *keys):
        self.keys = list(keys)

    def wait(self, seconds):
        time.sleep(min(seconds, 0.001))
        return [self.keys.pop(0)] if self.keys else []


def play(messages, *, hz=0.0, rate=math.inf, lockstep=False, keys=(), followed=(), paused=False):
    nodes = Nodes(followed)
    playback = Playback(
        nodes, Script(*keys), lambda _: None, Pace(rate), clock_hz=hz, lockstep=lockstep
    )
    if paused:
        playback.pause()
    begin_ns = messages[0].received_ns
    events = timeline(messages, begin_ns, round(1e9 / hz) if hz else None)
    playback.play(events, begin_ns, {m.topic: m.topic for m in messages})
    return nodes.log, playback.count


# The pace


def test_pace_is_the_bag_s_time_times_the_rate():
    pace = Pace(2.0)
    pace.jump(1000 * MS, wall_s=50.0)
    assert pace.bag_ns(50.25) == 1500 * MS
    assert pace.wait_s(2000 * MS, 50.25) == pytest.approx(0.25)
    assert pace.wait_s(1000 * MS, 50.25) == 0.0


def test_a_change_of_the_rate_and_a_pause_lose_no_time():
    pace = Pace(1.0)
    pace.jump(0, wall_s=10.0)
    pace.set_rate(0.5, wall_s=11.0)
    assert pace.bag_ns(13.0) == 2000 * MS
    pace.set_paused(paused=True, wall_s=13.0)
    assert pace.bag_ns(99.0) == 2000 * MS
    assert math.isinf(pace.wait_s(2000 * MS, 99.0))
    pace.set_paused(paused=False, wall_s=99.0)
    assert pace.bag_ns(101.0) == 3000 * MS


def test_without_a_rate_nothing_waits_but_in_a_pause():
    pace = Pace(math.inf)
    pace.jump(0, wall_s=10.0)
    assert pace.wait_s(10**18, 10.0) == 0.0
    pace.set_paused(paused=True, wall_s=10.0)
    assert math.isinf(pace.wait_s(0, 10.0))


# The timeline


def test_times_are_multiples_of_the_period_around_the_messages():
    events = list(timeline([message(105 * MS), message(121 * MS)], 105 * MS, 10 * MS))
    assert [(t, m is not None) for t, m in events] == [
        (105 * MS - 1, False),
        (105 * MS, True),
        (110 * MS, False),
        (120 * MS, False),
        (121 * MS, True),
        (130 * MS, False),
    ]


def test_a_message_of_the_same_time_comes_before_the_clock():
    events = list(timeline([message(100 * MS), message(110 * MS)], 100 * MS, 10 * MS))
    assert [(t, m is not None) for t, m in events] == [
        (100 * MS - 1, False),
        (100 * MS - 1, True),
        (100 * MS, False),
        (110 * MS - 1, True),
        (110 * MS, False),
    ]


def test_without_a_clock_there_are_the_messages_alone():
    messages = [message(5), message(7)]
    assert list(timeline(messages, 5, None)) == [(5, messages[0]), (7, messages[1])]


# The playback


def test_messages_come_in_order_as_they_were():
    log, count = play([message(1, "/a", b"x"), message(2, "/b", b"y"), message(2, "/a", b"z")])
    assert log == [("/a", b"x"), ("/b", b"y"), ("/a", b"z")]
    assert (count.messages, count.clocks) == (3, 0)


def test_messages_wait_for_their_time():
    begin = time.monotonic()
    play([message(0), message(400 * MS)], rate=2.0)
    assert 0.19 < time.monotonic() - begin < 1.0


def test_lockstep_settles_after_every_event():
    log, _ = play([message(105 * MS, "/a", b"x")], hz=100.0, lockstep=True, followed={"/a"})
    assert log == [
        *(105 * MS - 1, "settle clock"),  # the first time
        *(105 * MS, ("/a", b"x"), "settle /a"),
        *(110 * MS - 1, "settle clock"),  # timers that fell due on the way
        *(110 * MS, "settle clock"),
    ]


def test_lockstep_does_not_stop_for_what_no_node_follows():
    log, _ = play([message(105 * MS, "/a", b"x")], hz=100.0, lockstep=True)
    assert log[2:5] == [("/a", b"x"), "settle /a", 110 * MS - 1]


def test_keys_pause_step_and_go_on():
    messages = [message(i, data=bytes([i])) for i in range(1, 5)]
    log, _ = play(messages, paused=True, keys=["step", "step", "pause"])
    assert log == [("/a", bytes([i])) for i in range(1, 5)]
    nodes = Nodes()
    playback = Playback(
        nodes, Script("step"), lambda _: None, Pace(1.0), clock_hz=0.0, lockstep=False
    )
    playback.pause()
    thread = threading.Thread(
        target=playback.play, args=(timeline(messages, 1, None), 1, {"/a": "/a"}), daemon=True
    )
    thread.start()
    time.sleep(0.3)
    assert nodes.log == [("/a", b"\x01")], "one step is one message"


def test_the_clock_goes_on_in_a_pause_and_stands_still():
    # The first time is before the pause takes effect on the second event.
    log, _ = play(
        [message(105 * MS)], hz=100.0, rate=100.0, paused=True, keys=["step", "", "", "", "pause"]
    )
    times = [entry for entry in log if isinstance(entry, int)]
    assert times.count(105 * MS - 1) > 3
    assert times == sorted(times)


def test_arrows_change_the_rate():
    pace = Pace(1.0)
    playback = Playback(
        Nodes(), Script("faster", "faster", "slower"), lambda _: None, pace, 0.0, lockstep=False
    )
    playback.play(timeline([message(0), message(50 * MS)], 0, None), 0, {"/a": "/a"})
    assert pace.rate == pytest.approx(1.1)


# Reading ahead


def test_reading_ahead_gives_the_messages_and_the_error():
    def broken():
        yield from [message(1), message(2)]
        msg = "the disk is gone"
        raise BagError(msg)

    read = iter(ReadAhead(broken(), 1))
    assert [next(read).received_ns, next(read).received_ns] == [1, 2]
    with pytest.raises(BagError, match="the disk is gone"):
        next(read)


def test_reading_ahead_is_bounded_and_ends_when_closed():
    given = []

    def endless():
        while True:
            given.append(message(len(given)))
            yield given[-1]

    ahead = ReadAhead(endless(), 5)
    assert next(iter(ahead)).received_ns == 0
    time.sleep(0.05)
    assert len(given) <= 8
    ahead.close()


# Topics


def test_topics_are_chosen_left_out_and_renamed():
    recorded = ["/a", "/b", "/clock"]
    assert played_topics(recorded, [], [], []) == {"/a": "/a", "/b": "/b"}
    assert played_topics(recorded, ["a"], [], ["a:=x/y"]) == {"/a": "/x/y"}
    assert played_topics(recorded, [], ["/b"], ["/gone:=/c"]) == {"/a": "/a"}
    assert played_topics(recorded, ["/clock"], [], []) == {}
    with pytest.raises(BagError, match="the bag has no /c: its topics are /a, /b"):
        played_topics(recorded, ["c"], [], [])
    with pytest.raises(BagError, match="not of the form FROM:=TO"):
        played_topics(recorded, [], [], ["a=b"])
