"""Messages behave as rclpy's, and their encoding is that of the rest of the ROS 2 world."""

import copy
import math
import os
import pickle
import random
import struct
import subprocess
import sys
from array import array
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rosbags.interfaces import Nodetype
from rosbags.typesys import Stores, get_typestore

import vla_ros_standalone  # noqa: F401  (installs the import hook)
from vla_ros_standalone import messages
from vla_ros_standalone.finder import MESSAGE_PACKAGES
from vla_ros_standalone.messages import deserialize, get_interface, serialize

STORE = get_typestore(Stores.ROS2_HUMBLE)

EVERY_NAME = sorted(
    f"{package}/msg/{short}"
    for package in MESSAGE_PACKAGES
    for short in messages.names(package, "msg")
)
VARIED_NAMES = [
    *(f"std_msgs/msg/{name}" for name in ("Bool", "ByteMultiArray", "Empty", "Float32", "String")),
    *(f"sensor_msgs/msg/{name}" for name in ("CameraInfo", "CompressedImage", "Image", "Imu")),
    *(f"sensor_msgs/msg/{name}" for name in ("JointState", "LaserScan", "PointCloud2")),
    *(f"geometry_msgs/msg/{name}" for name in ("PoseWithCovariance", "Point32", "TwistStamped")),
    "diagnostic_msgs/msg/DiagnosticArray",
    "nav_msgs/msg/Path",
    "rcl_interfaces/msg/ParameterDescriptor",
    "rcl_interfaces/msg/ParameterValue",
    "rmw_dds_common/msg/ParticipantEntitiesInfo",
    "tf2_msgs/msg/TFMessage",
]


@pytest.fixture(autouse=True, scope="module")
def humble():
    assert messages.distro() == "humble", "these tests expect ROS_DISTRO unset or humble"


# As rclpy


def test_every_argument_is_optional_and_by_keyword():
    from geometry_msgs.msg import Quaternion, TwistStamped
    from sensor_msgs.msg import Image

    image = Image()
    assert (image.height, image.encoding, image.is_bigendian) == (0, "", 0)
    assert isinstance(image.data, array)
    assert image.data.typecode == "B"
    assert len(image.data) == 0
    assert (Quaternion().x, Quaternion().w) == (0.0, 1.0)
    assert TwistStamped().twist.linear.x == 0.0
    with pytest.raises(TypeError):
        Quaternion(1.0)
    with pytest.raises(TypeError, match="wide"):
        Image(wide=3)


def test_defaults_are_fresh_for_each_message():
    from nav_msgs.msg import Path
    from sensor_msgs.msg import JointState

    one, other = JointState(), JointState()
    one.name.append("a")
    one.position.append(1.0)
    one.header.frame_id = "x"
    assert (other.name, list(other.position), other.header.frame_id) == ([], [], "")
    Path().poses.append(None)
    assert Path().poses == []


def test_a_misspelt_field_is_refused():
    from sensor_msgs.msg import Image

    with pytest.raises(AttributeError):
        Image().hieght = 4
    with pytest.raises(AttributeError):
        Image().hieght  # noqa: B018


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [
        ("std_msgs/msg/Float64", "data", 1),  # rclpy takes no int where a float belongs
        ("std_msgs/msg/Float64", "data", np.float32(1)),
        ("std_msgs/msg/Float32", "data", 1e39),
        ("std_msgs/msg/Bool", "data", 1),
        ("std_msgs/msg/Int32", "data", 1.0),
        ("std_msgs/msg/Int32", "data", np.int32(1)),
        ("std_msgs/msg/Int8", "data", 128),
        ("std_msgs/msg/UInt8", "data", -1),
        ("std_msgs/msg/String", "data", b"text"),
        ("diagnostic_msgs/msg/DiagnosticStatus", "level", 1),
        ("sensor_msgs/msg/JointState", "position", [1, 2]),
        ("sensor_msgs/msg/JointState", "position", np.zeros(2)),
        ("sensor_msgs/msg/JointState", "position", array("f", [1.0])),
        ("sensor_msgs/msg/JointState", "name", "joint1"),
        ("sensor_msgs/msg/JointState", "name", [1]),
        ("sensor_msgs/msg/Image", "data", [256]),
        ("sensor_msgs/msg/CameraInfo", "k", [0.0] * 8),
        ("sensor_msgs/msg/CameraInfo", "k", np.zeros(9, np.float32)),
        ("geometry_msgs/msg/TwistStamped", "twist", None),
    ],
)
def test_a_wrong_value_is_refused_as_rclpy_refuses_it(name, field, value):
    with pytest.raises(AssertionError, match=f"'{field}'"):
        setattr(get_interface(name)(), field, value)


