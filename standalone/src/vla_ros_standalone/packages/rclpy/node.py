"""Nodes: the owners of publishers, subscriptions, services, clients, timers and parameters."""

import time
import weakref

from rcl_interfaces.msg import Log, ParameterEvent

from rclpy import _arguments, _names
from rclpy._node_parameters import NodeParameters
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup, ReentrantCallbackGroup
from rclpy.client import Client
from rclpy.clock import ROSClock
from rclpy.constants import S_TO_NS
from rclpy.event_handler import EventHandler, PublisherEventCallbacks, SubscriptionEventCallbacks
from rclpy.exceptions import NodeNameNonExistentError, NotInitializedException
from rclpy.guard_condition import GuardCondition
from rclpy.impl import rcutils_logger
from rclpy.logging import get_logger
from rclpy.parameter import Parameter
from rclpy.parameter_service import ParameterService
from rclpy.publisher import Publisher
from rclpy.qos import (
    QoSProfile,
    qos_profile_parameter_events,
    qos_profile_rosout_default,
    qos_profile_services_default,
)
from rclpy.service import Service
from rclpy.subscription import Subscription
from rclpy.time_source import TimeSource
from rclpy.timer import Rate, Timer
from rclpy.topic_endpoint_info import TopicEndpointInfo, TopicEndpointTypeEnum
from rclpy.type_support import check_is_valid_msg_type, check_is_valid_srv_type
from rclpy.utilities import get_default_context

__all__ = ["Node", "NodeNameNonExistentError"]


