import copy

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from posesyn import skeletons
from posesyn.data.batches import collate, training_sample
from posesyn.errors import CheckpointError, InputError
from posesyn.estimators.base import PosedJoints
from posesyn.estimators.hybrik.network import HybrIK, solve_pose, twist_of, twist_rotation, unit_twist
from posesyn.geometry.cameras import apply_affine
from posesyn.geometry.kinematics import forward_kinematics, offsets_from_joints
from posesyn.interfaces import TrainableEstimator


@pytest.fixture(scope="module")
def hybrik(body):
    torch.manual_seed(0)
    return HybrIK("resnet18", body=body).eval()


@pytest.fixture(scope="module")
def official_file(official, tmp_path_factory):
    weights = official.weights("hybrik")
    content = {**weights, "smpl.v_template": torch.zeros(6890, 3), "smpl.parents": torch.zeros(29, dtype=torch.int64)}
    path = tmp_path_factory.mktemp("official") / "hybrik_res34.pth"
    torch.save(content, path)
    return path, content


@pytest.mark.integration
def test_official_file_gives_the_published_numbers(official, official_file, body):
    model = HybrIK.from_official(official_file[0], body=body)
    vectors = official.vectors("hybrik")
    image = official.image("hybrik", model.spec.mean, model.spec.std)
    arguments = image, torch.from_numpy(vectors["boxes"]), torch.from_numpy(vectors["image_centre"])
    with torch.no_grad():
        official.compare("hybrik", model(*arguments))
        free = model(image)
    official.compare("hybrik", model(*arguments))  # with gradients nothing is folded
    np.testing.assert_allclose(free["skeleton"], vectors["skeleton_no_box"], atol=1e-4, rtol=1e-4)
    np.testing.assert_allclose(free["root"], vectors["root_no_box"], atol=1e-4, rtol=1e-4)


@pytest.mark.integration
@pytest.mark.parametrize("fault", ["missing", "renamed", "shape"])
def test_faults_are_named(official_file, tmp_path, body, fault):
    name = "preact.layer3.2.conv1.weight"
    content = dict(official_file[1])
    value = content.pop(name)
    if fault != "missing":
        content[name + ("_old" if fault == "renamed" else "")] = value if fault == "renamed" else value[:, :5]
    torch.save(content, tmp_path / "faulty.pth")
    with pytest.raises(CheckpointError, match=name.replace(".", r"\.")):
        HybrIK.from_official(tmp_path / "faulty.pth", body=body)


def test_the_backbone_is_that_of_the_file(hybrik, tmp_path, body):
    torch.save(hybrik.state_dict(), tmp_path / "small.pth")
    loaded = HybrIK.from_official(tmp_path / "small.pth", body=body)
    assert loaded.fc1.in_features == 512
    assert len(loaded.preact.layer3) == 2
    torch.save({"preact.stage2.0.weight": torch.zeros(1)}, tmp_path / "hrnet.pth")
    with pytest.raises(CheckpointError, match=r"has an HRNet.*ResNet-34"):
        HybrIK.from_official(tmp_path / "hrnet.pth", body=body)


def test_three_persons_are_no_special_case(hybrik):
    images = torch.rand(3, 3, 256, 256, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        together, alone = hybrik(images), hybrik(images[1:2])
    np.testing.assert_allclose(together["pose_rotmat"][1], alone["pose_rotmat"][0], atol=1e-3)
    np.testing.assert_allclose(together["uvd"][1], alone["uvd"][0], atol=1e-5)


def test_predicts_the_pelvis_where_the_volume_has_it(hybrik, persons):
    assert isinstance(hybrik, TrainableEstimator)
    found = hybrik.predict(persons)
    sample = collate([training_sample(person, hybrik.spec) for person in persons])
    with torch.no_grad():
        uvd = hybrik(sample["images"])["uvd"].numpy()
    pelvis = (uvd[:, 0, :2] + 0.5) * 256
    for row in range(len(persons)):
        got = apply_affine(sample["affine"][row].numpy(), found.keypoints_px[row, 0])
        np.testing.assert_allclose(got, pelvis[row], atol=0.02)
    np.testing.assert_allclose(found.intrinsics[:, 0, 0], sample["box_sizes"] * 1000 / 256, rtol=1e-5)
    assert (found.transl_cam[:, 2] > 0).all()


def test_losses_reach_everything(hybrik, labelled, persons):
    model = copy.deepcopy(hybrik).train()
    batch = collate([training_sample(person, model.spec) for person in [*labelled[:2], persons[0]]])
    losses = model.training_losses(batch)
    assert set(losses) == {"uvd", "betas", "pose", "twist", "joints_3d", "camera"}
    assert losses["joints_3d"] == 0
    sum(losses.values()).backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()] == []


def test_the_published_recipe(hybrik):
    made = hybrik.published_optimizers()
    assert [group["name"] for group in made["optimizer"].param_groups] == ["preact", "head"]
    assert {group["lr"] for group in made["optimizer"].param_groups} == {1e-3}
    assert sorted(made["lr_scheduler"]["scheduler"].milestones) == [90, 120]


