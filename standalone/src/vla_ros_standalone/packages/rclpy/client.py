"""Service clients."""

import threading
import time

from rclpy import _service_wire
from rclpy._endpoint import Waitable
from rclpy._graph import service_ready
from rclpy.exceptions import RCLError
from rclpy.task import Future


class Client(Waitable):
    """Sends requests; made by `Node.create_client`."""

    def __init__(self, node, srv_type, srv_name, qos_profile, callback_group):
        self._node = node
        self.context = node.context
        self.srv_type = srv_type
        self.srv_name = srv_name
        self.qos_profile = qos_profile
        self._reader, self._writer = _service_wire.create_endpoints(
            node.context.handle, srv_type, srv_name, qos_profile, server=False
        )
        self._pending_requests = {}
        self._sequence = 0
        self._lock = threading.Lock()
        super().__init__(callback_group, self._reader.condition)

    @property
    def service_name(self):
        return self.srv_name

    def call_async(self, request):
        """Send a request and return the Future of its response."""
        if not isinstance(request, self.srv_type.Request):
            msg = f"Expected {self.srv_type.Request}, got {type(request)}"
            raise TypeError(msg)
        if not self.context.ok():
            msg = "Failed to send request: client's context is invalid"
            raise RCLError(msg)
        future = Future()
        with self._lock:
            self._sequence += 1
            sequence = self._sequence
            self._pending_requests[sequence] = future
        future.add_done_callback(self.remove_pending_request)
        self._writer.write(_service_wire.pack(self._writer.instance_handle, sequence, request))
        return future

    def call(self, request, timeout_sec=None):
        """Send a request and wait for its response: another thread must spin the node.

        Raise TimeoutError when `timeout_sec` is over first.
        """
        done = threading.Event()
        future = self.call_async(request)
        future.add_done_callback(lambda _: done.set())
        if not done.wait(timeout_sec):
            self.remove_pending_request(future)
            msg = f"no response from '{self.srv_name}' in {timeout_sec} s"
            raise TimeoutError(msg)
        return future.result()

    def remove_pending_request(self, future):
        """Forget a request; its response, if it comes, is dropped."""
        with self._lock:
            for sequence, pending in list(self._pending_requests.items()):
                if pending is future:
                    del self._pending_requests[sequence]

    def service_is_ready(self):
        """Whether a server is there that hears and is heard."""
        participant = self.context.handle
        return not participant.closed and service_ready(participant, self._writer, self._reader)

    def wait_for_service(self, timeout_sec=None):
        """Wait until the service is ready; return whether it is."""
        end = None if timeout_sec is None or timeout_sec < 0 else time.monotonic() + timeout_sec
        while self.context.ok():
            if self.service_is_ready():
                return True
            if end is not None and time.monotonic() >= end:
                return False
            time.sleep(0.01)
        return False

    def _take(self):
        samples = self._reader.take(1)
        if not samples:
            return None
        try:
            client, sequence, response = _service_wire.unpack(
                samples[0].payload, self.srv_type.Response
            )
        except ValueError as error:
            self._node.get_logger().error(
                f"dropped a malformed response of '{self.srv_name}': {error}",
                throttle_duration_sec=5.0,
            )
            return None
        if client != self._writer.instance_handle:
            return None  # the response to another client of the same service
        with self._lock:
            future = self._pending_requests.get(sequence)
        if future is None:
            return None
        future._set_executor(self._node.executor)
        return future.set_result, (response,)

    def destroy(self):
        self._reader.close()
        self._writer.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.destroy()
