"""How rmw_cyclonedds_cpp carries requests and replies.

The topics are `rq/<service>Request` and `rr/<service>Reply`. Before the fields stand the client's
handle (u64) and the request's number (i64); being 16 bytes, they keep the alignment of the fields.
"""

import struct
import uuid

from rclpy._endpoint import user_data
from rclpy.type_support import prepare
from vla_ros_standalone import messages

_HEADER = struct.Struct("<Qq")
_HEADER_BIG = struct.Struct(">Qq")
_ENCAPSULATION_BYTES = 4


def create_endpoints(participant, srv_type, service_name, qos_profile, *, server):
    """Return (reader, writer) of a server or client of a service."""
    prepare(srv_type.Request)
    prepare(srv_type.Response)
    identity = ".".join(f"{byte:x}" for byte in uuid.uuid4().bytes)
    prefix = f"{'serviceid' if server else 'clientid'}={identity};".encode()
    kinds = {
        srv_type.Request: f"rq{service_name}Request",
        srv_type.Response: f"rr{service_name}Reply",
    }
    heard, said = (
        (srv_type.Request, srv_type.Response) if server else (srv_type.Response, srv_type.Request)
    )
    reader = participant.create_reader(
        kinds[heard],
        messages.dds_type_name(heard),
        qos_profile._to_dds(user_data(heard, prefix)),
    )
    writer = participant.create_writer(
        kinds[said],
        messages.dds_type_name(said),
        qos_profile._to_dds(user_data(said, prefix)),
    )
    return reader, writer


def pack(client, sequence, message):
    """Return the payload of a request or reply."""
    fields = messages.serialize(message)
    return (
        bytes(fields[:_ENCAPSULATION_BYTES])
        + _HEADER.pack(client, sequence)
        + bytes(fields[_ENCAPSULATION_BYTES:])
    )


def unpack(payload, cls):
    """Return (client, sequence, message). Raise ValueError when malformed."""
    fields = _ENCAPSULATION_BYTES + _HEADER.size
    if len(payload) < fields:
        msg = f"{len(payload)} bytes are too few for a service header"
        raise ValueError(msg)
    header = _HEADER if payload[1] & 1 else _HEADER_BIG
    client, sequence = header.unpack_from(payload, _ENCAPSULATION_BYTES)
    body = bytes(payload[:_ENCAPSULATION_BYTES]) + bytes(payload[fields:])
    return client, sequence, messages.deserialize(body, cls)
