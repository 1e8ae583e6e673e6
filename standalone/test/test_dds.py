"""The DDS carrier: configuration, lossless payloads, policies, events, and memory."""

import contextlib
import gc
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from vla_ros_standalone import dds, dds_config
from vla_ros_standalone import dds_library as lib

SOURCE = Path(__file__).parents[1] / "src"
STRING = "std_msgs::msg::dds_::String_"
HEADER = b"\x00\x01\x00\x00"


@pytest.fixture
def participant(environment):
    made = dds.Participant()
    yield made
    made.close()


def python(code, **environment):
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(SOURCE), **environment},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def take(reader, count, timeout=5.0):
    end, samples = time.monotonic() + timeout, []
    while len(samples) < count and time.monotonic() < end:
        samples += reader.take(16)
        time.sleep(0.005)
    return samples


# Environment


def test_domain_id_comes_from_the_environment():
    assert dds_config.domain_id_from({}) == 0
    assert dds_config.domain_id_from({"ROS_DOMAIN_ID": "232"}) == 232


@pytest.mark.parametrize("text", ["233", "-1", "seven", "1.5"])
def test_an_impossible_domain_id_is_named(text):
    with pytest.raises(ValueError, match="ROS_DOMAIN_ID"):
        dds_config.domain_id_from({"ROS_DOMAIN_ID": text})


