"""BVH motion capture files: parsing, forward kinematics, resampling.

A BVH file holds a tree of joints with offsets and, per frame, positions and Euler angles. Channels are read in the
order of the file and the rotation of a joint is the product of its channels' rotations in that order, the first one
outermost (Zrotation Yrotation Xrotation: R = Rz Ry Rx). Angles are degrees; y is up, as in all files of CMU.
"""

from __future__ import annotations

import gzip
import io
import math
import zlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation, Slerp

from posesyn.errors import FileError, InputError, UnsafeFileError

MAX_BYTES = 256 * 2**20  # unpacked; an hour of 60 joints at 120 fps has about this size. Our own choice.
MAX_JOINTS = 1000
# What one unit may be: metre, decimetre, centimetre, millimetre, inch, and the unit of the CMU skeletons
# (mocap.cs.cmu.edu: 1 / 0.45 inches).
UNITS_M = (1.0, 0.1, 0.01, 0.001, 0.0254, 0.0254 / 0.45)


@dataclass(frozen=True, eq=False)
class BvhClip:
    """One BVH file, numbers as in the file (except angles, which are rotation matrices here).

    Attributes:
        name: Path or other name, for messages.
        joints: J names; the root is first, parents come before children; end sites are called ``"<parent> end"``.
        parents: J indices, -1 for the root.
        offsets: (J, 3) offset to the parent at rest, file units.
        channels: J tuples of channel names, empty for end sites.
        rotations: (N, J, 3, 3) local rotation matrices, identity for end sites.
        root: (N, 3) position of the root, file units.
        fps: Frames per second.
        unit_to_m: Metres per file unit, or None as long as it is not known.
    """

    name: str
    joints: tuple[str, ...]
    parents: tuple[int, ...]
    offsets: np.ndarray
    channels: tuple[tuple[str, ...], ...]
    rotations: np.ndarray
    root: np.ndarray
    fps: float
    unit_to_m: float | None = None

    def __len__(self) -> int:
        return len(self.root)

    def index(self, joint: str) -> int:
        """Position of a joint by name; :class:`InputError` lists the names."""
        if joint not in self.joints:
            raise InputError(f"no joint '{joint}'", where=self.name, expected=f"one of {list(self.joints)}")
        return self.joints.index(joint)

    def metres_per_unit(self) -> float:
        """``unit_to_m``, or the known unit that brings the height of the rest pose closest to 1.65 m.

        Raises:
            InputError: No known unit gives a height between 1.1 and 2.3 m.
        """
        if self.unit_to_m is not None:
            return self.unit_to_m
        height = float(np.ptp(self.rest_joints()[:, 1]))
        guesses = [unit for unit in UNITS_M if 1.1 <= height * unit <= 2.3]
        if not guesses:
            expected = f"1.1 to 2.3 m in one of the units {[round(u, 5) for u in UNITS_M]}"
            what, got = "the unit of the file cannot be guessed from the height of its rest pose", f"{height:.4g} units"
            raise InputError(what, where=self.name, expected=expected, got=got, fix="pass unit_to_m=...")
        return min(guesses, key=lambda unit: abs(math.log(height * unit / 1.65)))

    def rest_joints(self) -> np.ndarray:
        """(J, 3) joints with all rotations identity and the root at its offset, file units."""
        rest = np.array(self.offsets)
        for joint, parent in enumerate(self.parents):
            if parent >= 0:
                rest[joint] += rest[parent]
        return rest

    def transforms(self) -> tuple[np.ndarray, np.ndarray]:
        """Global rotations (N, J, 3, 3) and joint positions (N, J, 3) in **metres**, y up."""
        rotations = np.empty_like(self.rotations)
        positions = np.empty(self.rotations.shape[:3])
        for joint, parent in enumerate(self.parents):
            if parent < 0:
                rotations[:, joint], positions[:, joint] = self.rotations[:, joint], self.root
            else:
                rotations[:, joint] = rotations[:, parent] @ self.rotations[:, joint]
                positions[:, joint] = positions[:, parent] + rotations[:, parent] @ self.offsets[joint]
        return rotations, positions * self.metres_per_unit()

    def joints_world(self) -> np.ndarray:
        """(N, J, 3) joint positions in metres, y up."""
        return self.transforms()[1]

    def cut(self, start: int, stop: int) -> BvhClip:
        """Frames ``start`` to ``stop`` (exclusive)."""
        return replace(self, rotations=self.rotations[start:stop], root=self.root[start:stop])

    def resampled(self, fps: float) -> BvhClip:
        """The clip at another rate: root linear, rotations along the shortest arc between the two nearest frames.

        Frame k of the result is the time k / fps; the last frames that the clip does not cover fall away.
        """
        if not 0 < fps < math.inf:
            raise InputError("fps must be positive", where=self.name, got=fps)
        # 1e-6 keeps the last frame where 1 / 30 was written as 0.0333333.
        count = int((len(self) - 1) / self.fps * fps + 1e-3) + 1
        times = np.minimum(np.arange(count) / fps * self.fps, len(self) - 1)
        if len(self) == 1 or np.array_equal(times, np.arange(len(self))):
            return replace(self, fps=float(fps))
        source = np.arange(len(self))
        root = np.stack([np.interp(times, source, self.root[:, axis]) for axis in range(3)], axis=-1)
        rotations = np.empty((count, *self.rotations.shape[1:]))
        for joint in range(len(self.joints)):
            if not np.ptp(self.rotations[:, joint], axis=0).any():
                rotations[:, joint] = self.rotations[0, joint]  # fingers and end sites
                continue
            rotations[:, joint] = Slerp(source, Rotation.from_matrix(self.rotations[:, joint]))(times).as_matrix()
        return replace(self, rotations=rotations, root=root, fps=float(fps))


