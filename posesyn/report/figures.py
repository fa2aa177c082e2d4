"""Pictures of persons and poses as Matplotlib figures. Nothing is shown by itself: save them, or return them in a
notebook."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from posesyn import skeletons
from posesyn.errors import InputError
from posesyn.report.embedding import as_rgb
from posesyn.report.overlays import BODY, Color, crop_region, crop_square, draw_persons, person_crop_overlay, side_view
from posesyn.report.plots import SERIES, _axes, _legend, _plain
from posesyn.synthesis.rendering.mesh.rasterizer import rasterize
from posesyn.types import Person, PoseBatch, ScoredPerson

if TYPE_CHECKING:
    from posesyn.synthesis.augmentation.augmentor import Augmentor

# Light over the camera's left shoulder, and how much reaches surfaces that face away: our own choice.
_LIGHT = np.array([-0.35, -0.5, -0.8]) / np.linalg.norm([-0.35, -0.5, -0.8])
_AMBIENT = 0.35


def mesh_overlay(
    image: np.ndarray,
    vertices_cam: np.ndarray,
    faces: np.ndarray,
    intrinsics: np.ndarray,
    color: Color = BODY,
    opacity: float = 0.75,
) -> np.ndarray:
    """The image (H, W, 3) uint8 with the shaded mesh on top; parts behind the camera or outside the image are cut off.

    Args:
        image: (H, W, 3) uint8 RGB.
        vertices_cam: (V, 3) metres in the full image's camera.
        faces: (F, 3) vertex indices, counter-clockwise seen from outside.
        intrinsics: (3, 3) pixels.
        color: RGB of the body.
        opacity: 1 hides the photograph behind the body.

    Raises:
        InputError: Wrong shapes, values that are not finite, or an opacity outside [0, 1].
    """
    canvas = as_rgb(image, "mesh_overlay").astype(np.float32)
    vertices = np.asarray(vertices_cam, np.float32)
    if vertices.ndim != 2 or vertices.shape[1] != 3 or np.shape(intrinsics) != (3, 3):
        got = f"{vertices.shape} and {np.shape(intrinsics)}"
        raise InputError("mesh_overlay needs (V, 3) vertices and (3, 3) intrinsics", got=got)
    if not 0 <= opacity <= 1:
        raise InputError("opacity must be in [0, 1]", where="mesh_overlay", got=opacity)
    camera = torch.as_tensor(np.asarray(intrinsics, np.float32))[None]
    found = rasterize(torch.from_numpy(vertices)[None], faces, camera, canvas.shape[:2])
    seen = found.mask[0].numpy()
    corners = vertices[np.asarray(faces, np.int64)]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals /= np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-12)
    light = _AMBIENT + (1 - _AMBIENT) * np.clip(normals @ _LIGHT, 0, 1)
    shade = light[np.maximum(found.face_index[0].numpy(), 0)]
    body = shade[..., None] * np.asarray(color, np.float32)
    mixed = canvas * (1 - opacity) + body * opacity
    return np.where(seen[..., None], np.round(mixed), canvas).clip(0, 255).astype(np.uint8)


_CROP_PX = 384


def _picture(image: np.ndarray, title: str = "", size: float = 4.0) -> tuple[Figure, Axes]:
    height, width = image.shape[:2]
    figure = Figure(figsize=(size * width / max(height, width) + 0.2, size * height / max(height, width) + 0.4))
    axes = figure.add_subplot()
    axes.imshow(image)
    axes.set_axis_off()
    if title:
        axes.set_title(_plain(title), fontsize=9)
    return figure, axes


def skeleton_figure(item: Person | ScoredPerson | Sequence[Person], title: str | None = None) -> Figure:
    """Annotated skeletons on the image, of one person or several; for a scored person a crop with the annotation and
    the prediction. Without a title the person's name stands there.

    Raises:
        InputError: No persons. FileError: The image cannot be read.
    """
    if isinstance(item, ScoredPerson):
        name = f"{item.person.person_id}: error {item.error:.3g}"
        return _picture(person_crop_overlay(item, _CROP_PX), name if title is None else title)[0]
    persons = [item] if isinstance(item, Person) else list(item)
    if not persons:
        raise InputError("there is no person to draw", where="skeleton_figure")
    picture = draw_persons(persons[0].image.load(), persons)
    return _picture(picture, persons[0].image_id or persons[0].person_id if title is None else title, 5.0)[0]


def mesh_figure(person: Person, prediction: PoseBatch, faces: np.ndarray, title: str | None = None) -> Figure:
    """The predicted mesh on the person's image.

    Args:
        person: Whose image is shown.
        prediction: Of one person, with ``vertices_cam`` and ``intrinsics``.
        faces: (F, 3) of the body that predicted it.
        title: None takes the person's name.

    Raises:
        InputError: The prediction has no mesh or no camera.
    """
    if prediction.vertices_cam is None or prediction.intrinsics is None or len(prediction) != 1:
        problem = "a mesh figure needs one prediction with vertices_cam and intrinsics"
        fix = "pose the body with prediction.pose_rotmat, betas and transl_cam first"
        raise InputError(problem, where=f"person '{person.person_id}'", fix=fix)
    picture = mesh_overlay(person.image.load(), prediction.vertices_cam[0], faces, prediction.intrinsics[0])
    return _picture(picture, person.person_id if title is None else title, 5.0)[0]


def side_view_figure(
    joints_cam: np.ndarray, skeleton: str, azimuths: Sequence[float] = (0.0, np.pi / 4, np.pi / 2), title: str = ""
) -> Figure:
    """A 3D pose from several sides, for what the image cannot show.

    Args:
        joints_cam: (J, 3) metres, camera frame.
        skeleton: Joint order.
        azimuths: Turns about the vertical in radians; 0 is the camera's view, pi/2 from the side.
    """
    views = [side_view(joints_cam, skeleton, 240, azimuth) for azimuth in azimuths]
    return grid_figure(views, [f"{np.degrees(azimuth):.0f}°" for azimuth in azimuths], len(views), title)


def joint_heat_figure(scored: ScoredPerson, largest: float | None = None) -> Figure:
    """The person's crop with each annotated joint coloured by its error; joints that did not count are hollow.
    ``largest``
    is the error at the dark end of the scale; None takes the person's largest."""
    person = scored.person
    image = as_rgb(person.image.load(), person.person_id)
    crop, affine = crop_square(image, *crop_region([scored]), _CROP_PX)
    points = person.keypoints_px.astype(np.float64) @ affine[:, :2].T + affine[:, 2]
    used = np.asarray(scored.joint_used, bool)
    errors = np.asarray(scored.joint_errors, np.float64)
    top = largest or (float(errors[used].max()) if used.any() else 0.0) or 1.0
    figure, axes = _picture(crop, f"{person.person_id}: error {scored.error:.3g}")
    for a, b in skeletons.get(person.skeleton).bones:
        if person.visible[a] and person.visible[b]:
            axes.plot(points[[a, b], 0], points[[a, b], 1], color="white", linewidth=1.2, alpha=0.8)
    scale = Normalize(0, top)
    axes.scatter(points[used, 0], points[used, 1], c=errors[used], norm=scale, cmap="inferno_r", s=60, edgecolors="k")
    rest = person.visible & ~used
    axes.scatter(points[rest, 0], points[rest, 1], facecolors="none", edgecolors="white", s=60)
    bar = figure.colorbar(ScalarMappable(scale, "inferno_r"), ax=axes, fraction=0.046)
    bar.set_label("error of the joint", fontsize=8)
    axes.set_xlim(-0.5, _CROP_PX - 0.5)
    axes.set_ylim(_CROP_PX - 0.5, -0.5)
    return figure