def test_what_rclpy_takes_is_taken():
    from sensor_msgs.msg import CameraInfo, Image, JointState

    state = JointState(position=np.array([1.0, 2.0]), velocity=[0, 1])
    assert state.position == array("d", [1.0, 2.0])
    assert state.velocity == array("d", [0.0, 1.0])
    state.effort = (0.5, np.float64(1.5))
    assert state.effort == array("d", [0.5, 1.5])
    for data in (b"\1\2", bytearray(b"\1\2"), [1, 2], array("B", [1, 2])):
        image = Image()
        image.data = data
        assert bytes(image.data) == b"\1\2"
    info = CameraInfo(k=range(9))
    assert isinstance(info.k, np.ndarray)
    assert info.k[8] == 8.0
    info.k = np.ones(9)
    assert info.k.sum() == 9
    mine = array("B", b"abc")
    image.data = mine
    assert image.data is mine  # no copy, as in rclpy


def test_constants_have_the_type_of_their_definition():
    from diagnostic_msgs.msg import DiagnosticStatus
    from rcl_interfaces.msg import Log, ParameterType
    from sensor_msgs.msg import PointField

    assert DiagnosticStatus.ERROR == b"\2"
    assert DiagnosticStatus(level=DiagnosticStatus.WARN).level == b"\1"
    assert ParameterType.PARAMETER_STRING_ARRAY == 9
    assert PointField.FLOAT32 == 7
    assert Log.WARN == b"\x1e"


def test_fields_and_types_are_named_as_in_idl():
    from diagnostic_msgs.msg import DiagnosticArray
    from rcl_interfaces.msg import ParameterDescriptor
    from sensor_msgs.msg import CameraInfo
    from std_msgs.msg import Empty

    assert DiagnosticArray.get_fields_and_field_types() == {
        "header": "std_msgs/Header",
        "status": "sequence<diagnostic_msgs/DiagnosticStatus>",
    }
    assert CameraInfo.get_fields_and_field_types()["k"] == "double[9]"
    ranges = ParameterDescriptor.get_fields_and_field_types()["floating_point_range"]
    assert ranges == "sequence<rcl_interfaces/FloatingPointRange, 1>"
    assert Empty.get_fields_and_field_types() == {}


def test_equality_repr_copy_and_pickle():
    from geometry_msgs.msg import PoseWithCovariance, Twist
    from std_msgs.msg import String

    assert repr(String(data="hi")) == "std_msgs.msg.String(data='hi')"
    assert String(data="a") == String(data="a") != String(data="b")
    assert Twist() != String()
    pose = PoseWithCovariance()
    pose.covariance[3] = 2.0
    assert pose != PoseWithCovariance()
    for twin in (copy.deepcopy(pose), pickle.loads(pickle.dumps(pose))):
        assert twin == pose
        twin.pose.position.x = 1.0
        assert pose.pose.position.x == 0.0


def test_services_have_request_and_response():
    from rcl_interfaces.msg import ParameterDescriptor, ParameterValue
    from rcl_interfaces.srv import DescribeParameters, GetParameters, ListParameters
    from std_srvs.srv import SetBool, Trigger

    assert Trigger.Response(success=True, message="x").message == "x"
    assert serialize(Trigger.Request())[4:] == b"\0"  # a message without fields is one octet
    assert messages.dds_type_name(SetBool.Request) == "std_srvs::srv::dds_::SetBool_Request_"
    assert ListParameters.Request.DEPTH_RECURSIVE == 0
    response = GetParameters.Response(values=[ParameterValue(type=4, string_value="a")])
    assert deserialize(serialize(response), GetParameters.Response) == response
    described = DescribeParameters.Response(descriptors=[ParameterDescriptor(name="x")])
    assert deserialize(serialize(described), DescribeParameters.Response) == described


def test_names_and_hashes():
    from std_msgs.msg import String
    from std_srvs.srv import SetBool

    assert messages.type_name(String) == "std_msgs/msg/String"
    assert messages.dds_type_name(String) == "std_msgs::msg::dds_::String_"
    # As `ros2 topic info --verbose` shows it on Iron and newer.
    digest = "df668c740482bbd48fb39d76a70dfd4bd59db1288021743503259e948f6b1a18"
    assert messages.type_hash(String) == f"RIHS01_{digest}"
    with pytest.raises(ValueError, match="humble"):  # it hashes no types and lacks service_msgs
        messages.type_hash(SetBool)


