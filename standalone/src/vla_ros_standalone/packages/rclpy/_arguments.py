"""ROS's command line: `--ros-args` with remappings, parameters, files and log levels."""

import re
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from rclpy import _names
from rclpy.exceptions import RCLError, UnknownROSArgsError


@dataclass(frozen=True)
class Remap:
    """One rule. `kind` is 'name', 'node' or 'namespace'; `node` limits it to nodes of that name."""

    kind: str
    match: str
    replacement: str
    node: str | None = None
    scheme: str = ""


@dataclass
class Arguments:
    """What a command line says, in its order."""

    remaps: list = field(default_factory=list)
    # (pattern of the fully qualified node name, parameter name, value)
    parameters: list = field(default_factory=list)
    log_levels: dict = field(default_factory=dict)
    default_log_level: str | None = None
    log_to_stdout: bool = True
    log_to_rosout: bool = True
    enclave: str = "/"
    other: list = field(default_factory=list)

    def node_name(self, original_name, otherwise):
        """Return the name that a `__node` rule gives the node, or `otherwise`."""
        return self._first("node", original_name, otherwise)

    def namespace(self, original_name, otherwise):
        """Return the namespace that a `__ns` rule gives the node, or `otherwise`."""
        return self._first("namespace", original_name, otherwise)

    def _first(self, kind, node_name, otherwise):
        for rule in self.remaps:
            if rule.kind == kind and rule.node in (None, node_name):
                return rule.replacement
        return otherwise

    def remap(self, full_name, original_node, node_name, namespace, *, is_service):
        """Return what the first matching rule makes of an absolute name, or None."""
        for rule in self.remaps:
            if rule.kind != "name" or rule.node not in (None, original_node, node_name):
                continue
            if rule.scheme and rule.scheme != ("rosservice" if is_service else "rostopic"):
                continue
            if _names.expand(rule.match, node_name, namespace) == full_name:
                return _names.expand(rule.replacement, node_name, namespace)
        return None

    def parameters_of(self, full_node_name):
        """Return name -> value for a node; what stands later in the command line wins."""
        return {
            name: value
            for pattern, name, value in self.parameters
            if _node_matches(pattern, full_node_name)
        }


def parse(args):
    """Parse a command line (program name included or not).

    Raise RCLError on a bad value, UnknownROSArgsError on an unknown word between `--ros-args` and
    `--` or the end.
    """
    result = Arguments()
    words = iter(args)
    in_ros = False
    unknown = []
    for word in words:
        if not in_ros:
            if word == "--ros-args":
                in_ros = True
            else:
                result.other.append(word)
        elif word == "--":
            in_ros = False
        elif word != "--ros-args" and not _parse_ros(result, word, words):
            unknown.append(word)
    if unknown:
        msg = f"Found unknown ROS arguments: {', '.join(repr(word) for word in unknown)}"
        raise UnknownROSArgsError(msg)
    return result


def remove_ros_args(args):
    """Return the command line without what belongs to ROS."""
    other, in_ros = [], False
    for word in args:
        if word == "--ros-args":
            in_ros = True
        elif in_ros and word == "--":
            in_ros = False
        elif not in_ros:
            other.append(word)
    return other


def _parse_ros(result, word, words):
    name, equals, attached = word.partition(":=")
    flags = {
        "--enable-rosout-logs": ("log_to_rosout", True),
        "--disable-rosout-logs": ("log_to_rosout", False),
        "--enable-stdout-logs": ("log_to_stdout", True),
        "--disable-stdout-logs": ("log_to_stdout", False),
    }
    if word in flags:
        setattr(result, *flags[word])
        return True
    if word in ("--enable-external-lib-logs", "--disable-external-lib-logs"):
        return True  # there are no log files here to switch on or off
    if word in ("-r", "--remap"):
        result.remaps.append(_parse_remap(_value(word, words)))
    elif word in ("-p", "--param"):
        result.parameters.append(_parse_parameter(_value(word, words)))
    elif word == "--params-file":
        result.parameters.extend(load_parameter_file(_value(word, words)))
    elif name == "--log-level":
        _parse_log_level(result, attached if equals else _value(word, words))
    elif name in ("--log-config-file", "--log-file-name"):
        if not equals:
            _value(word, words)  # no log files here
    elif word in ("-e", "--enclave"):
        result.enclave = _value(word, words)
    elif ":=" in word and not word.startswith("-"):
        result.remaps.append(_parse_remap(word))  # the deprecated form without -r
    else:
        return False
    return True


def _value(option, words):
    value = next(words, None)
    if value is None:
        msg = f"Couldn't parse arguments: {option} needs a value after it"
        raise RCLError(msg)
    return value


_NODE_PREFIX = re.compile(r"^([A-Za-z_][A-Za-z0-9_]*|/?\*{1,2}):(?!//|=)")


