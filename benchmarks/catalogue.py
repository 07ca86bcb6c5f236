"""The official benchmark files: where they are published, how to get them, and what is known of their bytes.

`CATALOGUE` says what exists; `fetch` downloads what can be downloaded and checks what was downloaded by hand. An official
file is never read here: converting it is the work of the module that its entry names.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib
import json
import shutil
import stat
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from . import library
from .columns import TableError

Progress = Callable[[int, int], None]
"""Called with (done, total); for a download these are bytes."""


class FetchError(ValueError):
    """A file that could not be fetched, or that is not what was published; the message says what to do next."""


@dataclass(frozen=True)
class SourceFile:
    """One published form of a benchmark.

    Attributes:
        name: file name as published.
        size: as published or reported, in words.
        page: where its authors publish it.
        url: a direct link; None: it has to be downloaded by hand, see `by_hand`.
        sha256: digest published by its authors; a file with another one is refused.
        reported_sha256: digest that others reported. A difference is told and not refused.
        md5_ends: last digits of the MD5 digest, which NAS-Bench-201 has in its file names; a file with others is refused.
        unpacked: folder that the archive becomes, if it is one.
        by_hand: how to download it, in words.
        note: what else is worth knowing.
    """

    name: str
    size: str
    page: str
    url: str | None = None
    sha256: str | None = None
    reported_sha256: str | None = None
    md5_ends: str | None = None
    unpacked: str | None = None
    by_hand: str = ""
    note: str = ""

    def place(self) -> Path:
        """Where it belongs in the download folder."""
        return library.download_folder() / self.name

    def found(self) -> Path | None:
        """What the converter can be given: the unpacked folder, else the file, if it is in the download folder."""
        folder = None if self.unpacked is None else library.download_folder() / self.unpacked
        if folder is not None and folder.is_dir():
            return _only_folder(folder)
        return self.place() if self.place().is_file() else None


@dataclass(frozen=True)
class Entry:
    """One official benchmark; its converted table has the entry's name.

    Attributes:
        name: as typed, such as "nasbench101".
        title: as its paper calls it.
        licence: of the data, as far as its authors state it.
        files: published forms; any one of them is enough. The first is fetched unless another is asked for.
        kind: of table that conversion makes.
        space: of that table, where one converter serves several spaces.
        converter: "module:function" of `convert(source, target, *, jobs, progress)`. The module's `verify(columns)` yields
            (fact, holds) for what is known of the benchmark from elsewhere.
    """

    name: str
    title: str
    licence: str
    files: tuple[SourceFile, ...]
    converter: str
    kind: str
    space: str | None = None

    def convert(self) -> Callable[..., Any]:
        """The converter."""
        module, _, function = self.converter.partition(":")
        found: Callable[..., Any] = getattr(importlib.import_module(module), function)
        return found

    def verify(self) -> Callable[..., Iterator[tuple[str, bool]]]:
        """What checks a converted table against known facts."""
        found: Callable[..., Iterator[tuple[str, bool]]] = importlib.import_module(self.converter.split(":")[0]).verify
        return found

    def file(self, text: str | None) -> SourceFile:
        """The file of this name, or the only one whose name contains `text`; None: the first.

        Raises:
            FetchError: there is none, or more than one.
        """
        if text is None:
            return self.files[0]
        matching = [f for f in self.files if f.name == text] or [
            f for f in self.files if text.lower() in f.name.lower()
        ]
        if len(matching) != 1:
            which = "several files of" if matching else "no file of"
            raise FetchError(f"{text!r} names {which} {self.name}: choose from {', '.join(f.name for f in self.files)}")
        return matching[0]


_NATS = "https://github.com/D-X-Y/NATS-Bench"
_NASBENCH201 = "https://github.com/D-X-Y/NAS-Bench-201"
_DRIVE = (
    "Open {page}#preparation-and-download and follow the Google Drive link {where}. If Drive says that the quota is exceeded,"
    " sign in and make a copy in your own Drive, or try again a day later."
)


def _nats(space: str, digits: str, size: str, reported_sha256: str | None) -> tuple[SourceFile, SourceFile]:
    name = f"NATS-{space}-v1_0-{digits}"
    return (
        SourceFile(
            f"{name}-simple.tar",
            size,
            _NATS,
            reported_sha256=reported_sha256,
            unpacked=f"{name}-simple",
            by_hand=_DRIVE.format(page=_NATS, where=f"in the column 'archive ({space})'"),
            note="one file per architecture",
        ),
        SourceFile(
            f"{name}.pickle.pbz2",
            "about 1 GB",
            _NATS,
            by_hand=_DRIVE.format(page=_NATS, where=f"in the column 'benchmark file ({space})'"),
            note="the same in one file",
        ),
    )


CATALOGUE: Mapping[str, Entry] = {
    entry.name: entry
    for entry in (
        Entry(
            "nasbench101",
            "NAS-Bench-101 (Ying et al., ICML 2019)",
            "Apache-2.0",
            (
                SourceFile(
                    "nasbench_full.tfrecord",
                    "~1.95 GB",
                    "https://github.com/google-research/nasbench",
                    "https://storage.googleapis.com/nasbench/nasbench_full.tfrecord",
                    "3d64db8180fb1b0207212f9032205064312b6907a3bbc81eabea10db2f5c7e9c",
                    note="trained for 4, 12, 36 and 108 epochs",
                ),
                SourceFile(
                    "nasbench_only108.tfrecord",
                    "~499 MB",
                    "https://github.com/google-research/nasbench",
                    "https://storage.googleapis.com/nasbench/nasbench_only108.tfrecord",
                    "4c39c3936e36a85269881d659e44e61a245babcb72cb374eacacf75d0e5f4fd1",
                    note="trained for 108 epochs only",
                ),
            ),
            "nasharness.benchmarks.convert.nasbench101:convert",
            "nasbench101",
        ),
        Entry(
            "nasbench201",
            "NAS-Bench-201 (Dong and Yang, ICLR 2020) and the topology space of NATS-Bench (Dong et al., TPAMI 2021)",
            "MIT",
            (
                *_nats(
                    "tss",
                    "3ffb9",
                    "1,145,989,120 bytes as reported",
                    "580fd8f3425fed9f495640b0f12ccb7744f89dec7aff263bd75aed37ab0b8bb6",
                ),
                SourceFile(
                    "NAS-Bench-201-v1_1-096897.pth",
                    "4.7 GB",
                    _NASBENCH201,
                    md5_ends="096897",
                    by_hand=_DRIVE.format(page=_NASBENCH201, where="of v1.1"),
                    note="12 epochs on all datasets, 200 epochs",
                ),
                SourceFile(
                    "NAS-Bench-201-v1_0-e61699.pth",
                    "2.2 GB",
                    _NASBENCH201,
                    md5_ends="e61699",
                    by_hand=_DRIVE.format(page=_NASBENCH201, where="of v1.0"),
                    note="12 epochs on CIFAR-10 only, 200 epochs",
                ),
            ),
            "nasharness.benchmarks.convert.nats:convert",
            "nats",
            "nasbench201",
        ),
        Entry(
            "nats-size",
            "The size space of NATS-Bench (Dong et al., TPAMI 2021)",
            "MIT",
            _nats("sss", "50262", "about 1.1 GB", None),
            "nasharness.benchmarks.convert.nats:convert",
            "nats",
            "nats_size",
        ),
        Entry(
            "nasbench301",
            "NAS-Bench-301 (Zela et al., ICLR 2022), surrogate models",
            "Apache-2.0 (its repository)",
            (
                SourceFile(
                    "nasbench301_models_v1.0.zip",
                    "1,848,669,012 bytes as reported",
                    "https://figshare.com/articles/software/nasbench301_models_v1_0_zip/13061510",
                    "https://ndownloader.figshare.com/files/24992018",
                    reported_sha256="e807411d6a454841965d3157a977896683b716dc48743049bd6be0ce94210824",
                    unpacked="nasbench301_models_v1.0",
                ),
                SourceFile(
                    "nasbench301_models_v0.9.zip",
                    "1.6 GB as reported",
                    "https://figshare.com/articles/software/nasbench301_models_v0_9_zip/12962432",
                    "https://ndownloader.figshare.com/files/24693026",
                    unpacked="nasbench301_models_v0.9",
                    note="the models of the first version of the paper",
                ),
            ),
            "nasharness.benchmarks.convert.nasbench301:convert",
            "nasbench301",
        ),
    )
}


def entry(name: str) -> Entry:
    """The catalogue's entry of this name.

    Raises:
        FetchError: there is none; the message lists those that there are.
    """
    if name not in CATALOGUE:
        close = difflib.get_close_matches(name, CATALOGUE, n=1)
        hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(CATALOGUE)}"
        raise FetchError(f"unknown official benchmark {name!r}: {hint}")
    return CATALOGUE[name]


@dataclass(frozen=True)
class Fetched:
    """A file that is complete and in its place.

    Attributes:
        path: what the converter takes: the file, or the folder that it was unpacked into.
        sha256: digest of the file.
        verdict: what this digest was compared with, in words.
        downloaded: False if it was there already.
    """

    path: Path
    sha256: str
    verdict: str
    downloaded: bool


def fetch(
    name: str, file: str | None = None, *, mirror: str | None = None, progress: Progress | None = None
) -> Fetched:
    """Download an official file into the download folder, check it, and unpack it if it is a zip archive.

    A file that is there already is checked and not downloaded again. A download goes to a hidden name and gets its own when
    it is complete and checked; what a cut-off one left is continued by the next call.

    Args:
        name: an entry of the catalogue.
        file: which of its files, by name or a part of it; None: one that is there already, else the first.
        mirror: address of a folder that holds a file of the same name, to be used instead of the published link.
        progress: called with (bytes so far, bytes in all).

    Raises:
        FetchError: unknown name, a file that can only be downloaded by hand and is not there yet (the message says how), a
            download that failed, or a file with a wrong digest.
    """
    wanted = entry(name)
    here = None if file is not None else next((f for f in wanted.files if f.place().is_file()), None)
    source = here or wanted.file(file)
    target = source.place()
    if target.is_dir():
        raise FetchError(f"{target} is a folder, but the file {source.name} belongs there: move the folder away")
    url = source.url if mirror is None else f"{mirror.rstrip('/')}/{source.name}"
    downloaded = not target.exists()
    if downloaded:
        if url is None:
            raise FetchError(_by_hand(wanted, source))
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f".{target.name}.part")
        _download(url, part, progress)
        try:
            sha256, verdict = _check(source, part, url)
        except FetchError:
            _discard(part)
            raise
        part.replace(target)
        _discard(part)
    else:
        sha256, verdict = _check(source, target, str(target))
    _record(target).write_text(f"{sha256}  {target.name}\n", encoding="utf-8")
    if source.unpacked is not None and target.suffix == ".zip" and not target.with_name(source.unpacked).exists():
        unpack(target, target.with_name(source.unpacked))
    return Fetched(source.found() or target, sha256, verdict, downloaded)


def _by_hand(wanted: Entry, source: SourceFile) -> str:
    others = [f"{f.name} ({f.size})" for f in wanted.files if f is not source]
    steps = [source.by_hand, f"Put it at {source.place()}, or anywhere else."]
    if source.unpacked is not None:
        steps.append(f"Unpack it there: tar xf {source.name}")
    given = source.place().with_name(source.unpacked or source.name)
    steps.append(f"nasharness data convert {wanted.name} {given}")
    lines = [f"{source.name} ({source.size}) cannot be downloaded by a program:"]
    lines += [f"  {i}. {step}" for i, step in enumerate(steps, 1)]
    if others:
        lines.append(f"Instead of it, any of these will do (--file): {', '.join(others)}")
    return "\n".join(lines)


def _record(target: Path) -> Path:
    """The side file that remembers a file's digest, in the format of `sha256sum`."""
    return target.with_name(f"{target.name}.sha256")


