"""SepFormer with speechbrain's weights: the same outputs, from state dicts and from its files."""

import pytest
import torch
import torch.nn.functional as F
from nets import peer, same_outputs, shaken, signals
from torch import nn

from sepbook.engine import weights
from sepbook.engine.names import PUBLISHED
from sepbook.engine.weights import translate, translators
from sepbook.models.sepformer import SepFormer, positions
from sepbook.zoo import import_weights, load, read_weights

SMALL = {
    "n_filters": 32,
    "kernel": 16,
    "chunk": 20,
    "blocks": 2,
    "layers": 2,
    "heads": 4,
    "hidden": 48,
}


class Theirs(nn.Module):
    """speechbrain's three parts, put together as its recipe and its interface do."""

    def __init__(self, n_src=2, n_filters=256, kernel=16, chunk=250, blocks=2, **size):
        super().__init__()
        parts = peer("speechbrain.lobes.models.dual_path")
        size = {"layers": 8, "heads": 8, "hidden": 1024} | size
        stacks = [
            parts.SBTransformerBlock(
                size["layers"],
                n_filters,
                size["heads"],
                size["hidden"],
                dropout=0.0,
                use_positional_encoding=True,
                norm_before=True,
            )
            for _ in range(2)
        ]
        self.encoder = parts.Encoder(kernel, n_filters)
        self.masknet = parts.Dual_Path_Model(
            n_filters,
            n_filters,
            *stacks,
            num_layers=blocks,
            norm="ln",
            K=chunk,
            num_spks=n_src,
            linear_layer_after_inter_intra=False,
        )
        self.decoder = parts.Decoder(
            in_channels=n_filters,
            out_channels=1,
            kernel_size=kernel,
            stride=kernel // 2,
            bias=False,
        )

    def forward(self, mix):
        """Estimates (batch, source, time) for mix (batch, 1, time), cut or filled to its length."""
        spec = self.encoder(mix[:, 0])
        waves = [self.decoder(spec * mask).view(len(mix), -1) for mask in self.masknet(spec)]
        est = torch.stack(waves, 1)
        return F.pad(est, (0, mix.shape[-1] - est.shape[-1]))


@pytest.mark.parametrize("n_src", [1, 2, 3])
def test_outputs(n_src):
    theirs = shaken(Theirs(n_src, **SMALL))
    ours = SepFormer(n_src, **SMALL, pad=False).eval()
    import_weights(ours, theirs.state_dict(), "speechbrain")
    same_outputs(ours, theirs)


def test_gradients():
    """In double precision, where nothing hides behind rounding; our names for both."""
    theirs = shaken(Theirs(**SMALL)).double()
    ours = SepFormer(**SMALL, pad=False).double()
    import_weights(ours, theirs.state_dict(), "speechbrain")
    mix = signals()["voices"][..., :3001].double()
    draw = torch.Generator().manual_seed(2)
    weight = torch.randn(3, 2, 3001, generator=draw, dtype=torch.float64)
    (ours(mix)[:, :, 0] * weight).sum().backward()
    (theirs(mix) * weight).sum().backward()
    grads = {name: p.grad for name, p in theirs.named_parameters()}
    want = translate(ours, grads, "speechbrain")
    for name, p in ours.named_parameters():
        error = (p.grad - want[name]).abs().max() / want[name].abs().max().clamp(min=1e-9)
        assert error < 1e-5, (name, error)


def test_positions_are_those_of_the_stored_table():
    theirs = Theirs(**SMALL).state_dict()["masknet.dual_mdl.0.intra_mdl.pos_enc.pe"][0]
    torch.testing.assert_close(positions(2500, 32), theirs, rtol=0, atol=1e-6)


