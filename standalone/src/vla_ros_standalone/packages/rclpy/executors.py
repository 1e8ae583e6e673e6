"""Executors: they wait for work of their nodes and run its callbacks.

One thread sleeps in a DDS wait set until a reader has data, the next timer is due, or something
wakes it. No listeners: they would take the interpreter's lock on the DDS library's threads.
"""

import inspect
import os
import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor

from rclpy import signals
from rclpy._endpoint import CallbackScope
from rclpy.exceptions import NotInitializedException
from rclpy.task import Task
from rclpy.utilities import get_default_context, timeout_sec_to_nsec
from vla_ros_standalone.dds import WaitSet

__all__ = [
    "ConditionReachedException",
    "Executor",
    "ExternalShutdownException",
    "MultiThreadedExecutor",
    "ShutdownException",
    "SingleThreadedExecutor",
    "TimeoutException",
    "await_or_execute",
]


class TimeoutException(Exception):
    """Nothing became ready in time."""


class ShutdownException(Exception):
    """The executor was shut down."""


class ExternalShutdownException(Exception):
    """The context was shut down, by a signal or another thread."""


class ConditionReachedException(Exception):
    """The awaited future is done."""


async def await_or_execute(callback, *args):
    """Await a coroutine function, call anything else."""
    if inspect.iscoroutinefunction(callback):
        return await callback(*args)
    return callback(*args)


class _WorkTracker:
    """Counts callbacks in progress, so that a shutdown can wait for them."""

    def __init__(self):
        self._count = 0
        self._condition = threading.Condition()

    def __enter__(self):
        with self._condition:
            self._count += 1

    def __exit__(self, *_):
        with self._condition:
            self._count -= 1
            self._condition.notify_all()

    def wait(self, timeout_sec=None):
        if timeout_sec is not None and timeout_sec < 0:
            timeout_sec = None
        with self._condition:
            return self._condition.wait_for(lambda: self._count == 0, timeout_sec)


