"""Build as an ament_python package (colcon) or with pip.

All metadata is here rather than in pyproject.toml: the setuptools of Ubuntu 22.04 (ROS 2 Humble)
reads none from there.
"""

from pathlib import Path

from setuptools import find_packages, setup

NAME = "vla_ros"
# What reads bags: `vla_ros replay` needs nothing else, and no ROS.
REPLAY = ["rosbags>=0.11,<0.12", "backports.zstd>=1.0", "lz4>=4.0"]
# colcon --symlink-install runs this file from its build folder.
HERE = Path(__file__).resolve().parent


def tree(folder: str) -> list[tuple[str, list[str]]]:
    """List the files below a folder as data files under share/vla_ros."""
    folders: dict[str, list[str]] = {}
    for path in sorted(Path(folder).rglob("*")):
        if path.is_file():
            folders.setdefault(f"share/{NAME}/{path.parent}", []).append(str(path))
    return list(folders.items())


setup(
    name=NAME,
    version="0.1.0",
    description="Put a learned Vision-Language-Action policy on a robot arm, behind a filter",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    author="The vla_ros developers",
    maintainer="The vla_ros developers",
    maintainer_email="maintainers@vla-ros.invalid",
    packages=find_packages(include=[NAME, f"{NAME}.*"]),
    package_data={
        # Spelt out: the setuptools of Ubuntu 22.04 does not expand "**".
        "vla_ros.robots": ["so101/*", "ur5e/*"],
        "vla_ros.sim": ["assets/panda/*", "assets/panda/meshes/*"],
        "vla_ros.replay.report": ["*.css", "*.js"],
        "vla_ros": ["py.typed"],
    },
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (f"share/{NAME}", ["package.xml"]),
        *tree("launch"),
        *tree("config"),
        *tree("bundles"),
    ],
    python_requires=">=3.10",
    install_requires=[
        "daqp>=0.7,<0.12",
        # Compiles the safety filter's arithmetic, when it first runs.
        "numba>=0.59",
        "numpy>=1.24,<3",
        "onnxruntime>=1.17",
        # OpenCV 5 renumbered its types, which breaks the cv_bridge of Humble and Jazzy.
        "opencv-python-headless>=4.5,<5",
        "pin>=3,<5",
        "pydantic>=2.5",
        "PyYAML>=5.4",
        "tokenizers>=0.15",
    ],
    extras_require={
        "test": ["pytest", "hypothesis"],
        "sim": [
            "mujoco>=3.3.7,<5",
            "imageio-ffmpeg>=0.5",
            *REPLAY,
        ],
        "replay": REPLAY,
        "gpu": ["onnxruntime-gpu>=1.17"],
        "torch": ["torch>=2.9"],
        "openpi": ["msgpack>=1.0.5", "websockets>=15"],
        "triton": ["tritonclient[grpc]>=2.40"],
        "learn": ["torch>=2.4", "onnx>=1.16", "onnxscript>=0.1", "mujoco>=3.3.7,<5"],
    },
    zip_safe=False,
    entry_points={
        "console_scripts": [
            "vla_ros = vla_ros.cli:main",
            "camera_node = vla_ros.nodes.camera_node:main",
            "policy_node = vla_ros.nodes.policy_node:main",
            "safety_node = vla_ros.nodes.safety_node:main",
            "sim_node = vla_ros.nodes.sim_node:main",
        ],
        # Named as the module, so that `-p vla_ros.replay.pytest_plugin` does no harm beside it.
        "pytest11": ["vla_ros.replay.pytest_plugin = vla_ros.replay.pytest_plugin"],
    },
)
