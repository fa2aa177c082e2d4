"""Skeletons, masks and person crops drawn onto images. Every function returns a new image, its input stays as it is."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import cv2
import numpy as np

from posesyn import skeletons
from posesyn.errors import InputError
from posesyn.report.embedding import as_rgb
from posesyn.types import Clip, Person, PoseBatch, ScoredPerson

Color = tuple[int, int, int]

# Okabe & Ito's palette ("Color Universal Design", 2008): distinguishable with every common colour blindness.
TRUTH: Color = (0, 190, 140)
PREDICTION: Color = (240, 110, 20)
LEFT: Color = (86, 180, 233)
RIGHT: Color = (230, 159, 0)
CENTER: Color = (245, 245, 245)
BODY: Color = (204, 121, 167)
# One per person of a picture, in turn: the same palette and a red, its black left out.
PERSONS: tuple[Color, ...] = (
    *((240, 110, 20), (86, 180, 233), (0, 190, 140), (240, 228, 66), (204, 121, 167), (60, 110, 230)),
    *((220, 50, 50), (245, 245, 245)),
)

# Sub-pixel drawing in cv2: coordinates are integers with this many fractional bits.
_FRACTION_BITS = 4
# cv2 stores coordinates in 32 bits; points far outside the image are pulled to this distance before drawing.
_FAR_PX = 100_000.0
# Crops may grow to this multiple of the annotated box to show a prediction that lies beside it: our own choice.
_MAX_CROP_GROWTH = 2.0


@lru_cache(maxsize=64)
def _joint_colors(skeleton: str) -> tuple[Color, ...]:
    """One colour per joint: left, right, or centre where the joint is its own mirror image."""
    colors = {"left": LEFT, "right": RIGHT, "middle": CENTER}
    return tuple(colors[side] for side in skeletons.get(skeleton).sides)


def _thickness(points: np.ndarray, image: np.ndarray) -> float:
    """Line width in pixels that suits the drawn person: 1.5 % of its extent, our own choice."""
    extent = float(np.ptp(points, axis=0).max()) if len(points) else 0.0
    largest = max(image.shape[:2])
    return float(np.clip(0.015 * min(extent, largest), 1.0, max(1.0, 0.012 * largest)))


def draw_skeleton(
    image: np.ndarray,
    keypoints_px: np.ndarray,
    visible: np.ndarray,
    skeleton: str,
    color: Color | None = None,
    thickness: float | None = None,
) -> np.ndarray:
    """Draws bones and joints with a dark rim, so that they stand out on any background.

    Args:
        image: (H, W, 3) uint8 RGB.
        keypoints_px: (J, 2) pixels, integer = pixel centre.
        visible: (J,) bool; a bone is drawn where both its ends are visible.
        skeleton: Name of the joint set.
        color: One RGB colour for everything; None colours the person's left, right and middle differently.
        thickness: Line width in pixels; None chooses by the size of the person.

    Raises:
        InputError: Shapes that do not fit the skeleton, or an image that is not RGB.
    """
    canvas = as_rgb(image, "draw_skeleton").copy()
    known = skeletons.get(skeleton)
    points, visible = np.asarray(keypoints_px, np.float64), np.asarray(visible, bool)
    if points.shape != (len(known.joints), 2) or visible.shape != (len(known.joints),):
        problem = f"draw_skeleton needs (J, 2) points and (J,) flags of skeleton '{skeleton}'"
        raise InputError(problem, expected=f"J={len(known.joints)}", got=f"{points.shape} and {visible.shape}")
    visible = visible & np.isfinite(points).all(-1)
    if not visible.any():
        return canvas
    width = _thickness(points[visible], canvas) if thickness is None else float(thickness)
    colors = _joint_colors(skeleton) if color is None else (tuple(color),) * len(known.joints)
    fixed = np.round(np.clip(np.nan_to_num(points), -_FAR_PX, _FAR_PX) * 2**_FRACTION_BITS).astype(int)
    bones = [(a, b) for a, b in known.bones if visible[a] and visible[b]]
    # The rim of everything comes before the colour of anything, so crossing limbs stay readable.
    for rim in (True, False):
        line = max(1, round(width + (2 if rim else 0)))
        for a, b in bones:
            # A bone takes the colour of its sided end: the hip bone is left although it starts at the pelvis.
            tint = colors[b] if colors[b] != CENTER else colors[a]
            shade = (20, 20, 20) if rim else tint
            cv2.line(canvas, fixed[a].tolist(), fixed[b].tolist(), shade, line, cv2.LINE_AA, _FRACTION_BITS)
        for i in np.flatnonzero(visible):
            radius = round((width * 1.1 + (1 if rim else 0)) * 2**_FRACTION_BITS)
            shade = (20, 20, 20) if rim else colors[i]
            cv2.circle(canvas, fixed[i].tolist(), radius, shade, cv2.FILLED, cv2.LINE_AA, _FRACTION_BITS)
    return canvas


def draw_persons(image: np.ndarray, persons: Sequence[Person], color: Color | None = None) -> np.ndarray:
    """The annotated skeleton and box of each person, on a copy of ``image`` (H, W, 3) uint8."""
    canvas = as_rgb(image, "draw_persons").copy()
    for person in persons:
        corners = np.clip(np.round(person.body_box_xyxy), -_FAR_PX, _FAR_PX).astype(int)
        cv2.rectangle(canvas, corners[:2].tolist(), corners[2:].tolist(), color or CENTER, 1, cv2.LINE_AA)
        canvas = draw_skeleton(canvas, person.keypoints_px, person.visible, person.skeleton, color)
    return canvas


def draw_predictions(image: np.ndarray, predictions: PoseBatch, boxes_xyxy: np.ndarray) -> np.ndarray:
    """Everybody who was predicted in one picture: projected skeleton, box and number, a colour of its own for each.

    Args:
        image: (H, W, 3) uint8.
        predictions: Of N persons.
        boxes_xyxy: (N, 4) pixels.
    """
    canvas = as_rgb(image, "draw_predictions").copy()
    shown = _body_joints(predictions.skeleton)
    size = float(np.clip(max(canvas.shape[:2]) / 900, 0.4, 3.0))
    line = max(1, round(1.5 * size))
    for row, (points, box) in enumerate(zip(predictions.keypoints_px, np.asarray(boxes_xyxy, np.float64))):
        color = PERSONS[row % len(PERSONS)]
        x0, y0, x1, y1 = np.clip(np.round(box), -_FAR_PX, _FAR_PX).astype(int).tolist()
        cv2.rectangle(canvas, (x0, y0), (x1, y1), color, line, cv2.LINE_AA)
        canvas = draw_skeleton(canvas, points, shown, predictions.skeleton, color)
        # Inside the upper left corner of what is seen of the box, on a rim that keeps it readable.
        place = max(x0, 0) + 3 * line, max(y0, 0) + round(24 * size)
        for tint, width in (((20, 20, 20), 3 * line), (color, line)):
            cv2.putText(canvas, str(row + 1), place, cv2.FONT_HERSHEY_SIMPLEX, 0.8 * size, tint, width, cv2.LINE_AA)
    return canvas


def crop_region(scored: Sequence[ScoredPerson]) -> tuple[np.ndarray, float]:
    """Centre (2,) and side in pixels of a square that holds one person and, within reason, all predictions for it."""
    person = scored[0].person
    box = np.asarray(person.body_box_xyxy, np.float64)
    truth = np.concatenate([box.reshape(2, 2), person.keypoints_px[person.visible].astype(np.float64)])
    low, high = truth.min(0), truth.max(0)
    limit = _MAX_CROP_GROWTH * max(float((high - low).max()), 1.0)
    center = (low + high) / 2
    predicted = np.concatenate([np.asarray(one.prediction.keypoints_px[0], np.float64) for one in scored])
    near = np.isfinite(predicted).all(-1) & (np.abs(predicted - center) < limit / 2).all(-1)
    inside = np.concatenate([truth, predicted[near]])
    low, high = inside.min(0), inside.max(0)
    return (low + high) / 2, 1.15 * max(float((high - low).max()), 8.0)


def crop_square(image: np.ndarray, center: np.ndarray, side: float, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Square cut-out resized to ``size``; grey beyond the image. Returns it and the (2, 3) map full px → crop px."""
    scale = size / side
    # Pixel centres are integers, so the middle of the crop is at (size - 1) / 2.
    offset = (size - 1) / 2 - scale * np.asarray(center, np.float64)
    affine = np.array([[scale, 0.0, offset[0]], [0.0, scale, offset[1]]])
    if scale < 0.5:  # bilinear sampling of a much larger image would skip pixels
        image = cv2.GaussianBlur(image, (0, 0), 0.4 / scale)
    crop = cv2.warpAffine(image, affine, (size, size), flags=cv2.INTER_LINEAR, borderValue=(128, 128, 128))
    return crop, affine


