"""BSRNN: its counts, a plain loop over the bands, lengths, levels, memory, data that sounds."""

import pytest
import torch
import torch.nn.functional as F

from sepbook.mixtures import MixtureDataset
from sepbook.models.bsrnn import (
    BANDS,
    BSRNN,
    EPS,
    SIZES,
    ActiveCorpus,
    Mute,
    StemList,
    band_runs,
    pseudo_stems,
    salient,
)

SMALL = {"sources": ("a", "b"), "sample_rate": 8000, "n_fft": 256, "hop": 64, "features": 6}
SMALL |= {"hidden": 5, "blocks": 2, "mask_hidden": 7}


def small(**how) -> BSRNN:
    torch.manual_seed(0)
    return BSRNN(**SMALL | how).eval()


def noise(*shape: int, seed: int = 0, dtype=torch.float32) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def run(network, mix) -> torch.Tensor:
    with torch.no_grad():
        return network(mix)


def test_parameter_counts():
    with torch.device("meta"):
        assert BSRNN(sources=("vocals",)).n_params == 28_018_064
        assert BSRNN().n_params == 4 * 28_018_064
        assert BSRNN(**SIZES["speech"]).n_params == 27_166_860
        assert BSRNN(**SIZES["small"]).n_params < 4_000_000


@pytest.mark.parametrize("name", BANDS)
@pytest.mark.parametrize("n_fft, rate", [(2048, 44100), (960, 48000), (512, 16000), (31, 8000)])
def test_bands_cover_every_bin_once(name, n_fft, rate):
    runs = band_runs(name, n_fft, rate)
    assert sum(number * bins for number, bins in runs) == n_fft // 2 + 1
    assert all(number > 0 and bins > 0 for number, bins in runs)


def test_the_papers_bands():
    assert band_runs("music", 2048, 44100) == [
        (10, 5),
        (12, 12),
        (8, 23),
        (8, 46),
        (2, 93),
        (1, 93),
    ]


def plain(net: BSRNN, mix: torch.Tensor, stem: int) -> torch.Tensor:
    """One stem, band by band and sequence by sequence, from the paper's text."""
    spec = net.spectrum(mix)
    trunk, head = net.trunks[stem % len(net.trunks)], net.heads[stem]
    bins = [
        (layer, k, w)
        for (n, w), layer in zip(trunk.split.runs, trunk.split.layers)
        for k in range(n)
    ]
    grid, first = [], 0
    for j, (layer, k, w) in enumerate(bins):
        x = torch.view_as_real(spec[:, :, first : first + w]).permute(0, 3, 1, 2, 4).flatten(2)
        y = F.layer_norm(x, x.shape[-1:], layer.gain[k, :, 0], layer.offset[k, 0], EPS)
        y = y @ layer.weight[k] + layer.bias[k]
        if trunk.split.level is not None:
            y = y + (x.square().mean(-1, keepdim=True) + 1e-8).log10() * trunk.split.level[j]
        grid, first = [*grid, y], first + w
    x = torch.stack(grid, 1)  # (batch, band, frame, feature)
    for time, band in zip(trunk.time, trunk.band):
        for reader, axis in ((time, 1), (band, 2)):
            rows = [
                reader.linear(reader.lstm(reader.norm(row)[:, None])[0])[:, 0]
                for row in x.movedim(axis, 0).flatten(0, 1).unbind(0)
            ]
            x = x + torch.stack(rows).unflatten(0, (x.shape[axis], len(x))).movedim(0, axis)
    masks, k = [], 0
    for second, (n, w) in zip(head.second, trunk.split.runs):
        for j in range(n):
            y = F.layer_norm(
                x[:, k], x.shape[-1:], head.first.gain[k, :, 0], head.first.offset[k, 0], EPS
            )
            y = (y @ head.first.weight[k] + head.first.bias[k]).tanh() @ second.weight[
                j
            ] + second.bias[j]
            y = F.glu(y, -1).unflatten(-1, (net.channels, w, 2))
            masks, k = [*masks, torch.view_as_complex(y.contiguous())], k + 1
    mask = torch.cat(masks, -1).permute(0, 2, 3, 1)
    return net.spectrum.inverse(mask * spec, mix.shape[-1])


