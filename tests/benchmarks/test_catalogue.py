"""The catalogue, and downloads from a server on this machine: whole, cut off, resumed, wrong and missing."""

import hashlib
import io
import stat
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from nasharness.benchmarks import catalogue
from nasharness.benchmarks.catalogue import CATALOGUE, Entry, FetchError, SourceFile, fetch, unpack

CONTENT = bytes(range(256)) * 4096 + b"the end"  # a little more than a MiB, so several pieces arrive
SHA256 = hashlib.sha256(CONTENT).hexdigest()
MD5 = hashlib.md5(CONTENT).hexdigest()


def zipped(members):
    """A zip archive with these (name or ZipInfo, content) pairs."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return buffer.getvalue()


class Server:
    """Serves `files` from memory, and does what `mood` says: "" or "cut" or "ignore range" or "wrong range".

    Attributes:
        files: by name.
        tags: ETag by name.
        seen: (path, Range header) of every request.
    """

    def __init__(self):
        self.files, self.tags, self.seen, self.mood = {}, {}, [], ""
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                wanted = self.headers.get("Range")
                outer.seen.append((self.path, wanted))
                if self.path.startswith("/moved/"):
                    self.send_response(302)
                    self.send_header("Location", self.path.removeprefix("/moved"))
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                content = outer.files.get(self.path.lstrip("/"))
                if content is None:
                    self.send_error(404)
                    return
                tag = outer.tags.get(self.path.lstrip("/"))
                start = 0
                if wanted and outer.mood != "ignore range" and self.headers.get("If-Range") in (None, tag):
                    start = int(wanted.removeprefix("bytes=").rstrip("-"))
                    if start >= len(content):
                        self.send_error(416)
                        return
                    self.send_response(206)
                    said = start + 1 if outer.mood == "wrong range" else start
                    self.send_header("Content-Range", f"bytes {said}-{len(content) - 1}/{len(content)}")
                else:
                    self.send_response(202 if outer.mood == "wait" else 200)
                if tag:
                    self.send_header("ETag", tag)
                self.send_header("Content-Length", str(len(content) - start))
                self.end_headers()
                body = content[start:]
                self.wfile.write(body[: len(body) // 2] if outer.mood == "cut" else body)

            def log_message(self, *_):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()
        self.url = f"http://127.0.0.1:{self.http.server_port}"

    def close(self):
        self.http.shutdown()
        self.thread.join()
        self.http.server_close()


@pytest.fixture
def server():
    """A server with one file, `data.bin`, that can be resumed."""
    running = Server()
    running.files["data.bin"] = CONTENT
    running.tags["data.bin"] = '"one"'
    yield running
    running.close()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The download folder of an empty data folder."""
    monkeypatch.setenv("NASHARNESS_DATA", str(tmp_path))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return tmp_path / "downloads"


@pytest.fixture
def catalog(server, folder, monkeypatch):
    """Puts one entry, "small", with the given files into the catalogue."""

    def put(*files):
        made = Entry("small", "A small benchmark", "MIT", files, "nasharness.nowhere:convert", "small")
        monkeypatch.setattr(catalogue, "CATALOGUE", {"small": made})
        return made

    put(SourceFile("data.bin", "1 MB", "http://page", f"{server.url}/data.bin", SHA256))
    return put


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_download_is_checked_and_recorded(catalog, server, folder):
    """The file, its digest beside it, nothing unfinished, and a progress that ends at the size."""
    seen = []
    fetched = fetch("small", progress=lambda done, total: seen.append((done, total)))
    assert fetched.downloaded
    assert fetched.path == folder / "data.bin"
    assert fetched.path.read_bytes() == CONTENT
    assert fetched.sha256 == SHA256
    assert "authors published" in fetched.verdict
    assert names(folder) == ["data.bin", "data.bin.sha256"]
    assert (folder / "data.bin.sha256").read_text() == f"{SHA256}  data.bin\n"
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert seen == sorted(seen)


def test_what_is_there_is_not_downloaded_again(catalog, server, folder):
    """It is only checked, and the server is not asked."""
    fetch("small")
    server.seen.clear()
    again = fetch("small")
    assert not again.downloaded
    assert again.sha256 == SHA256
    assert server.seen == []


def test_redirects_and_mirrors(catalog, server, folder):
    """A mirror is a folder with files of the same names; a redirect is followed."""
    assert fetch("small", mirror=f"{server.url}/moved/").path.read_bytes() == CONTENT
    assert [path for path, _ in server.seen] == ["/moved/data.bin", "/data.bin"]


