"""Executors: what runs when, in which thread, and what stops them."""

import threading
import time

import pytest
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup, ReentrantCallbackGroup
from rclpy.exceptions import ROSInterruptException
from rclpy.executors import (
    ExternalShutdownException,
    MultiThreadedExecutor,
    SingleThreadedExecutor,
)
from rclpy.task import Future
from ros_processes import spin_until
from std_msgs.msg import String
from std_srvs.srv import Trigger


@pytest.fixture
def spinning(ros):
    """Spin nodes with a multi-threaded executor in the background; give the executor."""
    executors = []

    def spin(*nodes, threads=4):
        executor = MultiThreadedExecutor(threads, context=nodes[0].context)
        for node in nodes:
            executor.add_node(node)

        def run():
            try:
                executor.spin()
            except ExternalShutdownException:
                return

        thread = threading.Thread(target=run)
        thread.start()
        executors.append((executor, thread))
        return executor

    yield spin
    for executor, thread in executors:
        assert executor.shutdown(5.0)
        thread.join(5.0)
        assert not thread.is_alive()


def test_spin_once_waits_at_most_as_long_as_told(ros):
    node = ros.node()
    executor = SingleThreadedExecutor(context=node.context)
    executor.add_node(node)
    for timeout, most in ((0, 0.2), (0.1, 1.0)):
        start = time.monotonic()
        executor.spin_once(timeout_sec=timeout)
        assert timeout <= time.monotonic() - start < most


def test_one_spin_once_runs_one_callback(ros):
    node = ros.node()
    ran = []
    for number in range(3):
        node.create_guard_condition(lambda number=number: ran.append(number)).trigger()
    executor = SingleThreadedExecutor(context=node.context)
    executor.add_node(node)
    for count in range(1, 4):
        executor.spin_once(timeout_sec=1.0)
        assert len(ran) == count
    assert sorted(ran) == [0, 1, 2]


def test_a_service_answers_after_the_messages_that_came_before(ros):
    """As in rclpy, whose executor takes one message of each subscription, then one request."""
    asker, node = ros.node("asker"), ros.node("node")
    order = []
    topics = [f"topic{i}" for i in range(8)]

    def answer(_, response):
        order.append("asked")
        return response

    # Made first: it is the order in a round that counts, not that of the making.
    node.create_service(Trigger, "ask", answer)
    for topic in topics:
        node.create_subscription(String, topic, lambda m: order.append(m.data), 10)
    publishers = [asker.create_publisher(String, topic, 10) for topic in topics]
    client = asker.create_client(Trigger, "ask")
    assert spin_until(asker, lambda: all(p.get_subscription_count() for p in publishers))
    assert spin_until(asker, client.service_is_ready)
    for round_ in range(20):
        for publisher in publishers:
            publisher.publish(String(data="told"))
        future = client.call_async(Trigger.Request())
        time.sleep(0.01)
        executor = SingleThreadedExecutor(context=node.context)
        executor.add_node(node)
        while "asked" not in order:
            executor.spin_once(timeout_sec=1.0)
        executor.remove_node(node)
        assert order == ["told"] * len(topics) + ["asked"], round_
        order.clear()
        assert spin_until(asker, future.done)


def test_a_flood_of_messages_and_a_fast_timer_do_not_starve_each_other(ros):
    node = ros.node()
    counts = {"messages": 0, "ticks": 0}

    def count(what):
        counts[what] += 1
        time.sleep(0.003)

    node.create_subscription(String, "flood", lambda _: count("messages"), 100)
    node.create_timer(0.001, lambda: count("ticks"))
    publisher = node.create_publisher(String, "flood", 100)
    for _ in range(100):
        publisher.publish(String())
    executor = SingleThreadedExecutor(context=node.context)
    executor.add_node(node)
    end = time.monotonic() + 0.6
    while time.monotonic() < end:
        executor.spin_once(timeout_sec=0.1)
    assert counts["messages"] > 20
    assert counts["ticks"] > 20


