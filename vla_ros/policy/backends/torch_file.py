"""What a torch.export file holds, looked at before torch reads it.

`torch.export.load` is not safe with a file from elsewhere: it unpickles tensors that say so and
sample inputs that do not load otherwise, looks operators up by dotted names from `torch` on
(`torch.os.system` is one), and has SymPy evaluate shapes. Each of these is refused here, in the
very records that torch then reads, so that what passes is weights and a graph of ATen's operators.
"""

import io
import json
import re
from pathlib import Path
from typing import Any

from vla_ros.policy.manifest import BundleError

_MODEL = "models/model.json"
_SAMPLES = "data/sample_inputs/model.pt"
_CONFIGS = ("data/weights/model_weights_config.json", "data/constants/model_constants_config.json")
_PLAIN_RECORDS = re.compile(
    r"models/model\.json|data/sample_inputs/model\.pt|archive_format|archive_version|byteorder"
    r"|\.data/(version|serialization_id)"
    r"|data/weights/(weight_\d+|model_weights_config\.json)"
    r"|data/constants/(tensor_\d+|model_constants_config\.json)"
)
_COMPILED = "data/aotinductor/"
_OPERATOR = re.compile(
    r"torch\.ops\.(aten|prims)\.[A-Za-z0-9_]+\.[A-Za-z0-9_]+"
    r"|torch\.ops\.higher_order\.wrap_with_(set_grad_enabled|autocast)"
    r"|_operator\.(add|sub|mul|floordiv|truediv|mod|neg|pow|getitem|eq|ne|lt|le|gt|ge|and_|or_)"
    r"|math\.(ceil|floor|trunc)|torch\.sym_(int|float|ite|max|min|not|sum)"
)
# ATen's own operators that read or write a file.
_FILE_OPERATORS = re.compile(r"torch\.ops\.aten\.(from_file|_?save|_?load)\b.*")
# SymPy would call any of Python's own functions: `eval(chr(95) + ...)` needs no other characters.
_EXPRESSION = re.compile(
    r"(?=.{1,1000}$)(?!.*\*\*)"
    r"(\d|[a-z]{1,3}\d|Symbol\('[a-z]{1,3}\d+'(, [a-z]+=(True|False))*\)"
    r"|(Add|Mul|Integer|Max|Min|Mod|PythonMod|FloorDiv|CeilDiv|CleanDiv)\(|[ +*/(),-])+"
)


def is_compiled(file: Path) -> bool:
    """Return whether a file is an AOTInductor package, which is machine code.

    Raises:
        BundleError: If it is no archive of torch's at all.

    """
    return any(name.startswith(_COMPILED) for name in _reader(file).get_file_names())


def check_program(file: Path) -> None:
    """Refuse an exported program whose loading or running could do more than compute.

    Raises:
        BundleError: Saying what it holds.

    """
    import torch  # noqa: PLC0415

    reader = _reader(file)
    names = reader.get_file_names()
    for name in names:
        if not _PLAIN_RECORDS.fullmatch(name):
            _refuse(file, f"it holds {name!r:.100}, which is no weights and no graph")
    for name in (_MODEL, _SAMPLES, *_CONFIGS):
        if name not in names:
            _refuse(file, f"it lacks {name!r}")
    for name in _CONFIGS:
        _walk(file, _json(file, reader, name))
    _walk(file, _json(file, reader, _MODEL))
    samples = reader.read_bytes(_SAMPLES)
    if samples:
        try:
            # As torch will, but without its second try with every pickle.
            torch.load(io.BytesIO(samples), weights_only=True)
        except Exception as err:  # noqa: BLE001 - whatever a pickle may raise
            first = str(err).strip().splitlines()[:1] or [type(err).__name__]
            _refuse(file, f"its sample inputs are no plain tensors: {first[0]}")


def _reader(file: Path) -> Any:  # noqa: ANN401 - torch has no types here
    from torch.export.pt2_archive._package import PT2ArchiveReader  # noqa: PLC0415

    try:
        return PT2ArchiveReader(str(file))
    except Exception as err:
        msg = f"{file}: is no .pt2 file of torch.export.save (torch 2.9 or newer): export it again"
        raise BundleError(msg) from err


def _json(file: Path, reader: Any, name: str) -> object:  # noqa: ANN401
    try:
        return json.loads(reader.read_string(name))
    except (ValueError, RuntimeError, RecursionError):
        _refuse(file, f"its {name!r} cannot be read")
        raise  # Not reached; the checker does not know.


def _walk(file: Path, content: object) -> None:
    """Look through nested dicts and lists for what torch would resolve or evaluate."""
    stack = [content]
    while stack:
        part = stack.pop()
        if isinstance(part, list):
            stack.extend(part)
        elif isinstance(part, dict):
            stack.extend(part.values())
            if part.get("use_pickle"):
                _refuse(file, "it holds a pickled tensor")
            target = part.get("target")
            if isinstance(target, str) and "inputs" in part:
                if not _is_plain_operator(target):
                    _refuse(file, f"its graph calls {target!r:.100}")
            elif target is not None and "inputs" in part:
                _refuse(file, "its graph calls what is not named")
            # Some operators call another that they are given.
            given = part.get("as_operator")
            if given is not None and not (isinstance(given, str) and _is_plain_operator(given)):
                _refuse(file, f"its graph calls {given!r:.100}")
            expression = part.get("expr_str")
            if expression is not None and not (
                isinstance(expression, str) and _EXPRESSION.fullmatch(expression)
            ):
                _refuse(file, f"a length in it is {expression!r:.100}")


def _is_plain_operator(name: str) -> bool:
    return bool(_OPERATOR.fullmatch(name)) and not _FILE_OPERATORS.fullmatch(name)


def _refuse(file: Path, why: str) -> None:
    msg = (
        f"{file}: {why}: only plain exported programs are opened; export the model again with "
        "torch.export, or to ONNX"
    )
    raise BundleError(msg)
