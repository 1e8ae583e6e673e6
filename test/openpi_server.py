"""A server of the openpi protocol that does as it is told, for tests of the client."""

import threading
from contextlib import contextmanager

from websockets.sync.server import serve

from vla_ros.policy.backends.msgpack_numpy import pack, unpack


@contextmanager
def serving(answer, *, hello=None, port=0):
    """Serve in a thread; yield the port.

    `answer(observation, connection)` returns a result, text to send as an error, or None for none.
    """
    ports: list[int] = []
    connections = []

    def handle(connection):
        connections.append(connection)
        connection.send(pack({"name": "test"}) if hello is None else hello)
        for frame in connection:
            result = answer(unpack(frame), connection)
            if result is not None:
                connection.send(result if isinstance(result, str) else pack(result))

    with serve(handle, "127.0.0.1", port, compression=None, max_size=None) as server:
        ports.append(server.socket.getsockname()[1])
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield ports[0]
        finally:
            for connection in connections:
                connection.close_socket()
            server.shutdown()
            thread.join(5.0)
