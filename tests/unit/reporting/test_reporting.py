"""The page: it says what the numbers allow and no more, whatever is missing, in the same bytes every time."""

import json
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from vjepa2cli.artifacts.reports import write_report
from vjepa2cli.errors import ArtifactError
from vjepa2cli.files import digest_bytes
from vjepa2cli.reporting import report
from vjepa2cli.settings import ReportConfig

MakeResults = Callable[..., Any]


class _Outline(HTMLParser):
    """Text, ids, references and unbalanced tags of a page."""

    VOID = frozenset({"meta", "link", "img", "br", "path", "use", "rect"})

    def __init__(self, page: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.ids: list[str] = []
        self.references: list[str] = []
        self.open: list[str] = []
        self.feed(page)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "id":
                self.ids.append(str(value))
            if name in ("src", "href", "xlink:href", "data", "poster"):
                self.references.append(str(value))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.words.append(data)


def outline(page: str) -> _Outline:
    return _Outline(page)


def test_the_success_rate_stands_with_its_interval_and_every_baseline(page: str) -> None:
    words = outline(page).text
    assert "Reached 47 of 50 goals within 4 cm" in words
    assert "94 %, 95 % interval 84–98 %" in words
    assert "from 10–20 cm away" in words
    for baseline in ("untrained encoder 44 of 50", "raw pixels 9 of 50", "random policy 0 of 50", "expert 50 of 50"):
        assert baseline in words


def test_a_gain_that_is_not_shown_is_said_in_words_before_any_chart(results: Any) -> None:
    page = results.page()
    said = "In reaching goals, the trained encoder does not beat the untrained encoder: 47 of 50 against 44 of 50"
    assert said in page
    assert page.index("What falls short") < page.index('id="closed-loop"')
    assert "no gain from training the encoder is shown" in page


def test_a_page_without_shortfalls_says_so(make_results: MakeResults, tmp_path: Path) -> None:
    words = outline(make_results(tmp_path, {"trained": 50, "untrained": 20, "pixels": 4}).page()).text
    assert "Nothing measured here falls short of its baselines" in words
    assert "What falls short" not in words


def test_a_baseline_of_another_protocol_is_not_compared(make_results: MakeResults, tmp_path: Path) -> None:
    results = make_results(tmp_path, fingerprints={"untrained": "closer goals"})
    words = outline(results.page()).text
    assert "evaluate/untrained/report.json was measured under another protocol" in words
    assert "44 of 50 (" not in words
    assert "nothing can be said about what training the encoder gave" in words


def test_a_failure_is_called_one(make_results: MakeResults, tmp_path: Path) -> None:
    results = make_results(tmp_path, {"trained": 1})
    for path in ("pretrain", "probe", "validate"):
        shutil.rmtree(tmp_path / path)
    results._pretrain(final_rank=6.0, final_loss=0.9)
    results._probe({"trained": 52, "untrained": 71, "pixels": 50})
    results._validate("trained", beats_copy=False, uses_actions=False)
    words = outline(results.page()).text
    assert "the trained encoder does not beat the random policy" in words
    assert "features have collapsed: their rank fell from 71.0 to 6.0" in words
    assert "The probe is not above chance" in words
    assert "In the probe, the trained encoder is worse than the untrained encoder" in words
    assert "not shown to beat copying the present frame" in words
    assert "not shown to use its actions" in words


def test_probe_and_world_model_stand_beside_their_baselines(page: str) -> None:
    words = outline(page).text
    assert "Named the class of 88 of 100 held-out windows right" in words
    assert "chance 50 %" in words
    assert "71 of 100 (61–79 %)" in words
    assert "% better than copying the present one" in words
    assert "Pretraining loss fell from 0.760 to" in words
    assert "not collapsed" in words


def test_a_success_rate_is_walked_back_to_its_recordings_by_digest(page: str, results: Any) -> None:
    words = outline(page).text
    chain = words[words.index("Where the numbers come from") :]
    steps = [
        "evaluate evaluate/trained",
        "posttrain posttrain/trained",
        "pretrain pretrain/report.json",
        "ingest robot.zarr",
        "collect recordings",
    ]
    assert [chain.index(step) for step in steps] == sorted(chain.index(step) for step in steps)
    assert f"model {digest_bytes(b'model', b'trained')[:10]} is what posttrain made" in chain
    assert f"videos {results.store_digest[:10]} is what ingest made" in chain
    assert f"episode_00000 {digest_bytes(bytes([0]))[:10]}" in chain


def test_a_chain_that_ends_early_says_so(results: Any) -> None:
    words = outline(results.page(results.root / "evaluate/trained/report.json")).text
    assert "ends early here" in words
    assert "its maker is not on this page" in words


def test_the_same_inputs_give_the_same_bytes(page: str, results: Any) -> None:
    assert results.page() == page


def test_a_tree_that_moved_gives_the_same_page(page: str, results: Any, tmp_path: Path) -> None:
    moved = replace(results, root=tmp_path / "elsewhere")
    shutil.copytree(results.root, moved.root)
    assert moved.page() == page


def test_wall_times_are_shown_and_are_no_part_of_the_digest(make_results: MakeResults, tmp_path: Path) -> None:
    results = make_results(tmp_path, {"trained": 47})
    before = results.page()
    path = tmp_path / "evaluate/trained/report.json"
    body = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(body | {"timing": {"seconds": 777.0, "seconds_per_action": 0.321}}), encoding="utf-8")
    after = results.page()
    assert "777" in after[after.index('id="timing"') :]
    assert after != before
    assert _digest(after) == _digest(before)
    assert _digest(results.page(title="another")) != _digest(before)


