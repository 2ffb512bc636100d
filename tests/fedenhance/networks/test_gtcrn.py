"""GTCRN computes what its authors' code computes, and no frame sees the future."""

import pytest
import torch
import torch.nn.functional as F
from hyperpyyaml import load_hyperpyyaml
from torch import nn

from fedenhance.networks.authors import main, read_weights
from fedenhance.networks.gtcrn import MaskNet
from fedenhance.networks.gtcrn_authors import MODEL, load, to_theirs

SIZES = {
    "fft_length": 32,
    "sample_rate": 16000,
    "num_low_bins": 9,
    "num_bands": 4,
    "channels": 8,
    "hidden_channels": 12,
    "dilations": [1, 3],
    "num_blocks": 1,
}


def build(num_sources=2, **sizes):
    torch.manual_seed(0)
    return MaskNet(num_sources, **(SIZES | sizes))


def randomized(module):
    """Weights and statistics that no initialisation has."""
    generator = torch.Generator().manual_seed(1)
    for name, weight in module.state_dict().items():
        if weight.is_floating_point():
            weight.copy_(0.3 * torch.randn(weight.shape, generator=generator))
        if name.endswith("running_var"):
            weight.abs_().add_(0.5)
    return module


# ------------------------------------------------------------ the authors' network


class Reference:
    """GTCRN of the paper from weights under its authors' names, layer by layer."""

    def __init__(self, weights):
        self.weights = weights

    def __call__(self, spectrum):
        """Map ``(batch, bin, frame, 2)`` to the same shape."""
        w = self.weights
        real, imag = spectrum.permute(3, 0, 2, 1)
        x = torch.stack([(real**2 + imag**2 + 1e-12).sqrt(), real, imag], 1)
        low = real.shape[-1] - w["erb.erb_fc.weight"].shape[1]
        x = torch.cat([x[..., :low], x[..., low:] @ w["erb.erb_fc.weight"].T], -1)
        x, skips = neighbours(x), []
        for number in range(5):
            name = f"encoder.en_convs.{number}."
            if number < 2:
                x = self.strided(name, x, F.conv2d, groups=1 + number)
            else:
                x = self.temporal(name, x, (1, 2, 5)[number - 2], transposed=False)
            skips.append(x)
        for number in (1, 2):
            x = self.dual_path(f"dpgrnn{number}.", x)
        for number in range(5):
            name, x = f"decoder.de_convs.{number}.", x + skips.pop()
            if number < 3:
                x = self.temporal(name, x, (5, 2, 1)[number], transposed=True)
            else:
                x = self.strided(name, x, F.conv_transpose2d, groups=5 - number)
        high = x[..., low:] @ w["erb.ierb_fc.weight"].T
        mask = torch.view_as_complex(
            torch.cat([x[..., :low], high], -1).permute(0, 3, 2, 1).contiguous()
        )
        return torch.view_as_real(torch.view_as_complex(spectrum) * mask)

    def normalized(self, name, x):
        w = [self.weights[name + k] for k in ("running_mean", "running_var")]
        w += [self.weights[name + k] for k in ("weight", "bias")]
        return F.batch_norm(x, *w)

    def conv(self, name, x, conv=F.conv2d, **options):
        weight, bias = self.weights[f"{name}weight"], self.weights[f"{name}bias"]
        return conv(x, weight, bias, **options)

    def strided(self, name, x, conv, groups):
        x = self.conv(
            f"{name}conv.", x, conv, stride=(1, 2), padding=(0, 2), groups=groups
        )
        x = self.normalized(f"{name}bn.", x)
        slope = self.weights.get(f"{name}act.weight")
        return x.tanh() if slope is None else F.prelu(x, slope)

    def temporal(self, name, x, dilation, transposed):
        w, conv = self.weights, F.conv_transpose2d if transposed else F.conv2d
        x, rest = x.chunk(2, 1)
        x = self.conv(f"{name}point_conv1.", neighbours(x), conv)
        x = F.prelu(
            self.normalized(f"{name}point_bn1.", x), w[f"{name}point_act.weight"]
        )
        x = self.conv(
            f"{name}depth_conv.",
            F.pad(x, (0, 0, 2 * dilation, 0)),
            conv,
            padding=(2 * dilation * transposed, 1),
            dilation=(dilation, 1),
            groups=x.shape[1],
        )
        x = F.prelu(
            self.normalized(f"{name}depth_bn.", x), w[f"{name}depth_act.weight"]
        )
        x = self.conv(f"{name}point_conv2.", x, conv)
        x = self.normalized(f"{name}point_bn2.", x)
        y = self.gru(f"{name}tra.att_gru.", x.square().mean(-1).mT)
        y = F.linear(y, w[f"{name}tra.att_fc.weight"], w[f"{name}tra.att_fc.bias"])
        x = x * y.sigmoid().mT.unsqueeze(-1)
        return torch.stack([x, rest], 2).flatten(1, 2)

    def gru(self, name, x, bidirectional=False):
        """Map ``(batch, time, channel)`` to the same."""
        weights = {
            k.removeprefix(name): w for k, w in self.weights.items() if name in k
        }
        size = weights["weight_hh_l0"].shape[1]
        gru = nn.GRU(x.shape[-1], size, batch_first=True, bidirectional=bidirectional)
        gru.load_state_dict(weights)
        return gru(x)[0]

    def dual_path(self, name, x):
        w, x = self.weights, x.permute(0, 2, 3, 1)
        for path in ("intra", "inter"):
            sequences = x if path == "intra" else x.transpose(1, 2)
            y = torch.cat(
                [
                    self.gru(f"{name}{path}_rnn.rnn{i + 1}.", part, path == "intra")
                    for i, part in enumerate(sequences.flatten(0, 1).chunk(2, -1))
                ],
                -1,
            )
            layers = [
                w[f"{name}{path}_{layer}.{kind}"]
                for layer in ("fc", "ln")
                for kind in ("weight", "bias")
            ]
            y = F.linear(y, *layers[:2]).view(sequences.shape)
            y = y if path == "intra" else y.transpose(1, 2)
            x = x + F.layer_norm(y, y.shape[2:], *layers[2:], eps=1e-8)
        return x.permute(0, 3, 1, 2)


