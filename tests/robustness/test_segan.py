"""SEGAN: published sizes, emphasis undone, any length, virtual norms, who learns in which step."""

import json
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from sepbook.learner import Learner, seed_all
from sepbook.models.segan import (
    SEGAN,
    Adversary,
    Discriminator,
    VirtualBatchNorm,
    de_emphasis,
    pre_emphasis,
)

WIDTHS = (4, 8, 8)


def noise(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def small(**how):
    torch.manual_seed(0)
    return SEGAN(widths=WIDTHS, **how)


def test_published_sizes():
    with torch.device("meta"):
        G, D = SEGAN(), Discriminator()
        shape = G.generate(torch.zeros(2, 1, 16384)).shape
        judged = D(*(torch.zeros(2, 1, 16384) for _ in range(2)), torch.zeros(3, 2, 16384)).shape
    convs = [*G.down, *G.up]
    assert sum(c.weight.numel() for c in convs) == 73_092_048
    assert sum(c.bias.numel() for c in convs) == 4_001
    assert sum(c.weight.numel() for c in D.down) == 24_364_512
    assert G.samples == 16_384 and shape == (2, 1, 16384) and judged == (2,)
    assert G.down[-1].out_channels == 1024 and G.up[0].in_channels == 2048


@pytest.mark.parametrize("length", [1, 2, 511, 5000])
@pytest.mark.parametrize("factor", [0.0, 0.5, 0.95, 0.999, -0.7])
def test_de_emphasis_is_the_recursion(factor, length):
    wav = noise(2, length, dtype=torch.float64)
    want = wav.clone()
    for n in range(1, length):
        want[:, n] += factor * want[:, n - 1]
    torch.testing.assert_close(de_emphasis(wav, factor), want, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(de_emphasis(pre_emphasis(wav, factor), factor), wav)


@pytest.mark.parametrize("length", [1, 63, 64, 65, 1000])
def test_any_length_adds_up(length):
    net, mix = small().eval(), 0.1 * noise(2, 1, length)
    with torch.no_grad():
        est = net(mix)
        assert torch.equal(est, net(mix))
    assert est.shape == (2, 2, 1, length)
    torch.testing.assert_close(est.sum(1), mix)


def test_segments_do_not_see_each_other():
    net, mix = small(emphasis=0.0).eval(), 0.1 * noise(1, 1, 256)
    other = mix.clone()
    other[..., 64:128] = 0
    with torch.no_grad():
        change = (net(mix) - net(other))[0, 0, 0].abs()
    assert change[:64].max() == change[128:].max() == 0 < change[64:128].max()


def test_chance_is_new_in_training_only():
    net, wav = small(), 0.1 * noise(1, 1, 64)
    assert not torch.equal(net.train().generate(wav), net.generate(wav))
    assert torch.equal(net.eval().generate(wav), net.generate(wav))
    z = noise(1, 8, 8, seed=1)
    assert not torch.equal(net.generate(wav, z), net.generate(wav, 2 * z))


def test_virtual_norm_is_that_of_everyone():
    norm, x, reference = VirtualBatchNorm(3), noise(2, 3, 20) + 1, 3 * noise(4, 3, 20, seed=1)
    got, ref = norm(x, reference)
    for item, one in zip(x, got):
        everyone = torch.cat([reference, item[None]])
        mean, var = everyone.mean((0, 2)), everyone.var((0, 2), unbiased=False)
        want = (item - mean[:, None]) / (var[:, None] + 1e-5).sqrt()
        want = want * norm.weight[:, None] + norm.bias[:, None]
        torch.testing.assert_close(one, want, rtol=1e-4, atol=1e-5)
    want = F.batch_norm(reference, None, None, norm.weight, norm.bias, training=True)
    torch.testing.assert_close(ref, want, rtol=1e-4, atol=1e-5)
    assert torch.equal(norm(x[:1], reference)[0], got[:1])  # no item depends on another


def judge():
    torch.manual_seed(1)
    return Discriminator(widths=WIDTHS)


def items(n=8, seed=0):
    """Noisy and clean segments, as a data set gives them."""
    clean = 0.3 * torch.sin(torch.arange(64) * 0.3).expand(n, 1, 64)
    rest = 0.1 * noise(n, 1, 64, seed=seed)
    return list(zip(clean + rest, torch.stack([clean, rest], 1)))


def game(weight=100.0, lr=1e-3):
    """A generator, and its adversary."""
    G, D = small(), judge()
    pairs = items(3, seed=5)
    parts = (torch.stack([x[0] for x in pairs]), torch.stack([x[1][0] for x in pairs]))
    reference = torch.cat([G.segments(parts[1]), G.segments(parts[0])], 1)
    return G, Adversary(D, torch.optim.RMSprop(D.parameters(), lr), reference, weight)


def play(G, adversary, **how):
    """A Learner for both."""
    options = dict(
        batch_size=4, lr=1e-3, optimizer="rmsprop", clip=None, log_every=1, shuffle=False
    )
    options |= {"loss": adversary.loss, "callbacks": [adversary]} | how
    return Learner(G, items(), **options)


def by_hand(G, adversary, rounds, weight=100.0):
    """The three steps of the paper, one after the other; the losses of each round."""
    D, reference, told = adversary.D, adversary.reference, []
    both = torch.optim.RMSprop(G.parameters(), 1e-3), torch.optim.RMSprop(D.parameters(), 1e-3)
    pairs = items()
    for k in range(rounds):
        batch = pairs[4 * (k % 2) : 4 * (k % 2) + 4]
        noisy = G.segments(torch.stack([x for x, _ in batch]))
        clean = G.segments(torch.stack([src[0] for _, src in batch]))
        seed_all(0, 3, k, 0)
        enhanced = G.generate(noisy)
        both[1].zero_grad()
        real = (D(clean, noisy, reference) - 1).square().mean() / 2
        fake = D(enhanced.detach(), noisy, reference).square().mean() / 2
        real.backward(), fake.backward(), both[1].step()
        both[0].zero_grad()
        fooled = (D(enhanced, noisy, reference) - 1).square().mean() / 2
        distance = (enhanced - clean).abs().mean()
        (fooled + weight * distance).backward()
        both[0].step()
        told.append([x.item() for x in (real, fake, fooled, distance)])
    return torch.tensor(told)


@pytest.mark.parametrize("weight", [100.0, 0.0])
def test_the_learner_makes_the_three_steps(weight):
    """Every weight of both networks, and every figure of the log."""
    (G, adversary), (G2, other) = game(weight), game(weight)
    log = play(G, adversary).fit(steps=5, progress=False)
    want = by_hand(G2.train(), other, 5, weight)
    got = torch.tensor(log[["real", "fake", "adversary", "distance"]].values, dtype=torch.float32)
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-6)
    for a, b in ((G, G2), (adversary.D, other.D)):
        for p, q in zip(a.parameters(), b.parameters(), strict=True):
            torch.testing.assert_close(p, q, rtol=1e-3, atol=1e-5)
    assert all(p.requires_grad for p in adversary.D.parameters())


def test_the_judge_stands_still_in_step_three():
    G, adversary = game()
    mix, src = (torch.stack(x) for x in zip(*items()))
    adversary.loss(G.train(), mix, src).backward()
    assert all(p.grad is None for p in adversary.D.parameters())
    assert all(p.grad is not None for p in G.parameters())


def test_several_batches_of_a_step_are_one():
    """Accumulated, the discriminator's gradient is the mean, like the generator's."""
    (G, adversary), (G2, other) = game(), game()
    for one in (G, G2):
        one.draw = lambda like: torch.zeros_like(like)
    play(G, adversary, batch_size=4, accumulate=2).fit(steps=2, progress=False)
    play(G2, other, batch_size=8).fit(steps=2, progress=False)
    for a, b in ((G, G2), (adversary.D, other.D)):
        for p, q in zip(a.parameters(), b.parameters(), strict=True):
            torch.testing.assert_close(p, q, rtol=1e-3, atol=1e-5)


def test_it_resumes_to_the_bit(tmp_path):
    G, adversary = game()
    whole = play(G, adversary, folder=tmp_path / "a").fit(steps=6, progress=False)
    G1, first = game()
    play(G1, first, folder=tmp_path / "b").fit(steps=3, progress=False)
    G2, second = game()
    second.reference = second.reference + 1  # that of the checkpoint counts
    again = play(G2, second, folder=tmp_path / "b").fit(steps=6, progress=False)
    for a, b in ((G, G2), (adversary.D, second.D)):
        assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))
    drop = ["seconds"]
    assert whole.drop(columns=drop).equals(again.drop(columns=drop))
    lines = (tmp_path / "b" / "log.jsonl").read_text().splitlines()
    assert {"real", "fake", "adversary", "distance"} <= set(json.loads(lines[-1]))


