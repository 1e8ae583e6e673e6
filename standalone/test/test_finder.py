"""The import hook serves what is missing, and never shadows a ROS 2 that is there."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src"


def python(code: str, *path: Path, **environment: str) -> subprocess.CompletedProcess:
    """Run code in an interpreter that has not imported the package before."""
    names = ("ROS_DISTRO", "AMENT_PREFIX_PATH", "PYTHONPATH")
    clean = {key: value for key, value in os.environ.items() if key not in names}
    search = os.pathsep.join(map(str, [*path, SOURCE]))
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**clean, "PYTHONPATH": search, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def make(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def test_it_is_last_and_costs_little():
    out = python(
        "import sys, vla_ros_standalone\n"
        "from vla_ros_standalone.finder import StandaloneFinder, install\n"
        "install()\n"
        "assert isinstance(sys.meta_path[-1], StandaloneFinder)\n"
        "assert sum(isinstance(f, StandaloneFinder) for f in sys.meta_path) == 1\n"
        "heavy = ('numpy', 'rosbags', 'asyncio', 're', 'cyclonedds')\n"
        "print([m for m in heavy if m in sys.modules])"
    )
    # Whatever this interpreter's own start-up imports is not the hook's doing.
    bare = python("import sys; print([m for m in ('re', 'asyncio') if m in sys.modules])")
    assert out.returncode == 0, out.stderr
    assert not {"numpy", "rosbags", "cyclonedds"} & set(eval(out.stdout))
    assert "asyncio" not in out.stdout or "asyncio" in bare.stdout


def test_packages_are_served_and_others_are_not():
    out = python(
        "import vla_ros_standalone, importlib.util as u\n"
        "import sensor_msgs.msg, std_srvs.srv, cv_bridge, ament_index_python.packages\n"
        "from sensor_msgs.msg import *\n"
        "print(Image.__module__, JointState().name, sensor_msgs.msg.Image is Image)\n"
        "print(u.find_spec('moveit_msgs'), u.find_spec('rclcpp'))\n"
        "print(u.find_spec('sensor_msgs.other'))\n"
        "print(u.find_spec('rclpy') is not None)"
    )
    assert out.stdout.splitlines() == ["sensor_msgs.msg [] True", "None None", "None", "True"], (
        out.stderr
    )


def test_an_importable_ros_wins_for_every_package(tmp_path):
    ros = make(
        tmp_path, {"rclpy/__init__.py": "REAL = True\n", "std_msgs/__init__.py": "REAL = True\n"}
    )
    out = python(
        "import vla_ros_standalone, rclpy, std_msgs\n"
        "print(rclpy.REAL, std_msgs.REAL)\n"
        "import importlib.util as u\n"
        "names = ('sensor_msgs', 'cv_bridge', 'ament_index_python')\n"
        "print(*(u.find_spec(name) for name in names))\n"
        "import sensor_msgs.msg",
        ros,
    )
    assert out.stdout.splitlines() == ["True True", "None None None"], out.stderr
    assert "No module named 'sensor_msgs'" in out.stderr


def test_a_ros_for_another_python_on_the_path_is_explained(tmp_path):
    # As rclpy.impl.implementation_singleton does, whose extension is named for another Python.
    ros = make(
        tmp_path,
        {
            "rclpy/__init__.py": "import importlib\n"
            "importlib.import_module('._rclpy_pybind11', package='rclpy')\n",
            "rclpy/_rclpy_pybind11.cpython-27-x86_64-linux-gnu.so": "",
        },
    )
    out = python("import vla_ros_standalone, rclpy", ros, ROS_DISTRO="humble")
    assert "ROS 2 humble is sourced" in out.stderr, out.stderr
    assert sys.executable in out.stderr
    assert "no ROS 2 is sourced" in out.stderr


@pytest.mark.parametrize(
    "library", ["lib/python3.7/site-packages", "local/lib/python3.7/dist-packages"]
)
def test_a_ros_for_another_python_off_the_path_is_explained(tmp_path, library):
    prefix = make(tmp_path, {f"{library}/rclpy/__init__.py": ""})
    for module in ("rclpy", "std_msgs.msg", "cv_bridge"):
        out = python(
            f"import vla_ros_standalone, {module}",
            ROS_DISTRO="foxy",
            AMENT_PREFIX_PATH=f"/no:{prefix}",
        )
        assert "ImportError: ROS 2 foxy is sourced" in out.stderr, out.stderr


def test_a_distribution_name_or_a_prefix_alone_is_no_ros(tmp_path):
    for environment in ({"ROS_DISTRO": "jazzy"}, {"AMENT_PREFIX_PATH": str(tmp_path)}):
        out = python("import vla_ros_standalone, std_msgs.msg; print('served')", **environment)
        assert out.stdout == "served\n", out.stderr


def test_package_folders(tmp_path):
    manifest = "<package format='3'><name>my_robot</name></package>"
    source = make(tmp_path / "tree", {"my_robot/__init__.py": "", "package.xml": manifest})
    prefix = make(
        tmp_path / "prefix",
        {
            "share/ament_index/resource_index/packages/my_robot": "",
            "share/my_robot/package.xml": manifest,
        },
    )
    code = (
        "import vla_ros_standalone\n"
        "from ament_index_python import get_package_share_directory, get_package_prefix\n"
        "print(get_package_share_directory('my_robot'))"
    )
    assert python(code, source).stdout.strip() == str(source)
    out = python(code, source, AMENT_PREFIX_PATH=f"/no:{prefix}")
    assert out.stdout.strip() == str(prefix / "share/my_robot")
    out = python(code)
    assert "PackageNotFoundError" in out.stderr
    assert "'my_robot' not found" in out.stderr


@pytest.mark.slow
@pytest.mark.parametrize("editable", [False, True])
def test_an_installation_needs_no_import(tmp_path, editable):
    """`pip install` is enough for `import rclpy`: the .pth file is part of the wheel."""
    if subprocess.run(
        [sys.executable, "-c", "import hatchling"], capture_output=True, check=False
    ).returncode:
        pytest.skip("hatchling, which builds the wheel without the network, is not installed")
    target = tmp_path / "site"
    options = ["--no-deps", "--no-build-isolation", "-q", "--disable-pip-version-check"]
    source = ["-e", str(SOURCE.parent)] if editable else [str(SOURCE.parent)]
    subprocess.run(
        [sys.executable, "-m", "pip", "install", *options, "--target", str(target), *source],
        check=True,
    )
    assert (target / "vla_ros_standalone.pth").is_file()
    code = (
        f"import site; site.addsitedir({str(target)!r})\n"
        "import std_msgs.msg; print(std_msgs.msg.String())"
    )
    clean = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=clean, check=False
    )
    assert "String(data='')" in out.stdout, out.stderr
