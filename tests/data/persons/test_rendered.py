from __future__ import annotations

import pickle

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from posesyn.data.persons.rendered import RenderedClips
from posesyn.errors import InputError
from posesyn.storage.clip_codec import ClipCodec
from posesyn.storage.clip_store import ClipStore
from tests.factories import write_clips


@pytest.fixture
def clips(make_clip):
    keep = np.array([True, False, True, True, True])
    return [make_clip("a", keep=keep, caption="jump", person_id="coco/1#2"), make_clip("b", seed=1)]


@pytest.mark.parametrize("stored", [True, False])
def test_every_kept_frame_is_a_person_with_exact_labels(tmp_path, clips, stored):
    write_clips(tmp_path, clips, codec=ClipCodec("png"))
    persons = RenderedClips(ClipStore(tmp_path) if stored else clips)
    assert len(persons) == 9 and len(set(p.person_id for p in persons)) == 9
    person = persons[1]
    assert person.person_id == "rendered/a@0002" and person.skeleton == "smpl45" and person.captions == ("jump",)
    assert person.frame == 2 and person.meta["source_person_id"] == "coco/1#2"
    np.testing.assert_array_equal(person.image.load(), clips[0].frames[2])
    np.testing.assert_array_equal(person.keypoints_px, clips[0].keypoints_px[2])
    expected = Rotation.from_rotvec(clips[0].pose_rotvec[2]).as_matrix()
    np.testing.assert_allclose(person.labels.pose_rotmat, expected, atol=1e-6)
    np.testing.assert_array_equal(person.labels.joints_cam, clips[0].joints_cam[2])
    low, high = person.box_xyxy[:2], person.box_xyxy[2:]
    rows, columns = np.nonzero(clips[0].mask[2])
    assert (*low, *high) == (columns.min(), rows.min(), columns.max(), rows.max())
    again = pickle.loads(pickle.dumps(persons))  # noqa: S301
    np.testing.assert_array_equal(again[5].keypoints_px, persons[5].keypoints_px)
    assert persons.groups() == {"a": [0, 1, 2, 3], "b": [4, 5, 6, 7, 8]}
    assert len(persons[2:4]) == 2


def test_options(tmp_path, clips):
    assert len(RenderedClips(clips, only_kept=False)) == 10
    assert [p.frame for p in RenderedClips(clips[1:], stride=2)] == [0, 2, 4]
    write_clips(tmp_path, clips)
    assert len(RenderedClips(tmp_path)) == len(RenderedClips(str(tmp_path))) == 9


def test_frames_without_a_body_are_listed(make_clip):
    visible = np.ones((5, 45), bool)
    visible[1] = False
    mask = np.ones((5, 48, 48), bool)
    mask[1] = False
    persons = RenderedClips([make_clip(visible=visible, mask=mask)])
    assert len(persons) == 4 and persons.skipped[0][0] == "rendered/clip-0@0001"
    assert not persons[0].box_is_tight


@pytest.mark.parametrize("stored", [False, True])
def test_boxes_of_frames_without_mask_are_those_of_the_joints(make_clip, tmp_path, stored):
    clip = make_clip(mask=np.zeros((5, 48, 48), bool))
    if stored:
        write_clips(tmp_path, [clip])
    persons = RenderedClips(tmp_path if stored else [clip])
    assert len(persons) and all(person.box_is_tight for person in persons)


def test_bad_input(make_clip):
    with pytest.raises(InputError, match="same name"):
        RenderedClips([make_clip("a"), make_clip("a")])
    with pytest.raises(InputError, match="no usable frame"):
        RenderedClips([make_clip("a", keep=np.zeros(5, bool))])
    with pytest.raises(InputError, match="no usable frame"):
        RenderedClips([])
    with pytest.raises(InputError, match="stride"):
        RenderedClips([make_clip("a")], stride=0)
