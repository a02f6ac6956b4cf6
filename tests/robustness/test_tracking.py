"""Following voices: paths are the cheapest, pieces are as the whole, levels do not count."""

import itertools
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from course import ROOT

from sepbook.classical.tracking import (
    HOP,
    STEP,
    WINDOW,
    Heard,
    Past,
    Statistics,
    VoiceTracker,
    cepstra,
    clear_frames,
    cosines,
    discriminant,
    exchange,
    explain,
    mel_bank,
    moments,
    read_statistics,
    viterbi,
)
from sepbook.engine.corpora import Corpus
from sepbook.engine.examples import DATA
from sepbook.engine.files import resample

MOMENT, QUARTER = WINDOW * HOP, STEP * HOP  # samples


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def tracker() -> VoiceTracker:
    return VoiceTracker()


@pytest.fixture(scope="module")
def readers() -> list[torch.Tensor]:
    """48,000 samples of each reader, in the order of the table: four women, four men."""
    return [wav[:, :48000] for wav in Corpus(DATA / "readers", sample_rate=8000)]


def in_turns(voices: list[torch.Tensor], seconds: int, turn: float = 3.0) -> torch.Tensor:
    """True voices (source, 1, time) that take turns, with a little of each in the next output."""
    size, n = round(turn * 8000), len(voices)
    src = torch.zeros(n, 1, seconds * 8000)
    for k in range(seconds * 8000 // size):
        src[k % n, :, k * size : (k + 1) * size] = voices[k % n][:, :size].roll(k * 777, -1)
    return src + 0.02 * src.roll(1, 0)


def swapped(src: torch.Tensor, orders: dict[float, list[int]]) -> torch.Tensor:
    """Output k holds voice order[k], from so many seconds on."""
    est = src.clone()
    for second, order in orders.items():
        at = round(second * 8000)
        est[..., at:] = src[order][..., at:]
    return est


def in_place(est: torch.Tensor, src: torch.Tensor) -> float:
    """Share of samples in the right row, in the best order for all of them."""
    orders = itertools.permutations(range(len(src)))
    return max(float((est[list(o)] == src).all(0).float().mean()) for o in orders)


# The parts


def test_mel_bank_covers_every_frequency_and_has_equal_areas():
    bank = mel_bank()
    assert bank.shape == (40, 257) and (bank >= 0).all()
    inside = bank.sum(0)[5:-1]  # from 78 Hz on
    assert (inside > 0).all()
    fine = mel_bank(n_fft=2**14)  # areas as integrals over frequency
    assert torch.allclose(fine.sum(1) * 8000 / 2**14, torch.ones(40), atol=0.02)


def test_cepstra_are_rows_of_an_orthonormal_transform():
    C = cosines()
    assert C.shape == (23, 40)
    assert torch.allclose(C @ C.T, torch.eye(23), atol=1e-5)
    assert C.sum(1).abs().max() < 1e-5  # a level in all bands is not seen


def test_cepstra_as_scipy_has_them():
    scipy_fft = pytest.importorskip("scipy.fft")
    x = np.random.default_rng(0).standard_normal(40)
    want = scipy_fft.dct(x, norm="ortho")[1:24]
    np.testing.assert_allclose(cosines().double().numpy() @ x, want, atol=2e-5)


def test_clear_frames():
    level = torch.tensor([[0.0, 0.0, 0.0, -40.0, -20.0], [-10.0, -2.0, -3.5, -60.0, -19.0]])
    assert clear_frames(level).tolist() == [[True, False, True, False, False], [False] * 5]
    assert clear_frames(level[:1]).tolist() == [[True, True, True, False, True]]
    three = torch.stack([level[0], level[0] - 5, level[0] - 1])
    assert not clear_frames(three).any()


def test_moments_count_clear_frames_only():
    draw = generator(0)
    cepstrum, clear = (
        torch.randn(2, 95, 23, generator=draw),
        torch.rand(2, 95, generator=draw) > 0.5,
    )
    x, share = moments(cepstrum, clear)
    assert x.shape == (2, 6, 46) and share.shape == (2, 6)
    for k, t in itertools.product(range(2), range(6)):
        frames = slice(t * STEP, t * STEP + WINDOW)
        part = cepstrum[k, frames][clear[k, frames]].double()
        assert torch.allclose(share[k, t], clear[k, frames].double().mean())
        want = torch.cat([part.mean(0), torch.log(part.std(0, correction=0) + 0.1)])
        assert torch.allclose(x[k, t], want, atol=1e-6)


# The discriminant


def people(count: int, rows: int, size: int, seed: int = 0):
    draw = generator(seed)
    mean = 2 * torch.randn(count, 1, size, generator=draw).double()
    x = mean + torch.randn(count, rows, size, generator=draw).double()
    turn = torch.randn(size, size, generator=draw).double()
    return x.flatten(0, 1) @ turn, torch.arange(count).repeat_interleave(rows)


def test_discriminant_is_scikit_learns():
    sklearn = pytest.importorskip("sklearn.discriminant_analysis")
    x, who = people(12, 40, 7)
    ours = discriminant(x, who, dims=7, ridge=0)
    lda = sklearn.LinearDiscriminantAnalysis(solver="eigen").fit(x.numpy(), who.numpy())
    theirs = torch.from_numpy(lda.scalings_[:, :7])
    assert (torch.cosine_similarity(ours.directions, theirs, dim=0).abs() > 1 - 1e-8).all()


def test_discriminant_makes_both_covariances_simple():
    x, who = people(30, 11, 5)
    centre, D, spread = discriminant(x, who, dims=5, ridge=0)
    means = torch.stack([x[who == p].mean(0) for p in range(30)])
    apart = x - means[who]
    within = apart.T @ apart / (len(x) - 30)
    between = torch.cov(means.T) - within / 11
    assert torch.allclose(D.T @ within @ D, torch.eye(5).double(), atol=1e-9)
    assert torch.allclose(D.T @ between @ D, torch.diag(spread), atol=1e-8)
    assert (spread[:-1] >= spread[1:]).all() and torch.allclose(centre, means.mean(0))


def test_discriminant_takes_any_names_and_order_of_rows():
    x, who = people(6, 20, 4)
    mixed = torch.randperm(len(x), generator=generator(1))
    for a, b in zip(discriminant(x, who), discriminant(x[mixed], 100 - 7 * who[mixed])):
        assert torch.allclose(a, b, atol=1e-8)


def test_discriminant_refuses_too_little():
    x, who = people(3, 2, 6)
    for bad in ((x, who), (x.repeat(9, 1), torch.zeros(54))):
        with pytest.raises(ValueError, match="needs two people") as told:
            discriminant(*bad)
        assert "\n" not in str(told.value)


# Paths


@pytest.mark.parametrize("last", [None, 0, 1])
@pytest.mark.parametrize("change", [0.0, 0.4, 3.0])
def test_viterbi_finds_the_cheapest_of_all_paths(change, last):
    for seed in range(8):
        cost = torch.rand(3, 5, 2 + seed % 2, generator=generator(seed), dtype=torch.float64)
        paths, prices = viterbi(cost, change, last)
        for table, path, price in zip(cost, paths.tolist(), prices.tolist()):

            def price_of(p, table=table):
                moved = sum(a != b for a, b in itertools.pairwise(p))
                moved += last is not None and p[0] != last
                return float(table[range(5), list(p)].sum()) + change * moved

            best = min(map(price_of, itertools.product(range(table.shape[1]), repeat=5)))
            assert price == pytest.approx(best) and price_of(path) == pytest.approx(best)


def random_heard(n: int, count: int, past: bool = False, seed: int = 0) -> Heard:
    draw = generator(seed)
    x = 2 * torch.randn(n, count, 4, generator=draw, dtype=torch.float64)
    weight = torch.rand(n, count, generator=draw, dtype=torch.float64)
    spread = torch.tensor([4.0, 2.0, 1.0, 0.5], dtype=torch.float64)
    total = torch.randn(n, 4, generator=draw, dtype=torch.float64)
    known = Past(total, torch.rand(n, generator=draw, dtype=torch.float64), 1)
    return Heard(x, weight, spread, known if past else None)


@pytest.mark.parametrize("past", [False, True])
@pytest.mark.parametrize("n", [2, 3])
def test_costs_and_voices_are_equations_7_and_9(n, past):
    heard = random_heard(n, 6, past)
    orders = list(itertools.permutations(range(n)))
    path = torch.randint(len(orders), (2, 6), generator=generator(3))
    voices, costs = heard.voices(path), heard.costs(heard.voices(path))
    for p in range(2):
        total, weight = heard.past.total.clone(), heard.past.weight.clone()
        for t, k in itertools.product(range(6), range(n)):
            v = orders[path[p, t]][k]
            total[v] += heard.weight[k, t] * heard.x[k, t]
            weight[v] += heard.weight[k, t]
        assert torch.allclose(voices[p], total / (weight[:, None] + 1 / heard.spread))
        for t, (o, order) in itertools.product(range(6), enumerate(orders)):
            far = [(heard.x[k, t] - voices[p, order[k]]).square().sum() for k in range(n)]
            want = sum(heard.weight[k, t] / 2 * far[k] for k in range(n))
            assert costs[p, t, o] == pytest.approx(float(want))


@pytest.mark.parametrize("past", [False, True])
def test_the_voices_of_a_path_are_its_best(past):
    """Any other voices are dearer; so neither half of the search can raise the price."""
    heard = random_heard(2, 6, past)
    path = torch.tensor([[0, 1, 1, 0, 0, 1]])
    voices = heard.voices(path)

    def price(voices):
        fit = heard.costs(voices).gather(2, path[..., None]).sum()
        prior = ((1 / heard.spread + heard.past.weight[:, None]) * voices.square() / 2).sum()
        return float(fit + prior - (heard.past.total * voices).sum())

    moved = 3 + (past and 1)  # order 0 after a past that ended in order 1
    assert float(heard.price(path, 0.7)) == pytest.approx(price(voices) + 0.7 * moved)
    for seed in range(20):
        other = voices + 0.1 * torch.randn(voices.shape, generator=generator(seed)).double()
        assert price(other) > price(voices)


def test_the_search_finds_the_cheapest_of_all_paths():
    for seed in range(6):
        heard = random_heard(2, 8, seed=seed)
        draw = generator(0)
        starts = torch.stack([heard.far_apart(draw) for _ in range(40)])
        found = heard.price(explain(heard, starts), 1.0).min()
        every = torch.tensor(list(itertools.product(range(2), repeat=8)))
        assert float(found) == pytest.approx(float(heard.price(every, 1.0).min()), abs=1e-6)


def test_known_voices_give_their_names_to_starts():
    heard = random_heard(3, 12, past=True)
    known = torch.tensor([[9.0, 0, 0, 0], [0, 9.0, 0, 0], [0, 0, 9.0, 0]]).double()
    heard.past = Past(100 * known, torch.full((3,), 100.0).double(), 0)
    heard.x = known[[2, 0, 1]][:, None].expand(3, 12, 4) + 0.01 * heard.x
    for seed in range(5):
        start = heard.far_apart(generator(seed))
        assert torch.cdist(start, known).argmin(1).tolist() == [0, 1, 2]


# Exchanging


@pytest.mark.parametrize("rate", [8000, 16000, 44100])
def test_exchange_cuts_at_the_quietest_place(rate):
    time, quiet = 6 * rate, round(2.90 * rate)
    est = torch.randn(2, 1, time, generator=generator(0))
    est[..., quiet : quiet + round(0.06 * rate)] = 0
    path = torch.zeros(21, dtype=torch.long)
    path[10:] = 1  # between moments 9 and 10: 2.875 s, give or take an eighth of a second
    done = exchange(est, torch.tensor([[0, 1], [1, 0]])[path], rate)
    kept = (done == est).all(0)[0]
    assert kept[:quiet].all() and not kept[quiet + round(0.06 * rate) :].any()


def test_exchange_only_deals_out():
    est = torch.randn(3, 2, 30000, generator=generator(1))
    orders = torch.tensor(list(itertools.permutations(range(3))))
    path = torch.randint(6, (12,), generator=generator(2))
    done = exchange(est, orders[path], 8000)
    assert torch.equal(done.sort(0).values, est.sort(0).values)
    first = [done[v, 0, 0].item() for v in orders[path[0]]]  # output k went to row order[k]
    assert first == est[:, 0, 0].tolist()


# The tracker


@pytest.mark.parametrize("who", [(0, 4), (1, 6), (4, 6), (1, 3, 6), (0, 2, 5, 7)])
def test_voices_that_changed_places_come_back(tracker, readers, who):
    src = in_turns([readers[i] for i in who], 60)
    n = len(who)
    est = swapped(src, {17.5: [*range(1, n), 0], 33: list(range(n)), 46: [1, 0, *range(2, n)]})
    assert in_place(est, src) < 0.7
    done = tracker(est)
    assert in_place(done, src) > 0.9
    assert torch.equal(done[..., :8000], est[..., :8000])  # voice k begins on output k


@pytest.mark.parametrize("who", [(0, 4), (1, 2, 6)])
def test_what_is_in_order_stays(tracker, readers, who):
    src = in_turns([readers[i] for i in who], 45)
    assert torch.equal(tracker(src), src)


def test_the_same_twice(tracker, readers):
    est = swapped(in_turns(readers[2:4], 40), {20: [1, 0]})
    assert torch.equal(tracker(est), tracker(est))
    state = torch.get_rng_state()
    tracker(est)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("db", [-60, -40, 20])
def test_level_only_scales(tracker, readers, db):
    est, factor = swapped(in_turns(readers[:2], 40), {20: [1, 0]}), 10 ** (db / 20)
    assert torch.allclose(tracker(factor * est) / factor, tracker(est), atol=1e-6)


@pytest.mark.parametrize("rate", [11025, 16000, 44100])
def test_any_rate(tracker, readers, rate):
    src = resample(in_turns([readers[0], readers[5]], 40), 8000, rate)
    at = 20 * rate
    est = torch.cat([src[..., :at], src.flip(0)[..., at:]], -1)
    assert in_place(tracker(est, rate), src) > 0.97


def test_channels_go_together(tracker, readers):
    src = in_turns([readers[0], readers[5]], 40)
    src = torch.cat([src, 0.5 * src], 1)
    est = torch.cat([src[..., :160000], src.flip(0)[..., 160000:]], -1)
    assert in_place(tracker(est), src) > 0.97


@pytest.mark.parametrize("n", [1, 2, 4])
@pytest.mark.parametrize("frames", [1, 300, 7999, 8000, 8001, 30000])
def test_any_length_and_silence(tracker, n, frames):
    est = 0.1 * torch.randn(n, 1, frames, generator=generator(0))
    if n <= frames:
        assert tracker(est).shape == est.shape
    est[:] = 0
    assert torch.equal(tracker(est), est)


def test_one_output_and_one_silent_output_stay(tracker, readers):
    long = torch.cat([readers[3]] * 6, -1)
    assert torch.equal(tracker(long[None]), long[None])
    pair = torch.stack([torch.zeros_like(long), long])
    assert torch.equal(tracker(pair), pair)


def test_kinds_of_numbers(tracker, readers):
    est = swapped(in_turns(readers[:2], 30), {15: [1, 0]})
    for kind in (torch.float64, torch.bfloat16):
        done = tracker(est.to(kind))
        assert done.dtype == kind and in_place(done, in_turns(readers[:2], 30).to(kind)) > 0.95
    assert in_place(tracker(est.numpy()), in_turns(readers[:2], 30)) > 0.95
    gradient = est.clone().requires_grad_()
    tracker(gradient).sum().backward()
    assert torch.equal(gradient.grad, torch.ones_like(est))


def pieces(tracker, est, seconds: float, ahead: float, rate: int = 8000) -> torch.Tensor:
    given, past, at = [], None, 0
    size, later = round(seconds * rate), round(ahead * rate)
    while at < est.shape[-1]:
        piece = est[..., at : at + size + later]
        upto = size if at + size + later < est.shape[-1] else piece.shape[-1]
        done, past = tracker.follow(piece, rate, past, upto)
        assert done.shape == piece.shape
        given.append(done[..., :upto])
        at += upto
    return torch.cat(given, -1)


@pytest.mark.parametrize("who", [(0, 4), (1, 3, 6)])
@pytest.mark.parametrize("seconds, ahead", [(20, 20), (30, 10), (15.3, 20)])
def test_pieces_as_the_whole(tracker, readers, who, seconds, ahead):
    src = in_turns([readers[i] for i in who], 90)
    n = len(who)
    est = swapped(src, {14: [*range(1, n), 0], 52: list(range(n)), 66: [1, 0, *range(2, n)]})
    whole, done = tracker(est), pieces(tracker, est, seconds, ahead)
    assert in_place(whole, src) > 0.95
    assert float((whole == done).all(0).float().mean()) > 0.95


def test_one_piece_is_the_plain_call(tracker, readers):
    est = swapped(in_turns(readers[3:5], 40), {20: [1, 0]})
    assert torch.equal(tracker.follow(est, 8000)[0], tracker(est))
    assert torch.equal(tracker.follow(est, 8000, None, 80000)[0], tracker(est))


def test_past_is_the_sums_up_to_a_sample(tracker, readers):
    est = in_turns([readers[0], readers[4]], 40)
    x, weight = tracker.embed(est)
    for upto in (0, 1, 2000, 2001, 160000, est.shape[-1]):
        past = tracker.follow(est, 8000, None, upto)[1]
        gone = min(-(-upto // QUARTER), x.shape[1])
        assert torch.allclose(past.weight, weight[:, :gone].sum(1))
        want = (weight[..., None] * x)[:, :gone].sum(1)
        assert torch.allclose(past.total, want) and past.order == 0
    more = tracker.follow(est, 8000, past)[1]
    assert torch.allclose(more.weight, 2 * past.weight)


def test_past_ends_in_the_order_at_a_sample(tracker, readers):
    est = swapped(in_turns([readers[0], readers[4]], 40), {20: [1, 0]})
    orders = {at: tracker.follow(est, 8000, None, at * 8000)[1].order for at in (5, 15, 25, 40)}
    assert orders == {5: 0, 15: 0, 25: 1, 40: 1}


def test_what_is_known_decides_where_a_piece_alone_could_not(tracker, readers):
    """A piece in which the voices lie the other way round from its first sample on."""
    src = in_turns([readers[0], readers[4]], 80)
    past = tracker.follow(src[..., :320000], 8000)[1]
    later = src[..., 320000:]
    assert torch.equal(tracker(later.flip(0)), later.flip(0))
    done, after = tracker.follow(later.flip(0), 8000, past)
    assert in_place(done, later) > 0.97 and torch.equal(done[..., 8000:], later[..., 8000:])
    assert after.order == 1
    again, _ = tracker.follow(later.flip(0), 8000, after)
    assert torch.equal(again, later)  # goes on in the last order


def test_silence_goes_on_in_the_last_order(tracker, readers):
    src = in_turns([readers[0], readers[4]], 40)
    past = tracker.follow(src, 8000)[1]._replace(order=1)
    still, after = tracker.follow(torch.zeros(2, 1, 40000), 8000, past)
    assert after.order == 1 and torch.equal(after.total, past.total) and not still.any()
    short = torch.stack([readers[0][:, :100], readers[4][:, :100]])
    assert torch.equal(tracker.follow(short, 8000, past)[0], short.flip(0))


def test_a_margin_keeps_the_separators_order(readers):
    est = swapped(in_turns(readers[:2], 40), {20: [1, 0]})
    heard = Heard(*VoiceTracker().embed(est), VoiceTracker().statistics.spread)
    path, saved = VoiceTracker().search(heard)
    assert saved > 30 and path.unique().numel() == 2
    stay = torch.zeros_like(path)
    prices = heard.price(torch.stack([stay, path]), 1.0)
    assert saved == pytest.approx(float(prices[0] - prices[1]))
    assert torch.equal(VoiceTracker(margin=saved + 1)(est), est)
    assert not torch.equal(VoiceTracker(margin=saved - 1)(est), est)


def test_an_output_that_is_hardly_heard_needs_ten_times_the_evidence():
    tracker = VoiceTracker()
    for share, rate in ((0.10, 3.0), (0.149, 3.0), (0.151, 0.3), (0.5, 0.3)):
        weight = torch.tensor([[share], [1 - share]], dtype=torch.float64).expand(2, 400)
        heard = Heard(torch.zeros(2, 400, 40).double(), weight, tracker.statistics.spread)
        assert tracker.needed(heard) == pytest.approx(rate * 400)
    few = Heard(torch.zeros(2, 4, 40).double(), torch.full((2, 4), 0.5).double(), heard.spread)
    assert tracker.needed(few) == 30
    known = Past(torch.zeros(2, 40).double(), torch.tensor([400.0, 0.0]).double(), 0)
    weight = torch.tensor([[0.1], [0.9]], dtype=torch.float64).expand(2, 400)
    after = Heard(heard.x, weight, heard.spread, known)
    assert tracker.needed(after) == pytest.approx(0.3 * 400)  # both were heard before or now


def test_people_alone_are_not_split(tracker, readers):
    for wav in readers:
        lone = torch.stack([torch.cat([wav, wav], -1), torch.zeros(1, 96000)])
        assert torch.equal(tracker(lone), lone)


# Statistics


def test_shipped_statistics(tracker):
    path = DATA / "tracker.safetensors"
    assert path.stat().st_size < 10_000
    centre, directions, spread = tracker.statistics
    assert centre.shape == (46,) and directions.shape == (46, 40) and spread.shape == (40,)
    assert (spread > 0).all() and (spread[:-1] >= spread[1:]).all()
    assert {part.dtype for part in tracker.statistics} == {torch.float64}
    header = path.read_bytes()[:2000].decode("latin-1")
    for word in ("CC BY 4.0", "LibriSpeech", "benchmarks/train_tracker.py"):
        assert word in header
    assert "tracker.safetensors" in (DATA / "README.md").read_text()


def test_meta_and_no_module(tmp_path):
    with torch.device("meta"):
        tracker = VoiceTracker()
    assert all(part.device.type == "cpu" for part in tracker.statistics)
    assert not isinstance(tracker, torch.nn.Module)


def test_fit_save_and_read(tmp_path, readers):
    rows, who = [], []
    for i, wav in enumerate(readers):
        cepstrum, level = cepstra(wav[None])
        x, share = moments(cepstrum, clear_frames(level))
        rows.append(x[0][share[0] > 0.35])
        who += [i] * len(rows[-1])
    fitted = VoiceTracker.fit(torch.cat(rows), torch.tensor(who), margin=10)
    assert fitted.margin == 10 and fitted.statistics.directions.shape == (46, 40)
    path = tmp_path / "mine.safetensors"
    fitted.save(path, licence="CC0", data="eight readers")
    before = path.read_bytes()
    fitted.save(path, licence="CC0", data="eight readers")
    assert path.read_bytes() == before
    for a, b in zip(read_statistics(path), fitted.statistics):
        assert torch.allclose(a, b, rtol=1e-6)
    again = VoiceTracker(read_statistics(path))
    est = swapped(in_turns([readers[0], readers[4]], 30), {15: [1, 0]})
    assert in_place(again(est), in_turns([readers[0], readers[4]], 30)) > 0.95


@pytest.mark.parametrize("name", ["empty.safetensors", "other.safetensors"])
def test_read_refuses_other_files(tmp_path, name):
    from safetensors.numpy import save_file

    path = tmp_path / name
    if name.startswith("other"):
        save_file({"weight": np.zeros(3, np.float32)}, path)
    else:
        path.write_bytes(b"")
    with pytest.raises(ValueError, match="no statistics of voices"):
        read_statistics(path)


def test_statistics_are_data_of_the_package():
    assert Path(DATA).is_relative_to(ROOT / "sepbook")
    assert isinstance(VoiceTracker().statistics, Statistics)


def test_the_command_that_fits(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    command = pytest.importorskip("train_tracker")
    fitted, facts = command.fit(Corpus(DATA / "readers", sample_rate=8000))
    assert facts["readers"] == 8 and 60 < facts["moments"] < 120
    fitted.save(tmp_path / "mine.safetensors", **command.CARD)
    assert len(command.listed("speech_validation.txt")) == 21
    row = {"before": 1.0, "after": 3.0, "oracle": 4.0, "before: swaps": 5, "after: swaps": 1}
    row |= {"windows": 10, "seconds": 0.1}
    told = command.summary([row, row | {"after": 0.5}])
    assert told["after"] == 1.75 and told["before: swaps"] == 0.5 and told["largest loss"] == 0.5


# What is refused


@pytest.mark.parametrize(
    "est, rate, told",
    [
        (torch.zeros(5, 1, 8000), 8000, "at most 4 sources"),
        (torch.zeros(1, 2, 1, 8000), 8000, "source, channel, time"),
        (torch.zeros(2, 8000), 8000, "source, channel, time"),
        (torch.full((2, 1, 8000), torch.nan), 8000, "NaN"),
        (torch.zeros(2, 1, 4000), 4000, "at least 8000"),
    ],
)
def test_one_line_on_what_is_refused(tracker, est, rate, told):
    with pytest.raises(ValueError, match=told) as error:
        tracker(est, rate)
    assert "\n" not in str(error.value)


def test_settings_and_samples_are_checked(tracker):
    with pytest.raises(TypeError):
        tracker(torch.zeros(2, 1, 8000, dtype=torch.int16))
    for setting in ({"change": -1}, {"starts": 1.5}, {"margin": -0.1}):
        with pytest.raises(ValueError):
            VoiceTracker(**setting)
    for upto in (-1, 8001, 0.5):
        with pytest.raises(ValueError, match="upto"):
            tracker.follow(torch.zeros(2, 1, 8000), 8000, None, upto)


def test_three_minutes_cost_little(tracker, readers):
    est = swapped(in_turns([readers[0], readers[4]], 180), {50: [1, 0], 110: [0, 1]})
    spent = []
    for _ in range(2):
        began = time.process_time()
        tracker(est)
        spent.append(time.process_time() - began)
    assert min(spent) < 2.5  # 0.2 s on a core that has nothing else to do


def test_changes_may_be_free():
    est = torch.randn(2, 1, 80000, generator=torch.Generator().manual_seed(5))
    est[0, :, 40000:] *= 0.01
    est[1, :, :40000] *= 0.01
    assert VoiceTracker(change=0)(est).shape == est.shape
