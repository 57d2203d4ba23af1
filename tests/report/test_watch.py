"""`edgenas watch`: what is served and to whom, what a terminal shows, and how both follow a run that grows."""

from __future__ import annotations

import http.client
import json
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgenas.errors import DataError, UsageError
from edgenas.report.live.served import Server
from edgenas.report.live.terminal import MAX_LINES, front, leaders, view
from edgenas.report.live.watched import Watched
from tests.fuzz import command
from tests.processes import eventually
from tests.report.subjects import MAKERS

ALWAYS = {"share": 1e9, "look_s": 0.0}  # looks cost nothing, so that no test waits


class Growing:
    """A run that another program writes: the first half of a search's candidates, then all, then its end."""

    def __init__(self, whole: Path, path: Path) -> None:
        self.whole, self.path = whole, path
        path.mkdir(parents=True)
        shutil.copy(whole / "run.json", path)
        self.lines = (whole / "trials.jsonl").read_bytes().splitlines(keepends=True)
        self.write(len(self.lines) // 2)

    def write(self, count: int, torn: bytes = b"") -> None:
        (self.path / "trials.jsonl").write_bytes(b"".join(self.lines[:count]) + torn)

    def end(self) -> None:
        self.write(len(self.lines))
        shutil.copy(self.whole / "result.json", self.path)


@pytest.fixture
def growing(workplace: Path, capsys: pytest.CaptureFixture[str]) -> Growing:
    return Growing(Path(MAKERS["search"](workplace, capsys)), workplace / "runs" / "growing")


@pytest.fixture
def server(growing: Growing) -> Iterator[Server]:
    with Server(Watched(["growing"], **ALWAYS)) as made:
        stop = threading.Event()

        def serve() -> None:
            while not stop.is_set():
                made.handle_request()

        thread = threading.Thread(target=serve)
        thread.start()
        yield made
        stop.set()
        thread.join()


def ask(
    server: Server, path: str | None = None, method: str = "GET", **headers: str
) -> tuple[int, http.client.HTTPResponse, str]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=240)
    connection.request(method, f"/{server.token}/" if path is None else path, headers=headers)
    answer = connection.getresponse()
    return answer.status, answer, answer.read().decode()


