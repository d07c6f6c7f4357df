"""Figures and animations of attention: everything is drawn at the pixel and the frame of the keys' centres."""

from fractions import Fraction
from pathlib import Path

import av
import matplotlib.pyplot as plt
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.patches import FancyArrowPatch
from PIL import Image

from nlnet.apps.attend.animation import animation_frames, frame_rate, write_gif, write_mp4
from nlnet.apps.attend.attention_map import (
    NEGATIVE,
    POSITIVE,
    AttentionMap,
    nearest_centres,
    overlay_heat_map,
    weights_per_pixel,
)
from nlnet.apps.attend.figures import (
    MAX_ROWS,
    attention_figure,
    caption,
    frame_offsets,
    frames_of_key,
    shown_frames,
)
from nlnet.apps.plots import save
from nlnet.errors import NlnetError


def attention(
    weights: np.ndarray, position: tuple[int, int, int] = (0, 3, 3), signed: bool = False
) -> AttentionMap:
    """An attention map whose keys lie at frames 0.5, 2.5, … and pixels 3, 11, …."""
    times, rows, columns = (
        first + step * np.arange(n)
        for (first, step), n in zip(((0.5, 2), (3, 8), (3, 8)), weights.shape, strict=True)
    )
    return AttentionMap("layer2.1.nonlocal_block", position, weights, (times, rows, columns), signed)


def test_interpolation_is_exact_at_the_centres_linear_between_and_constant_beyond() -> None:
    weights = np.array([[[1.0, 5.0], [2.0, 8.0]], [[0.0, 0.0], [0.0, 4.0]]])
    values = weights_per_pixel(attention(weights), (4, 16, 16))
    assert values.shape == (4, 16, 16)
    for row, i in ((3, 0), (11, 1)):
        for column, j in ((3, 0), (11, 1)):
            assert values[1, row, column] == weights[0, i, j]
            assert values[2, row, column] == weights[1, i, j]
    assert values[0, 3, 5] == 1.0 + 2 / 8 * 4.0
    assert values[0, 0, 0] == 1.0
    assert values[3, 15, 15] == 4.0


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 4), min_size=3, max_size=3), st.randoms(use_true_random=False))
def test_interpolation_stays_between_the_weights(shape: list[int], random: object) -> None:
    weights = np.random.default_rng(random.randrange(1000)).normal(size=shape)
    values = weights_per_pixel(attention(weights), (5, 9, 13))
    assert values.min() >= weights.min() - 1e-12
    assert values.max() <= weights.max() + 1e-12


def test_a_frame_takes_the_nearest_key_and_the_earlier_of_two() -> None:
    assert nearest_centres(np.array([0.5, 2.5]), 4).tolist() == [0, 0, 1, 1]
    assert nearest_centres(np.array([0.0, 4.0]), 5).tolist() == [0, 0, 0, 1, 1]


@settings(max_examples=300, deadline=None)
@given(st.integers(1, 130), st.data())
def test_few_frames_are_shown_with_those_of_the_queries(count: int, data: st.DataObject) -> None:
    """One entry for each map: a query comes once for each block, and there may be more than eight queries."""
    frames = data.draw(st.lists(st.integers(0, count - 1), min_size=1, max_size=20))
    queries = [frame for frame in frames for _ in range(data.draw(st.integers(1, 5)))]
    shown = shown_frames(count, queries)
    assert len(shown) == min(count, max(8, len(set(queries))))
    assert shown == sorted(set(shown))
    assert set(queries) <= set(shown) <= set(range(count))


def test_shown_frames_are_spread_evenly() -> None:
    assert shown_frames(32, [2]) == [2, 6, 10, 14, 18, 22, 26, 30]
    assert shown_frames(32, [13]) == [2, 6, 10, 13, 18, 22, 26, 30]


def test_an_arrow_ends_in_every_shown_frame_of_its_key() -> None:
    times = np.array([0.5, 2.5, 4.5])
    assert frames_of_key(2.5, times, 6, range(6)) == [2, 3]
    assert frames_of_key(2.5, times, 6, [0, 3, 5]) == [3]
    assert frames_of_key(2.5, times, 6, [0, 5]) == [
        0
    ]  # no frame of the key is shown: the nearest, the earlier of two
    assert frames_of_key(4.5, times, 6, [0, 3]) == [3]


def test_frames_of_one_key_are_drawn_closer_together() -> None:
    assert frame_offsets([0, 1, 2, 3], np.array([0, 0, 1, 1]), 64) == {0: 0, 1: 66, 2: 138, 3: 204}


def test_strongest_keys_are_those_of_largest_magnitude() -> None:
    row = attention(np.array([[[0.1, -0.9]], [[0.5, 0.1]]]), signed=True)
    assert row.strongest(3) == [(-0.9, (0.5, 3.0, 11.0)), (0.5, (2.5, 3.0, 3.0)), (0.1, (0.5, 3.0, 3.0))]
    assert row.largest == 0.9
    assert len(row.strongest(100)) == 4


def test_the_heat_map_has_a_colour_for_each_sign_and_is_dark_where_weights_are_0() -> None:
    """Over black: 0.8 of the colour at the largest |weight|, none at 0."""
    frames = np.zeros((2, 16, 16, 3), dtype=np.uint8)
    picture = overlay_heat_map(frames, attention(np.array([[[2.0, -2.0], [0.0, 0.0]]]), signed=True))
    np.testing.assert_allclose(picture[0, 3, 3], 0.8 * np.array(POSITIVE), atol=1)
    np.testing.assert_allclose(picture[1, 3, 11], 0.8 * np.array(NEGATIVE), atol=1)
    assert not picture[:, 11].any()


