"""What the graph knows of one endpoint of a topic."""

from enum import IntEnum


class TopicEndpointTypeEnum(IntEnum):
    INVALID = 0
    PUBLISHER = 1
    SUBSCRIPTION = 2


class TopicEndpointInfo:
    """Node, type, identity and QoS of a publisher or subscription."""

    __slots__ = (
        "endpoint_gid",
        "endpoint_type",
        "node_name",
        "node_namespace",
        "qos_profile",
        "topic_type",
    )

    def __init__(self, **kwargs):
        for slot in self.__slots__:
            setattr(self, slot, kwargs.get(slot))

    def __eq__(self, other):
        return isinstance(other, TopicEndpointInfo) and all(
            getattr(self, slot) == getattr(other, slot) for slot in self.__slots__
        )

    __hash__ = None

    def __str__(self):
        gid = ".".join(f"{byte:02x}" for byte in self.endpoint_gid)
        return (
            f"Node name: {self.node_name}\nNode namespace: {self.node_namespace}\n"
            f"Topic type: {self.topic_type}\nEndpoint type: {self.endpoint_type.name}\n"
            f"GID: {gid}\nQoS profile:\n  {self.qos_profile}"
        )