def test_hashes_are_those_that_ros_announces():
    out = python(
        "from vla_ros_standalone.messages import get_interface, type_hash\n"
        "print(type_hash(get_interface('rmw_dds_common/msg/ParticipantEntitiesInfo')))\n"
        "print(type_hash(get_interface('std_srvs/srv/SetBool')))\n",
        ROS_DISTRO="jazzy",
    )
    # The first is the constant in rmw_cyclonedds' and zenoh-bridge-ros2dds' sources.
    hashes = out.stdout.split()
    assert hashes[0].endswith("91a0593bacdcc50ea9bdcf849a938b128412cc1ea821245c663bcd26f83c295e")
    assert len(hashes[1]) == len("RIHS01_") + 64, out.stderr


def test_threads_get_the_same_class():
    code = (
        "from concurrent.futures import ThreadPoolExecutor\n"
        "import nav_msgs.msg, sys\n"
        "sys.setswitchinterval(1e-6)\n"
        "with ThreadPoolExecutor(8) as pool:\n"
        "    made = list(pool.map(lambda _: nav_msgs.msg.Odometry, range(8)))\n"
        "print(len({id(cls) for cls in made}))\n"
    )
    assert python(code).stdout.strip() == "1"


def test_an_unknown_type_is_named():
    with pytest.raises(ValueError, match="no_msgs/msg/Nothing"):
        get_interface("no_msgs/msg/Nothing")
    with pytest.raises(ImportError):
        from std_msgs.msg import Nothing  # noqa: F401


@pytest.mark.parametrize(
    ("distro", "gid"),
    [("humble", 24), ("iron", 16), ("jazzy", 16), ("kilted", 16), ("rolling", 16)],
)
def test_definitions_follow_the_distribution(distro, gid):
    code = "from rmw_dds_common.msg import Gid; print(len(Gid().data))"
    out = python(code, ROS_DISTRO=distro)
    assert out.stdout.strip() == str(gid), out.stderr


def test_an_unknown_distribution_is_an_error():
    out = python("import std_msgs.msg", ROS_DISTRO="zesty")
    assert "ROS_DISTRO=zesty" in out.stderr
    assert "humble" in out.stderr


