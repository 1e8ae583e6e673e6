"""Nodes in this process: names, command lines, parameters and what refuses them."""

import numpy as np
import pytest
import rclpy
import ros_processes
from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    SetParametersResult,
)
from rclpy import _arguments, exceptions
from rclpy.exceptions import RCLError, UnknownROSArgsError
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile
from std_msgs.msg import String

Type = Parameter.Type


# Names


@pytest.mark.parametrize("name", ["", "1node", "no-dash", "a/b", "x" * 256])
def test_a_bad_node_name_is_refused(ros, name):
    with pytest.raises(exceptions.InvalidNodeNameException):
        ros.node(name)


@pytest.mark.parametrize("namespace", ["/a//b", "/1a", "/a-b", "/a/"])
def test_a_bad_namespace_is_refused(ros, namespace):
    with pytest.raises(exceptions.InvalidNamespaceException):
        ros.node("n", namespace=namespace)


@pytest.mark.parametrize("topic", ["", "a//b", "a/", "1a", "a b", "a~", "~a", "a/{unknown}"])
def test_a_bad_topic_name_is_refused(ros, topic):
    with pytest.raises(exceptions.InvalidTopicNameException):
        ros.node().create_publisher(String, topic, 1)


@pytest.mark.parametrize(
    ("given", "full"),
    [
        ("chat", "/ns/chat"),
        ("/chat", "/chat"),
        ("~/chat", "/ns/node/chat"),
        ("~", "/ns/node"),
        ("{node}/x", "/ns/node/x"),
        ("{ns}/x", "/ns/x"),
    ],
)
def test_names_become_absolute(ros, given, full):
    node = ros.node("node", namespace="ns")
    assert node.resolve_topic_name(given) == full
    assert node.create_publisher(String, given, 1).topic_name == full


# Command lines


def test_remaps_of_names_node_and_namespace(ros):
    node = ros.node(
        "node", "-r", "__node:=other", "-r", "__ns:=/robot", "-r", "chat:=talk",
        "-r", "~/own:=/elsewhere", "-r", "/absolute:=relative",
    )  # fmt: skip
    assert node.get_fully_qualified_name() == "/robot/other"
    assert node.get_logger().name == "robot.other"
    assert node.resolve_topic_name("chat") == "/robot/talk"
    assert node.resolve_topic_name("/robot/chat") == "/robot/talk"
    assert node.resolve_topic_name("~/own") == "/elsewhere"
    assert node.resolve_topic_name("/absolute") == "/robot/relative"
    assert node.resolve_service_name("chat") == "/robot/talk"
    assert node.resolve_topic_name("chat", only_expand=True) == "/robot/chat"


def test_rules_for_one_node_and_for_services_only(ros):
    context = ros.context(
        "-r", "a:chat:=for_a", "-r", "rosservice://serve:=served", "-r", "chat:=for_all"
    )
    a, b = ros.node("a", context=context), ros.node("b", context=context)
    assert a.resolve_topic_name("chat") == "/for_a"
    assert b.resolve_topic_name("chat") == "/for_all"
    assert a.resolve_topic_name("serve") == "/serve"
    assert a.resolve_service_name("serve") == "/served"


def test_arguments_of_one_node_come_before_the_process(ros):
    context = ros.context("-r", "chat:=global", "-p", "x:=1", "-r", "__node:=global_name")
    node = ros.node(
        "n", context=context, cli_args=["-r", "chat:=local", "-p", "x:=2", "-r", "__node:=mine"]
    )
    assert node.resolve_topic_name("chat") == "/local"
    assert node.declare_parameter("x", 0).value == 2
    assert node.get_name() == "mine"
    alone = ros.node("n", context=context, use_global_arguments=False)
    assert alone.resolve_topic_name("chat") == "/chat"
    assert alone.get_name() == "n"