def _parse_remap(text):
    match, separator, replacement = text.partition(":=")
    if not separator or not match or not replacement:
        msg = f"Couldn't parse remap rule '-r {text}': expected [node:]from:=to"
        raise RCLError(msg)
    node, scheme = None, ""
    prefix = _NODE_PREFIX.match(match)
    if prefix:
        node, match = prefix.group(1), match[prefix.end() :]
    for candidate in ("rostopic", "rosservice"):
        if match.startswith(candidate + "://"):
            scheme, match = candidate, match[len(candidate) + 3 :]
    if match in ("__node", "__name"):
        _names.validate_node_name(replacement)
        return Remap("node", match, replacement, node)
    if match == "__ns":
        _names.validate_namespace(replacement)
        return Remap("namespace", match, replacement, node)
    _names.validate_topic_name(match)
    _names.validate_topic_name(replacement)
    return Remap("name", match, replacement, node, scheme)


def _parse_parameter(text):
    name, separator, value = text.partition(":=")
    if not separator or not name:
        msg = f"Couldn't parse parameter rule '-p {text}': expected [node:]name:=value"
        raise RCLError(msg)
    pattern = "/**"
    node, colon, rest = name.partition(":")
    if colon:
        pattern, name = (node if node.startswith("/") else "/**/" + node), rest
    try:
        parsed = yaml.load(value, Loader=_Loader)
    except yaml.YAMLError as error:
        msg = f"Couldn't parse parameter rule '-p {text}': {error}"
        raise RCLError(msg) from None
    return pattern, name, _checked(parsed, f"-p {text}", name)


def _parse_log_level(result, text):
    logger, separator, level = text.rpartition(":=")
    if level.upper() not in ("UNSET", "DEBUG", "INFO", "WARN", "ERROR", "FATAL"):
        msg = (
            f"Couldn't parse '--log-level {text}': the level is one of debug, info, warn, error, "
            "fatal"
        )
        raise RCLError(msg)
    if separator:
        result.log_levels[logger] = level
    else:
        result.default_log_level = level


class _Loader(yaml.SafeLoader):
    """SafeLoader that reads 1e-3 as a number, as ROS's own parser does."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)$"),
    list("-+0123456789."),
)


def load_parameter_file(path):
    """Return (node pattern, parameter name, value) for each entry of a ROS parameter file."""
    try:
        text = Path(path).read_text(encoding="utf-8")
        document = yaml.load(text, Loader=_Loader)
    except (OSError, UnicodeDecodeError) as error:
        msg = f"cannot read parameter file {path}: {error}"
        raise RCLError(msg) from None
    except yaml.YAMLError as error:
        msg = f"parameter file {path} is not YAML: {error}"
        raise RCLError(msg) from None
    found = []
    if document is not None:
        _walk_nodes(document, "", path, found)
    return found


def _walk_nodes(mapping, prefix, path, found):
    if not isinstance(mapping, dict):
        msg = (
            f"parameter file {path}: '{prefix or 'the top level'}' must be a mapping of node "
            "names to `ros__parameters:`"
        )
        raise RCLError(msg)
    for key, value in mapping.items():
        name = f"{prefix}/{str(key).strip('/')}"
        if not isinstance(value, dict):
            msg = f"parameter file {path}: '{key}' holds no `ros__parameters:`"
            raise RCLError(msg)
        if "ros__parameters" not in value:
            _walk_nodes(value, name, path, found)
            continue
        section = value["ros__parameters"]
        if section is not None and not isinstance(section, dict):
            msg = f"parameter file {path}: ros__parameters of '{key}' must be a mapping"
            raise RCLError(msg)
        for parameter, item in _flatten(section or {}, ""):
            found.append((name, parameter, _checked(item, f"parameter file {path}", parameter)))


def _flatten(mapping, prefix):
    for key, value in mapping.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            yield from _flatten(value, name + ".")
        else:
            yield name, value


def _checked(value, where, name):
    """Return a parameter's value; raise RCLError when ROS has no type for it."""
    items = value if isinstance(value, list) else [value]
    kinds = {type(item) for item in items}
    if not kinds <= {bool, int, float, str} or len(kinds) > 1:
        msg = (
            f"{where}: parameter '{name}' = {value!r}: must be a bool, integer, float or string, "
            "or a list of one of them (write 1.0, not 1, among floats)"
        )
        raise RCLError(msg)
    for item in items:
        if type(item) is int and not -(2**63) <= item < 2**63:
            msg = f"{where}: parameter '{name}' = {item}: does not fit 64 bits"
            raise RCLError(msg)
    return value


def _node_matches(pattern, full_name):
    if pattern == "/**":
        return True
    expression = ""
    for token in pattern.strip("/").split("/"):
        if token == "**":
            expression += "(/[^/]+)*"
        elif token == "*":
            expression += "/[^/]+"
        else:
            expression += "/" + re.escape(token)
    return re.fullmatch(expression, full_name) is not None