def person_crop_overlay(
    scored: ScoredPerson, size: int = 256, region: tuple[np.ndarray, float] | None = None
) -> np.ndarray:
    """The person (size, size, 3) with the annotated joints (:data:`TRUTH`) and all of the projected prediction
    (:data:`PREDICTION`). ``region`` is the centre (2,) and side in pixels of the square to show; None takes
    :func:`crop_region`.

    Raises:
        FileError: The image cannot be read.
    """
    person, prediction = scored.person, scored.prediction
    image = as_rgb(person.image.load(), person.person_id)
    crop, affine = crop_square(image, *(region or crop_region([scored])), size)
    layers = (
        (prediction.keypoints_px[0], _body_joints(prediction.skeleton), prediction.skeleton, PREDICTION),
        (person.keypoints_px, person.visible & _body_joints(person.skeleton), person.skeleton, TRUTH),
    )
    for points, visible, skeleton, color in layers:
        in_crop = np.asarray(points, np.float64) @ affine[:, :2].T + affine[:, 2]
        crop = draw_skeleton(crop, in_crop, visible, skeleton, color, thickness=max(1.0, size / 130))
    return crop


def _body_joints(skeleton: str) -> np.ndarray:
    """(J,) bool: all joints but the finger tips, which only clutter a small picture."""
    return np.array([not name.endswith("_tip") for name in skeletons.get(skeleton).joints])


