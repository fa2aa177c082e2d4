"""What the readers of annotated photographs share: bad persons, cameras that must make sense, MATLAB files."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, Literal

import numpy as np

from posesyn import skeletons
from posesyn.errors import FileError, InputError, MissingDependencyError, UnsafeFileError
from posesyn.storage.images import ImageFile
from posesyn.types import ImageSource, Person


def xywh_to_xyxy(box_xywh: np.ndarray) -> np.ndarray:
    """COCO's corner, width, height (..., 4) → corners (..., 4) float32."""
    box = np.asarray(box_xywh, np.float32)
    return np.concatenate((box[..., :2], box[..., :2] + box[..., 2:]), axis=-1)


# A single joint, or joints in one line, must not give an empty box; pixels, our own choice.
_LEAST_SIDE = 2.0


def box_around(keypoints_px: np.ndarray, visible: np.ndarray) -> np.ndarray:
    """(4,) float32 bare extent of the visible joints, at least 2 pixels wide and high (our own choice).

    Joints lie inside the body, so it cuts off hands, feet and head: a person with it says ``box_is_tight``.

    Raises:
        InputError: No joint is visible.
    """
    points = np.asarray(keypoints_px, np.float32)[np.asarray(visible, bool)]
    if not len(points):
        raise InputError("no joint is visible, so there is no box around them")
    low, high = points.min(0), points.max(0)
    pad = np.maximum(_LEAST_SIDE - (high - low), 0) / 2
    return np.concatenate((low - pad, high + pad)).astype(np.float32)


def square_box(center: np.ndarray, side: float) -> np.ndarray:
    """(4,) float32 corners of a square around ``center`` (2,)."""
    return np.concatenate((center - side / 2, center + side / 2)).astype(np.float32)


def box_problem(box_xyxy: np.ndarray, size: tuple[int, int] | None = None) -> str | None:
    """What is wrong with a box, in words, or None.

    Args:
        box_xyxy: (4,) pixels.
        size: (width, height) of the image where known; a box without any overlap is a problem.
    """
    box = np.asarray(box_xyxy, np.float64)
    if box.shape != (4,) or not np.isfinite(box).all():
        return f"the box {np.asarray(box_xyxy).tolist()} is not four finite numbers"
    words = ", ".join(f"{value:g}" for value in box.round(1))
    if not (box[2] > box[0] and box[3] > box[1]):
        return f"the box ({words}) is empty"
    if size is not None and (box[0] >= size[0] or box[1] >= size[1] or box[2] <= 0 or box[3] <= 0):
        return f"the box ({words}) is outside the image of {size[0]} x {size[1]}"
    return None


# Focal length / longer image side. A fisheye of 170 degrees has 0.25, a 300 mm lens on a full frame 8.3; a lens in
# millimetres over an image in pixels gives about 0.02, a normalised one about 0.001. Our own choice.
_RANGE = (0.2, 20.0)


def checked_intrinsics(intrinsics: np.ndarray, where: object, size: tuple[int, int] | None = None) -> np.ndarray:
    """(3, 3) float32 intrinsics in pixels; ``size`` (width, height) of the image, None: twice the principal point.

    Raises:
        InputError: Not (3, 3) or not finite, a focal length in other units than pixels, or a principal point far
            outside the image.
    """
    matrix = np.asarray(intrinsics, np.float64)
    if matrix.shape != (3, 3) or not np.isfinite(matrix).all():
        raise InputError("intrinsics must be a finite (3, 3) matrix", where=where, got=matrix.shape)
    longer = float(max(size) if size is not None else 2 * matrix[:2, 2].max())
    ratios = np.abs(matrix[[0, 1], [0, 1]]) / max(longer, 1e-9)
    if longer <= 2 or not ((ratios >= _RANGE[0]) & (ratios <= _RANGE[1])).all():
        raise InputError(
            "the focal length is not in pixels of this image",
            where=where,
            expected=f"{_RANGE[0]:g} to {_RANGE[1]:g} times the longer side ({longer:g} px)",
            got=f"{matrix[0, 0]:g}, {matrix[1, 1]:g}",
            fix="multiply millimetres by image width / sensor width, or normalised values by the image size",
        )
    if size is not None and not all(-side < centre < 2 * side for centre, side in zip(matrix[:2, 2], size)):
        raise InputError("the principal point is far outside the image", where=where, got=matrix[:2, 2].tolist())
    return matrix.astype(np.float32)


