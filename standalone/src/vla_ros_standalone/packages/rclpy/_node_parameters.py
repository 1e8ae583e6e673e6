"""The parameters of a node: declaration, checks against descriptors, callbacks and events."""

import math
import warnings

from rcl_interfaces.msg import (
    ListParametersResult,
    ParameterDescriptor,
    ParameterEvent,
    ParameterValue,
    SetParametersResult,
)
from rcl_interfaces.msg import Parameter as ParameterMsg

from rclpy.exceptions import (
    InvalidParameterException,
    InvalidParameterTypeException,
    InvalidParameterValueException,
    ParameterAlreadyDeclaredException,
    ParameterImmutableException,
    ParameterNotDeclaredException,
    ParameterUninitializedException,
)
from rclpy.parameter import Parameter, parameter_value_to_python

_WRONG_TYPE = "Wrong parameter type"


class NodeParameters:
    """The half of `Node` that is about parameters."""

    PARAM_REL_TOL = 1e-6

    def _rclpy_init_parameters(self, overrides, *, allow_undeclared):
        self._parameters = {}
        self._descriptors = {}
        self._parameter_overrides = overrides
        self._allow_undeclared_parameters = allow_undeclared
        self._pre_set_parameters_callbacks = []
        self._on_set_parameters_callbacks = []
        self._post_set_parameters_callbacks = []

    # Declaration

    def declare_parameter(self, name, value=None, descriptor=None, ignore_override=False):
        """Declare a parameter and return it with its override, or else with `value`.

        The type is that of `value` for ever, unless the descriptor says `dynamic_typing`. A
        Parameter.Type as `value` declares a type without a default.
        """
        if value is None and descriptor is None:
            return self.declare_parameters("", [(name,)], ignore_override)[0]
        descriptor = ParameterDescriptor() if descriptor is None else descriptor
        return self.declare_parameters("", [(name, value, descriptor)], ignore_override)[0]

    def declare_parameters(self, namespace, parameters, ignore_override=False):
        """Declare (name), (name, value or type) or (name, value or type, descriptor) tuples."""
        declared = []
        for entry in parameters:
            if not 1 <= len(entry) <= 3:
                msg = f"Invalid parameter tuple {entry}: expecting length 1 to 3"
                raise TypeError(msg)
            name, second, descriptor = (*entry, *(None, None)[len(entry) - 1 :])
            descriptor = ParameterDescriptor() if descriptor is None else descriptor
            if not isinstance(name, str):
                msg = f"the name of a parameter must be a str, not {name!r}"
                raise TypeError(msg)
            if not isinstance(descriptor, ParameterDescriptor):
                msg = f"parameter '{name}': {descriptor!r} is no ParameterDescriptor"
                raise TypeError(msg)
            if len(entry) == 1:
                warnings.warn(
                    f"declaring parameter '{name}' by its name only is deprecated: pass a value, "
                    "a type, or a descriptor with dynamic_typing=True",
                    stacklevel=3,
                )
                descriptor.dynamic_typing = True
            full_name = f"{namespace}.{name}" if namespace else name
            if not full_name:
                raise InvalidParameterException(full_name)
            value = self.__declared_value(full_name, second, descriptor, ignore_override)
            declared.append((Parameter(full_name, value=value), descriptor))
        known = [parameter.name for parameter, _ in declared if parameter.name in self._parameters]
        if known:
            raise ParameterAlreadyDeclaredException(known)
        for parameter, descriptor in declared:
            self.__declare(parameter, descriptor)
        return [self._parameters[parameter.name] for parameter, _ in declared]

    def __declared_value(self, name, second, descriptor, ignore_override):
        """Return the first value of a parameter, and fix the type in its descriptor."""
        value = second
        if isinstance(second, Parameter.Type):
            value = None
            if second is Parameter.Type.NOT_SET:
                msg = f"Cannot declare parameter '{name}' as statically typed NOT_SET"
                raise ValueError(msg)
            if descriptor.dynamic_typing:
                msg = f"parameter '{name}': a type and dynamic_typing exclude each other"
                raise ValueError(msg)
            descriptor.type = second.value
        elif isinstance(second, ParameterValue):
            value = parameter_value_to_python(second)
        if not descriptor.dynamic_typing and value is not None:
            descriptor.type = Parameter.Type.from_parameter_value(value).value
        if not ignore_override and name in self._parameter_overrides:
            value = self._parameter_overrides[name].value
        return value

    def __declare(self, parameter, descriptor):
        empty_list = isinstance(parameter.value, (list, tuple)) and not parameter.value
        if empty_list and Parameter.Type(descriptor.type).check(parameter.value):
            # A list without elements is of every array type: of the declared one.
            parameter = Parameter(parameter.name, Parameter.Type(descriptor.type), [])
        result = self.__set_atomically(
            [parameter], {parameter.name: descriptor}, allow_not_set_type=True
        )
        if not result.successful:
            if result.reason.startswith(_WRONG_TYPE):
                raise InvalidParameterTypeException(parameter, Parameter.Type(descriptor.type).name)
            raise InvalidParameterValueException(parameter.name, parameter.value, result.reason)

    def undeclare_parameter(self, name):
        if not self.has_parameter(name):
            raise ParameterNotDeclaredException(name)
        if self._descriptors[name].read_only:
            raise ParameterImmutableException(name)
        del self._parameters[name], self._descriptors[name]

    # Reading

    def has_parameter(self, name):
        return name in self._parameters

    def get_parameter(self, name):
        """Return a declared parameter; raise when it is unknown or has no value yet."""
        if not self.has_parameter(name):
            if self._allow_undeclared_parameters:
                return Parameter(name, Parameter.Type.NOT_SET, None)
            raise ParameterNotDeclaredException(name)
        parameter = self._parameters[name]
        if parameter.type_ == Parameter.Type.NOT_SET and not self._descriptors[name].dynamic_typing:
            raise ParameterUninitializedException(name)
        return parameter

    def get_parameters(self, names):
        if not all(isinstance(name, str) for name in names):
            msg = "All names must be instances of type str"
            raise TypeError(msg)
        return [self.get_parameter(name) for name in names]

    def get_parameter_or(self, name, alternative_value=None):
        """Return the parameter if it is declared and has a value, else the alternative."""
        if alternative_value is None:
            alternative_value = Parameter(name, Parameter.Type.NOT_SET)
        try:
            return self.get_parameter(name) if self.has_parameter(name) else alternative_value
        except ParameterUninitializedException:
            return alternative_value

    def get_parameter_type(self, name):
        if self.has_parameter(name):
            return self._parameters[name].type_
        if self._allow_undeclared_parameters:
            return Parameter.Type.NOT_SET
        raise ParameterNotDeclaredException(name)

    def get_parameter_types(self, names):
        return [self.get_parameter_type(name) for name in names]

    def get_parameters_by_prefix(self, prefix):
        """Return the parameters under `prefix`, by their names without it."""
        if prefix:
            prefix += "."
        return {
            name[len(prefix) :]: parameter
            for name, parameter in self._parameters.items()
            if name.startswith(prefix)
        }

    def list_parameters(self, prefixes, depth):
        """Return names and prefixes; depth 0 is all, else the number of levels below a prefix."""
        if depth < 0:
            msg = "The depth must be greater than or equal to zero"
            raise ValueError(msg)

        def shown(name):
            if not prefixes:
                return depth == 0 or name.count(".") < depth
            for prefix in prefixes:
                below = name[len(prefix) + 1 :]
                if name == prefix or (
                    name.startswith(prefix + ".") and (depth == 0 or below.count(".") < depth)
                ):
                    return True
            return False

        names = [name for name in self._parameters if shown(name)]
        found = dict.fromkeys(name.rpartition(".")[0] for name in names if "." in name)
        return ListParametersResult(names=names, prefixes=list(found))

    # Setting

    def set_parameters(self, parameter_list):
        """Set each parameter by itself; return a SetParametersResult for each."""
        self.__check_declared(parameter_list)
        return [self.__set_with_callbacks([parameter]) for parameter in parameter_list]

    def set_parameters_atomically(self, parameter_list):
        """Set all parameters or none; return one SetParametersResult."""
        self.__check_declared(parameter_list)
        return self.__set_with_callbacks(parameter_list)

    def __check_declared(self, parameter_list):
        if not all(isinstance(parameter, Parameter) for parameter in parameter_list):
            msg = f"parameter must be instance of type '{Parameter!r}'"
            raise TypeError(msg)
        unknown = [item.name for item in parameter_list if item.name not in self._parameters]
        if unknown and not self._allow_undeclared_parameters:
            raise ParameterNotDeclaredException(unknown)

    def __set_with_callbacks(self, parameter_list):
        for callback in self._pre_set_parameters_callbacks:
            parameter_list = callback(parameter_list)
            if not parameter_list:
                return SetParametersResult(
                    successful=False, reason="parameter list was emptied by a pre-set callback"
                )
            self.__check_declared(parameter_list)
        return self.__set_atomically(parameter_list)

    def __set_atomically(self, parameter_list, descriptors=None, *, allow_not_set_type=False):
        checked = self._descriptors if descriptors is None else descriptors
        for parameter in parameter_list:
            if parameter.name in checked:
                reason = self.__objection(
                    parameter, checked[parameter.name], check_read_only=descriptors is None
                )
                if reason:
                    return SetParametersResult(successful=False, reason=reason)
        for callback in self._on_set_parameters_callbacks:
            result = callback(parameter_list)
            if not result.successful:
                return result
        event = ParameterEvent(node=self.get_fully_qualified_name())
        for parameter in parameter_list:
            name = parameter.name
            if parameter.type_ == Parameter.Type.NOT_SET and not allow_not_set_type:
                event.deleted_parameters.append(parameter.to_parameter_msg())
                self._parameters.pop(name, None)
                self._descriptors.pop(name, None)
                continue
            if descriptors is not None:
                self._descriptors[name] = descriptors[name]
            elif name not in self._descriptors:
                self._descriptors[name] = ParameterDescriptor(name=name, dynamic_typing=True)
            is_new = self.get_parameter_or(name).type_ == Parameter.Type.NOT_SET
            changes = event.new_parameters if is_new else event.changed_parameters
            changes.append(parameter.to_parameter_msg())
            self._parameters[name] = parameter
        event.stamp = self._clock.now().to_msg()
        self._parameter_event_publisher.publish(event)
        if descriptors is None:
            for callback in self._post_set_parameters_callbacks:
                callback(parameter_list)
        return SetParametersResult(successful=True)

    def __objection(self, parameter, descriptor, *, check_read_only):
        """Return why a parameter does not fit its descriptor, '' when it does."""
        descriptor.name = parameter.name
        if check_read_only and descriptor.read_only:
            return f"Trying to set a read-only parameter: {parameter.name}."
        if descriptor.dynamic_typing:
            descriptor.type = parameter.type_.value
        elif parameter.type_ == Parameter.Type.NOT_SET:
            return "Static parameter cannot be undeclared" * self.has_parameter(parameter.name)
        elif parameter.type_.value != descriptor.type:
            return (
                f"{_WRONG_TYPE}, expected '{Parameter.Type(descriptor.type)}' "
                f"got '{parameter.type_}'"
            )
        if parameter.type_ == Parameter.Type.INTEGER and descriptor.integer_range:
            return self.__range_objection(parameter, descriptor.integer_range[0], _exactly)
        if parameter.type_ == Parameter.Type.DOUBLE and descriptor.floating_point_range:
            return self.__range_objection(parameter, descriptor.floating_point_range[0], _nearly)
        return ""

    def __range_objection(self, parameter, limits, same):
        value = parameter.value
        low, high = sorted((limits.from_value, limits.to_value))
        if same(value, low) or same(value, high):
            return ""
        if not low < value < high:
            return (
                f"Parameter {parameter.name} out of range. Min: {low}, Max: {high}, value: {value}"
            )
        if limits.step and not same(low + round((value - low) / limits.step) * limits.step, value):
            return (
                f"The parameter value for {parameter.name} is not a valid step. "
                f"Min: {low}, max: {high}, value: {value}, step: {limits.step}"
            )
        return ""

    # Callbacks and descriptors

    def add_pre_set_parameters_callback(self, callback):
        self._pre_set_parameters_callbacks.insert(0, callback)

    def add_on_set_parameters_callback(self, callback):
        """Have `callback(parameters) -> SetParametersResult` accept or refuse each change."""
        self._on_set_parameters_callbacks.insert(0, callback)

    def add_post_set_parameters_callback(self, callback):
        self._post_set_parameters_callbacks.insert(0, callback)

    def remove_pre_set_parameters_callback(self, callback):
        self._pre_set_parameters_callbacks.remove(callback)

    def remove_on_set_parameters_callback(self, callback):
        self._on_set_parameters_callbacks.remove(callback)

    def remove_post_set_parameters_callback(self, callback):
        self._post_set_parameters_callbacks.remove(callback)

    def describe_parameter(self, name):
        if name in self._descriptors:
            return self._descriptors[name]
        if self._allow_undeclared_parameters:
            return ParameterDescriptor()
        raise ParameterNotDeclaredException(name)

    def describe_parameters(self, names):
        return [self.describe_parameter(name) for name in names]

    def set_descriptor(self, name, descriptor, alternative_value=None):
        """Give a parameter another descriptor; the alternative value, if the present breaks it."""
        if not self.has_parameter(name) and self._allow_undeclared_parameters:
            return self.get_parameter(name).get_parameter_value()
        if self.describe_parameter(name).read_only:
            raise ParameterImmutableException(name)
        candidates = [self.get_parameter(name)]
        if alternative_value is not None:
            message = ParameterMsg(name=name, value=alternative_value)
            candidates.append(Parameter.from_parameter_msg(message))
        for parameter in candidates:
            reason = self.__objection(parameter, descriptor, check_read_only=False)
            if not reason:
                self._parameters[name] = parameter
                self._descriptors[name] = descriptor
                return parameter.get_parameter_value()
        raise InvalidParameterValueException(name, candidates[-1].value, reason)


def _exactly(a, b):
    return a == b


def _nearly(a, b):
    return math.isclose(a, b, rel_tol=NodeParameters.PARAM_REL_TOL)
