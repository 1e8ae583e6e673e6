"""Nodes in processes of their own: topics, services, parameters, signals, bad peers."""

import contextlib
import os
import random
import signal
import time

import pytest
from rcl_interfaces.msg import Log, ParameterEvent
from rcl_interfaces.srv import (
    DescribeParameters,
    GetParameters,
    GetParameterTypes,
    ListParameters,
    SetParameters,
    SetParametersAtomically,
)
from rclpy.parameter import Parameter, parameter_value_to_python
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy, qos_profile_sensor_data
from ros_processes import spin_until
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import String
from std_srvs.srv import SetBool, Trigger

LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


def call(node, client, request, timeout=10.0):
    assert client.wait_for_service(timeout)
    future = client.call_async(request)
    assert spin_until(node, future.done, timeout)
    return future.result()


# Topics


def test_messages_cross_processes_both_ways(ros, start):
    start(
        """
        rclpy.init()
        node = Node("echo")
        publisher = node.create_publisher(String, "back", 10)
        node.create_subscription(String, "forth", lambda m: publisher.publish(m), 10)
        rclpy.spin(node)
        """
    )
    node = ros.node()
    heard = []
    publisher = node.create_publisher(String, "forth", 10)
    node.create_subscription(String, "back", heard.append, 10)
    assert spin_until(
        node, lambda: publisher.get_subscription_count() and node.count_publishers("back")
    )
    texts = ["", "plain", "ünïcode ☃", "x" * 100_000]

    def sent_and_heard():
        if not heard:
            publisher.publish(String(data="first"))
        return bool(heard)

    assert spin_until(node, sent_and_heard)
    heard.clear()
    for text in texts:
        publisher.publish(String(data=text))
    assert spin_until(node, lambda: texts[-1] in [message.data for message in heard])
    assert [message.data for message in heard if message.data != "first"] == texts


def test_a_late_joiner_gets_the_latched_message(ros, start):
    program = start(
        """
        from rclpy.qos import QoSProfile, DurabilityPolicy
        rclpy.init()
        node = Node("latch")
        qos = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        publisher = node.create_publisher(String, "latched", qos)
        for text in ("old", "new"):
            publisher.publish(String(data=text))
        print("published")
        rclpy.spin(node)
        """
    )
    program.wait_for("published")
    node = ros.node()
    latched, volatile = [], []
    node.create_subscription(String, "latched", latched.append, LATCHED)
    assert spin_until(node, lambda: latched)
    # After the history came: within one participant, it may reach all readers of the topic.
    other = ros.node()
    subscription = other.create_subscription(String, "latched", volatile.append, 10)
    assert spin_until(other, subscription.get_publisher_count)
    spin_until(other, lambda: False, 0.2)
    assert [message.data for message in latched] == ["new"]
    assert volatile == []


def test_incompatible_qos_is_said_on_both_sides(ros, start, capfd):
    program = start(
        """
        from rclpy.qos import QoSProfile, ReliabilityPolicy
        rclpy.init()
        node = Node("sender")
        qos = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
        node.create_publisher(String, "chat", qos)
        rclpy.spin(node)
        """
    )
    node = ros.node()
    node.create_subscription(String, "chat", lambda _: None, 10)
    program.wait_for("requesting incompatible QoS. No messages will be sent to it. Last "
                     "incompatible policy: RELIABILITY")  # fmt: skip
    spin_until(node, lambda: False, 0.3)
    assert "offering incompatible QoS" in capfd.readouterr().err