def test_an_entity_made_while_spinning_is_served(ros, spinning):
    node = ros.node()
    spinning(node)
    ran = threading.Event()
    time.sleep(0.1)
    timer = node.create_timer(0.01, ran.set)
    assert ran.wait(5.0)
    timer.cancel()
    time.sleep(0.05)
    ran.clear()
    assert not ran.wait(0.1)
    timer.reset()
    assert ran.wait(5.0)


def test_a_failing_callback_raises_from_a_multithreaded_spin(ros):
    node = ros.node()

    def fail():
        raise ZeroDivisionError

    node.create_timer(0.01, fail)
    executor = MultiThreadedExecutor(2, context=node.context)
    executor.add_node(node)
    with pytest.raises(ZeroDivisionError):
        executor.spin()
    assert executor.shutdown(5.0)


def overlap(node, spinning, groups):
    """Return the most callbacks that ran at the same time, one timer for each group."""
    lock, state = threading.Lock(), {"now": 0, "most": 0, "runs": 0}

    def work():
        with lock:
            state["now"] += 1
            state["most"] = max(state["most"], state["now"])
        time.sleep(0.03)
        with lock:
            state["now"] -= 1
            state["runs"] += 1

    for group in groups:
        node.create_timer(0.005, work, callback_group=group)
    spinning(node)
    end = time.monotonic() + 10
    while state["runs"] < 12 and time.monotonic() < end:
        time.sleep(0.01)
    assert state["runs"] >= 12
    return state["most"]


def test_a_mutually_exclusive_group_runs_one_at_a_time(ros, spinning):
    group = MutuallyExclusiveCallbackGroup()
    assert overlap(ros.node(), spinning, [group, group, group]) == 1


def test_exclusive_groups_run_beside_each_other(ros, spinning):
    groups = [MutuallyExclusiveCallbackGroup() for _ in range(3)]
    assert overlap(ros.node(), spinning, groups) == 3


def test_a_reentrant_group_runs_a_callback_beside_itself(ros, spinning):
    assert overlap(ros.node(), spinning, [ReentrantCallbackGroup()]) > 1


def test_a_slow_callback_does_not_hold_up_another_group(ros, spinning):
    node = ros.node()
    released, ticks = threading.Event(), []
    node.create_guard_condition(lambda: released.wait(10.0)).trigger()
    node.create_timer(0.01, lambda: ticks.append(1), MutuallyExclusiveCallbackGroup())
    spinning(node, threads=2)
    end = time.monotonic() + 5
    while len(ticks) < 10 and time.monotonic() < end:
        time.sleep(0.01)
    released.set()
    assert len(ticks) >= 10


def test_a_blocking_call_in_a_callback_works_with_groups(ros, spinning):
    node = ros.node()
    node.create_service(
        Trigger, "serve", lambda _, response: response, callback_group=ReentrantCallbackGroup()
    )
    client = node.create_client(Trigger, "serve", callback_group=ReentrantCallbackGroup())
    assert client.wait_for_service(5.0)
    answers = []
    guard = node.create_guard_condition(
        lambda: answers.append(client.call(Trigger.Request(), timeout_sec=5.0))
    )
    spinning(node)
    guard.trigger()
    end = time.monotonic() + 6
    while not answers and time.monotonic() < end:
        time.sleep(0.01)
    assert isinstance(answers[0], Trigger.Response)


def test_a_call_without_an_answer_times_out(ros, spinning):
    node = ros.node()
    spinning(node)
    with pytest.raises(TimeoutError, match="nobody"):
        node.create_client(Trigger, "nobody").call(Trigger.Request(), timeout_sec=0.1)


def test_coroutines_wait_for_futures(ros):
    """An async callback gives way while it waits, and its group stays taken."""
    node = ros.node()
    node.create_service(
        Trigger, "serve", lambda _, r: Trigger.Response(success=True, message="done")
    )
    client = node.create_client(Trigger, "serve", callback_group=ReentrantCallbackGroup())
    assert client.wait_for_service(5.0)
    answers = []
    asked = MutuallyExclusiveCallbackGroup()

    async def ask():
        timer.cancel()
        response = await client.call_async(Trigger.Request())
        answers.append(response.message)

    timer = node.create_timer(0.01, ask, asked)
    assert spin_until(node, lambda: answers)
    assert answers == ["done"]


