"""The formulas of `vla_ros.safety.limits`, against their definitions."""

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from vla_ros.kinematics import SerialChain
from vla_ros.safety import limits
from vla_ros.safety.position import TcpPosition

component = st.floats(-3.0, 3.0)
vectors = st.tuples(component, component, component)
rooms = st.floats(0.0, 2.0)
intervals = st.tuples(rooms, rooms).map(lambda pair: (-pair[0], pair[1]))


@given(st.floats(1e-12, 10.0), st.floats(1e-3, 1.0), st.floats(0.1, 20.0))
def test_approach_speed_uses_up_the_room(room, delay, braking):
    speed = limits.approach_speed(room, delay, braking)
    assert math.isclose(speed * delay + speed**2 / (2 * braking), room, rel_tol=1e-9)


def test_no_room_no_approach():
    assert limits.approach_speed(0.0, 0.05, 3.0) == 0.0
    assert limits.approach_speed(-0.1, 0.05, 3.0) == 0.0


@given(vectors, st.floats(0.01, 2.0))
def test_scaling_keeps_the_direction(vector, bound):
    scaled = limits.scale_to(vector, bound)
    assert limits.norm(scaled) <= bound * (1 + 1e-12)
    assert np.allclose(np.cross(scaled, vector), 0.0, atol=1e-12)
    assert np.dot(scaled, vector) >= 0.0


def test_enormous_vectors_scale_to_a_finite_one():
    for value in (1e308, 1.7e308):
        scaled = limits.scale_to((value, value, value), 0.3)
        assert limits.norm(scaled) <= 0.3 + 1e-12


@given(vectors, vectors, st.tuples(intervals, intervals, intervals), st.floats(0.0, 1.0))
def test_a_linear_step_keeps_its_promises(previous, wish, allowed, change):
    target = limits.clip(wish, allowed)
    output = limits.step_linear(previous, target, allowed, change)
    assert limits.distance(output, previous) <= change + 1e-12
    assert limits.norm(output) <= max(limits.norm(previous), limits.norm(target)) + 1e-12
    share = change / math.sqrt(3.0)
    for before, after, (low, high) in zip(previous, output, allowed, strict=True):
        inside = low - 1e-12 <= after <= high + 1e-12
        brakes = (
            after <= before - share + 1e-12 if before > high else after >= before + share - 1e-12
        )
        assert inside or brakes


@given(vectors, vectors, st.tuples(intervals, intervals, intervals))
def test_a_linear_step_goes_as_far_as_it_may(previous, wish, allowed):
    target = limits.clip(wish, allowed)
    previous = limits.clip(previous, allowed)
    output = limits.step_linear(previous, target, allowed, 0.1)
    gap = limits.distance(target, previous)
    assert math.isclose(limits.distance(output, previous), min(gap, 0.1), abs_tol=1e-9)


@given(vectors, vectors, st.floats(0.0, 1.0))
def test_an_angular_step_keeps_its_promises(previous, target, change):
    output = limits.step_angular(previous, target, change)
    assert limits.distance(output, previous) <= change + 1e-12
    assert limits.norm(output) <= max(limits.norm(previous), limits.norm(target)) + 1e-12


def test_tcp_position_is_the_chain_s(chain):
    position_of = TcpPosition(chain)
    for angles in np.random.default_rng(0).uniform(-3.0, 3.0, (50, 7)):
        assert np.allclose(position_of(angles.tolist()), chain.pose(angles)[0], atol=1e-12)


def test_tcp_position_of_a_slide():
    urdf = (
        '<robot name="r"><link name="a"/><link name="b"/><link name="c"/>'
        '<joint name="turn" type="revolute"><parent link="a"/><child link="b"/>'
        '<origin xyz="0 0 1" rpy="0.3 0 0"/><axis xyz="0 1 0"/></joint>'
        '<joint name="slide" type="prismatic"><parent link="b"/><child link="c"/>'
        '<origin xyz="0.2 0 0" rpy="0 0 0.5"/><axis xyz="1 0 0"/></joint></robot>'
    )
    chain = SerialChain.from_urdf(urdf, "a", "c", ["turn", "slide"])
    for angles in ((0.4, 0.3), (-2.0, 0.1)):
        assert np.allclose(TcpPosition(chain)(angles), chain.pose(np.array(angles))[0], atol=1e-12)
