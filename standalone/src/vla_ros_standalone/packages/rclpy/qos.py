"""Quality of service: policies, profiles and ROS's presets."""

from enum import IntEnum

from rclpy.duration import Duration, Infinite
from vla_ros_standalone.dds import EndpointQos


class QoSPolicyKind(IntEnum):
    """The policies, with the values of rmw_qos_policy_kind_t."""

    INVALID = 1 << 0
    DURABILITY = 1 << 1
    DEADLINE = 1 << 2
    LIVELINESS = 1 << 3
    RELIABILITY = 1 << 4
    HISTORY = 1 << 5
    LIFESPAN = 1 << 6
    DEPTH = 1 << 7
    LIVELINESS_LEASE_DURATION = 1 << 8
    AVOID_ROS_NAMESPACE_CONVENTIONS = 1 << 9


def qos_policy_name_from_kind(policy_kind):
    return QoSPolicyKind(policy_kind).name


class InvalidQoSProfileException(Exception):
    def __init__(self, *args):
        super().__init__("Invalid QoSProfile", *args)


class HistoryPolicy(IntEnum):
    SYSTEM_DEFAULT = 0
    KEEP_LAST = 1
    KEEP_ALL = 2
    UNKNOWN = 3


class ReliabilityPolicy(IntEnum):
    SYSTEM_DEFAULT = 0
    RELIABLE = 1
    BEST_EFFORT = 2
    UNKNOWN = 3
    BEST_AVAILABLE = 4


class DurabilityPolicy(IntEnum):
    SYSTEM_DEFAULT = 0
    TRANSIENT_LOCAL = 1
    VOLATILE = 2
    UNKNOWN = 3
    BEST_AVAILABLE = 4


class LivelinessPolicy(IntEnum):
    SYSTEM_DEFAULT = 0
    AUTOMATIC = 1
    MANUAL_BY_TOPIC = 3
    UNKNOWN = 4
    BEST_AVAILABLE = 5


QoSHistoryPolicy = HistoryPolicy
QoSReliabilityPolicy = ReliabilityPolicy
QoSDurabilityPolicy = DurabilityPolicy
QoSLivelinessPolicy = LivelinessPolicy

_UNSPECIFIED = Duration()
_DEFAULT_DEPTH = 10