def test_an_async_service_may_wait(ros):
    node = ros.node()
    gate = Future()

    async def serve(_, response):
        response.message = await gate
        return response

    node.create_service(Trigger, "serve", serve)
    client = node.create_client(Trigger, "serve")
    assert client.wait_for_service(5.0)
    future = client.call_async(Trigger.Request())
    opener = node.create_timer(0.1, lambda: gate.done() or gate.set_result("opened"),
                               ReentrantCallbackGroup())  # fmt: skip
    # The client shares the node's exclusive group with the service: it needs its own to be heard
    # only after the service has ended, which is what happens here.
    assert spin_until(node, future.done)
    assert future.result().message == "opened"
    opener.cancel()


def test_tasks_and_their_results(ros):
    node = ros.node()
    executor = SingleThreadedExecutor(context=node.context)
    task = executor.create_task(lambda a, b: a + b, 1, b=2)
    executor.spin_until_future_complete(task, 5.0)
    assert task.result() == 3
    heard = []
    task.add_done_callback(lambda done: heard.append(done.result()))
    for _ in range(3):
        executor.spin_once(timeout_sec=0.1)
    assert heard == [3]
    future = Future()
    start = time.monotonic()
    executor.spin_until_future_complete(future, 0.1)
    assert not future.done()
    assert time.monotonic() - start < 2.0
    threading.Timer(0.1, future.set_result, [7]).start()
    executor.spin_until_future_complete(future, 10.0)
    assert future.result() == 7


def test_shutdown_of_the_context_ends_a_spin_in_another_thread(ros):
    node = ros.node()
    executor = SingleThreadedExecutor(context=node.context)
    executor.add_node(node)
    ended = []

    def run():
        try:
            executor.spin()
        except ExternalShutdownException:
            ended.append("external")

    thread = threading.Thread(target=run)
    thread.start()
    time.sleep(0.1)
    node.context.try_shutdown()
    thread.join(5.0)
    assert ended == ["external"]


def test_rates_sleep_to_the_tick_and_end_with_the_context(ros, spinning):
    node = ros.node()
    spinning(node)
    rate = node.create_rate(50)
    rate.sleep()
    start = time.monotonic()
    for _ in range(5):
        rate.sleep()
    assert 0.07 < time.monotonic() - start < 1.0
    threading.Timer(0.05, node.context.try_shutdown).start()

    def sleep_on():
        for _ in range(1000):
            rate.sleep()

    with pytest.raises(ROSInterruptException):
        sleep_on()


def test_entities_and_nodes_may_end_in_their_own_callbacks(ros):
    node, heard = ros.node(), []

    def once():
        heard.append("timer")
        node.destroy_timer(timer)

    timer = node.create_timer(0.01, once)
    assert spin_until(node, lambda: heard)
    spin_until(node, lambda: False, 0.1)
    assert heard == ["timer"]
    node.create_timer(0.01, lambda: (heard.append("node"), node.destroy_node()))
    assert spin_until(node, lambda: heard[-1] == "node")
    spin_until(node, lambda: False, 0.05)
    assert heard == ["timer", "node"]


def test_subclasses_choose_their_private_names_freely(ros):
    """What rclpy's Node does not use, a subclass may: its own executor, names, helpers."""
    from rclpy.node import Node

    class Mine(Node):
        _executor = _name = _namespace = _destroyed = _arguments = "mine"

        def _declare(self):
            raise AssertionError

        _resolve = _destroy = _announce = _objection = _group = _endpoints = _declare

    node = Mine("n", context=ros.context())
    node.declare_parameter("p", 1)
    heard = []
    node.create_subscription(String, "chat", heard.append, 1)
    node.create_publisher(String, "chat", 1).publish(String())
    assert spin_until(node, lambda: heard)
    node.destroy_node()
