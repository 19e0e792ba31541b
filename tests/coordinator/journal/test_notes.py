"""Signed notes: what a key signed opens with that key, and nothing else does."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.journal.checkpoints import Checkpoint, opened, signed
from coordinator.journal.notes import BadNote, SignerKey, VerifierKey, verify

# Of the format's own documentation: another program made these.
EXAMPLE_KEY = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
EXAMPLE = """This is an example message.

— example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=
"""  # noqa: E501
KEY = SignerKey("sled-depot/journal/1", bytes(range(32)))
NOTE = KEY.sign("one line\nanother\n")
CHECKPOINT = Checkpoint("sled-depot/journal/1", 7, bytes(range(32)))


def test_a_note_that_another_program_signed_verifies() -> None:
    assert verify(EXAMPLE, VerifierKey.parse(EXAMPLE_KEY)) == "This is an example message.\n"


def test_a_key_is_read_as_it_is_written() -> None:
    assert str(VerifierKey.parse(EXAMPLE_KEY)) == EXAMPLE_KEY
    assert VerifierKey.parse(str(KEY.verifier)) == KEY.verifier


@given(st.text(st.characters(codec="utf-8", min_codepoint=32), min_size=1))
def test_what_is_signed_is_what_is_verified(line: str) -> None:
    assert verify(KEY.sign(f"{line}\n"), KEY.verifier) == f"{line}\n"


def test_signatures_of_others_are_not_looked_at() -> None:
    other = SignerKey.new("somebody.else")
    theirs = other.sign("one line\nanother\n").splitlines(keepends=True)[-1]
    both = NOTE + theirs
    assert verify(both, KEY.verifier) == verify(both, other.verifier) == "one line\nanother\n"


@given(st.integers(0, len(NOTE) - 1), st.characters(codec="utf-8"))
def test_a_note_of_which_one_character_is_changed_does_not_verify(at: int, other: str) -> None:
    changed = NOTE[:at] + other + NOTE[at + 1 :]
    if changed != NOTE:
        with pytest.raises(BadNote):
            verify(changed, KEY.verifier)


def test_a_note_is_not_signed_by_a_key_of_the_same_name() -> None:
    with pytest.raises(BadNote, match="not signed by"):
        verify(NOTE, SignerKey.new(KEY.verifier.name).verifier)


@pytest.mark.parametrize(
    "key",
    [
        "",
        "name",
        "name+00000000+",
        "na me+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k",
        EXAMPLE_KEY.replace("530d903a", "530d903b"),
        EXAMPLE_KEY.replace("+AeK", "+Aa"),
        EXAMPLE_KEY[:-4],
        EXAMPLE_KEY[:-1] + "l",
    ],
)
def test_what_is_no_key_is_refused(key: str) -> None:
    if key != EXAMPLE_KEY:
        with pytest.raises(BadNote):
            VerifierKey.parse(key)


@pytest.mark.parametrize("text", ["", "\n", "no end", "a\0b\n", "a\tb\n"])
def test_what_cannot_be_the_text_of_a_note_is_not_signed(text: str) -> None:
    with pytest.raises(BadNote):
        KEY.sign(text)


def test_a_secret_key_is_told_by_nothing_but_itself() -> None:
    assert KEY.secret.hex() not in f"{KEY!r} {KEY.verifier!r} {NOTE}"


def test_a_checkpoint_is_an_origin_a_size_and_a_root() -> None:
    assert CHECKPOINT.text == (
        "sled-depot/journal/1\n7\nAAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n"
    )
    assert opened(signed(CHECKPOINT, KEY), KEY.verifier) == CHECKPOINT


def test_lines_after_the_root_are_for_others() -> None:
    assert Checkpoint.parse(CHECKPOINT.text + "more\n") == CHECKPOINT


def test_a_checkpoint_of_another_tree_is_refused_although_it_is_signed() -> None:
    note = KEY.sign(CHECKPOINT.text.replace("journal/1", "journal/2"))
    with pytest.raises(BadNote, match="journal/2"):
        opened(note, KEY.verifier)


@pytest.mark.parametrize(
    "text",
    [
        "o\n7\n",
        "o\n\nAA==\n",
        "o\n07\nAAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n",
        "o\n-7\nAAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n",
        "o\n7\nAAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh9=\n",
        "o\n7\nAAEC\n",
        "\n7\nAAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n",
    ],
)
def test_what_is_no_checkpoint_is_refused(text: str) -> None:
    with pytest.raises(BadNote):
        Checkpoint.parse(text)
