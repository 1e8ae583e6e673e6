"""The words that the model is trained on, and those kept apart to test it.

`sample` draws an instruction for a colour from a grammar: some hundred phrasings, times articles,
nouns, politeness, case and punctuation, times mentions of other colours ("the red cube, not the
blue one") that stop the model from obeying any colour word it meets. `with_unknown_words` then
replaces or inserts words that no vocabulary knows, because people use words that no grammar lists.

`no_target` draws what names no cube of the scene: greetings, "stop", other colours and objects,
"do not touch the red cube", unknown words alone. The policy learns to hold still then.

`HELD_OUT_PHRASINGS` and `HELD_OUT_NO_TARGET` are never used in training: each has a word that the
grammar never uses to ask for a cube ("hand me"), or lacks.
"""

import random
import re

from tokenizers import Regex, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.normalizers import Lowercase, Replace, Sequence, Strip
from tokenizers.pre_tokenizers import WhitespaceSplit

COLOURS = ("red", "green", "blue")
NO_TARGET = len(COLOURS)
"""What an instruction means that names no cube of the scene; else it is an index of `COLOURS`."""

TOKENS = 16
"""Words that the model reads; the policy refuses longer instructions."""

PAD, UNKNOWN = "<pad>", "<unk>"

HELD_OUT_PHRASINGS = (
    "fetch the {colour} block",
    "could you hand me the {colour} one please",
    "retrieve that {colour} thing over there",
    "I think we shall use the {colour} brick next",
    "collect the {colour} cube, not the {other} one",
    "let us see the {colour} cube up in the air",
    "hold the {colour} box above the table",
    "leave the {other} cube, snatch the {colour} cube",
)
"""Templates with `{colour}`, some with `{other}`, for tests and evaluation only."""

HELD_OUT_NO_TARGET = (
    "good evening everybody",
    "fetch the turquoise block",
    "could you hand me the beige one please",
    "raise the violet cube, not the {colour} one",
    "do not fetch the {colour} brick",
    "please do not ever touch that {colour} thing",
    "leave the {colour} cube exactly where it lies",
    "lift the lamp",
    "retrieve the cube",
    "magenta",
    "stop moving immediately",
    "tell me a joke",
    "do not remove anything",
    "flurb gronk zibble",
)
"""Templates, some with `{colour}`, that ask for no cube; for tests and evaluation only."""

_NOUNS = ("cube", "block", "box", "brick", "one", "object", "piece")
_ARTICLES = ("the", "the", "the", "the", "that", "this", "a", "")
_VERBS = (
    "pick up", "pick", "grab", "lift", "lift up", "take", "get", "get me", "bring me", "give me",
    "pass me", "raise", "choose", "select", "grasp", "grip", "catch", "go for", "go and get",
    "pull up", "go to", "move to",
)  # fmt: skip
_SPLIT_VERBS = (("pick", "up"), ("lift", "up"), ("take", "up"), ("raise", "up"), ("get", "up"))
_STATEMENTS = (
    "i want {it}", "i need {it}", "i would like {it}", "we need {it}", "i want you to {verb} {it}",
    "i would like you to {verb} {it}", "you should {verb} {it}", "your target is {it}",
    "the target is {it}", "your task is to {verb} {it}", "{it} is what i want",
    "{it} is the target",
    "find {it} and {verb} it", "go to {it} and {verb} it", "see {it} {verb} it", "{verb} only {it}",
    "try to {verb} {it}", "it is time to {verb} {it}", "{it}", "it has to be {it}",
    "{verb} {it} from the table", "{verb} {it} off the table", "now it is {it}",
)  # fmt: skip
_OPENINGS = (
    "please", "now", "ok", "robot", "hey robot", "can you", "could you", "would you", "will you",
    "can you please", "could you please", "next", "then", "quickly", "just", "and now", "first",
)  # fmt: skip
_CLOSINGS = (
    "please", "now", "for me", "for me please", "thanks", "thank you", "with the gripper",
    "and lift it", "and lift it up", "and hold it", "and raise it", "quickly", "next",
    "off the table",
    "from the table", "carefully", "if you can",
)  # fmt: skip
# Mentions of cubes that are not meant: after or before the request.
_ASIDES_AFTER = (
    "not {other}", "and not {other}", "but not {other}", "leave {other}", "leave {other} alone",
    "and leave {other}", "and leave {other} where it is", "ignore {other}", "and ignore {other}",
    "instead of {other}", "never {other}", "do not touch {other}", "don't touch {other}",
    "without touching {other}", "next to {other}", "near {other}", "beside {other}",
    "forget {other}", "avoid {other}", "not {other} or {third}", "neither {other} nor {third}",
    "leave {other} and {third}", "ignore {other} and {third}",
)  # fmt: skip
_ASIDES_BEFORE = (
    "leave {other}", "leave {other} alone", "not {other}", "ignore {other}", "ignore {other} and",
    "forget {other}", "instead of {other}", "do not take {other}", "don't take {other}",
    "do not pick up {other}", "don't pick up {other} but", "do not touch {other}",
    "not {other} but",
    "avoid {other}", "without touching {other}", "leave {other} and", "leave {other} and {third}",
    "not {other} or {third}", "{request} {other} no wait", "{request} {other} sorry i mean",
    "{request} {other} no",
)  # fmt: skip
# Words without which an instruction that mentions two colours loses its meaning.
_CUES = frozenset(
    {
        "not", "leave", "alone", "ignore", "instead", "never", "dont", "forget", "avoid", "without",
        "touch", "touching", "next", "near", "beside", "neither", "nor", "no", "wait", "sorry",
        "mean", "but", "do", "take", "pick", "stop", "stay", "away", "hands", "off",
        "and", "or", "is", "what", "want", "target",
    }
)  # fmt: skip
# Shares of the instructions that name the object by its colour alone, that begin with an opening
# and that end with a closing.
_BARE, _OPENED, _CLOSED = 0.07, 0.3, 0.3
# And those that also mention a cube that is not meant, half of them before the request.
_ASIDE = 0.3
_BEFORE = 0.5

