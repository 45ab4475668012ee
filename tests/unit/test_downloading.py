"""A download ends with the right file or with one line, whatever the server does; the server here is on loopback."""

import io
import json
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from vjepa2cli import downloading, registry
from vjepa2cli.downloading import official, pull, transfer
from vjepa2cli.errors import WeightsError
from vjepa2cli.files import digest_bytes

NAME = "vjepa2-vitl-256"
FILE = "vitl.pt"


def archive(text: bytes = b"weights") -> bytes:
    """A whole `.pt` file as far as a download can tell: a zip archive, here of 400 kB."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as written:
        written.writestr("archive/data/0", text * (400_000 // len(text)))
    return buffer.getvalue()


CONTENT = archive()


@dataclass
class Hostile:
    """What the server does: `behaviours` are used up, one a request; then it is kind."""

    content: bytes = CONTENT
    behaviours: list[str] = field(default_factory=list)
    tag: str | None = '"one"'
    ranges: bool = True
    requests: list[tuple[str, str | None]] = field(default_factory=list)
    url: str = ""

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        span = request.headers.get("Range") if self.ranges else None
        self.requests.append((request.path, span))
        behaviour = self.behaviours.pop(0) if self.behaviours else "kind"
        if behaviour.isdecimal():
            request.send_error(int(behaviour))
            return
        if behaviour.startswith("redirect"):
            request.send_response(302)
            request.send_header("Location", behaviour.partition(" ")[2] or "/elsewhere/" + FILE)
            request.end_headers()
            return
        if request.headers.get("If-Range", self.tag) != self.tag:
            span = None
        start = int(span.removeprefix("bytes=").rstrip("-")) if span else 0
        if start >= len(self.content):
            request.send_response(416)
            request.send_header("Content-Range", f"bytes */{len(self.content)}")
            request.end_headers()
            return
        rest = self.content[start:]
        if behaviour == "corrupt":
            rest = rest[: len(rest) // 2] + b"\0" * 64 + rest[len(rest) // 2 + 64 :]
        if behaviour == "truncated":
            rest = rest[: len(rest) // 2]
        request.send_response(206 if span else 200)
        if span:
            request.send_header("Content-Range", f"bytes {start}-{len(self.content) - 1}/{len(self.content)}")
        if self.tag is not None:
            request.send_header("ETag", self.tag)
        request.send_header("Content-Length", str(len(rest)))
        request.end_headers()
        request.wfile.write(rest[: 1 + len(rest) // 3] if behaviour == "drop" else b"" if behaviour == "silent" else rest)


Serve = Callable[..., Hostile]


@pytest.fixture
def serve() -> Iterator[Serve]:
    servers: list[ThreadingHTTPServer] = []

    def start(**how: object) -> Hostile:
        hostile = Hostile(**how)  # type: ignore[arg-type]

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                hostile.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        servers.append(server)
        hostile.url = f"http://127.0.0.1:{server.server_port}/vjepa2"
        return hostile

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder; the official host and the hub are unreachable, so that nothing here leaves the machine."""
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("VJEPA2_OFFLINE", raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("VJEPA2_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(official, "urls", lambda model: _mirrors[:])
    _mirrors.clear()
    return tmp_path / "cache"


_mirrors: list[str] = []


def use(*servers: Hostile) -> None:
    _mirrors[:] = [f"{server.url}/{FILE}" for server in servers]


def quick_pull(offline: bool = False) -> downloading.Pulled:
    return pull(NAME, offline=offline, pause=0.0)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_kind_server_gives_the_file_and_its_digest_is_pinned(serve: Serve, cache: Path) -> None:
    server = serve()
    use(server)
    pulled = quick_pull()
    assert (cache / FILE).read_bytes() == CONTENT
    assert pulled == downloading.Pulled(NAME, "official", cache / FILE, digest_bytes(CONTENT), len(CONTENT), _mirrors[0])
    assert names(cache) == [FILE, f"{FILE}.pin.json"]
    assert json.loads((cache / f"{FILE}.pin.json").read_text())["sha256"] == digest_bytes(CONTENT)
    assert quick_pull().url == ""
    assert len(server.requests) == 1


def test_dropped_connections_are_gone_on_with_where_they_stopped(serve: Serve, cache: Path) -> None:
    server = serve(behaviours=["drop"] * 8)
    use(server)
    quick_pull()
    assert (cache / FILE).read_bytes() == CONTENT
    starts = [int(span.removeprefix("bytes=").rstrip("-")) for _, span in server.requests if span is not None]
    assert len(starts) == len(server.requests) - 1 == 8
    assert starts == sorted(set(starts))


def test_a_later_command_goes_on_where_an_earlier_one_gave_up(serve: Serve, cache: Path) -> None:
    server = serve(behaviours=["drop", *["503"] * 5])
    use(server)
    with pytest.raises(WeightsError, match="HTTP 503"):
        quick_pull()
    assert not (cache / FILE).exists()
    (partial,) = cache.glob("*.partial")
    kept = partial.stat().st_size
    assert 0 < kept < len(CONTENT)
    quick_pull()
    assert (cache / FILE).read_bytes() == CONTENT
    assert server.requests[-1] == (f"/vjepa2/{FILE}", f"bytes={kept}-")


def test_a_whole_file_that_was_not_yet_renamed_is_taken(serve: Serve, cache: Path) -> None:
    """As after a kill between the last byte and the new name; one byte too many is a changed file, and begun again."""
    server = serve()
    use(server)
    cache.mkdir()
    partial = cache / f"{FILE}.{digest_bytes(_mirrors[0].encode())[:8]}.partial"
    for content, spans in ((CONTENT, [f"bytes={len(CONTENT)}-"]), (CONTENT + b"x", [f"bytes={len(CONTENT) + 1}-", None])):
        partial.write_bytes(content)
        Path(f"{partial}.validator").write_text('"one"')
        server.requests.clear()
        quick_pull()
        assert [span for _, span in server.requests] == spans
        assert (cache / FILE).read_bytes() == CONTENT
        (cache / FILE).unlink()


def test_a_file_that_changed_meanwhile_is_not_mixed(serve: Serve, cache: Path) -> None:
    server = serve(behaviours=["drop", *["503"] * 5])
    use(server)
    with pytest.raises(WeightsError):
        quick_pull()
    server.content, server.tag = archive(b"other weights"), '"two"'
    quick_pull()
    assert (cache / FILE).read_bytes() == server.content


@pytest.mark.parametrize("how", [{"ranges": False}, {"tag": None}])
def test_a_server_that_cannot_resume_is_asked_from_the_start(serve: Serve, cache: Path, how: dict[str, object]) -> None:
    use(serve(behaviours=["drop", "drop"], **how))
    quick_pull()
    assert (cache / FILE).read_bytes() == CONTENT


def test_a_server_that_always_drops_at_the_same_place_is_left(serve: Serve) -> None:
    server = serve(behaviours=["drop"] * 100, ranges=False)
    use(server)
    with pytest.raises(WeightsError, match=rf"the connection ended at \d+ of {len(CONTENT)} bytes, 5 times in a row"):
        quick_pull()
    assert len(server.requests) == 5


def test_a_silent_server_is_left_for_the_next_mirror(serve: Serve, cache: Path) -> None:
    silent, kind = serve(behaviours=["silent"] * 100), serve()
    use(silent, kind)
    assert quick_pull().url == _mirrors[1]
    assert names(cache) == [FILE, f"{FILE}.pin.json"]


@pytest.mark.parametrize("code", ["404", "403"])
def test_a_mirror_without_the_file_is_asked_once(serve: Serve, cache: Path, code: str) -> None:
    bare, kind = serve(behaviours=[code] * 9), serve()
    use(bare, kind)
    assert quick_pull().url == _mirrors[1]
    assert (len(bare.requests), (cache / FILE).read_bytes()) == (1, CONTENT)


def test_no_mirror_left_is_one_line_that_names_each_fault(serve: Serve, cache: Path) -> None:
    use(serve(behaviours=["404"]), serve(behaviours=["500"] * 9))
    with pytest.raises(WeightsError, match=r"HTTP 404 .*HTTP 500 .*put the file at") as caught:
        quick_pull()
    assert "\n" not in str(caught.value)
    assert not (cache / FILE).exists()


def test_redirects_are_followed_and_keep_the_range(serve: Serve, cache: Path) -> None:
    server = serve(behaviours=["redirect", "drop", "redirect"])
    use(server)
    quick_pull()
    assert (cache / FILE).read_bytes() == CONTENT
    (_, (elsewhere, _), _, (last, span)) = server.requests
    assert elsewhere == last == f"/elsewhere/{FILE}"
    assert span is not None


@pytest.mark.parametrize("redirect", ["redirect file:///etc/passwd", "redirect /vjepa2/loop"])
def test_a_redirect_that_leads_astray_is_refused(serve: Serve, cache: Path, redirect: str) -> None:
    use(serve(behaviours=[redirect] * 100))
    with pytest.raises(WeightsError, match="HTTP 302"):
        quick_pull()
    assert not (cache / FILE).exists()


@pytest.mark.parametrize("behaviour", ["truncated", "corrupt"])
def test_a_damaged_file_is_refused_at_its_first_sight(serve: Serve, cache: Path, behaviour: str) -> None:
    use(serve(behaviours=[behaviour]))
    with pytest.raises(WeightsError, match=r"gave (no whole|a damaged) checkpoint"):
        quick_pull()
    assert names(cache) == []
    use(serve(behaviours=[behaviour]), serve())
    assert quick_pull().url == _mirrors[1]
    assert (cache / FILE).read_bytes() == CONTENT


def test_a_page_of_text_is_no_checkpoint(serve: Serve) -> None:
    use(serve(content=b"<html>please log in</html>"))
    with pytest.raises(WeightsError, match="gave no whole checkpoint"):
        quick_pull()


def test_another_file_than_was_pinned_is_refused(serve: Serve, cache: Path) -> None:
    use(serve())
    quick_pull()
    (cache / FILE).unlink()
    use(serve(content=archive(b"forged")))
    with pytest.raises(WeightsError, match="gave another file"):
        quick_pull()
    assert names(cache) == [f"{FILE}.pin.json"]


def test_a_file_that_changed_on_disk_is_told(serve: Serve, cache: Path) -> None:
    use(serve())
    quick_pull()
    (cache / FILE).write_bytes(archive(b"tampered"))
    with pytest.raises(WeightsError, match=r"not .* as when it was first seen"):
        quick_pull(offline=True)


def test_offline_checks_what_is_here_and_asks_nobody(serve: Serve, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = serve()
    use(server)
    with pytest.raises(WeightsError, match=r"--offline is given; run `vjepa2 weights pull vjepa2-vitl-256` without that"):
        quick_pull(offline=True)
    monkeypatch.setenv("VJEPA2_OFFLINE", "1")
    with pytest.raises(WeightsError, match="VJEPA2_OFFLINE is set; run `vjepa2 weights pull"):
        quick_pull()
    cache.mkdir(exist_ok=True)
    (cache / FILE).write_bytes(CONTENT)
    assert quick_pull(offline=True).digest == digest_bytes(CONTENT)
    assert names(cache) == [FILE, f"{FILE}.pin.json"]
    (cache / f"{FILE}.pin.json").unlink()
    (cache / FILE).write_bytes(CONTENT[:-100])
    with pytest.raises(WeightsError, match="is no whole checkpoint"):
        quick_pull(offline=True)
    assert server.requests == []


def test_the_proxy_of_the_environment_is_used(serve: Serve, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    proxy = serve()
    monkeypatch.setenv("http_proxy", proxy.url.removesuffix("/vjepa2"))
    _mirrors[:] = [f"http://weights.invalid/{FILE}"]
    quick_pull()
    assert proxy.requests == [(f"http://weights.invalid/{FILE}", None)]


def test_of_two_pulls_of_one_file_the_second_waits_and_takes_what_the_first_brought(serve: Serve, cache: Path) -> None:
    server = serve()
    use(server)
    with ThreadPoolExecutor() as others, transfer.alone(cache / FILE):
        second = others.submit(quick_pull)
        time.sleep(0.3)
        assert (second.done(), server.requests) == (False, [])
        (cache / FILE).write_bytes(CONTENT)
    assert (second.result(10).url, server.requests) == ("", [])
    assert names(cache) == [FILE, f"{FILE}.pin.json"]


def test_a_full_disk_is_told_before_the_download(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    use(serve())
    monkeypatch.setattr(transfer.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    with pytest.raises(WeightsError, match="make room"):
        quick_pull()


def test_mirrors_come_before_the_official_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    probe = registry.released("ssv2-vitl-256")
    monkeypatch.setenv("VJEPA2_MIRROR", "http://one/vjepa2/ file:///mnt/two")
    assert official.urls(probe) == [
        "http://one/vjepa2/evals/ssv2-vitl-16x2x3.pt",
        "file:///mnt/two/evals/ssv2-vitl-16x2x3.pt",
        probe.url,
    ]
    monkeypatch.setenv("VJEPA2_MIRROR", "one.example")
    with pytest.raises(WeightsError, match=r"VJEPA2_MIRROR: one\.example is no URL"):
        official.urls(probe)
