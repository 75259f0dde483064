"""The cross network is its formula, has as many parameters, and learns products by itself."""

from __future__ import annotations

import pytest
import torch

from ranking.cross_network import CrossNetwork


def test_layer_multiplies_the_inputs_with_a_linear_map_of_what_came_before() -> None:
    network = CrossNetwork(3, 2, torch.Generator().manual_seed(0))
    with torch.no_grad():
        for bias in network.biases:
            bias.copy_(torch.tensor([0.1, -0.2, 0.3]))
    x0 = torch.tensor([2.0, -1.0, 0.5])
    x = x0
    for weight, bias in zip(network.weights, network.biases, strict=True):
        x = x + x0 * (weight @ x + bias)
    torch.testing.assert_close(network(x0[None])[0], x)


@pytest.mark.parametrize(("width", "layers"), [(5, 1), (64, 3), (250, 4)])
def test_every_layer_has_a_square_matrix_and_a_bias(width: int, layers: int) -> None:
    network = CrossNetwork(width, layers, torch.Generator())
    assert sum(each.numel() for each in network.parameters()) == layers * (width**2 + width)


def test_one_layer_can_be_an_exact_product_of_two_inputs() -> None:
    network = CrossNetwork(2, 1, torch.Generator())
    with torch.no_grad():
        network.weights[0].copy_(torch.tensor([[0.0, 1.0], [0.0, 0.0]]))
    crossed = network(torch.tensor([[3.0, 4.0], [-2.0, 5.0]]))
    assert crossed.tolist() == [[3.0 + 12.0, 4.0], [-2.0 - 10.0, 5.0]]