def test_a_missing_file(catalog, server, folder):
    """404: the address and the reason, and nothing on the disk."""
    del server.files["data.bin"]
    with pytest.raises(FetchError, match=f"downloading {server.url}/data.bin failed: 404"):
        fetch("small")
    assert names(folder) == []


def test_no_server(catalog, server, folder):
    """A refused connection is an error of the same kind."""
    with pytest.raises(FetchError, match="downloading http://127.0.0.1:9/data.bin failed"):
        fetch("small", mirror="http://127.0.0.1:9")
    assert names(folder) == []


def test_a_cut_off_download_goes_on(catalog, server, folder):
    """What arrived stays under a hidden name; the next call asks for the rest only."""
    server.mood = "cut"
    with pytest.raises(FetchError, match="failed: .* bytes arrived; the same command goes on") as error:
        fetch("small")
    assert f"{server.url}/data.bin" in str(error.value)
    assert not (folder / "data.bin").exists()
    kept = len(part := (folder / ".data.bin.part").read_bytes())
    assert part == CONTENT[:kept]
    assert len(CONTENT) // 2 - (1 << 16) < kept <= len(CONTENT) // 2
    assert f" {kept:,} bytes arrived" in str(error.value)
    server.mood = ""
    seen = []
    assert fetch("small", progress=lambda done, total: seen.append((done, total))).path.read_bytes() == CONTENT
    assert [wanted for _, wanted in server.seen] == [None, f"bytes={kept}-"]
    assert seen[0][0] > kept
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert names(folder) == ["data.bin", "data.bin.sha256"]


def cut_off(server):
    server.mood = "cut"
    with pytest.raises(FetchError):
        fetch("small")
    server.mood = ""


def test_a_server_that_cannot_resume_sends_it_all(catalog, server, folder):
    """An answer with status 200 replaces what had arrived."""
    cut_off(server)
    server.mood = "ignore range"
    assert fetch("small").path.read_bytes() == CONTENT


def test_a_file_that_changed_in_between_is_not_mixed(catalog, server, folder):
    """The server is asked to continue only the same file."""
    cut_off(server)
    catalog(SourceFile("data.bin", "", "http://page", f"{server.url}/data.bin"))
    server.files["data.bin"], server.tags["data.bin"] = CONTENT[::-1], '"two"'
    assert fetch("small").path.read_bytes() == CONTENT[::-1]


def test_another_address_begins_again(catalog, server, folder):
    """Half a file from elsewhere is not continued."""
    cut_off(server)
    server.files["copy/data.bin"] = CONTENT
    assert fetch("small", mirror=f"{server.url}/copy").path.read_bytes() == CONTENT
    assert server.seen[-1] == ("/copy/data.bin", None)


def test_a_server_without_a_tag_begins_again(catalog, server, folder):
    """Nothing would say that it is the same file."""
    server.tags.clear()
    cut_off(server)
    assert fetch("small").path.read_bytes() == CONTENT
    assert [wanted for _, wanted in server.seen] == [None, None]


def test_the_wrong_part_is_refused(catalog, server, folder):
    """A Content-Range that is not what was asked for."""
    cut_off(server)
    server.mood = "wrong range"
    with pytest.raises(FetchError, match="another part of the file"):
        fetch("small")
    assert not (folder / "data.bin").exists()


def test_more_than_the_whole(catalog, server, folder):
    """The unfinished file is already as long as the whole: the next call starts afresh."""
    cut_off(server)
    with (folder / ".data.bin.part").open("ab") as file:
        file.write(CONTENT)
    with pytest.raises(FetchError, match="416"):
        fetch("small")
    assert fetch("small").path.read_bytes() == CONTENT


def test_a_wrong_checksum(catalog, server, folder):
    """Expected and found digest, the address, and nothing under the final name."""
    server.files["data.bin"] = CONTENT + b"!"
    found = hashlib.sha256(CONTENT + b"!").hexdigest()
    with pytest.raises(FetchError, match=f"{server.url}/data.bin is not the published.*{found}, expected {SHA256}"):
        fetch("small")
    assert names(folder) == []


def test_answers_that_are_no_file(catalog, server, folder):
    """Status 202, as bot protection sends it, and an empty body."""
    server.mood = "wait"
    with pytest.raises(FetchError, match="status 202"):
        fetch("small")
    (folder / ".data.bin.part").unlink()
    server.mood, server.files["data.bin"] = "", b""
    with pytest.raises(FetchError, match="the answer was empty"):
        fetch("small")
    assert not (folder / "data.bin").exists()


