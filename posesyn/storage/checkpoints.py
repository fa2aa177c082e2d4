"""Weights on disk: read without running code, loaded strictly, written atomically as safetensors."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from posesyn.errors import CheckpointError, FileError, UnsafeFileError
from posesyn.storage.files import atomic_file

# Where published checkpoints keep their weights (SPIN, 3DCrowdNet, HMR2, T2M-GPT).
WRAPPERS = ("state_dict", "model_state_dict", "model", "network", "net", "trans", "ema", "weights")
# Our own choice: the largest published estimator (HMR2) is 2.7 GB.
MAX_BYTES = 16 << 30
_SHOWN = 8
# How PyTorch says that it met something else than tensors and plain values.
_REFUSALS = ("unsupported global", "trying to call reduce", "can only build", "unsupported class", "is blocked")


def load_weights(
    path: str | os.PathLike[str], key: str | None = None, max_bytes: int = MAX_BYTES, config_classes: Sequence[str] = ()
) -> dict[str, torch.Tensor]:
    """Reads named tensors from ``.safetensors`` or from a PyTorch file, on the CPU. No code of the file runs.

    Args:
        path: The file; its format is decided from its content, not from its name.
        key: Entry of a PyTorch checkpoint that holds the weights, e.g. ``"trans"``. None takes a bare state dict, or
            the one entry of :data:`WRAPPERS` that is present.
        max_bytes: Larger files are refused.
        config_classes: Full names of classes (``"yacs.config.CfgNode"``) that a PyTorch file may mention beside its
            weights. They are not imported: their objects are read as plain mappings.

    Raises:
        FileError: Missing, empty, truncated, or neither of the two formats.
        UnsafeFileError: The file wants to run code (a pickle with classes), or is too large.
        CheckpointError: No state dict in it, or no entry ``key``.
    """
    path = Path(path)
    if _is_safetensors(path, max_bytes):
        try:
            weights = safetensors.torch.load_file(path)
        except (safetensors.SafetensorError, OSError, ValueError) as error:
            raise FileError("a safetensors file is damaged", where=path, got=error) from error
        return _pick(weights, key, path)
    return _pick(_load_torch(path, config_classes), key, path)


def load_metadata(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads what :func:`save_weights` stored beside the tensors; empty for a safetensors file without metadata.

    Raises:
        FileError: Not a readable safetensors file.
    """
    path = Path(path)
    if not _is_safetensors(path, MAX_BYTES):
        raise FileError("a file is not in safetensors format", where=path)
    try:
        with safetensors.safe_open(path, framework="pt") as handle:
            metadata = handle.metadata() or {}
        return {name: json.loads(value) for name, value in metadata.items()}
    except (safetensors.SafetensorError, OSError) as error:
        raise FileError("a safetensors file is damaged", where=path, got=error) from error
    except ValueError:
        return dict(metadata)  # written by another program: plain strings


