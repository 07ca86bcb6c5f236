"""Proxies that look at gradients: grad_norm, snip, plain, fisher, grasp, zico, gradsign, jacob_cov, epe_nas."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from nasharness.benchmarks.networks.nasbench201 import NASBench201Network
from nasharness.benchmarks.spaces.nasbench201 import NASBench201Space
from nasharness.proxies.base import UNSCORABLE, ProxyError
from nasharness.proxies.epe_nas import EPENAS
from nasharness.proxies.fisher import Fisher
from nasharness.proxies.grad_norm import GradNorm
from nasharness.proxies.gradsign import GradSign
from nasharness.proxies.grasp import GraSP
from nasharness.proxies.jacob_cov import JacobCov, correlations
from nasharness.proxies.layers import kaiming_fan_in
from nasharness.proxies.passes import measure_together
from nasharness.proxies.plain import Plain
from nasharness.proxies.snip import SNIP
from nasharness.proxies.zico import ZiCo

OF_THE_LOSS = (GradNorm, SNIP, Plain, Fisher, GraSP, ZiCo, GradSign)
OF_THE_IMAGES = (JacobCov, EPENAS)
ALL = OF_THE_LOSS + OF_THE_IMAGES
CELL = "|nor_conv_3x3~0|+|avg_pool_3x3~0|nor_conv_1x1~1|+|skip_connect~0|nor_conv_1x1~1|nor_conv_3x3~2|"
DEAD = "|nor_conv_3x3~0|+|none~0|none~1|+|none~0|none~1|none~2|"
K = 1e-5


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def made(build, seed=0):
    """What `build` makes, with weights drawn from a seed."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return build()


def cell(text=CELL, seed=0):
    return made(lambda: NASBench201Network(NASBench201Space().from_string(text), channels=4, cells=1), seed)


def batch(n=12, side=8, channels=3, classes=10, seed=1):
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(n, channels, side, side, generator=rng), torch.randint(classes, (n,), generator=rng)


def linear(weights, bias=None):
    """Logits W x + b of a flattened image."""
    layer = nn.Linear(len(weights[0]), len(weights), bias=bias is not None)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(weights))
        if bias is not None:
            layer.bias.copy_(torch.tensor(bias))
    return nn.Sequential(nn.Flatten(), layer)


def pixels(*rows):
    """Images of one row each."""
    return torch.tensor(rows, dtype=torch.float32)[:, None, None, :]


class Squares(nn.Module):
    """Logits that sum up to the sum of squared pixels, so that the Jacobian's rows are twice the images."""

    def __init__(self, classes=2):
        super().__init__()
        self.classes = classes
        self.unused = nn.Linear(1, 1)

    def forward(self, x):
        return functional.pad(x.flatten(1).square().sum(1, keepdim=True), (0, self.classes - 1))


# ---------------------------------------------------------------- on paper

# W = (1 0; 3 0), b = (2 0), image (1 2): logits 3, 3, so p = 1/2. Label 0: dL/dz = (-1/2, 1/2), dL/dW = (-1/2 -1; 1/2 1).
PAPER = (linear([[1.0, 0.0], [3.0, 0.0]], [2.0, 0.0]), pixels((1, 2)), torch.tensor([0]))


def test_grad_norm_on_paper():
    """Norm of (-1/2, -1, 1/2, 1): the root of 5/2. The bias does not count."""
    assert GradNorm().score(*PAPER) == pytest.approx(math.sqrt(2.5))


def test_snip_and_plain_on_paper():
    """W * dL/dW = (-1/2 0; 3/2 0)."""
    assert SNIP().score(*PAPER) == pytest.approx(2)
    assert Plain().score(*PAPER) == pytest.approx(1)


def test_fisher_on_paper():
    """Outputs (3, 3) times (-1/2, 1/2): t = (-3/2, 3/2), D = 9/8 for both channels, of two weights each.

    With the image (0, 0) of label 0 beside it: its logits are 2, 0, so t = (2 (p - 1), 0) with p = 1 / (1 + e^-2). The loss is
    the mean over two images, so every t halves, and D is the mean of the two squares.
    """
    assert Fisher().score(*PAPER) == pytest.approx(2 * 2 * 9 / 8)
    assert Fisher(per_parameter=False).score(*PAPER) == pytest.approx(2 * 9 / 8)
    second = 2 * (1 / (1 + math.exp(-2)) - 1)
    wanted = ((1.5 / 2) ** 2 + (second / 2) ** 2) / 4 + (1.5 / 2) ** 2 / 4
    both = (PAPER[0], pixels((1, 2), (0, 0)), torch.tensor([0, 0]))
    assert Fisher(per_parameter=False).score(*both) == pytest.approx(wanted)