def test_a_full_disk_is_noticed_before(catalog, server, folder, monkeypatch):
    """The length of the answer is compared with what is free."""
    monkeypatch.setattr(catalogue.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    with pytest.raises(FetchError, match="1,000 bytes free"):
        fetch("small")
    assert not (folder / "data.bin").exists()


def test_a_second_process_waits_outside(catalog, server, folder):
    """Two downloads of one file would write into each other."""
    fcntl = pytest.importorskip("fcntl", reason="no file locks on this platform")
    folder.mkdir()
    with (folder / ".data.bin.part").open("ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(FetchError, match="another process is downloading"):
            fetch("small")
    assert fetch("small").path.read_bytes() == CONTENT


def test_name_collisions(catalog, server, folder):
    """A folder of the file's name, and another file of its name, are not overwritten."""
    (folder / "data.bin").mkdir(parents=True)
    with pytest.raises(FetchError, match="is a folder, but the file data.bin belongs there"):
        fetch("small")
    (folder / "data.bin").rmdir()
    (folder / "data.bin").write_bytes(b"mine")
    with pytest.raises(FetchError, match="data.bin is not the published data.bin"):
        fetch("small")
    assert (folder / "data.bin").read_bytes() == b"mine"
    assert server.seen == []


def test_without_a_published_checksum_a_change_is_noticed(catalog, server, folder):
    """The digest of the first time is recorded and compared: with the file on disk, and with a later download."""
    catalog(SourceFile("data.bin", "", "http://page", f"{server.url}/data.bin"))
    assert "recorded in" in fetch("small").verdict
    assert fetch("small").sha256 == SHA256
    (folder / "data.bin").write_bytes(b"rotten")
    with pytest.raises(FetchError, match=f"has changed: its sha256 is [0-9a-f]+, expected {SHA256} as recorded"):
        fetch("small")
    (folder / "data.bin").unlink()
    server.files["data.bin"] = b"another"
    with pytest.raises(FetchError, match="has changed"):
        fetch("small")
    assert names(folder) == ["data.bin.sha256"]


def test_reported_digests_are_told_and_not_enforced(catalog, server, folder):
    """What others saw is a hint."""
    catalog(SourceFile("data.bin", "", "http://page", f"{server.url}/data.bin", reported_sha256=SHA256))
    assert "others reported" in fetch("small").verdict
    catalog(SourceFile("data.bin", "", "http://page", f"{server.url}/data.bin", reported_sha256="0" * 64))
    assert "look twice" in fetch("small").verdict


def test_files_to_be_downloaded_by_hand(catalog, server, folder):
    """Instructions first; once the file is in its place it is checked, by its name's MD5 digits where it has them."""
    good = SourceFile("data.bin", "1 MB", "http://page", md5_ends=MD5[-6:], by_hand="Open http://page.")
    catalog(good, SourceFile("other.bin", "2 MB", "http://page", by_hand="Open it."))
    with pytest.raises(FetchError, match="cannot be downloaded by a program") as error:
        fetch("small")
    for part in ("Open http://page.", str(folder / "data.bin"), "nasharness data convert small", "other.bin (2 MB)"):
        assert part in str(error.value)
    folder.mkdir()
    (folder / "data.bin").write_bytes(CONTENT)
    assert f"ends in {MD5[-6:]}" in fetch("small").verdict
    (folder / "data.bin").write_bytes(CONTENT[:-1])
    (folder / "data.bin.sha256").unlink()
    with pytest.raises(FetchError, match="should end in"):
        fetch("small")
    (folder / "data.bin").unlink()
    (folder / "other.bin").write_bytes(b"x")  # whichever is there is taken
    assert fetch("small").path.name == "other.bin"


def test_zip_archives_are_unpacked(catalog, server, folder):
    """Into a folder of their own; the converter is given the one folder in it."""
    content = zipped([("models/a/one.txt", "1"), ("models/b.txt", "2"), ("models/empty/", "")])
    server.files["models.zip"] = content
    file = SourceFile("models.zip", "", "http://page", f"{server.url}/models.zip", unpacked="models_v1")
    catalog(file)
    fetched = fetch("small")
    assert fetched.path == folder / "models_v1" / "models"
    assert (fetched.path / "a" / "one.txt").read_text() == "1"
    assert (fetched.path / "empty").is_dir()
    assert names(folder) == ["models.zip", "models.zip.sha256", "models_v1"]
    assert file.found() == fetched.path
    assert not fetch("small").downloaded


def test_a_web_page_is_no_zip_archive(catalog, server, folder):
    """Nothing is left of it."""
    server.files["models.zip"] = b"<html>please log in</html>"
    catalog(SourceFile("models.zip", "", "http://page", f"{server.url}/models.zip", unpacked="models_v1"))
    with pytest.raises(FetchError, match="is not a zip archive; open http://page"):
        fetch("small")
    assert names(folder) == []


def link():
    info = zipfile.ZipInfo("models/link")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("../evil.txt", "x")], "leads out"),
        ([("a/../../evil.txt", "x")], "leads out"),
        ([("/tmp/evil.txt", "x")], "leads out"),
        ([("a\\..\\evil.txt", "x")], "leads out"),
        ([("C:evil.txt", "x")], "leads out"),
        ([(link(), "/etc/passwd")], "link or special file"),
        ([("good.txt", "x"), ("good.txt/bad.txt", "x")], "cannot be unpacked"),
    ],
)
def test_hostile_archives(tmp_path, members, message):
    """Refused, with nothing outside and no folder that looks complete."""
    (tmp_path / "in").mkdir()
    archive = tmp_path / "in" / "x.zip"
    archive.write_bytes(zipped([("fine.txt", "fine"), *members]))
    with pytest.raises(FetchError, match=message):
        unpack(archive, tmp_path / "in" / "x")
    assert names(tmp_path) == ["in"]
    assert names(tmp_path / "in") == ["x.zip"]


