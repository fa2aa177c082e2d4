from __future__ import annotations

import io
import json
import os
import pickle
import signal
import subprocess
import sys
import tarfile
import textwrap
import threading
import time

import cv2
import numpy as np
import pytest

from posesyn.errors import FileError, InputError, RunError, UnsafeFileError
from posesyn.storage.clip_codec import ClipCodec, decode_labels, frame_boxes, parse_header
from posesyn.storage.clip_store import ClipStore
from posesyn.storage.clip_writer import ClipWriter
from posesyn.storage.files import npz_bytes
from tests.factories import write_clips

ARRAYS = ("pose_rotvec", "betas", "transl_cam", "joints_cam", "keypoints_px", "visible", "mask", "intrinsics", "keep")


def folder_bytes(folder) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.tar"))}


def write_all(folder, clips, order=None, per_shard=2, **options):
    ids = [clip.clip_id for clip in clips]
    by_id = {clip.clip_id: clip for clip in clips}
    with ClipWriter(folder, ids, {"seed": 0}, clips_per_shard=per_shard, **options) as writer:
        for name in order or writer.pending():
            writer.write(by_id[name])


def test_round_trip(tmp_path, make_clip):
    keep = np.array([True, False, True, True, True])
    clip = make_clip("ü/clip #1", keep=keep, caption="<b>jump</b>", motion_id="m", person_id="p", meta={"seed": 3})
    write_all(tmp_path, [clip], codec=ClipCodec("png"))
    store = ClipStore(tmp_path)
    assert len(store) == 1 and store.ids == ("ü/clip #1",)
    back = store["ü/clip #1"]
    np.testing.assert_array_equal(back.frames, clip.frames)
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(back, name), getattr(clip, name), err_msg=name)
    np.testing.assert_array_equal(back.depth, clip.depth)
    for name in ("caption", "motion_id", "person_id", "fps", "clip_id"):
        assert getattr(back, name) == getattr(clip, name)
    assert back.meta == {"seed": 3}
    np.testing.assert_array_equal(store.labels(0)["boxes_xyxy"], frame_boxes(clip))
    np.testing.assert_array_equal(store.labels(0)["boxes_tight"], ~clip.mask.any((1, 2)))
    store.verify()


def test_labels_of_before_boxes_said_what_they_are(make_clip):
    codec = ClipCodec("png")
    members = codec.encode(make_clip(frames=2))
    header = parse_header(members["clip.json"], "a clip")
    with np.load(io.BytesIO(members["labels.npz"])) as labels:
        old = {name: labels[name] for name in labels.files if name != "boxes_tight"}
    assert decode_labels(npz_bytes(old), header, "a clip")["boxes_tight"].tolist() == [False, False]
    with pytest.raises(FileError, match="wrong length"):
        decode_labels(npz_bytes({**old, "boxes_tight": np.zeros(3, bool)}), header, "a clip")


@pytest.mark.parametrize("kind", ["jpg", "webp"])
def test_lossy_frames_are_close_and_load_one_by_one(tmp_path, make_clip, kind):
    clip = make_clip(frames=3)
    write_all(tmp_path, [clip], codec=ClipCodec(kind, 95, depth=False))
    store = ClipStore(tmp_path)
    for index in range(3):
        frame = pickle.loads(pickle.dumps(store.frame(0, index)))  # noqa: S301 - as a data loader's worker does
        assert np.abs(frame.load().astype(int) - clip.frames[index]).mean() < 6
    assert not store[0].depth.any()
    with pytest.raises(InputError, match="no such frame"):
        store.frame(0, 3)


def test_depth_is_kept_to_a_millimetre(tmp_path, make_clip, rng):
    depth = rng.uniform(0.5, 12, (5, 48, 48)).astype(np.float16)
    write_all(tmp_path, [make_clip(depth=depth)])
    back = ClipStore(tmp_path)[0].depth
    assert np.abs(back.astype(float) - depth.astype(float)).max() <= 0.001  # one step of float16 above 1 m


def test_bytes_do_not_depend_on_order_threads_or_interruption(tmp_path, make_clip):
    clips = [make_clip(f"c{i}", frames=2, seed=i) for i in range(5)]
    write_all(tmp_path / "a", clips)
    write_all(tmp_path / "b", clips, order=["c4", "c1", "c3", "c0", "c2"])
    with ClipWriter(tmp_path / "c", [c.clip_id for c in clips], {"seed": 0}, clips_per_shard=2) as writer:
        threads = [threading.Thread(target=writer.write, args=(clip,)) for clip in clips]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    write_all(tmp_path / "d", clips, order=["c3"])
    assert set(folder_bytes(tmp_path / "d")) == {"parts/000003.tar"}
    assert ClipStore(tmp_path / "d").ids == ("c3",)
    write_all(tmp_path / "d", clips)
    expected = folder_bytes(tmp_path / "a")
    assert set(expected) == {f"shards/00000{i}.tar" for i in range(3)}
    for other in "bcd":
        assert folder_bytes(tmp_path / other) == expected, other
    assert ClipStore(tmp_path / "b").ids == ("c0", "c1", "c2", "c3", "c4")


