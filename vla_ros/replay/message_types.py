"""Which definition a bag's messages are decoded with."""

import os
import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import cache, lru_cache
from pathlib import Path

from rosbags.interfaces.typing import Typesdict
from rosbags.serde import SerdeError
from rosbags.typesys import (
    Stores,
    TypesysError,
    get_types_from_idl,
    get_types_from_msg,
    get_typestore,
)
from rosbags.typesys.store import Typestore

from vla_ros.replay.stopwatch import Stopwatch
from vla_ros.replay.storage import BagError, StoredTopic

FALLBACK = "humble"
FIELD_TYPE = re.compile(r"^[ \t]*([a-zA-Z][\w/]*)(?:<=\d+)?(?:\[[^\]]*\])?[ \t]+\w", re.MULTILINE)
PRIMITIVES = {
    *("bool", "byte", "char", "string", "wstring", "float32", "float64"),
    *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
}
RULE = "=" * 80 + "\n"
# What the parsers and code generators of rosbags raise on definitions that are none.
DEFINITION_ERRORS = (
    TypesysError,
    SerdeError,
    ValueError,
    KeyError,
    IndexError,
    TypeError,
    AttributeError,
    AssertionError,
    SyntaxError,
    RecursionError,
)


@cache
def known_distros() -> dict[str, Stores]:
    """Return the ROS 2 distributions whose message definitions are known, by name."""
    prefix = "ROS2_"
    return {
        store.name.removeprefix(prefix).lower(): store
        for store in Stores
        if store.name.startswith(prefix)
    }


@cache
def distro_types(distro: str) -> Typestore:
    """Return the message definitions of a ROS 2 distribution.

    Args:
        distro: Its name, as in ROS_DISTRO.

    Raises:
        BagError: If its definitions are not known.

    """
    store = known_distros().get(distro.lower())
    if store is None:
        names = ", ".join(sorted(known_distros()))
        msg = f"no message definitions are known for ROS 2 {distro!r}, but for {names}"
        raise BagError(msg)
    return get_typestore(store)


class MessageTypes:
    """The definitions of the topics of a bag: embedded ones first, a distribution's otherwise."""

    def __init__(self, distro: str | None, recorded: Iterable[str]) -> None:
        """Choose the distribution for topics without embedded definitions.

        Args:
            distro: The user's choice, or None.
            recorded: What the bag says of the distribution that recorded it; unknown names count
                for nothing.

        Raises:
            BagError: If the user's choice is unknown.

        """
        self.warnings: list[str] = []
        self._embedded = get_typestore(Stores.EMPTY)
        self._stores: dict[StoredTopic, Typestore | None] = {}
        self._said = False
        self.loading = Stopwatch()
        if distro is not None:
            self.distro, self._source = distro.lower(), ""
            distro_types(self.distro)
        else:
            environment = os.environ.get("ROS_DISTRO", "")
            named = [(name.lower(), "") for name in recorded]
            named.append((environment.lower(), "of ROS_DISTRO"))
            named.append((FALLBACK, "as nothing says which distribution recorded it"))
            self.distro, self._source = next(n for n in named if n[0] in known_distros())

    def of(self, topic: StoredTopic) -> Typestore | None:
        """Return the definitions that a topic's messages are decoded with, None if there are none.

        Topics of the same type in other files of the bag may have another.
        """
        if topic not in self._stores:
            with self.loading:
                self._stores[topic] = self._find(topic)
        return self._stores[topic]

    def prepare(self, topic: StoredTopic) -> None:
        """Make what decodes a topic's messages, which the first of them would have to wait for."""
        store = self.of(topic)
        if store is not None:
            # What is wrong with a definition is said when a message is decoded.
            with self.loading, suppress(*DEFINITION_ERRORS):
                store.get_msgdef(topic.msgtype)

    def _find(self, topic: StoredTopic) -> Typestore | None:
        if topic.serialization != "cdr":
            self.warnings.append(
                f"{topic.name} cannot be decoded: its messages are {topic.serialization!r}, not CDR"
            )
            return None
        if topic.definition:
            store = self._from_bag(topic)
            if store is not None:
                return store
        return self._from_distro(topic)

    def _from_bag(self, topic: StoredTopic) -> Typestore | None:
        try:
            types = _parse(topic.msgtype, topic.encoding, topic.definition)
            store = self._embedded
            try:
                store.register(types)
            except TypesysError:
                # Two topics of the bag define a nested type differently.
                store = get_typestore(Stores.EMPTY)
                store.register(types)
            # Fails where a nested type is missing.
            digest = store.hash_rihs01(topic.msgtype)
            if topic.digest in {"", digest}:
                return store
            problem = "differs from its hash"
        except DEFINITION_ERRORS as err:
            problem = f"cannot be used ({(str(err).splitlines() or [type(err).__name__])[0]})"
        self.warnings.append(
            f"{topic.name}: the definition of {topic.msgtype} in the bag {problem}"
        )
        return None

    def _from_distro(self, topic: StoredTopic) -> Typestore | None:
        store, source = distro_types(self.distro), self._source
        if topic.digest:
            # The hash says better than any name which definition it is.
            matching = [
                name
                for name in (self.distro, *reversed(known_distros()))
                if _digest(name, topic.msgtype) == topic.digest
            ]
            if not matching:
                self.warnings.append(
                    f"{topic.name} cannot be decoded: the definition of {topic.msgtype} is not "
                    "known in the version of the bag (by its hash)"
                )
                return None
            return distro_types(matching[0])
        if topic.msgtype not in store.fielddefs:
            self.warnings.append(
                f"{topic.name} cannot be decoded: {topic.msgtype or 'its type'} is defined neither "
                f"in the bag nor in ROS 2 {self.distro}"
            )
            return None
        if source and not self._said:
            self._said = True
            self.warnings.append(
                f"the bag has no message definitions: those of {self.distro} are used, {source}"
            )
        return store


