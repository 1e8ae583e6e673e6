"""Futures, and tasks that an executor runs."""

import inspect
import sys
import threading
import warnings
import weakref


class Future:
    """The outcome of work that may not have ended yet."""

    def __init__(self, *, executor=None):
        self._done = False
        self._cancelled = False
        self._result = None
        self._exception = None
        self._exception_fetched = False
        self._callbacks = []
        self._awaiting = []
        self._lock = threading.Lock()
        self._executor = _nothing
        self._set_executor(executor)

    def __del__(self):
        if self._exception is not None and not self._exception_fetched:
            print(
                f"The following exception was never retrieved: {self._exception}", file=sys.stderr
            )

    def __await__(self):
        while not self._done and not self._cancelled:
            yield self
        return self.result()

    def cancel(self):
        """Ask for the end of the work; callbacks are called at once."""
        with self._lock:
            if not self._done:
                self._cancelled = True
        self._run_done_callbacks()

    def cancelled(self):
        return self._cancelled

    def done(self):
        return self._done

    def result(self):
        """Return the result (None when there is none yet); raise the exception of the work."""
        if self._exception is not None:
            raise self.exception()
        return self._result

    def exception(self):
        self._exception_fetched = True
        return self._exception

    def set_result(self, result):
        with self._lock:
            self._result = result
            self._done = True
            self._cancelled = False
        self._run_done_callbacks()

    def set_exception(self, exception):
        with self._lock:
            self._exception = exception
            self._exception_fetched = False
            self._done = True
            self._cancelled = False
        self._run_done_callbacks()

    def add_done_callback(self, callback):
        """Call `callback(future)` when done: by the executor if there is one, else directly."""
        with self._lock:
            if not self._done:
                self._callbacks.append(callback)
                return
            executor = self._executor()
        if executor is not None:
            executor.create_task(callback, self)
        else:
            callback(self)

    def _set_executor(self, executor):
        self._executor = _nothing if executor is None else weakref.ref(executor)

    def _run_done_callbacks(self):
        with self._lock:
            executor = self._executor()
            callbacks, self._callbacks = self._callbacks, []
            awaiting, self._awaiting = self._awaiting, []
        for task in awaiting:
            task._wake()
        for callback in callbacks:
            if executor is not None:
                executor.create_task(callback, self)
                continue
            try:
                callback(self)
            except Exception as error:
                warnings.warn(f"Unhandled exception in done callback: {error}", stacklevel=2)


def _nothing():
    return None


class Task(Future):
    """A function, or coroutine that is resumed each time the executor calls the task."""

    def __init__(self, handler, args=(), kwargs=None, executor=None):
        super().__init__(executor=executor)
        self._args = args or ()
        self._kwargs = kwargs or {}
        self._handler = handler
        self._awaited = None
        self._claimed = False
        self._executing = False
        self._task_lock = threading.Lock()

    def resumable(self):
        """Whether calling the task now would get it further."""
        if self._claimed or self._executing or self._done:
            return False
        awaited = self._awaited
        return awaited is None or awaited.done() or awaited.cancelled()

    def claim(self):
        """Reserve the next call for the caller."""
        self._claimed = True

    def _wake(self):
        executor = self._executor()
        if executor is not None:
            executor.wake()

    def __call__(self):
        """Run or resume the work, unless it is done or another thread is at it."""
        if self._done or not self._task_lock.acquire(blocking=False):
            return
        try:
            if self._done:
                return
            self._executing = True
            self._awaited = None
            if inspect.iscoroutinefunction(self._handler):
                self._handler = self._handler(*self._args, **self._kwargs)
            if inspect.iscoroutine(self._handler):
                self._resume()
            else:
                self._run()
        except BaseException:
            # Ctrl-C in a callback: this task cannot be resumed.
            self._finish()
            self._done = True
            raise
        finally:
            self._executing = False
            self._claimed = False
            self._task_lock.release()

    def _resume(self):
        try:
            awaited = self._handler.send(None)
        except StopIteration as stop:
            self._finish()
            self.set_result(stop.value)
        except Exception as error:
            self._finish()
            self.set_exception(error)
        else:
            if isinstance(awaited, Future):
                with awaited._lock:
                    self._awaited = awaited
                    awaited._awaiting.append(self)

    def _run(self):
        try:
            result = self._handler(*self._args, **self._kwargs)
        except Exception as error:
            self._finish()
            self.set_exception(error)
        else:
            self._finish()
            self.set_result(result)

    def _finish(self):
        self._handler, self._args, self._kwargs = None, (), {}

    def executing(self):
        return self._executing
