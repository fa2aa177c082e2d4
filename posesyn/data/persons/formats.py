"""Data sets by the name of their format."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from posesyn.errors import InputError
from posesyn.registry import Registry
from posesyn.types import Person


@dataclass(frozen=True)
class DataFormat:
    """How a reader is called.

    Attributes:
        reader: A class whose instances are sequences of persons, or where it is (``"package.module:Class"``), which is
            imported on first use. Its keyword-only arguments are the format's options.
        annotated: Whether it takes an annotation file before the image folder, or the image folder alone.
        captioned: Whether it takes ``captions``, a file of the data set's own captions.
    """

    reader: Callable[..., Sequence[Person]] | str
    annotated: bool = True
    captioned: bool = False

    def load(self) -> Callable[..., Sequence[Person]]:
        """The reader itself."""
        if not isinstance(self.reader, str):
            return self.reader
        module, _, name = self.reader.partition(":")
        return getattr(import_module(module), name)


def _of(place: str, **takes: bool) -> DataFormat:
    return DataFormat(f"posesyn.data.persons.{place}", **takes)


FORMATS: Registry[DataFormat] = Registry(
    "data format",
    {
        "coco": _of("coco:CocoKeypoints", captioned=True),
        "mpii": _of("mpii:MpiiKeypoints", captioned=True),
        "lspet": _of("lspet:LspExtended"),
        "jhmdb": _of("jhmdb:Jhmdb", captioned=True),
        "3dpw": _of("threedpw_emdb:ThreeDPW"),
        "spin": _of("spin_bedlam:SpinPersons"),
        "bedlam": _of("spin_bedlam:BedlamPersons"),
        "agora": _of("spin_bedlam:AgoraPersons"),
        "emdb": _of("threedpw_emdb:Emdb", annotated=False),
        "3dhp-train": _of("mpi_inf_3dhp:Mpi3dhpTrain", annotated=False),
        "3dhp-test": _of("mpi_inf_3dhp:Mpi3dhpTest", annotated=False),
        "rendered": _of("rendered:RenderedClips", annotated=False),
    },
    group="posesyn.data_formats",
)


def open_dataset(
    format: str, images: str | Path, annotations: str | Path | None = None, **options: Any
) -> Sequence[Person]:
    """The data set in a folder.

    Args:
        format: A name of :data:`FORMATS`.
        images: The image folder, or the root folder of sets that keep annotations beside their images.
        annotations: The annotation file or folder of the others.
        options: Passed to the reader (``on_missing``, ``stride`` ...). ``captions``, a file of the data set's own
            captions, goes to ``coco``, ``mpii`` and ``jhmdb``; None is none.

    Raises:
        InputError: Unknown format, an annotation file is needed, captions for a format that knows none, or an option
            that the reader does not take.
        FileError, UnsafeFileError: As the reader.
    """
    kind = FORMATS[format]
    if kind.annotated and annotations is None:
        raise InputError(f"format '{format}' needs an annotation file", where="annotations")
    if options.get("captions", "") is None:
        del options["captions"]
    if "captions" in options and not kind.captioned:
        raise InputError(
            f"format '{format}' takes no file of captions",
            expected=f"one of {', '.join(name for name in FORMATS if FORMATS[name].captioned)}",
            fix="describe persons by their ids (DataSettings.captions)",
        )
    if format == "rendered":
        options.pop("on_missing", None)  # frames lie in the archive itself
    places = (annotations, images) if kind.annotated else (images,)
    make = kind.load()
    _check_options(format, make, options)
    return make(*places, **options)


def _check_options(format: str, reader: Any, options: Mapping[str, Any]) -> None:
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
