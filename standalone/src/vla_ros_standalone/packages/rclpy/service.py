"""Service servers."""

import time

from rclpy import _service_wire
from rclpy._endpoint import Waitable
from rclpy._graph import clients_reader_matched

# A reply to a client whose reader is not discovered yet would be lost: wait this long for it.
_CLIENT_DISCOVERY_S = 0.1


class Service(Waitable):
    """Answers requests; made by `Node.create_service`."""

    def __init__(self, node, srv_type, srv_name, callback, callback_group, qos_profile):
        self._node = node
        self.srv_type = srv_type
        self.srv_name = srv_name
        self.callback = callback
        self.qos_profile = qos_profile
        self._reader, self._writer = _service_wire.create_endpoints(
            node.context.handle, srv_type, srv_name, qos_profile, server=True
        )
        self._known_clients = set()
        super().__init__(callback_group, self._reader.condition)

    @property
    def service_name(self):
        return self.srv_name

    def _take(self):
        samples = self._reader.take(1)
        if not samples:
            return None
        try:
            client, sequence, request = _service_wire.unpack(
                samples[0].payload, self.srv_type.Request
            )
        except ValueError as error:
            self._node.get_logger().error(
                f"dropped a malformed request to '{self.srv_name}': {error}",
                throttle_duration_sec=5.0,
            )
            return None
        return self._answer, (request, (client, sequence, samples[0].publication_handle))

    async def _answer(self, request, header):
        response = self.callback(request, self.srv_type.Response())
        if hasattr(response, "__await__"):
            response = await response
        self.send_response(response, header)

    def send_response(self, response, header):
        """Send the response to the request with `header`."""
        if not isinstance(response, self.srv_type.Response):
            msg = (
                f"the callback of service '{self.srv_name}' must return its response "
                f"({self.srv_type.Response.__name__}), not {type(response).__name__}"
            )
            raise TypeError(msg)
        client, sequence, request_handle = header
        participant = self._node.context.handle
        deadline = time.monotonic() + _CLIENT_DISCOVERY_S
        while client not in self._known_clients and not participant.closed:
            if clients_reader_matched(participant, self._writer, request_handle):
                self._known_clients.add(client)
            elif time.monotonic() > deadline:
                break
            else:
                time.sleep(0.002)
        if not participant.closed:
            self._writer.write(_service_wire.pack(client, sequence, response))

    def destroy(self):
        self._reader.close()
        self._writer.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.destroy()
