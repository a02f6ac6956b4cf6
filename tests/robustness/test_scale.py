"""Scale: costs, the ring, shards that are split, repeated and resumed, and several processes."""

import importlib.util
import io
import os
import pickle
import tarfile

import numpy as np
import pytest
import soundfile as sf
import torch
from course import ROOT
from torch.utils.data import Dataset

from sepbook.engine.training import Feed
from sepbook.learner import Learner
from sepbook.models import ConvTasNet
from sepbook.scale import (
    Shards,
    all_reduce_bytes,
    buffer_order,
    estimate_cost,
    parallel_efficiency,
    ring_all_reduce,
    write_shards,
)

SMALL = dict(n_filters=16, bottleneck=8, hidden=8, skip=8, blocks=1, repeats=1)


def sources(count, shape=(2, 1, 400), seed=0):
    draw = torch.Generator().manual_seed(seed)
    return [0.1 * torch.randn(*shape, generator=draw) for _ in range(count)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Twelve shards of ten items, and one of three."""
    return write_shards(sources(123), tmp_path_factory.mktemp("shards"), 8000, 10)


def test_costs_scale_as_they_should():
    one = estimate_cost(212, 100, 40, price=2.0)
    assert (one.hours, one.device_hours, one.money) == (530, 530, 1060)
    ten = estimate_cost(212, 100, 40, devices=10, efficiency=0.5, price=2.0)
    assert (ten.hours, ten.device_hours, ten.money) == (106, 1060, 2120)


@pytest.mark.parametrize("ranks", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("size", [1, 7, 840])
def test_the_ring_is_the_mean(ranks, size):
    vectors = [x.flatten().double() for x in sources(ranks, (size,))]
    before = [v.clone() for v in vectors]
    means, sent = ring_all_reduce(vectors)
    for mean in means:
        torch.testing.assert_close(mean, sum(vectors) / ranks, atol=1e-15, rtol=0)
    assert all(torch.equal(a, b) for a, b in zip(before, vectors))
    if size % ranks == 0:
        assert sent * 4 == all_reduce_bytes(size, ranks)


def test_efficiency_rises_with_work_and_falls_with_traffic():
    assert parallel_efficiency(0.1, 5e6, 1, 1e9) == 1
    assert parallel_efficiency(0.1, 5e6, 8, 1e9) < parallel_efficiency(0.2, 5e6, 8, 1e9)
    half = parallel_efficiency(0.1, 5e6, 8, 1e9, width=2)
    assert parallel_efficiency(0.1, 5e6, 8, 1e9) < half < 1
    exchange = all_reduce_bytes(5e6, 8) / 1e9
    assert parallel_efficiency(exchange, 5e6, 8, 1e9) == 0.5


@pytest.mark.parametrize(("n", "size"), [(0, 5), (1, 5), (5, 5), (100, 1), (100, 7), (100, 1000)])
def test_a_buffer_reorders_within_its_size(n, size):
    order = buffer_order(n, size, 3)
    assert sorted(order) == list(range(n))
    assert all(item < place + size for place, item in enumerate(order))
    assert np.array_equal(order, buffer_order(n, size, 3))
    if size == 1:
        assert list(order) == list(range(n))
    if n == 100 and size == 1000:
        assert list(order) != list(range(n))


def test_shards_hold_what_was_written(folder):
    """Through our reader, and through any tool that opens tar files."""
    data, want = Shards(folder, 4, buffer=20), sources(123)
    assert data.shape == {"sample_rate": 8000, "sources": 2, "channels": 1}
    for number in (0, 9, 10, 77, 122):
        wav, rate = sf.read(io.BytesIO(data.read(number)), dtype="float32")
        assert rate == 8000
        assert np.abs(wav.T - want[number][:, 0].numpy()).max() <= 2**-15
    with tarfile.open(folder / "00007.tar") as tar:
        assert tar.getnames() == [f"{k:09}.flac" for k in range(70, 80)]
        assert tar.extractfile("000000077.flac").read() == data.read(77)
    data.set_epoch(1)
    mix, src = data[5]
    assert torch.equal(mix, src.sum(0)) and src.shape == (2, 1, 400)
    number = int(data.order[5])
    assert (src - want[number]).abs().max() <= 2**-15


def test_stereo_stems_keep_their_places(tmp_path):
    items = sources(8, (4, 2, 100))
    data = Shards(write_shards(items, tmp_path, 44100, 1), 4, streams=4)
    data.set_epoch(0)
    for i in range(8):
        assert (data[i][1] - items[int(data.order[i])]).abs().max() <= 2**-15


@pytest.mark.parametrize("streams", [1, 2, 4])
@pytest.mark.parametrize("epoch", [0, 1, 7])
def test_an_epoch_has_each_item_once(folder, streams, epoch):
    data = Shards(folder, 8, streams=streams, buffer=15, seed=2)
    data.set_epoch(epoch)
    order = data.order.tolist()
    assert len(order) == len(data) and len(set(order)) == len(order)
    assert len(data) >= 123 - 10 * streams - 8


def test_orders_differ_by_epoch_and_seed_only(folder):
    def order(epoch=0, seed=0, **how):
        data = Shards(folder, 8, buffer=15, seed=seed, **how)
        data.set_epoch(epoch)
        return data.order.tolist()

    assert order() == order()
    assert len({tuple(order(e, s)) for e in range(3) for s in range(3)}) == 9


def test_reading_stays_in_a_window(folder):
    """At no place are more shards open at once than the buffers of the streams can span."""
    data = Shards(folder, 4, streams=4, buffer=10)
    data.set_epoch(0)
    for stream in range(4):
        mine = data.order.reshape(-1, 4)[:, stream]
        shards = [int(data.table[k, 0]) for k in mine]
        place = {s: k for k, s in enumerate(dict.fromkeys(shards))}
        spans = [len({*shards[k : k + 10]}) for k in range(len(shards) - 9)]
        assert len(place) == 3 and max(spans) <= 3
        assert min(spans) < 3


@pytest.mark.parametrize("world", [1, 2, 4])
@pytest.mark.parametrize("workers", [0, 2])
def test_ranks_and_workers_share_without_overlap(folder, world, workers):
    """The joined batches are those of one rank, and no two ranks open the same shard."""
    data = Shards(folder, 8, streams=4, buffer=15)
    alone = [list(batch) for batch in Feed(data, 8, shuffle=False)]
    feeds = [
        Feed(Shards(folder, 8, streams=4, buffer=15), 8, 0, False, workers, rank=r, world=world)
        for r in range(world)
    ]
    parts = [list(feed) for feed in feeds]
    assert [[x for part in batch for x in part] for batch in zip(*parts)] == alone
    data.set_epoch(0)
    opened = [{int(data.table[data.order[i], 0]) for b in part for _, i in b} for part in parts]
    assert sum(map(len, opened)) == len(set().union(*opened))
    for feed, part in zip(feeds, parts):
        got = [mix for ((mix, _),) in feed.rest_of_epoch(0)]
        want = [torch.stack([data[i][0] for _, i in batch]) for batch in part]
        assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))
        feed.close()


def test_workers_may_inherit_open_files(folder):
    """A checkpoint looks at some items before the workers are forked; they share open files."""
    data = Shards(folder, 8, streams=4, buffer=15)
    want = [data[i][0].clone() for i in range(len(data))]
    places = [os.lseek(file.fileno(), 0, os.SEEK_CUR) for file in data.files.values()]
    assert len(places) >= 12 and not any(places)  # no process moves another one's place
    feed = Feed(data, 8, 0, False, 2)
    got = [mix for ((mix, _),) in feed.rest_of_epoch(0)]
    assert torch.equal(torch.cat(got), torch.stack(want))
    feed.close()


def test_it_can_be_sent_to_another_process(folder):
    data = Shards(folder, 8, streams=4, buffer=15)
    first = data[0][0]
    again = pickle.loads(pickle.dumps(data))
    assert again.files == {} and torch.equal(again[0][0], first)


def test_resuming_reads_nothing_that_was_before(folder, monkeypatch):
    data = Shards(folder, 8, streams=4, buffer=15)
    steps = len(data) // 8
    whole = [mix for ((mix, _),) in Feed(data, 8, shuffle=False).rest_of_epoch(steps)]
    read, real = [], Shards.read
    monkeypatch.setattr(Shards, "read", lambda self, k: read.append(k) or real(self, k))
    late = Shards(folder, 8, streams=4, buffer=15)
    got = [mix for ((mix, _),) in Feed(late, 8, shuffle=False).rest_of_epoch(steps + 5)]
    assert len(read) == 8 * (steps - 5)
    assert all(torch.equal(a, b) for a, b in zip(whole[5:], got, strict=True))


def test_a_training_from_shards_resumes_to_the_bit(folder, tmp_path):
    def train(steps, run):
        torch.manual_seed(0)
        data = Shards(folder, 8, streams=4, buffer=15)
        how = dict(batch_size=8, shuffle=False, folder=run, checkpoint_minutes=0)
        learner = Learner(ConvTasNet(**SMALL), data, **how)
        learner.fit(steps=steps, progress=False)
        return torch.cat([p.detach().flatten() for p in learner.model.parameters()])

    once = train(17, tmp_path / "once")
    train(6, tmp_path / "twice")
    assert torch.equal(train(17, tmp_path / "twice"), once)
    other = Shards(folder, 8, streams=2, buffer=15)
    with pytest.raises(ValueError, match="other train data"):
        Learner(ConvTasNet(**SMALL), other, batch_size=8, shuffle=False, folder=tmp_path / "once")


def test_it_is_a_data_set(folder):
    data = Shards(folder, 8, streams=4)
    assert isinstance(data, Dataset)
    first = data[0][0]  # without set_epoch
    data.set_epoch(0)
    assert torch.equal(first, data[0][0])


@pytest.mark.parametrize(
    ("how", "words"),
    [
        (dict(batch_size=6, streams=4), "can't be shared equally by 4 streams"),
        (dict(batch_size=32, streams=16), "13 shards are too few for 16 streams"),
        (dict(batch_size=400, streams=4), "too few"),
        (dict(batch_size=0), "batch_size is 0"),
        (dict(batch_size=4, streams=0), "streams is 0"),
        (dict(batch_size=4, buffer=0), "buffer is 0"),
    ],
)
def test_refusals_say_what_to_do(folder, how, words):
    with pytest.raises(ValueError, match=words) as error:
        Shards(folder, **how)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("items", "words"),
    [
        ([], "there are no items"),
        ([torch.zeros(2, 100)], "item 0 has shape"),
        ([torch.zeros(9, 1, 100)], "up to 8 channels"),
        ([torch.zeros(2, 1, 100), torch.zeros(1, 2, 100)], "item 1 has shape"),
        ([torch.zeros(2, 1, 100), torch.full((2, 1, 100), 1.2)], "item 1 exceeds 1"),
        ([torch.full((2, 1, 100), torch.nan)], "holds NaN"),
    ],
)
def test_items_that_cannot_be_stored(tmp_path, items, words):
    """They are refused, not cut off or transposed; and what was begun is no set of shards."""
    with pytest.raises(ValueError, match=words) as error:
        write_shards(items, tmp_path, 8000, 1)
    assert "\n" not in str(error.value) and ";" in str(error.value)
    with pytest.raises(FileNotFoundError, match="no shards"):
        Shards(tmp_path, 4)


def test_shards_are_not_overwritten(folder):
    before = (folder / "00000.tar").read_bytes()
    with pytest.raises(FileExistsError, match="holds shards"):
        write_shards(sources(4), folder, 8000)
    assert (folder / "00000.tar").read_bytes() == before
    with pytest.raises(ValueError, match="per_shard is 0"):
        write_shards(sources(4), folder, 8000, 0)


def test_processes_make_the_steps_of_one(tmp_path):
    """Two with gloo, and two that are followed by one, from shards; to rounding."""
    path = ROOT / "benchmarks" / "scale.py"
    spec = importlib.util.spec_from_file_location("bench_scale", path)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(path.parent))
        spec.loader.exec_module(bench := importlib.util.module_from_spec(spec))
    found = bench.from_shards(tmp_path, steps=6)
    assert len(found) == 2 and max(found.values()) < 1e-6