def read_bvh(path: str | Path, *, fps: float | None = None, unit_to_m: float | None = None) -> BvhClip:
    """Reads a ``.bvh`` or ``.bvh.gz`` file.

    Args:
        path: The file.
        fps: The true frame rate, where the header is wrong (CMU subjects 60, 61, 75, 88 of the releases say 120 and
            are 60). None takes the header's frame time, rounded to 0.1 per mille of a whole number if that close.
        unit_to_m: Metres per unit; None guesses it from the height when positions are asked for.

    Raises:
        FileError: Missing or truncated file, or one that breaks the format; names the line.
        UnsafeFileError: More than 256 MB unpacked, or more than 1000 joints.
        InputError: fps or unit that are not positive.
    """
    for name, value in (("fps", fps), ("unit_to_m", unit_to_m)):
        if value is not None and not 0 < value < math.inf:
            raise InputError(f"{name} must be positive", where=str(path), got=value)
    return _Parser(_read_text(Path(path)), str(path)).clip(fps, unit_to_m)


def _read_text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            stream: io.BufferedIOBase = gzip.GzipFile(fileobj=file) if packed else file
            data = stream.read(MAX_BYTES + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise FileError("damaged gzip file", where=path, got=str(error), fix="fetch the file again") from error
    except OSError as error:
        raise FileError("cannot read the BVH file", where=path, got=error.strerror or str(error)) from error
    if len(data) > MAX_BYTES:
        raise UnsafeFileError("the file is too large", where=path, expected=f"at most {MAX_BYTES} bytes unpacked")
    return data.decode("latin-1")


class _Parser:
    """Reads the lines in order and knows where it is when something is wrong."""

    def __init__(self, text: str, name: str) -> None:
        self.lines, self.name, self.at = text.splitlines(), name, 0
        self.joints: list[str] = []
        self.parents: list[int] = []
        self.offsets: list[list[float] | None] = []
        self.channels: list[tuple[str, ...]] = []

    def error(self, what: str, expected: object = None, got: object = None) -> FileError:
        where, fix = f"{self.name}, line {min(self.at, len(self.lines))}", "check that the file is a complete BVH file"
        return FileError(what, where=where, expected=expected, got=got, fix=fix)

    def words(self) -> list[str]:
        """The next line that is not empty."""
        while self.at < len(self.lines):
            words = self.lines[self.at].replace(":", ": ").split()
            self.at += 1
            if words:
                return words
        raise self.error("the BVH file ends too early")

    def numbers(self, words: list[str], count: int) -> list[float]:
        try:
            values = [float(word) for word in words]
        except ValueError as error:
            raise self.error("not a number", expected=f"{count} numbers", got=" ".join(words)[:80]) from error
        if len(values) != count or not all(map(math.isfinite, values)):
            raise self.error("wrong numbers", expected=f"{count} finite numbers", got=" ".join(words)[:80])
        return values

    def clip(self, fps: float | None, unit_to_m: float | None) -> BvhClip:
        self.hierarchy()
        count, header_fps = self.header()
        values = self.frames(count, sum(map(len, self.channels)))
        rotations = np.tile(np.eye(3), (count, len(self.joints), 1, 1))
        root = np.tile(np.array(self.offsets[0]), (count, 1))
        column = 0
        for joint, channels in enumerate(self.channels):
            block = values[:, column : column + len(channels)]
            column += len(channels)
            order = "".join(channel[0] for channel in channels if channel.endswith("rotation"))
            if order:
                angles = block[:, [c.endswith("rotation") for c in channels]]
                rotations[:, joint] = Rotation.from_euler(order, angles, degrees=True).as_matrix()
            for axis, channel in enumerate(f"{letter}position" for letter in "XYZ"):
                if channel in channels:
                    position = block[:, channels.index(channel)]
                    if joint == 0:
                        root[:, axis] = position
                    else:
                        self.fix_offset(joint, axis, position)
        tree = (tuple(self.joints), tuple(self.parents), np.array(self.offsets, np.float64), tuple(self.channels))
        return BvhClip(self.name, *tree, rotations, root, fps or header_fps, unit_to_m)

    def fix_offset(self, joint: int, axis: int, position: np.ndarray) -> None:
        """Positions of a joint below the root replace its offset; bones that stretch are not a body's."""
        scale = max(np.abs(np.array(self.offsets, np.float64)).max(), np.abs(position).max(), 1e-9)
        if np.ptp(position) > 0.05 * scale:
            raise self.error(f"joint '{self.joints[joint]}' has a bone that changes its length", got=np.ptp(position))
        self.offsets[joint][axis] = float(np.median(position))

    def hierarchy(self) -> None:
        if self.words() != ["HIERARCHY"]:
            raise self.error("not a BVH file", expected="HIERARCHY", got=self.lines[self.at - 1][:80])
        stack: list[int] = []
        while True:
            words = self.words()
            if words[0] in ("ROOT", "JOINT", "End"):
                self.joint(words, stack)
            elif words[0] == "OFFSET" and stack:
                self.offsets[stack[-1]] = self.numbers(words[1:], 3)
            elif words[0] == "CHANNELS" and stack:
                self.channels[stack[-1]] = self.channel_names(words[1:])
            elif words[0] == "}" and stack:
                joint = stack.pop()
                if self.offsets[joint] is None:
                    raise self.error(f"joint '{self.joints[joint]}' has no OFFSET")
            elif words == ["MOTION"] and not stack and self.joints:
                return
            else:
                raise self.error("unexpected line in the hierarchy", got=" ".join(words)[:80])

    def joint(self, words: list[str], stack: list[int]) -> None:
        if (words[0] == "ROOT") != (not stack) or (words[0] == "ROOT" and self.joints):
            raise self.error("a BVH file needs exactly one ROOT that holds all joints", got=" ".join(words)[:80])
        name = f"{self.joints[stack[-1]]} end" if words[0] == "End" else " ".join(words[1:])
        if not name or (name in self.joints and words[0] != "End"):
            raise self.error("a joint needs a name of its own", got=name or "no name")
        if len(self.joints) >= MAX_JOINTS:
            raise UnsafeFileError("too many joints", where=self.name, expected=f"at most {MAX_JOINTS}")
        if self.words() != ["{"]:
            raise self.error("unexpected line", expected="{", got=self.lines[self.at - 1][:80])
        self.parents.append(stack[-1] if stack else -1)
        stack.append(len(self.joints))
        self.joints.append(name)
        self.offsets.append(None)
        self.channels.append(())

    def channel_names(self, words: list[str]) -> tuple[str, ...]:
        known = {f"{axis}{kind}" for axis in "XYZ" for kind in ("position", "rotation")}
        names = tuple(words[1:])
        if not words or words[0] != str(len(names)) or not set(names) <= known or len(set(names)) != len(names):
            raise self.error("wrong CHANNELS", expected="a count and that many channel names", got=" ".join(words)[:80])
        return names

    def header(self) -> tuple[int, float]:
        words = self.words()
        if words[0] != "Frames:" or len(words) != 2 or not words[1].isdigit():
            raise self.error("wrong header", expected="Frames: N", got=" ".join(words)[:80])
        count = int(words[1])
        if count == 0:
            raise self.error("the BVH file has no frames", expected="at least 1", got=0)
        words = self.words()
        if words[:2] != ["Frame", "Time:"]:
            raise self.error("wrong header", expected="Frame Time: seconds", got=" ".join(words)[:80])
        seconds = self.numbers(words[2:], 1)[0]
        if not seconds > 0:
            raise self.error("the frame time must be positive", got=seconds)
        fps = 1 / seconds
        return count, float(round(fps)) if abs(fps - round(fps)) < 1e-4 * fps else fps

    def frames(self, count: int, channels: int) -> np.ndarray:
        rows = [(number, line) for number, line in enumerate(self.lines[self.at :], self.at + 1) if line.strip()]
        try:
            values = np.array(" ".join(line for _, line in rows[:count]).split(), np.float64)
        except ValueError:
            values = np.empty(0)
        if len(rows) != count or values.size != count * channels or not np.isfinite(values).all():
            # Slow path, to name the line.
            for number, line in rows[:count]:
                self.at = number
                self.numbers(line.split(), channels)
            self.at = len(self.lines)
            if len(rows) != count:
                raise self.error("wrong number of frames", expected=f"{count} lines of numbers", got=len(rows))
        return values.reshape(count, channels)
