import copy

import numpy as np
import pytest
import torch

from posesyn import skeletons
from posesyn.data.batches import collate, training_sample
from posesyn.errors import CheckpointError, InputError
from posesyn.estimators.crowdnet.network import CrowdNet, to_input_pose
from posesyn.geometry.cameras import apply_affine
from posesyn.interfaces import TrainableEstimator
from posesyn.types import Person


@pytest.fixture(scope="module")
def crowdnet(body):
    torch.manual_seed(0)
    return CrowdNet(body=body).eval()


@pytest.fixture
def inputs():
    generator = torch.Generator().manual_seed(0)
    joints = 64 * torch.rand(3, 30, 2, generator=generator)
    mask = (torch.rand(3, 30, 1, generator=generator) < 0.8).float()
    return torch.rand(3, 3, 256, 256, generator=generator), joints, mask


@pytest.fixture(scope="module")
def official_file(official, tmp_path_factory):
    """A published file, licensed buffers included, and its content."""
    weights = official.weights("crowdnet")
    licensed = {"module.human_model_layer.th_v_template": torch.zeros(1, 6890, 3)}
    content = {"epoch": 6, "network": {**weights, **licensed}, "optimizer": {"state": {}, "param_groups": []}}
    path = tmp_path_factory.mktemp("official") / "snapshot_6.pth.tar"
    torch.save(content, path)
    return path, content


@pytest.mark.integration
def test_official_file_gives_the_published_numbers(official, official_file, body):
    model = CrowdNet.from_official(official_file[0], body=body)
    inputs, seed, fill = official.spec("crowdnet")["inputs"], official.spec("crowdnet")["seed"], official.fill
    joints = 64 * fill.sigmoid(fill.tensor("input:joints", inputs["joints"]["shape"], seed))
    mask = (fill.tensor("input:mask", inputs["joints_mask"]["shape"], seed) > -0.8).astype(np.float32)
    arguments = (official.image("crowdnet"), torch.from_numpy(joints), torch.from_numpy(mask))
    with torch.no_grad():
        official.compare("crowdnet", model(*arguments))
    official.compare("crowdnet", model(*arguments))  # with gradients nothing is folded
    assert set(model.state_dict()) == {name.removeprefix("module.") for name in official.weights("crowdnet")}


@pytest.mark.integration
@pytest.mark.parametrize("fault", ["missing", "renamed", "shape"])
def test_faults_are_named(official_file, tmp_path, body, fault):
    name = "module.rotation_net.graph_block.2.graph_block1.fcbn_list.7.0.weight"
    network = dict(official_file[1]["network"])
    value = network.pop(name)
    if fault != "missing":
        network[name + ("_old" if fault == "renamed" else "")] = value if fault == "renamed" else value[:, :5]
    torch.save({**official_file[1], "network": network}, tmp_path / "faulty.pth.tar")
    with pytest.raises(CheckpointError, match=name.replace(".", r"\.")):
        CrowdNet.from_official(tmp_path / "faulty.pth.tar", body=body)


def test_three_persons_are_no_special_case(crowdnet, inputs):
    # torch.cross without dim crosses over a batch of three (3DCrowdNet's code did).
    with torch.no_grad():
        together = crowdnet(*inputs)
        for row in range(3):
            alone = crowdnet(*(value[row : row + 1] for value in inputs))
            for name in ("pose", "betas", "cam_t", "joint_img"):
                np.testing.assert_allclose(together[name][row], alone[name][0], atol=1e-3, err_msg=name)
    for root6d, rotation in zip(together["root_rot6d"].double().numpy(), together["pose_rotmat"][:, 0].numpy()):
        first, second = root6d[0::2], root6d[1::2]
        x = first / np.linalg.norm(first)
        y = second - (x @ second) * x
        y /= np.linalg.norm(y)
        np.testing.assert_allclose(rotation, np.stack((x, y, np.cross(x, y)), axis=1), atol=1e-5)


def test_is_a_trainable_estimator_that_asks_for_keypoints(crowdnet):
    assert isinstance(crowdnet, TrainableEstimator)
    assert crowdnet.spec.keypoints_skeleton == "coco19"
    assert crowdnet.spec.mean == (0, 0, 0)
    assert crowdnet.spec.std == (1, 1, 1)


def test_input_pose_has_pelvis_and_neck_and_masks_what_is_outside():
    points = np.tile(np.array([[100.0, 60.0]]), (17, 1))
    points[11], points[12] = (80, 160), (120, 164)
    points[9] = (300, 100)
    visible = np.ones(17, bool)
    visible[6] = False
    joints, mask = to_input_pose(points, visible)
    index = skeletons.get("smpl30").joints.index
    np.testing.assert_allclose(joints[index("pelvis")], [25, 40.5])
    assert mask[index("pelvis")] == 1
    assert mask[index("neck")] == 0  # the right shoulder is unknown
    assert mask[index("left_wrist")] == 0  # outside
    assert mask[index("head_top")] == mask[index("spine1")] == 0
    assert mask.sum() == 17 + 2 - 3


