"""Anticipation: which frames are seen, how often they are decoded, what the predictor adds, how classes are numbered."""

import csv
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from vjepa2cli.artifacts.model_dir import save_model
from vjepa2cli.artifacts.reports import read_report
from vjepa2cli.data.streams import one_after_another, overlapping_clips
from vjepa2cli.data.video import write_video
from vjepa2cli.errors import InputError
from vjepa2cli.models.encoder import Encoder, EncoderSpec
from vjepa2cli.models.predictor import Predictor, PredictorSpec
from vjepa2cli.models.weights import load_encoder, load_predictor, to_transformers
from vjepa2cli.recordings.labelled import Action, read_actions
from vjepa2cli.settings import AnticipationConfig, ProbeConfig
from vjepa2cli.tokens import TokenGrid
from vjepa2cli.train.probing import probe
from vjepa2cli.train.probing.anticipation import context_numbers, foretelling

HEADER = "narration_id,participant_id,video_id,start_frame,stop_frame,verb,verb_class,noun,noun_class"
ACTION = Action("a", Path("v.mp4"), start=300, stop=420, verb=0, noun=0)


@pytest.mark.parametrize(
    ("anchor", "point", "last"),
    [
        ("start", 0.0, 300 - 60 - 7),  # the last frame lies one step before the second ahead of the start
        ("stop", 0.0, 420 - 60 - 7),
        ("stop", 0.25, 390 - 60 - 7),
    ],
)
def test_the_context_ends_a_second_before_its_anchor(anchor: str, point: float, last: int) -> None:
    settings = AnticipationConfig(anchor=anchor)  # type: ignore[arg-type]
    numbers = context_numbers(ACTION, rate=60.0, num_frames=32, settings=settings, seconds=1.0, point=point)
    assert (len(numbers), numbers[-1]) == (32, last)
    assert (np.diff(numbers) == 7).all()


def test_before_the_first_frame_that_one_repeats_and_slow_videos_are_refused() -> None:
    early = Action("a", Path("v.mp4"), start=70, stop=90, verb=0, noun=0)
    numbers = context_numbers(early, rate=60.0, num_frames=32, settings=AnticipationConfig(), seconds=1.0)
    assert (numbers[:30] == 0).all()
    assert numbers[-1] == 3
    with pytest.raises(InputError, match="runs at 5 frames a second, and fps=8 are wanted"):
        context_numbers(early, rate=5.0, num_frames=32, settings=AnticipationConfig(), seconds=1.0)


def test_overlapping_clips_come_out_of_one_pass() -> None:
    rng = np.random.default_rng(0)
    wanted = [np.sort(rng.integers(0, 60, 6)) for _ in range(25)]
    needed = sorted({number for numbers in wanted for number in numbers.tolist()})
    asked: list[int] = []

    def frames() -> Iterator[tuple[int, np.ndarray]]:
        for number in needed:
            asked.append(number)
            yield number, np.full((2, 2, 3), number, np.uint8)

    found = dict(overlapping_clips(frames(), wanted))
    assert asked == needed
    assert all((found[place][:, 0, 0, 0] == numbers).all() for place, numbers in enumerate(wanted))
    # Where the video ends before, its last frame stands for those that lack.
    short = dict(overlapping_clips(((number, np.full((2, 2, 3), number, np.uint8)) for number in (1, 2)), [np.array([1, 2, 9])]))
    assert short[0][:, 0, 0, 0].tolist() == [1, 2, 2]


def test_streams_keep_their_order_pass_errors_on_and_end_when_left() -> None:
    assert list(one_after_another([lambda: iter([1, 2]), lambda: iter([3])], threads=2, ahead=1)) == [1, 2, 3]

    def broken() -> Iterator[int]:
        yield 1
        raise InputError("the second is damaged")

    with pytest.raises(InputError, match="the second is damaged"):
        list(one_after_another([broken], threads=1, ahead=1))
    before = threading.active_count()
    stream = one_after_another([lambda: iter(range(1000))], threads=1, ahead=1)
    assert next(stream) == 0
    stream.close()  # type: ignore[attr-defined]
    for thread in threading.enumerate():
        if thread.name == "stream":
            thread.join(timeout=5)
    assert threading.active_count() <= before


