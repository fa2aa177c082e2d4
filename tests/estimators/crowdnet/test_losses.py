import numpy as np
import pytest
import torch

from posesyn import skeletons
from posesyn.errors import InputError
from posesyn.estimators.crowdnet.losses import CrowdNetLossWeights, crowdnet_losses
from posesyn.geometry.rotations import matrix_to_rotvec, rotvec_to_matrix

TO_30 = skeletons.mapping("smpl45", "smpl30", approximate=False)
TO_15 = skeletons.mapping("smpl30", "graph15", approximate=False)


@pytest.fixture
def case():
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(*shape, generator=generator)

    prediction = {
        "joint_img": 20 * draw(3, 15, 3),
        "joints30": draw(3, 30, 3),
        "joint_proj": 30 * draw(3, 30, 2),
        "pose": draw(3, 72),
        "betas": draw(3, 10),
    }
    batch = {
        "keypoints_px": 128 + 100 * draw(3, 45, 2),
        "visible": torch.rand(3, 45, generator=generator) < 0.7,
        "has_labels": torch.tensor([True, False, True]),
        "joints": draw(3, 45, 3),
        "pose_rotmat": rotvec_to_matrix(draw(3, 24, 3)),
        "betas": torch.stack((draw(10).clamp(-2, 2), draw(10), torch.full((10,), 3.5))),
        "transl_cam": draw(3, 3),
        "intrinsics": torch.tensor([[300.0, 0, 128], [0, 300, 128], [0, 0, 1]]).repeat(3, 1, 1),
    }
    return prediction, batch, 0.5 * draw(3, 30, 3) + torch.tensor([0, 0, 3.0])


def test_equals_a_loop_over_elements(case):
    prediction, batch, labels = case
    p = {name: value.double().numpy() for name, value in prediction.items()}
    b = {name: value.numpy() for name, value in batch.items()}
    pose = matrix_to_rotvec(batch["pose_rotmat"]).flatten(1).numpy()
    points = labels.double().numpy()
    sums = dict.fromkeys(CrowdNetLossWeights.__dataclass_fields__, 0.0)
    for row in range(3):
        labelled = bool(b["has_labels"][row])
        relative = points[row] - points[row, 0]
        depth = (relative[:, 2] / 1 + 1) / 2 * 64
        fitted = (points[row, :, :2] / (points[row, :, 2:] + 1e-4) * 300 + 128) / 4
        annotated, seen = np.zeros((30, 2)), np.zeros(30, bool)
        for joint, source in enumerate(TO_30):
            if source >= 0:
                annotated[joint] = b["keypoints_px"][row, source] / 4
                seen[joint] = b["visible"][row, source] and ((annotated[joint] >= 0) & (annotated[joint] < 64)).all()
        for graph, joint in enumerate(TO_15):
            x, y, z = p["joint_img"][row, graph]
            if seen[joint]:
                sums["body_joint_img"] += abs(x - annotated[joint, 0]) + abs(y - annotated[joint, 1])
                sums["body_joint_img"] += abs(z - depth[joint]) if labelled else 0
            if labelled and ((fitted[joint] >= 0) & (fitted[joint] < 64)).all():
                sums["smpl_joint_img"] += np.abs([x, y, z] - np.append(fitted[joint], depth[joint])).sum()
        for joint in range(30):
            if seen[joint]:
                sums["body_joint_proj"] += np.abs(p["joint_proj"][row, joint] - annotated[joint]).sum()
            error = np.abs(p["joints30"][row, joint] - relative[joint]).sum()
            sums["body_joint_cam"] += error * (labelled and seen[joint])
            sums["smpl_joint_cam"] += error * labelled
        for joint in set(range(24)) - {7, 8, 10, 11, 20, 21, 22, 23}:
            part = slice(3 * joint, 3 * joint + 3)
            sums["smpl_pose"] += labelled * np.abs(p["pose"][row, part] - pose[row, part]).sum()
        target = np.zeros(10) if np.abs(b["betas"][row]).max() > 3 else b["betas"][row]
        sums["smpl_shape"] += labelled * np.abs(p["betas"][row] - target).sum()
    counts = {"body_joint_img": 135, "smpl_joint_img": 135, "body_joint_proj": 180, "smpl_pose": 216, "smpl_shape": 30}
    got = crowdnet_losses(prediction, batch, labels, CrowdNetLossWeights())
    for name, total in sums.items():
        weight = 1 / 8 if name in ("body_joint_img", "smpl_joint_img", "body_joint_proj") else 1
        assert float(got[name]) == pytest.approx(weight * total / counts.get(name, 270), rel=1e-4), name


def test_what_is_masked_may_be_anything(case):
    prediction, batch, labels = case
    before = crowdnet_losses(prediction, batch, labels, CrowdNetLossWeights())
    batch["keypoints_px"] = torch.where(batch["visible"][..., None], batch["keypoints_px"], torch.inf)
    labels[1] = torch.nan
    after = crowdnet_losses(prediction, batch, labels, CrowdNetLossWeights())
    assert {k: float(v) for k, v in before.items()} == pytest.approx({k: float(v) for k, v in after.items()})


def test_a_batch_that_lacks_keys_is_refused(case):
    prediction, batch, labels = case
    del batch["intrinsics"]
    with pytest.raises(InputError, match="no intrinsics"):
        crowdnet_losses(prediction, batch, labels, CrowdNetLossWeights())
