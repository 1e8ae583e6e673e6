"""The ROS graph: which nodes own which endpoints, told to and heard from other processes.

Each participant publishes its nodes on `ros_discovery_info`; endpoints come from DDS discovery,
which also says when a process is gone.
"""

import threading

import numpy as np
from rmw_dds_common.msg import Gid, NodeEntitiesInfo, ParticipantEntitiesInfo

from rclpy import _names
from rclpy.type_support import prepare
from vla_ros_standalone import messages
from vla_ros_standalone.dds import EndpointQos

_TOPIC = "ros_discovery_info"
_GID_BYTES = len(Gid().data)  # 24 in Humble, 16 later


class Graph:
    """The view that one participant has of the graph, and its own part in it."""

    def __init__(self, participant):
        self._participant = participant
        self._lock = threading.RLock()
        self._own = {}  # (namespace, name) -> list of (reader gids, writer gids), one a node
        self._others = {}  # participant guid -> list of NodeEntitiesInfo
        prepare(ParticipantEntitiesInfo)
        type_name = messages.dds_type_name(ParticipantEntitiesInfo)
        self._writer = participant.create_writer(
            _TOPIC, type_name, EndpointQos(transient_local=True, depth=1)
        )
        # The samples of all participants share one keyless instance.
        self._reader = participant.create_reader(
            _TOPIC, type_name, EndpointQos(transient_local=True, depth=1000)
        )
        self.condition = self._reader.condition
        self._duplicates_told = set()

    def add_node(self, namespace, name):
        """Announce a node and return its entry, to which endpoints are added."""
        entry = (set(), set())
        with self._lock:
            self._own.setdefault((namespace, name), []).append(entry)
            self._publish()
        return entry

    def remove_node(self, namespace, name, entry):
        with self._lock:
            entries = self._own.get((namespace, name), [])
            entries[:] = [other for other in entries if other is not entry]
            if not entries:
                self._own.pop((namespace, name), None)
            self._publish()

    def change(self, entry, *, readers=(), writers=(), remove=False):
        """Add to or remove from a node's entry the guids of endpoints."""
        with self._lock:
            for guids, known in ((readers, entry[0]), (writers, entry[1])):
                known.difference_update(guids) if remove else known.update(guids)
            self._publish()

    def _publish(self):
        if self._participant.closed:
            return
        nodes = [
            NodeEntitiesInfo(
                node_namespace=namespace,
                node_name=name,
                reader_gid_seq=[_gid(guid) for guid in sorted(readers)],
                writer_gid_seq=[_gid(guid) for guid in sorted(writers)],
            )
            for (namespace, name), entries in self._own.items()
            for readers, writers in entries
        ]
        message = ParticipantEntitiesInfo(
            gid=_gid(self._participant.guid), node_entities_info_seq=nodes
        )
        self._writer.write(messages.serialize(message))

    def update(self):
        """Take what other participants said. A malformed message is dropped."""
        with self._lock:
            while samples := self._reader.take(64):
                for sample in samples:
                    try:
                        message = messages.deserialize(sample.payload, ParticipantEntitiesInfo)
                    except ValueError:
                        continue  # a foreign tool on this topic is no reason to stop or to shout
                    guid = bytes(message.gid.data)[:16]
                    self._others[guid] = list(message.node_entities_info_seq)

    def nodes(self):
        """Return (namespace, name, enclave, reader guids, writer guids) of every living node."""
        with self._lock:
            self.update()
            alive = self._participant.participants()
            self._others = {guid: nodes for guid, nodes in self._others.items() if guid in alive}
            return [
                (
                    info.node_namespace,
                    info.node_name,
                    _enclave(alive[guid]),
                    {bytes(gid.data)[:16] for gid in info.reader_gid_seq},
                    {bytes(gid.data)[:16] for gid in info.writer_gid_seq},
                )
                for guid, nodes in self._others.items()
                for info in nodes
            ]

    def new_duplicates(self):
        """Return own full node names that another node has too, each once."""
        names = [_names.join(namespace, name) for namespace, name, *_ in self.nodes()]
        own = {_names.join(namespace, name) for namespace, name in self._own}
        found = {name for name in own if names.count(name) > 1} - self._duplicates_told
        self._duplicates_told |= found
        return sorted(found)

    def endpoints(self, dds_topic, *, readers):
        """Return the EndpointInfo of each reader or writer of a DDS topic."""
        found = self._participant.readers() if readers else self._participant.writers()
        return [info for info in found if info.topic == dds_topic]

    def topic_names_and_types(self, *, no_demangle=False):
        """Return sorted (topic, [types]) of every topic with an endpoint."""
        infos = self._participant.writers() + self._participant.readers()
        return _by_name(infos, (lambda name: name) if no_demangle else _names.ros_topic)

    def service_names_and_types(self):
        infos = self._participant.writers() + self._participant.readers()
        return _by_name(infos, _names.ros_service)

    def names_and_types_by_node(self, namespace, name, *, readers, demangle):
        """Return (name, [types]) of a node's readers or writers; None for an unknown node."""
        guids = None
        for node_namespace, node_name, _, node_readers, node_writers in self.nodes():
            if (node_namespace, node_name) == (namespace, name):
                guids = (guids or set()) | (node_readers if readers else node_writers)
        if guids is None:
            return None
        infos = self._participant.readers() if readers else self._participant.writers()
        return _by_name([info for info in infos if info.guid in guids], demangle)

    def node_of(self, guid):
        """Return (name, namespace) of the node that owns an endpoint."""
        for namespace, name, _, readers, writers in self.nodes():
            if guid in readers or guid in writers:
                return name, namespace
        return "_NODE_NAME_UNKNOWN_", "_NODE_NAMESPACE_UNKNOWN_"


def clients_reader_matched(participant, reply_writer, request_handle):
    """Whether the client that sent a request can hear the reply already.

    Its two endpoints carry the same `clientid=` in USER_DATA. Without one (another middleware's
    client), any reader counts.
    """
    matched = set(reply_writer.matched_handles())
    wanted = b""
    for info in participant.writers():
        if info.instance_handle == request_handle:
            wanted = info.qos.user_data
    identity = _identity(wanted, b"clientid=")
    if not identity:
        return bool(matched)
    return any(
        info.instance_handle in matched and _identity(info.qos.user_data, b"clientid=") == identity
        for info in participant.readers()
    )


def service_ready(participant, request_writer, reply_reader):
    """Whether one server both hears this client's requests and is heard by it."""
    hearing = set(request_writer.matched_handles())
    heard = set(reply_reader.matched_handles())
    if not hearing or not heard:
        return False
    servers = {
        _identity(info.qos.user_data, b"serviceid=")
        for info in participant.readers()
        if info.instance_handle in hearing
    }
    repliers = {
        _identity(info.qos.user_data, b"serviceid=")
        for info in participant.writers()
        if info.instance_handle in heard
    }
    return bool(servers & repliers)


def _identity(user_data, key):
    for part in user_data.split(b";"):
        if part.startswith(key):
            return part
    return b""


def _by_name(infos, demangle):
    types = {}
    for info in infos:
        name = demangle(info.topic)
        if name is not None:
            types.setdefault(name, set()).add(_names.ros_type(info.type_name))
    return [(name, sorted(types[name])) for name in sorted(types)]


def _gid(guid):
    return Gid(data=np.frombuffer(guid.ljust(_GID_BYTES, b"\0"), np.uint8))


def _enclave(user_data):
    return _identity(user_data, b"enclave=")[len(b"enclave=") :].decode(errors="replace") or "/"
