"""The conversion arrays of published codes (SPIN, PoseAug, mmpose), typed here as the oracle, against our maps."""

from __future__ import annotations

import numpy as np
import pytest

from posesyn import skeletons
from posesyn.errors import InputError

TO_LSP14 = {
    "h36m17": [3, 2, 1, 4, 5, 6, 16, 15, 14, 11, 12, 13, 8, 10],
    "h36m17_reg": [6, 5, 4, 1, 2, 3, 16, 15, 14, 11, 12, 13, 8, 10],
    "coco17": [16, 14, 12, 11, 13, 15, 10, 8, 6, 5, 7, 9, -1, -1],
    "mpii16": [0, 1, 2, 3, 4, 5, 10, 11, 12, 13, 14, 15, 8, 9],
    "op25": [11, 10, 9, 12, 13, 14, 4, 3, 2, 5, 6, 7, 1, -1],
    "3dhp28": [25, 24, 23, 18, 19, 20, 16, 15, 14, 9, 10, 11, 5, 7],
    "3dhp17": [10, 9, 8, 11, 12, 13, 4, 3, 2, 5, 6, 7, 1, 0],
    "crowdpose14": [11, 9, 7, 6, 8, 10, 5, 3, 1, 0, 2, 4, 13, 12],
    "poseaug16": [3, 2, 1, 4, 5, 6, 15, 14, 13, 10, 11, 12, 8, 9],
    "panoptic19": [14, 13, 12, 6, 7, 8, 11, 10, 9, 3, 4, 5, 0, -1],
    "aic14": [8, 7, 6, 9, 10, 11, 2, 1, 0, 3, 4, 5, 13, 12],
    "jhmdb15": [13, 9, 5, 6, 10, 14, 11, 7, 3, 4, 8, 12, 0, -1],
    "posetrack17": [16, 14, 12, 11, 13, 15, 10, 8, 6, 5, 7, 9, 1, 2],
    "smpl24": [8, 5, 2, 1, 4, 7, 21, 19, 17, 16, 18, 20, 12, 15],
}
# dst[a[i]] = src[i]
SPIN24_SLOTS = {
    "h36m17": [14, 2, 1, 0, 3, 4, 5, 16, 12, 17, 18, 9, 10, 11, 8, 7, 6],
    "h36m17_reg": [14, 3, 4, 5, 2, 1, 0, 16, 12, 17, 18, 9, 10, 11, 8, 7, 6],
    "coco17": [19, 20, 21, 22, 23, 9, 8, 10, 7, 11, 6, 3, 2, 4, 1, 5, 0],
    "mpii16": [0, 1, 2, 3, 4, 5, 14, 15, 12, 13, 6, 7, 8, 9, 10, 11],
}
SMPL45_TO_OP25 = [24, 12, 17, 19, 21, 16, 18, 20, 0, 2, 5, 8, 1, 4, 7, *range(25, 35)]
SMPL54_TO_SPIN24 = [8, 5, 45, 46, 4, 7, 21, 19, 17, 16, 18, 20, 47, 48, 49, 50, 51, 52, 53, 24, 26, 25, 28, 27]
OTHERS = {
    ("h36m17", "h36m17_reg"): [0, 4, 5, 6, 1, 2, 3, *range(7, 17)],
    ("h36m17_reg", "h36m17"): [0, 4, 5, 6, 1, 2, 3, *range(7, 17)],
    ("h36m32", "h36m17"): [0, 1, 2, 3, 6, 7, 8, 12, 13, 14, 15, 17, 18, 19, 25, 26, 27],
    ("3dhp28", "3dhp17"): [7, 5, 14, 15, 16, 9, 10, 11, 23, 24, 25, 18, 19, 20, 4, 3, 6],
    ("3dhp17", "h36m17_reg"): [14, 11, 12, 13, 8, 9, 10, 15, 1, 16, 0, 5, 6, 7, 2, 3, 4],
    ("3dhp17", "h36m17"): [14, 8, 9, 10, 11, 12, 13, 15, 1, 16, 0, 5, 6, 7, 2, 3, 4],
    ("3dhp17", "poseaug16"): [14, 8, 9, 10, 11, 12, 13, 15, 1, 0, 5, 6, 7, 2, 3, 4],
    ("h36m17", "poseaug16"): [*range(9), *range(10, 17)],
    ("h36m17_reg", "poseaug16"): [0, 4, 5, 6, 1, 2, 3, 7, 8, *range(10, 17)],
    ("spin24", "poseaug16"): [14, 2, 1, 0, 3, 4, 5, 16, 12, 18, 9, 10, 11, 8, 7, 6],
    ("op25", "coco17"): [0, 16, 15, 18, 17, 5, 2, 6, 3, 7, 4, 12, 9, 13, 10, 14, 11],
    ("op18", "coco17"): [0, 15, 14, 17, 16, 5, 2, 6, 3, 7, 4, 11, 8, 12, 9, 13, 10],
    ("panoptic19", "coco17"): [1, 15, 17, 16, 18, 3, 9, 4, 10, 5, 11, 6, 12, 7, 13, 8, 14],
    ("coco17", "op18"): [0, -1, 6, 8, 10, 5, 7, 9, 12, 14, 16, 11, 13, 15, 2, 1, 4, 3],
    ("smpl45", "op25"): SMPL45_TO_OP25,
    ("smpl54", "spin24"): SMPL54_TO_SPIN24,
    ("smpl54", "spin49"): SMPL45_TO_OP25 + SMPL54_TO_SPIN24,
    ("smpl54", "hmr2_44"): SMPL45_TO_OP25 + SMPL54_TO_SPIN24[:19],
    ("smpl45", "coco17"): [24, 26, 25, 28, 27, 16, 17, 18, 19, 20, 21, 1, 2, 4, 5, 7, 8],
    ("smpl24", "humanml3d22"): list(range(22)),
    ("h36m17_reg", "eval14"): TO_LSP14["h36m17_reg"],
    ("h36m17_reg", "eval17"): [*TO_LSP14["h36m17_reg"], 0, 7, 9],
    ("spin24", "eval17"): [*range(13), 18, 14, 16, 17],
}
_OP25_FLIP = [0, 1, 5, 6, 7, 2, 3, 4, 8, 12, 13, 14, 9, 10, 11, 16, 15, 18, 17, 22, 23, 24, 19, 20, 21]
_SPIN24_FLIP = [5, 4, 3, 2, 1, 0, 11, 10, 9, 8, 7, 6, *range(12, 20), 21, 20, 23, 22]
_SMPL24_FLIP = [0, 2, 1, 3, 5, 4, 6, 8, 7, 9, 11, 10, 12, 14, 13, 15, 17, 16, 19, 18, 21, 20, 23, 22]
FLIPS = {
    "coco17": [0, 2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13, 16, 15],
    "mpii16": [5, 4, 3, 2, 1, 0, 6, 7, 8, 9, 15, 14, 13, 12, 11, 10],
    "lsp14": [5, 4, 3, 2, 1, 0, 11, 10, 9, 8, 7, 6, 12, 13],
    "h36m17": [0, 4, 5, 6, 1, 2, 3, 7, 8, 9, 10, 14, 15, 16, 11, 12, 13],
    "h36m17_reg": [0, 4, 5, 6, 1, 2, 3, 7, 8, 9, 10, 14, 15, 16, 11, 12, 13],
    "poseaug16": [0, 4, 5, 6, 1, 2, 3, 7, 8, 9, 13, 14, 15, 10, 11, 12],
    "op25": _OP25_FLIP,
    "op18": [0, 1, 5, 6, 7, 2, 3, 4, 11, 12, 13, 8, 9, 10, 15, 14, 17, 16],
    "crowdpose14": [1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 12, 13],
    "panoptic19": [0, 1, 2, 9, 10, 11, 12, 13, 14, 3, 4, 5, 6, 7, 8, 17, 18, 15, 16],
    "aic14": [3, 4, 5, 0, 1, 2, 9, 10, 11, 6, 7, 8, 12, 13],
    "jhmdb15": [0, 1, 2, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13],
    "posetrack17": [0, 1, 2, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13, 16, 15],
    "3dhp28": [*range(8), 13, 14, 15, 16, 17, 8, 9, 10, 11, 12, 23, 24, 25, 26, 27, 18, 19, 20, 21, 22],
    "3dhp17": [0, 1, 5, 6, 7, 2, 3, 4, 11, 12, 13, 8, 9, 10, 14, 15, 16],
    "spin24": _SPIN24_FLIP,
    "spin49": _OP25_FLIP + [25 + i for i in _SPIN24_FLIP],
    "hmr2_44": _OP25_FLIP + [25 + i for i in _SPIN24_FLIP[:19]],
    "smpl24": _SMPL24_FLIP,
    "humanml3d22": _SMPL24_FLIP[:22],
    "smpl30": [*_SMPL24_FLIP, 24, 26, 25, 28, 27, 29],
}
SIZES = {
    "op25": 25,
    "coco19": 19,
    "halpe26": 26,
    "smpl45": 45,
    "smpl54": 54,
    "graph15": 15,
    "hybrik29": 29,
    "h36m32": 32,
}