def test_predicts_in_the_full_image_from_keypoints_of_any_skeleton(crowdnet, labelled):
    found = crowdnet.predict(labelled)
    assert found.skeleton == "smpl45"
    coco = []
    for person in labelled:
        points, present = skeletons.convert(person.keypoints_px, "smpl45", "coco17", person.visible)
        coco.append(Person(person.person_id, person.image, person.box_xyxy, points, present, "coco17"))
    np.testing.assert_allclose(crowdnet.predict(coco[::-1]).pose_rotmat[::-1], found.pose_rotmat, atol=1e-3)
    # The published camera of the crop, carried to the full image by hand, says the same up to its perspective.
    sample = collate([training_sample(person, crowdnet.spec) for person in labelled])
    quiet = copy.copy(crowdnet)
    quiet.noise = None
    with torch.no_grad():
        output = crowdnet(sample["images"], *quiet.training_poses(sample))
        joints = crowdnet.body(output["pose_rotmat"], output["betas"], output["cam_t"]).joints.numpy()
    crop = joints[..., :2] / joints[..., 2:] * 5000 + 128
    for row in range(len(labelled)):
        expected = apply_affine(sample["affine"][row].numpy(), found.keypoints_px[row])
        assert np.abs(crop[row] - expected).max() < 0.01 * np.ptp(crop[row]) + 0.3


def test_persons_without_keypoints_are_refused(crowdnet, persons):
    blind = Person("blind", persons[0].image, persons[0].box_xyxy, np.zeros((17, 2)), np.zeros(17, bool), "coco17")
    with pytest.raises(InputError, match=r"needs 2D keypoints.*person 'blind'"):
        crowdnet.predict([blind])


def test_losses_reach_everything_but_the_frozen_prior(crowdnet, labelled, persons):
    model = copy.deepcopy(crowdnet).train()
    assert not model.vposer.vposer.training
    batch = collate([training_sample(person, model.spec) for person in [*labelled[:2], persons[0]]])
    losses = model.training_losses(batch)
    assert set(losses) == {
        *("body_joint_img", "smpl_joint_img", "smpl_pose", "smpl_shape", "body_joint_proj"),
        *("body_joint_cam", "smpl_joint_cam"),
    }
    sum(losses.values()).backward()
    trained = {name for name, p in model.named_parameters() if p.grad is not None}
    assert trained == {name for name, _ in model.named_parameters() if not name.startswith("vposer")}
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_the_prior_can_be_trained_along(body):
    model = CrowdNet(prior="trained", body=body)
    trained = {name for name, p in model.vposer.named_parameters() if p.requires_grad}
    assert trained == {name for name, _ in model.vposer.named_parameters() if "_dec_" in name}
    with pytest.raises(InputError, match="unknown pose prior"):
        CrowdNet(prior="thawed", body=body)


def test_input_poses_are_corrupted_in_training_and_the_draw_repeats(crowdnet, labelled):
    batch = {**collate([training_sample(person, crowdnet.spec) for person in labelled]), "batch_index": 5}
    noisy, _ = crowdnet.training_poses(batch)
    again, _ = crowdnet.training_poses(batch)
    later, _ = crowdnet.training_poses({**batch, "batch_index": 6})
    quiet = copy.copy(crowdnet)
    quiet.noise = None
    clean, clean_mask = quiet.training_poses(batch)
    assert torch.equal(noisy, again)
    assert not torch.equal(noisy, later)
    moved = (noisy - clean).norm(dim=-1)[clean_mask[..., 0] > 0]
    assert (moved > 0.01).float().mean() > 0.5  # good joints move a little, too
    assert moved.max() < 64
    # Only its own seed decides, and others' joints are used where a batch has them.
    others = batch["keypoints_px"][:, None] + 10
    near = {**batch, "neighbours_px": others, "neighbours_visible": batch["visible"][:, None]}
    assert crowdnet.training_poses(near)[0].shape == noisy.shape


def test_published_recipes(crowdnet):
    for recipe, rate, milestones in (("3dpw_crowd", 1e-4, [4, 6]), ("3dpw", 1e-3, [10])):
        made = crowdnet.published_optimizers(recipe=recipe)
        assert [group["lr"] for group in made["optimizer"].param_groups] == [rate, rate]
        assert sorted(made["lr_scheduler"]["scheduler"].milestones) == milestones
    with pytest.raises(InputError, match="unknown recipe"):
        crowdnet.published_optimizers(recipe="coco")


def test_bad_shapes(crowdnet, inputs):
    images, joints, mask = inputs
    with pytest.raises(InputError, match="images have the wrong shape"):
        crowdnet(images[..., :192], joints, mask)
    with pytest.raises(InputError, match="2D pose has the wrong shape"):
        crowdnet(images, joints[:, :17], mask)
    with pytest.raises(InputError, match="2D pose has the wrong shape"):
        crowdnet(images, joints, mask[..., 0])