def test_resume_when_all_is_done_changes_nothing(tmp_path, make_clip):
    clips = [make_clip(f"c{i}", frames=1) for i in range(3)]
    write_all(tmp_path, clips)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.tar")}
    with ClipWriter(tmp_path, ["c0", "c1", "c2"], {"seed": 0}, clips_per_shard=2) as writer:
        assert writer.pending() == [] and "c1" in writer
        with pytest.raises(InputError, match="already stored"):
            writer.write(clips[0])
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.tar")} == before


def test_changed_settings_and_plans_are_refused(tmp_path, make_clip):
    write_all(tmp_path, [make_clip("c0", frames=1)])
    with pytest.raises(RunError, match="seed"):
        ClipWriter(tmp_path, ["c0"], {"seed": 1}, clips_per_shard=2)
    with pytest.raises(RunError, match=r"store\.quality"):
        ClipWriter(tmp_path, ["c0"], {"seed": 0}, clips_per_shard=2, codec=ClipCodec(quality=50))
    with pytest.raises(RunError, match="other samples"):
        ClipWriter(tmp_path, ["c1"], {"seed": 0}, clips_per_shard=2)
    with (
        ClipWriter(tmp_path / "new", ["c0"]) as writer,
        pytest.raises(InputError, match="not part of the plan"),
    ):
        writer.write(make_clip("x"))


def test_quarantined_clips_do_not_hold_up_a_shard(tmp_path, make_clip):
    with ClipWriter(tmp_path, ["a", "b"], clips_per_shard=2, error_budget=0.5) as writer:
        writer.write(make_clip("a", frames=1))
        writer.quarantine("b", "no body")
    assert set(folder_bytes(tmp_path)) == {"shards/000000.tar"}
    assert ClipStore(tmp_path).ids == ("a",)


def test_without_a_plan_clips_keep_their_order(tmp_path, make_clip):
    clips = [make_clip(f"c{i}", frames=1) for i in range(5)]
    assert write_clips(tmp_path, clips[:3], clips_per_shard=2) == 3
    assert write_clips(tmp_path, clips, clips_per_shard=2) == 5
    assert ClipStore(tmp_path).ids == ("c0", "c1", "c2", "c3", "c4")
    assert set(folder_bytes(tmp_path)) == {f"shards/00000{i}.tar" for i in range(3)}


WORKER = """
    import importlib.util, sys, time
    from posesyn.storage.clip_writer import ClipWriter
    spec = importlib.util.spec_from_file_location("c", sys.argv[2]); c = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(c)
    ids = [f"c{i}" for i in range(12)]
    with ClipWriter(sys.argv[1], ids, {"seed": 0}, clips_per_shard=3) as writer:
        for name in writer.pending():
            writer.write(c.make_clip(name, frames=3, seed=int(name[1:])))
            print(name, flush=True)
"""


def test_kill_and_resume_gives_the_bytes_of_an_uninterrupted_run(tmp_path, make_clip):
    clips = [make_clip(f"c{i}", frames=3, seed=i) for i in range(12)]
    write_all(tmp_path / "whole", clips, per_shard=3)
    factory = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "factories.py")
    command = [sys.executable, "-c", textwrap.dedent(WORKER), str(tmp_path / "killed"), factory]
    kills = 0
    for delay in (0.0, 0.004, 0.011, None):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        first = process.stdout.readline()
        if delay is not None and first:
            time.sleep(delay)
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.communicate(timeout=120)
    assert kills >= 1 and process.returncode == 0
    assert folder_bytes(tmp_path / "killed") == folder_bytes(tmp_path / "whole")
    ClipStore(tmp_path / "killed").verify()
    assert not list((tmp_path / "killed" / "parts").iterdir())