def test_beyond_the_table():
    """Where the reference ends, ours goes on; up to there they agree."""
    sizes = SMALL | {"chunk": 2, "blocks": 1, "layers": 1}
    theirs = shaken(Theirs(**sizes))
    ours = SepFormer(**sizes, pad=False).eval()
    import_weights(ours, theirs.state_dict(), "speechbrain")
    draw = torch.Generator().manual_seed(3)
    mix = torch.randn(1, 1, 8 * 2490 + 8, generator=draw)  # 2,492 chunks
    with torch.no_grad():
        want, got = theirs(mix), ours(mix)[:, :, 0]
        assert (got - want).abs().max() < 1e-5 * want.abs().max()
        longer = torch.cat([mix, mix], -1)
        with pytest.raises(RuntimeError):
            theirs(longer)
        est = ours(longer)
    assert est.shape == (1, 2, 1, longer.shape[-1]) and est.isfinite().all()
    assert est[..., -4000:].abs().max() > 1e-3


def test_paper_size():
    """All 25.7 million parameters; a short wave, because two cores compute it."""
    theirs = Theirs().eval()
    ours = SepFormer(pad=False).eval()
    assert ours.n_params == sum(p.numel() for p in theirs.parameters()) == 25_679_361
    import_weights(ours, theirs.state_dict(), "speechbrain")
    same_outputs(ours, theirs, "odd")


def as_published(theirs, folder) -> None:
    """The three files of a repository on the Hub: state dicts that torch.save pickled."""
    for part in ("encoder", "masknet", "decoder"):
        torch.save(getattr(theirs, part).state_dict(), folder / f"{part}.ckpt")


def test_the_three_files(tmp_path):
    theirs = shaken(Theirs(**SMALL))
    as_published(theirs, tmp_path)
    state = {
        f"{part}.{name}": t
        for part in ("encoder", "masknet", "decoder")
        for name, t in read_weights(tmp_path / f"{part}.ckpt").items()
    }
    ours = import_weights(SepFormer(**SMALL, pad=False).eval(), state, "speechbrain")
    same_outputs(ours, theirs)


def test_load_from_the_hub(tmp_path, monkeypatch):
    """`load` asks for the three files of the published entry, and joins them."""
    theirs = shaken(Theirs(3, **SMALL))
    as_published(theirs, tmp_path)
    asked = []

    def fetch(repo, revision, names, again=False):
        asked.append((repo, *names))
        return tmp_path / names[0]

    monkeypatch.setattr(weights, "download", fetch)
    name = "hf:speechbrain/sepformer-wsj03mix"
    entry = PUBLISHED["SepFormer"][name]
    small = {name: entry | {"config": entry["config"] | SMALL}}
    monkeypatch.setitem(PUBLISHED, "SepFormer", small)
    network = load(name)
    assert {row[1] for row in asked} == {"encoder.ckpt", "masknet.ckpt", "decoder.ckpt"}
    assert network.card["peer"] == "speechbrain" and network.n_src == 3
    same_outputs(network, theirs)


@pytest.mark.parametrize("how", [{"layers": 3}, {"blocks": 3}, {"hidden": 40}, {"n_src": 3}])
def test_another_size_is_refused(how):
    theirs = Theirs(**SMALL | how)
    ours = SepFormer(**SMALL)
    before = {k: v.clone() for k, v in ours.state_dict().items()}
    with pytest.raises(ValueError) as error:
        import_weights(ours, theirs.state_dict(), "speechbrain")
    assert "\n" not in str(error.value)
    assert all(torch.equal(v, before[k]) for k, v in ours.state_dict().items())


def test_published_checkpoints_name_what_they_need():
    for name, entry in PUBLISHED["SepFormer"].items():
        assert name.startswith("hf:speechbrain/sepformer-")
        assert entry["peer"] in translators(SepFormer) and entry["licence"]
        assert set(entry["files"].values()) == {"encoder.ckpt", "masknet.ckpt", "decoder.ckpt"}
        with torch.device("meta"):
            network = SepFormer(**entry["config"])
        assert network.n_params == 25_679_361 + 65_792 * (network.n_src - 2)