def test_foretold_tokens_are_the_predictors_at_the_instant_of_the_action() -> None:
    generator = torch.Generator().manual_seed(0)
    encoder = Encoder(EncoderSpec(embed_dim=24, depth=1, num_heads=2, crop=32, num_frames=4), generator=generator)
    predictor = Predictor(PredictorSpec(encoder_dim=24, embed_dim=16, depth=1, num_heads=2), generator=generator)
    clips = torch.randn(2, 3, 4, 32, 32, generator=generator)
    with torch.no_grad():
        tokens = foretelling(encoder, predictor, AnticipationConfig(fps=8.0))(clips, [1.0, 0.3])
        context = encoder(clips)
        # Released: int(seconds * fps / 2) time steps of 2 x 2 tokens after the 8 of the context.
        for row, steps in enumerate((4, 1)):
            ids = torch.arange(8)[None]
            targets = 8 + 4 * steps + torch.arange(4)[None]
            expected = predictor(context[row : row + 1], ids, targets, grid=TokenGrid(7, 2, 2))
            torch.testing.assert_close(tokens[row, 8:], expected[0], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(tokens[:, :8], context)


def table(path: Path, rows: list[tuple[str, int, int, int, int]]) -> Path:
    """A table of (video, start, stop, verb, noun)."""
    lines = [
        f"{video}_{number},P01,{video},{start},{stop},verb{verb},{verb},noun{noun},{noun}"
        for number, (video, start, stop, verb, noun) in enumerate(rows)
    ]
    path.write_text("\n".join([HEADER, *lines]) + "\n")
    return path


def test_released_class_numbers_follow_the_order_of_a_python_set(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    rows = [("v", 0, 5, int(rng.integers(97)), int(rng.integers(300))) for _ in range(400)]
    (tmp_path / "v.mp4").touch()
    tables = [table(tmp_path / "train.csv", rows), table(tmp_path / "val.csv", [*rows[:3], ("v", 0, 5, 98, 1)])]
    found = read_actions(tables, root=tmp_path, released_ids=True, drop_missing=False, drop_unseen=True)
    # The released code: a set of pairs from a list, then sets of their members, numbered as they are iterated over.
    pairs = set([(verb, noun) for _, _, _, verb, noun in rows])  # noqa: C403 - as it is there
    assert list(found.actions) == list(pairs)
    assert list(found.verbs) == list(set([verb for verb, _ in pairs]))  # noqa: C403
    assert list(found.nouns) == list(set([noun for _, noun in pairs]))  # noqa: C403
    assert (found.unseen, len(found.val)) == (1, 3)
    ours = read_actions(tables, root=tmp_path, released_ids=False, drop_missing=False, drop_unseen=True)
    assert list(ours.verbs) == sorted(ours.verbs)
    with pytest.raises(InputError, match="1 actions are of a verb and noun that"):
        read_actions(tables, root=tmp_path, released_ids=False, drop_missing=False, drop_unseen=False)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a,b\n1,2\n", "lacks the columns narration_id, participant_id"),
        (f"{HEADER}\nn,P01,v,9,3,take,0,cup,1\n", "line 2: n: frames and classes must be numbers, start before stop"),
        (f"{HEADER}\n", "holds no actions"),
    ],
)
def test_tables_that_are_none(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "t.csv").write_text(content)
    with pytest.raises(InputError, match=message):
        read_actions([tmp_path / "t.csv"] * 2, root=None, released_ids=True, drop_missing=False, drop_unseen=True)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """An encoder with its predictor."""
    generator = torch.Generator().manual_seed(0)
    encoder = Encoder(EncoderSpec(embed_dim=24, depth=1, num_heads=2, crop=32, num_frames=4), generator=generator)
    predictor = Predictor(PredictorSpec(encoder_dim=24, embed_dim=16, depth=1, num_heads=2), generator=generator)
    save_model(tmp_path / "model", *to_transformers(encoder, predictor))
    assert load_encoder(tmp_path / "model") is not None
    assert load_predictor(tmp_path / "model") is not None
    return tmp_path / "model"


SMALLEST = ProbeConfig(
    steps=3,
    batch_size=4,
    checkpoint_every=3,
    evaluate_every=3,
    precision="fp32",
    num_frames=4,
    crop=32,
    depth=1,
    num_heads=2,
    baselines=(),
    examples=0,
    linear=False,
    neighbours=(),
    unseen="drop",
    anticipation=AnticipationConfig(fps=5.0),
)


def test_real_recordings_in_the_public_format_are_probed(shared: Path, tmp_path: Path, model: Path) -> None:
    """Untrimmed DROID episodes; the verb is how the arm moves next, the noun which episode it is."""
    rows: dict[str, list[tuple[str, int, int, int, int]]] = {"train": [], "val": []}
    verbs = {"up": 0, "down": 1, "still": 2}
    with (shared / "data/robot/droid_motion_windows.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            video = f"{row['episode']}/recordings/MP4/{Path(row['video']).stem}"
            split = "val" if row["episode"] in ("2", "5") else "train"
            start = int(row["start_frame"])
            rows[split].append((video, start, start + int(row["num_frames"]), verbs[row["label"]], 0))
    tables = [table(tmp_path / f"{split}.csv", own) for split, own in rows.items()]
    root = shared / "data/robot/droid"
    report = read_report(probe(tables, tmp_path / "run", model=str(model), config=SMALLEST, root=root, device="cpu"))
    (result,) = report["results"]
    assert result["total"] == 47
    assert result["questions"]["noun"]["correct"] == 47
    assert 0 <= result["questions"]["verb"]["recall_at_5"] <= 1
    assert "a second" not in report["protocol"]["clips"]
    assert report["protocol"]["anchor"].startswith("1 s before the action's start")
    again = probe(
        tables,
        tmp_path / "again",
        model=str(model),
        config=SMALLEST,
        weights=str(tmp_path / "run" / "trained"),
        root=root,
        device="cpu",
    )
    alone = read_report(again)["results"][0]["questions"]
    for name, told in result["questions"].items():
        assert [alone[name][key] for key in ("confusion", "recall_at_5")] == [told["confusion"], told["recall_at_5"]]


def test_actions_of_lost_videos_are_counted(tmp_path: Path, model: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 255, (40, 32, 32, 3), dtype=np.uint8)
    for name in ("a", "b", "c"):
        write_video(tmp_path / "P01" / "videos" / f"{name}.mp4", frames, fps=5)
    train = [(video, start, start + 5, start % 2, 0) for video in "ab" for start in (12, 17, 22, 27)]
    tables = [table(tmp_path / "t.csv", train), table(tmp_path / "v.csv", [("c", 15, 20, 1, 0), ("gone", 15, 20, 0, 0)])]
    said: list[str] = []
    config = SMALLEST.model_copy(update={"missing": "drop"})
    probe(tables, tmp_path / "run", model=str(model), config=config, root=tmp_path, device="cpu", say=said.append)
    assert said[0] == "left out: the actions of 1 videos that are not there"
