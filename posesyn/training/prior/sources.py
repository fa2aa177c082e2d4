"""Motion data sets as features with captions: HumanML3D's folders, AMASS npz files, BVH files.

All give :class:`~posesyn.training.prior.data.FeatureClip` objects whose features are **not** normalised; bring them to
unit size with the statistics that belong to them (:func:`normalised`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from posesyn.data.motions.amass import load_motion
from posesyn.data.motions.captions import load_mocap
from posesyn.errors import FileError, InputError
from posesyn.synthesis.motion.prior.features import FPS
from posesyn.synthesis.motion.prior.normalizer import FEATURE_DIM, Normalizer
from posesyn.training.prior.data import FeatureClip

SHORTEST, LONGEST = 40, 199  # frames of clips that T2M-GPT trains its transformer on


@dataclass(frozen=True)
class TimedCaption:
    """One line of a HumanML3D text file."""

    text: str
    tokens: tuple[str, ...]  # word/POS items
    start: float  # seconds of the clip that it describes, to ``end``; both 0 for the whole
    end: float


def read_captions(path: str | Path) -> list[TimedCaption]:
    """Lines ``caption#word/POS word/POS ...#f_tag#to_tag`` of HumanML3D; "nan" means 0, as in its own loader.

    Raises:
        FileError: Missing, not UTF-8, or a line of another form.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise FileError("the caption file cannot be read", where=path, got=error) from error
    captions = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            text, tokens, *tags = line.strip().split("#")
            start, end = (0.0 if np.isnan(float(tag)) else float(tag) for tag in tags)
        except ValueError as error:
            where, form = f"{path}, line {number}", "caption#word/POS ...#f_tag#to_tag"
            raise FileError("a caption line has another form", where=where, expected=form, got=line[:80]) from error
        captions.append(TimedCaption(text, tuple(tokens.split()), start, end))
    return captions


class HumanML3DClips(Sequence[FeatureClip]):
    """A folder in the form of HumanML3D: ``new_joint_vecs/``, ``texts/``, ``Mean.npy``, ``Std.npy``, ``train.txt`` ...

    As T2M-GPT reads it: clips of 40 to 199 frames; captions of the whole clip make one example, and every caption with
    times one of its own, cut out at ``int(tag * 20)``. Clips beyond the range are left out and counted in ``skipped``.

    Args:
        folder: See above.
        split: Name of the ``.txt`` list.
        shortest, longest: Range of frames kept.

    Raises:
        FileError: A listed clip, its text or the list is missing or damaged; nothing is skipped in silence.
        InputError: No clip is in the range.
    """

    def __init__(
        self, folder: str | Path, split: str = "train", shortest: int = SHORTEST, longest: int = LONGEST
    ) -> None:
        self.folder, self.split, self.skipped = Path(folder), split, 0
        try:
            names = (self.folder / f"{split}.txt").read_text(encoding="utf-8").split()
        except (OSError, UnicodeDecodeError) as error:
            raise FileError("the split's list cannot be read", where=self.folder / f"{split}.txt", got=error) from error
        self._clips: list[FeatureClip] = []
        for name in names:
            features = _read_features(self.folder / "new_joint_vecs" / f"{name}.npy")
            for clip in _cut(name, features, read_captions(self.folder / "texts" / f"{name}.txt")):
                if shortest <= len(clip.features) <= longest:
                    self._clips.append(clip)
                else:
                    self.skipped += 1
        if not self._clips:
            expected, got = f"{shortest} to {longest} frames", f"{self.skipped} others"
            raise InputError("no clip has a length in the range", where=self.folder, expected=expected, got=got)

    def __len__(self) -> int:
        return len(self._clips)

    def __getitem__(self, index):
        return self._clips[index]

    def normalizer(self) -> Normalizer:
        """The folder's own ``Mean.npy`` and ``Std.npy``, named after the folder."""
        arrays = [_read_array(self.folder / name) for name in ("Mean.npy", "Std.npy")]
        return Normalizer(f"humanml3d:{self.folder.name}", *arrays)


def amass_clips(
    files: Mapping[str | Path, Sequence[str]], body, target_offsets: np.ndarray | None = None, fps: float = FPS
) -> list[FeatureClip]:
    """AMASS-style npz files (see :func:`posesyn.data.motions.amass.load_motion`) with their captions as feature clips.

    Args:
        files: Captions by path.
        body: What ``posesyn.load_body`` returns; gives the joints.
        target_offsets: (22, 3) bone vectors; see ``motion_features``.
        fps: Rate of the features. As HumanML3D does, every n-th frame is taken, n = int(file's rate / fps).

    Raises:
        FileError, InputError: See ``load_motion``; a motion shorter than two frames.
    """
    import torch

    from posesyn.geometry.rotations import rotvec_to_matrix

    clips = []
    for path, captions in files.items():
        motion = load_motion(path, body=body)
        step = max(1, int(motion.fps / fps))
        pose = torch.as_tensor(np.asarray(motion.pose_rotvec)[::step], dtype=torch.float32)
        betas = torch.as_tensor(motion.betas, dtype=torch.float32).expand(len(pose), -1)
        transl = torch.as_tensor(np.asarray(motion.transl_world)[::step], dtype=torch.float32)
        with torch.no_grad():
            joints = body.joints_only(rotvec_to_matrix(pose), betas, transl)[:, :22].numpy()
        clips.append(FeatureClip.of(motion.motion_id, joints, target_offsets, captions))
    return clips


def bvh_clips(
    folder: str | Path, split: str | None = None, target_offsets: np.ndarray | None = None, **options
) -> list[FeatureClip]:
    """A folder of BVH files with ``captions.jsonl`` and ``split.json`` (the form of ``data/cmu``) as feature clips.

    Args:
        folder, split, options: See :func:`posesyn.data.motions.captions.load_mocap`.
        target_offsets: (22, 3) bone vectors; see ``motion_features``.
    """
    motions = load_mocap(folder, split, **options)
    return [FeatureClip.of(one.motion_id, one.joints_world, target_offsets, one.captions) for one in motions]


def normalised(clips: Sequence[FeatureClip], normalizer: Normalizer) -> list[FeatureClip]:
    """The clips with features of unit size."""
    return [replace(clip, features=normalizer.normalize(clip.features).astype(np.float32)) for clip in clips]


def _cut(name: str, features: np.ndarray, captions: Sequence[TimedCaption]) -> list[FeatureClip]:
    whole = tuple(c.text for c in captions if c.start == 0 and c.end == 0)
    clips = [FeatureClip(name, features, whole)] if whole else []
    for number, caption in enumerate(captions):
        if caption.start or caption.end:
            part = features[int(caption.start * FPS) : int(caption.end * FPS)]
            clips.append(FeatureClip(f"{name}#{number}", part, (caption.text,)))
    return clips


def _read_array(path: Path) -> np.ndarray:
    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise FileError("the array cannot be read", where=path, got=error) from error


def _read_features(path: Path) -> np.ndarray:
    features = _read_array(path)
    if features.ndim != 2 or features.shape[1] != FEATURE_DIM or not np.isfinite(features).all():
        expected = f"(T, {FEATURE_DIM}), finite"
        raise FileError("these are no motion features", where=path, expected=expected, got=features.shape)
    return features.astype(np.float32)