@pytest.mark.parametrize("source", TO_LSP14)
def test_to_lsp14(source):
    assert skeletons.mapping(source, "lsp14").tolist() == TO_LSP14[source]


@pytest.mark.parametrize("source", SPIN24_SLOTS)
def test_spin24_slots(source):
    expected = np.full(24, -1)
    expected[SPIN24_SLOTS[source]] = np.arange(len(SPIN24_SLOTS[source]))
    assert skeletons.mapping(source, "spin24").tolist() == expected.tolist()


@pytest.mark.parametrize("source, target", OTHERS)
def test_other_conversions(source, target):
    assert skeletons.mapping(source, target).tolist() == OTHERS[source, target]


def test_raw_h36m_to_reg_up_to_its_two_repeated_points():
    published = np.array([11, 6, 7, 8, 1, 2, 3, 12, 24, 14, 15, 17, 18, 19, 25, 26, 27])
    published[published == 11], published[published == 24] = 0, 13
    assert skeletons.mapping("h36m32", "h36m17_reg").tolist() == published.tolist()


@pytest.mark.parametrize("name", FLIPS)
def test_flip(name):
    assert list(skeletons.get(name).flip) == FLIPS[name]


@pytest.mark.parametrize("name", skeletons.SKELETONS)
def test_every_set_is_consistent(name):
    skeleton = skeletons.get(name)
    assert len(set(skeleton.joints)) == len(skeleton) == SIZES.get(name, int("".join(filter(str.isdigit, name))[-2:]))
    flip = np.array(skeleton.flip)
    assert (flip[flip] == np.arange(len(skeleton))).all()
    mirrored_bones = {frozenset((flip[a], flip[b])) for a, b in skeleton.bones}
    assert mirrored_bones == {frozenset(bone) for bone in skeleton.bones}
    assert skeletons.mapping(name, name, approximate=False).tolist() == list(range(len(skeleton)))
    touched = {joint for bone in skeleton.bones for joint in bone}
    if skeleton.parents is not None:
        assert touched == set(range(len(skeleton))) and skeleton.parents.count(-1) == 1
        for joint in range(len(skeleton)):
            for _ in skeleton.joints:
                joint = max(skeleton.parents[joint], 0) if skeleton.parents[joint] >= 0 else joint
            assert skeleton.parents[joint] == -1


