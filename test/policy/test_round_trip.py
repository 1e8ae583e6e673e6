"""What is written is what is read, whatever a manifest says; its JSON Schema knows each key."""

import json
import shutil

import hypothesis.strategies as st
import pytest
import yaml
from blank_bundles import DECODERS, content, hashes, write_bundle
from hypothesis import HealthCheck, given, settings

from bundles import mean_std
from vla_ros.cli import main
from vla_ros.paths import share
from vla_ros.policy.bundle import Bundle, sha256, write_manifest
from vla_ros.policy.commands.schema import json_schema
from vla_ros.policy.manifest import (
    MANIFEST,
    ROTATION_NAMES,
    BundleError,
    Manifest,
    parse_manifest,
)

REALS = st.floats(-1e12, 1e12, allow_subnormal=True)
POSITIVES = st.floats(1e-12, 1e12)
LABELS = st.text(st.characters(categories=("L", "N", "P", "S")), min_size=1, max_size=20)
TEXTS = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)
TENSOR_NAMES = st.from_regex(r"[A-Za-z0-9_./:-]{1,12}", fullmatch=True)
SOURCES = st.dictionaries(
    TEXTS, st.recursive(st.none() | st.booleans() | REALS | TEXTS, st.lists, max_leaves=5)
)


@st.composite
def normalisations(draw, count):
    values = st.lists(REALS, min_size=count, max_size=count)
    kind = draw(st.sampled_from(["identity", "mean_std", "min_max", "quantiles"]))
    if kind == "identity":
        return {"type": kind}
    if kind == "mean_std":
        deviations = st.lists(POSITIVES, min_size=count, max_size=count)
        return mean_std(draw(values), draw(deviations)) | {"eps": draw(st.floats(0.0, 1.0))}
    pairs = [sorted(pair) for pair in zip(draw(values), draw(values), strict=True)]
    low, high = {"min_max": ("min", "max"), "quantiles": ("low", "high")}[kind]
    return {"type": kind, low: [a for a, _ in pairs], high: [b for _, b in pairs]}


@st.composite
def actions(draw, action):
    """Return an action of 4 names, as the graphs' outputs have it, or of fewer, padded."""
    kind = draw(st.sampled_from(["delta_pose", "twist", "pose", "joint_position", "joint_delta"]))
    gripper = draw(st.none() | st.just(action["gripper"]))
    changed = action | {"type": kind, "gripper": gripper, "reference": None, "frame": None}
    if "delta" in kind:
        changed["reference"] = draw(st.sampled_from(["observation", "previous"]))
    if kind.startswith("joint"):
        joints = draw(st.lists(LABELS, min_size=2, max_size=3, unique=True))
        names = [name for name in joints if name != "gripper"] or ["elbow"]
    else:
        changed["frame"] = "base" if kind == "pose" else draw(st.sampled_from(["base", "tool"]))
        names = ["x", "y", "z", *ROTATION_NAMES[changed["rotation"]]]
    changed["names"] = names + ([] if gripper is None else ["gripper"])
    changed["size"] = None if len(changed["names"]) == 4 else 4
    changed["normalisation"] = draw(normalisations(len(changed["names"])))
    changed["rate_hz"] = draw(st.floats(0.1, 1000.0))
    return changed


@st.composite
def manifests(draw):
    data = content(draw(st.sampled_from(DECODERS)))
    data["name"] = draw(LABELS)
    data["source"] = draw(SOURCES)
    data["action"] = draw(actions(data["action"]))
    state = {"names": ["a", "b"], "normalisation": draw(normalisations(2)), "size": None}
    data["state"] = draw(st.sampled_from([state, state | {"size": 2}]))
    camera, inputs = data["cameras"][0], data["graphs"][0]["inputs"]
    camera["input"] = draw(TENSOR_NAMES.filter(lambda name: name not in inputs))
    shape = inputs.pop("front")
    if draw(st.booleans()):
        camera["layout"] = "nhwc"
        shape = [1, 4, 6, 3]
    if draw(st.booleans()):
        camera["type"] = "uint8"
        for key in ("scale", "mean", "std"):
            del camera[key]
    inputs[camera["input"]] = shape
    if draw(st.booleans()):
        del data["instruction"], inputs["tokens"]
    else:
        data["instruction"]["suffix"] = draw(TEXTS)
        if draw(st.booleans()):
            data["instruction"]["mask_input"] = "attention.mask"
            inputs["attention.mask"] = [1, 8]
    if draw(st.booleans()) and data["decoder"]["type"] != "flow":  # whose step takes the state
        data["history"] = {"steps": 2, "period_s": draw(POSITIVES)}
        inputs[camera["input"]] = [1, 2, *shape[1:]]
        inputs["state"] = [1, 2, 2]
    return data


