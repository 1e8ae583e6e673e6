"""camera_node, as a process: any camera's images come out as the bundle wants them."""

import signal
import time

import cv2
import numpy as np
import pytest
from builtin_interfaces.msg import Time
from node_process import SENSOR, NodeProcess, TestNode, claim_domain, wait_for
from sensor_msgs.msg import CompressedImage, Image

from bundles import make_bundle
from vla_ros.observation.image import fit_image

DOMAIN = claim_domain()
_random = np.random.default_rng(0)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return make_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture
def graph():
    graph = TestNode(DOMAIN)
    for camera in ("front", "wrist"):
        graph.listen(Image, f"observation/{camera}", SENSOR)
    yield graph
    graph.close()


@pytest.fixture
def start(bundle, tmp_path):
    processes = []

    def start_node(*arguments, path=bundle.path):
        process = NodeProcess("camera_node", tmp_path, DOMAIN, "-p", f"bundle:={path}", *arguments)
        processes.append(process)
        return process

    yield start_node
    for process in processes:
        process.close()


class Camera:
    """Publishes images as a driver does."""

    def __init__(self, graph, name, *, compressed=False):
        kind = CompressedImage if compressed else Image
        topic = f"{name}/image_raw" + ("/compressed" if compressed else "")
        self.publisher = graph.node.create_publisher(kind, topic, SENSOR)
        self.graph = graph
        self.name = name

    def connect(self):
        """Send until something comes back: only then has everybody found everybody."""
        wait_for(lambda: self.publisher.get_subscription_count() > 0)

        def comes_back():
            self.send(np.zeros((160, 160, 3), np.uint8))
            time.sleep(0.05)
            return self.graph.messages(f"observation/{self.name}")

        wait_for(comes_back)

    def send(self, pixels, encoding="rgb8", *, padding=0, stamp=None, step=None):
        rows = np.pad(pixels.reshape(len(pixels), -1), ((0, 0), (0, padding)))
        message = Image(
            height=pixels.shape[0],
            width=pixels.shape[1],
            encoding=encoding,
            step=rows.shape[1] if step is None else step,
            data=rows.tobytes(),
        )
        return self.publish(message, stamp)

    def publish(self, message, stamp=None):
        message.header.stamp = stamp or self.graph.node.get_clock().now().to_msg()
        message.header.frame_id = f"{self.name}_optical_frame"
        self.publisher.publish(message)
        return message.header

    def result(self, header):
        """Return the observation that keeps this header."""

        def find():
            for message in self.graph.messages(f"observation/{self.name}"):
                if message.header.stamp == header.stamp:
                    return message
            return None

        return wait_for(find, 5.0)


def pixels_of(message):
    assert message.encoding == "rgb8"
    assert message.step == 3 * message.width
    return np.frombuffer(bytes(message.data), np.uint8).reshape(message.height, message.width, 3)


def test_every_encoding_becomes_the_bundles_rgb_with_its_stamp(start, graph, bundle):
    camera = Camera(graph, "front")
    graph.start()
    start()
    camera.connect()
    rgb = _random.integers(0, 256, (120, 160, 3), np.uint8)
    alpha = np.zeros((120, 160, 1), np.uint8)
    expected = fit_image(rgb, bundle.camera("front").image)
    for encoding, pixels in {
        "rgb8": rgb,
        "bgr8": rgb[..., ::-1],
        "rgba8": np.concatenate([rgb, alpha], 2),
        "bgra8": np.concatenate([rgb[..., ::-1], alpha], 2),
    }.items():
        for padding in (0, 32):
            header = camera.send(pixels, encoding, padding=padding)
            message = camera.result(header)
            np.testing.assert_array_equal(pixels_of(message), expected)
            assert message.header.frame_id == "front_optical_frame"
    header = camera.send(np.ascontiguousarray(rgb[..., :1]), "mono8", padding=5)
    grey = np.repeat(rgb[..., :1], 3, axis=2)
    expected = fit_image(grey, bundle.camera("front").image)
    np.testing.assert_array_equal(pixels_of(camera.result(header)), expected)


def test_the_simulators_images_pass_bit_for_bit(start, graph):
    front, wrist = Camera(graph, "front"), Camera(graph, "wrist")
    graph.start()
    start()
    front.connect()
    wrist.connect()
    image = _random.integers(0, 256, (160, 160, 3), np.uint8)
    observed = pixels_of(front.result(front.send(image)))
    np.testing.assert_array_equal(observed, image[44:140, 32:128])
    image = image[:96, :96]
    observed = pixels_of(wrist.result(wrist.send(image)))
    np.testing.assert_array_equal(observed, image[:80])