def gather_definition(msgtype: str, share: Callable[[str], Path | None]) -> str:
    """Put together the definition of an installed type, as rosbag2 embeds it.

    Args:
        msgtype: 'my_msgs/msg/Grip'.
        share: Returns the share folder of a package, None if it is not installed.

    Returns:
        The text of its .msg file with those of the types in it, or '' if one of them is missing.

    """
    texts: dict[str, str] = {}
    wanted = [msgtype]
    while wanted:
        package, _, name = wanted.pop().split("/")
        if f"{package}/{name}" in texts:
            continue
        folder = share(package)
        file = folder / "msg" / f"{name}.msg" if folder else None
        if file is None or not file.is_file():
            return ""
        texts[f"{package}/{name}"] = text = file.read_text(encoding="utf-8")
        for word in FIELD_TYPE.findall(text):
            parts = word.split("/")
            if word not in PRIMITIVES:
                wanted.append(f"{parts[0] if len(parts) > 1 else package}/msg/{parts[-1]}")
    (_, own), *nested = texts.items()
    return "".join([own, *(f"\n{RULE}MSG: {name}\n{text}" for name, text in nested)])


@lru_cache(maxsize=256)
def _parse(msgtype: str, encoding: str, text: str) -> Typesdict:
    if encoding == "ros2msg":
        return get_types_from_msg(text, msgtype)
    if encoding not in {"ros2idl", "omgidl"}:
        msg = f"it is written in {encoding!r}"
        raise TypesysError(msg)
    # Lines for the preprocessor, which the parser of rosbags does not know.
    text = re.sub(r"^[ \t]*#.*$", "", text, flags=re.MULTILINE)
    if not text.startswith(f"{RULE}IDL: "):
        return get_types_from_idl(text)
    types: Typesdict = {}
    for part in text.split(RULE)[1:]:
        types.update(get_types_from_idl(part.split("\n", 1)[1]))
    return types


@lru_cache(maxsize=1024)
def _digest(distro: str, msgtype: str) -> str:
    store = distro_types(distro)
    return store.hash_rihs01(msgtype) if msgtype in store.fielddefs else ""
