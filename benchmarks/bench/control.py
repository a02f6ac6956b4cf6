"""Torchaudio's Conv-TasNet as a network of ours, for `sepbook train` and the learner."""

from torch import Tensor

from sepbook.learner import Network
from sepbook.models.tasnet import OBJECTIVES, to_level
from sepbook.pit import pit_loss


class TorchaudioConvTasNet(Network):
    """Torchaudio's class, with the arguments of our `ConvTasNet` that it has, too."""

    def __init__(
        self,
        n_src: int = 2,  # voices
        n_filters: int = 512,
        kernel: int = 16,  # samples in a frame
        taps: int = 3,  # of a depthwise filter
        bottleneck: int = 128,  # channels, of the skips as well
        hidden: int = 512,
        blocks: int = 8,
        repeats: int = 3,
        mask: str = "sigmoid",  # or "relu"
        objective: str = "si_sdr",
        rescale: bool = False,  # bring estimates to the level that the mixture asks for
        sample_rate: int = 8000,  # Hz
    ):
        from torchaudio.models import ConvTasNet

        super().__init__()
        self.sources = tuple(f"s{k + 1}" for k in range(n_src))
        self.sample_rate, self.channels = sample_rate, 1
        self.objective, self.rescale = objective, rescale
        self.net = ConvTasNet(
            num_sources=n_src,
            enc_kernel_size=kernel,
            enc_num_feats=n_filters,
            msk_kernel_size=taps,
            msk_num_feats=bottleneck,
            msk_num_hidden_feats=hidden,
            msk_num_layers=blocks,
            msk_num_stacks=repeats,
            msk_activate=mask,
        )

    def forward(self, mix: Tensor) -> Tensor:
        """Estimates (batch, source, 1, time) of the voices in `mix` (batch, 1, time)."""
        est = self.net(self.check(mix))
        return (to_level(est, mix) if self.rescale else est)[:, :, None]

    def loss(self, mix: Tensor, src: Tensor) -> Tensor:
        """As our ConvTasNet's."""
        return pit_loss(OBJECTIVES[self.objective], self(mix), src)[0]
