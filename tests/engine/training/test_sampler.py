"""Sample order: a pure function of (seed, position), however it is divided."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nlnet.engine.training.sampler import BatchSampler, SampleOrder, mix_seeds
from nlnet.errors import ConfigError


@given(st.integers(1, 40), st.integers(0, 2**31))
def test_each_epoch_is_a_permutation(videos, seed):
    order = SampleOrder(videos, seed)
    for epoch in range(2):
        indices = [order[epoch * videos + place][0] for place in range(videos)]
        assert sorted(indices) == list(range(videos))


def test_positions_can_be_read_in_any_order():
    a, b = SampleOrder(13, 5), SampleOrder(13, 5)
    positions = list(range(60))
    assert [a[p] for p in positions] == [b[p] for p in reversed(positions)][::-1]


def test_epochs_seeds_and_draws_differ():
    order = SampleOrder(50, 0)
    first, second = ([order[e * 50 + p][0] for p in range(50)] for e in (0, 1))
    assert first != second
    assert first != [SampleOrder(50, 1)[p][0] for p in range(50)]
    assert len({order[p][1] for p in range(500)}) == 500


@given(
    st.integers(1, 30),
    st.integers(0, 9),
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(1, 4),
)
def test_processes_and_accumulation_share_out_the_same_samples(videos, seed, world, accumulate, size):
    """The global batch of an iteration is the same however many processes and micro-batches make it."""
    batch = world * accumulate * size
    whole = list(BatchSampler(SampleOrder(videos, seed), start=2, stop=5, batch=batch))
    parts = [
        list(
            BatchSampler(
                SampleOrder(videos, seed),
                start=2,
                stop=5,
                batch=batch,
                accumulate=accumulate,
                rank=r,
                world=world,
            )
        )
        for r in range(world)
    ]
    for i in range(3):
        joined = [
            key
            for step in range(accumulate)
            for rank in range(world)
            for key in parts[rank][i * accumulate + step]
        ]
        assert joined == whole[i]
    assert all(
        len(p)
        == len(BatchSampler(SampleOrder(videos, seed), start=2, stop=5, batch=batch, accumulate=accumulate))
        for p in parts
    )


@given(st.integers(1, 20), st.integers(0, 5), st.integers(1, 5))
def test_a_resumed_run_sees_the_same_samples(videos, start, more):
    whole = list(BatchSampler(SampleOrder(videos, 3), start=0, stop=start + more, batch=4))
    assert (
        list(BatchSampler(SampleOrder(videos, 3), start=start, stop=start + more, batch=4)) == whole[start:]
    )


def test_a_batch_that_does_not_divide():
    with pytest.raises(
        ConfigError, match=r"training.batch: 6 clips do not divide into 2 accumulation steps × 2"
    ):
        BatchSampler(SampleOrder(3, 0), start=0, stop=1, batch=6, accumulate=2, world=2)


def test_no_videos():
    with pytest.raises(ConfigError, match="data.train: training needs at least one video, got 0"):
        SampleOrder(0, 0)


@given(st.lists(st.integers(0, 2**40), min_size=1, max_size=4))
def test_seeds_fit_63_bits_and_depend_on_every_number(numbers):
    assert 0 <= mix_seeds(*numbers) < 2**63
    assert mix_seeds(*numbers) != mix_seeds(*numbers[:-1], numbers[-1] + 1)