def test_grasp_on_paper():
    """The Hessian of the loss by the logits is (1/4 -1/4; -1/4 1/4), so Hg = |x|^2 (-1/4, 1/4) x' = (-5/4 -5/2; 5/4 5/2).

    W * Hg = (-5/4 0; 15/4 0); the score is minus its sum.
    """
    assert GraSP().score(*PAPER) == pytest.approx(-2.5)


def test_zico_on_paper():
    """W = 0: gradients (-1/2, 1/2) x'. Images (1 2) and (3 2): the first column has 1/2 and 3/2, mean 1 and sd 1/2.

    The second column has 1 twice, so it is left out. Two weights with 2: log 4. As three batches with another (1 2): mean 5/6,
    sd sqrt(2)/3, ratio 5 / (2 sqrt 2).
    """
    network = linear([[0.0, 0.0], [0.0, 0.0]])
    images, labels = pixels((1, 2), (3, 2), (1, 2)), torch.zeros(3, dtype=torch.int64)
    assert ZiCo(batch_size=1).score(network, images, labels) == pytest.approx(math.log(4))
    assert ZiCo(batch_size=1, batches=3).score(network, images, labels) == pytest.approx(math.log(5 / math.sqrt(2)))


def test_gradsign_on_paper():
    """Signs (- -; + +) of every image with label 0, the opposite for label 1, nothing for a pixel of 0."""
    network = linear([[0.0, 0.0], [0.0, 0.0]])
    images = pixels((1, 2), (3, 2), (1, 0))
    assert GradSign().score(network, images, torch.tensor([0, 0, 0])) == 2 * 3 + 2 * 2
    assert GradSign().score(network, images, torch.tensor([0, 0, 1])) == 2 * 1 + 2 * 2
    assert GradSign().score(network, images[:2], torch.tensor([0, 1])) == 0


def test_jacob_cov_on_paper():
    """Rows without correlation: both eigenvalues are 1. Rows that are multiples: 2 and 0, and 1 / (0 + k) rules."""
    labels = torch.tensor([0, 1])
    apart = JacobCov().score(Squares(), pixels((1, -1, 1, -1), (1, 1, -1, -1)), labels)
    assert apart == pytest.approx(-2 * (math.log(1 + K) + 1 / (1 + K)))
    alike = JacobCov().score(Squares(), pixels((1, -1, 1, -1), (-2, 2, -2, 2)), labels)
    assert alike == pytest.approx(-(math.log(2 + K) + 1 / (2 + K) + math.log(K) + 1 / K), rel=1e-6)


def test_epe_nas_on_paper():
    """Class 0: correlations 1, 1, 1/2, 1/2; class 7: one image, correlation 1.

    (1 0 0) and (1 1 0): deviations (2 -1 -1)/3 and (1 1 -2)/3, so the correlation is 3 / 6.
    """
    images, labels = pixels((1, 0, 0), (1, 1, 0), (5, 1, 1)), torch.tensor([0, 0, 7])
    pair = 2 * math.log(1 + K) + 2 * math.log(0.5 + K)
    assert EPENAS().score(Squares(8), images, labels) == pytest.approx(abs(pair) + math.log(1 + K))
    # 101 logits: what is compared are classes of at least two images, here 0 and 9: half of pair, and all correlations 1.
    images = torch.cat([images, pixels((0, 1, 2), (1, 2, 3))])
    labels = torch.tensor([0, 0, 7, 9, 9])
    other = 4 * math.log(1 + K)
    assert EPENAS().score(Squares(101), images, labels) == pytest.approx(2 * abs(pair / 2 - other / 2) / 2)
    assert EPENAS().score(Squares(101), images[1:4], labels[1:4]) == UNSCORABLE
    assert EPENAS().score(Squares(100), images[1:4], labels[1:4]) == pytest.approx(3 * math.log(1 + K))


# ---------------------------------------------------------------- against other ways to compute the same


