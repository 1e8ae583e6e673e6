"""Launch files: read from XML, checked whole, then carried out into a list of processes to run.

Element and attribute names and their meaning are those of ``launch_xml`` and ``launch_ros`` on
ROS 2 Humble. Unlike there, everything is worked out before the first process starts.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from xml.parsers import expat

import yaml

from vla_ros_standalone.launch.executables import find_executable
from vla_ros_standalone.launch.substitutions import (
    VALUE_TYPES,
    Context,
    LaunchError,
    Template,
    boolean,
    coerce,
    parse,
    perform,
    substitute,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class PlacedError(LaunchError):
    """An error that names its file and line."""


OUTPUTS = ("log", "screen", "both")


@dataclass(frozen=True, slots=True)
class Process:
    """A process to run.

    ``name`` is the label of its output, such as ``camera_node-1``; ``output`` says where its lines
    go, as in ``launch``: ``screen``, ``log`` (only stderr to the screen) or ``both``.
    """

    name: str
    command: tuple[str, ...]
    environment: dict[str, str]
    directory: str | None
    output: str
    shell: bool
    respawn: bool
    respawn_delay: float
    shutdown_on_exit: bool


@dataclass(frozen=True, slots=True)
class Argument:
    """An argument that a launch file declares."""

    name: str
    default: str | None
    description: str


@dataclass(slots=True)
class Element:
    """An XML element with its place."""

    tag: str
    attributes: dict[str, str]
    file: str
    line: int
    children: list[Element] = field(default_factory=list)

    def error(self, what: object) -> PlacedError:
        """Make the error that names this element's place."""
        return PlacedError(f"{self.file}:{self.line}: <{self.tag}>: {what}")

    def named(self, tag: str) -> Iterator[Element]:
        """Give the children with a tag."""
        return (child for child in self.children if child.tag == tag)


@dataclass(frozen=True, slots=True)
class _Shape:
    """What an element may hold."""

    required: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    children: tuple[str, ...] = ()


_CONDITIONS = ("if", "unless")
_RUN = ("output", "cwd", "launch-prefix", "respawn", "respawn_delay", "on_exit", *_CONDITIONS)
_ACTIONS = {
    "arg": _Shape(("name",), ("default", "description", *_CONDITIONS), ("choice",)),
    "let": _Shape(("name", "value"), _CONDITIONS),
    "group": _Shape((), ("scoped", *_CONDITIONS), ("*",)),
    "include": _Shape(("file",), _CONDITIONS, ("arg",)),
    "node": _Shape(
        ("pkg", "exec"),
        ("name", "namespace", "exec_name", "args", "ros_args", *_RUN),
        ("param", "remap", "env"),
    ),
    "executable": _Shape(("cmd",), ("name", "shell", *_RUN), ("env",)),
    "set_env": _Shape(("name", "value"), _CONDITIONS),
    "unset_env": _Shape(("name",), _CONDITIONS),
    "push_ros_namespace": _Shape(("namespace",), _CONDITIONS),
    "push-ros-namespace": _Shape(("namespace",), _CONDITIONS),
    "set_remap": _Shape(("from", "to"), _CONDITIONS),
    "log": _Shape(("message",), _CONDITIONS),
}
_PARTS = {
    ("arg", "choice"): _Shape(("value",)),
    ("include", "arg"): _Shape(("name", "value")),
    ("node", "param"): _Shape((), ("name", "value", "type", "from"), ("param",)),
    ("param", "param"): _Shape(("name",), ("value", "type"), ("param",)),
    ("node", "remap"): _Shape(("from", "to")),
    ("node", "env"): _Shape(("name", "value")),
    ("executable", "env"): _Shape(("name", "value")),
}
_PLAIN = frozenset({"scoped", "shell", "respawn_delay", "on_exit", "type", "description"})
"""Attributes in which ``launch`` reads no substitutions."""


def read(file: str) -> Element:
    """Read and check a launch file.

    Raises:
        LaunchError: It cannot be read, is not XML, or holds an element, attribute or substitution
        that
            is not known; with its line.
    """
    root: list[Element] = []
    open_elements: list[Element] = []
    parser = expat.ParserCreate()

    def start(tag: str, attributes: dict[str, str]) -> None:
        element = Element(tag, attributes, file, parser.CurrentLineNumber)
        (open_elements[-1].children if open_elements else root).append(element)
        open_elements.append(element)

    def text(data: str) -> None:
        if data.strip():
            msg = f"text is not allowed here: '{data.strip()}'"
            raise open_elements[-1].error(msg)

    parser.StartElementHandler = start
    parser.EndElementHandler = lambda _: open_elements.pop()
    parser.CharacterDataHandler = text
    try:
        parser.Parse(Path(file).read_bytes(), True)
    except OSError as error:
        msg = f"{file}: cannot read the launch file: {error.strerror}"
        raise PlacedError(msg) from None
    except expat.ExpatError as error:
        msg = f"{file}:{error.lineno}: not well-formed XML: {error}"
        raise PlacedError(msg) from None
    if root[0].tag != "launch":
        msg = "a launch file is one <launch> element"
        raise root[0].error(msg)
    _check(root[0], _Shape(children=("*",)))
    return root[0]


