"""Data sets by the name of their format, for the command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from posesyn import data
from posesyn.errors import InputError
from posesyn.types import Person

Format = Literal[
    "coco", "mpii", "lspet", "jhmdb", "3dpw", "emdb", "3dhp-train", "3dhp-test", "spin", "bedlam", "agora", "rendered"
]

# Name → reader, and whether it takes an annotation file beside the image folder.
_READERS: dict[str, tuple[str, bool]] = {
    "coco": ("CocoKeypoints", True),
    "mpii": ("MpiiKeypoints", True),
    "lspet": ("LspExtended", True),
    "jhmdb": ("Jhmdb", True),
    "3dpw": ("ThreeDPW", True),
    "spin": ("SpinPersons", True),
    "bedlam": ("BedlamPersons", True),
    "agora": ("AgoraPersons", True),
    "emdb": ("Emdb", False),
    "3dhp-train": ("Mpi3dhpTrain", False),
    "3dhp-test": ("Mpi3dhpTest", False),
    "rendered": ("RenderedClips", False),
}
_CAPTIONED = ("coco", "mpii", "jhmdb")


def open_dataset(
    format: str, images: str | Path, annotations: str | Path | None = None, **options: Any
) -> Sequence[Person]:
    """The data set in a folder.

    Args:
        format: A name of :data:`Format`.
        images: The image folder, or the root folder of sets that keep annotations beside their images.
        annotations: The annotation file or folder of the others.
        options: Passed to the reader (``on_missing``, ``stride`` ...). ``captions``, a file of the data set's own
            captions, goes to ``coco``, ``mpii`` and ``jhmdb``; None is none.

    Raises:
        InputError: Unknown format, an annotation file is needed, captions for a format that knows none, or an option
            that the reader does not take.
        FileError, UnsafeFileError: As the reader.
    """
    if format not in _READERS:
        raise InputError("unknown data format", expected=f"one of {', '.join(_READERS)}", got=repr(format))
    reader, annotated = _READERS[format]
    if annotated and annotations is None:
        raise InputError(f"format '{format}' needs an annotation file", where="annotations")
    if options.get("captions", "") is None:
        del options["captions"]
    if "captions" in options and format not in _CAPTIONED:
        raise InputError(
            f"format '{format}' takes no file of captions",
            expected=f"one of {', '.join(_CAPTIONED)}",
            fix="describe persons by their ids (DataSettings.captions)",
        )
    if format == "rendered":
        options.pop("on_missing", None)  # frames lie in the archive itself
    places = (annotations, images) if annotated else (images,)
    make = getattr(data, reader)
    _check_options(format, make, options)
    return make(*places, **options)


def _check_options(format: str, reader: type, options: Mapping[str, Any]) -> None:
    """Options come from command lines: what a reader does not take is refused by name before it is called."""
    hints = get_type_hints(reader.__init__)
    known = {name: hints[name] for name, default in (reader.__init__.__kwdefaults__ or {}).items()}
    known |= {"captions": hints["captions"]} if "captions" in hints else {}
    for name, value in options.items():
        where = f"options of format '{format}'"
        if name not in known:
            raise InputError(f"the reader takes no option '{name}'", where=where, expected=", ".join(sorted(known)))
        hint = known[name]
        if get_origin(hint) is Literal and value not in get_args(hint):
            raise InputError(
                f"option '{name}' has a wrong value", where=where, expected=get_args(hint), got=repr(value)
            )
        if hint in (int, bool) and type(value) is not hint:
            raise InputError(f"option '{name}' must be {hint.__name__}", where=where, got=repr(value))
