"""The subset of rclpy that vla_ros's nodes use, on Cyclone DDS, where no ROS 2 is installed.

Names, signatures and behaviour are those of rclpy in Humble and Jazzy; the wire format is that of
rmw_cyclonedds_cpp.
"""

from rclpy.context import Context
from rclpy.parameter import Parameter
from rclpy.signals import (
    SignalHandlerOptions,
    install_signal_handlers,
    uninstall_signal_handlers,
)
from rclpy.task import Future
from rclpy.utilities import get_default_context, get_rmw_implementation_identifier, ok
from rclpy.utilities import shutdown as _shutdown
from rclpy.utilities import try_shutdown as _try_shutdown

__all__ = [
    "Context",
    "Future",
    "Parameter",
    "create_node",
    "get_default_context",
    "get_global_executor",
    "get_rmw_implementation_identifier",
    "init",
    "ok",
    "shutdown",
    "spin",
    "spin_once",
    "spin_until_future_complete",
    "try_shutdown",
]


class InitContextManager:
    """What `init` returns: leaving it shuts down."""

    def __init__(self, args, context, domain_id, signal_handler_options):
        self.context = get_default_context() if context is None else context
        is_default = context is None or context is get_default_context()
        if signal_handler_options is None:
            signal_handler_options = (
                SignalHandlerOptions.ALL if is_default else SignalHandlerOptions.NO
            )
        self.installed_signal_handlers = signal_handler_options != SignalHandlerOptions.NO
        self.context.init(args, domain_id=domain_id)
        install_signal_handlers(signal_handler_options)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        context = None if self.context is get_default_context() else self.context
        try_shutdown(context=context, uninstall_handlers=self.installed_signal_handlers)


def init(*, args=None, context=None, domain_id=None, signal_handler_options=None):
    """Start ROS: parse `args` (default: sys.argv) and join the domain (default: ROS_DOMAIN_ID).

    For the default context, SIGINT and SIGTERM are handled: they end `spin`, SIGINT with
    KeyboardInterrupt, SIGTERM with ExternalShutdownException. Usable in a `with` statement.
    """
    return InitContextManager(args, context, domain_id, signal_handler_options)


_global_executor = None


def get_global_executor():
    """Return the executor that `spin` uses when it is given none."""
    global _global_executor
    if _global_executor is None:
        # Imported here: importing rclpy must not load the DDS library before it is needed.
        from rclpy.executors import SingleThreadedExecutor

        _global_executor = SingleThreadedExecutor()
        _global_executor.context.on_shutdown(_forget_global_executor)
    return _global_executor


def _forget_global_executor():
    global _global_executor
    executor, _global_executor = _global_executor, None
    if executor is not None:
        executor.wake()


def shutdown(*, context=None, uninstall_handlers=None):
    """Shut down; raise when that already happened."""
    is_default = context is None or context is get_default_context()
    _shutdown(context=context)
    if uninstall_handlers or (uninstall_handlers is None and is_default):
        uninstall_signal_handlers()


def try_shutdown(*, context=None, uninstall_handlers=None):
    """Shut down, unless that already happened."""
    is_default = context is None or context is get_default_context()
    _try_shutdown(context=context)
    if uninstall_handlers or (uninstall_handlers is None and is_default):
        uninstall_signal_handlers()


def create_node(
    node_name,
    *,
    context=None,
    cli_args=None,
    namespace=None,
    use_global_arguments=True,
    enable_rosout=True,
    start_parameter_services=True,
    parameter_overrides=None,
    allow_undeclared_parameters=False,
    automatically_declare_parameters_from_overrides=False,
    enable_logger_service=False,
):
    """Create a `Node`."""
    from rclpy.node import Node

    return Node(
        node_name,
        context=context,
        cli_args=cli_args,
        namespace=namespace,
        use_global_arguments=use_global_arguments,
        enable_rosout=enable_rosout,
        start_parameter_services=start_parameter_services,
        parameter_overrides=parameter_overrides,
        allow_undeclared_parameters=allow_undeclared_parameters,
        automatically_declare_parameters_from_overrides=(
            automatically_declare_parameters_from_overrides
        ),
        enable_logger_service=enable_logger_service,
    )


def spin_once(node, *, executor=None, timeout_sec=None):
    """Run one callback, or return when the timeout is over."""
    executor = get_global_executor() if executor is None else executor
    try:
        executor.add_node(node)
        executor.spin_once(timeout_sec=timeout_sec)
    finally:
        executor.remove_node(node)


def spin(node, executor=None):
    """Run callbacks until the context is shut down."""
    executor = get_global_executor() if executor is None else executor
    try:
        executor.add_node(node)
        while executor.context.ok():
            executor.spin_once()
    finally:
        executor.remove_node(node)


def spin_until_future_complete(node, future, executor=None, timeout_sec=None):
    """Run callbacks until a future is done, or the timeout is over."""
    executor = get_global_executor() if executor is None else executor
    try:
        executor.add_node(node)
        executor.spin_until_future_complete(future, timeout_sec)
    finally:
        executor.remove_node(node)
