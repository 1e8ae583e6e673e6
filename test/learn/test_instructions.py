"""Instructions mean one colour, vary, and leave what is held out to the tests."""

import random

import pytest

from vla_ros.learn.instructions import (
    COLOURS,
    HELD_OUT_NO_TARGET,
    HELD_OUT_PHRASINGS,
    TOKENS,
    build_tokenizer,
    held_out,
    held_out_no_target,
    no_target,
    sample,
    training_instruction,
    vocabulary,
    with_unknown_words,
    words,
)


def test_the_grammar_has_thousands_of_phrasings():
    rng = random.Random(0)
    found = {" ".join(words(sample(rng, "red"))) for _ in range(3000)}
    assert len(found) > 2000


def test_every_instruction_names_its_colour_and_fits_the_model():
    rng = random.Random(1)
    for index in range(2000):
        colour = COLOURS[index % 3]
        spoken = words(training_instruction(rng, colour))
        assert colour in spoken
        assert len(spoken) <= TOKENS


def test_some_instructions_mention_a_cube_that_is_not_meant():
    rng = random.Random(2)
    others = sum("blue" in words(sample(rng, "red")) for _ in range(1000))
    assert 100 < others < 400


def test_held_out_phrasings_cannot_come_from_the_grammar():
    # Each has a word that no instruction of its kind has, so no draw can ever be the same.
    rng = random.Random(9)
    said = {word for _ in range(20_000) for word in words(sample(rng, "red", aside=0.5))}
    assert len(HELD_OUT_PHRASINGS) >= 6
    for phrasing in HELD_OUT_PHRASINGS:
        assert set(words(phrasing.format(colour="red", other="blue"))) - said, phrasing
    assert len(HELD_OUT_NO_TARGET) >= 6
    for phrasing in HELD_OUT_NO_TARGET:
        assert set(words(phrasing.format(colour="red"))) - set(vocabulary()), phrasing


def test_held_out_instructions_name_the_colour_and_no_field_is_left():
    rng = random.Random(3)
    for colour in COLOURS:
        for _ in range(50):
            text = held_out(rng, colour)
            assert colour in words(text)
            assert "{" not in text


def test_no_target_instructions_vary_and_some_mention_cubes_or_colours_that_are_not_there():
    rng = random.Random(5)
    found = [words(no_target(rng)) for _ in range(2000)]
    assert len({" ".join(spoken) for spoken in found}) > 1000
    assert all(0 < len(spoken) <= TOKENS for spoken in found)
    for word in ("red", "yellow", "hello", "stop", "table"):
        assert any(word in spoken for spoken in found), word


def test_whoever_names_a_cube_and_asks_for_none_says_so():
    # A colour of the scene comes only with a negation, or as an aside to something else.
    rng = random.Random(6)
    cues = {"not", "dont", "never", "leave", "ignore", "avoid", "forget", "stop", "away", "hands",
            "neither", "instead", "without", "next", "near", "beside", "no", "sorry"}  # fmt: skip
    for _ in range(2000):
        spoken = words(no_target(rng))
        assert not set(spoken) & set(COLOURS) or set(spoken) & cues, spoken


def test_held_out_no_target_instructions_are_whole():
    rng = random.Random(7)
    assert all("{" not in held_out_no_target(rng) for _ in range(100))


def test_some_asides_mention_a_colour_that_is_not_there():
    # Otherwise "yellow" alone would say that no cube is meant.
    rng = random.Random(8)
    assert any("yellow" in words(sample(rng, "red")) for _ in range(2000))


def test_unknown_words_never_replace_what_decides_the_meaning():
    rng = random.Random(4)
    for _ in range(200):
        text = with_unknown_words(rng, "leave the green one, please take the red block", 0.9)
        kept = [word for word in text.split() if word != "<unk>"]
        assert [w for w in kept if w in ("leave", "green", "red")] == ["leave", "green", "red"]


def test_the_tokenizer_ignores_case_and_punctuation():
    tokenizer = build_tokenizer()
    plain = tokenizer.encode("dont take the blue one pick up the red cube").ids
    assert tokenizer.encode("Don't take the BLUE one; pick up the red cube!").ids == plain


def test_the_tokenizer_pads_with_zero_and_knows_the_unknown():
    tokenizer = build_tokenizer()
    ids = tokenizer.encode("fetch the red cube").ids
    assert len(ids) == TOKENS
    assert ids[0] == 1
    assert ids[4:] == [0] * 12


@pytest.mark.parametrize("word", COLOURS)
def test_the_vocabulary_holds_every_colour(word):
    assert word in vocabulary()