def test_the_figure_has_an_arrow_to_each_frame_of_the_strongest_key() -> None:
    weights = np.zeros((2, 2, 2))
    weights[1, 1, 0] = 1.0
    figure = attention_figure(
        np.zeros((4, 16, 16, 3), dtype=np.uint8), [attention(weights, (0, 3, 3))], title="t", top=5
    )
    above, below = figure.axes
    arrows = [patch for patch in above.patches if isinstance(patch, FancyArrowPatch)]
    offsets = frame_offsets(range(4), np.array([0, 0, 1, 1]), 16)
    # weights of 0 are not drawn; the key's centre is row 11, column 3
    assert [arrow._posA_posB for arrow in arrows] == [
        [(offsets[0] + 3, 3), (offsets[frame] + 3, 11)] for frame in (2, 3)
    ]
    stars = [(line.get_xdata()[0], line.get_ydata()[0], line.get_markerfacecolor()) for line in above.lines]
    assert [(x, y) for x, y, _ in stars] == [(offsets[0] + 3, 3), (offsets[1] + 3, 3)]
    assert [fill == "none" for *_, fill in stars] == [False, True]
    assert [label.get_text() for label in below.get_xticklabels()] == [f"frame {t}" for t in range(4)]


def test_a_figure_of_three_queries_of_five_blocks_in_a_long_clip() -> None:
    """Each query has its filled star, in its own frame."""
    rows = [attention(np.ones((16, 2, 2)), (t, 3, 3)) for t in (1, 17, 29) for _ in range(5)]
    figure = attention_figure(np.zeros((32, 16, 16, 3), dtype=np.uint8), rows, title="t", top=2)
    filled = [line for axes in figure.axes for line in axes.lines if line.get_markerfacecolor() != "none"]
    assert len(filled) == 2 * len(rows)


def test_a_caption_says_how_sharp_the_row_is() -> None:
    row = attention(np.array([[[0.7, 0.1], [0.1, 0.1]]]), (2, 5, 6))
    assert (
        caption(row)
        == "layer2.1 from frame 2, row 5, column 6;  largest f/C 0.7 (2.8 × even), 1 × 2 × 2 keys"
    )
    assert "even" not in caption(attention(np.array([[[0.7, -0.1]]]), signed=True))


def test_too_many_maps_for_one_figure_are_an_error() -> None:
    rows = [attention(np.ones((1, 1, 1)))] * (MAX_ROWS // 2 + 1)
    with pytest.raises(
        NlnetError, match=r"21 attention maps .* at most 20; choose fewer positions or blocks"
    ):
        attention_figure(np.zeros((2, 8, 8, 3), dtype=np.uint8), rows, title="", top=1)


def test_a_figure_is_unknown_to_pyplot_and_is_saved_whole(tmp_path: Path) -> None:
    """No window opens, no figure stays in memory, and saving the same figure twice writes the same bytes."""
    written = []
    for name in ("a.png", "b.png"):
        figure = attention_figure(
            np.zeros((2, 8, 8, 3), dtype=np.uint8), [attention(np.ones((1, 2, 2)))], title="t", top=1
        )
        save(figure, tmp_path / name)
        written.append((tmp_path / name).read_bytes())
    assert not plt.get_fignums()
    assert written[0] == written[1]
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.width == 1300


@pytest.mark.parametrize(
    ("seconds", "rate"),
    [
        (None, 4),
        ((0.5,), 4),
        (
            [n / 25 for n in (12, 16, 20, 0, 4)],
            Fraction(25, 4),
        ),  # 25 a second, every fourth taken, from the start again
        ([n / 25 for n in range(8)], 12),
        ([0.0, 2.0, 4.0], 2),
        ([n * 1001 / 30000 * 8 for n in range(8)], Fraction(3750, 1001)),
    ],
)
def test_an_animation_plays_at_the_speed_of_the_video_within_limits(
    seconds: list[float] | None, rate: Fraction
) -> None:
    assert frame_rate(seconds) == rate


def test_the_frame_rate_is_in_the_files(tmp_path: Path) -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    write_gif(pictures, tmp_path / "a.gif", Fraction(25, 4))
    write_mp4(pictures, tmp_path / "a.mp4", Fraction(25, 4))
    with Image.open(tmp_path / "a.gif") as gif:
        assert gif.info["duration"] == 160
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert container.streams.video[0].average_rate == Fraction(25, 4)


def test_an_animation_shows_the_clip_beside_every_block_and_can_be_read_back(tmp_path: Path) -> None:
    """Panels of 32 pixels, enlarged 8 times, with a caption of 20 pixels and margins of 4."""
    frames = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    rows = [attention(np.ones((2, 2, 2)), position) for position in ((0, 3, 3), (3, 9, 9))]
    pictures = animation_frames(frames, rows)
    assert pictures.shape == (4, 2 * (256 + 24), 2 * (256 + 8), 3)
    # the clip's own pixels, repeated 8 × 8: one far from the ring
    assert (pictures[2, 20 + 8 * 30 : 20 + 8 * 31, 4 + 8 * 28 : 4 + 8 * 29] == frames[2, 30, 28]).all()
    write_gif(pictures, tmp_path / "a.gif")
    with Image.open(tmp_path / "a.gif") as gif:
        assert (gif.n_frames, gif.size, gif.info["duration"]) == (4, (528, 560), 250)
    write_mp4(pictures[:, :-1, :-1], tmp_path / "a.mp4")
    with av.open(str(tmp_path / "a.mp4")) as container:
        shapes = [frame.to_ndarray(format="rgb24").shape for frame in container.decode(video=0)]
    assert shapes == [(560, 528, 3)] * 4
    assert {path.name for path in tmp_path.iterdir()} == {"a.gif", "a.mp4"}