def _check(element: Element, shape: _Shape) -> None:
    """Check an element and those within it by name and syntax."""
    _check_attributes(element, shape)
    for child in element.children:
        if (element.tag, child.tag) in _PARTS and child.tag in shape.children:
            _check(child, _PARTS[element.tag, child.tag])
        elif "*" in shape.children and child.tag in _ACTIONS:
            _check(child, _ACTIONS[child.tag])
        else:
            known = ", ".join(_ACTIONS if "*" in shape.children else shape.children) or "nothing"
            msg = f"not known in <{element.tag}> (known: {known})"
            raise child.error(msg)


def _check_attributes(element: Element, shape: _Shape) -> None:
    for name, value in element.attributes.items():
        if name not in (*shape.required, *shape.optional):
            known = ", ".join((*shape.required, *shape.optional)) or "none"
            msg = f"attribute '{name}' is not known here (known: {known})"
            raise element.error(msg)
        if name not in _PLAIN:
            try:
                parse(value)
            except LaunchError as error:
                msg = f"attribute '{name}': {error}"
                raise element.error(msg) from None
    for name in shape.required:
        if name not in element.attributes:
            msg = f"attribute '{name}' is missing"
            raise element.error(msg)
    if {"if", "unless"} <= element.attributes.keys():
        msg = "'if' and 'unless' exclude each other"
        raise element.error(msg)
    if element.tag == "param":
        _check_param(element)
    if "on_exit" in element.attributes:
        _check_on_exit(element)


def _check_param(element: Element) -> None:
    has = element.attributes.keys()
    if "from" in has:
        if has != {"from"} or element.children:
            msg = "'from' stands alone"
            raise element.error(msg)
    elif "name" not in has:
        msg = "attribute 'name' or 'from' is missing"
        raise element.error(msg)
    elif ("value" in has) == bool(element.children):
        msg = "either a 'value' or nested <param> elements are needed"
        raise element.error(msg)
    if element.attributes.get("type", "str") not in VALUE_TYPES:
        msg = f"type must be one of {', '.join(sorted(VALUE_TYPES))}"
        raise element.error(msg)


def _check_on_exit(element: Element) -> None:
    if element.attributes["on_exit"] != "shutdown":
        msg = "on_exit can only be 'shutdown'"
        raise element.error(msg)
    if (os.environ.get("ROS_DISTRO") or "humble") == "humble":
        msg = "'on_exit' is not known to ROS 2 Humble's launch (it is from Iron on)"
        raise element.error(msg)


def arguments(file: str, context: Context) -> list[Argument]:
    """List the arguments that a launch file and the files that it includes declare.

    Included files whose path depends on an argument are left out.
    """
    found: dict[str, Argument] = {}

    def visit(element: Element) -> None:
        for child in element.children:
            if child.tag == "arg" and element.tag != "include":
                name = child.attributes["name"]
                description = child.attributes.get("description", "no description given")
                choices = [choice.attributes["value"] for choice in child.named("choice")]
                if choices:
                    description = f"{description.rstrip('.')}. Valid choices are: {choices}"
                found.setdefault(name, Argument(name, child.attributes.get("default"), description))
            elif child.tag == "include":
                here = Context(environment=context.environment, file=child.file)
                try:
                    included = substitute(child.attributes["file"], here)
                except LaunchError:
                    continue
                given = {part.attributes["name"] for part in child.named("arg")}
                before = set(found)
                visit(read(included))
                for name in given - before:
                    found.pop(name, None)
            else:
                visit(child)

    visit(read(file))
    return list(found.values())


