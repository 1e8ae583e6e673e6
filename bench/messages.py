"""One process of the two that bench/run.py times messages between: messages.py ROLE COUNT.

`image` sends pictures and times their return from `echo`; `twist` sends a thousand commands a
second to `sink`, which times their arrival. The timing role prints its times as a JSON list.
"""

import array
import json
import sys
import time

import numpy as np
import rclpy
from geometry_msgs.msg import TwistStamped
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image

QOS = QoSProfile(depth=10)


def image(node: Node, executor: SingleThreadedExecutor, count: int) -> list[float]:
    """Send one picture at a time; return the round trips in ms."""
    noise = np.random.default_rng(0).integers(0, 255, 640 * 480 * 3, np.uint8)
    pixels = array.array("B", noise.tobytes())
    returned: list[Image] = []
    node.create_subscription(Image, "pong", returned.append, QOS)
    publisher = node.create_publisher(Image, "ping", QOS)
    wait_for(node, publisher, "pong")
    trips = []
    for _ in range(count):
        returned.clear()
        start = time.perf_counter_ns()
        message = Image(height=480, width=640, encoding="rgb8", step=1920)
        message.data = pixels
        publisher.publish(message)
        while not returned:
            executor.spin_once(timeout_sec=5.0)
        trips.append((time.perf_counter_ns() - start) / 1e6)
    return trips


def echo(node: Node, executor: SingleThreadedExecutor, count: int) -> list[float]:
    """Send every picture back."""
    publisher = node.create_publisher(Image, "pong", QOS)
    seen: list[int] = []

    def reply(message: Image) -> None:
        publisher.publish(message)
        seen.append(1)

    node.create_subscription(Image, "ping", reply, QOS)
    while len(seen) < count:
        executor.spin_once(timeout_sec=5.0)
    time.sleep(0.3)
    return []


def twist(node: Node, _executor: SingleThreadedExecutor, count: int) -> list[float]:
    """Send commands at 1 kHz, stamped with the clock that both processes read."""
    publisher = node.create_publisher(TwistStamped, "ping", QOS)
    wait_for(node, publisher, None)
    due = time.monotonic_ns()
    for _ in range(count):
        due += 1_000_000
        time.sleep(max(0.0, (due - time.monotonic_ns()) / 1e9))
        message = TwistStamped()
        now = time.monotonic_ns()
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(now, 1_000_000_000)
        publisher.publish(message)
    time.sleep(0.5)
    return []


def sink(node: Node, executor: SingleThreadedExecutor, count: int) -> list[float]:
    """Return how long each command took, in us."""
    times: list[float] = []

    def take(message: TwistStamped) -> None:
        stamp = message.header.stamp
        times.append((time.monotonic_ns() - stamp.sec * 1_000_000_000 - stamp.nanosec) / 1e3)

    node.create_subscription(TwistStamped, "ping", take, QOS)
    end = time.monotonic() + 30.0
    while len(times) < count and time.monotonic() < end:
        executor.spin_once(timeout_sec=1.0)
        if times and len(times) < count and node.count_publishers("ping") == 0:
            break
    return times


def wait_for(node: Node, publisher: object, reply_topic: str | None) -> None:
    """Wait until the other process has its ends of the topics."""
    end = time.monotonic() + 20.0
    while time.monotonic() < end:
        found = reply_topic is None or node.count_publishers(reply_topic) > 0
        if found and publisher.get_subscription_count() > 0:
            time.sleep(0.3)
            return
        time.sleep(0.01)
    sys.exit("the other process did not appear")


if __name__ == "__main__":
    rclpy.init()
    role = sys.argv[1]
    this = Node(f"bench_{role}")
    spinner = SingleThreadedExecutor()
    spinner.add_node(this)
    result = {"image": image, "echo": echo, "twist": twist, "sink": sink}[role](
        this, spinner, int(sys.argv[2])
    )
    print(json.dumps(result), flush=True)
    this.destroy_node()
    rclpy.shutdown()
