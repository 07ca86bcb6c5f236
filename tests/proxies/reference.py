"""Every proxy once more, slow and plain: the yardstick of test_against_reference.py.

Each function `name(network, images, labels, rng)` is written from the definition of its method alone, in the way that the
published scripts compute it: NCHW, float64 from the first operation to the last, one pass per quantity, loops, nothing
shared. None of it uses the package's proxies, so a slip there does not repeat itself here.

The network comes in float32 and is left alone: a copy in double precision is scored, in train mode.

Chance: `rng` is a torch.Generator of the CPU. All draws are float32 and converted afterwards, so that the float32 proxies see
the same numbers. A method's docstring says what is drawn and in which order; only this was taken over from the package.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

LOWEST = -math.inf
DRAWN_AS = torch.contiguous_format
"""The layout of the weights that are drawn: the order in memory is the order of the numbers."""


# ---------------------------------------------------------------- common ground


def double(network: nn.Module) -> nn.Module:
    """A copy in float64 and train mode, with contiguous (NCHW) parameters."""
    copied = copy.deepcopy(network).double().to(memory_format=torch.contiguous_format).train()
    for parameter in copied.parameters():
        parameter.requires_grad_(True)
        parameter.grad = None
    return copied


def weighted(network: nn.Module) -> list[nn.Module]:
    return [m for m in network.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]


def norms(network: nn.Module) -> list[nn.Module]:
    return [m for m in network.modules() if isinstance(m, (nn.BatchNorm1d, nn.BatchNorm2d))]


def leaf_relus(network: nn.Module) -> list[nn.Module]:
    """Modules that are a ReLU, not modules that merely have one in their name."""
    return [m for m in network.modules() if isinstance(m, (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.RReLU))]


def last(score: float | Tensor) -> float:
    number = float(score)
    return number if math.isfinite(number) else LOWEST


def draw_weights(network: nn.Module, std: Callable[[Tensor], float], rng: torch.Generator) -> None:
    """Weights of convolutions and linear layers from N(0, std), in the order of `modules()`; biases 0, norms the identity."""
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                layout = DRAWN_AS if module.weight.dim() == 4 else torch.contiguous_format
                drawn = torch.empty(module.weight.shape, memory_format=layout)
                module.weight.copy_(drawn.normal_(0.0, std(module.weight), generator=rng))
                if module.bias is not None:
                    module.bias.zero_()
            elif isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)) and module.affine:
                module.weight.fill_(1.0)
                module.bias.zero_()


def unit(_: Tensor) -> float:
    return 1.0


def he_fan_in(weight: Tensor) -> float:
    return math.sqrt(2.0 / weight[0].numel())


def he_fan_out(weight: Tensor) -> float:
    return math.sqrt(2.0 / (weight.shape[0] * weight[0, 0].numel()))


def loss_gradients(network: nn.Module, images: Tensor, labels: Tensor) -> list[Tensor]:
    """Gradient of the cross-entropy with respect to every weight of `weighted`, zeros where there is none."""
    network.zero_grad()
    functional.cross_entropy(network(images.double()), labels).backward()
    return [
        torch.zeros_like(m.weight) if m.weight.grad is None else m.weight.grad.detach().clone()
        for m in weighted(network)
    ]


def input_jacobian(network: nn.Module, images: Tensor) -> Tensor:
    """Gradient of the sum of all logits with respect to each image, `(n, inputs)`."""
    x = images.double().clone().requires_grad_(True)
    logits = network(x)
    if not logits.requires_grad:
        return torch.zeros_like(x).flatten(1)
    logits.backward(torch.ones_like(logits))
    return (torch.zeros_like(x) if x.grad is None else x.grad).flatten(1)


def correlations(rows: Tensor) -> Tensor:
    """Pearson correlation of every two rows; NaN for a constant row."""
    centred = rows - rows.mean(dim=1, keepdim=True)
    lengths = (centred**2).sum(dim=1).sqrt()
    found = torch.empty(len(rows), len(rows), dtype=torch.float64)
    for i in range(len(rows)):
        found[i] = (centred * centred[i]).sum(dim=1) / (lengths * lengths[i])
    return found


def last_feature_map(network: nn.Module, images: Tensor) -> Tensor:
    """The last feature map (4 dimensions, more than one pixel) that any module gave: what is pooled and classified."""
    found: list[Tensor] = []

    def keep(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if isinstance(output, Tensor) and output.dim() == 4 and output.shape[2:].numel() > 1:
            found[:] = [output]

    hooks = [m.register_forward_hook(keep) for m in network.modules()]
    network(images)
    for hook in hooks:
        hook.remove()
    return found[0]


# ---------------------------------------------------------------- activation patterns


def naswot(
    network: nn.Module, images: Tensor, labels: Tensor, rng: torch.Generator, *, hooked: Callable = leaf_relus
) -> float:
    """log |det K|, K = sum over ReLUs of C C^T + (1 - C)(1 - C)^T with both products made. `hooked`: which modules count."""
    net = double(network)
    kernel = torch.zeros(len(images), len(images), dtype=torch.float64)

    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal kernel
        code = (inputs[0].flatten(1) > 0).double()  # an inplace ReLU has changed its input, but not where it is above 0
        kernel = kernel + code @ code.T + (1.0 - code) @ (1.0 - code.T)

    for module in hooked(net):
        module.register_forward_hook(count)
    net(images.double())
    return last(torch.linalg.slogdet(kernel)[1])


def swap_of_patterns(network: nn.Module, images: Tensor) -> int:
    """Distinct columns of the matrix (images, units) of the signs of all ReLU outputs of feature maps."""
    outputs: list[Tensor] = []

    def keep(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if inputs[0].dim() == 4:
            outputs.append(output.detach().flatten(1).clone())

    hooks = [m.register_forward_hook(keep) for m in leaf_relus(network)]
    with torch.no_grad():
        network(images.double())
    for hook in hooks:
        hook.remove()
    return len(torch.unique(torch.sign(torch.cat(outputs, dim=1)).T, dim=0))


def swap(network: nn.Module, images: Tensor, labels: Tensor, rng: torch.Generator, *, repeats: int = 32) -> float:
    """Mean number of distinct patterns; per repeat one draw of all weights, N(0, 1)."""
    found = []
    for _ in range(repeats):
        net = double(network)
        draw_weights(net, unit, rng)
        found.append(swap_of_patterns(net, images))
    return sum(found) / len(found)


def linear_regions(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    rng: torch.Generator,
    *,
    samples: int,
    size: int,
    share: float,
    repeats: int = 1,
) -> float:
    """Mean number of crops that a part of the ReLUs of feature maps tell apart.

    Draws per repeat: the weights (He, fan-in); for all crops their image, then the top edges, then the left edges; for each
    ReLU as it is called, an order of its units, of which the first are taken.
    """
    found = []
    for _ in range(repeats):
        net = double(network)
        draw_weights(net, he_fan_in, rng)
        n, _, height, width = images.shape
        which = torch.randint(n, (samples,), generator=rng).tolist()
        top = torch.randint(height - size + 1, (samples,), generator=rng).tolist()
        left = torch.randint(width - size + 1, (samples,), generator=rng).tolist()
        crops = [images[i, :, y : y + size, x : x + size] for i, y, x in zip(which, top, left, strict=True)]
        patterns: list[list[bool]] = [[] for _ in crops]

        def add(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            if inputs[0].dim() != 4:
                return
            active = (output > 0).flatten(1)
            units = torch.randperm(active.shape[1], generator=rng)[: max(1, round(share * active.shape[1]))]
            for pattern, row in zip(patterns, active[:, units].tolist(), strict=True):  # noqa: B023
                pattern.extend(row)

        for module in leaf_relus(net):
            module.register_forward_hook(add)
        with torch.no_grad():
            net(torch.stack(crops).double())
        found.append(len({tuple(pattern) for pattern in patterns}))
    return sum(found) / len(found)


# ---------------------------------------------------------------- gradients of the loss


def grad_norm(network: nn.Module, images: Tensor, labels: Tensor, rng: torch.Generator) -> float:
    """Sum of the norms of the layers' weight gradients."""
    return last(sum(float((g**2).sum().sqrt()) for g in loss_gradients(double(network), images, labels)))


