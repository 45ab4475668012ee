"""Pictures: one basis for all that is shown, a foreground that does not hang on a sign, and pixels that name their patch."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from vjepa2cli.artifacts.reports import read_report
from vjepa2cli.data.cropping import crop_geometry, evaluation_crop
from vjepa2cli.data.video import read_clip, read_image, write_image, write_video
from vjepa2cli.encoding import Pictures, Point, encode
from vjepa2cli.encoding.components import fit_basis, split_in_two
from vjepa2cli.encoding.pictures import Encoded
from vjepa2cli.encoding.similarity import Patch, check_visible, locate, similarity_map
from vjepa2cli.errors import InputError
from vjepa2cli.settings import EncodeConfig

CONFIG = EncodeConfig(num_frames=4)


def gradient_frames(count: int) -> list[NDArray[np.uint8]]:
    """A bright square that moves over a gradient."""
    frames = []
    for index in range(count):
        frame = np.broadcast_to(np.linspace(0, 200, 64, dtype=np.uint8)[None, :, None], (48, 64, 3)).copy()
        frame[10:26, 4 * index : 4 * index + 16] = (250, 40, 10)
        frames.append(frame)
    return frames


@pytest.fixture
def video(tmp_path: Path) -> Path:
    write_video(tmp_path / "square.mp4", gradient_frames(11), fps=8.0)
    return tmp_path / "square.mp4"


def scene(seed: int = 3) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Tokens [4, 6, 7, 12] of an object that moves inside the frame, and where it is."""
    rng = np.random.default_rng(seed)
    inside = np.zeros((4, 6, 7), bool)
    for step in range(4):
        inside[step, 1:4, 1 + step : 3 + step] = True
    tokens = rng.normal(size=(4, 6, 7, 12)) * 0.1
    tokens[inside] += 5 * np.eye(12)[2] + rng.normal(size=(inside.sum(), 12)) * np.linspace(1, 0, 12)
    return tokens.astype(np.float32), inside


def test_components_have_a_sign_and_the_order_of_their_spread() -> None:
    rng = np.random.default_rng(2)
    spread = np.zeros(8)
    spread[[1, 4, 6]] = (9, 3, 1)
    tokens = (rng.normal(size=(3, 5, 7, 8)) * spread + 4).astype(np.float32)
    colours = fit_basis(lambda: [tokens]).colours(tokens)
    for channel, axis in enumerate((1, 4, 6)):
        r = np.corrcoef(colours[..., channel].ravel(), tokens[..., axis].ravel())[0, 1]
        assert r > 0.95
    equal = np.ones((1, 2, 2, 8), np.float32)
    assert np.array_equal(fit_basis(lambda: [equal]).colours(equal), np.zeros((1, 2, 2, 3), np.uint8))
    assert not fit_basis(lambda: [equal], foreground=True).mask(equal).any()


@pytest.mark.parametrize("foreground", [False, True])
def test_basis_is_that_of_all_blocks_however_they_are_cut(foreground: bool) -> None:
    tokens, _ = scene()
    whole = fit_basis(lambda: [tokens + 100], foreground=foreground)
    parts = fit_basis(lambda: (tokens[start : start + 1] + 100 for start in range(4)), foreground=foreground)
    # Sums in another order differ in the last digits, which may tip a colour over to the next level.
    assert np.abs(whole.colours(tokens).astype(int) - parts.colours(tokens)).max() <= 1
    assert np.array_equal(whole.mask(tokens + 100), parts.mask(tokens + 100))


@pytest.mark.parametrize("sign", [-1, 1])
def test_foreground_is_the_object_that_the_border_does_not_show(sign: int) -> None:
    tokens, inside = scene()
    basis = fit_basis(lambda: [sign * tokens], foreground=True)
    assert np.array_equal(basis.mask(sign * tokens), inside)


def test_background_has_no_part_in_the_colours_of_the_foreground() -> None:
    tokens, inside = scene()
    stirred = tokens.copy()
    stirred[~inside] += 0.3 * np.random.default_rng(0).normal(size=stirred[~inside].shape).astype(np.float32)
    found = [fit_basis(lambda tokens=tokens: [tokens], foreground=True) for tokens in (tokens, stirred)]
    assert np.array_equal(found[1].mask(stirred), inside)
    assert np.array_equal(found[0].colours(tokens)[inside], found[1].colours(stirred)[inside])