def _digest(page: str) -> str:
    (found,) = re.findall(r'<meta name="vjepa2cli-digest" content="([0-9a-f]{64})">', page)
    return str(found)


def test_the_page_asks_for_nothing_and_is_well_formed(page: str) -> None:
    parsed = outline(page)
    assert parsed.open == []
    assert [reference for reference in parsed.references if not reference.startswith(("data:", "#"))] == []
    assert {reference[1:] for reference in parsed.references if reference.startswith("#")} <= set(parsed.ids)
    assert set(re.findall(r"url\(#([^)]*)\)", page)) <= set(parsed.ids)
    assert "@import" not in page
    assert "<script" not in page
    assert len(parsed.ids) == len(set(parsed.ids))


def test_figures_take_their_colours_from_the_page(page: str) -> None:
    drawings = "".join(re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL))
    assert page.count("<svg") > 10
    assert set(re.findall(r"(?:fill|stroke): (#[0-9a-f]{6})", drawings)) <= {"#ffffff", "#000000"}
    assert "prefers-color-scheme:dark" in page
    assert 'name="viewport"' in page


def test_what_a_file_says_cannot_become_markup(results: Any) -> None:
    page = results.page(title="<script>alert(1)</script>")
    assert "<script>" not in page
    assert "a text file, &lt;not&gt; a video" in page


@pytest.mark.parametrize(
    "left",
    [
        "pretrain",
        "probe/report.json",
        "posttrain/trained",
        "validate/pixels.json",
        "evaluate/untrained",
        "robot.zarr",
        "recordings",
    ],
)
def test_any_part_alone_makes_a_page_that_names_what_is_missing(results: Any, left: str) -> None:
    parsed = outline(results.page(results.root / left))
    assert parsed.open == []
    assert "Not on this page" in parsed.text
    assert ("Not given: success rates in closed loop" in parsed.text) is not left.startswith("evaluate")
    assert ("No evaluation of the trained encoder was given." in parsed.text) is left.startswith("evaluate")


def test_a_plan_shows_how_the_search_lowered_the_energy(results: Any, tmp_path: Path) -> None:
    energies = [{"best": 0.5 - 0.1 * step, "elites": 0.55 - 0.1 * step, "samples": 0.7 - 0.1 * step} for step in range(4)]
    body = {"energies": energies, "actions": [[0.01] * 7], "observed_energy": 0.6, "idle_energy": 0.61, "final_energy": 0.2}
    path = write_report(
        tmp_path / "plan.json", "plan", body, provenance={"inputs": {"model": digest_bytes(b"model", b"trained")}}
    )
    words = outline(results.page(path, results.root / "posttrain/trained")).text
    assert "the model expects 0.2000 after the plan, 0.6100 after doing nothing" in words
    assert "is what posttrain made" in words


def test_a_run_that_has_not_ended_is_shown_as_far_as_it_came(results: Any, tmp_path: Path) -> None:
    shutil.copytree(results.root / "pretrain", tmp_path / "pretrain")
    (tmp_path / "pretrain/report.json").unlink()
    with (tmp_path / "pretrain/metrics.jsonl").open("a", encoding="utf-8") as metrics:
        metrics.write('{"step": 60, "eval": {"loss": 0.4, "rank": 40.0, "std": 0.7}}\n')
        metrics.write('{"step": 50, "rollback": {"from": 58, "to": 50, "reason": "the loss is nan"}}\n{"step": 61, "lo')

    def words_of_page() -> str:
        page = report([tmp_path / "pretrain"], tmp_path / "report.html", config=ReportConfig())
        return str(outline(page.read_text(encoding="utf-8")).text)

    words = words_of_page()
    assert "pretrain has not ended and is not running: step 60 of 60." in words
    assert "pretrain went back from step 58 to 50: the loss is nan." in words
    assert "run its step again, it goes on" in words
    (tmp_path / "pretrain" / ".lease").write_text("held")
    assert "pretrain is running: step 60 of 60." in words_of_page()
    assert "run its step again" not in words_of_page()
    assert "Pretraining loss fell" not in words
    assert "loss (L1 on layer-normed targets)" in words


