"""``wsgi.file_wrapper`` sends what reading the object gives, in every way in which a site is reached."""

from __future__ import annotations

import gzip
from collections.abc import Iterator

import pytest

from .everyway import WSGI, Way, every_way

pytestmark = pytest.mark.servers

DATA = b"".join(b"%d a line of the log\n" % number for number in range(20_000))  # half a megabyte
SMALL = b"twelve bytes"

APP = '''
import bz2, gzip, io, os, tempfile, threading

HERE = os.path.dirname(os.path.abspath(__file__))
PLACE = os.path.join(HERE, "data.txt")
closed = []


class Reads:
    """An object that can be read, and nothing else."""

    def __init__(self, file):
        self.read = file.read


class Pretends(io.BytesIO):
    """What it holds is not what its descriptor holds."""

    def fileno(self):
        return os.open(PLACE, os.O_RDONLY)


class Raw(io.RawIOBase):
    """Reads a descriptor, and changes what comes."""

    def __init__(self):
        self._file = io.FileIO(PLACE)

    def readable(self):
        return True

    def fileno(self):
        return self._file.fileno()

    def readinto(self, buffer):
        data = self._file.read(len(buffer)).upper()
        buffer[: len(data)] = data
        return len(data)


class Closes(io.FileIO):
    def close(self):
        if not self.closed:
            closed.append(self.name)
        super().close()


def data():
    return open(PLACE, "rb")


def sniffed(file):
    file.read(10)
    file.seek(0)
    return file


def begun(file):
    file.read(12)
    return file


def in_a_pipe():
    reading, writing = os.pipe()

    def write():
        with open(writing, "wb") as file:
            file.write(data().read())

    threading.Thread(target=write).start()
    return open(reading, "rb")


def temporary(make):
    file = make()
    file.write(data().read())
    file.seek(0)
    return file


def unflushed():
    file = tempfile.TemporaryFile()
    file.write(data().read())
    file.seek(0)
    file.read(12)
    return file


def compressed(module, suffix):
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "file" + suffix)
        with module.open(path, "wb") as file:
            file.write(data().read())
        return module.open(path, "rb")


FILES = {
    "plain": data,
    "raw": lambda: io.FileIO(PLACE),
    "small": lambda: open(os.path.join(HERE, "small.txt"), "rb"),
    "empty": lambda: open(os.devnull, "rb"),
    "sniffed": lambda: sniffed(data()),
    "begun": lambda: begun(data()),
    "begun-raw": lambda: begun(io.FileIO(PLACE)),
    "gzip": lambda: gzip.open(os.path.join(HERE, "data.gz"), "rb"),
    "gzip-sniffed": lambda: sniffed(gzip.open(os.path.join(HERE, "data.gz"), "rb")),
    "bz2": lambda: compressed(bz2, ".bz2"),
    "buffered-gzip": lambda: io.BufferedReader(gzip.open(os.path.join(HERE, "data.gz"), "rb")),
    "memory": lambda: io.BytesIO(data().read()),
    "reads": lambda: Reads(data()),
    "pretends": lambda: Pretends(data().read()),
    "upper": Raw,
    "buffered-upper": lambda: io.BufferedReader(Raw()),
    "pipe": in_a_pipe,
    "temporary": lambda: temporary(tempfile.TemporaryFile),
    "named": lambda: temporary(tempfile.NamedTemporaryFile),
    "spooled": lambda: temporary(tempfile.SpooledTemporaryFile),
    "spilled": lambda: temporary(lambda: tempfile.SpooledTemporaryFile(max_size=10)),
    "unflushed": unflushed,
    "text": lambda: open(PLACE, encoding="ascii"),
    "random": lambda: open(PLACE, "r+b"),
}


def application(environ, start_response):
    kind, _, length = environ["QUERY_STRING"].partition("&")
    path = environ["PATH_INFO"]
    headers = [("Content-Type", "text/plain")]
    if length:
        headers.append(("Content-Length", length))
    if path == "/closed":
        start_response("200 OK", [])
        return [str(closed.count(PLACE)).encode()]
    if path == "/warm":
        start_response("200 OK", [])
        return []
    if path == "/system":
        file = open(kind, "rb")
        found = file.read()
        file.seek(0)
        start_response("200 OK", [("X-Read", str(len(found)))])
        return environ["wsgi.file_wrapper"](file)
    if path == "/shrinks":
        place = tempfile.NamedTemporaryFile(delete=False)
        place.write(data().read())
        place.flush()
        file = open(place.name, "rb")
        start_response("200 OK", headers)
        os.truncate(place.name, 1000)
        os.unlink(place.name)
        return environ["wsgi.file_wrapper"](file)
    if path == "/grows":
        place = tempfile.NamedTemporaryFile(delete=False)
        file = open(place.name, "rb")
        os.unlink(place.name)
        start_response("200 OK", headers)
        body = environ["wsgi.file_wrapper"](file)
        place.write(data().read())
        place.flush()
        return body
    start_response("200 OK", headers)
    file = Closes(PLACE) if path == "/closes" else FILES[kind]()
    return environ["wsgi.file_wrapper"](file, 4096) if path == "/blocks" else environ["wsgi.file_wrapper"](file)
'''