def _check(source: SourceFile, path: Path, where: str) -> tuple[str, str]:
    """Digest of a complete file, and what it was compared with."""
    import pooch

    if source.name.endswith(".zip") and not zipfile.is_zipfile(path):  # such as a web page that was sent instead
        raise FetchError(f"{where} is not a zip archive; open {source.page} and download {source.name} by hand")
    found = str(pooch.file_hash(str(path), alg="sha256"))
    if source.sha256 is not None:
        if found != source.sha256:
            raise FetchError(
                f"{where} is not the published {source.name}: its sha256 is {found}, expected {source.sha256}."
                " It is damaged or another file: remove it and fetch it again"
            )
        return found, "the digest that its authors published"
    record = _record(source.place())
    if record.exists() and (recorded := record.read_text(encoding="utf-8").split()[:1]) != [found]:
        raise FetchError(
            f"{where} has changed: its sha256 is {found}, expected {' '.join(recorded)} as recorded when it was first"
            f" fetched. If this is intended, remove {record}"
        )
    if source.md5_ends is not None:
        md5 = str(pooch.file_hash(str(path), alg="md5"))
        if not md5.endswith(source.md5_ends):
            raise FetchError(
                f"{where} is not the published {source.name}: its MD5 is {md5} and should end in {source.md5_ends}, as its"
                " name says. It is incomplete or another file: download it again"
            )
        return found, f"none published; its MD5 ends in {source.md5_ends} as its name says"
    if source.reported_sha256 is not None:
        if found == source.reported_sha256:
            return found, "none published; it is the digest that others reported"
        return found, f"none published; others reported {source.reported_sha256}, so look twice"
    return found, f"none published; recorded in {record} so that a change is noticed"


