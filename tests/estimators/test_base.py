import copy

import numpy as np
import pytest
import torch

from posesyn.estimators.base import PosedJoints
from posesyn.estimators.hmr import HMR
from posesyn.estimators.hybrik.network import HybrIK


def test_half_precision_changes_little_and_nothing_outside_the_heavy_parts(small, persons):
    fast = copy.deepcopy(small).accelerate(half_precision=True)
    exact, rough = small.predict(persons), fast.predict(persons)
    assert rough.joints_cam.dtype == np.float32
    relative = [found.joints_cam - found.joints_cam[:, :1] for found in (exact, rough)]
    assert 0 < np.abs(relative[0] - relative[1]).max() < 0.05
    identity = rough.pose_rotmat @ rough.pose_rotmat.swapaxes(-1, -2)
    np.testing.assert_allclose(identity, np.broadcast_to(np.eye(3), identity.shape), atol=1e-5)


@pytest.mark.integration  # importing the compiler takes longer than the test
def test_compiling_keeps_the_names_of_the_weights(body):
    model = HybrIK("resnet18", body=body)
    names = list(model.state_dict())
    model.accelerate(compile=True)
    assert list(model.state_dict()) == names
    assert model.preact._compiled_call_impl is not None


def test_spin_as_published_answers_with_the_names_of_its_vectors(body):
    model = HMR(backbone="resnet18", body=body).eval()
    with torch.no_grad():
        output = model(torch.rand(1, 3, 224, 224))
    assert torch.equal(output["rotmat"], output["pose_rotmat"])
    scale, x, y = output["cam"][0].tolist()
    assert output["cam_t"][0].tolist() == pytest.approx([x, y, 2 * 5000 / (224 * scale + 1e-9)], rel=1e-5)


def test_joints_with_the_top_of_the_head(body):
    read = PosedJoints(body, "smpl30")
    joints = read.at_rest(torch.zeros(1, 10))
    assert joints.shape == (1, 30, 3)
    whole = body(torch.eye(3).repeat(1, 24, 1, 1), torch.zeros(1, 10))
    assert float(joints[0, 29, 1]) == pytest.approx(float(whole.vertices[0, :, 1].max()), abs=1e-6)
    assert torch.equal(joints[0, 25], whole.joints[0, 26])  # left eye
    shape = torch.randn(4, 10, generator=torch.Generator().manual_seed(0))
    rest = torch.eye(3).repeat(4, 24, 1, 1)
    np.testing.assert_allclose(read.at_rest(shape), read(rest, shape), atol=1e-5)
    crown = PosedJoints(body, "hybrik29").at_rest(torch.zeros(1, 10))[0, 24]
    assert torch.equal(crown, joints[0, 29])