class QoSProfile:
    """A complete set of policies. A zero duration means "not specified"."""

    # Each policy's type, and its value where none is given.
    _POLICIES = {  # noqa: RUF012 - never changed
        "history": (HistoryPolicy, HistoryPolicy.KEEP_LAST),
        "depth": (int, _DEFAULT_DEPTH),
        "reliability": (ReliabilityPolicy, ReliabilityPolicy.RELIABLE),
        "durability": (DurabilityPolicy, DurabilityPolicy.VOLATILE),
        "lifespan": (Duration, _UNSPECIFIED),
        "deadline": (Duration, _UNSPECIFIED),
        "liveliness": (LivelinessPolicy, LivelinessPolicy.SYSTEM_DEFAULT),
        "liveliness_lease_duration": (Duration, _UNSPECIFIED),
        "avoid_ros_namespace_conventions": (bool, False),
    }
    __slots__ = tuple(_POLICIES)

    def __init__(self, **kwargs):
        unknown = sorted(kwargs.keys() - self._POLICIES.keys())
        assert not unknown, f"QoSProfile has no {', '.join(unknown)}"
        for name, (_, default) in self._POLICIES.items():
            setattr(self, name, kwargs.get(name, default))
        if "depth" not in kwargs and self.history == HistoryPolicy.KEEP_LAST:
            msg = "keeping the last messages needs a depth"
            raise InvalidQoSProfileException(msg)

    def __setattr__(self, name, value):
        kind, _ = self._POLICIES[name]
        if issubclass(kind, IntEnum):
            value = kind(value)
        assert isinstance(value, kind), f"{name} is {value!r}, which is no {kind.__name__}"
        if name == "depth" and value < 0:
            msg = f"the depth is {value}, but cannot be negative"
            raise ValueError(msg)
        object.__setattr__(self, name, value)

    def __eq__(self, other):
        return isinstance(other, QoSProfile) and all(
            getattr(self, slot) == getattr(other, slot) for slot in self.__slots__
        )

    __hash__ = None

    def __str__(self):
        values = ", ".join(f"{slot}={getattr(self, slot)}" for slot in self.__slots__)
        return f"{type(self).__name__}({values})"

    def _to_dds(self, user_data=b""):
        """Return the policies as the DDS layer takes them.

        "Best available" asks for what every counterpart accepts: an endpoint here does not look
        for its counterparts first, as rmw does.
        """
        keep_all = self.history == HistoryPolicy.KEEP_ALL
        return EndpointQos(
            reliable=self.reliability
            in (ReliabilityPolicy.RELIABLE, ReliabilityPolicy.SYSTEM_DEFAULT),
            transient_local=self.durability == DurabilityPolicy.TRANSIENT_LOCAL,
            depth=None if keep_all else max(1, self.depth),
            deadline_ns=_specified(self.deadline),
            lifespan_ns=_specified(self.lifespan),
            liveliness_by_topic=self.liveliness == LivelinessPolicy.MANUAL_BY_TOPIC,
            lease_ns=_specified(self.liveliness_lease_duration),
            user_data=user_data,
        )

    @classmethod
    def _from_dds(cls, qos):
        """Return the profile of an endpoint that discovery reports."""
        history = HistoryPolicy.KEEP_LAST if qos.depth else HistoryPolicy.KEEP_ALL
        if qos.depth == 0:
            history = HistoryPolicy.UNKNOWN
        return cls(
            history=history,
            depth=qos.depth or 0,
            reliability=ReliabilityPolicy.RELIABLE
            if qos.reliable
            else ReliabilityPolicy.BEST_EFFORT,
            durability=DurabilityPolicy.TRANSIENT_LOCAL
            if qos.transient_local
            else DurabilityPolicy.VOLATILE,
            lifespan=_duration(qos.lifespan_ns),
            deadline=_duration(qos.deadline_ns),
            liveliness=LivelinessPolicy.MANUAL_BY_TOPIC
            if qos.liveliness_by_topic
            else LivelinessPolicy.AUTOMATIC,
            liveliness_lease_duration=_duration(qos.lease_ns),
        )


def _specified(duration):
    return None if duration in (_UNSPECIFIED, Infinite) else duration.nanoseconds


def _duration(nanoseconds):
    return Infinite if nanoseconds is None else Duration(nanoseconds=nanoseconds)


qos_profile_unknown = QoSProfile(
    history=HistoryPolicy.UNKNOWN,
    depth=0,
    reliability=ReliabilityPolicy.UNKNOWN,
    durability=DurabilityPolicy.UNKNOWN,
    liveliness=LivelinessPolicy.UNKNOWN,
)
qos_profile_default = QoSProfile(depth=_DEFAULT_DEPTH)
qos_profile_system_default = QoSProfile(
    history=HistoryPolicy.SYSTEM_DEFAULT,
    depth=0,
    reliability=ReliabilityPolicy.SYSTEM_DEFAULT,
    durability=DurabilityPolicy.SYSTEM_DEFAULT,
)
qos_profile_sensor_data = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
qos_profile_services_default = QoSProfile(depth=10)
qos_profile_parameters = QoSProfile(depth=1000)
qos_profile_parameter_events = QoSProfile(depth=1000)
qos_profile_rosout_default = QoSProfile(
    depth=1000, durability=DurabilityPolicy.TRANSIENT_LOCAL, lifespan=Duration(seconds=10)
)
qos_profile_best_available = QoSProfile(
    depth=_DEFAULT_DEPTH,
    reliability=ReliabilityPolicy.BEST_AVAILABLE,
    durability=DurabilityPolicy.BEST_AVAILABLE,
    liveliness=LivelinessPolicy.BEST_AVAILABLE,
)
