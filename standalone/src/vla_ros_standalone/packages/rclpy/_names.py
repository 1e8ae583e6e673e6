"""ROS's rules for names: validation, expansion, and the DDS names behind them."""

import re

from rclpy.exceptions import (
    InvalidNamespaceException,
    InvalidNodeNameException,
    InvalidServiceNameException,
    InvalidTopicNameException,
)

MAX_NAME_LENGTH = 255
_BAD_NODE_CHARACTER = re.compile(r"[^A-Za-z0-9_]")
_BAD_CHARACTER = re.compile(r"[^A-Za-z0-9_/]")
_BAD_RELATIVE_CHARACTER = re.compile(r"[^A-Za-z0-9_/~{}]")


def validate_node_name(node_name):
    """Return True; raise InvalidNodeNameException when the name breaks the rules."""
    problem = _node_name_problem(node_name)
    if problem:
        raise InvalidNodeNameException(node_name, *problem)
    return True


def _node_name_problem(name):
    if not name:
        return "node name must not be empty", 0
    bad = _BAD_NODE_CHARACTER.search(name)
    if bad:
        return "node name must not contain characters other than alphanumerics or '_'", bad.start()
    if name[0].isdigit():
        return "node name must not start with a number", 0
    if len(name) > MAX_NAME_LENGTH:
        return f"node name must not be longer than {MAX_NAME_LENGTH} characters", MAX_NAME_LENGTH
    return None


def validate_namespace(namespace):
    """Return True; raise InvalidNamespaceException unless it is absolute and well formed."""
    if not namespace.startswith("/"):
        raise InvalidNamespaceException(
            namespace, "namespace must be absolute, it must lead with a '/'", 0
        )
    if namespace != "/":
        problem = _absolute_problem(namespace, "namespace")
        if problem:
            raise InvalidNamespaceException(namespace, *problem)
    return True


def validate_full_topic_name(name, *, is_service=False):
    """Return True; raise unless `name` is a fully expanded topic or service name."""
    kind = "service name" if is_service else "topic name"
    problem = _absolute_problem(name, kind)
    if not name.startswith("/"):
        problem = f"{kind} must be absolute, it must lead with a '/'", 0
    if problem:
        _raise_topic(name, problem, is_service)
    return True


def validate_topic_name(name, *, is_service=False):
    """Return True; raise unless `name` is a topic or service name that can be expanded."""
    kind = "service name" if is_service else "topic name"
    problem = None
    bad = _BAD_RELATIVE_CHARACTER.search(name)
    if not name:
        problem = f"{kind} must not be empty", 0
    elif bad:
        problem = (
            f"{kind} must not contain characters other than alphanumerics, '_', '~', '{{', or '}}'",
            bad.start(),
        )
    elif "~" in name[1:]:
        problem = f"{kind} must not have '~' unless it is the first character", name.index("~", 1)
    elif name.startswith("~") and len(name) > 1 and name[1] != "/":
        problem = f"{kind} must not have a '~' that is not followed by a '/'", 1
    else:
        problem = _token_problem(name, kind)
    if problem:
        _raise_topic(name, problem, is_service)
    return True


def _raise_topic(name, problem, is_service):
    kind = InvalidServiceNameException if is_service else InvalidTopicNameException
    raise kind(name, *problem)


def _absolute_problem(name, kind):
    bad = _BAD_CHARACTER.search(name)
    if bad:
        return (
            f"{kind} must not contain characters other than alphanumerics, '_', or '/'",
            bad.start(),
        )
    return _token_problem(name, kind)


def _token_problem(name, kind):
    if len(name) > 1 and name.endswith("/"):
        return f"{kind} must not end with a '/'", len(name) - 1
    if "//" in name:
        return f"{kind} must not contain repeated '/'", name.index("//") + 1
    number = re.search(r"(^|/)[0-9]", name)
    if number:
        return f"{kind} must not have a token that starts with a number", number.end() - 1
    return None


def expand(name, node_name, namespace):
    """Return the absolute form of a name: `~`, `{node}` and `{ns}` replaced, in the namespace."""
    fully_qualified = join(namespace, node_name)
    if name.startswith("~"):
        name = fully_qualified + name[1:]
    name = name.replace("{node}", node_name)
    name = name.replace("{ns}", namespace).replace("{namespace}", namespace)
    if "{" in name or "}" in name:
        raise InvalidTopicNameException(
            name, "unknown substitution: only {node}, {ns} and {namespace} are known", 0
        )
    return name if name.startswith("/") else join(namespace, name)


def join(namespace, name):
    """Return `name` in `namespace`, which is absolute."""
    return f"/{name}" if namespace == "/" else f"{namespace}/{name}"


def dds_topic(name):
    return "rt" + name


def ros_topic(name):
    """Return the ROS topic behind a DDS topic, or None when it is not a ROS topic."""
    return name[2:] if name.startswith("rt/") else None


def ros_service(name):
    """Return the ROS service behind a DDS request or reply topic, or None."""
    if name.startswith("rq/") and name.endswith("Request"):
        return name[2 : -len("Request")]
    if name.startswith("rr/") and name.endswith("Reply"):
        return name[2 : -len("Reply")]
    return None


def ros_type(name):
    """Return 'std_msgs/msg/String' for 'std_msgs::msg::dds_::String_'; other names unchanged."""
    match = re.fullmatch(r"(\w+)::(\w+)::dds_::(\w+)_", name)
    if not match:
        return name
    package, kind, base = match.groups()
    if kind == "srv":
        base = re.sub(r"_(Request|Response)$", "", base)
    return f"{package}/{kind}/{base}"