class Tiny(nn.Module):
    """A convolution with bias, batch normalisation, a pool that overlaps, a layer that is not used."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 3)
        self.norm = nn.BatchNorm2d(2)
        self.head = nn.Linear(2, 3)
        self.unused = nn.Linear(5, 4)

    def forward(self, x):
        return self.head(torch.tanh(self.norm(self.conv(x))).mean((2, 3)))


def test_grasp_is_a_product_with_the_whole_hessian():
    network = made(Tiny).double()
    images, labels = batch(6, side=4, classes=3)
    images = images.double()
    names = ["conv.weight", "head.weight"]
    weights = tuple(dict(network.named_parameters())[name].detach() for name in names)

    def loss(*values):
        call = torch.func.functional_call(network, dict(zip(names, values, strict=True)), (images,))
        return functional.cross_entropy(call, labels)

    rows = torch.autograd.functional.hessian(loss, weights)
    whole = torch.cat(
        [torch.cat([b.reshape(w.numel(), -1) for b in row], 1) for row, w in zip(rows, weights, strict=True)]
    )
    g = torch.cat([t.flatten() for t in torch.autograd.functional.jacobian(loss, weights)])
    w = torch.cat([t.flatten() for t in weights])
    assert GraSP().score(network, images, labels) == pytest.approx(float(-w @ whole @ g), rel=1e-9)


class Norms(nn.Module):
    """Batch normalisations of every kind: without scale, of sequences, of vectors, frozen."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.plane = nn.BatchNorm2d(4, affine=False, eps=0.1)
        self.sequence = nn.BatchNorm1d(4, track_running_stats=False)
        self.frozen = nn.BatchNorm2d(4)
        self.second = nn.Linear(4, 5)
        self.vector = nn.BatchNorm1d(5, momentum=None)
        self.head = nn.Linear(5, 3)
        nn.init.normal_(self.sequence.weight)
        nn.init.normal_(self.vector.bias)

    def forward(self, x):
        x = torch.tanh(self.plane(self.conv(x)))
        x = self.sequence(x.flatten(2)).reshape(x.shape).square()
        return self.head(self.vector(self.second(self.frozen(x).mean((2, 3)))).sigmoid())

    def train(self, mode=True):
        super().train(mode)
        self.frozen.eval()
        return self