_FOREIGN_COLOURS = (
    "yellow", "purple", "orange", "black", "white", "pink", "brown", "grey", "gray", "cyan",
    "gold", "silver",
)  # fmt: skip
_STRANGE_COLOURS = (*_FOREIGN_COLOURS, *[UNKNOWN] * 4)
_FOREIGN_OBJECTS = (
    "table", "robot", "gripper", "arm", "ball", "bottle", "cup", "mug", "plate", "pen", "banana",
    "apple", "book", "camera", "chair", "phone", "spoon", "hand",
)  # fmt: skip
# A cube, but which?
_UNNAMED = (
    "it", "one", "something", "anything", "a cube", "the cube", "the block", "any cube", "this",
    "that", "that one", "the other one", "one of them", "the object", "the cubes", "all cubes",
)  # fmt: skip
_NEGATIONS = (
    "do not {verb} {it}", "don't {verb} {it}", "never {verb} {it}", "do not touch {it}",
    "don't touch {it}", "never touch {it}", "not {it}", "no not {it}", "leave {it}",
    "leave {it} alone", "leave {it} where it is", "ignore {it}", "avoid {it}", "forget {it}",
    "stop do not {verb} {it}", "you must not {verb} {it}", "you should not {verb} {it}",
    "i do not want {it}", "i do not want you to {verb} {it}", "{it} is not the target",
    "{it} is not what i want", "do not go near {it}", "stay away from {it}", "do not move {it}",
    "stop {it}", "hands off {it}", "do not {verb} {it} or {other}", "neither {it} nor {other}",
    "leave {it} and {other}", "ignore {it} and {other}", "not {it} or {other}",
    "do not touch {it} or {other}", "do not {verb} {it} do nothing", "wait do not {verb} {it}",
)  # fmt: skip
_NO_REQUESTS = (
    "hello", "hi", "hi there", "hey", "good morning", "good day", "how are you", "bye", "goodbye",
    "good night", "thanks", "thank you", "thank you very much", "well done", "good", "yes", "no",
    "ok", "sorry", "please", "what is this", "what is your name", "who are you", "help",
    "what can you do", "where are you", "can you see", "test", "what do you see", "stop",
    "stop now", "stop it", "wait", "wait for me", "hold on", "hold still", "stand still", "pause",
    "freeze", "halt", "cancel", "abort", "stay", "stay there", "stay where you are", "do not move",
    "don't move", "never move", "do nothing", "nothing", "rest", "sleep", "not now", "no thanks",
    "never mind", "go home", "go away", "move", "go", "up", "down", "left", "right", "open",
    "close", "open the gripper", "close the gripper", "wave", "turn around", "do not {verb}",
    "don't {verb} anything", "do not {verb} anything", "do not {verb} any cube",
    "do not pick anything up", "do not touch anything", "do not touch any of them",
    "{verb} nothing", "{verb} none of them", "leave everything", "leave all cubes alone",
    "leave everything where it is", "leave them alone", "leave the table", "ignore everything",
    "ignore all cubes", "{verb}", "please {verb}", "can you {verb}",
)  # fmt: skip
_MANNERS = ("please", "now", "robot", "ok", "thanks", "for me", "just")
# A foreign colour is mentioned, as what is not meant, in this share of the asides.
_FOREIGN_ASIDE = 0.35


