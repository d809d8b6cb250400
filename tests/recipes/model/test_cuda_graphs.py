"""When a function's calls become replays. There is no GPU here: a stand-in captures by remembering its inputs."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from recipes.model.cuda_graphs import MOST_GRAPHS, ORDINARY_CALLS, GraphedFunction


class Graphs(GraphedFunction):
    """Captures without a GPU: a replay calls the function on the inputs that were kept."""

    def __init__(self, function: Callable[..., torch.Tensor]) -> None:
        super().__init__(function)
        self.captured = self.replayed = 0

    def _capture(self, inputs: Any, variant: Any) -> Any:
        kept = {name: tensor.clone() for name, tensor in inputs.items()}
        output = torch.empty(())
        self.captured += 1

        class Graph:
            def replay(_) -> None:
                self.replayed += 1
                result = self.function(kept, variant)
                output.resize_(result.shape).copy_(result)

        return Graph(), kept, output


def total(inputs: Any, _variant: Any) -> torch.Tensor:
    return (inputs["a"].sum() * inputs["b"]).squeeze()


def inputs_of(size: int, value: float) -> dict[str, torch.Tensor]:
    return {"a": torch.full((size,), value), "b": torch.tensor([2.0])}


def test_first_calls_run_as_ever_and_later_ones_are_replays_of_new_inputs() -> None:
    graphs = Graphs(total)
    results = [graphs(inputs_of(3, value)) for value in range(5)]
    assert [float(result) for result in results] == [0, 6, 12, 18, 24]
    assert (graphs.captured, graphs.replayed) == (1, 5 - ORDINARY_CALLS)


def test_each_kind_of_inputs_has_its_own_graph() -> None:
    graphs = Graphs(total)
    for call in range(ORDINARY_CALLS + 1):
        for size in (3, 4):
            assert float(graphs(inputs_of(size, float(call)))) == 2 * size * call
        graphs(inputs_of(3, float(call)), variant=2)
        graphs({**inputs_of(3, float(call)), "mask": torch.ones(1)})
        graphs({**inputs_of(3, float(call)), "a": torch.ones(3, dtype=torch.long)})
    assert graphs.captured == graphs.replayed == 5


def test_graphs_are_no_more_than_memory_is_meant_for() -> None:
    graphs = Graphs(total)
    for size in range(1, MOST_GRAPHS + 4):
        for _ in range(ORDINARY_CALLS + 2):
            assert float(graphs(inputs_of(size, 1.0))) == 2 * size
    assert graphs.captured == MOST_GRAPHS


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_replays_add_gradients_as_calls_do() -> None:
    weight = torch.nn.Parameter(torch.ones(4, device="cuda"))
    weight.grad = torch.zeros_like(weight)

    def run(inputs: Any, _variant: Any) -> torch.Tensor:
        loss = (weight * inputs["x"]).square().sum()
        loss.backward()
        return loss.detach()

    graphed, expected = GraphedFunction(run), torch.zeros(4)
    for call in range(5):
        x = torch.arange(4.0) + call
        assert float(graphed({"x": x.cuda()})) == float(x.square().sum())
        expected += 2 * x.square()
        assert torch.equal(weight.grad.cpu(), expected)
