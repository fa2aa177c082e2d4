import numpy as np
import pytest

from posesyn.estimators.crowdnet.pose_noise import KINDS, PoseNoise

# A standing person, 80 x 260 pixels.
POSE = np.array(
    [
        *((50, 20), (55, 15), (45, 15), (62, 20), (38, 20), (75, 60), (25, 60), (85, 110), (15, 110), (90, 160)),
        *((10, 160), (65, 150), (35, 150), (65, 210), (35, 210), (65, 275), (35, 275)),
    ],
    np.float32,
)
SEEN = np.ones(17, bool)
SIGMAS = np.array([26, 25, 25, 35, 35, 79, 79, 72, 72, 62, 62, 107, 107, 87, 87, 89, 89]) / 1000
MIRROR = np.array([0, 2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13, 16, 15])


def many(count=1000, visible=SEEN, **neighbours):
    noise = PoseNoise()
    made = [noise.corrupt(POSE, visible, np.random.default_rng(i), **neighbours) for i in range(count)]
    return np.stack([pose for pose, _ in made]), np.stack([kind for _, kind in made])


def similarity(points, to):
    area = np.prod(POSE.max(0) - POSE.min(0))
    return np.exp(-((points - to) ** 2).sum(-1) / (2 * area * (2 * SIGMAS) ** 2))


@pytest.fixture(scope="module")
def alone():
    return many()


def test_errors_are_as_frequent_as_published(alone):
    _, kinds = alone
    shares = np.stack([(kinds == index).mean(0) for index in range(len(KINDS))])
    # Four standard deviations of 1,000 draws at 0.2 are 0.05; displacements without room become good joints.
    assert np.abs(shares[0, [0, 13, 14, 15, 16]] - 0.10).max() < 0.05
    assert np.abs(shares[0, [5, 6, 7, 8, 9, 10]] - 0.15).max() < 0.05
    assert np.abs(shares[0, [11, 12]] - 0.20).max() < 0.06
    assert np.abs(shares[1, :5] - 0.02).max() < 0.02
    assert np.abs(shares[1, [7, 8, 9, 10, 13, 14]] - 0.10).max() < 0.05
    assert np.abs(shares[2, 11:] - 0.06).max() < 0.03
    assert shares[2, 0] == 0  # the nose has no mirror joint
    assert not shares[3].any()  # nobody to swap with


def test_displacements_lie_in_their_rings(alone):
    poses, kinds = alone
    own, mirrored = similarity(poses, POSE), similarity(poses, POSE[MIRROR])
    assert own[kinds == KINDS.index("good")].min() > 0.85 - 1e-3
    jitter = own[kinds == KINDS.index("jitter")]
    assert 0.5 - 1e-3 < jitter.min() < 0.55
    assert 0.8 < jitter.max() < 0.85 + 1e-3
    inverted = mirrored[kinds == KINDS.index("inversion")]
    assert inverted.min() > 0.5 - 1e-3
    missed = kinds == KINDS.index("miss")
    assert np.maximum(own, np.where(np.arange(17) > 0, mirrored, 0))[missed].max() < 0.5 + 1e-3
    assert (np.maximum(own, mirrored)[missed] > 0.1 - 1e-3).all()


def test_jittered_joints_stay_nearer_to_their_place_than_to_the_mirror_joint(alone):
    poses, kinds = alone
    near = np.linalg.norm(poses - POSE, axis=-1) <= np.linalg.norm(poses - POSE[MIRROR], axis=-1)
    assert near[(kinds == KINDS.index("jitter")) & (np.arange(17) > 0)].all()


def test_few_joints_make_more_errors():
    visible = SEEN.copy()
    visible[:9] = False  # eight joints are left
    poses, kinds = many(500, visible=visible)
    assert np.array_equal(poses[:, :9], np.broadcast_to(POSE[:9], poses[:, :9].shape))
    assert abs((kinds[:, 9:11] == 1).mean() - 0.15) < 0.04  # missed wrists
    assert abs((kinds[:, 13:] == 0).mean() - 0.15) < 0.04  # jittered knees and ankles


def test_swaps_need_an_overlapping_neighbour():
    neighbour = (POSE + np.float32([30, 0]))[None]
    poses, kinds = many(600, neighbours=neighbour, neighbours_visible=SEEN[None])
    swapped = kinds == KINDS.index("swap")
    assert 0.02 < swapped[:, 5:11].mean() < 0.10
    closest = np.maximum(similarity(poses, neighbour[0]), similarity(poses, neighbour[0][MIRROR]))
    assert closest[swapped].min() > 0.5 - 1e-3
    _, kinds = many(100, neighbours=(POSE + np.float32([500, 0]))[None])
    assert not (kinds == KINDS.index("swap")).any()
    _, kinds = many(100, neighbours=neighbour, neighbours_visible=~SEEN[None])
    assert not (kinds == KINDS.index("swap")).any()


def test_the_draw_is_the_generators():
    noise = PoseNoise()
    first, second, third = (noise.corrupt(POSE, SEEN, np.random.default_rng(seed))[0] for seed in (4, 4, 5))
    assert np.array_equal(first, second)
    assert not np.array_equal(first, third)


def test_nothing_visible_is_left_alone():
    pose, kinds = PoseNoise().corrupt(POSE, ~SEEN, np.random.default_rng(0))
    assert np.array_equal(pose, POSE)
    assert (kinds == KINDS.index("good")).all()
