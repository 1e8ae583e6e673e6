"""All that the limiter knows between ticks and works with in one: a record of numbers.

One record in place of a hundred arrays: a compiled function gets it whole, at the cost of one
argument. n is the number of joints; vectors of joints are filled up to n. Parts of a twist, linear
and angular, are numbered 0 and 1.
"""

import numpy as np

MOST_JOINTS = 8
"""Room for joints in the record."""

ROWS = 12
"""Rows of a joint: `joints` names them."""

_N = (MOST_JOINTS,)
_FIELDS: tuple[tuple[str, tuple[int, ...]], ...] = (
    # --- the robot and its bounds ---
    ("length", ()),  # characteristic length, m
    ("period", ()),  # between two ticks, s
    ("delay", ()),  # reaction_delay, s
    ("sensor_error", ()),  # joint_position_error, rad
    ("position_low", _N),
    ("position_high", _N),
    ("most_speed", _N),
    ("most_acceleration", _N),
    ("most_torque", _N),
    ("most_torque_rate", _N),
    ("drift_change", _N),  # greatest change of gravity torques, Nm per rad of joint motion
    ("mass_change", _N),  # the same of M a, per size of a
    ("turning", ()),  # of `model.Study`
    ("reach", ()),
    ("sway", (2,)),
    ("margin", ()),  # tracking_error, m
    ("cone", ()),  # tool_cone_angle, rad
    ("cone_need", ()),  # room from which on the cone does not matter, rad
    ("tool_axis", (3,)),
    ("cone_axis", (3,)),
    ("singular_bound", ()),
    # --- figures of the plan, see `plan.StopPlan` ---
    ("plan_time", ()),
    ("ramp", ()),
    ("tick", ()),
    ("rate", ()),
    ("way", ()),
    ("way_of_acceleration", ()),
    ("rise", ()),
    ("bend_less", ()),
    ("first_way", ()),
    ("slow_way", ()),
    ("slow_way_of_acceleration", ()),
    # --- what is sent as a twist, see `guard` ---
    ("guard_speed", (2,)),
    ("guard_acceleration", (2,)),
    ("guard_jerk", (2,)),
    ("guard_kept_speed", (2,)),  # the speed bound of the plan that is still followed
    ("guard_velocity", (2, 3)),
    ("guard_change", (2, 3)),
    ("guard_start", (2, 3)),
    ("guard_start_change", (2, 3)),
    ("guard_since", (2,)),
    ("guard_ramp", (2,)),
    ("guard_tick", (2,)),
    # --- where the arm is, see `predictor` ---
    ("seen", _N),  # the newest measured position
    ("measured", _N),  # the last one that was new
    ("total", _N),
    ("origin", _N),
    ("below", _N),
    ("above", _N),
    ("lost", _N),
    ("fastest", _N),
    ("spread", _N),
    ("unevenness", ()),
    ("uneven_most", ()),
    ("uneven_time", ()),
    ("gone", ()),  # way of all joints lately, rad
    ("position", _N),
    ("error", _N),
    ("error_size", ()),  # its norm
    ("error_most", ()),  # the greatest of them
    ("place_before", _N),  # where the arm was before this tick, by what is known now
    # --- the model there ---
    ("jacobian", (6, MOST_JOINTS)),
    ("turns", (MOST_JOINTS, 3, 3)),  # of the joints' frames, see `dynamics`
    ("places", (MOST_JOINTS, 3)),
    ("mass", (MOST_JOINTS, MOST_JOINTS)),
    ("tcp", (3,)),
    ("rotation", (3, 3)),
    ("inverse", (MOST_JOINTS, 6)),
    # --- the least singular values, see `singular` ---
    ("singular_value", ()),
    ("singular_there", ()),
    ("singular_from", _N),
    ("singular_slopes", (2, MOST_JOINTS)),
    ("singular_rooms", (2,)),
    # --- the rows of the joints, see `joints` ---
    ("most", (ROWS, MOST_JOINTS)),
    ("least", (ROWS, MOST_JOINTS)),
    ("values", (ROWS, MOST_JOINTS)),
    ("idle", _N),
    # --- what is sent, and the plan ---
    ("h", ()),  # length of this tick, s
    ("last_tick", ()),
    ("between", ()),  # between the middles of this tick and the last, s
    ("since", ()),
    ("velocity", _N),
    ("speed", ()),
    ("acceleration", _N),
    ("torque", _N),
    ("twist", (6,)),
    ("twist_before", (6,)),  # J, as it is now, times the joint velocity before
    ("twist_acceleration", (6,)),
    ("bend", (6,)),
    ("start", _N),
    ("start_acceleration", _N),
    ("kept", _N),  # the next point of the plan
    ("tcp_spread", (2,)),  # how much faster the TCP may be than is known
    # --- what is asked for, and what is tried ---
    ("target", (MOST_JOINTS,)),
    ("trial", _N),  # joint velocity
    ("trial_twist", (6,)),
    ("trial_change", _N),
    ("trial_torque", _N),
    ("trial_bend", (6,)),
    ("trial_turned", (6,)),  # J times the change
    ("trial_moved", (6,)),  # J times the trial: what the arm makes of its twist
    ("found", _N),
    ("found_twist", (6,)),
    ("drift", _N),  # what the joints' acceleration is where the twist does not change
    ("failure", ()),
)
_COUNTS = (
    "joints",  # n
    "twists",  # whether twists are sent
    "target_kind",
    "wants_twist",
    "known",  # whether the arm's position is
    "has_measured",
    "has_lost",
    "has_spread",
    "ring_at",
    "ring_count",
    "singular_exact",
    "damped",  # whether twists are followed with damping here: nearer to a singularity than allowed
    "far",  # whether no plan leads to the end of a range
    "rows",  # of places
    "acts",  # whether any bound acts
    "failed",  # which bound refused a trial, an index of `acting`
)
STATE = np.dtype(
    [(name, np.int64) for name in _COUNTS] + [(name, np.float64, shape) for name, shape in _FIELDS],
    align=True,
)
