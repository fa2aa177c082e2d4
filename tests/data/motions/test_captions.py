"""Captioned mocap with a split by subject."""

from __future__ import annotations

import json

import numpy as np
import pytest

from posesyn.data.motions.captions import MotionCaptions, load_mocap, mirror_caption, mirror_joints
from posesyn.errors import FileError, InputError


@pytest.fixture(scope="session")
def cmu(shared):
    return shared / "data" / "cmu"


def test_split_by_subject(cmu):
    parts = {part: MotionCaptions(cmu / "captions.jsonl", part) for part in ("train", "val", "test")}
    subjects = {part: {entry["subject"] for entry in data.entries} for part, data in parts.items()}
    assert sum(map(len, parts.values())) == len(MotionCaptions(cmu / "captions.jsonl")) == 320
    assert {"60", "61"} <= subjects["train"]  # partners of the same takes
    assert not subjects["train"] & (subjects["val"] | subjects["test"])
    with pytest.raises(InputError, match="one of"):
        MotionCaptions(cmu / "captions.jsonl", "training")


def test_motions(cmu):
    data = MotionCaptions(cmu / "captions.jsonl", "train")
    motion = data[0]
    assert motion.motion_id == "01_01" and motion.subject == "01" and motion.fps == 20
    assert motion.joints_world.dtype == np.float32 and motion.joints_world.shape == (459, 22, 3)
    assert not any("4 hops" in caption for caption in motion.captions)  # KIT-ML's terms
    everything = MotionCaptions(cmu / "captions.jsonl", "train", caption_sources=None, fps=30)[0]
    assert any("4 hops" in caption for caption in everything.captions) and len(everything) == 688
    glitched = next(entry for entry in data.entries if entry["id"] == "01_07")
    pieces = data.pieces(glitched)
    assert [piece.motion_id for piece in pieces] == ["01_07", "01_07@841"]
    assert [len(motion) for motion in data[:2]] == [459, 725]


def test_mirror(cmu):
    motion = MotionCaptions(cmu / "captions.jsonl", "val")[0]
    mirrored = motion.mirrored()
    assert mirrored.motion_id == "M" + motion.motion_id
    np.testing.assert_array_equal(mirrored.mirrored().joints_world, motion.joints_world)
    np.testing.assert_array_equal(mirrored.joints_world[:, 4, 0], -motion.joints_world[:, 5, 0])
    assert mirror_caption("Left hand, then right; leftover (right-left)") == (
        "Right hand, then left; leftover (left-right)"
    )
    with pytest.raises(InputError, match="22"):
        mirror_joints(np.zeros((2, 24, 3)))


@pytest.mark.integration
def test_load_mocap(cmu):
    motions = load_mocap(cmu, "val", min_frames=60, mirrored=True)
    assert len(motions) % 2 == 0 and min(map(len, motions)) >= 60
    assert len({motion.motion_id for motion in motions}) == len(motions)
    for motion in motions:
        speed = np.linalg.norm(np.diff(motion.joints_world, axis=0), axis=-1).max() * motion.fps
        assert np.isfinite(motion.joints_world).all() and speed < 13


def test_bad_caption_files(tmp_path):
    path = tmp_path / "captions.jsonl"
    good = {"file": "a.bvh", "id": "a", "subject": "1", "captions": ["x"], "caption_sources": ["y"]}

    def written(*entries):
        path.write_text("\n".join(e if isinstance(e, str) else json.dumps(e) for e in entries))
        return path

    with pytest.raises(FileError, match="absent"):
        MotionCaptions(tmp_path / "absent.jsonl")
    with pytest.raises(FileError, match="no entries"):
        MotionCaptions(written(""))
    with pytest.raises(FileError, match="line 2"):
        MotionCaptions(written(good, "{"))
    with pytest.raises(FileError, match=r"line 2.*subject"):
        MotionCaptions(written(good, {k: v for k, v in good.items() if k != "subject"}))
    with pytest.raises(FileError, match="differ in length"):
        MotionCaptions(written({**good, "caption_sources": []}))
    with pytest.raises(FileError, match="leaves the folder"):
        MotionCaptions(written({**good, "file": "../../etc/passwd"}))
    written(good)
    with pytest.raises(FileError, match="split"):
        MotionCaptions(path, "train")
    (tmp_path / "split.json").write_text('{"subjects": {"train": ["1"], "val": ["1"]}}')
    with pytest.raises(InputError, match="two parts"):
        MotionCaptions(path, "train")
    (tmp_path / "split.json").write_text("[1]")
    with pytest.raises(FileError, match="not a split"):
        MotionCaptions(path, "train")