@pytest.mark.parametrize(
    "environment", [{"ROS_LOCALHOST_ONLY": "1"}, {"ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}]
)
def test_staying_on_this_machine(environment):
    text = dds_config.cyclonedds_configuration(environment)
    assert '<NetworkInterface name="lo" multicast="false"/>' in text
    assert "<AllowMulticast>false" in text
    assert '<Peer address="127.0.0.1"/>' in text
    assert dds_config.MAX_PARTICIPANT_INDEX >= 60


def test_by_default_the_network_is_used_and_the_users_configuration_has_the_last_word():
    text = dds_config.cyclonedds_configuration({"CYCLONEDDS_URI": "file:///mine.xml"})
    assert "Interfaces" not in text
    assert "Peer" not in text
    assert text.endswith(",file:///mine.xml")


def test_static_peers_are_taken_over_and_quoted():
    text = dds_config.cyclonedds_configuration({"ROS_STATIC_PEERS": 'robot; a"b'})
    assert '<Peer address="robot"/>' in text
    assert "<Peer address='a\"b'/>" in text


@pytest.mark.parametrize(
    "environment", [{"ROS_LOCALHOST_ONLY": "yes"}, {"ROS_AUTOMATIC_DISCOVERY_RANGE": "MOON"}]
)
def test_an_unknown_word_is_an_error(environment):
    with pytest.raises(ValueError, match=next(iter(environment))):
        dds_config.cyclonedds_configuration(environment)


@pytest.mark.parametrize(("limit", "minimum"), [(212992, "default"), (8 * 2**20, "4MB")])
def test_the_socket_buffer_is_what_the_kernel_permits(monkeypatch, limit, minimum):
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: f"{limit}\n")
    assert f'SocketReceiveBufferSize min="{minimum}"' in dds_config.cyclonedds_configuration({})


def test_another_version_of_cyclonedds_is_refused_at_import():
    out = python(
        "import importlib.metadata as m\n"
        "m.version = lambda name: '0.10.5'\n"
        "import vla_ros_standalone.dds\n"
    )
    assert out.returncode == 1
    assert f"pip install cyclonedds=={lib.CYCLONEDDS_VERSION}" in out.stderr


def test_taken_ports_end_in_one_clear_error(environment):
    """Participants look for a free pair of ports; when all are taken, the error says what to do."""
    domain = int(os.environ["ROS_DOMAIN_ID"])
    few = (
        "<CycloneDDS><Domain><Discovery><ParticipantIndex>auto</ParticipantIndex>"
        "<MaxAutoParticipantIndex>1</MaxAutoParticipantIndex></Discovery></Domain></CycloneDDS>"
    )
    with contextlib.ExitStack() as taken:
        for port in range(7400 + 250 * domain + 10, 7400 + 250 * domain + 14):
            taken.enter_context(socket.socket(type=socket.SOCK_DGRAM)).bind(("", port))
        code = "from vla_ros_standalone.dds import Participant; Participant()"
        out = python(code, CYCLONEDDS_URI=few)
    assert out.returncode == 1
    assert f"cannot join DDS domain {domain}" in out.stderr.splitlines()[-1]
    assert "set another ROS_DOMAIN_ID" in out.stderr.splitlines()[-1]


def test_an_unusable_configuration_says_where_to_look(environment):
    code = "from vla_ros_standalone.dds import Participant; Participant()"
    out = python(code, CYCLONEDDS_URI="<CycloneDDS><Nonsense/></CycloneDDS>")
    assert out.returncode == 1
    assert "CYCLONEDDS_URI" in out.stderr.splitlines()[-1]


# Payloads


@pytest.mark.parametrize("size", [5, 100, dds.COPY_BELOW_BYTES, 1_000_003])
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_payloads_arrive_bit_for_bit(participant, size, kind):
    payload = HEADER + os.urandom(size - 4)
    writer = participant.create_writer("rt/x", STRING, dds.EndpointQos())
    reader = participant.create_reader("rt/x", STRING, dds.EndpointQos())
    before = time.time_ns()
    assert writer.write(kind(payload))
    (sample,) = take(reader, 1)
    assert bytes(sample.payload) == payload
    assert memoryview(sample.payload).readonly
    assert before <= sample.source_timestamp_ns <= time.time_ns()
    assert sample.publication_handle in reader.matched_handles()


@pytest.mark.parametrize("payload", [b"", b"\x00\x01", b"\x00\x01\x00\x00", b"\xff" * 16])
def test_what_is_no_cdr_is_refused_when_sent(participant, payload):
    writer = participant.create_writer("rt/x", STRING, dds.EndpointQos())
    with pytest.raises(ValueError, match="rt/x"):
        writer.write(payload)


def test_a_large_payload_outlives_reader_and_participant(environment):
    participant = dds.Participant()
    payload = HEADER + os.urandom(500_000)
    writer = participant.create_writer("rt/x", STRING, dds.EndpointQos())
    reader = participant.create_reader("rt/x", STRING, dds.EndpointQos())
    writer.write(payload)
    (sample,) = take(reader, 1)
    reader.close()
    participant.close()
    assert bytes(sample.payload) == payload
    del sample
    gc.collect()


def test_memory_is_given_back(participant):
    psutil = pytest.importorskip("psutil")
    payload = HEADER + bytes(1_000_000)
    writer = participant.create_writer("rt/x", STRING, dds.EndpointQos(depth=1))
    reader = participant.create_reader("rt/x", STRING, dds.EndpointQos(depth=1))

    def send(count):
        for _ in range(count):
            writer.write(payload)
            reader.take(4)
        return psutil.Process().memory_info().rss

    first = send(50)
    assert send(300) - first < 50_000_000


def test_every_qos_object_is_deleted(participant, monkeypatch):
    alive = []
    create, delete = lib.create_qos, lib.delete_qos
    monkeypatch.setattr(lib, "create_qos", lambda: alive.append(create()) or alive[-1])
    monkeypatch.setattr(lib, "delete_qos", lambda qos: (alive.remove(qos), delete(qos)))
    participant.create_writer("rt/x", STRING, dds.EndpointQos(user_data=b"x", transient_local=True))
    participant.create_reader("rt/x", STRING, dds.EndpointQos())
    with pytest.raises(dds.DdsError, match="rt/x"):
        participant.create_reader("rt/x", STRING, dds.EndpointQos(depth=-5))
    assert alive == []


# Policies


def test_a_late_joiner_gets_what_transient_local_keeps(participant):
    qos = dds.EndpointQos(transient_local=True, depth=3)
    writer = participant.create_writer("rt/x", STRING, qos)
    for number in range(5):
        writer.write(HEADER + bytes([number] * 4))
    reader = participant.create_reader("rt/x", STRING, qos)
    volatile = participant.create_reader("rt/x", STRING, dds.EndpointQos(depth=3))
    assert [sample.payload[4] for sample in take(reader, 3)] == [2, 3, 4]
    assert volatile.take(5) == []


def test_a_reader_keeps_the_newest(participant):
    writer = participant.create_writer("rt/x", STRING, dds.EndpointQos(depth=None))
    last = participant.create_reader("rt/x", STRING, dds.EndpointQos(depth=2))
    everything = participant.create_reader("rt/x", STRING, dds.EndpointQos(depth=None))
    for number in range(20):
        writer.write(HEADER + bytes([number] * 4))
    assert [sample.payload[4] for sample in take(last, 2)] == [18, 19]
    assert len(take(everything, 20)) == 20


def test_an_expired_sample_is_not_delivered(participant):
    qos = dds.EndpointQos(transient_local=True, lifespan_ns=50_000_000)
    writer = participant.create_writer("rt/x", STRING, qos)
    writer.write(HEADER + b"gone")
    time.sleep(0.15)
    reader = participant.create_reader("rt/x", STRING, dds.EndpointQos(transient_local=True))
    time.sleep(0.1)
    assert reader.take(1) == []


def test_discovery_reports_every_policy(participant):
    qos = dds.EndpointQos(
        reliable=True,
        transient_local=True,
        depth=7,
        deadline_ns=10**9,
        lifespan_ns=2 * 10**9,
        liveliness_by_topic=True,
        lease_ns=3 * 10**9,
        user_data=b"typehash=x;",
    )
    writer = participant.create_writer("rt/x", STRING, qos)
    (info,) = participant.writers()
    assert (info.topic, info.type_name, info.guid) == ("rt/x", STRING, writer.guid)
    assert info.participant == participant.guid
    assert info.qos == qos
    writer.close()
    writer.close()
    assert participant.writers() == []


# Waiting


def test_a_wait_ends_by_data_by_time_and_by_another_thread(participant):
    writer = participant.create_writer("rt/x", STRING, dds.EndpointQos())
    reader = participant.create_reader("rt/x", STRING, dds.EndpointQos())
    waitset = dds.WaitSet(participant)
    waitset.attach_only({reader.condition})
    start = time.monotonic()
    assert waitset.wait(50_000_000) == []
    assert 0.04 < time.monotonic() - start < 1.0
    writer.write(HEADER + b"data")
    assert waitset.wait(10**9) == [reader.condition]
    take(reader, 1)
    timer = threading.Timer(0.05, waitset.wake)
    timer.start()
    start = time.monotonic()
    assert waitset.wait(None) == []
    assert time.monotonic() - start < 2.0
    start = time.monotonic()
    waitset.wait(50_000_000)
    assert time.monotonic() - start > 0.04, "one wake-up ends one wait"


def test_leaving_the_domain_ends_a_wait(environment):
    participant = dds.Participant()
    waitset = dds.WaitSet(participant)
    done = threading.Event()
    thread = threading.Thread(target=lambda: (waitset.wait(None), done.set()))
    thread.start()
    time.sleep(0.05)
    participant.close()
    assert done.wait(5)
    thread.join()
    waitset.wake()


def test_incompatible_policies_and_missed_deadlines_are_events(participant):
    reader = participant.create_reader(
        "rt/x", STRING, dds.EndpointQos(transient_local=True, deadline_ns=None)
    )
    reader.watch(["requested_incompatible_qos"])
    hasty = participant.create_reader("rt/y", STRING, dds.EndpointQos(deadline_ns=50_000_000))
    hasty.watch(["requested_deadline_missed"])
    waitset = dds.WaitSet(participant)
    waitset.attach_only({reader.handle, hasty.handle})
    participant.create_writer("rt/x", STRING, dds.EndpointQos())
    assert waitset.wait(10**9) == [reader.handle]
    status = reader.take_status("requested_incompatible_qos")
    assert (status.total_count_change, status.last_policy_id) == (1, 2)
    writer = participant.create_writer("rt/y", STRING, dds.EndpointQos(deadline_ns=50_000_000))
    writer.write(HEADER + b"once")
    assert waitset.wait(2 * 10**9) == [hasty.handle]
    assert hasty.take_status("requested_deadline_missed").total_count >= 1


def test_sending_images_does_not_make_the_kernel_clear_pages(participant):
    """Freed memory is kept for the next image: fresh pages cost three times what sending does."""
    resource = pytest.importorskip("resource")
    pixels = bytearray(921_600)
    qos = dds.EndpointQos(reliable=False, depth=1)
    writer = participant.create_writer("rt/x", STRING, qos)
    reader = participant.create_reader("rt/x", STRING, qos)

    def faults(count):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(count):
            writer.write(HEADER + pixels)
            reader.take(1)
        return (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / count

    faults(10)
    assert faults(50) < 60  # an image has 225 pages