def test_a_bad_peer_cannot_crash_a_node(ros, capfd):
    """Payloads of every kind of nonsense are dropped with an error; good ones still arrive."""
    node = ros.node("victim")
    good = []
    for topic, kind in (("chat", String), ("image", Image), ("joints", JointState)):
        node.create_subscription(kind, topic, good.append, QoSProfile(depth=1000))
    participant = ros.context().handle
    from vla_ros_standalone import dds, messages

    chance = random.Random(1)
    sent = 0
    for topic, kind in (("chat", String), ("image", Image), ("joints", JointState)):
        qos = dds.EndpointQos(depth=None)
        writer = participant.create_writer(f"rt/{topic}", messages.dds_type_name(kind), qos)
        assert spin_until(node, writer.matched)
        valid = messages.serialize(
            {
                String: String(data="hello"),
                Image: Image(height=2, width=2, encoding="rgb8", step=6, data=bytes(12)),
                JointState: JointState(name=["a", "b"], position=[1.0, 2.0]),
            }[kind]
        )
        payloads = [valid[:size] for size in range(5, len(valid))]
        payloads += [
            b"\x00\x01\x00\x00" + chance.randbytes(chance.randrange(1, 80)) for _ in range(100)
        ]
        payloads += [b"\x00\x01\x00\x00\xff\xff\xff\xff", b"\x00\x01\x00\x00" + b"\xff" * 200]
        payloads += [b"\x00\x07\x00\x00" + valid[4:], b"\x00\x03\x00\x00" + valid[4:]]
        for payload in payloads:
            # The library itself refuses some already.
            with contextlib.suppress(ValueError):
                sent += writer.write(payload)
        writer.write(valid)
    assert sent > 300
    assert spin_until(
        node, lambda: {type(message) for message in good} == {String, Image, JointState}
    )
    assert spin_until(node, lambda: bytes(good[-1].name[0].encode()) == b"a")
    complaints = capfd.readouterr().err.count("dropped a malformed message")
    assert 3 <= complaints <= 6, "said once for each publisher, not for each message"


# Services and parameters


def test_services_answer_in_order_and_to_the_right_client(ros, start):
    start(
        """
        from std_srvs.srv import SetBool
        rclpy.init()
        node = Node("server")
        def answer(request, response):
            response.success = request.data
            response.message = "yes" if request.data else "no"
            return response
        node.create_service(SetBool, "~/decide", answer)
        rclpy.spin(node)
        """
    )
    node = ros.node()
    clients = [node.create_client(SetBool, "/server/decide") for _ in range(2)]
    for client in clients:
        assert client.wait_for_service(10.0)
    futures = [
        (value, client.call_async(SetBool.Request(data=value)))
        for client, value in zip(clients * 5, [True, False] * 5, strict=True)
    ]
    assert spin_until(node, lambda: all(future.done() for _, future in futures))
    for value, future in futures:
        assert future.result().success is value
        assert future.result().message == ("yes" if value else "no")


def test_the_first_request_of_a_new_client_is_answered(ros, start):
    """A reply must not be sent before the client's reader is known: it would be lost."""
    program = start(
        """
        from std_srvs.srv import Trigger
        rclpy.init()
        node = Node("server")
        node.create_service(Trigger, "now", lambda _, r: Trigger.Response(success=True))
        print("ready")
        rclpy.spin(node)
        """
    )
    program.wait_for("ready")
    for _ in range(5):
        node = ros.node()
        client = node.create_client(Trigger, "now")
        assert call(node, client, Trigger.Request()).success
        node.context.try_shutdown()


def test_no_server_is_not_ready(ros):
    node = ros.node()
    client = node.create_client(Trigger, "nobody")
    start = time.monotonic()
    assert not client.wait_for_service(0.2)
    assert 0.15 < time.monotonic() - start < 2.0
    future = client.call_async(Trigger.Request())
    client.remove_pending_request(future)
    assert not future.done()


@pytest.fixture
def parameter_server(start):
    return start(
        """
        from rcl_interfaces.msg import ParameterDescriptor, IntegerRange
        rclpy.init()
        node = Node("server")
        ranged = ParameterDescriptor(
            description="how fast", integer_range=[IntegerRange(from_value=0, to_value=9, step=1)]
        )
        node.declare_parameter("speed", 3, ranged)
        node.declare_parameter("fixed", "x", ParameterDescriptor(read_only=True))
        node.declare_parameter("joint.names", ["a", "b"])
        node.declare_parameter("joint.limits", [1.0, 2.0])
        print("ready")
        rclpy.spin(node)
        """
    )


