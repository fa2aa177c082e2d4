import numpy as np
import pytest
import torch

from posesyn import skeletons
from posesyn.estimators.hybrik.losses import HybrikLossWeights, camera_targets, hybrik_losses, uvd_targets


@pytest.fixture
def case():
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(*shape, generator=generator)

    prediction = {
        "uvd": 0.3 * draw(3, 29, 3),
        "sigma": torch.rand(3, 29, 1, generator=generator) + 0.1,
        "phi": draw(3, 23, 2),
        "betas": draw(3, 10),
        "cam": draw(3, 3),
        "pose_rotmat": draw(3, 24, 3, 3),
        "skeleton_no_box": draw(3, 29, 3),
    }
    batch = {
        "keypoints_px": 128 + 60 * draw(3, 45, 2),
        "visible": torch.rand(3, 45, generator=generator) < 0.7,
        "has_labels": torch.tensor([True, False, True]),
        "pose_rotmat": draw(3, 24, 3, 3),
        "betas": draw(3, 10),
        "transl_cam": draw(3, 3),
        "intrinsics": torch.tensor([[300.0, 0, 127.5], [0, 300, 127.5], [0, 0, 1]]).repeat(3, 1, 1),
    }
    return prediction, batch, 0.4 * draw(3, 29, 3) + torch.tensor([0, 0, 3.0]), draw(3, 23, 2)


@pytest.mark.parametrize("kind", ["laplace", "l1"])
def test_equals_a_loop_over_persons(case, kind):
    prediction, batch, labels, twist = case
    rows = skeletons.mapping("smpl45", "hybrik29", approximate=False)
    p, b = ({n: v.double().numpy() for n, v in part.items()} for part in (prediction, batch))
    points, uvd, parts = labels.double().numpy(), [], {"betas": [], "pose": [], "twist": [], "scale": [], "shift": []}
    for i in range(3):
        labelled = bool(b["has_labels"][i])
        for j in range(29):
            if labelled:
                pixel = points[i, j, :2] / points[i, j, 2] * 300 + 127.5
                target = np.append(pixel / 256 - 0.5, (points[i, j, 2] - points[i, 0, 2]) / 2.2)
            elif rows[j] >= 0 and b["visible"][i, rows[j]]:
                target = b["keypoints_px"][i, rows[j]] / 256 - 0.5
            else:
                continue
            if np.abs(target).max() > 0.5:
                continue
            error, sigma = np.abs(p["uvd"][i, j, : len(target)] - target), p["sigma"][i, j, 0]
            laplace = np.log(sigma * np.sqrt(2 * np.pi)) + error / (np.sqrt(2) * sigma + 1e-5)
            uvd += list(laplace if kind == "laplace" else 64 * error)
        if labelled:
            parts["betas"].append(((p["betas"][i] - b["betas"][i]) ** 2).mean())
            parts["pose"].append(((p["pose_rotmat"][i] - b["pose_rotmat"][i]) ** 2).mean())
            parts["twist"].append(((p["phi"][i] - twist[i].numpy()) ** 2).mean())
            depth = points[i, 0, 2] * 1000 / 300
            shift = points[i, 0, :2] * 1.0 + np.array([-0.5, -0.5]) / 1000 * depth
            parts["scale"].append((p["cam"][i, 0] - 1000 / 256 / depth) ** 2)
            parts["shift"].append(((p["cam"][i, 1:] - shift) ** 2).mean())
    got = hybrik_losses(prediction, batch, labels, twist, HybrikLossWeights(), kind)
    assert float(got["uvd"]) == pytest.approx(np.mean(uvd), rel=1e-4)
    assert float(got["betas"]) == pytest.approx(np.mean(parts["betas"]), rel=1e-4)
    assert float(got["pose"]) == pytest.approx(0.01 * np.mean(parts["pose"]), rel=1e-4)
    assert float(got["twist"]) == pytest.approx(np.mean(parts["twist"]), rel=1e-4)
    assert float(got["camera"]) == pytest.approx(np.mean(parts["scale"]) + np.mean(parts["shift"]), rel=1e-4)


def test_targets_of_unlabelled_persons_have_no_depth_and_leak_nothing(case):
    _, batch, labels, _ = case
    labels[1] = torch.nan
    target, known = uvd_targets(batch, labels)
    assert not known[1, :, 2].any()
    assert known[1, :, :2].any()
    assert torch.isfinite(target[known]).all()


def test_camera_target_puts_the_pelvis_back(case):
    _, batch, labels, _ = case
    scale, x, y = camera_targets(batch, labels).unbind(1)
    depth = 1000 / (256 * scale)
    pixel = torch.stack((x, y), 1) / depth[:, None] * 1000 + 128
    wanted = labels[:, 0, :2] / labels[:, 0, 2:] * 300 + 127.5
    np.testing.assert_allclose(pixel, wanted, atol=1e-3)