def save_weights(
    path: str | os.PathLike[str], weights: Mapping[str, torch.Tensor], metadata: Mapping[str, Any] | None = None
) -> None:
    """Writes tensors as safetensors, atomically; ``metadata`` values are stored as JSON. Equal content, equal bytes.

    Raises:
        FileError: The file cannot be written; an earlier file at ``path`` stays as it was.
    """
    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in weights.items()}
    strings = {name: json.dumps(value, sort_keys=True) for name, value in (metadata or {}).items()}
    data = safetensors.torch.save(tensors, strings or None)
    # The library writes the metadata in a random order. Sorted, the header is as long as before.
    size = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:size])
    if strings:
        header["__metadata__"] = dict(sorted(strings.items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode().ljust(size - 8)
    with atomic_file(path) as handle:
        handle.write(len(text).to_bytes(8, "little") + text + data[size:])


def fingerprint(module: torch.nn.Module) -> str:
    """SHA-256 over names, shapes and values of all weights: tells apart two checkpoints of one architecture."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        value = value.detach().cpu().contiguous()
        digest.update(f"{name}{tuple(value.shape)}{value.dtype}".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes() if value.numel() else b"")
    return digest.hexdigest()


def load_into(
    module: torch.nn.Module,
    weights: Mapping[str, torch.Tensor],
    *,
    where: object = None,
    rename: Callable[[str], str | None] | None = None,
    optional: tuple[str, ...] = (),
    shown: Callable[[str], str] = str,
    assign: bool = False,
) -> None:
    """Copies weights into a module; nothing is copied unless everything fits.

    Args:
        module: The network.
        weights: Named tensors.
        where: File name for messages.
        rename: Maps each key of ``weights`` to the module's key, or to None to leave it out (e.g. to strip ``module.``
            and to drop licensed body buffers).
        optional: Prefixes of module keys that may be missing.
        shown: How the module's keys are named in messages, e.g. as in the file.
        assign: Make the given tensors the module's own instead of copying them; for modules on the meta device.

    Raises:
        CheckpointError: Missing, unexpected or wrongly shaped keys, all of them named.
    """
    if rename is not None:
        weights = {new: value for old, value in weights.items() if (new := rename(old)) is not None}
    own = module.state_dict()
    missing = sorted(name for name in own.keys() - weights.keys() if not name.startswith(optional or ("\0",)))
    unexpected = sorted(weights.keys() - own.keys())
    shapes = [
        f"{shown(name)} {tuple(weights[name].shape)} instead of {tuple(own[name].shape)}"
        for name in sorted(own.keys() & weights.keys())
        if own[name].shape != weights[name].shape
    ]
    if missing or unexpected or shapes:
        wrong = {"missing": [*map(shown, missing)], "unexpected": [*map(shown, unexpected)], "of another shape": shapes}
        report = [
            f"{len(found)} {kind}: {', '.join(found[:_SHOWN])}{', ...' if len(found) > _SHOWN else ''}"
            for kind, found in wrong.items()
            if found
        ]
        raise CheckpointError(
            f"weights do not fit {type(module).__name__}",
            where=where,
            expected=f"{len(own)} tensors",
            got=f"{len(weights)}: " + "; ".join(report),
            fix="name the model the checkpoint was made for, or the entry of the file with key=...",
        )
    module.load_state_dict(dict(weights), strict=not optional, assign=assign)


def _is_safetensors(path: Path, max_bytes: int) -> bool:
    try:
        size = path.stat().st_size
        with open(path, "rb") as handle:
            start = handle.read(9)
    except OSError as error:
        raise FileError("could not read a checkpoint", where=path, got=error.strerror or str(error)) from error
    if size == 0:
        raise FileError("a checkpoint is empty", where=path, got="0 bytes", fix="fetch the file again")
    if size > max_bytes:
        raise UnsafeFileError("a checkpoint is too large", where=path, expected=f"<= {max_bytes} bytes", got=size)
    if len(start) < 9 or start[8:9] != b"{":
        return path.suffix == ".safetensors"
    header = struct.unpack("<Q", start[:8])[0]
    return header <= size or path.suffix == ".safetensors"


def _load_torch(path: Path, config_classes: Sequence[str] = ()) -> Any:
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
                    # torch.save never compresses: a compressed archive is either another format or a bomb.
                    raise FileError("a file is not a PyTorch checkpoint", where=path, got="a compressed archive")
        # OrderedDict takes both the items and the attributes of a pickled mapping, and nothing else.
        with torch.serialization.safe_globals([(OrderedDict, name) for name in config_classes]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if not any(word in str(error).lower() for word in _REFUSALS):
            raise FileError("a checkpoint is damaged", where=path, got=_reason(error)) from error
        raise UnsafeFileError(
            "a checkpoint would run code when read",
            where=path,
            expected="tensors and plain values only",
            got=_reason(error),
            fix="convert it to safetensors in the environment that wrote it",
        ) from error
    except FileError:
        raise
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, AttributeError, TypeError, IndexError) as error:
        expected, got = "safetensors, or a file written by torch.save", _reason(error)
        raise FileError("a file is not a readable checkpoint", where=path, expected=expected, got=got) from error


def _reason(error: Exception) -> str:
    """The line of PyTorch's long message that names the cause."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return next((line for line in lines if any(word in line.lower() for word in _REFUSALS)), lines[0])[:200]


def _pick(content: Any, key: str | None, path: Path) -> dict[str, torch.Tensor]:
    if key is not None:
        if not isinstance(content, Mapping) or not isinstance(content.get(key), Mapping):
            raise CheckpointError(f"a checkpoint has no entry '{key}'", where=path, got=_names(content))
        return _tensors(content[key], path)
    if isinstance(content, Mapping) and not _is_state_dict(content):
        found = [name for name in WRAPPERS if isinstance(content.get(name), Mapping) and _is_state_dict(content[name])]
        if len(found) > 1:
            fix = "choose one with key=..."
            raise CheckpointError("a checkpoint holds several models", where=path, got=found, fix=fix)
        if found:
            return _tensors(content[found[0]], path)
    return _tensors(content, path)


def _names(content: Any) -> list[str] | str:
    return sorted(map(str, content))[:_SHOWN] if isinstance(content, Mapping) else type(content).__name__


def _is_state_dict(content: Mapping[Any, Any]) -> bool:
    return len(content) > 0 and all(isinstance(value, torch.Tensor) for value in content.values())


def _tensors(content: Any, path: Path) -> dict[str, torch.Tensor]:
    if not isinstance(content, Mapping) or not _is_state_dict(content):
        expected = "a mapping of names to tensors"
        raise CheckpointError("a checkpoint holds no state dict", where=path, expected=expected, got=_names(content))
    return {str(name): value for name, value in content.items()}
