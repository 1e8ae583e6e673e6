"""Parameters: names with typed values, and their form as messages and in files."""

import array
from enum import IntEnum

import yaml
from rcl_interfaces.msg import Parameter as ParameterMsg
from rcl_interfaces.msg import ParameterType, ParameterValue

from rclpy import _arguments

PARAMETER_SEPARATOR_STRING = "."

_FIELDS = {
    ParameterType.PARAMETER_BOOL: "bool_value",
    ParameterType.PARAMETER_INTEGER: "integer_value",
    ParameterType.PARAMETER_DOUBLE: "double_value",
    ParameterType.PARAMETER_STRING: "string_value",
    ParameterType.PARAMETER_BYTE_ARRAY: "byte_array_value",
    ParameterType.PARAMETER_BOOL_ARRAY: "bool_array_value",
    ParameterType.PARAMETER_INTEGER_ARRAY: "integer_array_value",
    ParameterType.PARAMETER_DOUBLE_ARRAY: "double_array_value",
    ParameterType.PARAMETER_STRING_ARRAY: "string_array_value",
}


class Parameter:
    """A parameter: name, type and value."""

    class Type(IntEnum):
        NOT_SET = ParameterType.PARAMETER_NOT_SET
        BOOL = ParameterType.PARAMETER_BOOL
        INTEGER = ParameterType.PARAMETER_INTEGER
        DOUBLE = ParameterType.PARAMETER_DOUBLE
        STRING = ParameterType.PARAMETER_STRING
        BYTE_ARRAY = ParameterType.PARAMETER_BYTE_ARRAY
        BOOL_ARRAY = ParameterType.PARAMETER_BOOL_ARRAY
        INTEGER_ARRAY = ParameterType.PARAMETER_INTEGER_ARRAY
        DOUBLE_ARRAY = ParameterType.PARAMETER_DOUBLE_ARRAY
        STRING_ARRAY = ParameterType.PARAMETER_STRING_ARRAY

        @classmethod
        def from_parameter_value(cls, parameter_value):
            """Return the type of a Python value; raise TypeError when there is none."""
            for kind in _INFERENCE_ORDER:
                if cls(kind).check(parameter_value):
                    return cls(kind)
            msg = f"The given value is not one of the allowed types '{parameter_value!r}'."
            raise TypeError(msg)

        def check(self, parameter_value):
            """Whether a Python value is of this type."""
            if self is Parameter.Type.NOT_SET:
                return parameter_value is None
            if self in _SCALARS:
                kind = _SCALARS[self]
                is_bool = isinstance(parameter_value, bool)
                return isinstance(parameter_value, kind) and (kind is bool or not is_bool)
            element = _ELEMENTS[self]
            if element in (int, float):
                if not isinstance(parameter_value, (list, tuple, array.array)):
                    return False
            elif not isinstance(parameter_value, (list, tuple)):
                return False
            return all(
                isinstance(item, element) and (element is bool or not isinstance(item, bool))
                for item in parameter_value
            )

    @classmethod
    def from_parameter_msg(cls, param_msg):
        type_ = Parameter.Type(param_msg.value.type)
        value = None
        if type_ in _FIELDS:
            # As in rclpy, numbers stay in the message's array.array.
            value = getattr(param_msg.value, _FIELDS[type_])
        return cls(param_msg.name, type_, value)

    def __init__(self, name, type_=None, value=None):
        if type_ is None:
            type_ = Parameter.Type.from_parameter_value(value)
        if not isinstance(type_, Parameter.Type):
            msg = f"type must be an instance of '{Parameter.Type!r}'"
            raise TypeError(msg)
        if not type_.check(value):
            msg = f"Type '{type_}' and value '{value}' do not agree"
            raise ValueError(msg)
        self._type_ = type_
        self._name = name
        self._value = value

    @property
    def name(self):
        return self._name

    @property
    def type_(self):
        return self._type_

    @property
    def value(self):
        return self._value

    def __repr__(self):
        return f"Parameter({self._name!r}, {self._type_.name}, {self._value!r})"

    def get_parameter_value(self):
        """Return the value as a message."""
        message = ParameterValue(type=self._type_.value)
        if self._type_ in _FIELDS:
            setattr(message, _FIELDS[self._type_], self._value)
        return message

    def to_parameter_msg(self):
        return ParameterMsg(name=self._name, value=self.get_parameter_value())


_SCALARS = {
    Parameter.Type.BOOL: bool,
    Parameter.Type.INTEGER: int,
    Parameter.Type.DOUBLE: float,
    Parameter.Type.STRING: str,
}
_ELEMENTS = {
    Parameter.Type.BYTE_ARRAY: bytes,
    Parameter.Type.BOOL_ARRAY: bool,
    Parameter.Type.INTEGER_ARRAY: int,
    Parameter.Type.DOUBLE_ARRAY: float,
    Parameter.Type.STRING_ARRAY: str,
}
_INFERENCE_ORDER = (Parameter.Type.NOT_SET, *_SCALARS, *_ELEMENTS)


def parameter_value_to_python(parameter_value):
    """Return the Python value of a ParameterValue message, None when it is not set."""
    if parameter_value.type == ParameterType.PARAMETER_NOT_SET:
        return None
    if parameter_value.type not in _FIELDS:
        msg = f"unexpected parameter type {parameter_value.type}"
        raise RuntimeError(msg)
    value = getattr(parameter_value, _FIELDS[parameter_value.type])
    return value if isinstance(value, (bool, int, float, str)) else list(value)


def get_parameter_value(string_value):
    """Return the ParameterValue that a string from a command line means."""
    try:
        value = yaml.safe_load(string_value)
        type_ = Parameter.Type.from_parameter_value(value)
    except (yaml.YAMLError, TypeError):
        value, type_ = string_value, Parameter.Type.STRING
    if type_ is Parameter.Type.NOT_SET:
        value, type_ = string_value, Parameter.Type.STRING
    return Parameter("", type_, value).get_parameter_value()


def parameter_dict_from_yaml_file(
    parameter_file, use_wildcard=False, target_nodes=None, namespace=""
):
    """Return name -> Parameter message of a ROS parameter file, for all or the target nodes."""
    wanted = None if not target_nodes else {"/" + node.strip("/") for node in target_nodes}
    found = {}
    for node, name, value in _arguments.load_parameter_file(parameter_file):
        if node == "/**" and not use_wildcard and wanted is not None:
            continue
        if wanted is not None and node != "/**" and node not in wanted:
            continue
        full_name = namespace + name
        found[full_name] = Parameter(full_name, value=value).to_parameter_msg()
    return found