class Node(NodeParameters):
    """A node of the ROS graph.

    Subclasses choose their own private names freely: those that rclpy's Node does not have are
    mangled here, or begin with `_rclpy_`.
    """

    def __init__(
        self,
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
        """Create a node; raise NotInitializedException before init, or name what is wrong."""
        self._context = get_default_context() if context is None else context
        if not self._context.ok():
            msg = "cannot create node"
            raise NotInitializedException(msg)
        self._publishers, self._subscriptions, self._clients, self._services = [], [], [], []
        self._timers, self._guards, self.__event_handlers = [], [], []
        self._default_callback_group = MutuallyExclusiveCallbackGroup()
        # The node's own services and clock must answer whatever the node's callbacks do.
        self._rate_group = ReentrantCallbackGroup()
        self.__executor = None
        self.__rosout_publisher = None
        self.__destroyed = False
        self.__argument_sets = [_arguments.parse(["--ros-args", *cli_args])] if cli_args else []
        if use_global_arguments:
            self.__argument_sets.append(self._context._arguments)
        self.__set_name(node_name, namespace or "/")
        self.__graph_entry = self._context._graph.add_node(self.__namespace, self.__name)
        self._logger = get_logger(self.get_fully_qualified_name()[1:].replace("/", "."))
        self._clock = ROSClock()
        overrides = self.__read_overrides(parameter_overrides)
        self._rclpy_init_parameters(overrides, allow_undeclared=allow_undeclared_parameters)
        if enable_rosout and all(arguments.log_to_rosout for arguments in self.__argument_sets):
            self.__start_rosout()
        self._parameter_event_publisher = self.create_publisher(
            ParameterEvent, "/parameter_events", qos_profile_parameter_events
        )
        if automatically_declare_parameters_from_overrides:
            self.declare_parameters(
                "",
                [(name, parameter.value) for name, parameter in overrides.items()],
                ignore_override=True,
            )
        self._time_source = TimeSource(node=self)
        self._time_source.attach_clock(self._clock)
        if start_parameter_services:
            self._parameter_service = ParameterService(self)

    def __set_name(self, name, namespace):
        if not namespace.startswith("/"):
            namespace = "/" + namespace
        _names.validate_node_name(name)
        _names.validate_namespace(namespace)
        self.__original_name = name
        # Local arguments come first, so they have the last word.
        for arguments in reversed(self.__argument_sets):
            namespace = arguments.namespace(name, namespace)
        new_name = name
        for arguments in reversed(self.__argument_sets):
            new_name = arguments.node_name(name, new_name)
        self.__name, self.__namespace = new_name, namespace

    def __read_overrides(self, given):
        full_name = self.get_fully_qualified_name()
        values = {}
        for arguments in reversed(self.__argument_sets):
            values.update(arguments.parameters_of(full_name))
        overrides = {name: Parameter(name, value=value) for name, value in values.items()}
        overrides.update({parameter.name: parameter for parameter in given or ()})
        return overrides

    def __start_rosout(self):
        self.__rosout_publisher = self.create_publisher(Log, "/rosout", qos_profile_rosout_default)
        reference = weakref.ref(self)

        def forward(name, severity, message, frame, now_ns):
            node = reference()
            if node is not None:
                node.__to_rosout(name, severity, message, frame, now_ns)

        self.__forwarder = forward
        rcutils_logger.add_forwarder(forward)

    def __to_rosout(self, name, severity, message, frame, now_ns):
        own = self._logger.name
        if (name != own and not name.startswith(own + ".")) or not self._context.ok():
            return
        log = Log(level=int(severity), name=name, msg=message)
        log.stamp.sec, log.stamp.nanosec = divmod(now_ns, S_TO_NS)
        log.file, log.function = frame.f_code.co_filename, frame.f_code.co_name
        log.line = frame.f_lineno
        self.__rosout_publisher.publish(log)

    # Identity

    def get_name(self):
        return self.__name

    def get_namespace(self):
        return self.__namespace

    def get_fully_qualified_name(self):
        return _names.join(self.__namespace, self.__name)

    def get_clock(self):
        return self._clock

    def get_logger(self):
        return self._logger

    @property
    def context(self):
        return self._context

    @property
    def handle(self):
        """The DDS participant."""
        return self._context.handle

    @property
    def default_callback_group(self):
        return self._default_callback_group

    @property
    def publishers(self):
        yield from self._publishers

    @property
    def subscriptions(self):
        yield from self._subscriptions

    @property
    def clients(self):
        yield from self._clients

    @property
    def services(self):
        yield from self._services

    @property
    def timers(self):
        yield from self._timers

    @property
    def guards(self):
        yield from self._guards

    @property
    def executor(self):
        """The executor that spins this node, or None."""
        return None if self.__executor is None else self.__executor()

    @executor.setter
    def executor(self, new_executor):
        current = self.executor
        if current is new_executor:
            return
        self.__executor = None
        if current is not None:
            current.remove_node(self)
        if new_executor is not None:
            self.__executor = weakref.ref(new_executor)
            new_executor.add_node(self)

    def _wake_executor(self):
        executor = self.executor
        if executor is not None:
            executor.wake()

    def _rclpy_waitables(self):
        """Return the entities that fire through DDS handles."""
        return [*self._subscriptions, *self._clients, *self._services, *self.__event_handlers]

    def _rclpy_owns(self, entity):
        return entity in self._guards or entity in self._rclpy_waitables()

    # Names

    def resolve_topic_name(self, topic, *, only_expand=False):
        """Return the absolute name of a topic, remapped unless `only_expand`."""
        return self.__resolve(topic, only_expand=only_expand, is_service=False)

    def resolve_service_name(self, service, *, only_expand=False):
        """Return the absolute name of a service, remapped unless `only_expand`."""
        return self.__resolve(service, only_expand=only_expand, is_service=True)

    def __resolve(self, name, *, only_expand=False, is_service):
        _names.validate_topic_name(name, is_service=is_service)
        full_name = _names.expand(name, self.__name, self.__namespace)
        for arguments in () if only_expand else self.__argument_sets:
            remapped = arguments.remap(
                full_name,
                self.__original_name,
                self.__name,
                self.__namespace,
                is_service=is_service,
            )
            if remapped is not None:
                full_name = remapped
                break
        _names.validate_full_topic_name(full_name, is_service=is_service)
        return full_name

    # Making and destroying entities

    def create_publisher(
        self,
        msg_type,
        topic,
        qos_profile,
        *,
        callback_group=None,
        event_callbacks=None,
        qos_overriding_options=None,
        publisher_class=Publisher,
    ):
        """Create a publisher; `qos_profile` is a QoSProfile, or the depth of a reliable one."""
        check_is_valid_msg_type(msg_type)
        _refuse_qos_overrides(qos_overriding_options)
        publisher = publisher_class(self, msg_type, self.__resolve_topic(topic), _qos(qos_profile))
        self._publishers.append(publisher)
        callbacks = event_callbacks or PublisherEventCallbacks()
        self.__watch_events(publisher, callbacks, callback_group)
        self.__announce(writers=[publisher.handle.guid])
        return publisher

    def create_subscription(
        self,
        msg_type,
        topic,
        callback,
        qos_profile,
        *,
        callback_group=None,
        event_callbacks=None,
        qos_overriding_options=None,
        raw=False,
    ):
        """Create a subscription; with `raw`, the callback gets serialised bytes."""
        check_is_valid_msg_type(msg_type)
        _refuse_qos_overrides(qos_overriding_options)
        subscription = Subscription(
            self,
            msg_type,
            self.__resolve_topic(topic),
            callback,
            self.__group(callback_group),
            _qos(qos_profile),
            raw,
        )
        callbacks = event_callbacks or SubscriptionEventCallbacks()
        self.__watch_events(subscription, callbacks, callback_group)
        self._subscriptions.append(subscription)
        self.__announce(readers=[subscription.handle.guid])
        self._wake_executor()
        return subscription

    def __resolve_topic(self, topic):
        return self.__resolve(topic, is_service=False)

    def __watch_events(self, entity, callbacks, callback_group):
        wanted = callbacks._callbacks(self, entity.topic)
        if any(wanted.values()):
            handler = EventHandler(entity.handle, wanted, self.__group(callback_group))
            entity.event_handlers.append(handler)
            self.__event_handlers.append(handler)

    def create_service(
        self,
        srv_type,
        srv_name,
        callback,
        *,
        qos_profile=qos_profile_services_default,
        callback_group=None,
    ):
        """Create a service whose `callback(request, response)` returns the response."""
        check_is_valid_srv_type(srv_type)
        name = self.__resolve(srv_name, is_service=True)
        service = Service(self, srv_type, name, callback, self.__group(callback_group), qos_profile)
        self._services.append(service)
        self.__announce(readers=[service._reader.guid], writers=[service._writer.guid])
        self._wake_executor()
        return service

    def create_client(
        self, srv_type, srv_name, *, qos_profile=qos_profile_services_default, callback_group=None
    ):
        """Create a client of a service."""
        check_is_valid_srv_type(srv_type)
        name = self.__resolve(srv_name, is_service=True)
        client = Client(self, srv_type, name, qos_profile, self.__group(callback_group))
        self._clients.append(client)
        self.__announce(readers=[client._reader.guid], writers=[client._writer.guid])
        self._wake_executor()
        return client

    def create_timer(
        self, timer_period_sec, callback, callback_group=None, clock=None, autostart=True
    ):
        """Create a timer on the node's clock, or another; the period is in seconds."""
        timer = Timer(
            callback,
            self.__group(callback_group),
            round(float(timer_period_sec) * S_TO_NS),
            self._clock if clock is None else clock,
            autostart=autostart,
        )
        timer._wake = self._wake_executor
        self._timers.append(timer)
        self._wake_executor()
        return timer

    def create_guard_condition(self, callback, callback_group=None):
        """Create a guard condition."""
        guard = GuardCondition(callback, self.__group(callback_group), context=self._context)
        guard._wake = self._wake_executor
        self._guards.append(guard)
        self._wake_executor()
        return guard

    def create_rate(self, frequency, clock=None):
        """Create a Rate of `frequency` Hz; another thread must spin the node."""
        if frequency <= 0:
            msg = "frequency must be > 0"
            raise ValueError(msg)
        rate = Rate(context=self._context)
        period = 1.0 / frequency
        rate._timer = self.create_timer(period, rate._on_timer, self._rate_group, clock)
        return rate

    def __group(self, callback_group):
        return self._default_callback_group if callback_group is None else callback_group

    def __announce(self, *, readers=(), writers=(), remove=False):
        self._context._graph.change(
            self.__graph_entry, readers=readers, writers=writers, remove=remove
        )

    def destroy_publisher(self, publisher):
        return self.__destroy(self._publishers, publisher, writers=[publisher.handle])

    def destroy_subscription(self, subscription):
        return self.__destroy(self._subscriptions, subscription, readers=[subscription.handle])

    def destroy_client(self, client):
        return self.__destroy(
            self._clients, client, readers=[client._reader], writers=[client._writer]
        )

    def destroy_service(self, service):
        return self.__destroy(
            self._services, service, readers=[service._reader], writers=[service._writer]
        )

    def destroy_timer(self, timer):
        return self.__destroy(self._timers, timer)

    def destroy_guard_condition(self, guard):
        return self.__destroy(self._guards, guard)

    def destroy_rate(self, rate):
        destroyed = self.__destroy(self._timers, rate._timer)
        rate.destroy()
        return destroyed

    def __destroy(self, entities, entity, *, readers=(), writers=()):
        if entity not in entities:
            return False
        entities.remove(entity)
        for handler in getattr(entity, "event_handlers", ()):
            self.__event_handlers.remove(handler)
        if (readers or writers) and not self.handle.closed:
            self.__announce(
                readers=[reader.guid for reader in readers],
                writers=[writer.guid for writer in writers],
                remove=True,
            )
        entity.destroy()
        self._wake_executor()
        return True

    def destroy_node(self):
        """Destroy the node and all that it owns. Further calls do nothing."""
        if self.__destroyed:
            return
        self.__destroyed = True
        if self.__rosout_publisher is not None:
            rcutils_logger.remove_forwarder(self.__forwarder)
        if self.executor is not None:
            self.executor.remove_node(self)
        for entities in (
            self.__event_handlers,
            self._publishers,
            self._subscriptions,
            self._clients,
            self._services,
            self._timers,
            self._guards,
        ):
            owned, entities[:] = list(entities), []
            for entity in owned:
                if not isinstance(entity, EventHandler):
                    entity.destroy()
        self._context._graph.remove_node(self.__namespace, self.__name, self.__graph_entry)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.destroy_node()

    # The graph

    def get_node_names_and_namespaces(self):
        return [(name, namespace) for namespace, name, *_ in self._context._graph.nodes()]

    def get_node_names_and_namespaces_with_enclaves(self):
        return [
            (name, namespace, enclave)
            for namespace, name, enclave, *_ in self._context._graph.nodes()
        ]

    def get_node_names(self):
        return [name for name, _ in self.get_node_names_and_namespaces()]

    def get_fully_qualified_node_names(self):
        return [_names.join(ns, name) for name, ns in self.get_node_names_and_namespaces()]

    def get_topic_names_and_types(self, no_demangle=False):
        return self._context._graph.topic_names_and_types(no_demangle=no_demangle)

    def get_service_names_and_types(self):
        return self._context._graph.service_names_and_types()

    def get_publisher_names_and_types_by_node(self, node_name, node_namespace, no_demangle=False):
        demangle = (lambda name: name) if no_demangle else _names.ros_topic
        return self.__by_node(node_name, node_namespace, readers=False, demangle=demangle)

    def get_subscriber_names_and_types_by_node(self, node_name, node_namespace, no_demangle=False):
        demangle = (lambda name: name) if no_demangle else _names.ros_topic
        return self.__by_node(node_name, node_namespace, readers=True, demangle=demangle)

    def get_service_names_and_types_by_node(self, node_name, node_namespace):
        return self.__by_node(
            node_name,
            node_namespace,
            readers=True,
            demangle=lambda name: _names.ros_service(name) if name.startswith("rq/") else None,
        )

    def get_client_names_and_types_by_node(self, node_name, node_namespace):
        return self.__by_node(
            node_name,
            node_namespace,
            readers=True,
            demangle=lambda name: _names.ros_service(name) if name.startswith("rr/") else None,
        )

    def __by_node(self, name, namespace, *, readers, demangle):
        found = self._context._graph.names_and_types_by_node(
            namespace, name, readers=readers, demangle=demangle
        )
        if found is None:
            msg = f"cannot get names and types: the graph knows no node '{name}' in '{namespace}'"
            raise NodeNameNonExistentError(msg)
        return found

    def count_publishers(self, topic_name):
        return len(self.__endpoints(topic_name, readers=False))

    def count_subscribers(self, topic_name):
        return len(self.__endpoints(topic_name, readers=True))

    def count_services(self, service_name):
        name = self.__resolve(service_name, is_service=True)
        return len(self._context._graph.endpoints(f"rq{name}Request", readers=True))

    def count_clients(self, service_name):
        name = self.__resolve(service_name, is_service=True)
        return len(self._context._graph.endpoints(f"rr{name}Reply", readers=True))

    def __endpoints(self, topic_name, *, readers, no_mangle=False):
        if not no_mangle:
            topic_name = _names.dds_topic(self.__resolve_topic(topic_name))
        return self._context._graph.endpoints(topic_name, readers=readers)

    def get_publishers_info_by_topic(self, topic_name, no_mangle=False):
        """Return a TopicEndpointInfo for each publisher of a topic."""
        return self.__infos(topic_name, TopicEndpointTypeEnum.PUBLISHER, no_mangle)

    def get_subscriptions_info_by_topic(self, topic_name, no_mangle=False):
        """Return a TopicEndpointInfo for each subscription of a topic."""
        return self.__infos(topic_name, TopicEndpointTypeEnum.SUBSCRIPTION, no_mangle)

    def __infos(self, topic_name, kind, no_mangle):
        readers = kind is TopicEndpointTypeEnum.SUBSCRIPTION
        infos = []
        for endpoint in self.__endpoints(topic_name, readers=readers, no_mangle=no_mangle):
            name, namespace = self._context._graph.node_of(endpoint.guid)
            infos.append(
                TopicEndpointInfo(
                    node_name=name,
                    node_namespace=namespace,
                    topic_type=_names.ros_type(endpoint.type_name),
                    endpoint_type=kind,
                    endpoint_gid=list(endpoint.guid),
                    qos_profile=QoSProfile._from_dds(endpoint.qos),
                )
            )
        return infos

    def wait_for_node(self, fully_qualified_node_name, timeout):
        """Wait until the graph knows a node, at most `timeout` s; return whether it does."""
        end = time.monotonic() + timeout
        name = "/" + fully_qualified_node_name.lstrip("/")
        while self._context.ok():
            if name in self.get_fully_qualified_node_names():
                return True
            if time.monotonic() >= end:
                return False
            time.sleep(0.05)
        return False


def _qos(qos_or_depth):
    if isinstance(qos_or_depth, QoSProfile):
        return qos_or_depth
    if isinstance(qos_or_depth, int) and not isinstance(qos_or_depth, bool):
        return QoSProfile(depth=qos_or_depth)
    msg = f"Expected QoSProfile or int, but received {type(qos_or_depth)!r}"
    raise TypeError(msg)


def _refuse_qos_overrides(options):
    if options is not None:
        msg = "qos_overriding_options: without ROS 2, QoS cannot be overridden by parameters"
        raise NotImplementedError(msg)
