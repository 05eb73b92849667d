"""A function that is called with the key of each request."""

from __future__ import annotations

import os
import sys
import threading
from collections import Counter
from pathlib import Path

import pytest

from multisite.router import code as module
from multisite.router.code import SLOW, TURN, Code, Function
from multisite.router.groups import Group, Groups
from tests.servers.harness import eventually

# uWSGI's documentation has it, word for word.
ROUND_ROBIN = """
domains = {}
domains['example.com'] = {'nodes': ('127.0.0.1:3031', '192.168.0.100:3032'), 'node': 0}
domains['unbit.it'] = {'nodes': ('127.0.0.1:3035,5', '192.168.0.100:3035,5'), 'node': 0}
DEFAULT_NODE = '192.168.0.1:1717'
def get(key):
    if key not in domains:
        return DEFAULT_NODE
    # get the node to forward requests to
    nodes = domains[key]['nodes']
    current_node = domains[key]['node']
    value = nodes[current_node]
    # round robin :P
    next_node = current_node + 1
    if next_node >= len(nodes):
        next_node = 0
    domains[key]['node'] = next_node
    return value
"""


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No machine is so slow that a call that is quick takes too long."""
    monkeypatch.setattr(module, "SLOW", 30.0)
    monkeypatch.setattr(module, "TURN", 30.0)


def code(folder: Path, text: str) -> Code:
    write(folder, text)
    return Code("mapper.py:get", str(folder), Groups())


def write(folder: Path, text: str) -> None:
    draft = folder / "draft"
    draft.write_text(text)
    os.replace(draft, folder / "mapper.py")


def shown(group: Group | None) -> str:
    return "|".join(f"{node},{node.modifier1}" for node in group.nodes) if group else ""


def test_the_documented_example_alternates(tmp_path: Path) -> None:
    found = code(tmp_path, ROUND_ROBIN)
    got = [shown(found.find("example.com")) for _ in range(6)]
    assert got == ["127.0.0.1:3031,0", "192.168.0.100:3032,0"] * 3
    assert [shown(found.find("unbit.it")) for _ in range(3)] == [
        "127.0.0.1:3035,5",
        "192.168.0.100:3035,5",
        "127.0.0.1:3035,5",
    ]
    assert shown(found.find("other.example")) == "192.168.0.1:1717,0"


def test_threads_take_turns_too(tmp_path: Path) -> None:
    """Each call is made for one request, so that no node has more of them than another."""
    found = code(tmp_path, ROUND_ROBIN)
    found.find("example.com")
    got: Counter[str] = Counter()
    lock = threading.Lock()

    def ask() -> None:
        for _ in range(250):
            answer = shown(found.find("example.com"))
            with lock:
                got[answer] += 1

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(got.values()) == 2000
    assert got["127.0.0.1:3031,0"] == 1000


def test_it_is_called_by_one_thread_at_a_time(tmp_path: Path) -> None:
    found = code(
        tmp_path,
        "import time\ninside = most = 0\n"
        "def get(key):\n    global inside, most\n    inside += 1\n    most = max(most, inside)\n"
        "    time.sleep(0.001)\n    inside -= 1\n    return 'a:1'\n",
    )
    threads = [threading.Thread(target=lambda: [found.find("a.example") for _ in range(20)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    module = found._function._module
    assert module
    assert module.most == 1


def test_it_is_loaded_once(tmp_path: Path) -> None:
    found = code(tmp_path, f"open({str(tmp_path / 'loaded')!r}, 'a').write('x')\ndef get(key): return 'a:1'")
    for key in ("a.example", "b.example", "a.example"):
        found.find(key)
        found.look()
    assert (tmp_path / "loaded").read_text() == "x"


def test_an_exception_costs_its_request(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is logged once, with where it comes from; the last good answer serves, and other keys are answered."""
    found = code(
        tmp_path,
        "calls = 0\ndef get(key):\n    global calls\n    calls += 1\n"
        "    if key == 'bad.example' or calls in (3, 4): raise LookupError(key)\n    return 'a:1'\n",
    )
    assert shown(found.find("good.example")) == "a:1,0"
    assert found.find("bad.example") is None
    assert shown(found.find("good.example")) == "a:1,0"
    assert shown(found.find("good.example")) == "a:1,0"
    assert found.find("bad.example") is None
    told = [record for record in caplog.records if "LookupError" in record.getMessage()]
    assert len(told) == 1
    assert told[0].exc_info


