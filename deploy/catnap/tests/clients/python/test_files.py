"""Files and directories."""

import gzip
import urllib.error
import urllib.request
import uuid

import pytest
from conftest import needs_names, wait_until
from e2b import FileType
from e2b.exceptions import InvalidArgumentException, NotFoundException

try:
    from e2b import FilesystemEventType
except ImportError:
    from e2b.sandbox.filesystem.watch_handle import FilesystemEventType


@pytest.fixture
def folder(shared):
    path = f"/home/user/{uuid.uuid4().hex}"
    shared.files.make_dir(path)
    yield path
    shared.files.remove(path)


@pytest.mark.short
def test_written_files_are_read_back(shared, folder):
    text = "grün\n" * 1000
    written = shared.files.write(f"{folder}/deep/down/a.txt", text)
    assert (written.name, written.path) == ("a.txt", f"{folder}/deep/down/a.txt")
    assert shared.files.read(written.path) == text
    data = bytes(range(256)) * 500
    shared.files.write(f"{folder}/b", data)
    assert bytes(shared.files.read(f"{folder}/b", format="bytes")) == data
    assert b"".join(shared.files.read(f"{folder}/b", format="stream")) == data
    shared.files.write(f"{folder}/b", "")
    assert shared.files.read(f"{folder}/b") == ""
    with pytest.raises(NotFoundException, match="does not exist"):
        shared.files.read(f"{folder}/none")
    with pytest.raises(InvalidArgumentException, match="is a directory"):
        shared.files.read(folder)
    assert len(shared.files.read("/proc/sys/kernel/random/boot_id").strip()) == 36


def test_compressed_bodies_are_accepted(shared, folder):
    shared.files.write(f"{folder}/a", "compressed " * 1000, gzip=True)
    assert shared.files.read(f"{folder}/a", gzip=True) == "compressed " * 1000
    shared.files.write(f"{folder}/c", b"plain " * 1000, use_octet_stream=True)
    assert shared.files.read(f"{folder}/c") == "plain " * 1000


def test_write_files_writes_every_file(shared, folder):
    files = [{"path": f"{folder}/{name}", "data": name} for name in ("x", "y", "z")]
    assert [file.name for file in shared.files.write_files(files)] == ["x", "y", "z"]
    assert [shared.files.read(file["path"]) for file in files] == ["x", "y", "z"]


def test_relative_paths_start_at_the_home_directory(shared):
    name = uuid.uuid4().hex
    assert shared.files.write(name, "x").path == f"/home/user/{name}"
    assert shared.files.read(f"~/{name}") == "x"
    shared.files.write(f"/root/{name}", "x", user="root")
    assert shared.files.get_info(f"/root/{name}", user="root").owner == "root"
    shared.files.remove(name)


def test_file_info_has_metadata_and_links(shared, folder):
    shared.files.write(f"{folder}/a", "four", metadata={"Colour": "blue"})
    shared.commands.run(f"chmod 640 {folder}/a; ln -s {folder}/a {folder}/link; mkdir {folder}/d")
    info = shared.files.get_info(f"{folder}/a")
    assert (info.name, info.type, info.size, info.owner) == ("a", FileType.FILE, 4, "user")
    assert (info.mode & 0o777, info.permissions) == (0o640, "-rw-r-----")
    assert info.metadata == {"colour": "blue"}
    link = shared.files.get_info(f"{folder}/link")
    assert (link.type, link.symlink_target) == (FileType.FILE, f"{folder}/a")
    assert shared.files.get_info(f"{folder}/d").type == FileType.DIR
    shared.files.write(f"{folder}/a", "five!")
    assert not shared.files.get_info(f"{folder}/a").metadata
    assert shared.files.exists(f"{folder}/a") and not shared.files.exists(f"{folder}/none")
    with pytest.raises(NotFoundException):
        shared.files.get_info(f"{folder}/none")


def test_directories_are_created_listed_and_renamed(shared, folder):
    assert shared.files.make_dir(f"{folder}/a/b/c") is True
    assert shared.files.make_dir(f"{folder}/a/b/c") is False
    shared.files.write(f"{folder}/a/f", "x")
    names = lambda depth: [file.path[len(folder) + 1 :] for file in shared.files.list(folder, depth=depth)]
    assert names(1) == ["a"]
    assert names(3) == ["a", "a/b", "a/b/c", "a/f"]
    with pytest.raises((InvalidArgumentException, NotFoundException)):
        shared.files.list(f"{folder}/none")
    moved = shared.files.rename(f"{folder}/a/f", f"{folder}/new/place/g")
    assert moved.path == f"{folder}/new/place/g"
    assert shared.files.read(moved.path) == "x"
    shared.files.remove(f"{folder}/a")
    assert not shared.files.exists(f"{folder}/a")


def test_watch_reports_changes_in_order(shared, folder):
    watch = shared.files.watch_dir(folder)
    shared.files.write(f"{folder}/a", "x")
    events = []

    def has_write():
        events.extend(watch.get_new_events())
        return any(event.type == FilesystemEventType.WRITE for event in events)

    wait_until(has_write)
    kinds = [event.type for event in events if event.name == "a"]
    assert kinds == [FilesystemEventType.CREATE, FilesystemEventType.CHMOD, FilesystemEventType.WRITE]
    shared.files.rename(f"{folder}/a", f"{folder}/b")
    shared.files.remove(f"{folder}/b")
    wait_until(lambda: any(event.type == FilesystemEventType.REMOVE for event in watch.get_new_events()))
    watch.stop()
    with pytest.raises(NotFoundException):
        shared.files.watch_dir(f"{folder}/none")


def test_recursive_watch_includes_new_directories(shared, folder):
    watch = shared.files.watch_dir(folder, recursive=True)
    shared.files.make_dir(f"{folder}/new")
    wait_until(lambda: any(event.name == "new" for event in watch.get_new_events()))
    shared.files.write(f"{folder}/new/a", "x")
    wait_until(lambda: any(event.name == "new/a" for event in watch.get_new_events()))
    watch.stop()


@needs_names
def test_signed_urls_need_no_token(shared, folder):
    name = f"{folder}/signed.txt"
    put = urllib.request.Request(
        shared.upload_url(name, use_signature_expiration=120),
        data=(
            b"--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"signed.txt\"\r\n\r\nsigned\r\n--b--\r\n"
        ),
        headers={"Content-Type": "multipart/form-data; boundary=b"},
    )
    assert urllib.request.urlopen(put, timeout=60).status == 200
    url = shared.download_url(name, use_signature_expiration=120)
    assert urllib.request.urlopen(url, timeout=60).read() == b"signed"
    compressed = urllib.request.Request(url, headers={"Accept-Encoding": "gzip"})
    response = urllib.request.urlopen(compressed, timeout=60)
    body = response.read()
    assert (gzip.decompress(body) if response.headers["Content-Encoding"] == "gzip" else body) == b"signed"
    partial = urllib.request.Request(url, headers={"Range": "bytes=2-4", "Accept-Encoding": "identity"})
    response = urllib.request.urlopen(partial, timeout=60)
    assert (response.status, response.read()) == (206, b"gne")
    for invalid in (url.replace("signature=v1_", "signature=v1_x"), url.split("&signature")[0]):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(invalid, timeout=60)
        assert refused.value.code == 401
