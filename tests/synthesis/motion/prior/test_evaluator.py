from __future__ import annotations

import numpy as np
import pytest
import torch

from posesyn.errors import CheckpointError, InputError
from posesyn.storage.checkpoints import save_weights
from posesyn.synthesis.motion.prior.evaluator import (
    EvaluatorConfig,
    MotionTextEvaluator,
    diversity,
    foot_skating,
    frechet_distance,
    matching_distance,
    mean_jerk,
    mean_speed,
    retrieval_precision,
)
from posesyn.synthesis.motion.prior.normalizer import Normalizer


def test_frechet_distance_of_gaussians_with_known_moments(rng):
    def exact(mean, deviations):
        """Points whose sample mean and covariance are exactly these, on axes."""
        points = rng.normal(size=(60, 3))
        points -= points.mean(0)
        points = points @ np.linalg.inv(np.linalg.cholesky(np.cov(points, rowvar=False))).T
        return points * deviations + mean

    first, second = exact([1, 2, 3], [1, 2, 0.5]), exact([0, 2, 5], [3, 2, 1.5])
    expected = (1 + 0 + 4) + ((1 - 3) ** 2 + 0 + (0.5 - 1.5) ** 2)
    assert frechet_distance(first, second) == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(first, first) == pytest.approx(0, abs=1e-6)
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    assert frechet_distance(first @ turn, second @ turn) == pytest.approx(expected, rel=1e-6)


def test_frechet_distance_works_with_fewer_rows_than_dimensions(rng):
    points = rng.normal(size=(5, 20))
    assert frechet_distance(points, points) == pytest.approx(0, abs=1e-5)


def test_retrieval_agrees_with_counting_by_hand():
    texts = np.eye(4)
    motions = np.eye(4)[[0, 1, 3, 3]] + 0.1 * np.eye(4)[[1, 2, 2, 1]]
    found = retrieval_precision(motions, texts, np.arange(4), pool=4, repeats=2)
    np.testing.assert_allclose(found, [0.75, 1.0, 1.0])
    # captions that say the same count as right
    np.testing.assert_allclose(retrieval_precision(motions, texts, np.array([0, 1, 2, 2]), pool=4), [1, 1, 1])


def test_retrieval_by_chance_is_the_pools_size(rng):
    found = retrieval_precision(rng.normal(size=(64, 5)), rng.normal(size=(64, 5)), np.arange(64), 32, repeats=40)
    np.testing.assert_allclose(found, [1 / 32, 2 / 32, 3 / 32], atol=0.06)


def test_distances(rng):
    motions, texts = rng.normal(size=(9, 5)), rng.normal(size=(9, 5))
    assert matching_distance(motions, texts) == pytest.approx(
        np.mean([np.sqrt(((a - b) ** 2).sum()) for a, b in zip(motions, texts)])
    )
    every = np.linalg.norm(motions[:, None] - motions[None], axis=-1)
    mean = every[~np.eye(9, dtype=bool)].mean()
    assert diversity(motions, 20_000) == pytest.approx(mean, rel=0.03)
    assert diversity(np.ones((4, 3))) == 0


def test_skating_counts_sliding_contacts():
    joints = np.zeros((11, 22, 3))
    joints[..., 1] = 1.0
    joints[:, [10, 11], 1] = 0.0
    assert foot_skating(joints) == 0
    joints[:, 10, 0] = 0.03 * np.arange(11)  # the left foot slides 3 cm per frame all the time
    assert foot_skating(joints) == 0.5
    joints[6:, 10, 1] = 0.3  # and is in the air from frame 6 on: 5 of its steps are on the floor
    assert foot_skating(joints) == pytest.approx(5 / 15)
    joints[:, [10, 11], 1] = np.array([[0.0, 0.5]] * 11)
    joints[::2, 10, 1] = 0.5
    assert foot_skating(joints) == 0  # never twice on the floor


def test_speed_and_jerk_of_known_paths():
    time = np.arange(30) / 20
    joints = np.zeros((30, 22, 3)) + (time**3)[:, None, None] * [1.0, 0, 0]
    assert mean_jerk(joints) == pytest.approx(6.0)
    line = np.zeros((30, 22, 3)) + time[:, None, None] * [3.0, 0, 4.0]
    assert mean_speed(line) == pytest.approx(5.0)
    assert mean_jerk(line) == pytest.approx(0, abs=1e-8)


@pytest.mark.parametrize("shapes", [((1, 3), (5, 3)), ((5, 3), (5, 4)), ((5,), (5, 3))])
def test_impossible_sets_are_refused(shapes, rng):
    with pytest.raises(InputError, match="Fréchet"):
        frechet_distance(*(rng.normal(size=shape) for shape in shapes))


def test_too_few_captions_are_refused(rng):
    with pytest.raises(InputError, match="R-precision"):
        retrieval_precision(rng.normal(size=(8, 3)), rng.normal(size=(8, 3)), np.arange(8), pool=32)


@pytest.fixture
def evaluator():
    torch.manual_seed(0)
    normalizer = Normalizer("test", np.zeros(263), np.ones(263))
    return MotionTextEvaluator(normalizer, EvaluatorConfig(dim=8, width=16)).eval()


@torch.no_grad()
def test_embeddings_do_not_depend_on_the_batch(evaluator):
    motions = [torch.randn(length, 263) for length in (40, 61, 96)]
    together = evaluator.embed_motions(motions)
    torch.testing.assert_close(together.norm(dim=1), torch.ones(3))
    for row, motion in zip(together, motions):
        torch.testing.assert_close(evaluator.embed_motions([motion])[0], row, atol=1e-5, rtol=1e-5)


def test_it_learns_which_caption_belongs_to_which_motion(evaluator):
    words = ["a person walks", "someone jumps high", "a man throws a ball", "a dancer spins"]
    motions = [torch.randn(24, 263) * 0.3 + torch.randn(263) for _ in words]
    evaluator.train()
    optimizer = torch.optim.Adam(evaluator.parameters(), 1e-2)
    nothing = torch.zeros(4, 4, dtype=torch.bool)
    for _ in range(60):
        loss, _ = evaluator.loss(motions, words, nothing)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    evaluator.eval()
    with torch.no_grad():
        assert evaluator.loss(motions, words, nothing)[1] == 1
        # captions that say the same are no mistakes
        swapped = [words[1], words[0], *words[2:]]
        alike = torch.zeros(4, 4, dtype=torch.bool)
        alike[0, 1] = alike[1, 0] = True
        assert evaluator.loss(motions, swapped, alike)[1] == 1


@torch.no_grad()
def test_saved_and_loaded_it_is_the_same(evaluator, tmp_path):
    evaluator.save(tmp_path / "evaluator.safetensors")
    again = MotionTextEvaluator.load(tmp_path / "evaluator.safetensors")
    motion = torch.randn(50, 263)
    torch.testing.assert_close(again.embed_motions([motion]), evaluator.embed_motions([motion]))
    torch.testing.assert_close(again.embed_texts(["walk"]), evaluator.embed_texts(["walk"]))
    save_weights(tmp_path / "other.safetensors", {"weight": torch.zeros(2)})
    with pytest.raises(CheckpointError, match="not a motion evaluator"):
        MotionTextEvaluator.load(tmp_path / "other.safetensors")


@pytest.mark.parametrize("shape", [(3, 263), (20, 262), (20,)])
def test_wrong_motions_are_refused(evaluator, shape):
    with pytest.raises(InputError, match="motion 1"):
        evaluator.embed_motions([torch.zeros(20, 263), torch.zeros(shape)])
