"""The exact Hessian by the architecture parameters: against differences of the gradient, in double precision."""

from __future__ import annotations

import pytest
import torch
from tiny_supernets import make
from torch.nn import functional

from nasharness.optimizers.darts import DARTS
from nasharness.optimizers.supernet.hessian import architecture_hessian, hessian, largest_eigenvalue
from nasharness.optimizers.supernet.mix import soft


def test_a_hessian_by_hand():
    """x^2 y + 3 y^2, and a parameter that it does not depend on."""
    x, y, z = (torch.tensor([v], dtype=torch.float64, requires_grad=True) for v in (2.0, 5.0, 1.0))
    found = hessian((x**2 * y + 3 * y**2).sum(), [x, y, z])
    assert torch.equal(found, torch.tensor([[10.0, 4.0, 0.0], [4.0, 6.0, 0.0], [0.0, 0.0, 0.0]], dtype=torch.float64))


def test_a_linear_loss_has_no_curvature():
    x = torch.ones(3, requires_grad=True)
    assert not hessian(2 * x.sum(), [x]).any()


def test_the_largest_eigenvalue_is_not_the_largest_in_size():
    assert largest_eigenvalue(torch.tensor([[-9.0, 0.0], [0.0, 2.0]])) == pytest.approx(2.0)
    assert largest_eigenvalue(torch.tensor([[2.0, 1.0], [1.0, 2.0]])) == pytest.approx(3.0)


@pytest.mark.parametrize("merge", [True, False])
def test_the_hessian_of_a_supernet(merge):
    """Batch normalisation and pooling are differentiated twice, too."""
    search = make(DARTS)
    search.prepare()
    supernet = search.supernet.double()
    supernet.merge = merge
    batch = search.images.fixed("architecture", 16)[0]
    batch = batch._replace(images=batch.images.double())
    alpha = torch.randn(6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)

    def gradient(at: torch.Tensor) -> torch.Tensor:
        at = at.detach().requires_grad_()
        loss = functional.cross_entropy(supernet(batch.images, [soft(torch.softmax(at, 1))]), batch.targets)
        return torch.autograd.grad(loss, at)[0].flatten()

    found = architecture_hessian(supernet, lambda: [soft(torch.softmax(alpha, 1))], [alpha], [batch])
    step = 1e-5
    for i, row in enumerate(found):
        change = torch.zeros(30, dtype=torch.float64)
        change[i] = step
        expected = (gradient(alpha + change.view(6, 5)) - gradient(alpha - change.view(6, 5))) / (2 * step)
        assert torch.allclose(row, expected, rtol=1e-5, atol=1e-8)
    assert torch.allclose(found, found.T, atol=1e-12)
    assert found.abs().max() > 1e-4
    # The softmax does not change when a row is shifted: a direction without curvature or mixed derivatives.
    for edge in range(6):
        shift = torch.zeros(6, 5, dtype=torch.float64)
        shift[edge] = 1.0
        assert (found @ shift.flatten()).abs().max() < 1e-10


def test_several_batches_count_by_their_images():
    search = make(DARTS)
    search.prepare()
    whole = search.images.fixed("architecture", 16)[0]
    parts = [type(whole)(whole.images, whole.targets)] * 2
    one = architecture_hessian(search.supernet, search.mixes, search.alphas, [whole])
    assert torch.allclose(
        architecture_hessian(search.supernet, search.mixes, search.alphas, parts), one, rtol=1e-4, atol=1e-7
    )
