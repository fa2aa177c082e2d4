from __future__ import annotations

import numpy as np
import pytest

from posesyn.data.motions.amass import save_motion
from posesyn.errors import FileError, InputError
from posesyn.synthesis.motion.prior.features import motion_features
from posesyn.training.prior.sources import (
    HumanML3DClips,
    TimedCaption,
    amass_clips,
    bvh_clips,
    normalised,
    read_captions,
)
from posesyn.types import Motion

TEXT = (
    "a man kicks something.#a/DET man/NOUN kick/VERB something/PRON#0.0#0.0\n"
    "someone turns at the end#someone/PRON turn/VERB#2.0#4.5\n"
    "\n"
    "the man stops#the/DET man/NOUN stop/VERB#nan#nan\n"
)


@pytest.fixture
def folder(tmp_path, rng):
    for name in ("new_joint_vecs", "texts"):
        (tmp_path / name).mkdir()
    for name, frames in (("000001", 120), ("M000002", 30), ("000003", 300), ("000004", 60)):
        np.save(tmp_path / "new_joint_vecs" / f"{name}.npy", rng.normal(size=(frames, 263)))
        (tmp_path / "texts" / f"{name}.txt").write_text(TEXT, encoding="utf-8")
    (tmp_path / "train.txt").write_text("000001\nM000002\n000003\n")
    np.save(tmp_path / "Mean.npy", np.full(263, 0.5))
    np.save(tmp_path / "Std.npy", np.full(263, 2.0))
    return tmp_path


def test_caption_lines(folder):
    captions = read_captions(folder / "texts" / "000001.txt")
    assert captions[1] == TimedCaption("someone turns at the end", ("someone/PRON", "turn/VERB"), 2.0, 4.5)
    assert (captions[2].start, captions[2].end) == (0, 0)
    assert captions[0].tokens[2] == "kick/VERB"


def test_humanml3d_folders_give_clips_as_t2mgpt_reads_them(folder):
    clips = HumanML3DClips(folder)
    assert [clip.clip_id for clip in clips] == ["000001", "000001#1", "000003#1"]
    assert clips[0].captions == ("a man kicks something.", "the man stops")
    whole = np.load(folder / "new_joint_vecs" / "000001.npy").astype(np.float32)
    np.testing.assert_array_equal(clips[0].features, whole)
    np.testing.assert_array_equal(clips[1].features, whole[40:90])
    assert clips[1].captions == ("someone turns at the end",)
    assert clips.skipped == 3  # 30 frames; nothing from 2 s on in it; 300 frames
    scaled = normalised(clips[:1], clips.normalizer())[0]
    np.testing.assert_allclose(scaled.features, (whole - 0.5) / 2, rtol=1e-6)


@pytest.mark.parametrize(
    ("damage", "match"),
    [
        (lambda f: (f / "texts" / "000003.txt").unlink(), "000003"),
        (lambda f: (f / "texts" / "000003.txt").write_text("no tags here\n"), "line 1"),
        (lambda f: (f / "texts" / "000003.txt").write_text("walk#walk/VERB#0.0#soon\n"), "another form"),
        (lambda f: (f / "new_joint_vecs" / "M000002.npy").write_bytes(b"PK"), "M000002"),
        (lambda f: np.save(f / "new_joint_vecs" / "M000002.npy", np.zeros((50, 251))), "no motion features"),
        (lambda f: np.save(f / "new_joint_vecs" / "M000002.npy", np.full((50, 263), np.nan)), "no motion features"),
        (lambda f: (f / "train.txt").unlink(), "list"),
    ],
)
def test_damage_is_named_and_nothing_is_skipped_in_silence(folder, damage, match):
    damage(folder)
    with pytest.raises(FileError, match=match):
        HumanML3DClips(folder)


def test_no_clip_in_the_range_is_an_error(folder):
    with pytest.raises(InputError, match="range"):
        HumanML3DClips(folder, shortest=1000, longest=2000)
    (folder / "Mean.npy").unlink()
    with pytest.raises(FileError, match=r"Mean\.npy"):
        HumanML3DClips(folder).normalizer()


@pytest.fixture(scope="module")
def body():
    from posesyn.body import load_body

    return load_body("anny", size="small")


def test_amass_files_become_features(tmp_path, rng, body):
    import torch

    from posesyn.geometry.rotations import rotvec_to_matrix

    frames = 90
    pose = (rng.normal(size=(1, 24, 3)) * 0.2 + rng.normal(size=(frames, 24, 3)).cumsum(0) * 0.005).astype(np.float32)
    transl = rng.normal(size=(frames, 3)).cumsum(0).astype(np.float32) * 0.01
    motion = Motion("walk1", pose, transl, np.zeros(10, np.float32), fps=60.0)
    save_motion(tmp_path / "walk1.npz", motion, body=body)
    clips = amass_clips({tmp_path / "walk1.npz": ["a person walks"]}, body)
    with torch.no_grad():
        joints = body.joints_only(
            rotvec_to_matrix(torch.from_numpy(pose[::3])), torch.zeros(30, 10), torch.from_numpy(transl[::3])
        )[:, :22].numpy()
    assert clips[0].captions == ("a person walks",) and clips[0].clip_id == "walk1"
    np.testing.assert_allclose(clips[0].features, motion_features(joints, None, continuous_heading=True), atol=2e-3)
    with pytest.raises(FileError):
        amass_clips({tmp_path / "none.npz": []}, body)


def test_bvh_folders_become_features(shared):
    clips = bvh_clips(shared / "data" / "cmu", "val", min_frames=200)
    assert len(clips) >= 3
    for clip in clips:
        assert clip.features.shape[1] == 263 and len(clip.features) >= 199 and clip.features.dtype == np.float32
        assert clip.captions
