"""Captioned mocap: a folder of BVH files with a list of captions and a split by subject (the form of ``data/cmu``)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from posesyn import skeletons
from posesyn.data.motions.bvh import clean_pieces
from posesyn.data.motions.bvh_file import read_bvh
from posesyn.data.motions.bvh_skeletons import bvh_skeleton
from posesyn.errors import FileError, InputError
from posesyn.types.looks import short_repr

# Captions whose terms allow weights trained on them to be shipped (data/cmu/README.md; KIT-ML has terms of its own).
FREE_CAPTIONS = ("cmu-index", "rewritten")
_FLIP = list(skeletons.get("humanml3d22").flip)
_SIDES = {"left": "right", "right": "left", "Left": "Right", "Right": "Left"}


@dataclass(frozen=True, eq=False)
class CaptionedMotion:
    """One piece of mocap with what is said about it.

    ``joints_world`` are (T, 22, 3) float32 metres, y up, order ``humanml3d22``, at ``fps`` frames per second.
    """

    motion_id: str  # "60_09", or "60_09@340" for a piece that starts at source frame 340
    joints_world: np.ndarray
    fps: float
    captions: tuple[str, ...]  # possibly none
    action: str  # its class
    subject: str  # who performed it
    skeleton: str  # of the source
    mended_frames: int = 0  # source frames that were interpolated because the capture had jumped there

    __repr__ = short_repr

    def __len__(self) -> int:
        return len(self.joints_world)

    def mirrored(self) -> CaptionedMotion:
        """The mirror image: x negated, left and right exchanged in joints and captions, id with ``M`` in front."""
        return replace(
            self,
            motion_id="M" + self.motion_id,
            joints_world=mirror_joints(self.joints_world),
            captions=tuple(mirror_caption(caption) for caption in self.captions),
        )


def mirror_joints(joints: np.ndarray) -> np.ndarray:
    """(..., 22, 3) joints mirrored at the plane x = 0, with left and right joints exchanged (as HumanML3D does)."""
    if np.shape(joints)[-2:] != (22, 3):
        raise InputError("mirror_joints needs humanml3d22 joints", expected="(..., 22, 3)", got=np.shape(joints))
    return (np.asarray(joints)[..., _FLIP, :] * np.array([-1, 1, 1])).astype(np.asarray(joints).dtype)


def mirror_caption(caption: str) -> str:
    """The caption with the words left and right exchanged."""
    letters = "".join(c if c.isalpha() else f"\0{c}\0" for c in caption)
    return "".join(_SIDES.get(word, word) for word in letters.split("\0"))


class MotionCaptions(Sequence[CaptionedMotion]):
    """The entries of a caption file whose subject is in a part of the split; motions are read when asked for.

    Args:
        captions: A ``captions.jsonl``; the BVH paths in it are relative to its folder. Fields: ``file, id, subject,
            action, skeleton, unit_to_m, fps, captions, caption_sources``.
        split: Part of the split: ``train``, ``val``, ``test``, or None for all subjects.
        split_file: JSON with ``{"subjects": {part: [...]}}``; by default ``split.json`` beside the captions.
        caption_sources: Sources whose captions are kept; None keeps all. Motions stay even if no caption does.
        fps: Rate of the motions returned.

    Raises:
        FileError: Missing or damaged caption or split file, with the line.
        InputError: Unknown part, a subject in two parts.
    """

    def __init__(
        self,
        captions: str | Path,
        split: str | None = None,
        *,
        split_file: str | Path | None = None,
        caption_sources: Sequence[str] | None = FREE_CAPTIONS,
        fps: float = 20.0,
    ) -> None:
        self.path, self.split, self.fps = Path(captions), split, fps
        self.caption_sources = None if caption_sources is None else tuple(caption_sources)
        self.entries = _read_entries(self.path)
        if split is not None:
            subjects = _read_split(Path(split_file) if split_file else self.path.parent / "split.json", split)
            self.entries = [entry for entry in self.entries if entry["subject"] in subjects]

    def __repr__(self) -> str:
        return short_repr(self, path=self.path, split=self.split, motions=len(self), fps=self.fps)

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, index):
        """The longest sound piece of entry ``index``."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return max(self.pieces(self.entries[index]), key=len)

    def all_pieces(self, min_frames: int = 40) -> Iterator[CaptionedMotion]:
        """All sound pieces of at least ``min_frames`` frames (HumanML3D's limit is 40), in the order of the file."""
        for entry in self.entries:
            yield from (piece for piece in self.pieces(entry) if len(piece) >= min_frames)

    def pieces(self, entry: dict[str, Any]) -> list[CaptionedMotion]:
        """Reads one entry, cut at glitches of the capture and resampled."""
        clip = read_bvh(self.path.parent / entry["file"], fps=entry.get("fps"), unit_to_m=entry.get("unit_to_m"))
        skeleton, free = bvh_skeleton(clip), self.caption_sources
        said = zip(entry["captions"], entry["caption_sources"], strict=True)
        captions = tuple(caption for caption, source in said if free is None or source in free)
        facts = (captions, entry.get("action", ""), entry["subject"], skeleton.name)
        motions = []
        for piece in clean_pieces(skeleton.repaired(clip)):
            name = entry["id"] if piece.start == 0 else f"{entry['id']}@{piece.start}"
            joints = skeleton.joints_world(piece.clip.resampled(self.fps)).astype(np.float32)
            motions.append(CaptionedMotion(name, joints, self.fps, *facts, piece.mended_frames))
        return motions