@pytest.mark.parametrize("step", ["atomic", "commit", "join"])
def test_a_crash_at_each_step_loses_nothing(tmp_path, make_clip, monkeypatch, step):
    from posesyn.storage import clip_writer as shards

    clips = [make_clip(f"c{i}", frames=1, seed=i) for i in range(4)]
    write_all(tmp_path / "whole", clips)

    class Crash(BaseException):
        pass

    def crash(*args, **kwargs):
        raise Crash

    if step == "atomic":
        monkeypatch.setattr(shards, "write_bytes", crash)
    elif step == "commit":
        monkeypatch.setattr(shards.RunLedger, "commit", crash)
    else:
        monkeypatch.setattr(shards, "atomic_file", crash)
    with pytest.raises(Crash):
        write_all(tmp_path / "run", clips)
    monkeypatch.undo()
    write_all(tmp_path / "run", clips)
    assert folder_bytes(tmp_path / "run") == folder_bytes(tmp_path / "whole")


def test_plain_tar_tools_read_the_shards(tmp_path, make_clip):
    clip = make_clip("a", frames=2)
    write_all(tmp_path, [clip])
    with tarfile.open(tmp_path / "shards" / "000000.tar") as archive:
        names = archive.getnames()
        frame = archive.extractfile("000000.0001.jpg").read()
        header = json.load(archive.extractfile("000000.clip.json"))
    # webdataset groups by the name up to the first dot.
    assert {name.split(".", 1)[0] for name in names} == {"000000"}
    assert names[0] == "000000.clip.json" and "000000.0000.depth.png" in names
    assert header["clip_id"] == "a"
    assert cv2.imdecode(np.frombuffer(frame, np.uint8), 1).shape == (48, 48, 3)
    # The shards alone, without ledger, are a store too.
    (tmp_path / "copy").mkdir()
    os.rename(tmp_path / "shards" / "000000.tar", tmp_path / "copy" / "x.tar")
    assert ClipStore(tmp_path / "copy").ids == ("a",)


def test_keep_masks_are_recorded_beside_the_shards(tmp_path, make_clip):
    write_all(tmp_path, [make_clip("a"), make_clip("b")])
    store = ClipStore(tmp_path)
    mask = np.array([1, 0, 0, 1, 0], bool)
    store.set_keep({"b": mask})
    for reader in (store, ClipStore(tmp_path), pickle.loads(pickle.dumps(store))):  # noqa: S301
        np.testing.assert_array_equal(reader["b"].keep, mask)
        assert reader["a"].keep.all()
    with pytest.raises(InputError, match="wrong length"):
        store.set_keep({"a": mask[:2]})
    with pytest.raises(InputError, match="no such clip"):
        store.set_keep({"x": mask})


def test_flipped_bits_are_found(tmp_path, make_clip):
    write_all(tmp_path, [make_clip("a", frames=2)])
    path = tmp_path / "shards" / "000000.tar"
    entry = ClipStore(tmp_path).frame(0, 1)
    data = bytearray(path.read_bytes())
    data[entry.offset + entry.size // 2] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(FileError, match="checksum"):
        ClipStore(tmp_path)[0]
    with pytest.raises(FileError, match="checksum"):
        ClipStore(tmp_path).frame(0, 1).load()
    with pytest.raises(FileError, match="checksum"):
        ClipStore(tmp_path).verify()


def test_truncated_archives_and_empty_folders(tmp_path, make_clip):
    write_all(tmp_path / "s", [make_clip("a", frames=2)])
    path = tmp_path / "s" / "shards" / "000000.tar"
    path.write_bytes(path.read_bytes()[:-3000])
    with pytest.raises(FileError):
        ClipStore(tmp_path / "s")[0]
    (tmp_path / "empty").mkdir()
    for name in ("empty", "absent"):
        with pytest.raises(FileError):
            ClipStore(tmp_path / name)


def evil_member(kind: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo({"up": "../../evil.json", "absolute": "/etc/evil.json"}.get(kind, "000000.clip.json"))
    info.type = {
        "link": tarfile.SYMTYPE,
        "hard": tarfile.LNKTYPE,
        "device": tarfile.CHRTYPE,
        "pipe": tarfile.FIFOTYPE,
    }.get(kind, tarfile.REGTYPE)
    info.linkname = "/etc/passwd"
    return info


@pytest.mark.parametrize("kind", ["up", "absolute", "link", "hard", "device", "pipe"])
def test_archives_that_leave_their_folder_are_refused(tmp_path, kind):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.addfile(evil_member(kind))
    with pytest.raises(UnsafeFileError):
        ClipStore(tmp_path)


@pytest.mark.parametrize("header", [b"{}", b"[]", b'{"version": 99}', b"no json"])
def test_damaged_headers(tmp_path, header):
    import io

    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        info = tarfile.TarInfo("000000.clip.json")
        info.size = len(header)
        archive.addfile(info, io.BytesIO(header))
    with pytest.raises(FileError):
        ClipStore(tmp_path)
