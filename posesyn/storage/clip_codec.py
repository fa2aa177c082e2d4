"""One clip as members of a tar archive, and back.

Members of a clip with key ``000123`` (a plain webdataset sample): ``000123.clip.json`` (names, caption, frame size,
CRC-32 of the other members), ``000123.labels.npz``, ``000123.mask.npz`` (one row of ``numpy.packbits`` per frame),
``000123.0000.jpg`` ... (frames) and, if stored, ``000123.0000.depth.png`` ... (16 bit, millimetres, 0 = no body).
"""

from __future__ import annotations

import io
import json
import tarfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np

from posesyn.errors import FileError, InputError
from posesyn.storage.files import dump_json, npz_bytes, read_npz
from posesyn.storage.images import decode_image
from posesyn.types import Clip
from posesyn.types.looks import short_repr

FrameFormat = Literal["jpg", "png", "webp"]
VERSION = 1
END_OF_ARCHIVE = bytes(1024)
LABELS = ("pose_rotvec", "betas", "transl_cam", "joints_cam", "keypoints_px", "visible", "intrinsics", "keep")
# Our own limits for what a clip from an unknown source may claim.
_MAX_FRAMES, _MAX_SIDE, _MAX_LABEL_BYTES, _MAX_MASK_BYTES = 20_000, 16_384, 256 << 20, 512 << 20


@dataclass(frozen=True)
class ClipCodec:
    """How frames are stored.

    Attributes:
        frame_format: ``"jpg"`` and ``"webp"`` lose detail, ``"png"`` does not.
        quality: 1 to 100, for the first two.
        depth: Whether depth maps are kept (about as large as the frames).
    """

    frame_format: FrameFormat = "jpg"
    quality: int = 95
    depth: bool = True

    def __post_init__(self) -> None:
        if self.frame_format not in ("jpg", "png", "webp"):
            raise InputError("unknown frame format", expected="jpg, png or webp", got=self.frame_format)
        if not 1 <= self.quality <= 100:
            raise InputError("ClipCodec.quality is out of range", expected="1 to 100", got=self.quality)

    def encode(self, clip: Clip) -> dict[str, bytes]:
        """Member suffix → content. Equal clips give equal bytes."""
        labels = {name: _narrow(getattr(clip, name)) for name in LABELS}
        labels["boxes_xyxy"], labels["boxes_tight"] = frame_boxes(clip), boxes_are_tight(clip)
        bits = np.packbits(np.asarray(clip.mask, bool).reshape(len(clip), -1), axis=1)
        members = {"labels.npz": npz_bytes(labels), "mask.npz": npz_bytes({"mask_bits": bits})}
        for index, frame in enumerate(clip.frames):
            members[f"{index:04d}.{self.frame_format}"] = self._encode_frame(frame)
        if self.depth:
            for index, depth in enumerate(clip.depth):
                members[f"{index:04d}.depth.png"] = _encode_depth(depth)
        header = {
            "version": VERSION,
            "clip_id": clip.clip_id,
            "frame_format": self.frame_format,
            "shape": clip.frames.shape[:3],
            "fps": float(clip.fps),
            "caption": clip.caption,
            "motion_id": clip.motion_id,
            "person_id": clip.person_id,
            "depth": self.depth,
            "meta": dict(clip.meta),
            "crc32": {name: zlib.crc32(data) for name, data in members.items()},
        }
        return {"clip.json": dump_json(header).encode(), **members}

    def _encode_frame(self, frame: np.ndarray) -> bytes:
        options = {
            "jpg": [cv2.IMWRITE_JPEG_QUALITY, self.quality],
            "webp": [cv2.IMWRITE_WEBP_QUALITY, self.quality],
            "png": [cv2.IMWRITE_PNG_COMPRESSION, 3],
        }[self.frame_format]
        done, data = cv2.imencode("." + self.frame_format, frame[..., ::-1], options)
        if not done:
            got = f"{frame.shape} {frame.dtype}"
            raise InputError("a frame cannot be encoded", expected=self.frame_format, got=got)
        return data.tobytes()


def _encode_depth(depth: np.ndarray) -> bytes:
    millimetres = np.nan_to_num(np.asarray(depth, np.float32) * 1000, posinf=0, neginf=0)
    pixels = np.rint(np.clip(millimetres, 0, 65535)).astype(np.uint16)
    done, data = cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    if not done:
        raise InputError("a depth map cannot be encoded", got=depth.shape)
    return data.tobytes()


def _narrow(value: Any) -> np.ndarray:
    array = np.asarray(value)
    return array if array.dtype == bool else array.astype(np.float32)


def frame_boxes(clip: Clip) -> np.ndarray:
    """(T, 4) float32 boxes x1 y1 x2 y2 in pixels around the body in each frame, from the mask where it shows the body,
    else from the joints inside the image; zero-sized where there is neither."""
    boxes = np.zeros((len(clip), 4), np.float32)
    height, width = clip.frames.shape[1:3]
    for index in range(len(clip)):
        columns = np.flatnonzero(clip.mask[index].any(0))
        rows = np.flatnonzero(clip.mask[index].any(1))
        if len(columns):
            boxes[index] = columns[0], rows[0], columns[-1], rows[-1]
            continue
        points = clip.keypoints_px[index][np.asarray(clip.visible[index], bool)]
        if len(points):
            corners = np.clip((points.min(0), points.max(0)), 0, (width - 1, height - 1))
            boxes[index] = corners.ravel()
    return boxes


def boxes_are_tight(clip: Clip) -> np.ndarray:
    """(T,) bool: whether the box of :func:`frame_boxes` is that of the joints, since the mask shows no body."""
    return np.array([not mask.any() for mask in clip.mask], bool)


