"""Time: arithmetic, clocks, timers that do not drift, and simulated time."""

import itertools
import time

import builtin_interfaces.msg
import pytest
from rclpy.clock import Clock, ClockType, JumpThreshold, ROSClock
from rclpy.duration import Duration
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.time import Time
from ros_processes import spin_until
from rosgraph_msgs.msg import Clock as ClockMsg

S = 1_000_000_000


def test_times_and_durations():
    a = Time(seconds=1.5, nanoseconds=7)
    assert a.nanoseconds == 1_500_000_007
    assert a.seconds_nanoseconds() == (1, 500_000_007)
    assert (a + Duration(seconds=-1)).nanoseconds == 500_000_007
    assert a - Time(seconds=1) == Duration(nanoseconds=500_000_007)
    assert Time(seconds=1) < a <= Time(seconds=2)
    message = a.to_msg()
    assert (message.sec, message.nanosec) == (1, 500_000_007)
    assert Time.from_msg(message).clock_type == ClockType.ROS_TIME
    assert Duration.from_msg(Duration(seconds=-0.25).to_msg()).nanoseconds == -250_000_000
    with pytest.raises(TypeError, match="clock types"):
        assert a < Time(clock_type=ClockType.ROS_TIME)
    with pytest.raises(ValueError, match="negative"):
        Time(seconds=1) - Duration(seconds=2)
    with pytest.raises(TypeError):
        Time.from_msg(builtin_interfaces.msg.Duration())


def test_clocks_show_their_time():
    assert abs(Clock().now().nanoseconds - time.time_ns()) < S
    steady = Clock(clock_type=ClockType.STEADY_TIME).now()
    assert abs(steady.nanoseconds - time.monotonic_ns()) < S
    assert isinstance(Clock(clock_type=ClockType.ROS_TIME), ROSClock)
    with pytest.raises(TypeError):
        Clock(clock_type=1)


def test_jump_callbacks():
    clock = ROSClock()
    heard = []
    threshold = JumpThreshold(min_forward=Duration(seconds=1), min_backward=Duration(seconds=-1))
    handle = clock.create_jump_callback(
        threshold, post_callback=lambda jump: heard.append(jump.delta.nanoseconds)
    )
    clock._set_ros_time_is_active(True)
    heard.clear()
    for seconds in (10, 10.5, 12, 5):
        clock.set_ros_time_override(Time(seconds=seconds, clock_type=ClockType.ROS_TIME))
    assert heard == [10 * S, int(1.5 * S), -7 * S]
    handle.unregister()
    clock.set_ros_time_override(Time(seconds=99, clock_type=ClockType.ROS_TIME))
    assert len(heard) == 3


def test_a_timer_does_not_drift(ros):
    node = ros.node()
    calls = []
    node.create_timer(0.01, lambda: calls.append(time.monotonic()))
    start = time.monotonic()
    assert spin_until(node, lambda: len(calls) >= 100)
    # 100 calls at 100 Hz, each late by no more than scheduling, however busy the machine is.
    assert calls[-1] - start > 0.98
    lateness = sorted(call - start - 0.01 * (index + 1) for index, call in enumerate(calls))
    assert lateness[50] < 0.005


def test_missed_calls_are_skipped(ros):
    node = ros.node()
    calls = []

    def slow():
        calls.append(time.monotonic())
        if len(calls) == 1:
            time.sleep(0.105)

    timer = node.create_timer(0.02, slow)
    begin = time.monotonic()
    assert spin_until(node, lambda: len(calls) >= 4)
    assert calls[-1] - begin < 1.0
    steps = [b - a for a, b in itertools.pairwise(calls)]
    assert min(steps) > 0.005, "no burst after the delay"
    assert timer.timer_period_ns == 20_000_000
    assert 0 < timer.time_until_next_call() <= 20_000_000


def test_simulated_time_drives_clock_and_timers(ros):
    node = ros.node("n", "-p", "use_sim_time:=true")
    calls = []
    node.create_timer(1.0, lambda: calls.append(node.get_clock().now().nanoseconds))
    driver = ros.node("driver")
    publisher = driver.create_publisher(
        ClockMsg, "/clock", QoSProfile(depth=10, reliability=ReliabilityPolicy.BEST_EFFORT)
    )
    assert spin_until(driver, publisher.get_subscription_count)
    assert node.get_clock().now().nanoseconds == 0

    executor = SingleThreadedExecutor(context=node.context)
    executor.add_node(node)

    def at(seconds):
        publisher.publish(ClockMsg(clock=Time(seconds=seconds).to_msg()))
        end = time.monotonic() + 5
        while node.get_clock().now().nanoseconds != seconds * S and time.monotonic() < end:
            executor.spin_once(timeout_sec=0.05)
        for _ in range(3):
            executor.spin_once(timeout_sec=0.02)
        assert node.get_clock().now().clock_type == ClockType.ROS_TIME

    for seconds in (0.5, 1.25, 1.75, 2.0, 9.5):
        at(seconds)
    assert calls == [int(1.25 * S), 2 * S, int(9.5 * S)]
    calls.clear()
    at(12.0)  # seen on Humble: the call of the very time is made, and one for those missed
    assert calls == [12 * S, 12 * S]
    calls.clear()
    at(3.0)  # back in time
    at(4.0)
    assert calls == [4 * S]
    time.sleep(0.1)
    executor.spin_once(timeout_sec=0.05)
    assert calls == [4 * S], "simulated time stands still when nobody drives it"


def test_simulated_time_can_be_switched(ros):
    node = ros.node()
    assert not node.get_clock().ros_time_is_active
    (result,) = node.set_parameters([Parameter("use_sim_time", value=True)])
    assert result.successful
    assert node.get_clock().now().nanoseconds == 0
    node.set_parameters([Parameter("use_sim_time", value=False)])
    assert abs(node.get_clock().now().nanoseconds - time.time_ns()) < S
    (result,) = node.set_parameters([Parameter("use_sim_time", value=1)])
    assert not result.successful
