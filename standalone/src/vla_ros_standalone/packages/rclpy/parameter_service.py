"""The services through which others read and set a node's parameters."""

from rcl_interfaces.msg import SetParametersResult
from rcl_interfaces.srv import (
    DescribeParameters,
    GetParameters,
    GetParameterTypes,
    ListParameters,
    SetParameters,
    SetParametersAtomically,
)

from rclpy.exceptions import ParameterNotDeclaredException, ParameterUninitializedException
from rclpy.parameter import Parameter
from rclpy.qos import qos_profile_parameters


class ParameterService:
    """Serves `~/get_parameters` and its five companions."""

    def __init__(self, node):
        self._node = node
        for srv_type, name, callback in (
            (DescribeParameters, "describe_parameters", self._describe),
            (GetParameters, "get_parameters", self._get),
            (GetParameterTypes, "get_parameter_types", self._get_types),
            (ListParameters, "list_parameters", self._list),
            (SetParameters, "set_parameters", self._set),
            (SetParametersAtomically, "set_parameters_atomically", self._set_atomically),
        ):
            node.create_service(srv_type, f"~/{name}", callback, qos_profile=qos_profile_parameters)

    # An answer is as long as the request, or empty: so `ros2 param` tells that a name is unknown.

    def _describe(self, request, response):
        try:
            response.descriptors = self._node.describe_parameters(list(request.names))
        except ParameterNotDeclaredException as error:
            response.descriptors = []
            self._node.get_logger().warning(f"failed to describe parameters: {error}")
        return response

    def _get(self, request, response):
        for name in request.names:
            try:
                value = self._node.get_parameter(name).get_parameter_value()
            except (ParameterNotDeclaredException, ParameterUninitializedException) as error:
                self._node.get_logger().warning(f"failed to get parameters: {error}")
                response.values = []
                return response
            response.values.append(value)
        return response

    def _get_types(self, request, response):
        try:
            types = self._node.get_parameter_types(list(request.names))
        except ParameterNotDeclaredException as error:
            self._node.get_logger().warning(f"failed to get parameter types: {error}")
            types = []
        response.types = [int(type_) for type_ in types]
        return response

    def _list(self, request, response):
        response.result = self._node.list_parameters(list(request.prefixes), request.depth)
        return response

    def _set(self, request, response):
        for message in request.parameters:
            try:
                result = self._node.set_parameters([Parameter.from_parameter_msg(message)])[0]
            except ParameterNotDeclaredException as error:
                result = SetParametersResult(successful=False, reason=str(error))
            except (RuntimeError, ValueError) as error:
                result = SetParametersResult(successful=False, reason=f"malformed: {error}")
            response.results.append(result)
        return response

    def _set_atomically(self, request, response):
        try:
            response.result = self._node.set_parameters_atomically(
                [Parameter.from_parameter_msg(message) for message in request.parameters]
            )
        except ParameterNotDeclaredException as error:
            response.result = SetParametersResult(successful=False, reason=str(error))
        except (RuntimeError, ValueError) as error:
            response.result = SetParametersResult(successful=False, reason=f"malformed: {error}")
        return response
