"""Tables of videos: what a row says, and one line for what it should not say."""

import json
from pathlib import Path

import numpy as np
import pytest

from vjepa2cli.errors import InputError
from vjepa2cli.recordings.manifests import LabelledSpan, Listed, read_manifest
from vjepa2cli.recordings.spans import WHOLE, Span, joined, stored_frames


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def rows_of(items: list[Listed]) -> list[tuple[str, str, str | None, float | None]]:
    return [(item.name, str(row.span), row.label, row.weight) for item in items for row in item.rows]


def test_csv_and_json_lines_say_the_same(tmp_path: Path) -> None:
    table = written(
        tmp_path / "a.csv",
        "path,label,start,end,weight,camera\na.mp4,run,1.5,4,2,x\nb.mp4,,,,1,\na.mp4,walk,6,,2,y\n",
    )
    rows: list[dict[str, object]] = [
        {"path": "a.mp4", "label": "run", "start": 1.5, "end": 4, "weight": 2, "camera": "x"},
        {"path": "b.mp4", "weight": 1.0, "label": None},
        {"video": "a.mp4", "label": "walk", "start": "6", "weight": 2},
    ]
    lines = written(tmp_path / "a.jsonl", "".join(json.dumps(row) + "\n\n" for row in rows))
    expected = [("a.mp4", "1.5s-4s", "run", 2.0), ("a.mp4", "6s-", "walk", 2.0), ("b.mp4", "0-", None, 1.0)]
    assert rows_of(read_manifest(table)) == rows_of(read_manifest(lines)) == expected


def test_frames_may_be_named_by_number(tmp_path: Path) -> None:
    table = written(tmp_path / "a.csv", "video,label,start_frame,num_frames\na.mp4,up,8,4\na.mp4,down,,\n")
    (video,) = read_manifest(table)
    assert video.labelled == (LabelledSpan(WHOLE, "down"), LabelledSpan(Span(8, 12), "up"))


def test_released_lists_without_a_header_are_read(tmp_path: Path) -> None:
    table = written(tmp_path / "train.csv", "videos/my clip.mp4 17\nvideos/b.webm 0\n")
    assert rows_of(read_manifest(table)) == [("videos/my clip.mp4", "0-", "17", None), ("videos/b.webm", "0-", "0", None)]


def test_paths_are_looked_for_beside_the_table_and_above(tmp_path: Path) -> None:
    (tmp_path / "lists" / "deep").mkdir(parents=True)
    (tmp_path / "a.mp4").touch()
    table = written(tmp_path / "lists/deep/t.csv", "path\na.mp4\nb.mp4\n")
    assert [item.path for item in read_manifest(table)] == [tmp_path / "a.mp4", tmp_path / "lists/deep/b.mp4"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("path,lable\na.mp4,up\n", "column 'lable': 'label' is meant, it seems"),
        ("path,start,end\na.mp4,4,4\n", r"line 2: end: 4 s does not come after start 4 s"),
        ("path,start\na.mp4,-1\n", "line 2: start: '-1' is not a number of at least 0"),
        ("path,start\na.mp4,nan\n", "line 2: start: 'nan' is not a number"),
        ("path,start,num_frames\na.mp4,1,5\n", "line 2: start and end are seconds, start_frame and num_frames frames"),
        ("path,weight\na.mp4,1\nb.mp4,\n", "1 rows have no weight and the others have one"),
        ("path,weight\na.mp4,0\n", "line 2: weight: 0 would never be drawn"),
        ("path,weight\na.mp4,inf\n", "line 2: weight: 'inf' is not a number"),
        ("path,label\n,up\n", "line 2: video and label must not be empty"),
        ("name\na.mp4\n", r"columns name; needs video \(or path\)"),
        ("", r"columns none; needs video \(or path\)"),
        ("path\n", "holds no rows"),
        ('path\n"a.mp4\n', "not a table"),
    ],
)
def test_faulty_rows_are_one_line(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(InputError, match=reason) as caught:
        read_manifest(written(tmp_path / "t.csv", text))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "reason"), [("{\n", "line 1: "), ("[1]\n", "line 1: no JSON object"), ('{"a": 1}\n', "columns a")]
)
def test_faulty_json_lines_are_one_line(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        read_manifest(written(tmp_path / "t.jsonl", text))


def test_stretches_that_overlap_or_touch_become_one() -> None:
    seconds = [Span(5, 9, "seconds"), Span(0, 2, "seconds"), Span(8, 12, "seconds"), Span(2, 3, "seconds")]
    assert joined(seconds, where="a") == [Span(0, 3, "seconds"), Span(5, 12, "seconds")]
    assert joined([*seconds, WHOLE], where="a") == [WHOLE]
    assert joined([Span(4, None, "seconds"), Span(6, 8, "seconds")], where="a") == [Span(4, None, "seconds")]
    with pytest.raises(InputError, match=r"^a: some rows give start and end, others start_frame"):
        joined([Span(1, 2), Span(3, 4, "seconds")], where="a")


def test_stretches_become_stored_frames_only_where_they_are_all_there() -> None:
    indices, times = np.array([0, 2, 5, 7, 10, 12]), np.array([0, 0.2, 0.5, 0.7, 1.0, 1.2])

    def place(span: Span) -> tuple[int, int] | None:
        return stored_frames(span, indices=indices, timestamps=times, fps=4.0)

    assert place(Span(0, 10)) == (0, 4)
    assert place(Span(11, 14)) == (5, 1)
    assert place(Span(11, 15)) is None
    assert place(Span(0.5, 1.0, "seconds")) == (2, 2)
    assert place(Span(0.5, 1.45, "seconds")) == (2, 4)
    assert place(Span(0.5, 1.6, "seconds")) is None
    assert place(Span(1.05, 1.15, "seconds")) is None
    assert place(WHOLE) == (0, 6)