def neighbours(x):
    """Put each channel beside those of the band below and above."""
    padded = F.pad(x, (1, 1))
    parts = [padded[..., i : i + x.shape[-1]] for i in range(3)]
    return torch.stack(parts, 2).flatten(1, 2)


@pytest.fixture(scope="module")
def theirs():
    """Random weights under the authors' names, in the sizes of the paper."""
    with open(MODEL) as file:
        separator = load_hyperpyyaml(file)["separator"]
    return to_theirs(randomized(separator).state_dict())


def test_the_network_is_the_authors(theirs):
    separator, mixture = load(theirs).eval(), torch.randn(2, 4000)
    with torch.no_grad():
        latent = separator.encoder(mixture)
        spectrum = latent.unflatten(1, (-1, 2)).transpose(2, 3).contiguous()
        expected = Reference(theirs)(spectrum)
        actual = separator.masknet(latent)[0].unflatten(1, (-1, 2)).transpose(2, 3)
    assert (actual - expected).norm() < 1e-5 * expected.norm()


def test_weights_come_back_unchanged(theirs):
    returned = to_theirs(load(theirs).state_dict())
    assert returned.keys() == theirs.keys()
    for name, weight in theirs.items():
        assert torch.equal(returned[name], weight), name


def test_their_checkpoints_are_read_and_written(theirs, tmp_path):
    checkpoint, ours, back = (tmp_path / name for name in ("a.tar", "b.ckpt", "c.pt"))
    torch.save({"epoch": 3, "optimizer": {"state": {}}, "model": theirs}, checkpoint)
    main([str(checkpoint), "--member", "gtcrn", "--out", str(ours)])
    load(theirs).load_state_dict(read_weights(ours))
    main([str(ours), "--member", "gtcrn", "--out", str(back), "--back"])
    assert read_weights(back).keys() == theirs.keys()


def test_the_paper_counts_as_many_parameters(theirs):
    assert sum(p.numel() for p in load(theirs).parameters()) == 23_669


def test_weights_of_another_network_are_refused(theirs):
    more = theirs | {"encoder.en_convs.9.conv.weight": torch.zeros(1)}
    less = {k: w for k, w in theirs.items() if k != "dpgrnn1.intra_fc.bias"}
    for weights in (more, less, {"sm.0.weight": torch.zeros(1)}):
        with pytest.raises(ValueError, match="not the weights of gtcrn"):
            load(weights)
    bands = theirs | {"erb.erb_fc.weight": theirs["erb.erb_fc.weight"].flip(1)}
    with pytest.raises(ValueError, match="does not hold the bands"):
        load(bands)


# ------------------------------------------------------------------------ laws


@pytest.mark.parametrize("num_sources", [2, 3])
def test_the_sources_sum_to_the_latent(num_sources):
    masknet, latent = randomized(build(num_sources)), torch.randn(2, 34, 7)
    sources = masknet(latent)
    assert len(sources) == num_sources
    torch.testing.assert_close(sources.sum(0), latent)


def test_every_source_starts_as_its_share_of_the_mixture():
    masknet, latent = build(num_sources=4), torch.randn(2, 34, 50)
    for source in masknet(latent):
        assert (source - latent / 4).norm() < 0.3 * latent.norm()


def test_steps_equal_the_whole():
    masknet, latent = randomized(build()).eval(), torch.randn(2, 34, 20)
    state, parts = masknet.initial_state(2), []
    with torch.no_grad():
        for frames in latent.split([1, 4, 1, 14], dim=2):
            part, state = masknet.step(frames, state)
            parts.append(part)
        whole = masknet(latent)
    torch.testing.assert_close(torch.cat(parts, dim=3), whole, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ({"num_sources": 1}, "num_sources must be 2 or more"),
        ({"channels": 6}, "channels must be divisible by 4"),
        ({"num_bands": 5}, "one more than a multiple of 4"),
        ({"num_bands": 8, "num_low_bins": 13}, "would fall on the same bin"),
        ({"dilations": [0]}, "dilation must be an integer of 1 or more"),
    ],
)
def test_a_size_that_cannot_be_is_named(sizes, words):
    with pytest.raises(ValueError, match=words):
        build(**sizes)