def test_the_page_is_served_with_its_program_and_follows(server: Server, growing: Growing) -> None:
    status, answer, page = ask(server)
    assert status == 200
    assert "UNFINISHED" in page
    assert f"{len(growing.lines) // 2:,} candidates so far" in page
    assert "connect-src &#x27;self&#x27;" in page
    tag = answer.headers["ETag"]
    assert ask(server, **{"If-None-Match": tag})[0] == 304
    growing.write(len(growing.lines) // 2 + 3, torn=growing.lines[-1][:30])
    status, answer, page = ask(server, **{"If-None-Match": tag})
    assert status == 200
    assert f"{len(growing.lines) // 2 + 3:,} candidates so far" in page, "a torn line is one that comes"
    assert answer.headers["ETag"] != tag
    growing.end()
    page = ask(server)[2]
    assert "UNFINISHED" not in page
    assert "Ended; as of" in page


def test_a_run_that_went_and_came_again(server: Server, growing: Growing) -> None:
    kept = growing.path.with_name("elsewhere")
    growing.path.rename(kept)
    page = ask(server)[2]
    assert "not to be read: no run &#x27;growing&#x27;" in page
    assert "candidates so far" in page, "what was read before stays"
    kept.rename(growing.path)
    (growing.path / "trials.jsonl").write_bytes(b"{}\n" + b"".join(growing.lines))
    assert "is damaged" in ask(server)[2]
    growing.write(4)
    page = ask(server)[2]
    assert "4 candidates so far" in page
    assert "not to be read" not in page


def test_nobody_else_gets_the_page(server: Server) -> None:
    for path in ("/", "/x/", f"/{server.token}x/", f"/{server.token[:-1]}/", "//", "/%00", "/favicon.ico"):
        assert ask(server, path)[0] == 403, path
    assert ask(server, f"/{server.token}/../etc/passwd")[0] == 404
    for host in ("evil.example", f"evil.example:{server.server_port}", "127.0.0.1:1", "", f"127.0.0.1.evil:{80}"):
        status, _, said = ask(server, Host=host)
        assert status == 403, host
        assert "Verdict" not in said
    assert ask(server, Host=f"localhost:{server.server_port}")[0] == 200
    for method in ("POST", "PUT", "DELETE", "HEAD", "OPTIONS", "CONNECT", "EVIL"):
        status, answer, _ = ask(server, method=method)
        assert status == 405, method
        assert answer.headers["Access-Control-Allow-Origin"] is None
    assert server.server_address[0] == "127.0.0.1"


def test_tokens_are_long_and_differ(growing: Growing) -> None:
    watched = Watched(["growing"], **ALWAYS)
    with Server(watched) as one, Server(watched) as other:
        assert one.token != other.token
        assert len(one.token) >= 32
        assert one.server_port != other.server_port


def test_a_reader_that_says_nothing_keeps_nobody_waiting(server: Server) -> None:
    with socket.create_connection(("127.0.0.1", server.server_port)):
        assert ask(server)[0] == 200


def test_what_has_not_changed_is_not_read_again(growing: Growing, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(["growing"], **ALWAYS)
    first = watched.look()
    monkeypatch.setattr("edgenas.report.live.watched.read_all", lambda name: pytest.fail("read again"))
    assert watched.look() is first
    monkeypatch.undo()
    monkeypatch.chdir(growing.path.parents[1])
    growing.write(3)
    assert len(watched.look().subjects[0].trials) == 3


def test_after_a_look_there_is_rest_but_not_from_the_end(growing: Growing) -> None:
    watched = Watched(["growing"], share=1e-9, look_s=0.0)
    first = watched.look()
    growing.write(3)
    assert watched.look() is first
    growing.end()
    assert watched.look().ended


def test_what_cannot_be_watched_is_refused(growing: Growing, workplace: Path) -> None:
    with pytest.raises(UsageError, match="no run 'other'"):
        Watched(["other"])
    (workplace / "empty").mkdir()
    with pytest.raises(UsageError, match="not a run"):
        Watched(["empty"])
    (growing.path / "run.json").write_text("{")
    with pytest.raises(DataError, match=r"run\.json"):
        Watched(["growing"])


def test_a_job_is_waited_for_until_it_searches(growing: Growing, workplace: Path) -> None:
    job = workplace / "job"
    job.mkdir()
    (job / "auto.json").write_text(json.dumps({"done": {}}))
    watched = Watched(["job"], **ALWAYS)
    look = watched.look()
    assert not look.subjects
    assert "has no search yet" in look.problem
    assert not look.ended
    with Server(watched) as server:
        assert "has no search yet" in server.page()[1].decode()
    shutil.copytree(growing.path, job / "search")
    assert [each.kind for each in watched.look().subjects] == ["search"]
    shutil.copy(growing.whole / "result.json", job / "search")
    assert not watched.look().ended, "it trains and packages then"
    (job / "auto.json").write_text(json.dumps({"done": {"package": {}}}))
    assert watched.look().ended


def test_a_port_in_use_is_said(growing: Growing, capsys: pytest.CaptureFixture[str]) -> None:
    from edgenas.cli import main

    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main(["watch", "growing", "--port", str(port)])
    assert end.value.code == 2
    said = f"edgenas: port {port} is in use; give another with --port, or leave it out for any free one\n"
    assert capsys.readouterr().err == said


@pytest.mark.parametrize("kind", [[], ["--terminal"]], ids=["page", "terminal"])
def test_ctrl_c_ends_it(growing: Growing, kind: list[str]) -> None:
    code = "from edgenas.cli import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "watch", "growing", *kind],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        first = process.stdout.readline()
        assert first.startswith("runs/growing: raspi4" if kind else "http://127.0.0.1:"), process.communicate()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=240)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130
    assert err == "edgenas: watching has ended; what was watched goes on as before\n"


def test_it_ends_with_what_is_watched(growing: Growing) -> None:
    code = "from edgenas.cli import main; main()"
    arguments = [sys.executable, "-c", code, "watch", "growing", "--until-end"]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline().startswith("http://")
            assert process.poll() is None
            growing.end()
            assert eventually(lambda: process.poll() is not None)
        finally:
            process.kill()
    assert process.returncode == 0


def test_two_watch_one_run(growing: Growing) -> None:
    arguments = [sys.executable, "-c", "from edgenas.cli import main; main()", "watch", "growing"]
    watching = [subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    try:
        addresses = []
        for each in watching:
            assert each.stdout is not None
            addresses.append(each.stdout.readline().strip())
        assert len(set(addresses)) == 2
        for address in addresses:
            _, _, host, path = address.split("/", 3)
            connection = http.client.HTTPConnection(host, timeout=240)
            connection.request("GET", f"/{path}")
            assert "UNFINISHED" in connection.getresponse().read().decode()
    finally:
        for each in watching:
            each.kill()
            each.communicate()


def test_the_terminal_shows_the_best(growing: Growing, capsys: pytest.CaptureFixture[str]) -> None:
    look = Watched(["growing"]).look()
    shown = view(look)
    trials = look.subjects[0].trials
    within = [each for each in trials if each["feasible"]]
    assert f"unfinished: {len(trials)} candidates" in shown
    if within:
        assert f"{max(each['score'] for each in within):.4f}" in shown
    assert "going on, as of" in shown
    growing.end()
    code, printed = command("watch", capsys, "watch", "growing", "--terminal", "--until-end")
    assert code == 0
    assert "ended: " in printed


def candidate(number: int, score: float, latency: float) -> dict[str, Any]:
    return {"trial": number, "genes": [number], "score": score, "costs": {"latency": {"value": latency}}}


def test_leaders_and_front() -> None:
    found = [candidate(n, score, latency) for n, (score, latency) in enumerate([(1, 5), (3, 6), (2, 7), (4, 9)])]
    assert [each["score"] for each in leaders([*found, found[3]])] == [4, 3, 2, 1]
    assert [each["score"] for each in front(found, "latency")] == [1, 3, 4]
    many = [candidate(n, n, n) for n in range(100)]
    thinned = front(many, "latency")
    assert len(thinned) == len(leaders(many)) == MAX_LINES
    assert (thinned[0]["score"], thinned[-1]["score"]) == (0, 99)


def test_the_terminal_shows_what_boards_and_brief_trainings_say(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Path(MAKERS["refined"](workplace, capsys))
    line = json.loads((run / "trials.jsonl").read_text().splitlines()[0])
    good = {"latency": {"value": 4.5, "unit": "ms", "source": "measured on board \x1b[31mpi"}}
    records = [
        {"space": line["space"], "genes": line["genes"], "costs": good, "cost_error": None},
        {"space": line["space"], "genes": [0] * 6, "costs": {}, "cost_error": "the board went away"},
    ]
    (run / "measured.jsonl").write_text("".join(json.dumps(each) + "\n" for each in records))
    shown = view(Watched([str(run)]).look())
    assert "boards: 2 architectures measured, 1 failed" in shown
    assert "4.5 ms, measured on board \\x1b[31mpi" in shown
    assert "the board went away" in shown
    assert "refinement: " in shown
    assert "trained: 94.69 % of 113 test images" in shown