def grid_figure(
    images: Sequence[np.ndarray], titles: Sequence[str] = (), columns: int = 4, title: str = "", size: float = 2.2
) -> Figure:
    """Pictures (H, W, 3) uint8 of any sizes in rows, each with a title or none, ``size`` inches wide.

    Raises:
        InputError: No images, another number of titles, or columns below 1.
    """
    if not len(images) or columns < 1 or (len(titles) and len(titles) != len(images)):
        got = f"{len(images)} images, {len(titles)} titles, {columns} columns"
        problem = "a grid needs images, one title each or none, and at least one column"
        raise InputError(problem, where="grid_figure", got=got)
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    figure = Figure(figsize=(size * columns, (size + (0.2 if len(titles) else 0)) * rows), layout="constrained")
    for place, image in enumerate(images):
        axes = figure.add_subplot(rows, columns, place + 1)
        axes.imshow(as_rgb(image, "grid_figure"))
        axes.set_axis_off()
        if len(titles):
            axes.set_title(_plain(titles[place]), fontsize=8)
    if title:
        figure.suptitle(_plain(title), fontsize=10)
    return figure


def scored_grid(scored: Sequence[ScoredPerson], columns: int = 6, title: str = "") -> Figure:
    """Crops of several scored persons with annotation and prediction, in their order."""
    if not scored:
        raise InputError("there is no person to draw", where="scored_grid")
    pictures = [person_crop_overlay(item, 192) for item in scored]
    return grid_figure(pictures, [f"{item.rank}: {item.error:.3g}" for item in scored], columns, title)