def test_threshold_leaves_the_most_variance_between_the_halves() -> None:
    rng = np.random.default_rng(4)
    values = np.concatenate([rng.normal(size=70), 4 + rng.normal(size=20)])

    def between(threshold: float) -> float:
        low, high = values[values <= threshold], values[values > threshold]
        if not len(low) or not len(high):
            return 0.0
        return len(low) * len(high) * (low.mean() - high.mean()) ** 2

    found = split_in_two(values)
    assert between(found) == pytest.approx(max(between(value) for value in values))
    assert split_in_two(np.full(5, 2.0)) == 2.0


def test_components_are_drawn_beside_the_frames(video: Path, tiny_encoder: Path, tmp_path: Path) -> None:
    encode(video, model=tiny_encoder, out=tmp_path / "a.npz", config=CONFIG, pictures=Pictures(tmp_path / "a.mp4"))
    drawn = read_clip(tmp_path / "a.mp4")
    assert drawn.pixels.shape == (11, 256, 512, 3)
    assert drawn.fps == pytest.approx(8.0, rel=0.01)
    write_image(tmp_path / "one.png", read_clip(video).pixels[0])
    encode(tmp_path / "one.png", model=tiny_encoder, out=tmp_path / "b.npz", config=CONFIG, pictures=Pictures(tmp_path / "b.png"))
    picture = read_image(tmp_path / "b.png")
    with np.load(tmp_path / "b.npz") as found:
        colours = fit_basis(lambda: [found["tokens"]]).colours(found["tokens"])
    # In the corners, half a patch wide, nothing is mixed in.
    assert np.array_equal(picture[[[0], [-1]], [256, -1]], colours[0])
    seen = evaluation_crop(read_image(tmp_path / "one.png")[None], crop=32)[0]
    assert np.abs(picture[:, :256].reshape(32, 8, 32, 8, 3).mean((1, 3)) - seen).mean() < 2


