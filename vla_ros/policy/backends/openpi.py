"""A client of the openpi protocol: a policy server over a websocket.

The server's first frame is its metadata. Then each frame of ours is an observation, a dict, and
each of its frames the result, a dict; a text frame is an error instead. See `openpi_client` 0.1.2
(https://github.com/Physical-Intelligence/openpi).
"""

import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from vla_ros.policy.backends.backend import (
    WARM_UP_S,
    BackendError,
    BackendOptions,
    Tensor,
    check_result,
    on_host,
    one_line,
)
from vla_ros.policy.manifest import BundleError, Graph

_MISSING = "backend openpi needs msgpack and websockets: pip install 'vla_ros[openpi]'"


class OpenpiBackend:
    """A graph that is a whole policy on a server.

    The inputs' names are the observation's keys. The batch axis is taken off what is sent and put
    before what comes; a text input of shape (1,) is sent as text.

    Attributes:
        metadata: What the server said of itself, on the newest connection.

    """

    def __init__(
        self, graph: Graph, options: BackendOptions, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Connect to the server.

        Args:
            graph: What the manifest says of it.
            options: `server` and `timeout_s`.
            clock: Time in s, to end calls by.

        Raises:
            BundleError: If no server is named, or none answers there.

        """
        try:
            # Here, so that the error is one of the bundle.
            from websockets.sync.client import connect  # noqa: PLC0415

            from vla_ros.policy.backends import msgpack_numpy  # noqa: PLC0415
        except ImportError as err:
            raise BundleError(_MISSING) from err
        if not options.server:
            msg = f"graph {graph.name!r}: backend openpi needs a server: set 'server' to host:port"
            raise BundleError(msg)
        self._frames = msgpack_numpy
        self._connect_to = connect
        self._graph = graph
        self._uri = options.server if "://" in options.server else f"ws://{options.server}"
        self._timeout_s = options.timeout_s
        self._clock = clock
        self._connection: Any = None
        self._first = True
        self.metadata: Mapping[Any, Any] = {}
        self._addresses = self._look_up()
        try:
            with self._limit(options.timeout_s) as deadline:
                self._connect(deadline)
        except BackendError as err:
            msg = f"graph {graph.name!r}: {err}: start the server, or correct 'server'"
            raise BundleError(msg) from err

    def run(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the outputs by name.

        Raises:
            BackendError: If the server is away, does not answer in time, answers with an error or
                with something else than the manifest says. The next call connects again if need be.

        """
        try:
            arrays = on_host(inputs).items()
            frame = self._frames.pack({name: _without_batch(value) for name, value in arrays})
        except self._frames.FrameError as err:
            msg = f"the observation {err}"
            raise BackendError(msg) from err
        limit_s = max(self._timeout_s, WARM_UP_S) if self._first else self._timeout_s
        with self._limit(limit_s) as deadline:
            reply = self._ask(frame, deadline)
        self._first = False
        if isinstance(reply, str):
            # openpi's own server closes the connection after an error, at some time from now.
            self._drop()
            lines = reply.strip().splitlines() or ["an error without a message"]
            msg = f"{self._uri} answers with an error: {lines[-1].strip()}"
            raise BackendError(msg)
        return self._outputs(reply)

    def close(self) -> None:
        """Close the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _ask(self, frame: bytes, deadline: float) -> bytes | str:
        from websockets.exceptions import ConnectionClosed  # noqa: PLC0415

        try:
            if self._connection is None:
                self._connect(deadline)
            self._connection.send(frame)
        except ConnectionClosed:
            # It was lost since the last call, which nobody has been told yet: connect again.
            self._drop()
            self._connect(deadline)
            self._connection.send(frame)
        reply: bytes | str = self._connection.recv(timeout=max(deadline - self._clock(), 0.0))
        return reply

    def _look_up(self) -> list[tuple[str, int]]:
        """Return the server's addresses, once: in motion nothing could end a name's look-up.

        Raises:
            BundleError: If the URL is none, or the name is unknown.

        """
        where = f"graph {self._graph.name!r}: server {self._uri}"
        try:
            parts = urlsplit(self._uri)
            port = parts.port or {"ws": 80, "wss": 443}.get(parts.scheme, 0)
        except ValueError as err:
            msg = f"{where}: {err}: set 'server' to host:port"
            raise BundleError(msg) from err
        if not parts.hostname or not port:
            msg = f"{where}: is no address: set 'server' to host:port, ws://... or wss://..."
            raise BundleError(msg)
        try:
            found = socket.getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)
        except OSError as err:
            msg = f"{where}: cannot be found: {one_line(err)}: correct 'server', or the network"
            raise BundleError(msg) from err
        return [(str(entry[4][0]), int(entry[4][1])) for entry in found]

    def _dial(self, deadline: float) -> socket.socket:
        """Return a connection to the first of the addresses that answers.

        Raises:
            OSError: If none does.

        """
        fault: OSError = TimeoutError()
        for address in self._addresses:
            remaining = max(deadline - self._clock(), 0.001)
            try:
                dialled = socket.create_connection(address, timeout=remaining)
            except OSError as err:
                fault = err
            else:
                dialled.settimeout(None)  # The library has its own way of waiting.
                return dialled
        raise fault

    def _connect(self, deadline: float) -> None:
        dialled = self._dial(deadline)
        remaining = max(deadline - self._clock(), 0.001)
        # A proxy of the environment is for the web, not for a robot's own server.
        opening = self._connect_to(
            self._uri,
            sock=dialled,
            compression=None,
            max_size=None,
            open_timeout=remaining,
            close_timeout=0.2,
            proxy=None,
        )
        # Newer versions of the library connect here, older ones above. It outlives this call.
        self._connection = opening.__enter__()
        hello = self._connection.recv(timeout=max(deadline - self._clock(), 0.001))
        if isinstance(hello, str):
            msg = f"{self._uri} greets with text, not with the metadata of an openpi server"
            raise BackendError(msg)
        try:
            metadata = self._frames.unpack(hello)
        except self._frames.FrameError as err:
            msg = f"{self._uri} is no openpi server: its first frame {err}"
            raise BackendError(msg) from err
        self.metadata = metadata if isinstance(metadata, dict) else {}

    @contextmanager
    def _limit(self, seconds: float) -> Iterator[float]:
        """Yield the deadline of a call, and end the call there whatever it waits for.

        Raises:
            BackendError: If it was ended, or the connection lost.

        """
        from websockets.exceptions import WebSocketException  # noqa: PLC0415

        # Sending waits for a server that has stopped reading, and takes no time limit of its own.
        guard = threading.Timer(seconds, self._cut)
        guard.daemon = True
        deadline = self._clock() + seconds
        guard.start()
        try:
            yield deadline
        except BackendError:
            self._drop()
            raise
        except (WebSocketException, OSError, ValueError) as err:
            self._drop()
            if isinstance(err, TimeoutError) or self._clock() >= deadline:
                msg = f"{self._uri} has not answered within {seconds:g} s"
            else:
                msg = f"{self._uri} cannot be reached: {one_line(err)}"
            raise BackendError(msg) from err
        finally:
            guard.cancel()

    def _cut(self) -> None:
        """Break the connection, from another thread, so that whoever waits for it goes on."""
        connection = self._connection
        if connection is not None:
            try:
                connection.socket.shutdown(socket.SHUT_RDWR)
            except OSError:
                return  # It is broken already.

    def _drop(self) -> None:
        """Forget the connection: an answer that comes late must not pass for the next one's."""
        connection, self._connection = self._connection, None
        if connection is not None:
            # Without the closing handshake, which a server that hangs does not answer.
            connection.close_socket()

    def _outputs(self, reply: bytes) -> dict[str, Tensor]:
        try:
            result = self._frames.unpack(reply)
        except self._frames.FrameError as err:
            msg = f"the answer of {self._uri} {err}"
            raise BackendError(msg) from err
        outputs = {}
        for name, spec in self._graph.outputs.items():
            if not isinstance(result, dict) or name not in result:
                found = sorted(map(str, result)) if isinstance(result, dict) else type(result)
                msg = f"the answer of {self._uri} has no {name!r}, but {found}"
                raise BackendError(msg)
            value = np.asarray(result[name])
            if value.dtype.kind == "f":  # Servers differ in the precision of what they send.
                value = value.astype(spec.dtype)
            outputs[name] = value[None]
        try:
            check_result(self._graph, outputs)
        except BackendError as err:
            msg = f"the answer of {self._uri}: {err}"
            raise BackendError(msg) from err
        return outputs


def _without_batch(value: Tensor) -> object:
    if value.dtype == object:
        return str(value[0])
    return np.ascontiguousarray(value[0])
