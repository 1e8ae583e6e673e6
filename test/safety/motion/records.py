"""Records of the limiter made by hand, for tests of single compiled functions."""

import numpy as np

from vla_ros.safety.motion.chain import jacobian_at
from vla_ros.safety.motion.plan import StopPlan
from vla_ros.safety.motion.state import STATE

PLAN = StopPlan.of(0.1, 0.02, 0.015)


def record_at_rest(joints, plan=PLAN):
    """Return an array of one record: an arm that was sent nothing yet, and its stop plan."""
    record = np.zeros(1, dtype=STATE)
    state = record[0]
    state["joints"], state["length"], state["ring_count"] = joints, 1.0, 1
    state["since"] = state["guard_since"] = plan.time
    state["guard_ramp"] = plan.ramp
    state["below"] = state["above"] = np.inf
    state["singular_there"] = -np.inf
    plan.write(state)
    return record


def record_of(robot, model, position, plan=PLAN):
    """Return a record of an arm that is known to be at `position`, without error."""
    record = record_at_rest(model.joints, plan)
    state = record[0]
    state["length"] = robot.bounds.characteristic_length
    state["singular_bound"] = robot.bounds.singularity_distance
    model.study.write(state)
    move(state, model, position)
    return record


def move(state, model, position):
    """Put the arm of a record somewhere else."""
    state["known"] = 1
    state["position"][: model.joints] = position
    jacobian_at(model.links, state["position"], state["jacobian"], state["tcp"], state["rotation"])
