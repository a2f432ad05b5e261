"""The benchmark's two networks, as a PyTorch user would write them.

A network maps windows (an array `window feature`) to the loss of each window.
`compilable` lists the modules that profit from `torch.compile`.
"""

# pyright: reportMissingImports=false

import itertools

import torch
from torch import nn

HIDDEN, N_LATENT = (128, 128, 128, 128), 8
PRIOR_CONCENTRATION, PRIOR_RATE, KL_WEIGHT = 1.0, 1.0, 0.01
MIN_PARAMETER, MAX_PARAMETER = 1e-3, 1e3


def build(model: str, n_features: int) -> "AutoEncoder | GammaVAE":
    """Return the network of that name: `autoencoder` or `gammavae`."""
    return {"autoencoder": AutoEncoder, "gammavae": GammaVAE}[model](n_features)


class AutoEncoder(nn.Module):
    """The official baseline's network."""

    def __init__(self, n_features: int):
        super().__init__()
        self.layers = nn.Sequential(
            *_blocks(n_features, *HIDDEN, N_LATENT),
            *_blocks(N_LATENT, *HIDDEN),
            nn.Linear(HIDDEN[-1], n_features),
        )

    @property
    def compilable(self) -> list[nn.Module]:
        """The whole network, including the loss."""
        return [self]

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        """Map windows (`window feature`) to their losses (`window`)."""
        return _mean_squared_error(self.layers(windows), windows)


class GammaVAE(nn.Module):
    """The default preset's network: softplus heads, samples from `rsample`."""

    def __init__(self, n_features: int):
        super().__init__()
        self.encoder = GammaEncoder(n_features)
        self.decoder = Decoder(n_features)

    @property
    def compilable(self) -> list[nn.Module]:
        """All modules except sampling, which the compiler cannot differentiate."""
        return [self.encoder, self.decoder]

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        """Map windows (`window feature`) to their losses (`window`)."""
        concentration, rate = self.encoder(windows)
        # The arguments are clipped, so validating them would only take time.
        posterior = torch.distributions.Gamma(concentration, rate, validate_args=False)
        error = self.decoder(posterior.rsample(), windows)
        return error + KL_WEIGHT * _kl_to_prior(concentration, rate)


class GammaEncoder(nn.Module):
    """An encoder that maps windows to the concentration and rate of each latent."""

    def __init__(self, n_features: int):
        super().__init__()
        self.layers = nn.Sequential(*_blocks(n_features, *HIDDEN))
        self.heads = nn.ModuleList(nn.Linear(HIDDEN[-1], N_LATENT) for _ in range(2))

    def forward(self, windows: torch.Tensor) -> list[torch.Tensor]:
        """Map windows (`window feature`) to two arrays (`window latent`)."""
        hidden = self.layers(windows)
        return [
            nn.functional.softplus(head(hidden)).clamp(MIN_PARAMETER, MAX_PARAMETER)
            for head in self.heads
        ]


class Decoder(nn.Module):
    """A decoder that maps codes to the squared errors of the reconstructed windows."""

    def __init__(self, n_features: int):
        super().__init__()
        self.layers = nn.Sequential(
            *_blocks(N_LATENT, *HIDDEN), nn.Linear(HIDDEN[-1], n_features)
        )

    def forward(self, code: torch.Tensor, windows: torch.Tensor) -> torch.Tensor:
        """Map codes (`window latent`) to the errors of their windows (`window`)."""
        return _mean_squared_error(self.layers(code), windows)


def _mean_squared_error(
    reconstruction: torch.Tensor, windows: torch.Tensor
) -> torch.Tensor:
    return (reconstruction - windows).square().mean(-1)


def _kl_to_prior(concentration: torch.Tensor, rate: torch.Tensor) -> torch.Tensor:
    posterior = torch.distributions.Gamma(concentration, rate, validate_args=False)
    prior = torch.distributions.Gamma(
        torch.full_like(rate, PRIOR_CONCENTRATION),
        torch.full_like(rate, PRIOR_RATE),
        validate_args=False,
    )
    return torch.distributions.kl_divergence(posterior, prior).sum(-1)


def _blocks(*widths: int) -> list[nn.Module]:
    """Return the layers from each width to the next: linear, batch norm, ReLU."""
    layers = []
    for n_in, n_out in itertools.pairwise(widths):
        norm = nn.BatchNorm1d(n_out, momentum=0.01, eps=1e-3)
        layers += [nn.Linear(n_in, n_out), norm, nn.ReLU()]
    return layers