def test_validation_does_not_ask_the_judge():
    G, adversary = game()
    learner = play(G, adversary, valid=items(2, seed=3))
    learner.fit(steps=2, progress=False)
    mix, src = (torch.stack(x) for x in zip(*items(2, seed=3)))
    with torch.no_grad():
        assert learner.where.best == pytest.approx(G.eval().loss(mix, src).item(), rel=1e-5)


def test_a_few_rounds_bring_the_output_nearer():
    G, adversary = game()
    log = play(G, adversary, batch_size=8).fit(steps=60, progress=False)
    assert log.distance.iloc[-1] < 0.5 * log.distance.iloc[0]


def test_several_processes_are_refused():
    _, adversary = game()
    crowd = SimpleNamespace(accelerator=SimpleNamespace(num_processes=2))
    with pytest.raises(ValueError, match="one process"):
        adversary.setup(crowd)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"sources": ["speech"]}, "1 sources"),
        ({"kernel": 30}, "odd"),
        ({"emphasis": 1.0}, "emphasis"),
        ({"bottom": 0}, "bottom"),
        ({"widths": ()}, "widths is empty"),
        ({"widths": (0, 4)}, "widths is 0"),
        ({"widths": (4, 2.5)}, "whole"),
    ],
)
def test_bad_settings_are_refused_in_one_line(how, words):
    with pytest.raises(ValueError, match=words) as error:
        SEGAN(**how)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("factor", [1.0, -1.0, 1.5])
def test_a_sum_that_does_not_converge_is_refused(factor):
    with pytest.raises(ValueError, match="factor"):
        de_emphasis(noise(1, 100), factor)
