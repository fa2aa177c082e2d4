"""Every augmentation operation's gradient against finite differences, in float64; plausibility; the fake pool."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from posesyn.errors import InputError
from posesyn.estimators.lifters.mlp import MLPLifter
from posesyn.synthesis.augmentation import bones, losses
from posesyn.synthesis.augmentation.augmentor import LENGTH_LIMIT, Augmentor, rotate
from posesyn.synthesis.augmentation.bones import project_normalised
from posesyn.synthesis.augmentation.losses import PartDiscriminator, ProjectionDiscriminator
from posesyn.training.lifters.source import FakePool


def poses(count: int = 3, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(count, 15, 3, generator=generator, dtype=torch.float64)
    joints = bones.joints_from_bones(0.3 * torch.nn.functional.normalize(directions, dim=-1))
    return joints + torch.tensor([0.1, -0.2, 5.0], dtype=torch.float64)


def agrees(function, *inputs: torch.Tensor) -> None:
    inputs = tuple(value.detach().clone().requires_grad_() for value in inputs)
    assert torch.autograd.gradcheck(function, inputs, eps=1e-6, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("size", (0.0, 1e-4, 0.5, 3.1))
def test_rotation(size):
    axis = torch.nn.functional.normalize(torch.tensor([[1.0, -2.0, 0.5]], dtype=torch.float64), dim=-1)
    agrees(rotate, poses(1), size * axis)


def test_bones_and_joints():
    agrees(bones.bone_vectors, poses())
    agrees(lambda x: bones.joints_from_bones(bones.unit_bones(bones.bone_vectors(x))), poses())
    agrees(bones.with_bone_lengths, poses(), torch.full((3, 15), 0.4, dtype=torch.float64))


def test_projection_with_distortion():
    camera = torch.tensor([[2.29, 2.28, 0.02, -0.01, -0.2, 0.24, -0.002, 0.001, -0.003]] * 3, dtype=torch.float64)
    agrees(project_normalised, poses(), camera)


def test_augmentor_by_pose_and_weights():
    torch.manual_seed(1)
    network = Augmentor().double().eval()
    noise = [torch.randn(2, 48, dtype=torch.float64) for _ in range(4)]
    pose = poses(2)
    names = ("BAprocess.w2.bias", "BLprocess.w2_BL.bias", "RTprocess.w2_R.bias", "RTprocess.w2_T.bias")
    weights = [network.get_parameter(name) for name in names]

    def run(x: torch.Tensor, *values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        made = torch.func.functional_call(network, dict(zip(names, values)), (x, noise))
        return made.pose_ba, made.angle_change, made.pose_bl, made.length_ratios, made.pose_rt

    agrees(run, pose, *weights)  # all outputs at once: each finite difference runs the network only twice


def test_discriminators_and_losses():
    torch.manual_seed(2)
    agrees(PartDiscriminator().double(), poses(2))
    agrees(ProjectionDiscriminator().double(), poses(2)[..., :2])
    truth = poses(2)
    agrees(lambda x: losses.group_errors(x, truth), poses(2, seed=3))
    ones = torch.full((2, 3), 1.0, dtype=torch.float64)
    agrees(lambda a, b: sum(losses.feedback_loss(ones, a, b, losses.FeedbackWeights(), 2, 50)), 7.3 * ones, 40.0 * ones)


def test_range_and_change_losses():
    # Values inside the free zone, outside it on both sides, and none on its edge, where the loss has a kink.
    values = torch.tensor([[-4.0, -1.2, -0.3, 0.0, 0.9, 1.1, 7.0]], dtype=torch.float64)
    agrees(lambda x: losses.range_loss(x, 0.0, 1.0), values)
    generator = torch.Generator().manual_seed(3)
    turned = 0.6 * torch.rand(4, 15, generator=generator, dtype=torch.float64)
    ratios = 0.4 * torch.rand(4, 9, generator=generator, dtype=torch.float64) - 0.2
    agrees(losses.change_loss, turned, ratios)
    agrees(losses.change_loss, turned / 20, ratios / 20)


def test_feedback_through_a_lifter():
    torch.manual_seed(2)
    lifter = MLPLifter(stages=1, width=16).double().eval()
    cameras = torch.tensor([[2.29, 2.28, 0.0, 0.0, -0.2, 0.24, 0.0, 0.0, 0.0]] * 3, dtype=torch.float64)
    original = losses.group_errors(lifter(project_normalised(poses(), cameras)), poses()).detach()

    def cost(made: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        errors = losses.group_errors(lifter(project_normalised(made, cameras)), made)
        return losses.feedback_loss(original, errors, 40 * errors, losses.FeedbackWeights(angle_slack=0.1), 5, 50)

    agrees(cost, poses(seed=4))


def test_lengths_stay_within_limits_and_frozen_bones_keep_their_direction():
    torch.manual_seed(0)
    network = Augmentor()
    pose = poses(500).float()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(4)
        made = network(pose)
    old, new = (bones.bone_lengths(bones.bone_vectors(x)) for x in (pose, made.pose_bl))
    ratio = new / old
    assert ratio.min() >= 1 - LENGTH_LIMIT - 1e-4 and ratio.max() <= 1 + LENGTH_LIMIT + 1e-4
    np.testing.assert_allclose(ratio[:, 7], 1, atol=1e-4)
    np.testing.assert_allclose(bones.bone_lengths(bones.bone_vectors(made.pose_ba)), old, atol=1e-5)
    unit = [bones.unit_bones(bones.bone_vectors(x))[:, list(bones.FROZEN_BONES)] for x in (pose, made.pose_ba)]
    np.testing.assert_allclose(unit[0], unit[1], atol=1e-4)
    for left, right in ((0, 3), (1, 4), (2, 5), (9, 12), (10, 13), (11, 14)):
        np.testing.assert_allclose(ratio[:, left], ratio[:, right], atol=1e-3)


def test_pool_keeps_what_it_was_given_and_restores():
    pool = FakePool(50, seed=3)
    first = torch.arange(40.0)[:, None]
    assert torch.equal(pool(first), first)
    second = torch.arange(100.0, 160.0)[:, None]
    given = pool(second)
    # Nothing is lost and nothing invented: what came in is in the pool or was handed out.
    both = torch.cat((given, pool.items)).flatten().sort().values
    assert torch.equal(both.unique(), torch.cat((first, second)).flatten().sort().values.unique())
    old = FakePool(50, seed=9)
    old.load_state_dict(pool.state_dict() | {"items": pool.items.clone()})
    third = torch.arange(500.0, 600.0)[:, None]
    assert torch.equal(old(third), pool(third))
    shares = [float((FakePool(1000, s)(torch.zeros(1000, 1)) == 0).float().mean()) for s in range(2)]
    assert shares == [1.0, 1.0]


def test_full_pool_swaps_half():
    pool = FakePool(4096, seed=0)
    pool(torch.zeros(4096, 1))
    assert float((pool(torch.ones(2000, 1)) == 0).float().mean()) == pytest.approx(0.5, abs=0.05)


def test_wrong_joints():
    for joints in (14, 17):
        with pytest.raises(InputError, match="16"):
            Augmentor()(torch.zeros(2, joints, 3))
        with pytest.raises(InputError, match="16"):
            ProjectionDiscriminator()(torch.zeros(2, joints, 2))