EXPECTED = dict.fromkeys(
    [
        "plain",
        "raw",
        "sniffed",
        "gzip",
        "gzip-sniffed",
        "bz2",
        "buffered-gzip",
        "memory",
        "reads",
        "pretends",
        "pipe",
        "temporary",
        "named",
        "spooled",
        "spilled",
        "text",
        "random",
    ],
    DATA,
)
EXPECTED |= {"small": SMALL, "empty": b"", "upper": DATA.upper(), "buffered-upper": DATA.upper()}
EXPECTED |= dict.fromkeys(("begun", "begun-raw", "unflushed"), DATA[12:])


@pytest.fixture(scope="module")
def ways(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Way]]:
    files = {"data__txt": DATA, "small__txt": SMALL, "data__gz": gzip.compress(DATA)}
    with every_way(tmp_path_factory.mktemp("files"), APP, **files) as found:
        yield found


@pytest.mark.parametrize("name", WSGI)
def test_what_reading_gives_is_sent(ways: dict[str, Way], name: str) -> None:
    """Of any kind of object, from where it stands; whole, with and without a length, and in blocks of any size."""
    for kind, expected in EXPECTED.items():
        for path, length in (("/", ""), ("/", f"&{len(expected)}"), ("/blocks", "")):
            answer = ways[name].ask(f"{path}?{kind}{length}")
            found = (answer.status, len(answer.body), answer.body == expected, answer.cut, answer.more)
            assert found == (200, len(expected), True, False, b""), (kind, path, length)


@pytest.mark.parametrize("name", WSGI)
def test_it_answers_any_request(ways: dict[str, Way], name: str) -> None:
    """One with a body in chunks is read by other code where it comes straight to the site's socket."""
    for kind in ("plain", "gzip", "sniffed", "small"):
        answer = ways[name].ask(f"/?{kind}", "POST", "Transfer-Encoding: chunked", body=b"3\r\nabc\r\n0\r\n\r\n")
        assert (answer.body == EXPECTED[kind], answer.cut) == (True, False), kind


@pytest.mark.parametrize("name", WSGI)
def test_a_length_bounds_it(ways: dict[str, Way], name: str) -> None:
    """A Content-Length shorter than the file is all that is sent, from where the file stands."""
    for kind in ("plain", "raw", "begun", "sniffed", "gzip", "memory"):
        answer = ways[name].ask(f"/?{kind}&1000")
        expected = (DATA[12:] if kind == "begun" else DATA)[:1000]
        assert (answer.body, answer.cut, answer.more) == (expected, False, b""), kind


@pytest.mark.parametrize("name", WSGI)
def test_a_file_whose_size_the_system_does_not_tell(ways: dict[str, Way], name: str) -> None:
    """Those of /proc are said to be empty, those of /sys to have the size of a page."""
    for path in ("/proc/self/status", "/sys/kernel/mm/transparent_hugepage/enabled", "/sys/kernel/uevent_seqnum"):
        answer = ways[name].ask(f"/system?{path}")
        if answer.status == 200:  # this machine has it
            assert answer.body, path
            assert abs(len(answer.body) - int(answer.all("X-Read")[0])) < 50, path
            assert not answer.cut


@pytest.mark.parametrize("name", WSGI)
def test_a_file_that_changes_its_size(ways: dict[str, Way], name: str) -> None:
    """What is there when it is read is sent; where that is less than announced, the client sees it."""
    assert ways[name].ask("/shrinks").body == DATA[:1000]
    assert ways[name].ask("/grows").body == DATA
    assert ways[name].ask(f"/grows?&{len(DATA)}").body == DATA
    if "in-process" not in name:  # which depends on the server
        short = ways[name].ask(f"/shrinks?&{len(DATA)}")
        assert (short.body, short.cut) == (DATA[:1000], True)


@pytest.mark.parametrize("name", WSGI)
def test_nothing_of_it_answers_a_head(ways: dict[str, Way], name: str) -> None:
    """The head alone is sent."""
    for kind in ("plain", "gzip", "memory"):
        answer = ways[name].ask(f"/?{kind}&{len(DATA)}", "HEAD")
        assert (answer.status, answer.body, answer.more) == (200, b"", b"")
        assert answer.all("Content-Length") == [str(len(DATA))]


@pytest.mark.parametrize("name", WSGI)
def test_it_is_closed_once(ways: dict[str, Way], name: str) -> None:
    """Whatever sent it."""
    before = int(ways[name].ask("/closed").body)
    assert ways[name].ask("/closes").body == DATA
    assert ways[name].ask(f"/closes?&{len(DATA)}").body == DATA
    assert int(ways[name].ask("/closed").body) == before + 2
