"""The files of a bag: found, unpacked or repaired in a temporary folder, opened."""

import re
import shutil
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from vla_ros.replay import mcap_file, sqlite_file
from vla_ros.replay.mcap_file import McapFile
from vla_ros.replay.sqlite_file import SqliteFile, page_counts, set_page_count
from vla_ros.replay.storage import (
    LZ4_MAGIC,
    ZSTD_MAGIC,
    BagError,
    Cache,
    DamagedError,
    StorageFile,
    stream_unpacked,
)
from vla_ros.yaml_text import parse_yaml

METADATA = "metadata.yaml"
ROOT = "rosbag2_bagfile_information"
LARGEST_METADATA = 64 << 20
NEWEST_VERSION = 9
STORAGE_SUFFIXES = (".db3", ".mcap")
PACKED_SUFFIXES = (".zstd", ".zst", ".lz4")
SPARE_DISK = 256 << 20


@dataclass(slots=True)
class FoundBag:
    """What is known of a bag before its files are opened.

    Attributes:
        paths: Its files that are there, in order.
        warnings: What is missing or wrong, in sentences.
        ros_distro: The distribution that recorded it by its metadata, or ''.
        counts: Messages by topic, by its metadata.
        digests: Hashes of the types of its topics, by its metadata.

    """

    paths: list[Path]
    warnings: list[str] = field(default_factory=list)
    ros_distro: str = ""
    counts: dict[str, int] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)


def find_bag(path: Path) -> FoundBag:
    """Find the files of a bag.

    Args:
        path: Its folder, with or without metadata.yaml, or one of its files.

    Raises:
        BagError: If there is none.

    """
    if not path.exists():
        msg = f"there is no bag {path}"
        raise BagError(msg)
    if path.is_file():
        if path.name == METADATA:
            return find_bag(path.parent)
        if path.suffix == ".bag":
            msg = f"{path} is a bag of ROS 1: convert it, with rosbags-convert for example"
            raise BagError(msg)
        return FoundBag([path])
    present = sorted((p for p in path.iterdir() if _is_storage(p)), key=_natural)
    bag = FoundBag([])
    if not (path / METADATA).is_file():
        bag.warnings.append(f"{METADATA} is missing: the files of the folder are read without it")
    else:
        _read_metadata(path / METADATA, bag)
    listed = {p.name for p in bag.paths}
    stems = {_stem(p) for p in bag.paths}
    for found in present:
        # A recorder that was stopped while it compressed leaves both.
        if found.name not in listed and _stem(found) not in stems:
            if bag.paths and listed:
                bag.warnings.append(f"{found.name} is not in {METADATA}; it is read too")
            bag.paths.append(found)
            stems.add(_stem(found))
    if not bag.paths:
        msg = f"{path} is no bag: there is no .db3 or .mcap file in it"
        raise BagError("; ".join([msg, *bag.warnings]))
    return bag


def open_file(path: Path, cache: Cache, stack: ExitStack, warnings: list[str]) -> StorageFile:
    """Open one file of a bag, unpacked or repaired in a temporary folder where it has to be.

    Args:
        path: The file; it is never written to.
        cache: Shared by the files of a bag.
        stack: Closes the file, and removes the temporary folder.
        warnings: What is damaged is added to it, with the file's name.

    Raises:
        BagError: If nothing of it can be read.

    """
    said = f"{path.name}: "
    try:
        with path.open("rb") as file:
            magic = file.read(16)
        if not magic:
            msg = f"{path.name} is empty"
            raise BagError(msg)
        own = path
        if magic[:4] in {ZSTD_MAGIC, LZ4_MAGIC}:
            own = _temporary(stack) / _stem(path)
            losses = _unpack_file(path, own, magic[:4])
            with own.open("rb") as file:
                magic = file.read(16)
            if losses and not magic:
                raise BagError(said + losses[0])
            warnings += [said + loss for loss in losses]
        if magic[:8] == mcap_file.MAGIC:
            opened: StorageFile = McapFile(own, cache)
        elif magic == sqlite_file.MAGIC:
            whole = _whole_database(path, own, stack)
            warnings += [said + loss for loss in whole.warnings]
            opened = SqliteFile(whole.path)
        else:
            msg = f"{path.name} is no file of a ROS 2 bag, or its beginning is damaged"
            raise BagError(msg)
    except OSError as err:
        msg = f"{path.name} cannot be read: {err.strerror or err}"
        raise BagError(msg) from err
    stack.callback(opened.close)
    warnings += [said + loss for loss in opened.warnings]
    return opened


def _is_storage(path: Path) -> bool:
    suffixes = path.suffixes[-2:]
    packed = len(suffixes) > 1 and suffixes[-1] in PACKED_SUFFIXES
    return path.is_file() and (suffixes[-2:-1] if packed else suffixes[-1:]) in [
        [s] for s in STORAGE_SUFFIXES
    ]


def _stem(path: Path) -> str:
    return path.stem if path.suffix in PACKED_SUFFIXES else path.name


def _natural(path: Path) -> list[tuple[int, str]]:
    """Sort bag_10 after bag_9, and an unpacked file before its packed copy."""
    parts: list[str] = re.findall(r"\d+|\D+", path.name)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]