def mask_overlay(clip: Clip, frame: int, color: Color = BODY, opacity: float = 0.45) -> np.ndarray:
    """Frame ``frame`` of a clip with the body's mask tinted and outlined; (H, W, 3) uint8.

    Raises:
        InputError: The clip has no such frame.
    """
    if not -len(clip) <= frame < len(clip):
        raise InputError("no such frame", where=f"clip '{clip.clip_id}'", expected=f"0..{len(clip) - 1}", got=frame)
    image = as_rgb(clip.frames[frame], f"clip '{clip.clip_id}'")
    mask = np.asarray(clip.mask[frame], bool)
    tinted = image.astype(np.float32) * (1 - opacity) + np.asarray(color, np.float32) * opacity
    canvas = np.where(mask[..., None], np.round(tinted), image).astype(np.uint8)
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(canvas, contours, -1, color, max(1, round(max(mask.shape) / 200)), cv2.LINE_AA)
    return canvas


def clip_overlay(clip: Clip, frame: int) -> np.ndarray:
    """Frame ``frame`` of a clip with its exact 2D joints; (H, W, 3) uint8."""
    shown = clip.visible[frame] & _body_joints("smpl45")
    return draw_skeleton(clip.frames[frame], clip.keypoints_px[frame], shown, "smpl45")


def side_view(
    joints_cam: np.ndarray, skeleton: str, size: int = 192, azimuth: float = np.pi / 2, background: int = 38
) -> np.ndarray:
    """A 3D pose seen from the side (orthographic), (size, size, 3) uint8, for what the image cannot show: its depth.

    Args:
        joints_cam: (J, 3) metres, OpenCV camera frame.
        azimuth: Turn about the vertical in radians; 0 is the camera's own view, pi/2 looks from the camera's right,
            with the camera towards the left edge of the picture.
        background: Grey level of the ground.
    """
    joints = np.asarray(joints_cam, np.float64)
    canvas = np.full((size, size, 3), background, np.uint8)
    shown = _body_joints(skeleton) & np.isfinite(joints).all(-1)
    if not shown.any():
        return canvas
    across = joints[:, 0] * np.cos(azimuth) + joints[:, 2] * np.sin(azimuth)
    flat = np.stack([across, joints[:, 1]], -1)
    low, high = flat[shown].min(0), flat[shown].max(0)
    # Never closer than a 1.6 m frame, so that a crouching person looks smaller than a standing one: our own choice.
    scale = 0.88 * size / max(float((high - low).max()), 1.6)
    points = (flat - (low + high) / 2) * scale + (size - 1) / 2
    return draw_skeleton(canvas, points, shown, skeleton, thickness=max(1.0, size / 90))
