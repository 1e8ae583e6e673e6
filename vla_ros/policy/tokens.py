"""The instruction as the numbers that a model takes."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from vla_ros.policy.manifest import BundleError, Instruction


class InstructionError(ValueError):
    """An instruction does not fit the model."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """A tokenised instruction.

    Attributes:
        ids: int64, shape (1, length), padded.
        mask: bool, shape (1, length): False where `ids` is padding.
        unknown: Words that the model has never seen, which it cannot understand.

    """

    ids: NDArray[np.int64]
    mask: NDArray[np.bool_]
    unknown: tuple[str, ...]


def never_seen(words: Iterable[str]) -> str:
    """Return the warning of an instruction's `unknown` words."""
    return f"the model has never seen {', '.join(map(repr, words))}, and ignores it"


class InstructionEncoder:
    """Turns instructions into tokens, and remembers the last, which is asked for every chunk."""

    def __init__(self, file: Path, instruction: Instruction) -> None:
        """Read the tokenizer.

        Args:
            file: JSON of the `tokenizers` library.
            instruction: What the manifest says of it.

        Raises:
            BundleError: If the file is no tokenizer, or lacks a token that is needed.

        """
        try:
            tokenizer = Tokenizer.from_file(str(file))
        except Exception as err:
            msg = f"{file}: instruction.tokenizer: is no tokenizer: {err}"
            raise BundleError(msg) from err
        needed = {"pad_token": instruction.pad_token, "unknown_token": instruction.unknown_token}
        for key, token in needed.items():
            if token is not None and tokenizer.token_to_id(token) is None:
                msg = f"{file}: instruction.{key}: the tokenizer has no token {token!r}"
                raise BundleError(msg)
        # Cut off, an instruction may mean something else; too long, it is an error here.
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer = tokenizer
        self._length, self._suffix = instruction.length, instruction.suffix
        self._pad = tokenizer.token_to_id(instruction.pad_token)
        self._unknown = (
            None
            if instruction.unknown_token is None
            else tokenizer.token_to_id(instruction.unknown_token)
        )
        self._last: tuple[str, Tokens] | None = None

    def __call__(self, text: str) -> Tokens:
        """Return the tokens of `text`.

        Raises:
            InstructionError: If it is too long.

        """
        if self._last is None or self._last[0] != text:
            self._last = (text, self._encode(text))
        return self._last[1]

    def _encode(self, text: str) -> Tokens:
        encoding = self._tokenizer.encode(text + self._suffix)
        count = len(encoding.ids)
        if count > self._length:
            msg = (
                f"the instruction has {count} words, but the model takes at most {self._length}: "
                "say it in fewer"
            )
            raise InstructionError(msg)
        ids = np.full((1, self._length), self._pad, np.int64)
        ids[0, :count] = encoding.ids
        words = [
            text[begin:end]
            for token, (begin, end) in zip(encoding.ids, encoding.offsets, strict=True)
            if token == self._unknown
        ]
        return Tokens(ids, np.arange(self._length)[None] < count, tuple(words))