def test_compressed_images(start, graph):
    camera = Camera(graph, "wrist", compressed=True)
    graph.start()
    start("-p", "transport:=compressed", "-p", "cameras:=['wrist']")
    rgb = _random.integers(0, 256, (96, 96, 3), np.uint8)
    png = cv2.imencode(".png", np.ascontiguousarray(rgb[..., ::-1]))[1].tobytes()

    def comes_back():
        camera.publish(CompressedImage(format="png", data=png))
        time.sleep(0.05)
        return graph.messages("observation/wrist")

    observed = wait_for(comes_back)[0]
    np.testing.assert_array_equal(pixels_of(observed), rgb[:80])
    camera.publish(CompressedImage(format="jpeg", data=b"broken"))
    wait_for(lambda: "no readable JPEG or PNG" in graph.diagnosis("camera_node"))


def test_a_bad_image_is_named_and_the_next_good_one_passes(start, graph):
    camera = Camera(graph, "front")
    graph.start()
    process = start("-p", "cameras:=['front']")
    camera.connect()
    image = _random.integers(0, 256, (160, 160, 3), np.uint8)
    camera.send(image, "32FC1")
    wait_for(lambda: "encoding '32FC1' is not supported" in graph.diagnosis("camera_node"))
    assert "front/image_raw: frame dropped" in process.output
    camera.send(image, step=479)
    wait_for(lambda: "step is 479 bytes" in graph.diagnosis("camera_node"))
    camera.result(camera.send(image))
    wait_for(lambda: graph.diagnosis("camera_node").startswith("all cameras deliver"))
    assert "front dropped undecodable: 2" in graph.diagnosis("camera_node")


def test_late_and_duplicate_frames_are_counted_and_dropped(start, graph):
    camera = Camera(graph, "front")
    graph.start()
    start()
    camera.connect()
    image = _random.integers(0, 256, (160, 160, 3), np.uint8)
    header = camera.send(image)
    camera.result(header)
    passed = len(graph.messages("observation/front"))
    camera.send(image, stamp=header.stamp)
    camera.send(image, stamp=Time(sec=header.stamp.sec - 1, nanosec=header.stamp.nanosec))
    camera.result(camera.send(image))
    wait_for(lambda: "front dropped duplicate: 1" in graph.diagnosis("camera_node"))
    assert "front dropped out-of-order: 1" in graph.diagnosis("camera_node")
    assert len(graph.messages("observation/front")) == passed + 1


def test_a_silent_camera_is_named(start, graph):
    camera = Camera(graph, "front")
    graph.start()
    start()
    camera.connect()
    wait_for(lambda: "no frames on wrist/image_raw" in graph.diagnosis("camera_node"), 5.0)
    wait_for(lambda: "no frames on front/image_raw" in graph.diagnosis("camera_node"), 5.0)
    assert "front published: 0" not in graph.diagnosis("camera_node")


def test_namespaces_and_remaps_apply(start, graph):
    camera = Camera(graph, "/left/cam/front")
    graph.listen(Image, "/left/observation/front", SENSOR)
    graph.start()
    remaps = ("-r", "__ns:=/left", "-r", "front/image_raw:=cam/front/image_raw")
    start("-p", "cameras:=['front']", *remaps)

    def comes_back():
        camera.send(np.zeros((160, 160, 3), np.uint8))
        time.sleep(0.05)
        return graph.messages("/left/observation/front")

    wait_for(comes_back)
    wait_for(lambda: graph.diagnosis("left/camera_node"), 5.0)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-p", "bundle:=/nowhere"], "there is no bundle at /nowhere"),
        (["-p", "cameras:=['rear']"], "camera 'rear' is unknown to the bundle"),
        (["-p", "transport:=carrier_pigeon"], "'transport' is 'carrier_pigeon'"),
        (["--params-file", "/nowhere.yaml"], "/nowhere.yaml"),
        (["--no-such-flag"], "--no-such-flag"),
    ],
)
def test_what_cannot_work_ends_at_once_with_one_line_that_says_why(start, arguments, words):
    process = start(*arguments)
    assert process.wait() == 1
    assert words in process.output
    assert len([line for line in process.log_lines if "[FATAL]" in line]) == 1, process.output
    assert "Traceback" not in process.output


def test_a_domain_that_cannot_be_had_is_named(tmp_path):
    process = NodeProcess("camera_node", tmp_path, 999)
    assert process.wait() == 1
    assert "cannot start: RCLError" in process.log_lines[-1]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_cleanly(start, number):
    process = start()
    wait_for(lambda: "cameras front, wrist" in process.output)
    time.sleep(0.3)  # in which it begins to spin
    begin = time.monotonic()
    assert process.interrupt(number) == 0
    assert time.monotonic() - begin < 3.0
    assert "Traceback" not in process.output