@pytest.mark.parametrize("how", [{}, {"trunk": "shared"}, {"level": True, "channels": 1}])
def test_equals_a_plain_loop(how):
    net = small(**how).double()
    for p in net.parameters():
        torch.nn.init.normal_(p, std=0.3)
    mix = 0.1 * noise(2, net.channels, 1000, dtype=torch.float64)
    est = run(net, mix)
    for stem in range(2):
        want = plain(net, mix, stem).detach()
        torch.testing.assert_close(est[:, stem], want, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("how", [{}, {"trunk": "shared", "level": True}, {"residual": True}])
@pytest.mark.parametrize("length", [1, 63, 64, 129, 1000])
def test_any_length(length, how):
    est = run(small(**how), noise(3, 2, length))
    assert est.shape == (3, 2, 2, length) and est.isfinite().all()


@pytest.mark.parametrize("more", [{}, {"residual": True}])
def test_consistent_estimates_add_up(more):
    net, mix = small(trunk="shared", consistent=True, **more), 0.1 * noise(2, 2, 1000)
    torch.testing.assert_close(run(net, mix).sum(1), mix, atol=1e-6, rtol=0)
    apart = run(small(trunk="shared", **more), mix)
    assert (apart.sum(1) - mix).abs().max() > 1e-3
    want = apart + (mix - apart.sum(1))[:, None] / 2
    torch.testing.assert_close(run(net, mix), want, atol=1e-6, rtol=0)


def test_snr_objective():
    net, src = small(objective="snr"), noise(2, 2, 2, 1000)
    mix = src.sum(1)
    error = (run(net, mix) - src).square().sum((2, 3))
    want = -10 * (src.square().sum((2, 3)) / error).log10().mean()
    torch.testing.assert_close(net.loss(mix, src).detach(), want, atol=1e-3, rtol=0)
    with pytest.raises(ValueError, match="objective is 'l2', but must be one of l1, snr"):
        small(objective="l2")


def test_silence_gives_silence_and_finite_gradients():
    for how in ({}, {"level": True}):
        net = small(**how)
        assert run(net, torch.zeros(1, 2, 500)).abs().max() == 0
        net.train().loss(torch.zeros(1, 2, 500), torch.zeros(1, 2, 2, 500)).backward()
        assert all(p.grad is None or p.grad.isfinite().all() for p in net.parameters())


def test_level_scales_through_unless_it_is_looked_at():
    net, mix = small(), noise(1, 2, 900)
    torch.testing.assert_close(run(net, 8 * mix), 8 * run(net, mix), rtol=1e-4, atol=1e-5)
    aware = small(level=True)
    torch.nn.init.normal_(aware.trunks[0].split.level)
    assert (run(aware, 8 * mix) - 8 * run(aware, mix)).abs().max() > 1e-3


def test_items_of_a_batch_are_alone():
    net, mix = small(trunk="shared"), noise(4, 2, 500)
    alone = torch.cat([run(net, one[None]) for one in mix])
    torch.testing.assert_close(run(net, mix), alone, rtol=1e-5, atol=1e-6)


def test_split_looks_at_one_frame_only():
    net = small(level=True)
    a = noise(1, 2, 129, 30, dtype=torch.complex64)
    b = a.clone()
    b[..., 10:] = 0
    got, want = (net.trunks[0].split(x).unflatten(1, (1, 30))[:, :, :10] for x in (a, b))
    torch.testing.assert_close(got, want)


def test_recomputing_changes_nothing_but_memory():
    def study(recompute: bool) -> tuple[int, torch.Tensor]:
        net, mix, sizes = small(recompute=recompute, n_fft=512).train(), noise(2, 2, 20000), []
        keep = lambda t: sizes.append(t.numel()) or t
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
            loss = net.loss(mix, mix[:, None].expand(-1, 2, -1, -1) / 2)
        loss.backward()
        return sum(sizes), torch.cat([p.grad.flatten() for p in net.parameters()])

    (all_kept, grads), (kept, again) = study(False), study(True)
    torch.testing.assert_close(again, grads)
    assert kept < 0.7 * all_kept


def test_pieces_of_sequences_change_nothing(monkeypatch):
    net, mix = small(), noise(3, 2, 700)
    want = run(net, mix)
    monkeypatch.setattr("sepbook.models.bsrnn.AT_ONCE", 20)
    torch.testing.assert_close(run(net, mix), want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "how, word",
    [
        ({"trunk": "one"}, "own, shared"),
        ({"bands": "piano"}, "music"),
        ({"bands": []}, "pairs"),
        ({"bands": [(3, -1.0)]}, "pairs"),
        ({"bands": [(3,)]}, "pairs"),
        ({"hidden": 0}, "at least 1"),
        ({"sources": ()}, "at least 1"),
    ],
)
def test_refuses_in_one_line(how, word):
    with pytest.raises(ValueError, match=word) as error:
        small(**how)
    assert "\n" not in str(error.value)


def test_other_bands_come_back_from_a_file(tmp_path):
    from sepbook.zoo import load, save

    net = small(bands=[(4, 250.0), (2, 1000.0)])
    save(net, tmp_path / "net.safetensors", {"data": "noise"})
    mix = noise(1, 2, 400)
    assert torch.equal(run(load(tmp_path / "net.safetensors").eval(), mix), run(net, mix))


def test_salient_pieces():
    wav = 0.1 * noise(1, 10_000)
    wav[:, 4000:8000] = 0
    assert salient(wav, 1000, seconds=2.0) == [(0, 4000), (8000, 10_000)]
    assert salient(0 * wav, 1000, seconds=2.0) == []
    assert salient(wav[:, :500], 1000, seconds=2.0) == [(0, 500)]
    assert salient(0 * wav[:, :500], 1000, seconds=2.0) == []
    assert salient(0.1 * noise(2, 10_037), 1000, seconds=2.0, share=0.1) == [(0, 10_037)]


def test_active_corpus_reads_what_remains():
    ramp = torch.arange(1.0, 10_001)[None] / 10_000
    ramp[:, 4000:8000] = 0
    songs = StemList({"x": torch.stack([ramp, 0 * ramp])}, ("a", "b"), 1000)
    corpus = ActiveCorpus(songs, seconds=2.0, quantile=0.0)
    assert corpus.length(1) == 10_000  # nothing sounds, so all of it stays
    whole = corpus[0]
    assert whole.shape[-1] == corpus.length(0) < 10_000
    for start, frames in ((0, 10), (3990, 30), (4000, 5), (5990, 100), (20_000, 5)):
        assert torch.equal(corpus.read(0, start, frames), whole[:, start : start + frames])
    data = MixtureDataset(corpus, seconds=1.0, size=4, remix=1.0)
    assert data.sources == ("a", "b") and data[0][1].shape == (2, 1, 1000)


def test_active_corpus_takes_songs_too():
    class Songs(StemList):  # as `musdb18` gives them: one item a song, rows for the stems
        def __len__(self):
            return len(self.rows) // 2

        def __getitem__(self, i):
            return sum(self.wavs[2 * i : 2 * i + 2]), torch.stack(self.wavs[2 * i : 2 * i + 2])

    wav = 0.1 * noise(2, 2, 1, 10_000)
    wav[:, 1, :, 4000:8000] = 0
    songs = Songs(dict(zip("xy", wav)), ("a", "b"), 1000)
    corpus = ActiveCorpus(songs, seconds=2.0, share=0.6, quantile=0.0)
    assert len(corpus) == 4 and corpus.stretches == [[(0, 10_000)], [(0, 4000), (8000, 10_000)]] * 2
    assert torch.equal(
        corpus.read(3, 3990, 30), wav[1, 1][:, [*range(3990, 4000), *range(8000, 8020)]]
    )


def test_the_papers_bands_for_bass_and_drums():
    runs = {name: band_runs(name, 2048, 44100) for name in ("bass", "drums")}
    assert sum(n for n, _ in runs["bass"]) == 30 and sum(n for n, _ in runs["drums"]) == 55
    assert runs["bass"][0] == (10, 2) and runs["drums"][0] == (20, 2)  # 50 Hz are two bins


def test_mute_is_as_frequent_as_asked():
    import numpy as np

    rng, wav = np.random.default_rng(0), torch.ones(1, 1, 4)
    silent = sum(float(Mute(0.3)(wav, rng).sum()) == 0 for _ in range(1000))
    assert 250 < silent < 350


def test_pseudo_stems_are_the_teachers_estimates():
    teacher = small(trunk="shared").train()
    mix = noise(2, 900)
    stems = pseudo_stems(teacher, {"song": mix})
    assert teacher.training and [row["stem"] for row in stems.rows] == ["a", "b"]
    torch.testing.assert_close(torch.stack(stems.wavs), run(teacher.eval(), mix[None])[0])


def test_stem_list_counts_its_stems():
    with pytest.raises(ValueError, match="sources"):
        StemList({"x": noise(3, 1, 10)}, ("a", "b"), 8000)