def test_words_that_are_not_ros_are_left(ros):
    words = ["prog", "-x", "--ros-args", "-p", "a:=1", "--", "after", "--ros-args", "-r", "a:=b"]
    assert _arguments.remove_ros_args(words) == ["prog", "-x", "after"]
    assert _arguments.parse(words).other == ["prog", "-x", "after"]


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--nonsense"], "--nonsense"),
        (["-r", "no_separator"], "no_separator"),
        (["-r"], "needs a value"),
        (["-p", "x"], "-p x"),
        (["-p", "x:=[1, two]"], "'x'"),
        (["-p", "x:=[1, 2.0]"], "write 1.0"),
        (["-p", "x:={a: 1}"], "'x'"),
        (["-p", "x:=[1"], "-p x"),
        (["-p", f"x:={2**63}"], "64 bits"),
        (["--log-level", "loud"], "loud"),
        (["--params-file", "/nowhere.yaml"], "/nowhere.yaml"),
    ],
)
def test_a_wrong_argument_is_named(ros, words, complaint):
    with pytest.raises((RCLError, UnknownROSArgsError)) as error:
        ros.context(*words)
    assert complaint in str(error.value)


# Parameter files

FILE = """
/**:
  ros__parameters:
    everywhere: 1
    nested: {deep: {er: [1.0, 2.5e-3]}}
    small: 1e-3
    overridden: all
node:
  ros__parameters: {overridden: mine, text: "no", flag: no}
/ns/node:
  ros__parameters: {absolute: true}
ns:
  node:
    ros__parameters: {spelled_out: 5}
  other:
    ros__parameters: {foreign: 1}
/*/node:
  ros__parameters: {star: 1}
/**/node:
  ros__parameters: {double_star: 1}
"""


def read(ros, tmp_path, name, namespace, *more):
    path = tmp_path / "p.yaml"
    path.write_text(FILE)
    node = ros.node(
        name, "--params-file", str(path), *more, namespace=namespace,
        automatically_declare_parameters_from_overrides=True,
    )  # fmt: skip
    values = {name: p.value for name, p in node.get_parameters_by_prefix("").items()}
    del values["use_sim_time"]
    return values


def test_sections_of_a_file_apply_by_node_name(ros, tmp_path):
    common = {"everywhere": 1, "nested.deep.er": [1.0, 0.0025], "small": 0.001}
    assert read(ros, tmp_path, "node", "/") == {
        **common, "overridden": "mine", "text": "no", "flag": False, "double_star": 1,
    }  # fmt: skip
    assert read(ros, tmp_path, "node", "/ns") == {
        **common, "overridden": "all", "absolute": True, "spelled_out": 5, "star": 1,
        "double_star": 1,
    }  # fmt: skip


def test_what_stands_later_wins(ros, tmp_path):
    assert read(ros, tmp_path, "node", "/", "-p", "small:=2.0")["small"] == 2.0
    assert read(ros, tmp_path, "node", "/", "-p", "node:small:=3.0")["small"] == 3.0
    assert read(ros, tmp_path, "node", "/", "-p", "other:small:=3.0")["small"] == 0.001


@pytest.mark.parametrize(
    "text", ["[1, 2]", "node: 5", "node: {ros__parameters: [1]}", "a: [", "node: {x: 1}"]
)
def test_a_file_that_is_no_parameter_file_is_named(ros, tmp_path, text):
    path = tmp_path / "broken.yaml"
    path.write_text(text)
    with pytest.raises(RCLError, match=r"broken\.yaml"):
        ros.node("n", "--params-file", str(path))


# Parameters


@pytest.mark.parametrize(
    ("value", "type_"),
    [
        (True, Type.BOOL),
        (1, Type.INTEGER),
        (1.0, Type.DOUBLE),
        ("x", Type.STRING),
        ([b"a"], Type.BYTE_ARRAY),
        ([True, False], Type.BOOL_ARRAY),
        ([1, 2], Type.INTEGER_ARRAY),
        ([1.0, 2.0], Type.DOUBLE_ARRAY),
        (["a"], Type.STRING_ARRAY),
    ],
)
def test_every_type_survives_declaration_and_the_message(ros, value, type_):
    parameter = ros.node().declare_parameter("p", value)
    assert (parameter.value, parameter.type_) == (value, type_)
    copy = Parameter.from_parameter_msg(parameter.to_parameter_msg())
    assert (copy.name, copy.type_) == ("p", type_)
    assert (list(copy.value) if isinstance(value, list) else copy.value) == value