class Launch:
    """Carries out the actions of a launch file, in order.

    Args:
        given: Launch arguments, by name.
        directory: Existing folder for the parameter files that are written for nodes.
        log: Takes the text of each ``<log>``.
    """

    SETTINGS = frozenset({"sigterm_timeout", "sigkill_timeout"})
    """Variables that have a meaning without being declared, as in ``launch``."""

    def __init__(
        self, given: dict[str, str], directory: Path, log: Callable[[str], None] = print
    ) -> None:
        self.given = given
        self.context = Context(dict(given), dict(os.environ))
        self.processes: list[Process] = []
        self.declared: set[str] = set()
        self._directory = directory
        self._log = log
        self._including: list[str] = []
        self._remaps: tuple[tuple[str, str], ...] = ()

    def run(self, file: str) -> list[Process]:
        """Work out the processes of a launch file.

        Raises:
            LaunchError: Anything wrong, with file and line.
        """
        self._include(file)
        unknown = self.given.keys() - self.declared - self.SETTINGS
        if unknown:
            known = ", ".join(sorted(self.declared)) or "none"
            msg = f"{file}: no launch argument '{min(unknown)}' is declared (declared: {known})"
            raise LaunchError(msg)
        return self.processes

    def _include(self, file: str) -> None:
        path = os.path.abspath(file)
        if path in self._including:
            msg = f"{path}: includes itself: {' > '.join([*self._including, path])}"
            raise LaunchError(msg)
        root = read(path)
        outer, self.context.file = self.context.file, path
        self._including.append(path)
        self._actions(root)
        self._including.pop()
        self.context.file = outer

    def _actions(self, parent: Element) -> None:
        for element in parent.children:
            try:
                if self._wanted(element):
                    _EXECUTE[element.tag](self, element)
            except PlacedError:
                raise
            except LaunchError as error:
                raise element.error(error) from None

    def _wanted(self, element: Element) -> bool:
        if "if" in element.attributes:
            return boolean(self._text(element, "if"))
        if "unless" in element.attributes:
            return not boolean(self._text(element, "unless"))
        return True

    def _text(self, element: Element, name: str) -> str:
        return substitute(element.attributes[name], self.context)

    def _optional(self, element: Element, name: str) -> str | None:
        return self._text(element, name) if name in element.attributes else None

    def _declare(self, element: Element) -> None:
        name = element.attributes["name"]
        self.declared.add(name)
        if name not in self.context.configurations:
            default = self._optional(element, "default")
            if default is None:
                about = element.attributes.get("description", "no description given")
                msg = f"launch argument '{name}' ({about}) is required: add {name}:=<value>"
                raise LaunchError(msg)
            self.context.configurations[name] = default
        choices = [choice.attributes["value"] for choice in element.named("choice")]
        value = self.context.configurations[name]
        if choices and value not in choices:
            msg = f"launch argument '{name}' is '{value}', not one of {choices}"
            raise LaunchError(msg)

    def _let(self, element: Element) -> None:
        name = self._text(element, "name")
        self.context.configurations[name] = self._text(element, "value")

    def _group(self, element: Element) -> None:
        scoped = coerce(element.attributes.get("scoped", "true"), "bool")
        outer = dict(self.context.configurations), dict(self.context.environment)
        remaps = self._remaps
        self._actions(element)
        if scoped:
            self.context.configurations, self.context.environment = outer
            self._remaps = remaps

    def _include_element(self, element: Element) -> None:
        file = self._text(element, "file")
        if not os.path.isfile(file):
            msg = f"no file '{file}'"
            raise LaunchError(msg)
        # In order, and into the including file's variables: so does launch.
        for part in element.named("arg"):
            name = self._text(part, "name")
            self.context.configurations[name] = self._text(part, "value")
        self._include(file)

    def _set_environment(self, element: Element) -> None:
        self.context.environment[self._text(element, "name")] = self._text(element, "value")

    def _unset_environment(self, element: Element) -> None:
        self.context.environment.pop(self._text(element, "name"), None)

    def _push_namespace(self, element: Element) -> None:
        pushed = self._text(element, "namespace")
        base = self.context.configurations.get("ros_namespace")
        self.context.configurations["ros_namespace"] = _namespace(base, pushed) or "/"

    def _set_remap(self, element: Element) -> None:
        self._remaps += ((self._text(element, "from"), self._text(element, "to")),)

    def _log_message(self, element: Element) -> None:
        self._log(self._text(element, "message"))

    def _executable(self, element: Element) -> None:
        command = self._command_line(element, "cmd")
        shell = bool(coerce(element.attributes.get("shell", "false"), "bool"))
        if not command:
            msg = "'cmd' is empty"
            raise LaunchError(msg)
        if (
            not shell
            and shutil.which(command[0], path=self.context.environment.get("PATH")) is None
        ):
            msg = f"no executable '{command[0]}'"
            raise LaunchError(msg)
        name = self._optional(element, "name") or os.path.basename(command[0])
        self._add(element, name, command, shell=shell)

    def _node(self, element: Element) -> None:
        package, executable = self._text(element, "pkg"), self._text(element, "exec")
        name = self._optional(element, "name")
        if name is not None and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            msg = f"'{name}' is no valid node name"
            raise LaunchError(msg)
        namespace = _namespace(
            self.context.configurations.get("ros_namespace"), self._optional(element, "namespace")
        )
        command = list(find_executable(package, executable, self.context.environment))
        command += self._command_line(element, "args")
        if "ros_args" in element.attributes:
            command += ["--ros-args", *self._command_line(element, "ros_args")]
        command += ["--ros-args"]
        if name is not None:
            command += ["-r", f"__node:={name}"]
        if namespace is not None:
            command += ["-r", f"__ns:={namespace}"]
        # A rule for this node alone needs its whole name; else one for every node in the process.
        node = None if name is None or namespace is None else f"{namespace.rstrip('/')}/{name}"
        for param in element.named("param"):
            command += ["--params-file", self._parameter_file(param, node or "/**")]
        for before, after in self._remaps:
            command += ["-r", f"{before}:={after}"]
        for remap in element.named("remap"):
            command += ["-r", f"{self._text(remap, 'from')}:={self._text(remap, 'to')}"]
        self._add(element, self._optional(element, "exec_name") or executable, command)

    def _parameter_file(self, param: Element, node: str) -> str:
        if "from" in param.attributes:
            file = os.path.abspath(self._text(param, "from"))
            if not os.path.isfile(file):
                msg = f"no parameter file '{file}'"
                raise param.error(msg)
            return file
        content = {node: {"ros__parameters": dict(self._parameters(param, ""))}}
        file = self._directory / f"launch_params_{len(list(self._directory.iterdir()))}.yaml"
        file.write_text(yaml.dump(content, default_flow_style=False), encoding="utf-8")
        return str(file)

    def _parameters(self, param: Element, prefix: str) -> Iterator[tuple[str, object]]:
        name = prefix + self._text(param, "name")
        if param.children:
            for child in param.children:
                yield from self._parameters(child, f"{name}.")
            return
        try:
            yield name, coerce(self._text(param, "value"), param.attributes.get("type"))
        except LaunchError as error:
            raise param.error(error) from None

    def _command_line(self, element: Element, attribute: str) -> list[str]:
        if attribute not in element.attributes:
            return []
        try:
            words = _split(parse(element.attributes[attribute]))
        except ValueError as error:
            msg = f"attribute '{attribute}': {error}"
            raise LaunchError(msg) from None
        return [perform(word, self.context) for word in words]

    def _add(self, element: Element, name: str, command: list[str], *, shell: bool = False) -> None:
        output = os.environ.get("OVERRIDE_LAUNCH_PROCESS_OUTPUT") or (
            self._optional(element, "output") or "log"
        )
        if output not in OUTPUTS:
            msg = f"output must be one of {', '.join(OUTPUTS)}, not '{output}'"
            raise LaunchError(msg)
        prefix = shlex.split(self._optional(element, "launch-prefix") or "")
        environment = dict(self.context.environment)
        for part in element.named("env"):
            environment[self._text(part, "name")] = self._text(part, "value")
        respawn = coerce(self._optional(element, "respawn") or "false", "bool")
        delay = float(coerce(element.attributes.get("respawn_delay", "0"), "float"))
        if delay < 0:
            msg = f"respawn_delay must not be negative: {delay}"
            raise LaunchError(msg)
        self.processes.append(
            Process(
                name=f"{name}-{len(self.processes) + 1}",
                command=(*prefix, *command),
                environment=environment,
                directory=self._optional(element, "cwd"),
                output=output,
                shell=shell,
                respawn=bool(respawn),
                respawn_delay=delay,
                shutdown_on_exit="on_exit" in element.attributes,
            )
        )


