import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, features

from posesyn.errors import InputError
from posesyn.report import animation
from posesyn.report.animation import animation_uri, clip_to_webp, encode_within, motion_frames, motion_to_webp
from tests.factories import make_clip, make_motion


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


def duration_ms(picture: Image.Image) -> int:
    total = 0
    for index in range(picture.n_frames):
        picture.seek(index)
        picture.load()  # WebP fills in the duration when it decodes the frame
        total += picture.info["duration"]
    return total


def moving(frames: int, size: int = 32) -> np.ndarray:
    """Frames that all differ, so that no encoder merges them."""
    pictures = np.zeros((frames, size, size, 3), np.uint8)
    for t in range(frames):
        pictures[t, :, : 2 + t % (size - 2)] = (200, 80, 10 + t)
    return pictures


def test_clip_becomes_an_animation_of_the_right_length():
    clip = make_clip(frames=9, size=96, fps=30.0)
    picture = opened(clip_to_webp(clip))
    assert picture.format == "WEBP" and picture.n_frames == 9 and picture.size == (96, 96)
    assert picture.info["loop"] == 0
    assert duration_ms(picture) == 300  # 9 frames at 30 per second, though one frame is not a whole millisecond


def test_colours_arrive():
    frames = np.zeros((2, 32, 32, 3), np.uint8)
    frames[0, :, :16], frames[1, :, 16:] = (220, 30, 30), (30, 30, 220)
    picture = opened(clip_to_webp(frames, fps=10))
    for index in range(2):
        picture.seek(index)
        shown = np.asarray(picture.convert("RGB")).astype(int)
        assert np.abs(shown[:, 4:12].mean((0, 1)) - frames[index, :, 4:12].mean((0, 1))).max() < 12
        assert np.abs(shown[:, 20:28].mean((0, 1)) - frames[index, :, 20:28].mean((0, 1))).max() < 12


def test_large_clips_are_downscaled():
    assert opened(clip_to_webp(make_clip(frames=2, size=200), max_size=64)).size == (64, 64)


def test_rejected_frames_are_marked_and_skeletons_drawn():
    clip = make_clip(frames=3, size=96, keep=np.array([True, False, True]))
    frames = animation.clip_frames(clip)
    assert np.array_equal(frames[0], clip.frames[0])
    assert tuple(frames[1, 0, 0]) == animation._REJECTED
    assert not np.array_equal(animation.clip_frames(clip, skeleton=True)[0], clip.frames[0])
    assert len(animation.clip_frames(clip, max_frames=2)) == 2


def test_one_frame_is_a_picture():
    assert getattr(opened(clip_to_webp(make_clip(frames=1))), "n_frames", 1) == 1


def test_gif_where_webp_is_missing(monkeypatch):
    monkeypatch.setattr(features, "check", lambda name: False)
    picture = opened(clip_to_webp(moving(4), fps=10))
    assert picture.format == "GIF" and picture.n_frames == 4
    assert animation_uri(moving(2), fps=10).startswith("data:image/gif;base64,")


def test_budget_is_kept_even_for_noise(rng):
    noise = rng.integers(0, 256, (24, 128, 128, 3), np.uint8)
    assert len(encode_within(noise, 20, 10**9)) > 200_000
    for budget in (200_000, 20_000):
        data = encode_within(noise, 20, budget)
        assert len(data) <= budget
    # The speed stays the same where frames are left out.
    reduced = opened(encode_within(noise, 20, 100_000))
    assert reduced.n_frames < 24 and abs(duration_ms(reduced) - 1200) <= 150


def test_motion_is_upright_and_moves():
    frames = motion_frames(make_motion(6), 128)
    assert frames.shape == (6, 128, 128, 3)
    assert len({frame.tobytes() for frame in frames}) == 6
    # Seen from the front, the head (middle, white) is above the feet and the person's left is on the right side.
    front = motion_frames(make_motion(1), 128, azimuth=0.0, elevation=0.0)[0].astype(int)
    blue = np.argwhere(np.abs(front - (86, 180, 233)).sum(-1) < 30)
    yellow = np.argwhere(np.abs(front - (230, 159, 0)).sum(-1) < 30)
    white = np.argwhere(np.abs(front - (245, 245, 245)).sum(-1) < 30)
    assert blue[:, 1].min() >= yellow[:, 1].max() - 1
    assert white[:, 0].mean() < blue[:, 0].mean()


def test_motion_to_webp():
    picture = opened(motion_to_webp(make_motion(5, fps=10.0), max_size=96))
    assert picture.n_frames == 5 and duration_ms(picture) == 500
    assert animation_uri(make_motion(3)).startswith("data:image/webp;base64,")


def test_long_walks_stay_in_view():
    motion = make_motion(40)
    joints = motion.joints_world.copy()
    joints[..., 0] += np.linspace(0, 30, 40)[:, None]
    frames = motion_frames(replace(motion, joints_world=joints), 96)
    for frame in frames:
        body = np.argwhere(np.abs(frame.astype(int) - (245, 245, 245)).sum(-1) < 60)
        assert len(body) and (body > 4).all() and (body < 92).all()


@pytest.mark.parametrize("frames", [np.zeros((0, 8, 8, 3), np.uint8), np.zeros((8, 8, 3), np.uint8)])
def test_no_frames(frames):
    with pytest.raises(InputError, match="needs frames"):
        clip_to_webp(frames)


def test_bad_fps():
    with pytest.raises(InputError, match="fps"):
        animation.encode_animation(moving(2), -1)


def test_motion_without_joints_is_posed_by_the_body():
    motion = make_motion(2, joints_world=None, transl_world=np.tile([[0.0, 1.15, 0.0]], (2, 1)))
    frames = motion_frames(motion, 128, azimuth=0.0, elevation=0.0).astype(int)
    blue = np.argwhere(np.abs(frames[0] - (86, 180, 233)).sum(-1) < 30)
    yellow = np.argwhere(np.abs(frames[0] - (230, 159, 0)).sum(-1) < 30)
    # A T-pose that faces the eye: as wide as high, the person's left on the right side.
    assert blue[:, 1].max() - yellow[:, 1].min() > 60
    assert blue[:, 1].min() >= yellow[:, 1].max() - 1