@given(data=manifests())
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_what_is_written_is_what_is_read(data, tmp_path):
    folder = tmp_path / "bundle"
    shutil.rmtree(folder, ignore_errors=True)
    written = write_bundle(folder, data).manifest
    files = {name: sha256(folder / name) for name in hashes(data)}
    assert written == parse_manifest({**data, "files": files}, folder)
    # What was written holds every default, and is written again as it is, to the byte.
    text = (folder / MANIFEST).read_bytes()
    again = yaml.safe_load(text)
    del again["files"]
    assert write_manifest(folder, again).manifest == written
    assert (folder / MANIFEST).read_bytes() == text


def test_the_shipped_bundle_is_as_it_would_be_written(tmp_path):
    shipped = share() / "bundles" / "panda_pick"
    copied = tmp_path / "panda_pick"
    shutil.copytree(shipped, copied)
    data = Bundle.load(shipped).manifest.model_dump(mode="json", exclude={"files"})
    write_manifest(copied, data)
    assert (copied / MANIFEST).read_bytes() == (shipped / MANIFEST).read_bytes()


@pytest.mark.parametrize("decoder", DECODERS)
def test_a_bare_shape_has_the_type_that_is_fed(decoder):
    data = content(decoder)
    data["cameras"][0]["type"] = "uint8"
    for key in ("scale", "mean", "std"):
        del data["cameras"][0][key]
    data["instruction"]["mask_input"] = "mask"
    data["graphs"][0]["inputs"]["mask"] = [1, 8]
    manifest = parse_manifest({**data, "files": hashes(data)}, "here")
    types = {name: tensor.type for name, tensor in manifest.graphs[0].inputs.items()}
    assert types == {"front": "uint8", "state": "float32", "tokens": "int64", "mask": "bool"}
    if decoder == "action_tokens":
        assert manifest.graph("step").inputs["token"].type == "int64"


def test_the_schema_describes_every_key():
    def keys(section):
        if "$ref" in section:
            section = schema["$defs"][section["$ref"].rpartition("/")[2]]
        for choice in (section, *section.get("anyOf", ())):
            yield from choice.get("properties", {}).items()

    schema = json_schema()
    assert set(schema["properties"]) == set(Manifest.model_fields)
    assert {"name", "cameras", "graphs", "decoder", "action", "files"} <= set(schema["required"])
    for section in (schema, *schema["$defs"].values()):
        for name, key in keys(section):
            assert name == "type" or key.get("description"), (section["title"], name)


def test_the_schema_takes_what_loads_and_refuses_what_does_not(tmp_path, capsys):
    jsonschema = pytest.importorskip("jsonschema", reason="pip install jsonschema")
    out = tmp_path / "schema.json"
    assert main(["bundle", "schema", "--out", str(out)]) == 0
    assert main(["bundle", "schema"]) == 0
    schema = json.loads(out.read_text())
    assert schema == json.loads(capsys.readouterr().out.partition("\n")[2])
    check = jsonschema.Draft202012Validator(schema)
    check.check_schema(schema)
    for decoder in DECODERS:
        data = content(decoder)
        data["files"] = hashes(data)
        assert check.is_valid(data)
        del data["cameras"][0]["std"]
        assert not check.is_valid(data)
        data["cameras"][0]["type"] = "uint8"
        assert check.is_valid(data)
        data["decoder"]["speed"] = 1
        assert not check.is_valid(data)


JUNK = [None, True, -1, 0, 1e400, "", "x", "\x1b[31m", "a" * 1000, [], [[]], {}, {"type": "flow"}]


def places(data, path=()):
    """Yield where each value of nested lists and mappings is."""
    yield path
    for key in (
        data if isinstance(data, dict) else range(len(data) if isinstance(data, list) else 0)
    ):
        yield from places(data[key], (*path, key))


@given(data=st.data())
@settings(max_examples=400, deadline=None)
def test_junk_anywhere_is_refused_in_one_line_or_means_something(data):
    whole = content(data.draw(st.sampled_from(DECODERS)))
    whole["files"] = hashes(whole)
    path = data.draw(st.sampled_from([path for path in places(whole) if path]))
    section = whole
    for key in path[:-1]:
        section = section[key]
    section[path[-1]] = data.draw(st.sampled_from(JUNK))
    try:
        manifest = parse_manifest(whole, "here")
    except BundleError as err:
        line = str(err)
        assert line.isprintable()
        assert len(line) < 2000
    else:
        assert parse_manifest(manifest.model_dump(mode="json"), "here") == manifest