def _cube(rng: random.Random, colour: str) -> str:
    return " ".join(w for w in (rng.choice(_ARTICLES), colour, rng.choice(_NOUNS)) if w)


def _named(rng: random.Random, colour: str) -> str:
    return colour if rng.random() < _BARE else _cube(rng, colour)


def _request(rng: random.Random, it: str) -> str:
    """Return a request without asides, for example 'could you pick the red block up now'."""
    kind = rng.choices(("verb", "split", "statement"), weights=(55, 10, 35))[0]
    if kind == "verb":
        text = f"{rng.choice(_VERBS)} {it}"
    elif kind == "split":
        verb, particle = rng.choice(_SPLIT_VERBS)
        text = f"{verb} {it} {particle}"
    else:
        text = rng.choice(_STATEMENTS).format(it=it, verb=rng.choice(_VERBS))
    if rng.random() < _OPENED:
        text = f"{rng.choice(_OPENINGS)} {text}"
    if rng.random() < _CLOSED:
        text = f"{text} {rng.choice(_CLOSINGS)}"
    return text


def _with_aside(rng: random.Random, colour: str, text: str) -> str:
    """Add the mention of another cube, or two, that are not meant."""
    other, third = rng.sample([c for c in COLOURS if c != colour], 2)
    if rng.random() < _FOREIGN_ASIDE:
        other = rng.choice([c for c in _STRANGE_COLOURS if c != colour])
    fields = {
        "other": _named(rng, other),
        "third": _named(rng, third),
        "request": rng.choice(_VERBS),
    }
    pause = rng.choice((", ", " "))
    if rng.random() < _BEFORE:
        return rng.choice(_ASIDES_BEFORE).format(**fields) + pause + text
    return text + pause + rng.choice(_ASIDES_AFTER).format(**fields)


def _styled(rng: random.Random, text: str) -> str:
    """Vary what a tokenizer must undo: case and the final punctuation."""
    style = rng.choices((str.lower, str.capitalize, str.upper), weights=(75, 20, 5))[0]
    return style(text) + rng.choice(("", "", "", ".", "!", "?"))


def words(text: str) -> list[str]:
    """Return the words as the tokenizer splits them: lower case, without punctuation."""
    return re.sub(r"[^\w\s<>]", " ", text.lower().replace("'", "")).split()


def sample(rng: random.Random, colour: str, aside: float = _ASIDE) -> str:
    """Return a random instruction to pick the cube of a colour, at most `TOKENS` words long.

    Args:
        rng: Source of randomness.
        colour: One of `COLOURS`.
        aside: Share of instructions that also mention a cube that is not meant.

    """
    while True:
        text = _request(rng, _named(rng, colour))
        if rng.random() < aside:
            text = _with_aside(rng, colour, text)
        if len(words(text)) <= TOKENS:
            return _styled(rng, text)


def _negation(rng: random.Random) -> str:
    """Return a request to leave a cube, or two, alone."""
    it, other = rng.sample(COLOURS, 2)
    if rng.random() < _FOREIGN_ASIDE:
        it = rng.choice(_FOREIGN_COLOURS)
    text = rng.choice(_NEGATIONS).format(
        it=_named(rng, it), other=_named(rng, other), verb=rng.choice(_VERBS)
    )
    return _mannered(rng, text)


def _mannered(rng: random.Random, text: str) -> str:
    if rng.random() < _OPENED:
        text = f"{rng.choice(_MANNERS)} {text}"
    if rng.random() < _CLOSED:
        text = f"{text} {rng.choice(_MANNERS)}"
    return text


def _foreign(rng: random.Random) -> str:
    """Return a request for a cube of a colour that is not there."""
    colour = rng.choice(_STRANGE_COLOURS)
    if rng.random() < _BARE:
        return colour
    text = _request(rng, _named(rng, colour))
    return _with_aside(rng, colour, text) if rng.random() < _ASIDE else text


