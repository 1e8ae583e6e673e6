"""Decoding pictures in other threads, several at a time, as far ahead as memory allows."""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field

from vla_ros.replay.bags import BagMessage
from vla_ros.types import Frame

AHEAD_BYTES = 4 << 20
"""Bytes of pictures that are read ahead of their decoding."""
_TOGETHER = 16
"""Pictures that are handed over at a time: handing over costs as much as decoding a small one."""
_TOGETHER_BYTES = 1 << 20
"""Bytes of pictures that are handed over, however few they are."""

Decode = Callable[[str, BagMessage], Frame | Exception]
Decoded = list[Frame | Exception]


@dataclass(slots=True)
class _Batch:
    """Pictures that are decoded together: each a camera and its message."""

    pictures: list[tuple[str, BagMessage]] = field(default_factory=list)
    size: int = 0
    decoded: "Future[Decoded] | None" = None


@dataclass(frozen=True, slots=True)
class Picture:
    """A camera's picture that is being decoded."""

    camera: str
    _pictures: "Pictures"
    _batch: _Batch
    _index: int

    def result(self) -> Frame | Exception:
        """Return the frame, or what is wrong with it."""
        decoded = self._batch.decoded or self._pictures.hand_over()
        return decoded.result()[self._index]


class Pictures:
    """Pictures on their way through the other threads."""

    def __init__(self, pool: ThreadPoolExecutor, decode: Decode) -> None:
        """Decode with `decode`, from a camera and its message, in the threads of `pool`."""
        self._pool = pool
        self._decode = decode
        self._batch = _Batch()
        self._waiting: deque[tuple[Future[Decoded], int]] = deque()
        self._ahead = 0

    def add(self, camera: str, message: BagMessage) -> Picture:
        """Take a picture."""
        batch = self._batch
        picture = Picture(camera, self, batch, len(batch.pictures))
        batch.pictures.append((camera, message))
        batch.size += len(message.data)
        if len(batch.pictures) >= _TOGETHER or batch.size >= _TOGETHER_BYTES:
            self.hand_over()
        return picture

    def hand_over(self) -> "Future[Decoded]":
        """Have what was taken decoded now, after waiting where too much is being decoded."""
        batch, self._batch = self._batch, _Batch()
        decoded = batch.decoded = self._pool.submit(self._decode_all, batch.pictures)
        self._waiting.append((decoded, batch.size))
        self._ahead += batch.size
        while self._waiting and (self._ahead > AHEAD_BYTES or self._waiting[0][0].done()):
            first, size = self._waiting.popleft()
            wait([first])
            self._ahead -= size
        return decoded

    def _decode_all(self, pictures: list[tuple[str, BagMessage]]) -> Decoded:
        decoded = [self._decode(camera, message) for camera, message in pictures]
        # Their bytes are not needed any more.
        pictures.clear()
        return decoded