def plain(network: nn.Module, images: Tensor, labels: Tensor, rng: torch.Generator) -> float:
    """Sum of gradient times weight."""
    net = double(network)
    gradients = loss_gradients(net, images, labels)
    return last(sum(float((g * m.weight.detach()).sum()) for g, m in zip(gradients, weighted(net), strict=True)))


def snip(network: nn.Module, images: Tensor, labels: Tensor, rng: torch.Generator) -> float:
    """Sum of |dL/dm| at m = 1, where every layer computes with weight * m: with real masks."""
    net = double(network)
    masks: list[Tensor] = []
    for module in weighted(net):
        mask = torch.ones_like(module.weight).requires_grad_(True)
        masks.append(mask)
        frozen = module.weight.detach().clone()
        if isinstance(module, nn.Linear):
            module.forward = lambda x, m=module, w=frozen, k=mask: functional.linear(x, w * k, m.bias)
        else:
            module.forward = lambda x, m=module, w=frozen, k=mask: functional.conv2d(
                x, w * k, m.bias, m.stride, m.padding, m.dilation, m.groups
            )
    functional.cross_entropy(net(images.double()), labels).backward()
    return last(sum(0.0 if mask.grad is None else float(mask.grad.abs().sum()) for mask in masks))


def grasp(network: nn.Module, images: Tensor, labels: Tensor, rng: torch.Generator) -> float:
    """Sum of -w * (H g): gradients once as constants, once with a graph, then the gradient of their product."""
    net = double(network)
    weights = [m.weight for m in weighted(net)]
    constants = loss_gradients(net, images, labels)
    net.zero_grad()
    loss = functional.cross_entropy(net(images.double()), labels)
    live = torch.autograd.grad(loss, weights, create_graph=True, allow_unused=True)
    z = sum((c * g).sum() for c, g in zip(constants, live, strict=True) if g is not None)
    z.backward()
    return last(-sum(float((w.detach() * w.grad).sum()) for w in weights if w.grad is not None))