class Executor:
    """Base of the executors: finds the next callback to run."""

    def __init__(self, *, context=None):
        self._context = get_default_context() if context is None else context
        if not self._context.ok():
            msg = "cannot create an executor"
            raise NotInitializedException(msg)
        self._nodes = set()
        self._nodes_lock = threading.RLock()
        self._tasks = []
        self._tasks_lock = threading.Lock()
        self._ready = deque()
        self._timer_ran_last = False
        self._is_shutdown = False
        self._work_tracker = _WorkTracker()
        self._waitset = WaitSet(self._context.handle)
        self._context.on_shutdown(self.wake)
        signals.add_waker(self)

    @property
    def context(self):
        return self._context

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.shutdown()

    def create_task(self, callback, *args, **kwargs):
        """Have a function or coroutine run during spin; return its Task, which is a Future."""
        task = Task(callback, args, kwargs, executor=self)
        with self._tasks_lock:
            self._tasks.append((task, None, None))
        self.wake()
        return task

    def shutdown(self, timeout_sec=None):
        """Stop; wait for callbacks in progress. Return whether they ended in time."""
        self._is_shutdown = True
        self.wake()
        if not self._work_tracker.wait(timeout_sec):
            return False
        for node in self.get_nodes():
            self.remove_node(node)
        signals.remove_waker(self)
        self._waitset.close()
        return True

    def add_node(self, node):
        """Take care of a node's callbacks; return False when that is so already."""
        with self._nodes_lock:
            if node in self._nodes:
                return False
            self._nodes.add(node)
            node.executor = self
        self.wake()
        return True

    def remove_node(self, node):
        """Leave a node's callbacks alone from now on."""
        with self._nodes_lock:
            self._nodes.discard(node)
            if node.executor is self:
                node.executor = None
        self.wake()

    def wake(self):
        """Look at the nodes again: something changed."""
        self._waitset.wake()

    def get_nodes(self):
        with self._nodes_lock:
            return list(self._nodes)

    def spin(self):
        """Run callbacks until the executor or the context is shut down."""
        while self._context.ok() and not self._is_shutdown:
            self.spin_once()

    def spin_until_future_complete(self, future, timeout_sec=None):
        """Run callbacks until a future is done, or the time is over."""
        future.add_done_callback(lambda _: self.wake())
        forever = timeout_sec is None or timeout_sec < 0
        end = None if forever else time.monotonic() + timeout_sec
        while self._context.ok() and not future.done() and not self._is_shutdown:
            if future.cancelled():
                return
            left = None if end is None else end - time.monotonic()
            if left is not None and left <= 0:
                return
            self.spin_once_until_future_complete(future, left)

    def spin_once(self, timeout_sec=None):
        """Wait for one callback and run it."""
        raise NotImplementedError

    def spin_once_until_future_complete(self, future, timeout_sec=None):
        """Wait for one callback and run it, unless the future is done first."""
        raise NotImplementedError

    def can_execute(self, entity):
        return not entity._executor_event and entity.callback_group.can_execute(entity)

    def wait_for_ready_callbacks(self, timeout_sec=None, nodes=None, condition=lambda: False):
        """Return (task, entity, node) of the next callback.

        Raise TimeoutException, ShutdownException, ExternalShutdownException, or
        ConditionReachedException when `condition()` holds.
        """
        timeout_ns = timeout_sec_to_nsec(timeout_sec)
        end_ns = None if timeout_ns < 0 else time.monotonic_ns() + timeout_ns
        while True:
            self._check(condition)
            of_nodes = self.get_nodes() if nodes is None else nodes
            found = self._resumable_task(of_nodes)
            if found:
                return found
            if not self._ready:
                left_ns = None if end_ns is None else max(0, end_ns - time.monotonic_ns())
                self._wait(of_nodes, left_ns)
                self._check(condition)
            found = self._ready_entity(of_nodes)
            if found:
                return found
            if end_ns is not None and time.monotonic_ns() >= end_ns:
                raise TimeoutException

    def _check(self, condition):
        if self._is_shutdown:
            raise ShutdownException
        if not self._context.ok():
            raise ExternalShutdownException
        if condition():
            raise ConditionReachedException

    def _resumable_task(self, nodes):
        if not self._tasks:
            return None
        with self._tasks_lock:
            self._tasks = [item for item in self._tasks if not item[0].done()]
            for task, entity, node in self._tasks:
                if not task.resumable() or not (node is None or node in nodes):
                    continue
                task.claim()
                return task, entity, node
        return None

    def _ready_entity(self, nodes):
        """Return the next due timer or fired entity: in turn, so that neither starves the other."""
        if not self._timer_ran_last:
            found = self._due_timer(nodes)
            if found:
                self._timer_ran_last = True
                return found
        self._timer_ran_last = False
        while self._ready:
            entity, node = self._ready.popleft()
            if node in nodes and node._rclpy_owns(entity) and self.can_execute(entity):
                return self._make_handler(entity, node), entity, node
        found = self._due_timer(nodes)
        self._timer_ran_last = found is not None
        return found

    def _due_timer(self, nodes):
        most_late, chosen = 1, None
        for node in nodes:
            for timer in node._timers:
                if not timer._canceled and self.can_execute(timer):
                    left_ns, _ = timer._left_ns()
                    if left_ns <= 0 and (chosen is None or left_ns < most_late):
                        most_late, chosen = left_ns, (timer, node)
        if chosen is None:
            return None
        timer, node = chosen
        return self._make_handler(timer, node), timer, node

    def _wait(self, nodes, timeout_ns):
        """Sleep until something fires, a timer is due or the time is over; fill the ready queue."""
        by_handle = {}
        for node in nodes:
            for entity in node._rclpy_waitables():
                if self.can_execute(entity):
                    by_handle[entity._wait_handle] = (entity, node)
            for guard in node._guards:
                if guard._executor_triggered and self.can_execute(guard):
                    self._ready.append((guard, node))
            for timer in node._timers:
                if not timer._canceled and self.can_execute(timer):
                    left_ns, simulated = timer._left_ns()
                    if not simulated and (timeout_ns is None or left_ns < timeout_ns):
                        timeout_ns = max(0, left_ns)
        if self._ready:
            timeout_ns = 0
        graph = self._context._graph
        self._waitset.attach_only({*by_handle, graph.condition})
        fired = set(self._waitset.wait(timeout_ns))
        if graph.condition in fired:
            self._hear_graph(graph)
        # In the order of rclpy: a service answers after the messages that came before the question.
        self._ready.extend(item for handle, item in by_handle.items() if handle in fired)

    def _hear_graph(self, graph):
        graph.update()
        for name in graph.new_duplicates():
            for node in self.get_nodes():
                if node.get_fully_qualified_name() == name:
                    node.get_logger().warning(
                        f"there is another node named '{name}' in the graph: give one of them "
                        "another name (-r __node:=...) or namespace, unless it was killed just now"
                    )

    def _make_handler(self, entity, node):
        entity._executor_event = True
        task = Task(self._execute, (entity,), executor=self)
        task.claim()
        with self._tasks_lock:
            self._tasks.append((task, entity, node))
        return task

    async def _execute(self, entity):
        group = entity.callback_group
        if self._is_shutdown or not group.beginning_execution(entity):
            entity._executor_event = False
            self._after_callback()
            return
        with self._work_tracker:
            try:
                try:
                    work = entity._take()
                finally:
                    # Taken: from here the group alone decides whether it may be waited for again.
                    entity._executor_event = False
                    self._after_callback()
                if work is not None:
                    callback, arguments = work
                    if inspect.iscoroutinefunction(callback):
                        await callback(*arguments)
                    else:
                        with CallbackScope():
                            callback(*arguments)
            finally:
                group.ending_execution(entity)
                self._after_callback()

    def _after_callback(self):
        """Have other threads look again, because this callback blocks less than before."""