def test_smpl_parents():
    parents = (-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21)
    assert skeletons.get("smpl24").parents == parents
    assert skeletons.get("humanml3d22").parents == parents[:22]


@pytest.mark.parametrize(
    "source, target, lost",
    [
        ("smpl45", "coco17", ["left_hip", "right_hip"]),
        ("op25", "lsp14", ["neck", "head_top"]),
        ("posetrack17", "lsp14", ["neck"]),
        ("smpl24", "lsp14", ["right_hip", "left_hip", "neck", "head_top"]),
        ("h36m17", "lsp14", []),
        ("op25", "coco17", []),
    ],
)
def test_without_approximate_joints(source, target, lost):
    array = skeletons.mapping(source, target, approximate=False)
    assert [skeletons.get(target).joints[i] for i in np.flatnonzero(array < 0)] == lost


def test_3dcrowdnet_takes_coco_hips_for_smpl_hips():
    names = skeletons.get("smpl30")
    _, present = skeletons.convert(np.zeros((19, 2)), "coco19", "smpl30")
    assert present[[names.index(n) for n in ("pelvis", "left_hip", "neck", "nose", "right_ear", "left_ankle")]].all()
    assert not present[[names.index(n) for n in ("spine1", "head_top", "left_hand")]].any()


def test_faces_of_smpl45_and_smpl30_have_other_orders():
    assert skeletons.mapping("smpl45", "smpl30")[24:29].tolist() == [24, 26, 25, 28, 27]