def test_bad_input(hybrik, body):
    images = torch.rand(1, 3, 256, 256)
    with pytest.raises(InputError, match="go together"):
        hybrik(images, torch.zeros(1, 4))
    with pytest.raises(InputError, match="images have the wrong shape"):
        hybrik(images[..., :192])
    with pytest.raises(InputError, match="unknown uvd_loss"):
        HybrIK("resnet18", uvd_loss="l2", body=body)


PARENTS = skeletons.get("hybrik29").parents


@pytest.fixture
def posed(body, rng):
    """Rest joints, a pose, and the joints it leads to, float64."""
    rest = PosedJoints(body, "hybrik29").at_rest(torch.from_numpy(rng.normal(0, 1, (5, 10)).astype(np.float32)))
    rest = rest.double()
    pose = torch.from_numpy(Rotation.from_rotvec(rng.normal(0, 0.6, (120, 3))).as_matrix()).view(5, 24, 3, 3)
    ends = torch.eye(3, dtype=torch.float64).expand(5, 5, 3, 3)
    joints, _ = forward_kinematics(torch.cat((pose, ends), 1), offsets_from_joints(rest, PARENTS), PARENTS)
    return rest, pose, joints


def test_a_pose_comes_back_from_its_joints_and_twists(posed):
    rest, pose, joints = posed
    found, rebuilt = solve_pose(joints, rest, 3 * twist_of(pose, rest))
    np.testing.assert_allclose(found, pose, atol=1e-7)
    np.testing.assert_allclose(rebuilt, joints, atol=1e-7)


def test_twist_is_the_rotation_about_the_bone(posed):
    rest, _, _ = posed
    axis = (rest[:, 4] - rest[:, 1]) / (rest[:, 4] - rest[:, 1]).norm(dim=-1, keepdim=True)
    angle = 0.7
    pose = torch.eye(3, dtype=torch.float64).repeat(5, 24, 1, 1)
    pose[:, 1] = torch.from_numpy(Rotation.from_rotvec(angle * axis.numpy()).as_matrix())
    twist = twist_of(pose, rest)
    np.testing.assert_allclose(twist[:, 0], np.broadcast_to([np.cos(angle), np.sin(angle)], (5, 2)), atol=1e-9)
    np.testing.assert_allclose(twist[:, 1:], np.broadcast_to([1.0, 0.0], (5, 22, 2)), atol=1e-9)


def test_joints_do_not_depend_on_the_twists(posed):
    rest, pose, joints = posed
    other = torch.randn(5, 23, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found, rebuilt = solve_pose(joints, rest, other)
    # A twist of the chest is none: its three children show it.
    np.testing.assert_allclose(rebuilt, joints, atol=1e-6)
    np.testing.assert_allclose(found @ found.mT, torch.eye(3, dtype=torch.float64).expand_as(found), atol=1e-9)
    assert not torch.allclose(found, pose, atol=1e-2)


def test_longer_bones_keep_their_directions(posed):
    rest, pose, joints = posed
    stretched = joints[:, :1] + 1.2 * (joints - joints[:, :1])
    found, rebuilt = solve_pose(stretched, rest, twist_of(pose, rest))
    # The reconstruction has its own bone lengths and reaches for the joints seen: nearer than without adapting.
    bones = rebuilt[:, 1:24] - rebuilt[:, list(PARENTS[1:24])]
    wanted = rest[:, 1:24] - rest[:, list(PARENTS[1:24])]
    np.testing.assert_allclose(bones.norm(dim=-1), wanted.norm(dim=-1), atol=1e-9)
    np.testing.assert_allclose(found[:, 0], pose[:, 0], atol=1e-7)


def test_rodrigues_equals_scipy(rng):
    axis = rng.normal(size=(6, 3))
    axis /= np.linalg.norm(axis, axis=-1, keepdims=True)
    angle = rng.uniform(-3, 3, 6)
    got = twist_rotation(torch.from_numpy(axis), torch.from_numpy(np.stack((np.cos(angle), np.sin(angle)), -1)))
    np.testing.assert_allclose(got, Rotation.from_rotvec(axis * angle[:, None]).as_matrix(), atol=1e-12)


def test_no_direction_is_no_twist():
    assert unit_twist(torch.tensor([[0.0, 0.0], [0.0, -2.0]])).tolist() == [[1, 0], [0, -1]]


def test_solving_in_inference_mode_does_not_break_a_later_backward_pass(posed):
    rest, pose, joints = posed
    with torch.inference_mode():
        solve_pose(joints.clone(), rest.clone(), twist_of(pose, rest))
    moved = joints.clone().requires_grad_()
    solve_pose(moved, rest, twist_of(pose, rest))[0].sum().backward()
    assert torch.isfinite(moved.grad).all()


def test_gradients_are_finite(posed):
    rest, pose, joints = posed
    joints, phi = joints.clone().requires_grad_(), twist_of(pose, rest).requires_grad_()
    found, _ = solve_pose(joints, rest, phi)
    found.square().mul(torch.randn_like(found)).sum().backward()
    assert torch.isfinite(joints.grad).all()
    assert torch.isfinite(phi.grad).all()
    # Also where all joints lie in one point, as at the start of a training.
    point = torch.zeros(2, 29, 3, requires_grad=True)
    found, _ = solve_pose(point, rest[:2].float(), torch.zeros(2, 23, 2))
    found.sum().backward()
    assert torch.isfinite(found).all()
    assert torch.isfinite(point.grad).all()