def test_every_parameter_service(ros, parameter_server):
    node = ros.node()
    events = []
    node.create_subscription(ParameterEvent, "/parameter_events", events.append, 10)

    def ask(kind, name, **fields):
        client = node.create_client(kind, f"/server/{name}")
        return call(node, client, kind.Request(**fields))

    listed = ask(ListParameters, "list_parameters").result
    assert set(listed.names) == {"use_sim_time", "speed", "fixed", "joint.names", "joint.limits"}
    assert listed.prefixes == ["joint"]
    values = ask(GetParameters, "get_parameters", names=["speed", "joint.names", "joint.limits"])
    read = [parameter_value_to_python(value) for value in values.values]
    assert read == [3, ["a", "b"], [1.0, 2.0]]
    assert ask(GetParameters, "get_parameters", names=["speed", "unknown"]).values == []
    types = ask(GetParameterTypes, "get_parameter_types", names=["speed", "joint.names"])
    assert list(types.types) == [2, 9]
    (described,) = ask(DescribeParameters, "describe_parameters", names=["speed"]).descriptors
    assert (described.name, described.type, described.description) == ("speed", 2, "how fast")
    assert described.integer_range[0].to_value == 9

    def messages(**values):
        return [Parameter(name, value=value).to_parameter_msg() for name, value in values.items()]

    results = ask(
        SetParameters, "set_parameters", parameters=messages(speed=10, fixed="y", unknown=1)
    ).results
    assert [result.successful for result in results] == [False, False, False]
    assert "out of range" in results[0].reason
    assert "read-only" in results[1].reason
    assert "unknown" in results[2].reason
    atomically = messages(speed=5, fixed="y")
    assert not ask(
        SetParametersAtomically, "set_parameters_atomically", parameters=atomically
    ).result.successful
    assert ask(SetParameters, "set_parameters", parameters=messages(speed=7)).results[0].successful
    values = ask(GetParameters, "get_parameters", names=["speed"]).values
    assert [value.integer_value for value in values] == [7]
    assert spin_until(node, lambda: any(event.changed_parameters for event in events))
    (event,) = [event for event in events if event.changed_parameters]
    assert (event.node, event.changed_parameters[0].value.integer_value) == ("/server", 7)


# Logs


def test_logs_have_ros_format_and_go_to_rosout(ros, start):
    node = ros.node()
    heard = []
    qos = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    node.create_subscription(Log, "/rosout", heard.append, qos)
    program = start(
        """
        rclpy.init()
        node = Node("talker", namespace="/robot")
        logger = node.get_logger()
        logger.debug("hidden")
        logger.warning("low battery")
        logger.get_child("part").error("broken")
        for number in range(3):
            logger.info("once", once=True)
            logger.info(f"not first {number}", skip_first=True)
            logger.info("throttled", throttle_duration_sec=60.0)
        rclpy.spin(node)
        """
    )
    assert spin_until(node, lambda: any(log.msg == "not first 2" for log in heard))
    import re

    line = r"^\[WARN\] \[\d{10}\.\d{9}\] \[robot\.talker\]: low battery$"
    assert re.search(line, program.output, re.MULTILINE)
    assert "[robot.talker.part]: broken" in program.output
    assert "hidden" not in program.output
    assert program.output.count("]: once") == 1
    assert program.output.count("not first") == 2
    assert program.output.count("throttled") == 1
    warning = next(log for log in heard if log.msg == "low battery")
    assert (warning.level, warning.name, warning.line > 0) == (30, "robot.talker", True)


def test_levels_come_from_the_command_line(start):
    code = """
        rclpy.init()
        node = Node("talker")
        node.get_logger().debug("fine detail")
        node.get_logger().info("news")
        rclpy.logging.get_logger("other").debug("of another")
        """
    chatty = start(code, "--ros-args", "--log-level", "talker:=debug")
    quiet = start(code, "--ros-args", "--log-level", "error")
    assert chatty.wait() == quiet.wait() == 0
    assert "fine detail" in chatty.output
    assert "of another" not in chatty.output
    assert "news" not in quiet.output


# Signals and ends

SPINNER = """
rclpy.init()
node = Node("spinner")
{extra}
try:
    print("ready")
    rclpy.spin(node)
    print("spin returned")
except KeyboardInterrupt:
    print("interrupted")
except ExternalShutdownException:
    print("shut down")
finally:
    print("ok:", rclpy.ok())
    node.destroy_node()
    rclpy.try_shutdown()
print("clean")
"""
BUSY = "node.create_timer(0.001, lambda: None)"