def test_damaged_archives(tmp_path, monkeypatch):
    """A flipped byte, a name that is there twice, and a disk that is too small."""
    content = bytearray(zipped([("a.txt", "x" * 1000)]))
    content[40] ^= 0xFF
    (tmp_path / "x.zip").write_bytes(content)
    with pytest.raises(FetchError, match="cannot be unpacked"):
        unpack(tmp_path / "x.zip", tmp_path / "x")
    with pytest.warns(UserWarning, match="Duplicate name"):
        (tmp_path / "x.zip").write_bytes(zipped([("a.txt", "1"), ("a.txt", "2")]))
    with pytest.raises(FetchError, match="cannot be unpacked"):
        unpack(tmp_path / "x.zip", tmp_path / "x")
    (tmp_path / "x.zip").write_bytes(zipped([("a.txt", "x" * 1000)]))
    monkeypatch.setattr(catalogue.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 999}))
    with pytest.raises(FetchError, match="needs 1,000 bytes"):
        unpack(tmp_path / "x.zip", tmp_path / "x")
    assert names(tmp_path) == ["x.zip"]


def test_names_are_looked_up(catalog, folder):
    """A part of a file's name will do if it is the only one; a wrong name gets a suggestion."""
    made = catalog(SourceFile("full.bin", "", ""), SourceFile("only108.bin", "", ""))
    assert made.file(None).name == "full.bin"
    assert made.file("ONLY").name == "only108.bin"
    with pytest.raises(FetchError, match="names several files of small"):
        made.file("bin")
    with pytest.raises(FetchError, match="names no file of small: choose from full.bin, only108.bin"):
        made.file("half")
    with pytest.raises(FetchError, match="did you mean small"):
        fetch("smal")
    with pytest.raises(FetchError, match="known: small"):
        fetch("xyz")


def test_the_real_catalogue():
    """Every entry says where, how large, under which licence, and either has a link or says how."""
    assert set(CATALOGUE) == {"nasbench101", "nasbench201", "nats-size", "nasbench301"}
    for name, entry in CATALOGUE.items():
        assert name == entry.name
        assert entry.licence
        assert entry.converter.startswith("nasharness.benchmarks.convert.")
        assert callable(entry.convert())
        assert callable(entry.verify())
        for file in entry.files:
            assert file.size
            assert file.page.startswith("https://")
            assert (file.url is None) == bool(file.by_hand)
            assert file.url is None or file.url.startswith("https://")
            for digest in (file.sha256, file.reported_sha256):
                assert digest is None or (len(digest) == 64 and int(digest, 16))
            assert file.md5_ends is None or file.name.endswith(f"{file.md5_ends}.pth")
            assert file.name.endswith(".zip") <= (file.unpacked is not None)
    published = {file.name: file.sha256 for entry in CATALOGUE.values() for file in entry.files if file.sha256}
    assert published == {
        "nasbench_full.tfrecord": "3d64db8180fb1b0207212f9032205064312b6907a3bbc81eabea10db2f5c7e9c",
        "nasbench_only108.tfrecord": "4c39c3936e36a85269881d659e44e61a245babcb72cb374eacacf75d0e5f4fd1",
    }