@pytest.mark.parametrize("value", [[1, 2.0], [True, 1], {"a": 1}, object(), [None]])
def test_a_value_without_a_type_is_refused(ros, value):
    with pytest.raises(TypeError):
        ros.node().declare_parameter("p", value)


def test_the_type_is_fixed_unless_dynamic(ros):
    node = ros.node("n", "-p", "rate:=100")
    with pytest.raises(exceptions.InvalidParameterTypeException, match="expecting type 'DOUBLE'"):
        node.declare_parameter("rate", 50.0)
    node.declare_parameter("free", None, ParameterDescriptor(dynamic_typing=True))
    assert node.get_parameter("free").value is None
    for value in (1, "text", [1.0]):
        (result,) = node.set_parameters([Parameter("free", value=value)])
        assert result.successful
        assert node.get_parameter("free").value == value
    node.declare_parameter("fixed", 1)
    (result,) = node.set_parameters([Parameter("fixed", value="text")])
    assert not result.successful
    assert "Wrong parameter type" in result.reason


def test_a_type_without_a_default_waits_for_a_value(ros):
    node = ros.node("n", "-p", "given:=[]")
    node.declare_parameter("missing", Type.DOUBLE)
    with pytest.raises(exceptions.ParameterUninitializedException, match="missing"):
        node.get_parameter("missing")
    alternative = Parameter("missing", value=3.0)
    assert node.get_parameter_or("missing", alternative) is alternative
    assert node.declare_parameter("given", Type.STRING_ARRAY).type_ is Type.STRING_ARRAY


def test_ranges_hold_at_declaration_and_later(ros):
    node = ros.node("n", "-p", "bad:=11")
    ranged = ParameterDescriptor(integer_range=[IntegerRange(from_value=0, to_value=10, step=2)])
    with pytest.raises(exceptions.InvalidParameterValueException, match="out of range"):
        node.declare_parameter("bad", 4, ranged)
    assert not node.has_parameter("bad")
    node.declare_parameter("even", 4, ranged)
    node.declare_parameter(
        "share",
        0.5,
        ParameterDescriptor(
            floating_point_range=[FloatingPointRange(from_value=0.0, to_value=1.0, step=0.1)]
        ),
    )
    for name, value, fits in (
        ("even", 10, True), ("even", 3, False), ("even", -2, False),
        ("share", 0.3, True), ("share", 0.35, False), ("share", 1.01, False), ("share", 1.0, True),
    ):  # fmt: skip
        (result,) = node.set_parameters([Parameter(name, value=value)])
        assert result.successful is fits, (name, value, result.reason)


def test_read_only_and_undeclared_parameters(ros):
    node = ros.node()
    node.declare_parameter("fixed", 1, ParameterDescriptor(read_only=True))
    (result,) = node.set_parameters([Parameter("fixed", value=2)])
    assert not result.successful
    assert "read-only" in result.reason
    with pytest.raises(exceptions.ParameterImmutableException):
        node.undeclare_parameter("fixed")
    with pytest.raises(exceptions.ParameterNotDeclaredException):
        node.get_parameter("unknown")
    with pytest.raises(exceptions.ParameterNotDeclaredException):
        node.set_parameters([Parameter("unknown", value=2)])
    with pytest.raises(exceptions.ParameterAlreadyDeclaredException):
        node.declare_parameter("fixed", 1)
    loose = ros.node("loose", allow_undeclared_parameters=True)
    assert loose.get_parameter("unknown").value is None
    assert loose.set_parameters([Parameter("unknown", value=2)])[0].successful


def test_callbacks_refuse_and_hear_changes(ros):
    node = ros.node()
    node.declare_parameters("group", [("a", 1), ("b", 2)])
    heard = []

    def check(parameters):
        fine = all(parameter.value < 10 for parameter in parameters)
        return SetParametersResult(successful=fine, reason="" if fine else "too large")

    node.add_on_set_parameters_callback(check)
    node.add_post_set_parameters_callback(heard.extend)
    new = [Parameter("group.a", value=5), Parameter("group.b", value=50)]
    assert not node.set_parameters_atomically(new).successful
    assert node.get_parameter("group.a").value == 1
    assert [result.successful for result in node.set_parameters(new)] == [True, False]
    assert node.get_parameter("group.a").value == 5
    assert [parameter.name for parameter in heard] == ["group.a"]
    node.remove_on_set_parameters_callback(check)
    assert node.set_parameters([new[1]])[0].successful