def _read_metadata(path: Path, bag: FoundBag) -> None:
    """Take from metadata.yaml what can be used; what is damaged in it is said and left out."""
    try:
        info = _load_metadata(path)
    except (OSError, yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as err:
        problem = str(err).splitlines()[0]
        bag.warnings.append(
            f"{METADATA} cannot be used ({problem}): the files of the folder are read without it"
        )
        return
    version = info.get("version")
    if isinstance(version, int) and version > NEWEST_VERSION:
        bag.warnings.append(f"{METADATA} has version {version}, newer than any known here")
    bag.ros_distro = str(info.get("ros_distro") or "")
    for entry in _dicts(info.get("topics_with_message_count")):
        topic = entry.get("topic_metadata")
        if isinstance(topic, dict) and isinstance(entry.get("message_count"), int):
            name = str(topic.get("name"))
            bag.counts[name] = bag.counts.get(name, 0) + entry["message_count"]
            bag.digests[name] = str(topic.get("type_description_hash") or "")
    listed = info.get("relative_file_paths")
    names = [Path(str(name)).name for name in listed] if isinstance(listed, list) else []
    details = {_stem(Path(str(f.get("path")))): f for f in _dicts(info.get("files"))}
    for name in dict.fromkeys(names):
        found = _present(path.parent, name)
        if found is not None:
            bag.paths.append(found)
        else:
            said = _extent(details.get(_stem(Path(name)), {}))
            bag.warnings.append(f"{name} is missing: its messages{said} are lost")


def _load_metadata(path: Path) -> dict[str, Any]:
    if path.stat().st_size > LARGEST_METADATA:
        msg = "it is too large"
        raise ValueError(msg)
    document = parse_yaml(path.read_bytes())
    info = document.get(ROOT) if isinstance(document, dict) else None
    if not isinstance(info, dict):
        msg = f"it has no {ROOT}"
        raise ValueError(msg)  # noqa: TRY004 - of the file, not of an argument
    return info


def _present(folder: Path, name: str) -> Path | None:
    """Return a file under its name, or under that which it has packed or unpacked."""
    for candidate in (name, _stem(Path(name)), *(name + suffix for suffix in PACKED_SUFFIXES)):
        if candidate and (folder / candidate).is_file():
            return folder / candidate
    return None


def _extent(details: Mapping[str, Any]) -> str:
    try:
        start = int(details["starting_time"]["nanoseconds_since_epoch"])
        end = start + int(details["duration"]["nanoseconds"])
        count = int(details["message_count"])
    except (KeyError, TypeError, ValueError):
        return ""
    return f" ({count}, received from {start / 1e9:.3f} s to {end / 1e9:.3f} s)"


def _dicts(value: object) -> Sequence[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _temporary(stack: ExitStack) -> Path:
    # Goes at the latest with the process, if a bag is not closed.
    folder = TemporaryDirectory(prefix="vla_ros_bag_", ignore_cleanup_errors=True)
    stack.callback(folder.cleanup)
    return Path(folder.name)


def _unpack_file(packed: Path, to: Path, magic: bytes) -> list[str]:
    """Unpack a file as far as it goes; return what is wrong with it."""
    compression = "zstd" if magic == ZSTD_MAGIC else "lz4"
    room = shutil.disk_usage(to.parent).free - SPARE_DISK
    with packed.open("rb") as file, to.open("wb") as out:
        try:
            whole = stream_unpacked(file, out, compression, room)
        except DamagedError as err:
            problem = str(err)
        else:
            problem = "" if whole else "it is cut off"
        size = out.tell()
    if not problem:
        return []
    return [f"{problem}: {f'only the first {size} bytes' if size else 'nothing'} could be unpacked"]


@dataclass(frozen=True, slots=True)
class _Database:
    path: Path
    warnings: list[str]


def _whole_database(original: Path, path: Path, stack: ExitStack) -> _Database:
    """Return a database that can be read without its journals: the same, or a repaired copy.

    Args:
        original: The bag's file, beside which journals may lie.
        path: The database: the bag's file or already a copy of it.
        stack: Removes the copy.

    """
    warnings: list[str] = []
    beside = [Path(f"{original}-wal"), Path(f"{original}-journal")] if path == original else []
    journals = [journal for journal in beside if _size(journal)]
    if journals:
        copied = _copy(path, stack, journals)
        problem = _finish(copied)
        if problem:
            warnings.append(f"it was not finished, and its journal cannot be used ({problem})")
        else:
            warnings.append("it was not finished: its journal was applied to a copy")
            path = copied
    size, by_header, pages = page_counts(path)
    if by_header not in {0, pages} or path.stat().st_size % size:
        # Whole pages only, and as many as there are.
        if path == original:
            path = _copy(path, stack, [])
        set_page_count(path, pages)
        if by_header > pages:
            warnings.append(
                f"it is cut off: {by_header - pages} of {by_header} pages of {size} bytes "
                "are missing"
            )
        else:
            warnings.append("it was not finished: it is longer than its header says")
    return _Database(path, warnings)


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _copy(path: Path, stack: ExitStack, beside: Sequence[Path]) -> Path:
    folder = _temporary(stack)
    needed = sum(_size(p) for p in (path, *beside))
    if needed + SPARE_DISK > shutil.disk_usage(folder).free:
        msg = (
            f"{path.name} has to be repaired in a copy, for which {folder.parent} has no room: "
            "free some, or set TMPDIR"
        )
        raise BagError(msg)
    for source in (path, *beside):
        copied = Path(shutil.copyfile(source, folder / source.name))
        copied.chmod(0o600)
    return folder / path.name


def _finish(copied: Path) -> str:
    """Have SQLite apply the journals beside a database; return what hindered it, or ''."""
    try:
        with closing(sqlite3.connect(copied)) as database:
            database.execute("SELECT count(*) FROM sqlite_master").fetchone()
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            database.execute("PRAGMA journal_mode = DELETE")
    except sqlite_file.ERRORS as err:
        return str(err)
    return ""