Choice = Literal["error", "skip"]


def check_choice(value: object, name: str, choices: Sequence[object] = ("error", "skip")) -> None:
    """Raises InputError unless ``value`` is one of ``choices``."""
    if value not in choices:
        raise InputError(f"{name} is unknown", expected=" or ".join(map(repr, choices)), got=repr(value))


def resolve(folder: Path, file_name: object, where: object) -> Path:
    """Path of an annotated file inside ``folder``.

    Raises:
        InputError: No name.
        UnsafeFileError: The name leaves the folder.
    """
    if not isinstance(file_name, str) or not file_name:
        raise InputError("an image has no file name", where=where, got=repr(file_name))
    name = PurePosixPath(file_name.replace("\\", "/"))
    if name.is_absolute() or ".." in name.parts:
        raise UnsafeFileError("an annotated file name leaves the image folder", where=where, got=repr(file_name))
    return folder / name


def find_missing(folder: Path, paths: Iterable[Path], on_missing: Choice, where: object) -> set[Path]:
    """The paths that are not there.

    Raises:
        FileError: The folder is missing, or a file is and ``on_missing`` is ``"error"``.
    """
    if not folder.is_dir():
        raise FileError("there is no image folder", where=folder, fix="name the folder that holds the annotated images")
    missing = sorted({path for path in paths if not os.path.exists(path)})
    if missing and on_missing == "error":
        shown = ", ".join(path.name for path in missing[:5])
        raise FileError(
            "annotated images are missing",
            where=folder,
            got=f"{len(missing)} missing for {where}: {shown}{', ...' if len(missing) > 5 else ''}",
            fix="name the right folder, or pass on_missing='skip' to list their persons as skipped",
        )
    return set(missing)


# Our own choice: 3DHP's largest file has 500 MB.
MAX_MAT_BYTES = 2 << 30
_HDF5 = b"\x89HDF\r\n\x1a\n"
# What tells the files apart when someone passes the wrong one.
_KNOWN = {
    "RELEASE": "MPII's annotations",
    "univ_annot3": "an annotation of MPI-INF-3DHP",
    "valid_frame": "the 3DHP test set",
    "pos_img": "joint positions of JHMDB",
    "joints": "joints of LSP or LSPET",
}


def read_mat(path: Path, keys: Sequence[str], what: str) -> dict[str, Any]:
    """The variables of a MATLAB file, ``keys`` among them; ``what`` names the expected file in messages.

    Arrays of level 7.3 files have their axes in h5py's order, which is MATLAB's reversed. Structures become
    ``scipy.io.matlab.mat_struct``, squeezed.

    Raises:
        FileError: Missing or damaged.
        UnsafeFileError: Too large.
        InputError: A file of another data set.
        MissingDependencyError: A level 7.3 file without h5py.
    """
    try:
        with open(path, "rb") as handle:
            head = handle.read(520)
            size = os.fstat(handle.fileno()).st_size
    except OSError as error:
        raise FileError("could not read a mat file", where=path, got=error.strerror or str(error)) from error
    if size > MAX_MAT_BYTES:
        raise UnsafeFileError("a mat file is too large", where=path, expected=f"<= {MAX_MAT_BYTES} bytes", got=size)
    # MATLAB puts 512 bytes of its own before the HDF5 signature, other writers none.
    content = _read_hdf5(path, keys) if _HDF5 in (head[:8], head[512:520]) else _read_level5(path)
    if not set(keys) <= content.keys():
        names = sorted(key for key in content if not key.startswith("__"))
        guess = next((f" ({text})" for key, text in _KNOWN.items() if key in names), "")
        got = f"{', '.join(names) or 'none'}{guess}"
        raise InputError(f"this is not {what}", where=path, expected=f"variables {', '.join(keys)}", got=got)
    return content