def test_lists_and_prefixes(ros):
    node = ros.node()
    node.declare_parameters("", [("a", 1), ("b.c", 2), ("b.d.e", 3)])
    result = node.list_parameters([], 0)
    assert set(result.names) == {"use_sim_time", "a", "b.c", "b.d.e"}
    assert set(result.prefixes) == {"b", "b.d"}
    assert node.list_parameters(["b"], 1).names == ["b.c"]
    assert set(node.list_parameters(["b"], 0).names) == {"b.c", "b.d.e"}
    assert set(node.get_parameters_by_prefix("b")) == {"c", "d.e"}


# Entities


def test_wrong_uses_are_refused(ros):
    node = ros.node()
    publisher = node.create_publisher(String, "chat", 1)
    with pytest.raises(TypeError, match="Expected"):
        publisher.publish("text")
    with pytest.raises(TypeError, match="QoSProfile or int"):
        node.create_publisher(String, "chat", "ten")
    with pytest.raises(exceptions.NoTypeSupportImportedException):
        node.create_publisher(int, "chat", 1)
    with pytest.raises(ValueError, match="cannot be negative"):
        QoSProfile(depth=-1)
    with pytest.raises(RuntimeError, match="one argument"):
        node.create_subscription(String, "chat", lambda: None, 1)


def test_use_before_init_and_after_shutdown(environment, ros):
    with pytest.raises(exceptions.NotInitializedException):
        rclpy.create_node("n", context=rclpy.Context())
    node = ros.node()
    publisher = node.create_publisher(String, "chat", 1)
    node.context.try_shutdown()
    node.context.try_shutdown()
    with pytest.raises(RCLError, match="context is invalid"):
        publisher.publish(String())
    with pytest.raises(RCLError, match="already called"):
        node.context.shutdown()
    node.destroy_node()
    node.destroy_node()


def test_init_says_what_is_wrong_with_the_domain(environment):
    environment.setenv("ROS_DOMAIN_ID", "999")
    with pytest.raises(RCLError, match="ROS_DOMAIN_ID=999"):
        rclpy.Context().init([])
    with pytest.raises(RCLError, match=r"0\.\.232"):
        rclpy.Context().init([], domain_id=-1)


def test_destroyed_entities_are_gone(ros):
    node = ros.node()
    heard = []
    publisher = node.create_publisher(String, "chat", 1)
    subscription = node.create_subscription(String, "chat", heard.append, 1)
    assert node.count_subscribers("chat") == 1
    assert node.destroy_subscription(subscription)
    assert not node.destroy_subscription(subscription)
    assert node.count_subscribers("chat") == 0
    publisher.publish(String())
    timer = node.create_timer(0.01, lambda: heard.append(1))
    assert node.destroy_timer(timer)
    assert not ros_processes.spin_until(node, lambda: heard, 0.1)
    assert node.destroy_publisher(publisher)
    with pytest.raises(exceptions.InvalidHandle):
        publisher.publish(String())


def test_arrays_may_come_from_anywhere(ros):
    """What a node assigns to a sequence arrives, whatever holds it."""
    from array import array

    from sensor_msgs.msg import Image

    node = ros.node()
    heard = []
    node.create_subscription(Image, "image", heard.append, 10)
    publisher = node.create_publisher(Image, "image", 10)
    pixels = np.arange(30000, dtype=np.uint8).reshape(100, 100, 3)
    forms = [pixels.tobytes(), bytearray(pixels.tobytes()), array("B", pixels.tobytes())]
    for data in forms:
        publisher.publish(Image(height=100, width=100, encoding="rgb8", step=300, data=data))
    assert ros_processes.spin_until(node, lambda: len(heard) == len(forms))
    for message in heard:
        assert bytes(message.data) == pixels.tobytes()
        assert len(message.data) == pixels.size
        assert np.array_equal(np.frombuffer(message.data, np.uint8), pixels.ravel())