def tar_payload(key: str, members: Mapping[str, bytes]) -> bytes:
    """Members as tar blocks without the end mark, so that payloads can be joined. Equal members give equal bytes."""
    buffer = io.BytesIO()
    for suffix, data in members.items():
        info = tarfile.TarInfo(f"{key}.{suffix}")
        info.size, info.mtime, info.mode = len(data), 0, 0o644
        buffer.write(info.tobuf(tarfile.USTAR_FORMAT) + data + bytes(-len(data) % 512))
    return buffer.getvalue()


@dataclass(frozen=True, eq=False, repr=False)
class ClipHeader:
    """The checked content of ``clip.json``."""

    clip_id: str
    frame_format: str
    shape: tuple[int, ...]
    fps: float
    caption: str
    motion_id: str
    person_id: str | None
    depth: bool
    meta: dict[str, Any]
    crc32: dict[str, int]

    __repr__ = short_repr

    def frame_member(self, index: int) -> str:
        return f"{index:04d}.{self.frame_format}"


def parse_header(data: bytes, where: object) -> ClipHeader:
    """Reads ``clip.json``. Raises FileError: not JSON, another version, or values that no clip has."""
    try:
        value = json.loads(data)
        if value["version"] != VERSION:
            raise FileError("a clip has another format version", where=where, expected=VERSION, got=value["version"])
        header = ClipHeader(
            clip_id=str(value["clip_id"]),
            frame_format=value["frame_format"],
            shape=tuple(int(side) for side in value["shape"]),
            fps=float(value["fps"]),
            caption=str(value["caption"]),
            motion_id=str(value["motion_id"]),
            person_id=None if value["person_id"] is None else str(value["person_id"]),
            depth=bool(value["depth"]),
            meta=dict(value["meta"]),
            crc32={str(name): int(crc) for name, crc in value["crc32"].items()},
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise FileError("a clip's header is damaged", where=where, got=f"{type(error).__name__}: {error}") from error
    frames, *sides = header.shape if len(header.shape) == 3 else (0, 0, 0)
    if not (0 < frames <= _MAX_FRAMES and all(0 < side <= _MAX_SIDE for side in sides)):
        raise FileError("a clip's header is damaged", where=where, got=f"shape {header.shape}")
    if header.frame_format not in ("jpg", "png", "webp"):
        raise FileError("a clip's header is damaged", where=where, got=f"frame format {header.frame_format!r}")
    return header


def check_crc(data: bytes, crc: int | None, where: object) -> bytes:
    """Returns ``data``, or raises FileError where its CRC-32 is another."""
    if crc is None or zlib.crc32(data) != crc:
        raise FileError("a stored clip is damaged", where=where, got="another checksum", fix="write the shard again")
    return data


def decode_labels(data: bytes, header: ClipHeader, where: str) -> dict[str, np.ndarray]:
    """Label arrays by name, with ``boxes_xyxy`` and ``boxes_tight`` (False in files that do not state it).

    Shapes are checked when a Clip is made of them.
    """
    labels = read_npz(data, max_bytes=_MAX_LABEL_BYTES, name=where)
    missing = [name for name in (*LABELS, "boxes_xyxy") if name not in labels]
    if missing:
        raise FileError("a clip lacks labels", where=where, got=f"no {missing}")
    frames = header.shape[0]
    labels.setdefault("boxes_tight", np.zeros(frames, bool))
    per_frame = set(labels) & {*LABELS, "boxes_xyxy", "boxes_tight"} - {"betas", "intrinsics"}
    wrong = {name: labels[name].shape for name in sorted(per_frame) if labels[name].shape[:1] != (frames,)}
    if wrong:
        raise FileError("a clip's labels have the wrong length", where=where, expected=f"{frames} frames", got=wrong)
    return labels


def decode_clip(header: ClipHeader, read: Callable[[str], bytes], where: str) -> Clip:
    """Makes a whole clip; ``read`` returns the checked content of a member.

    Raises:
        FileError: A member is missing, damaged or of another size than the header says.
    """
    frames, height, width = header.shape
    labels = decode_labels(read("labels.npz"), header, where)
    bits = read_npz(read("mask.npz"), max_bytes=_MAX_MASK_BYTES, name=where).get("mask_bits")
    if bits is None or bits.shape != (frames, -(-height * width // 8)) or bits.dtype != np.uint8:
        raise FileError("a clip's mask is damaged", where=where, got=getattr(bits, "shape", None))
    mask = np.unpackbits(bits, axis=1, count=height * width).astype(bool).reshape(frames, height, width)
    pixels = np.empty((frames, height, width, 3), np.uint8)
    depth = np.zeros((frames, height, width), np.float16)
    for index in range(frames):
        pixels[index] = _same_size(decode_image(read(header.frame_member(index)), where), (height, width), where)
        if header.depth:
            raw = cv2.imdecode(np.frombuffer(read(f"{index:04d}.depth.png"), np.uint8), cv2.IMREAD_UNCHANGED)
            depth[index] = _same_size(raw, (height, width), where).astype(np.float32) / 1000
    return Clip(
        header.clip_id,
        pixels,
        mask=mask,
        depth=depth,
        fps=header.fps,
        caption=header.caption,
        motion_id=header.motion_id,
        person_id=header.person_id,
        meta=header.meta,
        **{name: labels[name] for name in LABELS},
    )


def _same_size(image: np.ndarray | None, size: tuple[int, int], where: str) -> np.ndarray:
    if image is None or image.shape[:2] != size:
        raise FileError("a stored frame is damaged", where=where, expected=size, got=getattr(image, "shape", None))
    return image
