import copy

import numpy as np
import pytest
import torch

from posesyn import skeletons
from posesyn.data.batches import collate, training_sample
from posesyn.errors import CheckpointError, InputError
from posesyn.estimators.crowdnet.network import CrowdNet, CrowdNetLossWeights, crowdnet_losses, to_input_pose
from posesyn.geometry.cameras import apply_affine
from posesyn.geometry.rotations import matrix_to_rotvec, rotvec_to_matrix
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
