"""The commands around checkpoints, as people run them."""

import json
import os
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import torch

from vjepa2cli.files import digest_file
from vjepa2cli.models.encoder import Encoder, EncoderSpec
from vjepa2cli.models.weights import load_encoder, state_digest

Command = Callable[..., subprocess.CompletedProcess[str]]

REPOSITORY = Path(__file__).parents[2]
SPEC = EncoderSpec(24, 2, 2, patch_size=8, crop=32, num_frames=4)


class Malicious:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.path),)


def checkpoint(path: Path) -> Path:
    torch.save({"target_encoder": Encoder(SPEC).state_dict(), "epoch": 3}, path)
    return path


def test_inspect_tells_people_and_machines_the_same(vjepa2: Command, tmp_path: Path) -> None:
    path = checkpoint(tmp_path / "latest.pt")
    told = json.loads(vjepa2("weights", "inspect", path, "--json").stdout)
    (network,) = told["networks"]
    assert told["digest"] == digest_file(path)
    assert network["parameters"] == sum(parameter.numel() for parameter in Encoder(SPEC).parameters())
    shown = vjepa2("weights", "inspect", path)
    assert (shown.returncode, shown.stderr) == (0, "")
    for word in (told["digest"], "target_encoder", f"{network['parameters']:,}", "nearest to tiny, width 24, depth 2", "int 3"):
        assert word in shown.stdout


def test_inspect_refuses_what_is_no_checkpoint_in_one_line(vjepa2: Command, tmp_path: Path) -> None:
    whole = checkpoint(tmp_path / "whole.pt").read_bytes()
    (tmp_path / "cut.pt").write_bytes(whole[:-2000])
    (tmp_path / "text.pt").write_text("hello, world")
    (tmp_path / "notes.txt").write_text("hello, world")
    (tmp_path / "bad.pt").write_bytes(pickle.dumps({"encoder": Malicious(tmp_path / "trapped")}))
    for name in ("cut.pt", "text.pt", "notes.txt", "bad.pt", "absent.pt"):
        ended = vjepa2("weights", "inspect", tmp_path / name)
        assert (ended.returncode, ended.stdout) == (1, ""), name
        assert ended.stderr.startswith(f"error: {tmp_path / name}: ")
        assert ended.stderr.count("\n") == 1
    assert not (tmp_path / "trapped").exists()


def test_pull_takes_a_mirror_shows_progress_and_checks_offline(vjepa2: Command, tmp_path: Path) -> None:
    (tmp_path / "mirror").mkdir()
    path = checkpoint(tmp_path / "mirror" / "vitl.pt")
    env = {"VJEPA2_HOME": str(tmp_path / "cache"), "VJEPA2_MIRROR": f"file://{tmp_path / 'mirror'}"}
    pulled = vjepa2("weights", "pull", "vjepa2-vitl-256", "--json", env=env)
    assert (pulled.returncode, json.loads(pulled.stdout)["weights"][0]["digest"]) == (0, digest_file(path))
    assert "vjepa2-vitl-256 (MiB): " in pulled.stderr
    assert "was here" in vjepa2("weights", "pull", "vjepa2-vitl-256", "--offline", env=env).stdout
    assert vjepa2("weights", "inspect", "vjepa2-vitl-256", env=env).returncode == 0


def test_a_pull_that_was_killed_goes_on_where_it_stopped(vjepa2: Command, tmp_path: Path) -> None:
    content = checkpoint(tmp_path / "vitl.pt").read_bytes()
    half, spans, killed = len(content) // 2, [], threading.Event()

    class Stalling(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            span = self.headers.get("Range")
            spans.append(span)
            start = int(span.removeprefix("bytes=").rstrip("-")) if span else 0
            self.send_response(206 if span else 200)
            self.send_header("ETag", '"one"')
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            self.wfile.write(content[start:] if span else content[:half])
            if not span:
                killed.wait(60)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Stalling)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    cache = tmp_path / "cache"
    env = {"VJEPA2_HOME": str(cache), "VJEPA2_MIRROR": f"http://127.0.0.1:{server.server_port}", "no_proxy": "127.0.0.1"}
    command = [sys.executable, "-m", "vjepa2cli", "weights", "pull", "vjepa2-vitl-256"]
    with subprocess.Popen(command, env=os.environ | env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as pulling:
        deadline = time.monotonic() + 60
        while not any(path.stat().st_size == half for path in cache.glob("*.partial")) and time.monotonic() < deadline:
            time.sleep(0.05)
        pulling.kill()
    killed.set()
    assert not (cache / "vitl.pt").exists()
    ended = vjepa2("weights", "pull", "vjepa2-vitl-256", env=env)
    server.shutdown()
    server.server_close()
    assert (ended.returncode, spans) == (0, [None, f"bytes={half}-"])
    assert (cache / "vitl.pt").read_bytes() == content


def test_pull_refuses_in_one_line(vjepa2: Command, tmp_path: Path) -> None:
    for arguments, reason in ((("vjepa2-vitl-257",), "did you mean"), (("vjepa2-vitl-256", "--offline"), "not on this machine")):
        ended = vjepa2("weights", "pull", *arguments, env={"VJEPA2_HOME": str(tmp_path)})
        assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (1, "", 1)
        assert reason in ended.stderr


def test_convert_says_what_it_wrote_and_refuses_in_one_line(vjepa2: Command, tmp_path: Path) -> None:
    path = checkpoint(tmp_path / "latest.pt")
    convert = ("weights", "convert", path, "--to", "transformers", "--out", tmp_path / "folder", "--num-heads", "2")
    refused = vjepa2(*convert)
    assert (refused.returncode, refused.stdout, refused.stderr.count("\n")) == (1, "", 1)
    assert "--crop" in refused.stderr
    told = json.loads(vjepa2(*convert, "--crop", "32", "--json").stdout)
    assert state_digest(load_encoder(path, 2)) == told["digests"]["encoder"] == state_digest(load_encoder(tmp_path / "folder"))


def test_keys_that_do_not_fit_are_a_table_and_one_line(vjepa2: Command, tmp_path: Path) -> None:
    state = Encoder(SPEC).state_dict() | {f"head.{index}.weight": torch.zeros(2, 2) for index in range(20)}
    del state["norm.bias"]
    state["blocks.1.mlp.fc2.bias"] = torch.zeros(7)
    torch.save(state, tmp_path / "odd.pt")
    asked = ("--num-heads", "2", "--crop", "32", "--to", "ours", "--out", tmp_path / "ours")
    ended = vjepa2("weights", "convert", tmp_path / "odd.pt", *asked, env={"COLUMNS": "40"})
    assert (ended.returncode, ended.stdout) == (1, "")
    heading, *rows, line = ended.stderr.splitlines()
    assert heading.split() == ["key", "in", "the", "file", "in", "the", "network"]
    assert [row.split(maxsplit=2) for row in rows] == [
        ["missing", "norm.bias", "-            [24]"],
        *(["unexpected", f"head.{index}.weight", "[2, 2]       -"] for index in sorted(range(20), key=str)),
        ["misshapen", "blocks.1.mlp.fc2.bias", "[7]          [24]"],
    ]
    assert line.startswith(f"error: {tmp_path / 'odd.pt'}: encoder: 1 missing key: norm.bias; 20 unexpected keys: ")
    assert not (tmp_path / "ours").exists()