def fisher(network: nn.Module, images: Tensor, labels: Tensor, rng: torch.Generator) -> float:
    """Sum over layers and channels of 1/2 mean_n (sum_hw a * dL/da)^2, times the number of weights of a channel."""
    net = double(network)
    seen: list[tuple[nn.Module, Tensor]] = []

    def keep(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        output.retain_grad()
        seen.append((module, output))
        return output + 0.0  # a tensor of its own for what follows, which may be an operation in place

    for module in weighted(net):
        module.register_forward_hook(keep)
    functional.cross_entropy(net(images.double()), labels).backward()
    total = 0.0
    for module, output in seen:
        if output.grad is None:
            continue
        product = output.detach() * output.grad
        per_channel = product.sum(dim=(2, 3)) if product.dim() == 4 else product
        delta = 0.5 * (per_channel**2).mean(dim=0)
        total += float((delta * module.weight[0].numel()).sum())
    return last(total)


def zico(network: nn.Module, images: Tensor, labels: Tensor, rng: torch.Generator, *, batches: int = 2) -> float:
    """Sum over layers of log(sum of mean|g| / std g), over the weights whose std over the batches is not 0."""
    net = double(network)
    size = len(images) // batches
    per_batch = [
        loss_gradients(net, images[b * size : (b + 1) * size], labels[b * size : (b + 1) * size])
        for b in range(batches)
    ]
    total = 0.0
    for layer in zip(*per_batch, strict=True):
        g = torch.stack(layer)
        mean = g.abs().mean(dim=0)
        spread = ((g - g.mean(dim=0)) ** 2).mean(dim=0).sqrt()
        where = spread != 0
        inner = float((mean[where] / spread[where]).sum())
        if inner > 0:
            total += math.log(inner)
    return last(total)


def gradsign(network: nn.Module, images: Tensor, labels: Tensor, rng: torch.Generator) -> float:
    """Sum over weights of |sum over images of the sign of the gradient|; each image is a batch of its own."""
    net = double(network)
    total: list[Tensor] | None = None
    for i in range(len(images)):
        signs = [g.sign() for g in loss_gradients(net, images[i : i + 1], labels[i : i + 1])]
        total = signs if total is None else [t + s for t, s in zip(total, signs, strict=True)]
    assert total is not None
    return last(sum(float(t.abs().sum()) for t in total))


# ---------------------------------------------------------------- gradients with respect to the images


def jacob_cov(network: nn.Module, images: Tensor, labels: Tensor, rng: torch.Generator) -> float:
    """-sum of log(s + k) + 1 / (s + k) over the eigenvalues of the correlations of the images' Jacobian rows."""
    matrix = correlations(input_jacobian(double(network), images))
    if not torch.isfinite(matrix).all():
        return LOWEST
    s = torch.linalg.eigvalsh(matrix).clamp(min=0.0)
    return last(-sum(math.log(v + 1e-5) + 1 / (v + 1e-5) for v in s.tolist()))


def epe_nas(network: nn.Module, images: Tensor, labels: Tensor, rng: torch.Generator) -> float:
    """Correlations within each class; s_c = sum of log(|M_c| + k)."""
    rows = input_jacobian(double(network), images)
    per_class: list[float] = []
    classes = sorted(set(labels.tolist()))
    for c in classes:
        members = rows[labels == c]
        matrix = correlations(members)
        if not torch.isfinite(matrix).all():
            return LOWEST
        s = sum(math.log(abs(v) + 1e-5) for row in matrix.tolist() for v in row)
        per_class.append(s / len(members) if len(classes) > 100 else s)
    if len(classes) <= 100:
        return last(sum(abs(s) for s in per_class))
    return last(sum(abs(a - b) for i, a in enumerate(per_class) for b in per_class[i + 1 :]) / len(classes))


# ---------------------------------------------------------------- no data


def _flow(network: nn.Module, images: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Absolute weights and dR/dW of the network without batch normalisation on an image of ones."""
    net = double(network)
    for norm in norms(net):
        norm.forward = lambda x: x
    with torch.no_grad():
        for tensor in net.state_dict().values():
            tensor.abs_()
    net.zero_grad()
    output = net(torch.ones(1, *images.shape[1:], dtype=torch.float64)).sum()
    output.backward()
    weights = [m.weight.detach() for m in weighted(net)]
    return weights, [torch.zeros_like(m.weight) if m.weight.grad is None else m.weight.grad for m in weighted(net)]


def synflow(network: nn.Module, images: Tensor, labels: Tensor, rng: torch.Generator) -> float:
    """Sum of |w dR/dw|."""
    return last(sum(float((w * g).abs().sum()) for w, g in zip(*_flow(network, images), strict=True)))


def log_synflow(network: nn.Module, images: Tensor, labels: Tensor, rng: torch.Generator) -> float:
    """Sum of |w log(1 + dR/dw)|."""
    return last(sum(float((w * torch.log(1 + g)).abs().sum()) for w, g in zip(*_flow(network, images), strict=True)))


def l2_norm(network: nn.Module, images: Tensor, labels: Tensor, rng: torch.Generator) -> float:
    """Sum of the norms of the layers' weights."""
    return last(sum(float((m.weight.detach() ** 2).sum().sqrt()) for m in weighted(double(network))))


def params(network: nn.Module, images: Tensor, labels: Tensor, rng: torch.Generator) -> float:
    """Numbers in all parameters."""
    return float(sum(math.prod(p.shape) for p in network.parameters()))


def flops(network: nn.Module, images: Tensor, labels: Tensor, rng: torch.Generator) -> float:
    """Multiply-accumulates of convolutions and linear layers, a bias counting one per output."""
    net = double(network)
    total = 0

    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        per_output = math.prod(module.weight.shape[1:]) + (module.bias is not None)
        total += math.prod(output.shape[1:]) * per_output

    for module in weighted(net):
        module.register_forward_hook(count)
    net.eval()
    net(torch.zeros(1, *images.shape[1:], dtype=torch.float64))
    return float(total)


def nasbench201_parameters(arch: tuple[int, ...], channels: int, cells: int, inputs: int, classes: int) -> int:
    """The closed form: stem, cells, reduction blocks, last batch normalisation, classifier."""
    ones, threes = arch.count(2), arch.count(3)
    c = channels
    total = 9 * inputs * c + 2 * c
    for width in (c, 2 * c, 4 * c):
        total += cells * (threes * (9 * width**2 + 2 * width) + ones * (width**2 + 2 * width))
    for a, b in ((c, 2 * c), (2 * c, 4 * c)):
        total += 9 * a * b + 2 * b + 9 * b**2 + 2 * b + a * b
    return total + 2 * 4 * c + 4 * c * classes + classes


def live_cell(arch: tuple[int, ...]) -> tuple[int, ...]:
    """The cell with every operation that lies on no path from input to output replaced by none (0)."""
    edge = {(0, 1): 0, (0, 2): 1, (1, 2): 2, (0, 3): 3, (1, 3): 4, (2, 3): 5}
    live: set[int] = set()
    for path in ((0, 3), (0, 1, 3), (0, 2, 3), (0, 1, 2, 3)):
        edges = [edge[step] for step in itertools.pairwise(path)]
        if all(arch[e] for e in edges):
            live.update(edges)
    return tuple(op if e in live else 0 for e, op in enumerate(arch))


def live_params(network: nn.Module, images: Tensor, labels: Tensor, rng: torch.Generator) -> float:
    """Parameters of a NAS-Bench-201 network without its dead operations; of another, which has none, but an auxiliary head."""
    if type(network).__name__ != "NASBench201Network":
        return float(sum(p.numel() for name, p in network.named_parameters() if not name.startswith("auxiliary")))
    if not any(live_cell(network.arch)):
        return 0.0  # as agreed: where nothing arrives, stem, reductions and classifier are as dead
    stages = network.cells
    return float(
        nasbench201_parameters(
            live_cell(network.arch),
            network.stem[0].out_channels,
            (len(stages) - 2) // 3,
            network.stem[0].in_channels,
            network.classifier.out_features,
        )
    )


# ---------------------------------------------------------------- their own inputs or weights


def zen(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    rng: torch.Generator,
    *,
    batch_size: int = 64,
    repeats: int = 1,
    gamma: float = 0.01,
) -> float:
    """Mean over repeats of log mean_n |f(x) - f(x + gamma e)|_1 + sum over norms of log sqrt(mean running variance).

    Draws per repeat: the weights N(0, 1), x, e. The running variances go on from repeat to repeat.
    """
    net = double(network)
    found = []
    with torch.no_grad():
        for _ in range(repeats):
            draw_weights(net, unit, rng)
            x = torch.randn(batch_size, *images.shape[1:], generator=rng).double()
            e = torch.randn(batch_size, *images.shape[1:], generator=rng).double()
            first = last_feature_map(net, x)
            second = last_feature_map(net, x + gamma * e)
            delta = (first - second).abs().sum(dim=(1, 2, 3)).mean()
            scale = sum(float(torch.log(torch.sqrt(norm.running_var.mean()))) for norm in norms(net))
            found.append(float(torch.log(delta)) + scale)
    return last(sum(found) / len(found))


def meco(network: nn.Module, images: Tensor, labels: Tensor, rng: torch.Generator, *, size: int = 64) -> float:
    """Sum over all modules of the smallest eigenvalue of the correlations of the channels of the module's first output.

    Draws: one image N(0, 1) of `size` x `size`.
    """
    net = double(network)
    total = 0.0

    def add(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        matrix = torch.nan_to_num(correlations(output[0].detach().reshape(len(output[0]), -1)), 0.0, 0.0, 0.0)
        total += float(torch.linalg.eigvalsh(matrix)[0])

    for module in net.modules():
        module.register_forward_hook(add)
    with torch.no_grad():
        net(torch.randn(1, images.shape[1], size, size, generator=rng).double())
    return last(total)


def ntk_condition(network: nn.Module, images: Tensor) -> float:
    """Largest over smallest eigenvalue of the Gram matrix of the per-image gradients of the sum of the logits.

    Infinite where the matrix has no inverse up to the precision of float32.
    """
    parameters = [p for n, p in network.named_parameters() if "weight" in n]
    logits = network(images.double())
    rows = []
    for i in range(len(images)):
        network.zero_grad()
        logits[i : i + 1].backward(torch.ones_like(logits[i : i + 1]), retain_graph=True)
        rows.append(torch.cat([p.grad.flatten() for p in parameters if p.grad is not None]))
    g = torch.stack(rows)
    values = torch.linalg.eigvalsh(g @ g.T).tolist()
    return values[-1] / values[0] if values[0] > 1.2e-7 * values[-1] else math.inf


def ntk(network: nn.Module, images: Tensor, labels: Tensor, rng: torch.Generator, *, repeats: int = 1) -> float:
    """Minus the mean condition number; per repeat one draw of all weights (He, fan-out)."""
    found = []
    for _ in range(repeats):
        net = double(network)
        draw_weights(net, he_fan_out, rng)
        found.append(ntk_condition(net, images))
    return last(-sum(found) / len(found))


def spectrum_entropy(feature: Tensor) -> float:
    """Entropy of the normalised eigenvalues of the covariance of a feature map's channels."""
    rows = feature.detach().permute(0, 2, 3, 1).reshape(-1, feature.shape[1])
    rows = rows - rows.mean(dim=0)
    values = torch.linalg.eigvalsh(rows.T @ rows / len(rows))
    p = values / values.sum()
    return float(-(p * torch.log(p + 1e-8)).sum())


def az_nas(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    rng: torch.Generator,
    *,
    blocks: Callable[[nn.Module], list[nn.Module]],
    batch_size: int = 64,
) -> tuple[float, float, float, float]:
    """Expressivity, progressivity, trainability, complexity; `blocks`: the modules whose outputs are looked at.

    Draws: the weights (He, fan-in), the images N(0, 1), and from the last block to the second one the signs for its output.
    """
    net = double(network)
    draw_weights(net, he_fan_in, rng)
    x = torch.randn(batch_size, *images.shape[1:], generator=rng).double()
    features: list[Tensor] = []

    def keep(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        features.append(output)
        return output + 0.0  # a tensor of its own for what follows, which may be an operation in place

    for block in blocks(net):
        block.register_forward_hook(keep)
    net(x)
    entropies = [spectrum_entropy(f) for f in features]
    steps = [b - a for a, b in itertools.pairwise(entropies)]
    found = []
    for inner, outer in reversed(list(itertools.pairwise(features))):
        g_out = torch.randint(2, outer.shape, generator=rng, dtype=torch.int8).double() * 2 - 1
        g_in = None
        if outer.requires_grad and inner.requires_grad:
            (g_in,) = torch.autograd.grad(outer, inner, g_out, retain_graph=True, allow_unused=True)
        if g_in is None:
            g_in = torch.zeros_like(inner)
        if g_in.shape == g_out.shape and torch.equal(g_in, g_out):
            found.append(LOWEST)
            continue
        if g_in.shape[2:] != g_out.shape[2:]:
            g_in = functional.pixel_unshuffle(g_in, g_in.shape[2] // g_out.shape[2])
        n = len(g_out) * g_out.shape[2] * g_out.shape[3]
        a = g_in.permute(0, 2, 3, 1).reshape(n, -1)
        b = g_out.permute(0, 2, 3, 1).reshape(n, -1)
        sigma = float(torch.linalg.svdvals(a.T @ b / n)[0])
        found.append(-sigma - 1 / (sigma + 1e-6) + 2)
    return (
        last(sum(entropies)),
        last(min(steps)),
        last(sum(found) / len(found)),
        flops(network, images, labels, rng),
    )