class SingleThreadedExecutor(Executor):
    """Runs callbacks in the thread that spins."""

    def spin_once(self, timeout_sec=None):
        self._spin_once(timeout_sec)

    def spin_once_until_future_complete(self, future, timeout_sec=None):
        self._spin_once(timeout_sec, lambda: future.done() or future.cancelled())

    def _spin_once(self, timeout_sec, condition=lambda: False):
        try:
            task, _, _ = self.wait_for_ready_callbacks(timeout_sec, condition=condition)
        except (ShutdownException, TimeoutException, ConditionReachedException):
            return
        task()
        if task.exception() is not None:
            raise task.exception()


class MultiThreadedExecutor(Executor):
    """Runs callbacks in a pool of threads, as their callback groups allow."""

    def __init__(self, num_threads=None, *, context=None):
        super().__init__(context=context)
        if num_threads is None:
            num_threads = os.cpu_count() or 1
        self._pool = ThreadPoolExecutor(max(1, num_threads), thread_name_prefix="rclpy")
        self._failed = deque()

    def spin_once(self, timeout_sec=None):
        self._spin_once(timeout_sec)

    def spin_once_until_future_complete(self, future, timeout_sec=None):
        self._spin_once(timeout_sec, lambda: future.done() or future.cancelled())

    def _spin_once(self, timeout_sec, condition=lambda: False):
        try:
            task, _, _ = self.wait_for_ready_callbacks(
                timeout_sec, condition=lambda: bool(self._failed) or condition()
            )
        except ConditionReachedException:
            if self._failed:
                raise self._failed.popleft() from None
            return
        except (ShutdownException, TimeoutException):
            return
        self._pool.submit(self._run, task)

    def _run(self, task):
        task()
        if task.done() and task.exception() is not None:
            self._failed.append(task.exception())
        self.wake()

    def _after_callback(self):
        self.wake()

    def shutdown(self, timeout_sec=None):
        done = super().shutdown(timeout_sec)
        self._pool.shutdown(wait=done, cancel_futures=True)
        return done
