from __future__ import annotations

import pickle

import pytest

from posesyn import errors


def test_message_says_what_where_expected_got_and_the_way_out():
    error = errors.InputError("x is wrong", where="file 'a'", expected=(1, 2), got=(3,), fix="pass (1, 2)")
    assert str(error) == "x is wrong in file 'a': expected (1, 2), got (3,). Pass (1, 2)"
    assert str(errors.InputError("x is wrong")) == "x is wrong"
    assert str(errors.InputError("x", got=0)) == "x: got 0"


@pytest.mark.parametrize(
    "child, builtin",
    [
        (errors.InputError, ValueError),
        (errors.FileError, OSError),
        (errors.UnsafeFileError, errors.FileError),
        (errors.CheckpointError, errors.PosesynError),
        (errors.RunError, errors.PosesynError),
        (errors.MissingDependencyError, ImportError),
    ],
)
def test_children(child, builtin):
    error = child("broken", where="ünïcode", got=1, fix="mend it")
    assert isinstance(error, errors.PosesynError) and isinstance(error, builtin)
    assert "broken in ünïcode: got 1. Mend it" in str(error)
    # Worker processes send errors back pickled.
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    assert type(again) is child and str(again) == str(error) and again.fix == "mend it"
