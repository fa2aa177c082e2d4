from __future__ import annotations

import numpy as np
import pytest
from scipy.io import savemat

from posesyn.data.crops import crop_person
from posesyn.data.persons.lspet import LspExtended
from posesyn.errors import FileError, InputError
from posesyn.estimators.hmr import SPIN_SPEC


@pytest.fixture
def files(tmp_path, rng, picture):
    joints = rng.uniform(5, 40, (14, 3, 3))
    joints[:, 2] = 1
    joints[13, 2, 0] = 0
    joints[:, 2, 2] = 0
    savemat(tmp_path / "joints.mat", {"joints": joints})
    for number in (1, 2, 3):
        picture(tmp_path / "images" / f"im{number:05d}.jpg")
    return tmp_path, joints


def test_extended_flags_labelled_joints(files):
    folder, joints = files
    persons = LspExtended(folder / "joints.mat", folder / "images")
    assert len(persons) == 2 and persons.skipped == (("lspet/im00003", "no joint is visible"),)
    person = persons[0]
    np.testing.assert_allclose(person.keypoints_px[:13], joints[:13, :2, 0] - 1, rtol=1e-5)
    assert not person.visible[13] and person.visible[:13].all() and person.skeleton == "lsp14"
    assert person.labels is None and person.joints is None and person.fit is None
    assert person.image.load().shape == (48, 64, 3)


def test_crops_of_joints_follow_spin(files):
    """nkolot/SPIN, datasets/preprocess/hr_lspet.py: 1.2 times the longer side of the joints' extent."""
    folder, joints = files
    person = LspExtended(folder / "joints.mat", folder / "images")[1]
    points = joints[:, :2, 1] - 1
    low, high = points.min(0), points.max(0)
    assert person.box_is_tight
    np.testing.assert_allclose(person.box_xyxy, [*low, *high], rtol=1e-5)
    crop = crop_person(person, SPIN_SPEC)
    np.testing.assert_allclose(crop.box_center, (low + high) / 2, rtol=1e-5)
    assert crop.box_size == pytest.approx(1.2 * (high - low).max(), rel=1e-5)


def test_original_flags_hidden_joints(files):
    folder, joints = files
    savemat(folder / "lsp.mat", {"joints": joints.transpose(1, 0, 2)})
    persons = LspExtended(folder / "lsp.mat", folder / "images", index_base=0)
    assert len(persons) == 3 and persons[0].visible.all()
    assert np.flatnonzero(~persons[0].occluded).tolist() == [13]


def test_missing_numbers_and_wrong_files(files):
    folder, _ = files
    (folder / "images" / "im00002.jpg").unlink()
    with pytest.raises(FileError, match=r"1 missing.*im00002\.jpg"):
        LspExtended(folder / "joints.mat", folder / "images")
    persons = LspExtended(folder / "joints.mat", folder / "images", on_missing="skip")
    assert len(persons) == 1 and ("lspet/im00002", "its image is missing") in persons.skipped
    savemat(folder / "pos.mat", {"pos_img": np.zeros((2, 15, 3))})
    with pytest.raises(InputError, match=r"not joints\.mat.*JHMDB"):
        LspExtended(folder / "pos.mat", folder / "images")
    savemat(folder / "odd.mat", {"joints": np.zeros((16, 3, 3))})
    with pytest.raises(InputError, match="wrong shape"):
        LspExtended(folder / "odd.mat", folder / "images")
    with pytest.raises(FileError, match="no image folder"):
        LspExtended(folder / "joints.mat", folder / "nowhere")
