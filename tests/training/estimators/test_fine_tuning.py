from __future__ import annotations

import signal
from dataclasses import replace

import numpy as np
import pytest
import torch

from posesyn import CallableEstimator, EstimatorSpec, skeletons
from posesyn.data.persons.rendered import RenderedClips
from posesyn.errors import InputError, RunError
from posesyn.estimators.hmr import HMR
from posesyn.settings.training import FineTuningSettings
from posesyn.storage.checkpoints import load_weights
from posesyn.training import fine_tune
from posesyn.training.estimators.fine_tuning import train_side_by_side
from tests.factories import joint_loss, make_estimator

SETTINGS = FineTuningSettings(steps=4, batch_size=4, learning_rate=1e-2, checkpoint_every=1)


def interrupted(stop_at: int) -> CallableEstimator:
    """The tiny estimator; its training is stopped at one of its steps."""
    calls = []

    def losses(output, batch):
        calls.append(1)
        if len(calls) == stop_at:
            raise KeyboardInterrupt
        return joint_loss(output, batch)

    return make_estimator(losses=losses)


@pytest.fixture
def persons(make_clip) -> RenderedClips:
    return RenderedClips([make_clip("a"), make_clip("b", seed=1)])


def weights_of(estimator) -> np.ndarray:
    return estimator.fn.layer.weight.detach().numpy().copy()


def test_interrupted_training_continues_to_the_same_weights(persons, tmp_path):
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        fine_tune(interrupted(stop_at=3), persons, persons, tmp_path / "a", SETTINGS, progress=False)
    assert signal.getsignal(signal.SIGINT) is handler
    assert not (tmp_path / "a" / "estimator.safetensors").exists()
    resumed, straight = make_estimator(), make_estimator()
    fine_tune(resumed, persons, persons, tmp_path / "a", SETTINGS, progress=False)
    fine_tune(straight, persons, persons, tmp_path / "b", SETTINGS, progress=False)
    assert not np.allclose(weights_of(straight), weights_of(make_estimator()))
    np.testing.assert_array_equal(weights_of(resumed), weights_of(straight))


@pytest.mark.parametrize("seed", [2**32, -1])
def test_every_whole_number_is_a_seed(persons, tmp_path, seed):
    # As it is for the stages before: a run would fail after its clips are rendered.
    path = fine_tune(make_estimator(), persons, persons, tmp_path, SETTINGS, seed=seed, progress=False)
    assert path.is_file()


def test_finished_training_is_loaded_and_other_settings_are_refused(persons, tmp_path):
    first = make_estimator()
    fine_tune(first, persons, None, tmp_path, SETTINGS, progress=False)
    again = make_estimator()
    fine_tune(again, persons, None, tmp_path, SETTINGS, progress=False)
    np.testing.assert_array_equal(weights_of(again), weights_of(first))
    fine_tune(make_estimator(), persons, None, tmp_path, replace(SETTINGS, num_workers=2), progress=False)
    with pytest.raises(RunError, match="learning_rate"):
        fine_tune(make_estimator(), persons, None, tmp_path, replace(SETTINGS, learning_rate=1e-3), progress=False)


def test_an_estimator_without_weights_is_refused(persons, tmp_path):
    class Foreign:
        spec = EstimatorSpec("foreign")

    with pytest.raises(InputError, match="torch module"):
        fine_tune(Foreign(), persons, None, tmp_path, SETTINGS, progress=False)


@pytest.mark.integration
def test_side_by_side_gives_what_one_after_the_other_gives(persons, tmp_path):
    settings = FineTuningSettings(steps=2, batch_size=4)

    def jobs(folder):
        arms = {"both": persons, "control": None}
        return [
            {
                "estimator": HMR.small(),
                "real": [persons],
                "synthetic": synthetic,
                "out": tmp_path / folder / name,
                "settings": settings,
                "progress": False,
            }
            for name, synthetic in arms.items()
        ]

    torch.manual_seed(0)
    together = train_side_by_side(jobs("together"), processes=2)
    torch.manual_seed(0)
    alone = [fine_tune(**job) for job in jobs("alone")]
    for ours, theirs in zip(together, alone):
        expected = load_weights(theirs)
        for name, value in load_weights(ours).items():
            torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-5)


def test_a_lifter_is_fine_tuned_on_clips_and_loads_again(make_clip, tmp_path):
    from posesyn import load_estimator
    from posesyn.estimators.lifters import LifterEstimator, make_lifter

    clips = RenderedClips([make_clip(str(seed), seed=seed, frames=8, size=160) for seed in range(2)])
    torch.manual_seed(0)
    estimator = LifterEstimator(make_lifter("mlp", width=64, stages=1, dropout=0.0))
    persons = [clips[row] for row in range(len(clips))]
    truth = np.stack([person.labels.joints_cam for person in persons])
    truth = skeletons.convert(truth, "smpl45", "poseaug16")[0]

    def error() -> float:
        found = estimator.predict(persons).joints_cam
        return float(np.linalg.norm(found - found[:, :1] - (truth - truth[:, :1]), axis=-1).mean())

    before = error()
    settings = FineTuningSettings(steps=60, batch_size=8, learning_rate=5e-3)
    path = fine_tune(estimator, clips, clips, tmp_path, settings, progress=False)
    assert error() < 0.7 * before
    again = load_estimator("mlp", path)
    np.testing.assert_allclose(again.predict(persons).joints_cam, estimator.predict(persons).joints_cam, atol=1e-5)
