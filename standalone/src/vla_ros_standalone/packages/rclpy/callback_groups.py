"""Callback groups: which callbacks may run at the same time."""

import threading
import weakref


class CallbackGroup:
    """Base of the groups. An executor asks before it runs an entity's callback."""

    def __init__(self):
        self.entities = set()

    def add_entity(self, entity):
        self.entities.add(weakref.ref(entity, self.entities.discard))

    def has_entity(self, entity):
        return weakref.ref(entity) in self.entities

    def can_execute(self, entity):
        raise NotImplementedError

    def beginning_execution(self, entity):
        raise NotImplementedError

    def ending_execution(self, entity):
        raise NotImplementedError


class ReentrantCallbackGroup(CallbackGroup):
    """Allows any number of its callbacks at the same time."""

    def can_execute(self, entity):
        return True

    def beginning_execution(self, entity):
        return True

    def ending_execution(self, entity):
        return None


class MutuallyExclusiveCallbackGroup(CallbackGroup):
    """Allows one of its callbacks at a time."""

    def __init__(self):
        super().__init__()
        self._active_entity = None
        self._lock = threading.Lock()

    def can_execute(self, entity):
        return self._active_entity is None

    def beginning_execution(self, entity):
        with self._lock:
            if self._active_entity is None:
                self._active_entity = entity
                return True
        return False

    def ending_execution(self, entity):
        with self._lock:
            if self._active_entity is entity:
                self._active_entity = None