def _read_level5(path: Path) -> dict[str, Any]:
    from scipy.io import loadmat  # crops, which need no such file, import this module

    try:
        return loadmat(path, struct_as_record=False, squeeze_me=True)
    except MemoryError as error:
        raise UnsafeFileError("a mat file claims more data than fits", where=path) from error
    except Exception as error:  # damaged files make SciPy raise nearly anything
        raise FileError("a mat file is damaged", where=path, got=f"{type(error).__name__}: {error}") from error


def _read_hdf5(path: Path, keys: Sequence[str]) -> dict[str, Any]:
    try:
        import h5py
    except ImportError as error:
        raise MissingDependencyError("MATLAB 7.3 files need h5py", where=path, fix="pip install h5py") from error
    try:
        with h5py.File(path, "r") as file:
            found: dict[str, Any] = dict.fromkeys(file)
            for key in found:
                if isinstance(file[key], h5py.Dataset) and (key in keys or file[key].size < 1_000_000):
                    found[key] = np.asarray(file[key])
            return found
    except (OSError, KeyError, ValueError, RuntimeError, TypeError) as error:
        raise FileError("a mat file is damaged", where=path, got=f"{type(error).__name__}: {error}") from error


@dataclass(frozen=True)
class Candidate:
    """One annotation before it is judged.

    Attributes:
        record: Whatever the reader needs to build the person.
        person_id: Unique name.
        path: Its image.
        reason: Why it is left out whatever its joints say, or None.
    """

    record: Any
    person_id: str
    path: Path
    reason: str | None = None