@pytest.mark.parametrize("build", [Norms, cell], ids=lambda build: build.__name__)
def test_grasp_has_the_second_derivatives_of_batch_norm(build):
    """As PyTorch has them; also with channels last."""
    network = made(build).double().train()
    images, labels = batch(6, side=6, classes=3)
    images = images.double()
    weights = [m.weight for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    found = torch.autograd.grad(functional.cross_entropy(network(images), labels), weights, create_graph=True)
    products = torch.autograd.grad(sum((g.detach() * g).sum() for g in found), weights)
    wanted = -sum(float((w.detach() * p).sum()) for w, p in zip(weights, products, strict=True))
    assert GraSP().score(network, images, labels) == pytest.approx(wanted, rel=1e-9)
    last = torch.channels_last
    score = GraSP().score(network.to(memory_format=last), images.contiguous(memory_format=last), labels)
    assert score == pytest.approx(wanted, rel=1e-9)
    assert not any("forward" in vars(m) for m in network.modules())


class Masked(nn.Module):
    """A network whose layers' outputs are multiplied by masks of ones, one per image and channel."""

    def __init__(self, network, n):
        super().__init__()
        self.network = network
        self.layers = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
        self.masks = [torch.ones(n, m.weight.shape[0], requires_grad=True) for m in self.layers]
        for layer, mask in zip(self.layers, self.masks, strict=True):
            layer.register_forward_hook(lambda m, i, o, mask=mask: o * mask.reshape(*mask.shape, *[1] * (o.dim() - 2)))

    def fisher(self, images, labels):
        loss = functional.cross_entropy(self.network(images), labels)
        found = torch.autograd.grad(loss, self.masks, allow_unused=True)
        pairs = [(layer, t) for layer, t in zip(self.layers, found, strict=True) if t is not None]
        return sum(layer.weight[0].numel() * float(t.square().mean(0).sum()) / 2 for layer, t in pairs)


class AddsInPlace(nn.Module):
    """The output of a convolution is written to: by an addition, and by a ReLU."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.second = nn.Conv2d(4, 4, 3, padding=1)
        self.head = nn.Linear(4, 10)

    def forward(self, x):
        x = self.first(x)
        y = self.second(x.relu())
        y += x
        y.mul_(2)
        return self.head(functional.relu_(y).mean((2, 3)))


class Twice(nn.Module):
    """One convolution called twice."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.head = nn.Linear(3, 10)

    def forward(self, x):
        return self.head(torch.tanh(self.conv(self.conv(x))).mean((2, 3)))


@pytest.mark.parametrize("build", [Tiny, AddsInPlace, Twice, cell], ids=lambda build: build.__name__)
def test_fisher_is_the_gradient_of_masks(build):
    """Also where a layer's output is overwritten, or a layer is called twice; also if others share the pass."""
    network = made(build)
    images, labels = batch(classes=3)
    wanted = Masked(copy.deepcopy(network), len(images)).fisher(images, labels)
    assert wanted > 0
    assert Fisher().score(network, images, labels) == pytest.approx(wanted, rel=1e-4)
    together = measure_together([JacobCov(), GradNorm(), Fisher(), SNIP()], network, images, labels)
    assert together[2].values[0] == pytest.approx(wanted, rel=1e-4)


def test_fisher_of_a_layer_on_sequences():
    """The channels are the last axis: the same as a 1x1 convolution over the length."""

    class Sequence(nn.Module):
        def __init__(self, convolution):
            super().__init__()
            self.mix = nn.Conv2d(3, 5, 1) if convolution else nn.Linear(3, 5)
            self.head = nn.Linear(5, 10)

        def forward(self, x):
            if isinstance(self.mix, nn.Conv2d):
                return self.head(self.mix(x).tanh().mean((2, 3)))
            return self.head(self.mix(x.flatten(2).transpose(1, 2)).tanh().mean(1))

    first, second = made(lambda: Sequence(True)), made(lambda: Sequence(False))
    second.load_state_dict({name: t.reshape(second.state_dict()[name].shape) for name, t in first.state_dict().items()})
    assert Fisher().score(first, *batch()) == pytest.approx(Fisher().score(second, *batch()), rel=1e-5)


def test_gradsign_passes_images_alone():
    """In train mode, so batch normalisation sees one image: not what a pass of the batch gives."""
    network, (images, labels) = made(Tiny), batch(8, classes=3)
    signs = {name: torch.zeros_like(p) for name, p in network.named_parameters()}
    for image, label in zip(images, labels, strict=True):
        alone = copy.deepcopy(network).train()
        functional.cross_entropy(alone(image[None]), label[None]).backward()
        for name, parameter in alone.named_parameters():
            if parameter.grad is not None:
                signs[name] += parameter.grad.sign()
    wanted = sum(float(signs[name].abs().sum()) for name in ("conv.weight", "head.weight"))
    assert GradSign().score(network, images, labels) == wanted
    assert GradSign().score(network.eval(), images, labels) == wanted


def test_zico_by_its_definition():
    """Three batches of the first images; images beyond are not looked at."""
    network, (images, labels) = cell(), batch(14)
    gradients = []
    for start in (0, 4, 8):
        own = copy.deepcopy(network)
        functional.cross_entropy(own(images[start : start + 4]), labels[start : start + 4]).backward()
        gradients.append([m.weight.grad.double() for m in own.modules() if isinstance(m, nn.Conv2d | nn.Linear)])
    wanted = 0.0
    for layer in zip(*gradients, strict=True):
        mean = sum(g.abs() for g in layer) / 3
        sd = (sum(g**2 for g in layer) / 3 - (sum(layer) / 3) ** 2).clamp(min=0).sqrt()
        wanted += math.log(float((mean[sd > 0] / sd[sd > 0]).sum()))
    assert ZiCo(batch_size=4, batches=3).score(network, images, labels) == pytest.approx(wanted, rel=1e-3)


def test_correlations():
    rows = torch.randn(5, 40, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(correlations(rows), torch.corrcoef(rows.double()), atol=1e-12)
    rows[2] = 0.1  # whose mean is not 0.1 exactly
    found = correlations(rows)
    assert found[2].isnan().all() and found[:, 2].isnan().all()
    assert torch.isfinite(found[[0, 1, 3, 4]][:, [0, 1, 3, 4]]).all()


# ---------------------------------------------------------------- laws


@pytest.fixture(scope="module")
def scored():
    """Every proxy on one cell, alone and together: network, images, labels, scores, scores."""
    network, (images, labels) = cell(), batch(24, side=6)
    alone = [proxy().score(network, images, labels) for proxy in ALL]
    return network, images, labels, alone, measure_together([proxy() for proxy in ALL], network, images, labels)


def test_together_as_alone(scored):
    for proxy, alone, together in zip(ALL, *scored[3:], strict=True):
        tolerance = 2e-2 if proxy in (ZiCo, GradSign) else 1e-3
        assert together.values == (pytest.approx(alone, rel=tolerance, abs=1e-4),), proxy.__name__


@pytest.mark.parametrize("proxy", ALL)
def test_the_network_and_the_images_are_left_alone(proxy):
    network, (images, labels) = cell().eval(), batch(8)
    network.classifier.bias.requires_grad_(False)
    before, kept = copy.deepcopy(network.state_dict()), images.clone()
    first = proxy().score(network, images, labels)
    assert proxy().score(network, images, labels) == first
    assert all(torch.equal(before[name], t) for name, t in network.state_dict().items())
    assert all(p.grad is None for p in network.parameters())
    assert not network.training and network.stem[0].weight.requires_grad and not network.classifier.bias.requires_grad
    assert torch.equal(images, kept) and not images.requires_grad


@pytest.mark.parametrize("proxy", [p for p in ALL if p is not ZiCo])
def test_the_order_of_the_images_makes_no_difference(proxy):
    network, (images, labels) = cell(), batch(16)
    order = torch.randperm(16, generator=torch.Generator().manual_seed(3))
    first = proxy().score(network, images, labels)
    assert proxy().score(network, images[order], labels[order]) == pytest.approx(first, rel=2e-3, abs=1e-4)


def test_the_order_of_the_batches_makes_no_difference_to_zico():
    network, (images, labels) = cell(), batch(16)
    swapped = torch.cat([images[8:], images[:8]]), torch.cat([labels[8:], labels[:8]])
    assert ZiCo(batch_size=8).score(network, *swapped) == ZiCo(batch_size=8).score(network, images, labels)


@pytest.mark.parametrize("proxy", ALL)
def test_only_epe_nas_and_losses_look_at_labels(proxy):
    network, (images, labels) = cell(), batch(16)
    same = proxy().score(network, images, labels) == proxy().score(network, images, labels.flip(0) // 2)
    assert same is not proxy.uses_labels


@pytest.mark.parametrize("proxy", ALL)
def test_a_layer_that_takes_no_part_counts_nothing(proxy):
    network, (images, labels) = cell(), batch(8)
    first = proxy().score(network, images, labels)
    network.extra = nn.Conv2d(3, 4, 3)
    assert proxy().score(network, images, labels) == first


@pytest.mark.parametrize("proxy", ALL)
def test_a_disconnected_network(proxy):
    """Its output does not depend on the images: no Jacobian and so no score, or no gradient and the score 0.

    Only the outputs of the classifier, which are its biases, have Fisher information.
    """
    network, (images, labels) = cell(DEAD), batch(8)
    wanted = UNSCORABLE if proxy in OF_THE_IMAGES else 0
    if proxy is Fisher:
        wanted = pytest.approx(Masked(copy.deepcopy(network), 8).fisher(images, labels))
    assert proxy().score(network, images, labels) == wanted
    assert measure_together([proxy()], network, images, labels)[0].values == (wanted,)


@pytest.mark.parametrize("proxy", ALL)
def test_a_network_without_batch_norm_and_with_relus_in_place(proxy):
    """As with ReLUs that write to a tensor of their own."""

    def build(inplace):
        layers = (nn.Conv2d(3, 6, 3), nn.ReLU(inplace), nn.Conv2d(6, 6, 3), nn.ReLU(inplace))
        return made(
            lambda: nn.Sequential(*layers, nn.Flatten(), nn.Linear(96, 12), nn.ReLU(inplace), nn.Linear(12, 10))
        )

    images, labels = batch(8)
    network = build(True)
    other = build(False)
    other.load_state_dict(network.state_dict())
    score = proxy().score(network, images, labels)
    assert math.isfinite(score) and score != 0
    assert score == pytest.approx(proxy().score(other, images, labels), rel=1e-6)


@pytest.mark.parametrize("proxy", [SNIP, Plain, Fisher, GradSign])
def test_weights_before_batch_norm_have_no_scale(proxy):
    """Doubled weights halve their gradients, and nothing else changes (but for batch normalisation's epsilon)."""
    network, (images, labels) = cell().double(), batch(16)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 1e-12
    first = proxy().score(network, images.double(), labels)
    with torch.no_grad():
        network.stem[0].weight.mul_(2)
    assert proxy().score(network, images.double(), labels) == pytest.approx(first, rel=1e-6, abs=1e-9)


# ---------------------------------------------------------------- settings


def test_presets_and_images():
    assert [proxy().n_images for proxy in ALL] == [64, 64, 64, 64, 64, 128, 128, 64, 64]
    assert JacobCov(**JacobCov.presets["v1"]).n_images == 256
    assert EPENAS(**EPENAS.presets["paper"]).n_images == 256
    assert not Fisher(**Fisher.presets["channel"]).per_parameter
    paper = ZiCo(**ZiCo.presets["paper"])
    assert (paper.n_images, paper.init, paper.alone) == (256, "kaiming_fan_in", True)
    assert not ZiCo().alone


def test_zico_that_draws_its_weights():
    """It shares no pass, does not depend on the network's weights, and leaves them as they were."""
    images, labels = batch(8)
    first, second = cell(seed=0), cell(seed=5)
    kept = copy.deepcopy(first.state_dict())

    def zico(seed):
        return ZiCo(torch.Generator().manual_seed(seed), init="kaiming_fan_in")

    wanted = copy.deepcopy(first)
    kaiming_fan_in(wanted, torch.Generator().manual_seed(4))
    wanted = ZiCo().score(wanted, images, labels)
    assert zico(4).score(first, images, labels) == wanted == zico(4).score(second, images, labels)
    assert zico(6).score(first, images, labels) != wanted
    default, norm, drawn = measure_together([ZiCo(), GradNorm(), zico(4)], first, images, labels)
    last = copy.deepcopy(first).to(memory_format=torch.channels_last)
    wanted = zico(4).score(last, images.contiguous(memory_format=torch.channels_last), labels)
    assert drawn.values == (pytest.approx(wanted, rel=1e-2),)
    assert default.values == (pytest.approx(ZiCo().score(first, images, labels), rel=1e-2),)
    assert norm.values == (pytest.approx(GradNorm().score(first, images, labels), rel=1e-4),)
    assert all(torch.equal(kept[name], t) for name, t in first.state_dict().items())


def test_zico_with_few_images_has_smaller_batches():
    network, (images, labels) = cell(), batch(9)
    assert ZiCo().score(network, images, labels) == ZiCo(batch_size=4).score(network, images, labels)
    with pytest.raises(ProxyError, match="2 batches"):
        ZiCo().score(network, images[:1], labels[:1])


@pytest.mark.parametrize(("wrong", "message"), [({"batches": 1}, "at least 2"), ({"init": "ones"}, "kaiming_fan_in")])
def test_wrong_settings_of_zico(wrong, message):
    with pytest.raises(ValueError, match=message):
        ZiCo(**wrong)


def test_gradsign_where_one_image_cannot_be_normalised():
    network = made(lambda: nn.Sequential(nn.Conv2d(3, 4, 8), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 10)))
    with pytest.raises(ProxyError, match="each image alone"):
        GradSign().score(network, *batch(4))


def test_a_pass_is_made_once():
    """The first batch of zico is that of the others; jacob_cov and epe_nas join in."""
    network, (images, labels) = cell(), batch(128, side=4)
    calls = []
    network.stem.register_forward_hook(lambda *_: calls.append(1))
    proxies = [GradNorm(), SNIP(), Plain(), Fisher(), ZiCo(), JacobCov(), EPENAS()]
    measure_together(proxies, network, images, labels)
    assert len(calls) == 2


GOLDEN = {  # float64 gives the same to five digits
    GradNorm: 13.6708,
    SNIP: 14.6723,
    Plain: -0.0420519,
    Fisher: 0.168901,
    GraSP: 5.56804,
    ZiCo: 134.783,
    GradSign: 33194,
    JacobCov: -17.7058,
    EPENAS: 44.4525,
}


@pytest.mark.parametrize("proxy", ALL)
def test_golden_score(proxy):
    """Scores of one network and batch are what they were when they were first recorded."""
    assert proxy().score(cell(), *batch(16)) == pytest.approx(GOLDEN[proxy], rel=1e-4)
