import numpy as np
import pytest
import torch

from posesyn import skeletons
from posesyn.estimators.hmr2.losses import Hmr2LossWeights, PoseDiscriminator, adversarial_losses, hmr2_losses


def test_equals_a_loop_over_persons():
    generator = torch.Generator().manual_seed(0)
    shapes = {"pose_rotmat": (3, 24, 3, 3), "betas": (3, 10), "joints": (3, 45, 3), "keypoints_norm": (3, 45, 2)}
    prediction, batch = ({n: torch.randn(*s, generator=generator) for n, s in shapes.items()} for _ in range(2))
    batch["visible"] = torch.rand(3, 45, generator=generator) < 0.6
    batch["has_labels"] = torch.tensor([True, False, True])
    p, b = ({n: v.double().numpy() for n, v in part.items()} for part in (prediction, batch))
    wanted = dict.fromkeys(("keypoints_2d", "keypoints_3d", "global_orient", "body_pose", "betas"), 0.0)
    for i in range(3):
        for j in (int(row) for row in skeletons.mapping("smpl45", "hmr2_44") if row >= 0):
            if b["visible"][i, j]:
                wanted["keypoints_2d"] += 0.01 * np.abs(p["keypoints_norm"][i, j] - b["keypoints_norm"][i, j]).sum() / 2
            if b["has_labels"][i]:
                first, second = (x["joints"][i, j] - x["joints"][i, 0] for x in (p, b))
                wanted["keypoints_3d"] += 0.05 * np.abs(first - second).sum()
        if b["has_labels"][i]:
            turned = (p["pose_rotmat"][i] - b["pose_rotmat"][i]) ** 2
            wanted["global_orient"] += 0.001 * turned[0].sum()
            wanted["body_pose"] += 0.001 * turned[1:].sum()
            wanted["betas"] += 0.0005 * ((p["betas"][i] - b["betas"][i]) ** 2).sum()
    got = hmr2_losses(prediction, batch, Hmr2LossWeights())
    assert {name: float(value) for name, value in got.items()} == pytest.approx(wanted, rel=1e-5)


def test_a_discriminator_learns_and_is_fooled():
    torch.manual_seed(0)
    judge = PoseDiscriminator()
    real = torch.eye(3).expand(8, 23, 3, 3).contiguous(), torch.zeros(8, 10)
    fake_pose, fake_betas = -torch.eye(3).repeat(8, 23, 1, 1), torch.ones(8, 10)
    assert judge(*real).shape == (8, 25)
    optimizer = torch.optim.Adam(judge.parameters(), 1e-3)
    for _ in range(150):
        losses = adversarial_losses(judge, (fake_pose, fake_betas), real, 1.0)
        optimizer.zero_grad()
        losses["discriminator"].backward()
        optimizer.step()
    assert judge(*real).mean() > 0.9
    assert judge(fake_pose, fake_betas).mean() < 0.1
    # Walking down the adversarial loss leads to what mocap looks like.
    fake_pose.requires_grad_()
    optimizer = torch.optim.Adam([fake_pose], 0.05)
    before = float(adversarial_losses(judge, (fake_pose, fake_betas), real, 1.0)["adversarial"].detach())
    for _ in range(60):
        loss = adversarial_losses(judge, (fake_pose, fake_betas), real, 1.0)["adversarial"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.3 * before