class AnnotatedPersons(Sequence[Person]):
    """Base of the readers: a subclass lists candidates, reads the joints of one, and states what else is known of it.

    Args:
        annotations: The annotation file or folder.
        images: Folder that the image names are relative to.
        on_missing: ``"error"`` or ``"skip"`` for persons whose image is absent.
        on_bad: ``"error"`` or ``"skip"`` for annotations with NaN or with an impossible box.
        min_keypoints: Persons with fewer visible joints are skipped.
        name: Prefix of person names.
        stride: Of readers that take every so many frames or rows; only checked here.

    Attributes:
        skipped: (person_id, reason) of each annotation that is left out.

    Raises:
        FileError: A file where a folder is meant, or a folder where a file is.
        InputError: An option out of range.
    """

    skeleton: str
    # What the first argument may be; None where annotations and images lie in one folder.
    annotated_in: ClassVar[Literal["file", "folder", "file or folder"] | None] = "file"

    def __init__(
        self,
        annotations: str | os.PathLike[str],
        images: str | os.PathLike[str],
        on_missing: Choice = "error",
        on_bad: Choice = "error",
        min_keypoints: int = 1,
        name: str = "persons",
        stride: int = 1,
    ) -> None:
        check_choice(on_missing, "on_missing")
        check_choice(on_bad, "on_bad")
        for option, value in (("min_keypoints", min_keypoints), ("stride", stride)):
            if value < 1:
                raise InputError(f"{option} must be at least 1", where=type(self).__name__, got=value)
        self.path, self.folder, self.name = Path(annotations), Path(images), name
        if self.annotated_in is not None:
            self._check_places(self.annotated_in)
        self._on_missing, self._on_bad, self._min_keypoints = on_missing, on_bad, min_keypoints
        self.skipped: tuple[tuple[str, str], ...] = ()
        self._kept: list[tuple[Any, str, Path]] = []

    def _check_places(self, wanted: str) -> None:
        """Arguments in the wrong order would end as "Is a directory" of whoever opens the first."""
        paths = (self.path, self.folder)
        kinds = ["folder" if path.is_dir() else "file" if path.exists() else "nothing" for path in paths]
        if kinds[1] != "file" and kinds[0] in (*wanted.split(" or "), "nothing"):
            return
        names = list(inspect.signature(type(self)).parameters)[:2]
        swapped = kinds == ["folder", "file"] and wanted != "folder"
        raise FileError(
            f"{names[0]} must be a {wanted} and {names[1]} a folder",
            where=type(self).__name__,
            got=", ".join(f"{name}='{path}' ({kind})" for name, path, kind in zip(names, paths, kinds)),
            fix="exchange the two, they look swapped"
            if swapped
            else "name the annotations first, then the image folder",
        )

    # -- for subclasses -----------------------------------------------------------------------------------------

    def _joints(self, record: Any, person_id: str) -> tuple[np.ndarray, np.ndarray]:
        """Keypoints (J, 2) and visible (J,) of a candidate."""
        raise InputError("a reader must say how joints are read", where=type(self).__name__)

    def _box(self, record: Any, person_id: str) -> np.ndarray | None:
        """(4,) pixels, drawn around the whole person, or None where the data set states none: then the extent of the
        joints is taken, and the person says so."""
        return None

    def _size(self, record: Any) -> tuple[int, int] | None:
        """(width, height) of the image where the annotation states it."""
        return None

    def _image(self, record: Any, path: Path) -> ImageSource:
        return ImageFile(path, "raw")

    def _facts(self, record: Any, path: Path) -> dict[str, Any]:
        """Further fields of the :class:`Person`; its ``image_id`` is the person's name unless stated."""
        return {}

    def _accept(self, candidates: Sequence[Candidate]) -> None:
        """Judges all candidates; to be called once at the end of the constructor.

        Raises:
            FileError: The folder or an image is missing and ``on_missing`` is ``"error"``.
            InputError: No candidates, two of one name, a bad one while ``on_bad`` is ``"error"``, or none is left.
        """
        if not candidates:
            raise InputError("an annotation file holds no annotations", where=self.path)
        names: set[str] = set()
        for candidate in candidates:
            if candidate.person_id in names:
                raise InputError("two annotations have the same id", where=self.path, got=candidate.person_id)
            names.add(candidate.person_id)
        missing = find_missing(self.folder, [item.path for item in candidates], self._on_missing, self.path)
        skipped = []
        for item in candidates:
            reason = item.reason or self._reason(item, item.path in missing)
            if reason is None:
                self._kept.append((item.record, item.person_id, item.path))
            else:
                skipped.append((item.person_id, reason))
        self.skipped = tuple(skipped)
        if not self._kept:
            got = f"{len(skipped)} skipped, the first because {skipped[0][1]}"
            raise InputError("no usable person is left", where=self.path, got=got)

    def _reason(self, item: Candidate, missing: bool) -> str | None:
        keypoints, visible = self._joints(item.record, item.person_id)
        if not visible.any():
            return "no joint is visible"
        if (seen := int(visible.sum())) < self._min_keypoints:
            return f"only {seen} joints are visible, {self._min_keypoints} are needed"
        if missing:
            return "its image is missing"
        bad = ~np.isfinite(keypoints).all(1) & visible
        if bad.any():
            names = [skeletons.get(self.skeleton).joints[i] for i in np.flatnonzero(bad)]
            problem: str | None = f"joints marked visible are NaN or infinite: {', '.join(names)}"
        else:
            box = self._box(item.record, item.person_id)
            box = box_around(keypoints, visible) if box is None else box
            problem = box_problem(box, self._size(item.record))
        if problem is not None and self._on_bad == "error":
            where = f"person '{item.person_id}' of {self.path}"
            raise InputError(problem, where=where, fix="correct the annotation, or pass on_bad='skip'")
        return problem

    # -- the sequence -------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._kept)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name[:80]!r}, {len(self)} persons, {len(self.skipped)} skipped)"

    def __getitem__(self, index: int | slice) -> Person | list[Person]:  # type: ignore[override]
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        record, person_id, path = self._kept[index]
        keypoints, visible = self._joints(record, person_id)
        box = self._box(record, person_id)
        facts = {"image_id": person_id, "box_is_tight": box is None, **self._facts(record, path)}
        box = box_around(keypoints, visible) if box is None else box
        return Person(person_id, self._image(record, path), box, keypoints, visible, self.skeleton, **facts)

    @property
    def person_ids(self) -> list[str]:
        """Names of all persons, without building them."""
        return [person_id for _, person_id, _ in self._kept]