@pytest.mark.parametrize("extra", ["", BUSY], ids=["idle", "busy"])
@pytest.mark.parametrize(
    ("number", "word"), [(signal.SIGINT, "interrupted"), (signal.SIGTERM, "shut down")]
)
def test_signals_end_spin_as_in_rclpy(start, number, word, extra):
    program = start(SPINNER.format(extra=extra))
    program.wait_for("ready")
    time.sleep(0.1)
    begin = time.monotonic()
    assert program.end(number) == 0
    assert time.monotonic() - begin < 3.0
    assert word in program.output
    assert "ok: False" in program.output
    assert program.output.strip().endswith("clean")
    assert "Traceback" not in program.output


def test_the_second_copy_of_ctrl_c_does_not_disturb_the_end(start):
    """A terminal and a launcher both send SIGINT; the second must not cut cleaning up short."""
    program = start(
        """
        rclpy.init()
        node = Node("n")
        try:
            print("ready")
            rclpy.spin(node)
        except KeyboardInterrupt:
            print("cleaning")
            time.sleep(0.3)
            node.destroy_node()
            rclpy.try_shutdown()
            print("cleaned")
            time.sleep(0.3)
        """
    )
    program.wait_for("ready")
    program.process.send_signal(signal.SIGINT)
    program.wait_for("cleaning")
    program.process.send_signal(signal.SIGINT)
    program.wait_for("cleaned")
    assert program.end(signal.SIGINT) == 0
    assert "Traceback" not in program.output


def test_a_multithreaded_executor_ends_on_a_signal(start):
    program = start(
        """
        from rclpy.executors import MultiThreadedExecutor
        rclpy.init()
        node = Node("spinner")
        node.create_timer(0.005, lambda: None)
        executor = MultiThreadedExecutor(2)
        executor.add_node(node)
        try:
            print("ready")
            executor.spin()
        except (KeyboardInterrupt, ExternalShutdownException):
            pass
        finally:
            executor.shutdown()
            node.destroy_node()
            rclpy.try_shutdown()
        print("clean")
        """
    )
    program.wait_for("ready")
    assert program.end(signal.SIGINT) == 0
    assert program.output.strip().endswith("clean")


def test_the_programs_own_handler_is_called(start):
    """With SignalHandlerOptions.NO the program decides; with ALL its handler is called as well."""
    code = """
        import signal
        from rclpy.signals import SignalHandlerOptions
        signal.signal(signal.SIGINT, lambda *_: print("mine"))
        rclpy.init(signal_handler_options=getattr(SignalHandlerOptions, sys.argv[1]))
        node = Node("n")
        print("ready")
        for _ in range(3000):
            if not rclpy.ok():
                print("not ok")
                break
            try:
                rclpy.spin_once(node, timeout_sec=0.05)
            except ExternalShutdownException:
                continue
        """
    own, both = start(code, "NO"), start(code, "ALL")
    for program in (own, both):
        program.wait_for("ready")
        program.process.send_signal(signal.SIGINT)
    both.wait_for("not ok")
    both.wait_for("mine")
    assert both.wait() == 0
    own.wait_for("mine")
    assert own.process.poll() is None


def test_an_error_in_a_callback_ends_spin_with_it(start):
    program = start(
        """
        rclpy.init()
        node = Node("n")
        def fail(): raise ZeroDivisionError("from the callback")
        node.create_timer(0.01, fail)
        rclpy.spin(node)
        """
    )
    assert program.wait() == 1
    assert "ZeroDivisionError: from the callback" in program.output


def test_a_program_that_never_shuts_down_ends_well(start):
    program = start(
        """
        rclpy.init()
        node = Node("n")
        node.create_subscription(String, "x", print, 10)
        """
    )
    assert program.wait() == 0
    assert program.output == ""


# The graph