def test_shared_basis_gives_equal_frames_equal_colours(tiny_encoder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (48, 48, 3), dtype=np.uint8)
    write_image(folder / "a.png", image)
    write_image(folder / "b.png", image)
    write_image(folder / "c.png", 255 - image // 3)
    drawn = {}
    for shared in (False, True):
        pictures = Pictures(tmp_path / f"{shared}", shared=shared)
        encode(folder, model=tiny_encoder, out=tmp_path / "features", config=CONFIG, pictures=pictures)
        drawn[shared] = [read_image(tmp_path / f"{shared}" / f"{name}.png.png")[:, 256:] for name in "abc"]
        assert np.array_equal(drawn[shared][0], drawn[shared][1])
    alone = np.load(tmp_path / "features" / "c.png.npz")["tokens"]
    all_tokens = [np.load(tmp_path / "features" / f"{name}.png.npz")["tokens"] for name in "abc"]
    assert np.array_equal(drawn[False][2][[[0], [-1]], [0, -1]], fit_basis(lambda: [alone]).colours(alone)[0])
    assert np.array_equal(drawn[True][2][[[0], [-1]], [0, -1]], fit_basis(lambda: all_tokens).colours(alone)[0])


def test_background_is_black_in_the_picture(tiny_encoder: Path, tmp_path: Path) -> None:
    frame = np.full((96, 96, 3), 90, np.uint8)
    frame[40:60, 38:58] = (240, 30, 20)
    write_image(tmp_path / "one.png", frame)
    pictures = Pictures(tmp_path / "p.png", foreground=True)
    encode(tmp_path / "one.png", model=tiny_encoder, out=tmp_path / "a.npz", config=EncodeConfig(crop=96), pictures=pictures)
    with np.load(tmp_path / "a.npz") as found:
        basis = fit_basis(lambda: [found["tokens"]], foreground=True)
        mask = basis.mask(found["tokens"])[0]
    assert 0 < mask.sum() < mask.size / 2
    map_half = read_image(tmp_path / "p.png")[:, 288:]
    centres = map_half[24::48, 24::48]
    assert not centres[~mask].any(-1).all()
    assert (map_half[:8] == 0).all()
    assert (map_half[:, :8] == 0).all()


def test_similarity_is_the_cosine_to_the_chosen_token() -> None:
    tokens, _ = scene()
    found = similarity_map(lambda: (tokens[start : start + 3] for start in (0, 3)), Patch(3, 2, 5))
    other = torch.from_numpy(tokens[3, 2, 5]).expand(4, 6, 7, -1)
    assert np.allclose(found, torch.cosine_similarity(torch.from_numpy(tokens), other, dim=-1), atol=1e-6)
    assert found[3, 2, 5] == pytest.approx(1)


def placed(frame_size: tuple[int, int], crop: int | tuple[int, int], point: Point) -> Patch:
    shape = (crop, crop) if isinstance(crop, int) else crop
    encoded = Encoded("v", np.array([0.25, 0.75]), lambda: iter(()), 4.0, still=False, crop=crop, tokens=list)
    return locate(point, encoded, grid=(shape[0] // 16, shape[1] // 16), frame_size=frame_size)


@pytest.mark.parametrize("crop", [64, (64, 96)])
@pytest.mark.parametrize("frame_size", [(120, 160), (161, 119), (480, 853), (40, 50)])
def test_pixel_names_the_patch_that_shows_it(frame_size: tuple[int, int], crop: int | tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    radius = max(1, min(frame_size) // 40)
    tried = 0
    while tried < 40:
        y, x = (int(rng.integers(radius, side - radius)) for side in frame_size)
        frame = np.zeros((*frame_size, 3), np.uint8)
        frame[y - radius : y + radius + 1, x - radius : x + radius + 1] = 255
        light = evaluation_crop(frame[None], crop=crop)[0, ..., 0].astype(float)
        whole = (2 * radius + 1) ** 2 * 255 * np.prod(crop_geometry(*frame_size, crop=crop).size) / np.prod(frame_size)
        if light.sum() < 0.97 * whole:  # the spot is cut by the border of the crop
            continue
        row, column = (float((light * place).sum() / light.sum()) for place in np.indices(light.shape))
        if min(abs((at + 0.5) / 16 - round((at + 0.5) / 16)) for at in (row, column)) < 0.05:  # too near to two patches
            continue
        assert placed(frame_size, crop, Point(x, y)) == Patch(0, int((row + 0.5) // 16), int((column + 0.5) // 16))
        tried += 1


def test_point_outside_of_the_crop_is_told_what_is_visible() -> None:
    with pytest.raises(InputError, match=r"x 2 to 21, y 1 to 14 \(of 24 x 16 pixels\)"):
        check_visible(Point(1, 5), (16, 24), crop=(14, 20), name="v")
    for x, y in ((2, 1), (21, 14)):
        check_visible(Point(x, y), (16, 24), crop=(14, 20), name="v")
    for x, y in ((1, 1), (2, 0), (22, 14), (21, 15)):
        with pytest.raises(InputError, match="outside"):
            check_visible(Point(x, y), (16, 24), crop=(14, 20), name="v")


def test_time_names_the_step_whose_frames_are_nearest() -> None:
    assert placed((64, 64), 64, Point(32, 32, 0.4)).step == 0
    assert placed((64, 64), 64, Point(32, 32, 0.6)).step == 1
    with pytest.raises(InputError, match=r"give 0 to 1\.00 s"):
        placed((64, 64), 64, Point(32, 32, 1.2))


def test_similarity_is_drawn_with_its_patch_marked_and_its_numbers_kept(video: Path, tiny_encoder: Path, tmp_path: Path) -> None:
    pictures = Pictures(similarity=Point(40, 20, 0.6), similarity_out=tmp_path / "s.mp4")
    summary = encode(video, model=tiny_encoder, out=tmp_path / "a.npz", config=CONFIG, pictures=pictures)
    assert summary["drawn"] == [str(tmp_path / "s.mp4"), str(tmp_path / "s.json")]
    report = read_report(tmp_path / "s.json", "similarity")
    assert report["patch"] == {"step": 2, "row": 0, "column": 1}
    with np.load(tmp_path / "a.npz") as found:
        assert np.allclose(report["timestamps"], found["timestamps"], atol=1e-6)
        assert np.allclose(report["similarity"], similarity_map(lambda: [found["tokens"]], Patch(2, 0, 1)), atol=1e-6)
    drawn = read_clip(tmp_path / "s.mp4").pixels
    assert drawn.shape == (11, 256, 512, 3)
    # The white box lies within the upper right patch of the frame, at the frames of its own time step.
    white = [int((frame[:128, 128:256].min(-1) > 200).sum()) for frame in drawn]
    assert all((count > 300) == (index in (4, 5)) for index, count in enumerate(white))
    write_image(tmp_path / "folder" / "a.png", gradient_frames(1)[0])
    with pytest.raises(InputError, match="one video"):
        encode(tmp_path / "folder", model=tiny_encoder, out=tmp_path / "f", config=CONFIG, pictures=pictures)
