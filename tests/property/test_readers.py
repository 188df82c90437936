"""Everything that reads foreign bytes: a value or the reader's own error, never anything else."""

from __future__ import annotations

import contextlib
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests import fuzz
from tests.property.test_codecs import damaged
from tests.support.fuzz_targets import TARGETS, Target

from firearrow.codec import lenient_json


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_valid_inputs_are_read(name: str) -> None:
    for data in TARGETS[name].inputs:
        TARGETS[name].feed(data)


@pytest.mark.parametrize("name", sorted(TARGETS))
@settings(max_examples=60)
@given(data=st.data())
def test_damaged_inputs_give_a_value_or_an_error(name: str, data: st.DataObject) -> None:
    target = TARGETS[name]
    original = data.draw(st.sampled_from(target.inputs))
    with contextlib.suppress(*target.errors):
        target.feed(data.draw(st.binary(max_size=100) | damaged(original)))


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_every_beginning_of_a_valid_input_gives_a_value_or_an_error(name: str) -> None:
    target = TARGETS[name]
    for original in target.inputs:
        for size in range(len(original)):
            with contextlib.suppress(*target.errors):
                target.feed(original[:size])


def test_the_fuzz_program_finds_what_is_wrong() -> None:
    def fragile(data: bytes) -> None:
        if b"\xff" in data:
            raise KeyError("not foreseen")
        if len(data) > 8:
            raise ValueError("foreseen")

    target = Target(fragile, [b"valid"], (ValueError,))
    draw = random.Random(1)
    found = {fuzz.run_one(target, fuzz.damaged(draw, target.inputs)) for _ in range(500)}
    assert found == {"", "KeyError: 'not foreseen'"}


# -- lenient JSON


def bare_keyed(value: object) -> bytes:
    """As fastjson writes maps with integer keys."""
    if isinstance(value, dict):
        return b"{" + b",".join(b"%d:%s" % (k, bare_keyed(v)) for k, v in value.items()) + b"}"
    return lenient_json._encode(value)


def texts(value: object) -> object:
    if isinstance(value, dict):
        return {str(key): texts(inner) for key, inner in value.items()}
    return value


@given(
    st.recursive(
        st.text() | st.integers(-(2**53), 2**53) | st.none(),
        lambda inner: st.dictionaries(st.integers(-(2**63), 2**63), inner, min_size=1),
    )
)
def test_bare_keys_are_read_by_both_ways_alike(value: object) -> None:
    data = bare_keyed(value)
    assert lenient_json.loads(data) == texts(value)
    assert lenient_json._tolerant(data.decode()) == texts(value)


def test_only_so_much_may_be_no_standard_json() -> None:
    data = b"{" + b",".join(b"%d:1" % number for number in range(200_000)) + b"}"
    with pytest.raises(ValueError, match="no standard JSON"):
        lenient_json.loads(data)
    assert len(lenient_json.loads(data, None)) == 200_000
    assert len(lenient_json.loads(b'{"a":"' + b"x" * 2_000_000 + b'"}')["a"]) == 2_000_000


@pytest.mark.parametrize(
    "data",
    [
        b'{0:"' + b"a" * 1_000_000,
        b'{0:"' + b"\\" * 1_000_000,
        b"{0:" + b" " * 1_000_000,
        b"{0:" + b"1" * 1_000_000,
        b"{" + b"-" * 1_000_000,
        b"{0:1" * 200_000,
        b'{{"":1' * 100_000,
        b"[" * 1_000_000,
    ],
)
def test_no_text_of_the_allowed_size_takes_long(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        lenient_json.loads(data, None)