def pck_curve(
    series: Mapping[str, tuple[np.ndarray, np.ndarray]], largest: float = 150.0, unit: str = "mm", dark: bool = False
) -> Figure:
    """Percent of joints below each threshold; the mean of a curve up to 150 mm is 3DHP's AUC.

    Args:
        series: Name → (errors (N, J), used (N, J) bool), e.g. of an ``Evaluation``.
        largest: Largest threshold.
        unit: Unit of the errors.

    Raises:
        InputError: A series without a used joint, or with values that are not finite.
    """
    figure, axes = _axes(6.4, 3.6, dark)
    thresholds = np.linspace(0, largest, 151)
    for i, (name, (errors, used)) in enumerate(series.items()):
        values = np.sort(np.asarray(errors, np.float64)[np.asarray(used, bool)])
        if not len(values) or not np.isfinite(values).all():
            raise InputError("a PCK curve needs finite errors of at least one joint", where=f"series '{name}'")
        shares = 100 * np.searchsorted(values, thresholds, side="left") / len(values)
        label = f"{name}: mean {shares[::5].mean():.1f} %"
        axes.plot(thresholds, shares, color=SERIES[dark][i % 6], linewidth=1.8, label=_plain(label))
    axes.set_xlim(0, largest)
    axes.set_ylim(0, 100)
    axes.set_xlabel(f"threshold ({unit})")
    axes.set_ylabel("joints below it (%)")
    if series:
        _legend(axes, dark, loc="lower right")
    return figure


_COLOURS = {"left": "tab:blue", "right": "tab:red", "middle": "0.15"}
_AROUND = 1.3  # metres from the person at which a camera is drawn, whatever its distance