def test_blazepose_goes_to_the_common_sets():
    names = skeletons.get("blazepose33").joints
    for target, found in (("coco17", 17), ("limbs12", 12), ("lsp14", 12), ("smpl24", 16)):
        rows = skeletons.mapping("blazepose33", target)
        assert (rows >= 0).sum() == found, target
        for joint, row in zip(skeletons.get(target).joints, rows):
            if row >= 0 and not joint.endswith(("hand", "foot")):
                assert names[row] == joint
    # The network's hips are no rotation centres.
    assert (skeletons.mapping("blazepose33", "smpl24", approximate=False)[1:3] == -1).all()


def test_convert_numpy_and_torch_agree(rng):
    torch = pytest.importorskip("torch")
    points = rng.normal(size=(2, 3, 17, 2)).astype(np.float32)
    visible = rng.random((2, 3, 17)) > 0.3
    out, present = skeletons.convert(points, "coco17", "lsp14", visible)
    assert out.shape == (2, 3, 14, 2) and out.dtype == np.float32 and present.dtype == bool
    assert not out[..., 12:, :].any() and not present[..., 12:].any()
    assert (out[..., 0, :] == points[..., 16, :]).all() and (present[..., 0] == visible[..., 16]).all()
    tensor = torch.from_numpy(points).requires_grad_()
    out_t, present_t = skeletons.convert(tensor, "coco17", "lsp14", torch.from_numpy(visible))
    assert (out_t.detach().numpy() == out).all() and (present_t.numpy() == present).all()
    out_t.sum().backward()
    assert tensor.grad[..., 0, :].abs().sum() == 0 and (tensor.grad[..., 16, :] == 1).all()
    assert (points == tensor.detach().numpy()).all()


def test_convert_without_mask_and_with_confidences():
    points = np.ones((17, 3))
    _, present = skeletons.convert(points, "coco17", "lsp14")
    assert present.tolist() == [True] * 12 + [False] * 2
    _, present = skeletons.convert(points, "coco17", "lsp14", np.linspace(0, 1, 17))
    assert present.dtype == bool and present[:12].all()


def test_convert_keeps_the_callers_arrays():
    points, visible = np.ones((17, 2)), np.ones(17, bool)
    skeletons.convert(points, "coco17", "lsp14", visible)
    assert (points == 1).all() and visible.all()


def test_midpoints_numpy_and_torch(rng):
    torch = pytest.importorskip("torch")
    points, confidence = rng.normal(size=(4, 17, 2)), rng.random((4, 17))
    out, conf = skeletons.add_midpoints(points, confidence)
    assert out.shape == (4, 19, 2)
    assert np.allclose(out[:, 17], (points[:, 11] + points[:, 12]) / 2)
    assert np.allclose(out[:, 18], (points[:, 5] + points[:, 6]) / 2)
    assert np.allclose(conf[:, 17], confidence[:, 11] * confidence[:, 12])
    out_t, conf_t = skeletons.add_midpoints(torch.from_numpy(points), torch.from_numpy(confidence))
    assert np.allclose(out_t.numpy(), out) and np.allclose(conf_t.numpy(), conf)
    whole, both = skeletons.add_midpoints(np.array([[0, 0]] * 11 + [[1, 2], [2, 3]] + [[0, 0]] * 4), np.ones(17, bool))
    assert whole[17].tolist() == [1.5, 2.5] and both.dtype == bool


def test_detect_h36m_order(rng):
    canon = rng.normal(size=(17, 3))
    canon[0], canon[1, 0], canon[4, 0] = 0, -0.1, 0.1
    assert skeletons.detect_h36m_order(canon) == "h36m17"
    assert skeletons.detect_h36m_order(canon[OTHERS["h36m17", "h36m17_reg"]]) == "h36m17_reg"
    canon[4, 0] = -0.1
    with pytest.raises(InputError, match="two sides"):
        skeletons.detect_h36m_order(canon)
    with pytest.raises(InputError):
        skeletons.detect_h36m_order(np.zeros((16, 3)))


def test_bad_input():
    with pytest.raises(InputError, match="coco17"):
        skeletons.get("coco")
    with pytest.raises(InputError, match="J=17"):
        skeletons.convert(np.zeros((16, 2)), "coco17", "lsp14")
    with pytest.raises(InputError, match="visible"):
        skeletons.convert(np.zeros((3, 17, 2)), "coco17", "lsp14", np.ones(17, bool))
    with pytest.raises(InputError, match="nothing"):
        skeletons.get("coco17").index("nothing")
    with pytest.raises(InputError):
        skeletons.add_midpoints(np.zeros((16, 2)), np.ones(16))