def python(code: str, **environment: str) -> subprocess.CompletedProcess:
    clean = {k: v for k, v in os.environ.items() if k not in ("ROS_DISTRO", "AMENT_PREFIX_PATH")}
    return subprocess.run(
        [sys.executable, "-c", f"import vla_ros_standalone\n{code}"],
        env={**clean, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


# The wire


@cache
def limited_floats(width, limit):
    floats = st.floats(width=width, allow_nan=False)
    return floats if limit is None else floats.filter(lambda v: abs(v) <= limit or math.isinf(v))


@cache
def values(name: str):
    """Make a strategy for messages of a type, in this project's and in rosbags' classes."""
    cls = get_interface(name)
    known = list(cls._FIELDS)
    parts = st.tuples(*(field_values(f) for f in known))

    def build(pairs):
        extra = [0] if not known else []
        return (
            cls(**{f.name: mine for f, (mine, _) in zip(known, pairs, strict=True)}),
            STORE.types[name](*extra, *(theirs for _, theirs in pairs)),
        )

    return parts.map(build)


def field_values(field):
    if field.single:
        return one_value(field)
    if field.kind == Nodetype.ARRAY:
        sizes = {"min_size": field.length, "max_size": field.length}
    else:
        sizes = {"max_size": field.length or 3}
    return st.lists(one_value(field), **sizes).map(lambda pairs: many(field, pairs))


def many(field, pairs):
    mine, theirs = [p[0] for p in pairs], [p[1] for p in pairs]
    if field.primitive is None:
        return mine, theirs
    dtype = {"bool": "bool", "byte": "int8"}.get(field.base, field.primitive.dtype)
    return mine, np.array(theirs, dtype)


def one_value(field):
    if field.base == "string":
        return st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=9).map(twice)
    if field.base == "bool":
        return st.booleans().map(twice)
    if field.base == "byte":
        return st.integers(0, 127).map(lambda v: (bytes([v]), v))
    if field.base in ("float32", "float64"):
        width = int(field.base[5:])
        limit = 3.4e38 if width == 32 else None  # rclpy's own limit is a little less than float32's
        return limited_floats(width, limit).map(twice)
    if field.primitive is not None:
        return st.integers(*field.primitive.bounds).map(twice)
    return values(field.base)


def twice(value):
    return value, value


def test_every_type_has_the_bytes_of_rosbags():
    assert len(EVERY_NAME) > 140
    for name in EVERY_NAME:
        encoded = serialize(get_interface(name)())
        theirs = STORE.deserialize_cdr(encoded, name)
        assert bytes(STORE.serialize_cdr(theirs, name)) == encoded
        assert deserialize(encoded, get_interface(name)) == get_interface(name)()


@pytest.mark.parametrize("name", VARIED_NAMES)
@settings(max_examples=20, deadline=None, database=None)
@given(data=st.data())
def test_bytes_are_those_of_rosbags_both_ways(name, data):
    mine, theirs = data.draw(values(name))
    for little in (True, False):
        encoded = bytes(STORE.serialize_cdr(theirs, name, little_endian=little))
        if little:
            assert serialize(mine) == encoded
        decoded = deserialize(encoded, type(mine))
        assert decoded == mine
        assert serialize(decoded) == serialize(mine)


def samples():
    from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
    from geometry_msgs.msg import PoseStamped, PoseWithCovarianceStamped
    from nav_msgs.msg import Path
    from rcl_interfaces.msg import ParameterValue
    from sensor_msgs.msg import Image, JointState

    status = DiagnosticStatus(name="n", values=[KeyValue(key="k", value="v")])
    return [
        Image(height=2, width=3, step=9, encoding="rgb8", data=bytes(18)),
        JointState(name=["a", "bc"], position=[1.0, 2.0]),
        DiagnosticArray(status=[status, status]),
        Path(poses=[PoseStamped(), PoseStamped()]),
        PoseWithCovarianceStamped(),
        ParameterValue(bool_array_value=[True, False], byte_array_value=[b"\1"], string_value="x"),
    ]


def test_every_truncation_is_refused():
    for message in samples():
        encoded = serialize(message)
        for length in range(len(encoded)):
            with pytest.raises(ValueError):
                deserialize(encoded[:length], type(message))
        assert deserialize(encoded + b"\0\0\0", type(message)) == message
        with pytest.raises(ValueError, match="4 bytes too many"):
            deserialize(encoded + bytes(4), type(message))


@pytest.mark.parametrize("header", ["0002", "0003", "0100", "0102", "0007", "ff01"])
def test_another_encapsulation_is_refused(header):
    from std_msgs.msg import String

    encoded = bytes.fromhex(header) + serialize(String(data="x"))[2:]
    with pytest.raises(ValueError, match="not CDR"):
        deserialize(encoded, String)


def test_an_absurd_length_allocates_nothing():
    from diagnostic_msgs.msg import DiagnosticArray
    from sensor_msgs.msg import Image, JointState

    for cls, at in ((Image, 4 + 12), (JointState, 4 + 12), (DiagnosticArray, 4 + 12)):
        encoded = bytearray(serialize(cls()) + bytes(8))
        for value in (0xFFFFFFFF, 0x7FFFFFFF, 1 << 20):
            struct.pack_into("<I", encoded, at, value)
            with pytest.raises(ValueError):
                deserialize(encoded, cls)


def test_damaged_bytes_never_do_more_than_raise_value_error():
    generator = random.Random(7)
    refused = 0
    for message in samples():
        encoded = serialize(message)
        for _ in range(1500):
            damaged = bytearray(encoded)
            for _ in range(generator.randint(1, 6)):
                damaged[generator.randrange(2, len(damaged))] = generator.choice(
                    (0, 1, 127, 128, 255)
                )
            try:
                decoded = deserialize(damaged, type(message))
            except ValueError:
                refused += 1
            else:
                serialize(decoded)
        for _ in range(500):
            noise = b"\0\1\0\0" + generator.randbytes(generator.randint(0, 200))
            try:
                deserialize(noise, type(message))
            except ValueError:
                refused += 1
    assert refused > 1000


def test_bounds_hold_on_the_wire():
    from rcl_interfaces.msg import FloatingPointRange, ParameterDescriptor

    one = ParameterDescriptor(floating_point_range=[FloatingPointRange()])
    encoded = bytearray(serialize(one))
    at = encoded.index(b"\1\0\0\0", 16)
    encoded[at] = 2
    with pytest.raises(ValueError):
        deserialize(encoded + bytes(64), ParameterDescriptor)
    with pytest.raises(AssertionError, match="at most 1"):
        ParameterDescriptor(floating_point_range=[FloatingPointRange()] * 2)


def test_an_array_spoilt_in_place_is_a_value_error():
    from sensor_msgs.msg import JointState

    state = JointState()
    state.name.append(3)
    with pytest.raises(ValueError, match="JointState"):
        serialize(state)


def test_any_buffer_decodes_and_nothing_keeps_it():
    from sensor_msgs.msg import Image

    encoded = bytearray(serialize(Image(data=b"\1\2\3")))
    for kind in (bytes, bytearray, memoryview, lambda b: np.frombuffer(b, np.uint8)):
        assert bytes(deserialize(kind(encoded), Image).data) == b"\1\2\3"
    message = deserialize(encoded, Image)
    encoded[:] = bytes(len(encoded))
    assert bytes(message.data) == b"\1\2\3"
    assert np.frombuffer(message.data, np.uint8).sum() == 6