def test_a_slow_call_costs_its_own_request_only(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it was that was slow before: a key that is new, and one that was quick until then."""
    monkeypatch.setattr(module, "SLOW", SLOW)
    monkeypatch.setattr(module, "TURN", TURN)
    found = code(
        tmp_path,
        "import os, time\nfolder = os.path.dirname(__file__)\n"
        "def get(key):\n"
        "    while key.startswith('slow') and not os.path.exists(f'{folder}/go'): time.sleep(0.01)\n"
        "    return 'a:1'\n",
    )
    (tmp_path / "go").touch()
    for key in ("slow-known.example", "known.example"):
        eventually(lambda key=key: found.find(key))
    (tmp_path / "go").unlink()
    assert found.find("slow-new.example") is None
    thread = threading.Thread(target=found.find, args=("slow-known.example",))
    thread.start()
    for number in range(10):
        assert found.find("known.example"), number
        eventually(lambda key=f"new-{number}.example": found.find(key))  # a slow machine needs more than one look
        assert found.find("slow-new.example") is None
    (tmp_path / "go").touch()
    thread.join()
    eventually(lambda: found.find("slow-new.example"))
    assert len([record for record in caplog.records if "slow-" in record.getMessage()]) <= 2
    assert f"no answer within {2000 * SLOW:g} ms" in caplog.text


def test_what_it_returns_is_checked(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    found = code(tmp_path, "def get(key): return {'none': None, 'bytes': b'a:1', 'bad': 'nowhere', 'no': ''}[key]")
    assert [found.find(key) for key in ("none", "bytes", "bad", "no")] == [None] * 4
    assert "it returned bytes instead of text or None" in caplog.text
    assert "code: 'nowhere' is not a node" in caplog.text


def test_a_changed_file_is_loaded(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A broken one leaves the last good one, is logged once, and the next good one is taken."""
    found = code(tmp_path, "def get(key): return 'a:1'")
    assert shown(found.find("a.example")) == "a:1,0"
    write(tmp_path, "def get(key): return 'a:22'")
    found.look()
    assert shown(found.find("a.example")) == "a:22,0"
    write(tmp_path, "def get(key) return")
    for _ in range(3):
        found.look()
        assert shown(found.find("a.example")) == "a:22,0"
    assert len([record for record in caplog.records if "the last good version is used" in record.getMessage()]) == 1
    (tmp_path / "mapper.py").unlink()
    found.look()
    assert shown(found.find("a.example")) == "a:22,0"
    write(tmp_path, "def get(key): return 'a:333'")
    found.look()
    assert shown(found.find("a.example")) == "a:333,0"


def test_a_file_that_is_broken_at_first_costs_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    found = code(tmp_path, "raise SystemExit(3)")
    assert found.find("a.example") is None
    assert found.find("b.example") is None
    assert len([record for record in caplog.records if "mapper.py:get" in record.getMessage()]) == 1
    write(tmp_path, "def get(key): return 'a:1'")
    found.look()
    assert shown(found.find("a.example")) == "a:1,0"


def test_an_exit_ends_no_thread(tmp_path: Path) -> None:
    found = code(tmp_path, "import sys\ndef get(key): return sys.exit(3) if key.startswith('bad') else 'a:1'")
    assert [found.find(f"bad-{number}.example") for number in range(8)] == [None] * 8
    assert found.find("good.example")


def test_a_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the home, or any other."""
    (tmp_path / "mapper_of_test_code.py").write_text("def get(key): return 'a:1'")
    monkeypatch.setattr(sys, "path", list(sys.path))
    found = Code("mapper_of_test_code:get", str(tmp_path), Groups())
    assert shown(found.find("a.example")) == "a:1,0"
    found.look()


@pytest.mark.parametrize("target", ["", "mapper.py", "mapper.py:", ":get", "mapper.py:get()", "0:mapper.py:"])
def test_what_is_no_target(tmp_path: Path, target: str) -> None:
    with pytest.raises(ValueError, match="FILE:FUNCTION or MODULE:FUNCTION"):
        Function(target, str(tmp_path))


def test_hostile_keys_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from multisite.router import lookups

    monkeypatch.setattr(lookups, "MOST_ANSWERS", 100)
    found = code(tmp_path, ROUND_ROBIN)
    for number in range(2000):
        assert found.find(f"{number}.example")
    assert len(found._answers) <= 100
    assert len(found._unknown) <= 100