def _discard(part: Path) -> None:
    part.unlink(missing_ok=True)
    _origin(part).unlink(missing_ok=True)


def _origin(part: Path) -> Path:
    """The side file that remembers where an unfinished download came from."""
    return part.with_name(f"{part.name}.origin")


class _Arrival:
    """Stands between pooch and the unfinished file: where the answer continues it, what arrived, and how much is to come."""

    def __init__(self, url: str, part: Path, file: IO[bytes], progress: Progress | None) -> None:
        self.url, self.part, self.file, self.progress = url, part, file, progress
        self.start = file.tell()
        self.status = 0
        self.total = 0  # set by pooch: the length of the answer's body

    def answer(self, response: Any, **_: object) -> None:
        """What requests calls with the head of every answer."""
        if response.is_redirect or response.status_code >= 400:
            return
        self.status = response.status_code
        if self.status == 206:
            if not response.headers.get("Content-Range", "").startswith(f"bytes {self.start}-"):
                raise FetchError(f"{self.url} answered with another part of the file than was asked for; try again")
        else:  # the whole file, from the start
            self.file.seek(0)
            self.file.truncate()
            self.start = 0
        validator = response.headers.get("ETag", "")
        if not validator or validator.startswith("W/"):
            validator = response.headers.get("Last-Modified", "")
        _origin(self.part).write_text(json.dumps({"url": self.url, "validator": validator}), encoding="utf-8")
        if (length := int(response.headers.get("Content-Length", 0))) > (
            free := shutil.disk_usage(self.part.parent).free
        ):
            raise FetchError(f"{self.part.parent} has {free:,} bytes free, {self.url} needs {length:,}")

    # What pooch asks of a progress bar:
    def update(self, _: int) -> None:
        if self.progress is not None:
            self.progress(self.file.tell(), max(self.start + self.total, self.file.tell()))

    def reset(self) -> None:
        """Nothing to do: `update` reports what is in the file."""

    def close(self) -> None:
        """Nothing to do."""


