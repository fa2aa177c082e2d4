"""The run around a lifter training: resume, what it refuses, interruption, curves."""

from __future__ import annotations

import csv
import signal

import pytest
import torch

from posesyn.errors import RunError
from posesyn.estimators.lifters.lifter import make_lifter
from posesyn.settings.lifters import LifterSettings, PoseAugSettings
from posesyn.storage.checkpoints import fingerprint, load_metadata, load_weights
from posesyn.training.lifters import run as lifter_run
from posesyn.training.lifters.lifter import LifterModule
from posesyn.training.lifters.run import train_lifter, train_poseaug
from tests.training.lifters.test_poseaug import made_pairs


@pytest.fixture(scope="module")
def pairs():
    return made_pairs()


def settings(**changes) -> LifterSettings:
    return LifterSettings(**{"epochs": 2, "batch_size": 64, **changes})


def small(width: int = 16):
    torch.manual_seed(3)
    return make_lifter("mlp", width=width)


def test_a_longer_training_goes_on_exactly(tmp_path, pairs):
    train_lifter(small(), pairs, tmp_path / "whole", settings(epochs=4), pairs, seed=2, progress=False)
    train_lifter(small(), pairs, tmp_path / "parts", settings(), pairs, seed=2, progress=False)
    train_lifter(small(), pairs, tmp_path / "parts", settings(epochs=4), pairs, seed=2, progress=False)
    assert (tmp_path / "whole/curves.csv").read_text() == (tmp_path / "parts/curves.csv").read_text()


def test_a_moved_folder_goes_on_in_the_same_file(tmp_path, pairs):
    train_lifter(small(), pairs, tmp_path / "here", settings(), pairs, progress=False)
    (tmp_path / "here").rename(tmp_path / "there")
    path = train_lifter(small(), pairs, tmp_path / "there", settings(epochs=4), pairs, progress=False)
    assert [file.name for file in path.parent.glob("*.ckpt")] == ["last.ckpt"]
    assert torch.load(path.parent / "last.ckpt", weights_only=True)["epoch"] == 3


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"settings": settings(learning_rate=1e-2)}, "settings.learning_rate"),
        ({"settings": settings(schedule="linear", epochs=3)}, "settings.schedule"),
        ({"seed": 5}, "seed"),
        ({"lifter": small(32)}, "lifter.width"),
        ({"pairs": made_pairs(seed=1)}, "pairs"),
        ({"validation": made_pairs(seed=2)}, "validation"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_folder_of_another_training_is_refused(tmp_path, pairs, changed, named):
    call = {"lifter": small(), "pairs": pairs, "settings": settings(), "validation": pairs, "seed": 0}
    train_lifter(out=tmp_path, progress=False, **call)
    with pytest.raises(RunError, match=f"changed .*{named}"):
        train_lifter(out=tmp_path, progress=False, **{**call, "lifter": small(), **changed})


def test_a_damaged_checkpoint_is_named(tmp_path, pairs):
    train_lifter(small(), pairs, tmp_path, settings(), pairs, progress=False)
    (tmp_path / "last.ckpt").write_bytes(b"PK\3\4 half a file")
    with pytest.raises(RunError, match=r"last\.ckpt"):
        train_lifter(small(), pairs, tmp_path, settings(), pairs, progress=False)


@pytest.fixture
def interruptible():
    """SIGINT as in a foreground job: shells start background jobs with it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_interrupted_it_gives_the_weights_back_and_goes_on(tmp_path, pairs, monkeypatch):
    whole = train_lifter(small(), pairs, tmp_path / "whole", settings(), pairs, progress=False)

    class Interrupted(LifterModule):
        def training_step(self, rows, index):
            if self.current_epoch == 1:
                signal.raise_signal(signal.SIGINT)
            return super().training_step(rows, index)

    lifter = small()
    before, handler = fingerprint(lifter), signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        # By name: the ledger tells kinds of trainings apart by the class.
        Interrupted.__name__ = "LifterModule"
        patch.setattr(lifter_run, "LifterModule", Interrupted)
        train_lifter(lifter, pairs, tmp_path / "parts", settings(), pairs, progress=False)
    assert fingerprint(lifter) == before
    assert signal.getsignal(signal.SIGINT) is handler
    assert torch.load(tmp_path / "parts/last.ckpt", weights_only=True)["epoch"] == 0
    parts = train_lifter(lifter, pairs, tmp_path / "parts", settings(), pairs, progress=False)
    for name, value in load_weights(whole).items():
        assert torch.equal(value, load_weights(parts)[name]), name
    assert load_metadata(parts)["selected_epoch"] in (0, 1)


def test_without_validation_the_last_epoch_is_kept_and_curves_are_written(tmp_path, pairs):
    chosen = PoseAugSettings(recipe="official", epochs=2, warmup=1, batch_size=64, pool=100)
    path = train_poseaug(small(), pairs, tmp_path, chosen, None, progress=False)
    rows = list(csv.DictReader((tmp_path / "curves.csv").read_text().splitlines()))
    assert [int(row["epoch"]) for row in rows] == [0, 1]
    assert "gan/usable" in rows[0] and "val/mpjpe" not in rows[0]
    assert "selected_epoch" not in load_metadata(path)
