"""Persons of rendered clips, with exact labels."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from posesyn.data.persons.base import box_problem
from posesyn.errors import InputError
from posesyn.storage.clip_codec import LABELS, boxes_are_tight, frame_boxes
from posesyn.storage.clip_store import ClipStore
from posesyn.types import ArrayImage, BodyLabels, Clip, ImageSource, Person

SKELETON = "smpl45"


class RenderedClips(Sequence[Person]):
    """Each kept frame of each clip as a person, frames decoded on demand.

    Args:
        clips: A :class:`ClipStore`, the folder of one, or clips in memory.
        only_kept: Leave out frames that the filter dropped (``Clip.keep``).
        stride: Take every ``stride``-th frame.
        min_visible: Leave out frames with fewer visible joints (of 45).
        name: Prefix of person names.

    Attributes:
        skipped: (person_id, reason) of frames without a usable body in the image; frames that the filter dropped and
            those that ``stride`` passes over are not listed.

    Raises:
        InputError: No usable frame, or two clips of one name.

    Example:
        >>> standing = ps.Motion("stand", np.zeros((2, 24, 3)), np.zeros((2, 3)), np.zeros(10), fps=20.0)
        >>> persons = RenderedClips(ps.AnimationRenderer(image_size=64).render([standing], progress=False).to_list())
        >>> len(persons), persons[0].skeleton, persons[0].labels.joints_cam.shape
        (2, 'smpl45', (45, 3))
    """

    def __init__(
        self,
        clips: ClipStore | str | os.PathLike[str] | Sequence[Clip],
        *,
        only_kept: bool = True,
        stride: int = 1,
        min_visible: int = 1,
        name: str = "rendered",
    ) -> None:
        if stride < 1:
            raise InputError("stride must be at least 1", got=stride)
        if isinstance(clips, str | Path):
            clips = ClipStore(clips)
        self.name = name
        self._clips: ClipStore | list[Clip] = clips if isinstance(clips, ClipStore) else list(clips)
        ids = clips.ids if isinstance(clips, ClipStore) else [clip.clip_id for clip in self._clips]
        if len(set(ids)) != len(ids):
            twice = [name for name, count in Counter(ids).items() if count > 1]
            raise InputError("two clips have the same name", got=twice[:3])
        self._ids = tuple(ids)
        self._cache = lru_cache(maxsize=64)(self._read_labels)
        self._frames: list[tuple[int, int]] = []
        skipped, dropped = [], 0
        for row in range(len(ids)):
            labels, size = self._cache(row), self._size(row)
            for frame in range(0, len(labels["keep"]), stride):
                if only_kept and not labels["keep"][frame]:
                    dropped += 1
                    continue
                seen = int(np.sum(labels["visible"][frame]))
                reason = box_problem(labels["boxes_xyxy"][frame], size)
                if seen < min_visible:
                    reason = f"only {seen} joints are visible, {min_visible} are needed"
                if reason is None:
                    self._frames.append((row, frame))
                else:
                    skipped.append((self._person_id(row, frame), reason))
        self.skipped: tuple[tuple[str, str], ...] = tuple(skipped)
        if not self._frames:
            raise InputError(
                "no usable frame is left",
                where="RenderedClips",
                got=f"{len(ids)} clips; {dropped} frames dropped by the filter, {len(skipped)} without a usable body"
                + (f", e.g. {': '.join(skipped[0])}" if skipped else ""),
                fix="loosen the filter (a higher quantile or threshold), or pass only_kept=False" if dropped else None,
            )

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_cache": None}  # it wraps a bound method, which does not pickle

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._cache = lru_cache(maxsize=64)(self._read_labels)

    def __len__(self) -> int:
        return len(self._frames)

    def __repr__(self) -> str:
        counts = f"{len(self)} persons of {len(self._ids)} clips, {len(self.skipped)} skipped"
        return f"RenderedClips({self.name[:80]!r}, {counts})"

    def __getitem__(self, index: int | slice) -> Person | list[Person]:  # type: ignore[override]
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        row, frame = self._frames[index]
        labels = self._cache(row)
        truth = {name: labels[name][frame] for name in ("pose_rotmat", "transl_cam", "joints_cam")}
        head = self._clips.header(row) if isinstance(self._clips, ClipStore) else self._clips[row]
        return Person(
            self._person_id(row, frame),
            self._image(row, frame),
            labels["boxes_xyxy"][frame],
            labels["keypoints_px"][frame],
            labels["visible"][frame].astype(bool),
            SKELETON,
            captions=(head.caption,) if head.caption else (),
            labels=BodyLabels(betas=labels["betas"], intrinsics=labels["intrinsics"], **truth),
            image_id=f"{self.name}/{self._ids[row]}@{frame:04d}",
            track_id=f"{self.name}/{self._ids[row]}",
            meta={**head.meta, "clip_id": self._ids[row], "source_person_id": head.person_id},
            frame=frame,
            box_is_tight=bool(labels["boxes_tight"][frame]),
        )

    def groups(self) -> dict[str, list[int]]:
        """Positions of the persons of each clip."""
        found: dict[str, list[int]] = {}
        for position, (row, _) in enumerate(self._frames):
            found.setdefault(self._ids[row], []).append(position)
        return found

    def _person_id(self, row: int, frame: int) -> str:
        return f"{self.name}/{self._ids[row]}@{frame:04d}"

    def _size(self, row: int) -> tuple[int, int]:
        shape = self._clips.header(row).shape if isinstance(self._clips, ClipStore) else self._clips[row].frames.shape
        return shape[2], shape[1]

    def _image(self, row: int, frame: int) -> ImageSource:
        if isinstance(self._clips, ClipStore):
            return self._clips.frame(row, frame)
        return ArrayImage(self._clips[row].frames[frame], f"{self._ids[row]}@{frame:04d}")

    def _read_labels(self, row: int) -> Mapping[str, np.ndarray]:
        if isinstance(self._clips, ClipStore):
            labels = dict(self._clips.labels(row))
        else:
            clip = self._clips[row]
            labels = {name: np.asarray(getattr(clip, name)) for name in LABELS}
            labels["boxes_xyxy"], labels["boxes_tight"] = frame_boxes(clip), boxes_are_tight(clip)
        labels["pose_rotmat"] = rotation_matrices(labels["pose_rotvec"])
        return labels


def rotation_matrices(rotvec: np.ndarray) -> np.ndarray:
    """(..., 3) rotation vectors → (..., 3, 3) float32, without torch."""
    matrices = Rotation.from_rotvec(np.asarray(rotvec, np.float64).reshape(-1, 3)).as_matrix()
    return matrices.reshape(*np.shape(rotvec)[:-1], 3, 3).astype(np.float32)