def _download(url: str, part: Path, progress: Progress | None) -> None:
    """Bring `url` into `part`, continuing what is there from an earlier attempt at the same address."""
    import pooch

    with part.open("ab") as file:
        _lock(file, url)
        origin: dict[str, str] = {}
        with contextlib.suppress(OSError, ValueError):
            origin = json.loads(_origin(part).read_text(encoding="utf-8"))
        if not origin.get("validator") or origin.get("url") != url:  # nothing says that it is the same file
            file.seek(0)
            file.truncate()
        arrival = _Arrival(url, part, file, progress)
        headers = {"Accept-Encoding": "identity"}
        if arrival.start:
            headers |= {"Range": f"bytes={arrival.start}-", "If-Range": origin["validator"]}
        downloader = pooch.HTTPDownloader(
            progressbar=arrival, chunk_size=1 << 16, headers=headers, hooks={"response": arrival.answer}
        )
        problem = ""
        try:
            downloader(url, file, None)
            if arrival.status not in (200, 206):
                problem = f"it answered with status {arrival.status} and no file"
            elif not file.tell():
                problem = "the answer was empty"
        except OSError as error:  # what requests raises is one, too
            status = getattr(getattr(error, "response", None), "status_code", None)
            if status == 416 and arrival.start:  # there is no more than what we have: begin again
                file.seek(0)
                file.truncate()
            problem = str(error)
        kept = file.tell()
    if problem:
        if not kept:
            _discard(part)
        raise FetchError(
            f"downloading {url} failed: {problem}."
            + (f" {kept:,} bytes arrived; the same command goes on from there, or begins again." if kept else "")
        )