def augmentation_figure(augmentor: Augmentor, joints_cam: np.ndarray, copies: int = 3, seed: int = 0) -> Figure:
    """Poses in 3D and what an augmentor makes of each, one row per pose.

    Grey is the recorded pose, in colours (left blue, right red) the one with new bones; both stand in the frame of the
    recorded camera, which is the grey pyramid. The green pyramid is the camera that would see the person as the
    augmented pose is placed; its distance is written beside it.

    Args:
        augmentor: Drawn in eval mode, which keeps poses within human range if it knows that range.
        joints_cam: (N, 16, 3) absolute camera frame, metres.
        copies: Augmentations of each pose.
        seed: Draws them.

    Raises:
        InputError: No poses or copies, or not finite (N, 16, 3).
    """
    from posesyn.synthesis.augmentation.augmentor import NOISE

    joints_cam = np.asarray(joints_cam, np.float32)
    shaped = joints_cam.ndim == 3 and joints_cam.shape[1:] == (16, 3) and len(joints_cam) > 0
    if not shaped or not np.isfinite(joints_cam).all() or copies < 1:
        problem = "augmentation_figure needs finite poses (N, 16, 3) and at least one copy"
        raise InputError(problem, where="augmentation_figure", got=(joints_cam.shape, copies))
    generator = torch.Generator().manual_seed(seed)
    figure = Figure(figsize=(3.2 * copies, 2.9 * len(joints_cam)), layout="constrained")
    device, was_training = next(augmentor.parameters()).device, augmentor.training
    augmentor.eval()
    with torch.no_grad():
        pose, made = torch.from_numpy(joints_cam).to(device), []
        for _ in range(copies):  # noise from the CPU, so that a seed draws the same on every device
            noise = [torch.randn(len(pose), NOISE, generator=generator).to(device) for _ in range(4)]
            made.append(augmentor(pose, noise))
    augmentor.train(was_training)
    for row, source in enumerate(joints_cam):
        for column, one in enumerate(made):
            place = (len(joints_cam), copies, row * copies + column + 1)
            axes = figure.add_subplot(*place, projection="3d", proj_type="persp")
            bones, turn, move = (part[row].cpu().numpy() for part in (one.pose_bl, one.rotvec, one.translation))
            _scene(axes, source, bones, turn, move)
    return figure


def _scene(axes, source: np.ndarray, made: np.ndarray, rotvec: np.ndarray, translation: np.ndarray) -> None:
    from scipy.spatial.transform import Rotation

    back = Rotation.from_rotvec(rotvec).inv()
    _skeleton(axes, source - source[0], coloured=False)
    _skeleton(axes, made - made[0], coloured=True)
    _camera(axes, -source[0], np.eye(3), "0.6")
    _camera(axes, back.apply(-translation), back.as_matrix(), "tab:green")
    reach = 1.25
    axes.set(xlim=(-reach, reach), ylim=(-reach, reach), zlim=(-reach, reach))
    axes.set_box_aspect((1, 1, 1), zoom=1.6)
    axes.view_init(elev=18, azim=-60)
    axes.set_axis_off()
    floor = -float(max(source[:, 1].max() - source[0, 1], 0.1))
    ring = np.linspace(0, 2 * np.pi, 60)
    for radius in (0.45, 0.9):
        axes.plot(radius * np.cos(ring), radius * np.sin(ring), floor, color="0.85", lw=0.8)


def _skeleton(axes, joints: np.ndarray, *, coloured: bool) -> None:
    skeleton = skeletons.get("poseaug16")
    for parent, child in skeleton.bones:
        ends = joints[[parent, child]]
        colour, width = (_COLOURS[skeleton.sides[child]], 2.4) if coloured else ("0.7", 3.4)
        axes.plot(ends[:, 0], ends[:, 2], -ends[:, 1], color=colour, lw=width, solid_capstyle="round")


def _camera(axes, place: np.ndarray, axes_of: np.ndarray, colour: str) -> None:
    """A pyramid that opens towards the person; ``axes_of`` holds the camera's x, y, z in its columns."""
    distance = float(np.linalg.norm(place))
    eye = place / max(distance, 1e-6) * _AROUND
    corners = [eye + axes_of @ np.array((x, y, 0.22)) for x, y in ((-1, -1), (1, -1), (1, 1), (-1, 1)) * np.array(0.12)]
    lines = [(eye, corner) for corner in corners] + list(zip(corners, corners[1:] + corners[:1]))
    for start, end in lines:
        axes.plot(*np.stack((start, end))[:, [0, 2, 1]].T * np.array([[1], [1], [-1]]), color=colour, lw=1.1)
    axes.text(*(eye[[0, 2, 1]] * (1, 1, -1) + (0, 0, 0.24)), f"{distance:.1f} m", color=colour, fontsize=8, ha="center")
