"""Quality of service: policies, profiles and ROS's presets."""

from enum import Enum, IntEnum

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


class QoSPolicyEnum(IntEnum):
    """Base of the policies' values, with the short names that command lines use."""

    @classmethod
    def short_keys(cls):
        return [name.lower() for name in cls.__members__]

    @classmethod
    def get_from_short_key(cls, name):
        return cls[name.upper()].value

    @property
    def short_key(self):
        return self.name.lower()


class HistoryPolicy(QoSPolicyEnum):
    SYSTEM_DEFAULT = 0
    KEEP_LAST = 1
    KEEP_ALL = 2
    UNKNOWN = 3


class ReliabilityPolicy(QoSPolicyEnum):
    SYSTEM_DEFAULT = 0
    RELIABLE = 1
    BEST_EFFORT = 2
    UNKNOWN = 3
    BEST_AVAILABLE = 4


class DurabilityPolicy(QoSPolicyEnum):
    SYSTEM_DEFAULT = 0
    TRANSIENT_LOCAL = 1
    VOLATILE = 2
    UNKNOWN = 3
    BEST_AVAILABLE = 4


class LivelinessPolicy(QoSPolicyEnum):
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

    __slots__ = (
        "_avoid_ros_namespace_conventions",
        "_deadline",
        "_depth",
        "_durability",
        "_history",
        "_lifespan",
        "_liveliness",
        "_liveliness_lease_duration",
        "_reliability",
    )

    def __init__(self, **kwargs):
        unknown = [key for key in kwargs if "_" + key not in self.__slots__]
        assert not unknown, f"Invalid arguments passed to constructor: {unknown}"
        if "history" not in kwargs:
            if "depth" not in kwargs:
                msg = "History and/or depth settings are required."
                raise InvalidQoSProfileException(msg)
            kwargs["history"] = HistoryPolicy.KEEP_LAST
        self.history = kwargs["history"]
        if self.history == HistoryPolicy.KEEP_LAST and "depth" not in kwargs:
            msg = "History set to KEEP_LAST without a depth setting."
            raise InvalidQoSProfileException(msg)
        self.depth = kwargs.get("depth", _DEFAULT_DEPTH)
        self.reliability = kwargs.get("reliability", ReliabilityPolicy.RELIABLE)
        self.durability = kwargs.get("durability", DurabilityPolicy.VOLATILE)
        self.lifespan = kwargs.get("lifespan", _UNSPECIFIED)
        self.deadline = kwargs.get("deadline", _UNSPECIFIED)
        self.liveliness = kwargs.get("liveliness", LivelinessPolicy.SYSTEM_DEFAULT)
        self.liveliness_lease_duration = kwargs.get("liveliness_lease_duration", _UNSPECIFIED)
        self.avoid_ros_namespace_conventions = kwargs.get("avoid_ros_namespace_conventions", False)

    @property
    def history(self):
        return self._history

    @history.setter
    def history(self, value):
        self._history = HistoryPolicy(value)

    @property
    def depth(self):
        return self._depth

    @depth.setter
    def depth(self, value):
        assert isinstance(value, int)
        if value < 0:
            msg = "history depth must be greater than or equal to zero"
            raise ValueError(msg)
        self._depth = value

    @property
    def reliability(self):
        return self._reliability

    @reliability.setter
    def reliability(self, value):
        self._reliability = ReliabilityPolicy(value)

    @property
    def durability(self):
        return self._durability

    @durability.setter
    def durability(self, value):
        self._durability = DurabilityPolicy(value)

    @property
    def lifespan(self):
        return self._lifespan

    @lifespan.setter
    def lifespan(self, value):
        assert isinstance(value, Duration)
        self._lifespan = value

    @property
    def deadline(self):
        return self._deadline

    @deadline.setter
    def deadline(self, value):
        assert isinstance(value, Duration)
        self._deadline = value

    @property
    def liveliness(self):
        return self._liveliness

    @liveliness.setter
    def liveliness(self, value):
        self._liveliness = LivelinessPolicy(value)

    @property
    def liveliness_lease_duration(self):
        return self._liveliness_lease_duration

    @liveliness_lease_duration.setter
    def liveliness_lease_duration(self, value):
        assert isinstance(value, Duration)
        self._liveliness_lease_duration = value

    @property
    def avoid_ros_namespace_conventions(self):
        return self._avoid_ros_namespace_conventions

    @avoid_ros_namespace_conventions.setter
    def avoid_ros_namespace_conventions(self, value):
        assert isinstance(value, bool)
        self._avoid_ros_namespace_conventions = value

    def __eq__(self, other):
        return isinstance(other, QoSProfile) and all(
            getattr(self, slot) == getattr(other, slot) for slot in self.__slots__
        )

    __hash__ = None

    def __str__(self):
        values = ", ".join(f"{slot[1:]}={getattr(self, slot)}" for slot in self.__slots__)
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


class QoSPresetProfiles(Enum):
    UNKNOWN = qos_profile_unknown
    DEFAULT = qos_profile_default
    SYSTEM_DEFAULT = qos_profile_system_default
    SENSOR_DATA = qos_profile_sensor_data
    SERVICES_DEFAULT = qos_profile_services_default
    PARAMETERS = qos_profile_parameters
    PARAMETER_EVENTS = qos_profile_parameter_events
    BEST_AVAILABLE = qos_profile_best_available

    @classmethod
    def short_keys(cls):
        return [name.lower() for name in cls.__members__]

    @classmethod
    def get_from_short_key(cls, name):
        return cls[name.upper()].value


class QoSCompatibility(IntEnum):
    OK = 0
    WARNING = 1
    ERROR = 2


def qos_check_compatible(publisher_qos, subscription_qos):
    """Return (QoSCompatibility, reason) of a publisher's and a subscription's profiles."""
    offered, requested = publisher_qos._to_dds(), subscription_qos._to_dds()
    reasons = []
    if requested.reliable and not offered.reliable:
        reasons.append("Best effort publisher and reliable subscription;")
    if requested.transient_local and not offered.transient_local:
        reasons.append("Volatile publisher and transient local subscription;")
    if (offered.deadline_ns or 2**63) > (requested.deadline_ns or 2**63):
        reasons.append("Subscription expects a shorter deadline than the publisher offers;")
    if requested.liveliness_by_topic and not offered.liveliness_by_topic:
        reasons.append("Publisher's liveliness is automatic and subscription's is manual by topic;")
    if (offered.lease_ns or 2**63) > (requested.lease_ns or 2**63):
        reasons.append("Subscription's liveliness lease is shorter than the publisher's;")
    if reasons:
        return QoSCompatibility.ERROR, "ERROR: " + " ".join(reasons)
    return QoSCompatibility.OK, ""
