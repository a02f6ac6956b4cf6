"""SEGAN: published sizes, emphasis undone, any length, virtual norms, who learns in which step."""

import pytest
import torch
import torch.nn.functional as F

from sepbook.models.segan import (
    SEGAN,
    Discriminator,
    VirtualBatchNorm,
    de_emphasis,
    gan_step,
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


def test_each_step_moves_its_own_network():
    G, D, noisy, clean = small(), judge(), 0.1 * noise(3, 1, 64), 0.1 * noise(3, 1, 64, seed=1)
    reference, kept = (
        torch.cat([clean, noisy], 1),
        [[p.clone() for p in n.parameters()] for n in (G, D)],
    )
    rates = [(0.0, 1e-3), (1e-3, 0.0)]
    for which, rate in enumerate(rates):
        sgd = tuple(torch.optim.SGD(n.parameters(), r) for n, r in zip((G, D), rate))
        losses = gan_step(G, D, sgd, noisy, clean, reference)
        assert all(x == x and x >= 0 for x in losses)
        still = [
            all(torch.equal(p, k) for p, k in zip(n.parameters(), ks))
            for n, ks in zip((G, D), kept)
        ]
        assert still == ([True, False] if which == 0 else [False, True])
        kept[1] = [p.clone() for p in D.parameters()]
    assert all(p.requires_grad for p in D.parameters())


def test_losses_are_the_published_ones():
    G, D, noisy, clean = (
        small().eval(),
        judge(),
        0.1 * noise(3, 1, 64),
        0.1 * noise(3, 1, 64, seed=1),
    )
    reference = torch.cat([clean, noisy], 1)
    with torch.no_grad():
        enhanced = G.generate(noisy)
        real, fake = (D(x, noisy, reference) for x in (clean, enhanced))
    still = tuple(torch.optim.SGD(n.parameters(), 0.0) for n in (G, D))
    got = gan_step(G, D, still, noisy, clean, reference)
    want = [(real - 1).square().mean() / 2, fake.square().mean() / 2]
    want += [(fake - 1).square().mean() / 2, (enhanced - clean).abs().mean()]
    torch.testing.assert_close(torch.tensor(got), torch.stack(want))


def test_the_generators_gradient_is_that_of_its_loss():
    """The discriminator's two backward passes leave nothing in it, and the weight counts."""
    G, D, noisy, clean = (
        small().eval(),
        judge(),
        0.1 * noise(3, 1, 64),
        0.1 * noise(3, 1, 64, seed=1),
    )
    reference = torch.cat([clean, noisy], 1)
    still = tuple(torch.optim.SGD(n.parameters(), 0.0) for n in (G, D))
    gan_step(G, D, still, noisy, clean, reference, weight=7.0)
    got = G.down[0].weight.grad.clone()
    G.zero_grad()
    enhanced = G.generate(noisy)
    loss = (D(enhanced, noisy, reference) - 1).square().mean() / 2
    (loss + 7 * (enhanced - clean).abs().mean()).backward()
    torch.testing.assert_close(got, G.down[0].weight.grad)


def test_a_few_rounds_bring_the_output_nearer():
    G, D = small(), judge()
    clean = 0.3 * torch.sin(torch.arange(64) * 0.3).expand(8, 1, 64)
    noisy = clean + 0.1 * noise(8, 1, 64)
    reference = torch.cat([clean, noisy], 1)
    optimizers = tuple(torch.optim.RMSprop(n.parameters(), 1e-3) for n in (G, D))
    losses = [gan_step(G, D, optimizers, noisy, clean, reference) for _ in range(60)]
    assert losses[-1].distance < 0.5 * losses[0].distance


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
