"""The Panda's kinematics as a URDF, small enough to read."""

# In the middle of the workspace, the hand pointing down.
HOME = (0.0, -0.1, 0.0, -2.2, 0.0, 2.1, 0.785)
HALF = 1.5707963267948966
# Origin (xyz, roll) of each joint in its parent, from franka_ros' panda_arm.xacro.
ORIGINS = [
    ((0.0, 0.0, 0.333), 0.0),
    ((0.0, 0.0, 0.0), -HALF),
    ((0.0, -0.316, 0.0), HALF),
    ((0.0825, 0.0, 0.0), HALF),
    ((-0.0825, 0.384, 0.0), -HALF),
    ((0.0, 0.0, 0.0), HALF),
    ((0.088, 0.0, 0.0), HALF),
]


def panda_urdf() -> str:
    inertial = (
        '<inertial><mass value="1"/>'
        '<inertia ixx="0.1" iyy="0.1" izz="0.1" ixy="0" ixz="0" iyz="0"/></inertial>'
    )
    parts = ['<robot name="panda"><link name="panda_link0"/>']
    parts += [f'<link name="panda_link{i}">{inertial}</link>' for i in range(1, 8)]
    parts += ['<link name="panda_hand"/><link name="panda_hand_tcp"/>']
    parts += [f'<link name="panda_finger{i}">{inertial}</link>' for i in (1, 2)]
    for i, ((x, y, z), roll) in enumerate(ORIGINS, start=1):
        parts.append(
            f'<joint name="panda_joint{i}" type="revolute"><parent link="panda_link{i - 1}"/>'
            f'<child link="panda_link{i}"/><origin xyz="{x} {y} {z}" rpy="{roll} 0 0"/>'
            '<axis xyz="0 0 1"/><limit lower="-3" upper="3" effort="87" velocity="2"/></joint>'
        )
    for name, parent, child, z, yaw in (
        ("hand", "link7", "hand", 0.107, -HALF / 2),
        ("tcp", "hand", "hand_tcp", 0.1034, 0.0),
    ):
        parts.append(
            f'<joint name="panda_{name}_fixed" type="fixed"><parent link="panda_{parent}"/>'
            f'<child link="panda_{child}"/><origin xyz="0 0 {z}" rpy="0 0 {yaw}"/></joint>'
        )
    for i, side in ((1, 1), (2, -1)):
        parts.append(
            f'<joint name="panda_finger_joint{i}" type="prismatic"><parent link="panda_hand"/>'
            f'<child link="panda_finger{i}"/><origin xyz="0 0 0.0584"/><axis xyz="0 {side} 0"/>'
            '<limit lower="0" upper="0.04" effort="20" velocity="0.2"/></joint>'
        )
    return "".join([*parts, "</robot>"])