_EXECUTE = {
    "arg": Launch._declare,
    "let": Launch._let,
    "group": Launch._group,
    "include": Launch._include_element,
    "node": Launch._node,
    "executable": Launch._executable,
    "set_env": Launch._set_environment,
    "unset_env": Launch._unset_environment,
    "push_ros_namespace": Launch._push_namespace,
    "push-ros-namespace": Launch._push_namespace,
    "set_remap": Launch._set_remap,
    "log": Launch._log_message,
}


def _namespace(base: str | None, relative: str | None) -> str | None:
    """Put namespaces together as ``launch_ros`` does: an absolute one, or None of two Nones."""
    if base is None and relative is None:
        return None
    if relative is None:
        joined = base or ""
    elif not base or relative.startswith("/"):
        joined = relative
    else:
        joined = f"{base.rstrip('/')}/{relative}"
    joined = "/" + joined.strip("/")
    if not re.fullmatch(r"/|(/[A-Za-z_][A-Za-z0-9_]*)+", joined):
        msg = f"'{joined}' is no valid namespace"
        raise LaunchError(msg)
    return joined


def _split(template: Template) -> list[Template]:
    """Split a command line into words; what a substitution gives is never split.

    Raises:
        ValueError: A quotation mark is not closed.
    """
    words: list[list] = [[]]
    for part in template:
        if not isinstance(part, str):
            words[-1].append(part)
            continue
        tokens = shlex.split(part)
        if part[0].isspace() or not tokens:
            words.append([])
        for index, token in enumerate(tokens):
            if index:
                words.append([])
            words[-1].append(token)
        if tokens and part[-1].isspace():
            words.append([])
    return [tuple(word) for word in words if word]
