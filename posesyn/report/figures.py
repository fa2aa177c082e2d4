"""Pictures of persons and poses as Matplotlib figures. Nothing is shown by itself: save them, or return them in a
notebook."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

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
    """The image with the shaded mesh on top.

    Args:
        image: (H, W, 3) uint8 RGB.
        vertices_cam: (V, 3) metres in the full image's camera.
        faces: (F, 3) vertex indices, counter-clockwise seen from outside.
        intrinsics: (3, 3) pixels.
        color: RGB of the body.
        opacity: 1 hides the photograph behind the body.

    Returns:
        A new (H, W, 3) uint8 image; parts of the body behind the camera or outside the image are cut off.

    Raises:
        InputError: Wrong shapes, values that are not finite, or an opacity outside [0, 1].
    """
    canvas = as_rgb(image, "mesh_overlay").astype(np.float32)
    vertices = np.asarray(vertices_cam, np.float32)
    if vertices.ndim != 2 or vertices.shape[1] != 3 or np.shape(intrinsics) != (3, 3):
        raise InputError(
            "mesh_overlay needs (V, 3) vertices and (3, 3) intrinsics",
            got=f"{vertices.shape} and {np.shape(intrinsics)}",
        )
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
    """Annotated skeletons on the image; for a scored person a crop with the annotation and the prediction.

    Args:
        item: A person, a scored person, or several persons of one image.
        title: None takes the person's name.

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
        raise InputError(
            "a mesh figure needs one prediction with vertices_cam and intrinsics",
            where=f"person '{person.person_id}'",
            fix="pose the body with prediction.pose_rotmat, betas and transl_cam first",
        )
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

    Args:
        scored: The person.
        largest: Error at the dark end of the scale; None takes the person's largest.
    """
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
    """Pictures in rows.

    Args:
        images: (H, W, 3) uint8, of any sizes.
        titles: One per image, or none.
        columns: Pictures per row.
        title: Above all.
        size: Inches per picture.

    Raises:
        InputError: No images, another number of titles, or columns below 1.
    """
    if not len(images) or columns < 1 or (len(titles) and len(titles) != len(images)):
        raise InputError(
            "a grid needs images, one title each or none, and at least one column",
            where="grid_figure",
            got=f"{len(images)} images, {len(titles)} titles, {columns} columns",
        )
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
