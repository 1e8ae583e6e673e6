"""The launch runner does what ros2 launch does, on real processes, and leaves none behind."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml

import vla_ros_standalone  # noqa: F401  (installs the import hook)
from vla_ros_standalone.launch.description import Launch, read
from vla_ros_standalone.launch.substitutions import Context, LaunchError, coerce, parse, substitute

SOURCE = Path(__file__).parents[1] / "src"
PYTHON = sys.executable

IGNORES_EVERYTHING = (
    "import signal, time\n"
    "def tell(number, frame): print('got', number, flush=True)\n"
    "for number in (signal.SIGINT, signal.SIGTERM): signal.signal(number, tell)\n"
    "print('ready', flush=True)\n"
    "while True: time.sleep(0.1)\n"
)
ENDS_AFTER_SIGINT = (
    "import time\n"
    "try:\n    print('ready', flush=True)\n    time.sleep(60)\n"
    "except KeyboardInterrupt:\n    print('saved', flush=True)\n"
)


@pytest.fixture
def write(tmp_path):
    def write_file(body: str, name: str = "it.launch.xml") -> str:
        path = tmp_path / name
        path.write_text(f"<launch>\n{body}\n</launch>\n")
        return str(path)

    return write_file


@pytest.fixture
def plan(write, tmp_path):
    """Work out the processes of a launch file without running them."""

    def work_out(body: str, **given: str):
        said = []
        folder = tmp_path / "params"
        folder.mkdir(exist_ok=True)
        launch = Launch(given, folder, said.append)
        return launch.run(write(body)), said

    return work_out


def said(plan, body: str, **given: str) -> list[str]:
    return plan(body, **given)[1]


def fails(plan, body: str, match: str, **given: str) -> None:
    with pytest.raises(LaunchError, match=match):
        plan(body, **given)


# Substitutions


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("", ""),
        ("plain $5 text", "plain $5 text"),
        ("$(var a)", "1"),
        ("-$(var a)-$(var b)-", "-1-two words-"),
        ("$(var missing 7)", "7"),
        ("$(var missing '')", ""),
        ("$(var missing 'a $(var b) c')", "a two words c"),
        ("$(env HOME_OF_TEST)", "/h"),
        ("$(env NOT_SET_HERE $(var a))", "1"),
        ("$(var $(var name))", "1"),
        (r"\$(var a)", "$(var a)"),
        ("$(dirname)/x", "/files/x"),
        ("$(filename)", "/files/f.launch.xml"),
        ("$(not $(var yes))", "false"),
        ("$(and $(var yes) true)", "true"),
        ("$(or false false)", "false"),
        (r"$(eval '\'$(var name)\' == \'a\'')", "True"),
        (r"$(eval '\'$(var b)\' != \'two words\'')", "False"),
        ("$(eval \"'$(env NOT_SET_HERE 0)' == '2'\")", "False"),
        ("$(eval '$(var a) == 1')", "True"),
    ],
)
def test_substitutions(text, result):
    context = Context(
        {"a": "1", "b": "two words", "name": "a", "yes": "true"},
        {"HOME_OF_TEST": "/h"},
        "/files/f.launch.xml",
    )
    assert substitute(text, context) == result


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("$(var a", r"'\)' is missing|which is missing"),
        ("$(var)", "takes 1 or 2 arguments"),
        ("$(var  a)", "one space"),
        ("$(arg a)", "substitution 'arg' is not known"),
        ("$()", "name of a substitution"),
        ("$(dirname x)", "takes 0 arguments"),
        ("$(var 'a)", "' is missing"),
        ("$(exec 1+1)", "not known"),
    ],
)
def test_a_malformed_substitution_is_named(text, match):
    with pytest.raises(LaunchError, match=match):
        parse(text)


@pytest.mark.parametrize("expression", ["1+1", "a == 1", "1 == 1 == 1", "'", "1 < 2", "f() == 1"])
def test_eval_runs_no_code(expression):
    with pytest.raises(LaunchError, match="comparisons of two constants"):
        substitute(f'$(eval "{expression}")', Context())


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("3", None, 3),
        ("3.0", None, 3.0),
        ("true", None, True),
        ("/a/b", None, "/a/b"),
        ("[1, 2]", None, [1, 2]),
        ("", None, ""),
        ("3", "str", "3"),
        ("3", "float", 3.0),
        ("[a, b]", "list_of_str", ["a", "b"]),
        ("yes", "bool", True),
    ],
)
def test_values_follow_yaml_or_the_given_type(text, kind, value):
    result = coerce(text, kind)
    assert result == value
    assert type(result) is type(value)


@pytest.mark.parametrize(
    ("text", "kind"),
    [("null", None), ("{a: 1}", None), ("[1, a]", None), ("[", None), ("x", "int"), ("1", "bool")],
)
def test_a_value_of_no_type_is_refused(text, kind):
    with pytest.raises(LaunchError):
        coerce(text, kind)


# Files


def test_arguments_variables_and_conditions(plan):
    body = """
      <arg name="a" default="1"/>
      <arg name="b" default="$(var a)0"/>
      <let name="c" value="$(var b)0"/>
      <log message="$(var c)"/>
      <log message="if" if="$(var a)"/>
      <log message="unless" unless="$(var a)"/>
      <group if="false"><log message="never"/></group>
    """
    assert said(plan, body) == ["100", "if"]
    assert said(plan, body, a="0", b="5") == ["50", "unless"]
    fails(plan, body, r"it\.launch\.xml:7: <log>: 'maybe' is no condition", a="maybe")


def test_a_group_has_its_own_variables_and_environment(plan):
    body = """
      <let name="x" value="outer"/>
      <set_env name="VLA_TEST" value="outer"/>
      <group>
        <let name="x" value="inner"/> <set_env name="VLA_TEST" value="inner"/>
        <log message="$(var x) $(env VLA_TEST)"/>
      </group>
      <log message="$(var x) $(env VLA_TEST)"/>
      <group scoped="false"><let name="x" value="kept"/><unset_env name="VLA_TEST"/></group>
      <log message="$(var x) $(env VLA_TEST gone)"/>
    """
    assert said(plan, body) == ["inner inner", "outer outer", "kept gone"]


def test_includes(plan, write):
    write(
        '<arg name="who"/><arg name="other" default="d"/>'
        '<log message="$(var who) $(var other) $(filename)"/>',
        "inner.launch.xml",
    )
    body = """
      <arg name="n" default="5"/>
      <include file="$(dirname)/inner.launch.xml"><arg name="who" value="me$(var n)"/></include>
      <log message="$(filename)"/>
    """
    first, second = said(plan, body)
    assert re.fullmatch(r"me5 d .*/inner\.launch\.xml", first)
    assert second.endswith("/it.launch.xml")
    fails(
        plan,
        '<include file="$(dirname)/inner.launch.xml"/>',
        r"inner\.launch\.xml:2: <arg>: .*'who'",
    )
    fails(plan, '<include file="/no/file"/>', r":2: <include>: no file '/no/file'")
    fails(plan, '<include file="$(filename)"/>', "includes itself")


@pytest.mark.parametrize(
    ("body", "match"),
    [
        ("<nodes/>", r":2: <nodes>: not known in <launch>"),
        ('<node pkg="a"/>', r":2: <node>: attribute 'exec' is missing"),
        ('<node pkg="a" exec="b" outptu="c"/>', "attribute 'outptu' is not known here"),
        ('<node pkg="a" exec="b"><params/></node>', "<params>: not known in <node>"),
        ('<node pkg="a" exec="b"><param value="1"/></node>', "'name' or 'from' is missing"),
        ('<node pkg="a" exec="b"><param name="x"/></node>', "either a 'value' or nested"),
        (
            '<node pkg="a" exec="b"><param name="x" value="1" type="long"/></node>',
            "type must be one of",
        ),
        ('<node pkg="a" exec="b"><param from="x" name="y"/></node>', "'from' stands alone"),
        (
            '<node pkg="a" exec="b"><remap from="x" if="1" to="y"/></node>',
            "attribute 'if' is not known",
        ),
        ('<log message="$(vra x)"/>', "attribute 'message': substitution 'vra' is not known"),
        ('<log message="$(var x)"/>', "no variable 'x' is set here"),
        (
            '<log message="$(env NOT_SET_HERE)"/>',
            "environment variable 'NOT_SET_HERE' does not exist",
        ),
        ('<log message="$(find-pkg-share no_such_pkg)"/>', "package 'no_such_pkg' not found"),
        ('<log message="a" if="1" unless="1"/>', "exclude each other"),
        ('<arg name="must" description="why"/>', r"'must' \(why\) is required: add must:=<value>"),
        ('<arg name="x" default="c"><choice value="a"/></arg>', r"'x' is 'c', not one of \['a'\]"),
        ("words", "text is not allowed here"),
        ("<log", ":3: not well-formed XML"),
        ('<executable cmd="no_such_program_here"/>', "no executable 'no_such_program_here'"),
        ('<executable cmd="sleep 1" output="screem"/>', "output must be one of"),
        ('<executable cmd="sleep 1" respawn_delay="-1"/>', "must not be negative"),
        ('<executable cmd="sleep 1" respawn="sometimes"/>', "not of type bool"),
        ('<node pkg="no_such_pkg" exec="x"/>', "package 'no_such_pkg' not found"),
        ('<node pkg="pytest" exec="no_exec"/>', "no executable 'no_exec' .it has: .*py.test"),
        ('<node pkg="pytest" exec="pytest" name="a/b"/>', "'a/b' is no valid node name"),
        ('<node pkg="pytest" exec="pytest" namespace="1x"/>', "'/1x' is no valid namespace"),
        (
            '<node pkg="pytest" exec="pytest"><param from="/no.yaml"/></node>',
            "no parameter file '/no.yaml'",
        ),
    ],
)
def test_what_is_wrong_is_named_with_file_and_line(plan, body, match):
    fails(plan, body, r"it\.launch\.xml:\d+: .*")
    fails(plan, body, match)


def test_an_undeclared_argument_is_refused(plan):
    fails(
        plan,
        '<arg name="seed" default="0"/>',
        "no launch argument 'sed' is declared .declared: seed",
        sed="1",
    )
    assert plan('<arg name="seed" default="0"/>', sigterm_timeout="3") == ([], [])


def test_on_exit_is_refused_where_humble_would_refuse_it(plan, monkeypatch):
    body = '<executable cmd="sleep 1" on_exit="shutdown"/>'
    monkeypatch.delenv("ROS_DISTRO", raising=False)
    fails(plan, body, "not known to ROS 2 Humble")
    monkeypatch.setenv("ROS_DISTRO", "jazzy")
    assert plan(body)[0][0].shutdown_on_exit


def test_the_command_line_of_a_node(plan, tmp_path):
    (tmp_path / "robot.yaml").write_text("/**: {ros__parameters: {a: 1}}")
    body = """
      <push-ros-namespace namespace="left"/>
      <let name="words" value="two words"/>
      <node pkg="pytest" exec="pytest" name="tester" namespace="arm" exec_name="label"
            output="screen" args="--flag 'a b' $(var words) x$(var words) last"
            ros_args="--log-level debug" launch-prefix="nice -n 5" cwd="/tmp">
        <param from="$(dirname)/robot.yaml"/>
        <param name="rate" value="30"/>
        <param name="camera">
          <param name="id" value="7" type="str"/><param name="on" value="true"/>
        </param>
        <remap from="image" to="front/$(var words)"/>
        <env name="EXTRA" value="1"/>
      </node>
      <node pkg="pytest" exec="pytest"/>
    """
    (node, plain), _ = plan(body)
    assert node.name == "label-1"
    assert plain.name == "pytest-2"
    assert node.command[:3] == ("nice", "-n", "5")
    # The console script, or the interpreter with its entry point.
    assert "pytest" in node.command[3] or "'pytest'" in node.command[5]
    rest = node.command[node.command.index("--flag") :]
    # The file's own text is split into words, what substitutions give is not.
    assert rest[:5] == ("--flag", "a b", "two words", "xtwo words", "last")
    at = rest.index("--ros-args")
    assert rest[at : at + 8] == (
        *("--ros-args", "--log-level", "debug", "--ros-args"),
        *("-r", "__node:=tester", "-r", "__ns:=/left/arm"),
    )
    files = [rest[k + 1] for k, word in enumerate(rest) if word == "--params-file"]
    assert files[0] == str(tmp_path / "robot.yaml")
    assert yaml.safe_load(Path(files[1]).read_text()) == {
        "/left/arm/tester": {"ros__parameters": {"rate": 30}}
    }
    assert yaml.safe_load(Path(files[2]).read_text()) == {
        "/left/arm/tester": {"ros__parameters": {"camera.id": "7", "camera.on": True}}
    }
    assert rest[-2:] == ("-r", "image:=front/two words")
    assert node.environment["EXTRA"] == "1"
    assert "EXTRA" not in plain.environment
    assert (node.directory, node.output, plain.output) == ("/tmp", "screen", "log")
    assert plain.command[-1] == "__ns:=/left"


def test_remaps_of_a_group_come_before_a_node_s_own(plan):
    body = """
      <group>
        <set_remap from="image" to="front/image"/>
        <node pkg="pytest" exec="pytest"><remap from="image" to="other"/></node>
      </group>
      <node pkg="pytest" exec="pytest"/>
    """
    (within, outside), _ = plan(body)
    assert within.command[-4:] == ("-r", "image:=front/image", "-r", "image:=other")
    assert "image:=front/image" not in outside.command


def test_an_ament_prefix_comes_before_this_environment(plan, tmp_path, monkeypatch):
    script = tmp_path / "lib/pytest/pytest"
    script.parent.mkdir(parents=True)
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    monkeypatch.setenv("AMENT_PREFIX_PATH", f"/none:{tmp_path}")
    (node,), _ = plan('<node pkg="pytest" exec="pytest"/>')
    assert node.command[0] == str(script)


def test_the_launch_files_of_this_repository_are_read():
    folder = Path(__file__).parents[2] / "launch"
    files = sorted(folder.glob("*.launch.xml"))
    assert files
    for file in files:
        read(str(file))


# Processes


class Launched:
    """A running launch, as a user starts it."""

    def __init__(self, folder: Path, file: str, *arguments: str) -> None:
        self.folder = folder
        self.started = time.monotonic()
        self.runner = subprocess.Popen(
            [PYTHON, "-m", "vla_ros_standalone.launch", file, *arguments],
            env={
                **os.environ,
                "PYTHONPATH": f"{SOURCE}:{os.environ.get('PYTHONPATH', '')}",
                "ROS_LOG_DIR": str(folder / "log"),
                "PYTHONUNBUFFERED": "1",
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.lines: list[str] = []

    def wait_for(self, pattern: str) -> re.Match:
        for line in self.runner.stdout:
            self.lines.append(line.rstrip("\n"))
            if found := re.search(pattern, line):
                return found
        raise AssertionError(f"no {pattern!r} in:\n" + "\n".join(self.lines))

    def end(self) -> tuple[int, str]:
        rest, _ = self.runner.communicate(timeout=20)
        self.lines += rest.splitlines()
        return self.runner.returncode, "\n".join(self.lines)

    def pids(self) -> list[int]:
        return [
            int(pid) for pid in re.findall(r"started with pid \[(\d+)\]", "\n".join(self.lines))
        ]


@pytest.fixture
def launch(write, tmp_path):
    running = []

    def start(body: str, *arguments: str) -> Launched:
        running.append(Launched(tmp_path, write(body), *arguments))
        return running[-1]

    yield start
    for launched in running:
        launched.runner.kill()
        launched.runner.wait()


@pytest.fixture
def script(tmp_path):
    def write_script(name: str, code: str) -> str:
        path = tmp_path / name
        path.write_text(code)
        return f"{PYTHON} -u {path}"

    return write_script


def gone(pids: list[int], patience_s: float = 3.0) -> bool:
    end = time.monotonic() + patience_s
    while time.monotonic() < end:
        if not any(
            psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie" for pid in pids
        ):
            return True
        time.sleep(0.02)
    return False


def test_output_has_the_prefixes_of_ros2_launch(launch, script):
    speaker = script(
        "speaker.py", "import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)"
    )
    quiet = script("quiet.py", "import sys; print('unseen'); print('seen', file=sys.stderr)")
    run = launch(
        f'<executable name="speaker" cmd="{speaker}" output="screen"/>'
        f'<executable name="quiet" cmd="{quiet}"/>'
    )
    code, text = run.end()
    assert code == 0
    assert "[INFO] [launch]: All log files can be found below" in text
    assert re.search(
        r"^\[INFO\] \[speaker-1\]: process started with pid \[\d+\]$", text, re.MULTILINE
    )
    assert "\n[speaker-1] out" in text
    assert "\n[speaker-1] err" in text
    assert re.search(
        r"^\[ERROR\] \[speaker-1\]: process has died \[pid \d+, exit code 3, cmd '.*'\]\.$",
        text,
        re.MULTILINE,
    )
    assert re.search(
        r"^\[INFO\] \[quiet-2\]: process has finished cleanly \[pid \d+\]$", text, re.MULTILINE
    )
    assert "seen" in text
    assert "unseen" not in text
    (log,) = (run.folder / "log").glob("*/launch.log")
    assert "[quiet-2] unseen" in log.read_text()
    assert "[INFO] [speaker-1]: process started" in log.read_text()


def test_ctrl_c_ends_every_process_cleanly(launch, script):
    polite = script("polite.py", ENDS_AFTER_SIGINT)
    run = launch(f'<executable name="polite" cmd="{polite}" output="screen"/>' * 3)
    for _ in range(3):
        run.wait_for("ready")
    run.runner.send_signal(signal.SIGINT)
    code, text = run.end()
    assert code == 0
    assert "[WARNING] [launch]: user interrupted with ctrl-c (SIGINT)" in text
    assert text.count("sending signal 'SIGINT' to process[polite-") == 3
    assert text.count("saved") == 3
    assert text.count("finished cleanly") == 3
    assert gone(run.pids())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_other_ways_to_end_it_are_as_clean(launch, script, number):
    run = launch(f'<executable cmd="{script("polite.py", ENDS_AFTER_SIGINT)}" output="screen"/>')
    run.wait_for("ready")
    run.runner.send_signal(number)
    code, text = run.end()
    assert (code, "saved" in text) == (0, True)


def test_a_deaf_process_is_terminated_and_then_killed(launch, script):
    deaf = script("deaf.py", IGNORES_EVERYTHING)
    run = launch(
        f'<executable name="deaf" cmd="{deaf}" output="screen"/>',
        "sigterm_timeout:=0.5",
        "sigkill_timeout:=0.7",
    )
    run.wait_for("ready")
    begin = time.monotonic()
    run.runner.send_signal(signal.SIGINT)
    run.wait_for("got 2")
    run.runner.send_signal(signal.SIGINT)
    code, text = run.end()
    assert 1.1 < time.monotonic() - begin < 4
    assert "got 15" in text
    assert "again, ignoring" in text
    assert (
        "failed to terminate '0.5' seconds after receiving 'SIGINT', escalating to 'SIGTERM'"
        in text
    )
    assert (
        "failed to terminate '1.2' seconds after receiving 'SIGTERM', escalating to 'SIGKILL'"
        in text
    )
    assert "exit code -9" in text
    assert code == 0
    assert gone(run.pids())


def test_nothing_outlives_a_killed_runner(launch, script):
    run = launch(f'<executable cmd="{script("deaf.py", IGNORES_EVERYTHING)}" output="screen"/>')
    run.wait_for("ready")
    run.runner.kill()
    assert gone(run.pids())


def test_what_a_process_leaves_behind_is_killed(launch, script):
    parent = script(
        "parent.py",
        "import subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "print('child', child.pid, flush=True)\n",
    )
    run = launch(f'<executable cmd="{parent}" output="screen"/>')
    child = int(run.wait_for(r"child (\d+)")[1])
    code, _ = run.end()
    assert code == 0
    assert time.monotonic() - run.started < 15
    assert gone([child])


def test_respawn(launch, script):
    dying = script("dying.py", "print('lived', flush=True)")
    run = launch(f'<executable cmd="{dying}" output="screen" respawn="true" respawn_delay="0.2"/>')
    begin = None
    for _ in range(3):
        run.wait_for("lived")
        begin = begin or time.monotonic()
    assert time.monotonic() - begin > 0.4
    run.runner.send_signal(signal.SIGINT)
    code, text = run.end()
    assert code == 0
    assert len(set(run.pids())) == len(run.pids()) >= 3
    assert len(set(re.findall(r"\[(python\S*-1)\]: process started", text))) == 1


def test_a_required_process_takes_the_others_with_it(launch, script, monkeypatch):
    monkeypatch.setenv("ROS_DISTRO", "jazzy")
    short = script("short.py", "import time; time.sleep(1)")
    run = launch(
        f'<executable cmd="{script("polite.py", ENDS_AFTER_SIGINT)}" output="screen"/>'
        f'<executable name="needed" cmd="{short}" on_exit="shutdown"/>'
    )
    code, text = run.end()
    assert "process[needed-2] was required: shutting down launched system" in text
    assert "sending signal 'SIGINT' to process[" in text
    assert code == 0
    assert gone(run.pids())


def test_a_long_line_and_odd_bytes_pass(launch, script):
    odd = script(
        "odd.py",
        "import sys\n"
        "sys.stdout.buffer.write(b'x' * 300000 + b'\\n\\xff\\n' + b'no end')\n"
        "sys.stdout.flush()",
    )
    code, text = launch(f'<executable name="odd" cmd="{odd}" output="screen"/>').end()
    assert code == 0
    assert "x" * 300000 in text
    assert "[odd-1] \ufffd" in text
    assert "[odd-1] no end" in text


def test_a_process_that_cannot_start_fails_the_launch(launch, script):
    run = launch(
        f'<executable cmd="{script("polite.py", ENDS_AFTER_SIGINT)}"/>'
        '<executable name="lost" cmd="sleep 1" cwd="/no/such/folder"/>'
    )
    code, text = run.end()
    assert code == 1
    assert "[ERROR] [lost-2]: cannot be started" in text
    assert gone(run.pids())


def test_the_command(write, tmp_path):
    def command(*words: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [PYTHON, "-m", "vla_ros_standalone.launch", *words],
            env={**os.environ, "PYTHONPATH": str(SOURCE), "ROS_LOG_DIR": str(tmp_path / "log")},
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )

    write('<arg name="deep" default="d"/><arg name="set"/>', "inner.launch.xml")
    file = write(
        '<arg name="seed" default="$(env SEED 0)" description="Where"/>'
        '<include file="$(dirname)/inner.launch.xml"><arg name="set" value="1"/></include>'
    )
    shown = command("--show-args", file).stdout
    assert "Arguments (pass arguments as '<name>:=<value>'):" in shown
    assert "    'seed':\n        Where\n        (default: '$(env SEED 0)')" in shown
    assert "'deep'" in shown
    assert "'set'" not in shown
    for words, message in (
        ((file, "seed"), "malformed launch argument 'seed'"),
        ((file, "sed:=1"), "no launch argument 'sed'"),
        (("no_such_pkg", "x.launch.xml"), "package 'no_such_pkg' not found"),
        (("/no/file.launch.xml",), "no launch file '/no/file.launch.xml'"),
    ):
        out = command(*words)
        assert (out.returncode, message in out.stderr) == (1, True), out.stderr
    assert not (tmp_path / "log").exists()  # nothing was started, nothing is left