def load_mocap(
    folder: str | Path, split: str | None = None, *, min_frames: int = 40, mirrored: bool = False, **options: Any
) -> list[CaptionedMotion]:
    """All sound pieces of ``folder/captions.jsonl`` in memory, each followed by its mirror image if ``mirrored``.

    Args:
        folder: Holds ``captions.jsonl``, ``split.json`` and the BVH files they name.
        split, options: See :class:`MotionCaptions`.
        min_frames: Shorter pieces are left out.
        mirrored: Adds ``motion.mirrored()`` for each.
    """
    motions: list[CaptionedMotion] = []
    for piece in MotionCaptions(Path(folder) / "captions.jsonl", split, **options).all_pieces(min_frames):
        motions += [piece, piece.mirrored()] if mirrored else [piece]
    return motions


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise FileError("cannot read the file", where=path, got=str(error)) from error


def _read_entries(path: Path) -> list[dict[str, Any]]:
    needed = {"file", "id", "subject", "captions", "caption_sources"}
    entries = []
    for number, line in enumerate(_read_text(path).splitlines(), 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except json.JSONDecodeError as error:
            raise FileError("not a line of JSON", where=f"{path}, line {number}", got=str(error)) from error
        if not isinstance(entry, dict) or not needed <= set(entry):
            lacking = sorted(needed - set(entry)) if isinstance(entry, dict) else type(entry).__name__
            raise FileError("a caption entry lacks fields", where=f"{path}, line {number}", got=lacking)
        if len(entry["captions"]) != len(entry["caption_sources"]):
            raise FileError("captions and caption_sources differ in length", where=f"{path}, line {number}")
        if Path(entry["file"]).is_absolute() or ".." in Path(entry["file"]).parts:
            raise FileError("the BVH path leaves the folder", where=f"{path}, line {number}", got=entry["file"])
        entries.append(entry)
    if not entries:
        raise FileError("the caption file has no entries", where=path)
    return entries


def _read_split(path: Path, part: str) -> set[str]:
    try:
        subjects = json.loads(_read_text(path))["subjects"]
        parts = {name: set(members) for name, members in subjects.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        expected = '{"subjects": {part: [...]}}'
        raise FileError("not a split file", where=path, expected=expected, got=repr(error)) from error
    if part not in parts:
        raise InputError("unknown part of the split", where=path, expected=f"one of {sorted(parts)}", got=part)
    for name, members in parts.items():
        if name != part and members & parts[part]:
            raise InputError("a subject is in two parts of the split", where=path, got=sorted(members & parts[part]))
    return parts[part]