def _unclear(rng: random.Random) -> str:
    """Return a request for something else than a cube, or for a cube without saying which."""
    if rng.random() < _BEFORE:
        return _request(rng, rng.choice(_UNNAMED))
    thing = rng.choice(_FOREIGN_OBJECTS)
    if rng.random() < _FOREIGN_ASIDE:
        thing = f"{rng.choice(_FOREIGN_COLOURS)} {thing}"
    return _request(rng, f"{rng.choice(_ARTICLES)} {thing}")


def no_target(rng: random.Random) -> str:
    """Return a random instruction that names no cube of the scene, at most `TOKENS` words long."""
    kinds = (_negation, _foreign, _unclear, lambda r: _mannered(r, _no_request(r)), _unknown_only)
    while True:
        text = rng.choices(kinds, weights=(30, 25, 20, 18, 7))[0](rng)
        if len(words(text)) <= TOKENS:
            return _styled(rng, text)


def _no_request(rng: random.Random) -> str:
    return rng.choice(_NO_REQUESTS).format(verb=rng.choice(_VERBS))


def _unknown_only(rng: random.Random) -> str:
    return " ".join([UNKNOWN] * rng.randint(1, TOKENS))


def with_unknown_words(rng: random.Random, text: str, rate: float) -> str:
    """Replace words by, and insert, words that no vocabulary knows.

    Colours and the cues that tell which colour is meant stay, so the meaning stays too.

    Args:
        rng: Source of randomness.
        text: The instruction.
        rate: Chance of each other word to be replaced; half of it, of one inserted before a word.

    """
    result: list[str] = []
    for word in words(text):
        if rng.random() < rate / 2 and len(result) < TOKENS // 2:
            result.append(UNKNOWN)
        keep = word in COLOURS or word in _FOREIGN_COLOURS or word in _CUES
        result.append(word if keep or rng.random() >= rate else UNKNOWN)
    return " ".join(result) if len(result) <= TOKENS else text


def training_instruction(rng: random.Random, colour: str | None) -> str:
    """Return an instruction as training sees it: a third of them with unknown words.

    Args:
        rng: Source of randomness.
        colour: One of `COLOURS`, or None for an instruction that names no cube of the scene.

    """
    text = no_target(rng) if colour is None else sample(rng, colour)
    rate = rng.choices((0.0, 0.25, 0.8), weights=(65, 25, 10))[0]
    return with_unknown_words(rng, text, rate) if rate else text


def held_out(rng: random.Random, colour: str) -> str:
    """Return an instruction of a phrasing never used in training."""
    other = rng.choice([c for c in COLOURS if c != colour])
    return rng.choice(HELD_OUT_PHRASINGS).format(colour=colour, other=other)


def held_out_no_target(rng: random.Random) -> str:
    """Return an instruction that names no cube of the scene, never used in training."""
    return rng.choice(HELD_OUT_NO_TARGET).format(colour=rng.choice(COLOURS))


def vocabulary() -> list[str]:
    """Return every word of the grammar, sorted, after `PAD` and `UNKNOWN`."""
    texts = [
        *_NOUNS, *_ARTICLES, *_VERBS, *_STATEMENTS, *_OPENINGS, *_CLOSINGS, *_ASIDES_AFTER,
        *_ASIDES_BEFORE, *(" ".join(pair) for pair in _SPLIT_VERBS), *COLOURS,
        *_FOREIGN_COLOURS, *_FOREIGN_OBJECTS, *_UNNAMED, *_NEGATIONS, *_NO_REQUESTS, *_MANNERS,
    ]  # fmt: skip
    found = {word for text in texts for word in words(re.sub(r"\{\w+\}", " ", text))}
    return [PAD, UNKNOWN, *sorted(found)]


def build_tokenizer() -> Tokenizer:
    """Return the tokenizer of the grammar: one number a word, padded and cut to `TOKENS`."""
    tokenizer = Tokenizer(
        WordLevel({word: i for i, word in enumerate(vocabulary())}, unk_token=UNKNOWN)
    )
    tokenizer.normalizer = Sequence(
        [Lowercase(), Replace("'", ""), Replace(Regex(r"[^\w\s<>]"), " "), Strip()]
    )
    tokenizer.pre_tokenizer = WhitespaceSplit()
    tokenizer.enable_truncation(TOKENS)
    tokenizer.enable_padding(length=TOKENS, pad_id=0, pad_token=PAD)
    return tokenizer
