"""The hub's copies arrive whole or not at all, held against the digests that the hub states; the hub here is on loopback."""

import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

from vjepa2cli import registry
from vjepa2cli.artifacts.model_dir import save_model
from vjepa2cli.downloading import Pulled, Wanted, official, pull
from vjepa2cli.errors import WeightsError
from vjepa2cli.files import digest_file
from vjepa2cli.models.encoder import Encoder, EncoderSpec
from vjepa2cli.models.predictor import Predictor, PredictorSpec
from vjepa2cli.models.weights import load_encoder, state_digest, to_transformers

NAME = "vjepa2-vitl-256"
HUB = registry.RELEASED[NAME].hub
ENCODER = Encoder(EncoderSpec(48, 3, 2, crop=64), generator=torch.Generator().manual_seed(1))


@dataclass
class Hub:
    """A hub whose small files lie in a cache of its own, the large ones on a storage of another name.

    `behaviours` are used up, one a request for content.
    """

    files: dict[str, bytes]
    behaviours: list[str] = field(default_factory=list)
    states: bool = True
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)
    port: int = 0

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        span = request.headers.get("Range")
        self.requests.append((request.command, request.path, span))
        name = request.path.rpartition("/")[2]
        assert HUB is not None
        asked = request.path == f"/{HUB.repository}/resolve/{HUB.revision}/{name}"
        behaviour = self.behaviours.pop(0) if self.behaviours and request.command == "GET" and not asked else "kind"
        if (
            behaviour.isdecimal()
            or name not in self.files
            or not (asked or request.path in (f"/storage/{name}", f"/small/{name}"))
        ):
            request.send_error(int(behaviour) if behaviour.isdecimal() else 404)
            return
        content = self.files[name]
        if asked:
            large = name.endswith(".safetensors")
            request.send_response(302 if large else 307)
            request.send_header("Location", f"http://localhost:{self.port}/storage/{name}" if large else f"/small/{name}")
            if self.states and large:
                request.send_header("X-Linked-Etag", f'"{hashlib.sha256(content).hexdigest()}"')
            request.end_headers()
            return
        self.send(request, content, behaviour, span)

    def send(self, request: BaseHTTPRequestHandler, content: bytes, behaviour: str, span: str | None) -> None:
        start = int(span.removeprefix("bytes=").rstrip("-")) if span else 0
        rest = content[start:]
        if behaviour == "corrupt":
            rest = rest[:-100] + bytes(100)
        request.send_response(206 if span else 200)
        if span:
            request.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        if self.states:
            request.send_header("ETag", f'"{hashlib.sha1(b"blob %d" % len(content) + bytes(1) + content).hexdigest()}"')
        request.send_header("Content-Length", str(len(rest)))
        request.end_headers()
        if request.command == "GET":
            request.wfile.write(rest[: len(rest) // 2] if behaviour == "drop" else rest)


Serve = Callable[..., Hub]


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A folder as transformers publishes it, without any record of ours."""
    folder = tmp_path_factory.mktemp("published") / "folder"
    config, tensors = to_transformers(ENCODER, Predictor(PredictorSpec(48, 24, 2, 3)))
    del config["vjepa2cli"]
    save_model(folder, config, tensors)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def serve(content: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    servers: list[ThreadingHTTPServer] = []

    def start(files: dict[str, bytes] = content, behaviours: tuple[str, ...] = (), states: bool = True) -> Hub:
        hub = Hub(files, list(behaviours), states)

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                hub.answer(self)

            def do_HEAD(self) -> None:
                hub.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        servers.append(server)
        hub.port = server.server_port
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{hub.port}/")
        return hub

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder; the official host refuses connections."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "VJEPA2_OFFLINE", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("VJEPA2_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(official, "urls", lambda model: ["http://127.0.0.1:9/vitl.pt"])
    return tmp_path / "cache"


def quick_pull(wanted: Wanted = "hub") -> Pulled:
    return pull(NAME, wanted=wanted, pause=0.0)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_copy_arrives_whole_is_pinned_and_loads_by_its_released_name(
    serve: Serve, cache: Path, content: dict[str, bytes]
) -> None:
    assert HUB is not None
    hub = serve()
    pulled = quick_pull()
    folder = cache / HUB.name
    assert (pulled.origin, pulled.path, pulled.digest) == ("hub", folder, digest_file(folder / "model.safetensors"))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == content
    assert names(cache) == [HUB.name, f"{HUB.name}.pin.json"]
    assert HUB.revision in json.loads((cache / f"{HUB.name}.pin.json").read_text())["url"]
    count = len(hub.requests)
    assert (quick_pull("any").url, quick_pull().url, len(hub.requests)) == ("", "", count)
    assert state_digest(load_encoder(NAME)) == state_digest(ENCODER)


def test_the_hub_is_asked_when_no_official_file_can_be_had_and_that_is_said(
    serve: Serve, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    serve()
    assert quick_pull("any").origin == "hub"
    assert "no official file (http://127.0.0.1:9/vitl.pt: " in caplog.text
    assert "holds the online encoder, so features are not those of the official file" in caplog.text


def test_a_dropped_copy_goes_on_where_it_stopped_also_in_a_later_command(
    serve: Serve, cache: Path, content: dict[str, bytes]
) -> None:
    assert HUB is not None
    hub = serve(behaviours=("kind", "drop", *["503"] * 5))
    with pytest.raises(WeightsError, match="HTTP 503"):
        quick_pull()
    assert names(cache) == [f"{HUB.name}.partial"]
    half = len(content["model.safetensors"]) // 2
    assert (cache / f"{HUB.name}.partial" / "model.safetensors").stat().st_size == half
    quick_pull()
    assert (cache / HUB.name / "model.safetensors").read_bytes() == content["model.safetensors"]
    assert hub.requests[-1] == ("GET", "/storage/model.safetensors", f"bytes={half}-")


@pytest.mark.parametrize("behaviours", [("corrupt",), ("kind", "corrupt")])
def test_what_is_not_what_the_hub_states_is_refused(serve: Serve, cache: Path, behaviours: tuple[str, ...]) -> None:
    assert HUB is not None
    serve(behaviours=behaviours)
    with pytest.raises(WeightsError, match=r"is damaged or another file \((git|sha256) \w{12}, the hub states"):
        quick_pull()
    assert not (cache / HUB.name).exists()
    quick_pull()
    assert state_digest(load_encoder(NAME)) == state_digest(ENCODER)


def test_a_place_that_states_no_digest_is_no_mirror_of_the_hub(serve: Serve, cache: Path) -> None:
    hub = serve(states=False)
    with pytest.raises(WeightsError, match="states no digest"):
        quick_pull()
    assert [command for command, _, _ in hub.requests] == ["HEAD", "HEAD"]


def test_a_hub_without_the_repository_is_told_with_its_address(serve: Serve, cache: Path) -> None:
    hub = serve(files={})
    with pytest.raises(WeightsError, match=rf"127\.0\.0\.1:{hub.port}/facebook/vjepa2-vitl-fpc64-256/.*HTTP 404"):
        quick_pull()
    assert len(hub.requests) == 1


def test_other_files_than_were_pinned_are_refused(serve: Serve, cache: Path, content: dict[str, bytes]) -> None:
    assert HUB is not None
    serve()
    quick_pull()
    for path in (cache / HUB.name).iterdir():
        path.unlink()
    (cache / HUB.name).rmdir()
    serve(files=content | {"config.json": content["config.json"] + b" "})
    with pytest.raises(WeightsError, match="gave other files than were pinned"):
        quick_pull()
    assert not (cache / HUB.name).exists()


def test_a_copy_that_changed_on_disk_or_lacks_a_file_is_told(serve: Serve, cache: Path) -> None:
    assert HUB is not None
    serve()
    quick_pull()
    with (cache / HUB.name / "model.safetensors").open("ab") as handle:
        handle.write(b"x")
    with pytest.raises(WeightsError, match=r"model\.safetensors: has sha256 .* as when it was first seen"):
        quick_pull()
    (cache / f"{HUB.name}.pin.json").unlink()
    with pytest.raises(WeightsError, match="is no whole safetensors file"):
        quick_pull()
    (cache / HUB.name / "model.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"no model\.safetensors in it; remove it"):
        quick_pull()


def test_the_hub_may_be_forbidden_and_must_have_a_copy(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = serve()
    with pytest.raises(WeightsError, match="has no copy on the Hugging Face hub"):
        pull("vjepa2-ac-vitg", wanted="hub")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(WeightsError, match="HF_HUB_OFFLINE is set"):
        quick_pull()
    with pytest.raises(WeightsError, match=r"127\.0\.0\.1:9"):
        quick_pull("any")
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setenv("HF_ENDPOINT", "hub.example")
    with pytest.raises(WeightsError, match=r"HF_ENDPOINT: hub\.example is no URL"):
        quick_pull()
    assert hub.requests == []