def _lock(file: IO[bytes], url: str) -> None:
    """Keep a second process from writing into the same unfinished file."""
    if sys.platform == "win32":  # it has no flock
        return
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise FetchError(f"another process is downloading {url} right now") from None


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a zip archive into a new folder that appears when it is complete.

    Raises:
        FetchError: the archive is damaged, does not fit on the disk, or has a member that is a link or special file, has a
            name that leads out of the folder, or has a name twice.
    """
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        with zipfile.ZipFile(archive) as opened:
            members = opened.infolist()
            needed, free = sum(m.file_size for m in members), shutil.disk_usage(folder.parent).free
            if needed > free:
                raise FetchError(f"unpacking {archive} needs {needed:,} bytes, {folder.parent} has {free:,} free")
            for member in members:
                _unpack_member(opened, member, temporary)
        temporary.chmod(0o755)
        temporary.rename(folder)
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        RuntimeError,
        NotImplementedError,
        FileExistsError,
        NotADirectoryError,
    ) as error:
        raise FetchError(f"{archive} cannot be unpacked: {error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _unpack_member(opened: zipfile.ZipFile, member: zipfile.ZipInfo, folder: Path) -> None:
    name = PurePosixPath(member.filename)
    kind = stat.S_IFMT(member.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise FetchError(f"{opened.filename}: refused, because {member.filename!r} is a link or special file")
    if name.is_absolute() or ".." in name.parts or not name.parts or any(c in member.filename for c in "\\:\0"):
        raise FetchError(f"{opened.filename}: refused, because {member.filename!r} leads out of the folder")
    target = folder.joinpath(*name.parts)
    if member.is_dir():
        target.mkdir(parents=True, exist_ok=True)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with opened.open(member) as content, target.open("xb") as file:
        shutil.copyfileobj(content, file, 1 << 20)


def _only_folder(folder: Path) -> Path:
    """The one folder inside `folder`, if it holds nothing else; an archive of a folder unpacks to that."""
    inside = list(folder.iterdir())
    return inside[0] if len(inside) == 1 and inside[0].is_dir() else folder


def find(name: str) -> Path:
    """The file of a converted or imported table.

    Raises:
        TableError: it is not there; the message says which commands put it there.
    """
    path = library.converted_path(name)
    if path.is_file():
        return path
    if name in CATALOGUE:
        raise TableError(
            f"{CATALOGUE[name].title} is not converted yet (there is no {path}). Get the official file with"
            f" `nasharness data fetch {name}`, then convert it once with `nasharness data convert {name} FILE`."
        )
    known = ", ".join(library.installed()) or "none"
    raise TableError(
        f"there is no table {name!r} in {path.parent}; there are: {known}."
        f" A table of your own comes there with `nasharness data import SPACE TABLE.csv --name {name}`;"
        f" official files: {', '.join(CATALOGUE)} (`nasharness data list`)."
    )