def test_others_are_seen_with_their_names_types_and_qos(ros, start):
    program = start(
        """
        from std_srvs.srv import Trigger
        from sensor_msgs.msg import Image
        from rclpy.qos import qos_profile_sensor_data
        rclpy.init()
        node = Node("camera", namespace="/robot")
        node.create_publisher(Image, "image", qos_profile_sensor_data)
        node.create_service(Trigger, "~/shoot", lambda q, r: r)
        rclpy.spin(node)
        """
    )
    node = ros.node("watcher")
    node.create_client(Trigger, "/robot/camera/shoot")
    assert node.wait_for_node("/robot/camera", 10.0)
    assert spin_until(node, lambda: node.count_services("/robot/camera/shoot"))
    assert ("camera", "/robot") in node.get_node_names_and_namespaces()
    assert ("watcher", "/", "/") in node.get_node_names_and_namespaces_with_enclaves()
    assert ("/robot/image", ["sensor_msgs/msg/Image"]) in node.get_topic_names_and_types()
    services = dict(node.get_service_names_and_types())
    assert services["/robot/camera/shoot"] == ["std_srvs/srv/Trigger"]
    assert services["/robot/camera/set_parameters"] == ["rcl_interfaces/srv/SetParameters"]
    assert node.count_clients("/robot/camera/shoot") == 1
    (info,) = node.get_publishers_info_by_topic("/robot/image")
    assert (info.node_name, info.node_namespace) == ("camera", "/robot")
    assert info.topic_type == "sensor_msgs/msg/Image"
    assert info.qos_profile.reliability is ReliabilityPolicy.BEST_EFFORT
    assert info.qos_profile.depth in (qos_profile_sensor_data.depth, 0)
    published = dict(node.get_publisher_names_and_types_by_node("camera", "/robot"))
    assert published["/robot/image"] == ["sensor_msgs/msg/Image"]
    served = dict(node.get_service_names_and_types_by_node("camera", "/robot"))
    assert "/robot/camera/shoot" in served
    assert program.end(signal.SIGTERM) in (0, 1)
    assert spin_until(node, lambda: "camera" not in node.get_node_names())


def test_a_killed_process_disappears(ros, start, environment):
    lease = (
        "<CycloneDDS><Domain><Discovery><LeaseDuration>1s</LeaseDuration>"
        "</Discovery></Domain></CycloneDDS>"
    )
    program = start(
        """
        rclpy.init()
        node = Node("victim")
        node.create_publisher(String, "chat", 10)
        rclpy.spin(node)
        """,
        CYCLONEDDS_URI=lease,
    )
    node = ros.node()
    assert node.wait_for_node("victim", 10.0)
    assert spin_until(node, lambda: node.count_publishers("chat"))
    program.process.kill()
    assert spin_until(
        node, lambda: not node.count_publishers("chat") and "victim" not in node.get_node_names()
    )


def test_two_nodes_of_one_name_are_told(start):
    code = 'rclpy.init(); node = Node("twin", namespace="/a"); rclpy.spin(node)'
    first = start(code)
    second = start(code)
    for program in (first, second):
        program.wait_for("there is another node named '/a/twin'")


def test_discovery_info_has_the_form_of_the_distribution(start, environment):
    """Humble's gids have 24 bytes, later ones 16; from Iron on, endpoints tell the type's hash."""
    code = """
        from rmw_dds_common.msg import Gid
        rclpy.init()
        node = Node("n")
        publisher = node.create_publisher(String, "chat", 10)
        (info,) = [i for i in node.handle.writers() if i.topic == "rt/chat"]
        print(len(Gid().data), info.qos.user_data.decode() or "none", node.get_node_names())
        """
    humble = start(code, ROS_DISTRO="humble", ROS_DOMAIN_ID=str(int(os.environ["ROS_DOMAIN_ID"])))
    jazzy = start(code, ROS_DISTRO="jazzy", ROS_DOMAIN_ID="20")
    assert humble.wait() == jazzy.wait() == 0
    assert "24 none" in humble.output
    assert (
        "16 typehash=RIHS01_df668c740482bbd48fb39d76a70dfd4bd59db1288021743503259e948f6b1a18;"
        in (jazzy.output)
    )
    assert "['n']" in jazzy.output
