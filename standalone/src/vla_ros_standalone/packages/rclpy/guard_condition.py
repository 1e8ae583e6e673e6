"""Guard conditions: callbacks that code triggers."""


class GuardCondition:
    """Has its callback run once after each `trigger`; made by `Node.create_guard_condition`."""

    def __init__(self, callback, callback_group, context=None):
        self.callback = callback
        self.callback_group = callback_group
        self._executor_event = False
        self._executor_triggered = False
        self._wake = lambda: None
        if callback_group is not None:
            callback_group.add_entity(self)

    def trigger(self):
        """Ask for the callback; callable from any thread."""
        self._executor_triggered = True
        self._wake()

    def _take(self):
        self._executor_triggered = False
        return self.callback, ()

    def destroy(self):
        self._wake = lambda: None