def test_every_task_has_its_part_and_every_shift_its_row(make_results: MakeResults, tmp_path: Path) -> None:
    def more(reach: dict[str, Any]) -> list[dict[str, Any]]:
        cloning = {"policies": reach["policies"] | {"cloning": reach["policies"]["random"]}, "fingerprint": "another"}
        episodes = [row | {"cloning": row["random"], "pictures": None} for row in reach["episodes"]]
        grasp = reach | cloning | {"task": "grasp", "settings": {"actions": 8, "distance": [0.08, 0.16]}, "episodes": episodes}
        return [grasp, grasp | {"shift": "camera"}, reach | {"shift": "light", "episodes": episodes}]

    parsed = outline(make_results(tmp_path, {"trained": 47}, more_results=more).page())
    assert parsed.open == []
    assert "Grasping: 47 of 50 done" in parsed.text
    assert "a clone of the recordings 0 of 50" in parsed.text
    assert "Unlike the recordings: another camera 47 of 50." in parsed.text
    assert "Unlike the recordings: other light 47 of 50." in parsed.text
    assert parsed.text.count("on the same episodes in scenes unlike those of the recordings") == 2
    assert "with 8 actions" in parsed.text


def test_absent_pictures_are_named_and_the_page_is_made(make_results: MakeResults, tmp_path: Path) -> None:
    results = make_results(tmp_path, {"trained": 47})
    (tmp_path / "evaluate/trained/videos/episode_001.png").unlink()
    page = results.page()
    assert "episode_001.png is named by its report, but is not there" in page
    assert page.count('src="data:image/png;base64,') == 2, "one of the evaluation, and the imagined rollout of the validation"
    assert page.count("data:video/mp4;base64,") == 2


def refusal(*inputs: Path, out: Path) -> str:
    with pytest.raises(ArtifactError) as caught:
        report(inputs, out, config=ReportConfig())
    assert "\n" not in str(caught.value)
    assert not out.exists()
    return str(caught.value)


def _write(path: Path, content: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")
    return path


def test_bad_inputs_end_in_one_line(results: Any, tmp_path: Path) -> None:
    page, good = tmp_path / "page.html", results.root / "pretrain/report.json"
    body = json.loads(good.read_text(encoding="utf-8"))
    edited = json.dumps(body | {"steps": 3})
    lacking = write_report(
        tmp_path / "b.json", "pretrain", {"steps": 3, "evaluations": [], "final": {"loss": 1.0}}, provenance={}
    )
    stranger = write_report(tmp_path / "c.json", "features", {}, provenance={})
    broken_run = tmp_path / "run"
    shutil.copytree(results.root / "pretrain", broken_run)
    _write(broken_run / "metrics.jsonl", '{"step": 1, "loss": 1}\nnot a metric\n{"step": 2, "loss": 1}\n')
    cases: dict[Path, str] = {
        tmp_path / "absent": "no such file or folder",
        _write(tmp_path / "a.json", "{"): "not JSON",
        _write(tmp_path / "e.json", edited): "does not match its digest",
        _write(tmp_path / "notes.txt", "hello"): "cannot be shown",
        _write(tmp_path / "empty/readme", "hello").parent: "no report.json",
        _write(tmp_path / "other/config.yaml", "step: collect\n").parent: "no report.json",
        lacking: "without 'final.rank'",
        stranger: "has no place on the page",
        broken_run: "line 2 is not a metric",
        _write(tmp_path / "x.h5", "text"): "not a readable HDF5 file",
        tmp_path / "gone.zarr.json": "no such file or folder",
        _write(tmp_path / "lost.zarr.json", "{}"): "no video store here",
    }
    for path, reason in cases.items():
        message = refusal(good, path, out=page)
        assert reason in message
        assert str(path).removesuffix(".json") in message
    assert "no inputs" in refusal(out=page)


def test_one_run_named_twice_is_shown_once(results: Any) -> None:
    run = results.root / "pretrain"
    assert results.page(run, run / "report.json") == results.page(run)
