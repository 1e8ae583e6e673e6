"""The opening that may be sent to the gripper next: within width, speed and force."""

from collections.abc import Callable

from vla_ros.robot import RobotConfig


class GripperLimiter:
    """Follows the desired opening, from the measured one on.

    Attributes:
        opening: What is sent now, in m; None as long as no opening was measured.
        wish: What is desired, in m; None: stay.

    """

    def __init__(self, robot: RobotConfig) -> None:
        """Start where the gripper is, which is not known yet."""
        self.opening: float | None = None
        self.wish: float | None = None
        self.tighten(robot)

    def tighten(self, robot: RobotConfig) -> None:
        """Use the bounds of `robot` from now on; the opening moves into a narrower range."""
        bounds = robot.bounds
        self._low, self._high = bounds.gripper_min, bounds.gripper_max
        self._speed, self._force = bounds.gripper_speed, bounds.gripper_force

    def start(self, measured: float) -> None:
        """Take the first measured opening, in m, as what was sent last."""
        if self.opening is None:
            self.opening = min(max(measured, self._low), self._high)

    def step(
        self, seconds: float, *, follow: bool, closing: float, act: Callable[[str, float], None]
    ) -> None:
        """Move the opening toward the desired one.

        Args:
            seconds: Since the last step.
            follow: Whether the desired opening may be followed now.
            closing: Measured force by which the fingers are driven together, N.
            act: Is told of each bound that acts, and by how much.

        """
        opening, wish = self.opening, self.wish
        if opening is None:
            return
        goal = opening
        if follow and wish is not None:
            if not self._low <= wish <= self._high:
                act("gripper_min", self._low - wish)
                act("gripper_max", wish - self._high)
            goal = wish
        goal = min(max(goal, self._low), self._high)
        if goal < opening and closing >= self._force:
            # What is held is held: on, the motor would only press harder.
            act("gripper_force", max(closing - self._force, opening - goal))
            return
        step = self._speed * seconds
        self.opening = min(max(goal, opening - step), opening + step)
        if goal != self.opening:
            act("gripper_speed", abs(goal - self.opening))
