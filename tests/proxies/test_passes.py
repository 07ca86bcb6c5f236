"""Passes that proxies share: nobody notices that others were there, and the network is left as it was found."""

import math

import pytest
import torch
from torch import nn

from nasharness.harness.registry import entry_points, proxy_spec
from nasharness.proxies.base import Proxy
from nasharness.proxies.naswot import log_determinant
from nasharness.proxies.passes import Pass, PassProxy, measure_together

NAMES = list(entry_points("proxies"))


class Net(nn.Module):
    def __init__(self, *, inplace=False, dropout=0.0, nan=False):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=inplace))
        self.drop = nn.Dropout(dropout)
        self.more = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=inplace))
        self.head = nn.Linear(8, 10)
        self.nan = nan

    def forward(self, x):
        x = self.drop(self.features(x))
        x = self.more(x)
        if self.nan:
            x = x * math.nan
        return self.head(x.mean((2, 3)))


def network(seed=0, **settings):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Net(**settings)


def pictures(n=128, size=12):
    rng = torch.Generator().manual_seed(1)
    return torch.randn(n, 3, size, size, generator=rng), torch.randint(10, (n,), generator=rng)


def proxies(names=NAMES):
    return [proxy_spec(name).make(torch.Generator().manual_seed(2)) for name in names]


def values(found):
    return [m.values for m in found]


@pytest.fixture(scope="module")
def all_together():
    return dict(zip(NAMES, measure_together(proxies(), network(), *pictures()), strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_company_changes_nothing(name, all_together):
    (alone,) = measure_together(proxies([name]), network(), *pictures())
    assert alone.values == all_together[name].values
    assert alone.seconds > 0


def test_the_network_is_put_back():
    net = network()
    net.head.weight.requires_grad_(False)
    net.eval()
    before = {name: t.clone() for name, t in net.state_dict().items()}
    strides = [p.stride() for p in net.parameters()]
    measure_together(proxies(), net, *pictures())
    assert all(torch.equal(t, before[name]) for name, t in net.state_dict().items())
    assert [p.stride() for p in net.parameters()] == strides
    assert not net.training
    assert not net.head.weight.requires_grad
    assert all(p.grad is None for p in net.parameters())
    assert not any(m._forward_hooks for m in net.modules())


def test_one_pass_serves_all_that_want_the_same():
    """Three proxies of one gradient make the network run once."""
    net, calls = network(), []
    net.register_forward_hook(lambda *_: calls.append(1))
    measure_together(proxies(["grad_norm", "snip", "plain", "fisher"]), net, *pictures())
    assert len(calls) == 1
    calls.clear()
    measure_together(
        proxies(["grad_norm", "zico", "naswot", "synflow", "log_synflow", "live_params"]), net, *pictures()
    )
    assert len(calls) == 4  # the loss of either half, all images for NASWOT, the flow


def test_a_frozen_network_is_scored_like_any(all_together):
    net = network()
    net.requires_grad_(False)
    names = ["grad_norm", "synflow", "grasp", "zico"]
    assert values(measure_together(proxies(names), net, *pictures())) == [all_together[n].values for n in names]


@pytest.mark.parametrize("name", NAMES)
def test_dropout_follows_the_generator(name):
    """A network that draws itself gives the same score again, and torch's own generator is not moved."""
    state = torch.get_rng_state()
    one = measure_together(proxies([name]), network(dropout=0.5), *pictures())
    torch.manual_seed(99)
    two = measure_together(proxies([name]), network(dropout=0.5), *pictures())
    torch.set_rng_state(state)
    assert values(one) == values(two)


def test_in_place_relus_change_nothing(all_together):
    names = [n for n in NAMES if n not in ("meco", "near", "az_nas")]  # these look at outputs that are overwritten
    for name, found in zip(names, measure_together(proxies(names), network(inplace=True), *pictures()), strict=True):
        assert found.values == pytest.approx(all_together[name].values, rel=1e-6), name


STRUCTURE = {"params", "flops", "live_params", "l2_norm", "random_score", "synflow", "log_synflow"}


@pytest.mark.parametrize("name", sorted(set(NAMES) - STRUCTURE))
def test_a_network_whose_outputs_are_not_finite_is_lowest(name):
    (found,) = measure_together(proxies([name]), network(nan=True), *pictures(), catch=True)
    assert set(found.values) == {-math.inf} or name == "az_nas"
    assert not found.error


def test_a_network_may_write_into_its_images():
    class Writes(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = network()

        def forward(self, x):
            x.mul_(2.0).add_(1.0)
            return self.net(x)

    images, labels = pictures()
    before = images.clone()
    names = ["naswot", "jacob_cov", "grad_norm", "zen", "gradsign"]
    measure_together(proxies(names), Writes(), images, labels)
    assert torch.equal(images, before)


class BrokenHook(PassProxy):
    def watch(self, network, images):
        def hook(*_):
            raise ArithmeticError("broken")

        yield Pass("forward", hooks=[(network, hook)])
        return 0.0


def test_a_broken_proxy_harms_nobody(all_together):
    names = ["naswot", "near", "snip"]
    broken, *others = measure_together([BrokenHook(), *proxies(names)], network(), *pictures(), catch=True)
    assert broken.error == "ArithmeticError: broken"
    assert values(others) == [all_together[n].values for n in names]
    with pytest.raises(ArithmeticError):
        measure_together([BrokenHook()], network(), *pictures())


class Infinite(Proxy):
    parts = ("a", "b")

    def measure(self, network, images, labels):
        return math.inf, 2.0

    def score(self, network, images, labels):
        return 0.0


def test_what_is_not_finite_is_lowest():
    (found,) = measure_together([Infinite()], network(), *pictures())
    assert found.values == (-math.inf, 2.0)


def test_log_determinant():
    rng = torch.Generator().manual_seed(3)
    codes = torch.randint(2, (6, 40), generator=rng).double()
    similarity = codes @ codes.T + (1 - codes) @ (1 - codes).T
    assert log_determinant(similarity) == pytest.approx(float(torch.linalg.slogdet(similarity)[1]), rel=1e-9)
    assert log_determinant(similarity[[0, 0, 1, 2]][:, [0, 0, 1, 2]]) == -math.inf
    few = torch.randint(2, (50, 8), generator=rng).double()  # more images than units: singular without equal rows
    assert log_determinant(few @ few.T + (1 - few) @ (1 - few).T) == -math.inf


def test_relus_called_by_keyword_are_seen():
    class Keyword(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.relu, self.head = nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Linear(8, 10)

        def forward(self, x):
            return self.head(self.relu(input=self.conv(x)).mean((2, 3)))

    found = measure_together(proxies(["naswot", "swap", "linear_regions"]), Keyword(), *pictures())
    assert all(math.isfinite(m.values[0]) for m in found)
