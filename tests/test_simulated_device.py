"""The simulated device behaves as CUDA does; on machines with CUDA every test runs there too."""

import copy
import io
import pickle
from collections import OrderedDict

import numpy as np
import pytest
import torch
from torch import nn

MIXED = "Expected all tensors to be on the same device|should have (the )?same device|must be on same device"


@pytest.fixture
def rows(device):
    return torch.tensor([3.0, 1.0, 2.0], device=device)


CREATED = {
    "arange": lambda device: torch.arange(5, device=device),
    "arange of floats": lambda device: torch.arange(0.0, 1.0, 0.25, device=device),
    "as_tensor": lambda device: torch.as_tensor(np.ones(2), device=device),
    "empty": lambda device: torch.empty(0, 3, device=device),
    "eye": lambda device: torch.eye(3, device=device),
    "full": lambda device: torch.full((2, 2), 7, device=device),
    "linspace": lambda device: torch.linspace(0, 1, 5, device=device),
    "ones": lambda device: torch.ones(2, device=device),
    "ones_like": lambda device: torch.ones_like(torch.zeros(2), device=device),
    "tensor": lambda device: torch.tensor([[1, 2], [3, 4]], device=device),
    "tril_indices": lambda device: torch.tril_indices(3, 3, device=device),
    "zeros": lambda device: torch.zeros(3, dtype=torch.bool, device=device),
    "new_tensor": lambda device: torch.ones(2, device=device).new_tensor([1, 2]),
    "new_zeros": lambda device: torch.ones(2, device=device).new_zeros(3),
}


@pytest.mark.parametrize("name", CREATED)
def test_created_tensor_is_on_the_device_with_the_values_of_the_cpu(name, device):
    created, expected = CREATED[name](device), CREATED[name](torch.device("cpu"))
    assert created.device == device
    torch.testing.assert_close(created.cpu(), expected)


def test_default_device_of_a_block_is_followed(device):
    with device:
        assert torch.zeros(2).device == device


def test_tensor_moves_there_and_back(device):
    on_cpu = torch.randn(2, 3)
    moved = on_cpu.to(device)
    assert moved.device == device
    assert moved.device != torch.device("cpu")
    assert moved.to(device) is moved
    assert moved.to(device, copy=True) is not moved
    assert moved.to(device, torch.float64).dtype == torch.float64
    assert on_cpu.double().to(moved).device == device
    assert moved.cpu().device.type == moved.to("cpu").device.type == "cpu"
    assert torch.equal(moved.cpu(), on_cpu)
    assert torch.empty(2, 3).copy_(moved).device.type == "cpu"
    assert torch.empty(2, 3, device=device).copy_(on_cpu).device == device


def test_numbers_are_read_as_from_any_tensor(rows):
    assert rows.tolist() == [3, 1, 2]
    assert rows[0].item() == float(rows[0]) == 3
    assert [int(row) for row in rows] == [3, 1, 2]
    assert bool(rows[0] > rows[1])
    assert (len(rows), rows.shape, rows.ndim) == (3, (3,), 1)
    assert str(rows.device) in repr(rows)
    assert "[3., 1., 2.]" in repr(rows)


@pytest.mark.parametrize("read", [np.asarray, np.array, lambda rows: rows.numpy()])
def test_numpy_does_not_read_the_device(read, rows):
    with pytest.raises(TypeError, match=r"can't convert .* device type tensor to numpy\. Use Tensor\.cpu"):
        read(rows)
    assert rows.numpy(force=True).tolist() == [3, 1, 2]


ON_TWO_DEVICES = {
    "add": lambda rows, other: rows + other,
    "add, other way round": lambda rows, other: other + rows,
    "add in place": lambda rows, other: rows.add_(other),
    "add to the CPU": lambda rows, other: other.add_(rows),
    "cat": lambda rows, other: torch.cat([rows, other]),
    "stack of numbers": lambda rows, other: torch.stack([rows[0], other[0]]),
    "compare": lambda rows, other: rows > other,
    "equal": lambda rows, other: torch.equal(rows, other),
    "where": lambda rows, other: torch.where(rows > 0, rows, other),
    "mask": lambda rows, other: rows.masked_fill(other > 0, 0),
    "matmul": lambda rows, other: rows[None] @ other[:, None],
    "dot with a number": lambda rows, other: torch.dot(rows, other[0]),
    "cdist": lambda rows, other: torch.cdist(rows[:, None], other[:, None]),
    "gather": lambda rows, other: rows.gather(0, other.long() * 0),
    "index_select": lambda rows, other: rows.index_select(0, other.long() * 0),
    "scatter_add": lambda rows, other: rows.scatter_add(0, other.long() * 0, rows),
    "searchsorted": lambda rows, other: torch.searchsorted(rows, other),
    "assign rows": lambda rows, other: rows.index_put((torch.arange(3),), other),
    "number written on the CPU": lambda rows, other: other[0].add_(rows[0]),
    "out": lambda rows, other: torch.add(rows, rows, out=other),
    "loss": lambda rows, other: nn.functional.binary_cross_entropy_with_logits(rows, other),
}


@pytest.mark.parametrize("name", ON_TWO_DEVICES)
def test_operation_on_two_devices_raises(name, rows):
    with pytest.raises(RuntimeError, match=MIXED):
        ON_TWO_DEVICES[name](rows, torch.ones(3))


def test_device_does_not_index_a_tensor_on_the_cpu(rows):
    with pytest.raises(RuntimeError, match="indices should be either on cpu or on the same device"):
        torch.ones(4)[rows.long()]


WITH_THE_CPU = {
    "add a number": lambda rows: rows + torch.tensor(2.0),
    "add to a number": lambda rows: torch.tensor(2.0) * rows,
    "number in place": lambda rows: rows.clone().mul_(torch.tensor(2.0)),
    "where": lambda rows: torch.where(rows > 1, torch.tensor(0.0), rows),
    "clamp": lambda rows: rows.clamp(min=torch.tensor(2.0)),
    "fill": lambda rows: rows.masked_fill(rows > 1, torch.tensor(9.0)),
    "index": lambda rows: rows[torch.tensor([2, 0])],
    "index by a number": lambda rows: rows[torch.tensor(1)],
    "mask": lambda rows: rows[torch.tensor([True, False, True])],
    "assign by an index": lambda rows: rows.index_put((torch.tensor([1]),), torch.tensor(5.0)),
}


@pytest.mark.parametrize("name", WITH_THE_CPU)
def test_numbers_and_indices_may_be_on_the_cpu(name, rows):
    found = WITH_THE_CPU[name](rows)
    assert found.device == rows.device
    assert torch.equal(found.cpu(), WITH_THE_CPU[name](rows.cpu()))


def test_operations_in_place_change_the_tensor_and_its_views(device):
    rows = torch.zeros(2, 3, device=device)
    view = rows[0]
    view += 1
    rows[:, 1] = 5
    rows[rows == 0] = 7
    assert rows.tolist() == [[1, 5, 1], [7, 5, 7]]
    assert rows.add_(1) is rows
    assert rows.t_().shape == (3, 2)
    assert rows.resize_(2).shape == (2,)
    assert view.tolist() == [2, 6, 2]
    assert torch.add(rows, 1, out=torch.empty(0, device=device)).tolist() == [3, 7]


def test_gradients_are_those_of_the_cpu(device):
    def gradients(device):
        weights = torch.linspace(-1, 1, 6, dtype=torch.float64).view(2, 3).requires_grad_()
        rows = weights.to(device)
        rows = rows * torch.arange(3, device=device)
        rows[0] = rows[1].exp()
        loss = (rows @ rows.T).logsumexp(dim=1).sum()
        loss.backward()
        assert loss.device.type == device.type
        return weights.grad

    found = gradients(device)
    assert found.device.type == "cpu"
    torch.testing.assert_close(found, gradients(torch.device("cpu")))


def make_network():
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2))


@pytest.mark.parametrize("optimizer", [torch.optim.Adam, torch.optim.SGD])
def test_module_moves_there_trains_and_moves_back(optimizer, device):
    rows, losses = torch.linspace(-1, 1, 15).view(5, 3).sin(), []
    for place in (torch.device("cpu"), device):
        network = make_network().to(place)
        assert all(isinstance(part, nn.Parameter) and part.device.type == place.type for part in network.parameters())
        steps = optimizer(network.parameters(), lr=0.1)
        for _ in range(3):
            steps.zero_grad()
            loss = network(rows.to(place)).square().sum()
            loss.backward()
            steps.step()
        losses.append(loss.item())
        assert {part.device.type for part in network.state_dict().values()} == {place.type}
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    with pytest.raises(RuntimeError, match=MIXED):
        network(rows)
    network.load_state_dict(make_network().state_dict())
    torch.testing.assert_close(network.cpu()(rows), make_network()(rows))


def test_copied_and_pickled_modules_stay_on_the_device(device):
    network = make_network().to(device)
    for copied in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        for part, other in zip(copied.parameters(), network.parameters(), strict=True):
            assert part is not other
            assert isinstance(part, nn.Parameter)
            assert part.device == device
            assert part.requires_grad
            assert torch.equal(part, other)
    assert isinstance(copied.state_dict(), OrderedDict)


@pytest.mark.parametrize("weights_only", [True, False])
def test_saved_state_is_loaded_where_asked(weights_only, device):
    file, network = io.BytesIO(), make_network().to(device)
    torch.save({"module": network.state_dict(), "first": network[0].weight, "on the CPU": torch.ones(2)}, file)
    for asked, expected in ((None, device), ("cpu", torch.device("cpu")), (device, device), (str(device), device)):
        file.seek(0)
        loaded = torch.load(file, map_location=asked, weights_only=weights_only)
        assert loaded["on the CPU"].device == (expected if asked else torch.device("cpu"))
        assert loaded["first"].device == expected
        assert isinstance(loaded["first"], nn.Parameter)
        for name, part in network.state_dict().items():
            assert loaded["module"][name].device == expected
            assert torch.equal(loaded["module"][name].cpu(), part.cpu())


def test_random_numbers_come_from_the_generator_of_the_device(device):
    def draws():
        return [
            torch.rand(3, device=device).tolist(),
            torch.randint(9, (3,), device=device).tolist(),
            torch.randperm(5, device=device).tolist(),
            nn.functional.dropout(torch.ones(20, device=device)).tolist(),
            torch.multinomial(torch.ones(9, device=device), 3).tolist(),
        ]

    with torch.random.fork_rng(devices=[device], device_type=device.type):
        torch.manual_seed(0)
        of_the_cpu, first = torch.rand(3), draws()
        torch.manual_seed(0)
        assert draws() == first
        assert torch.equal(torch.rand(3), of_the_cpu)
        assert first[0] != of_the_cpu.tolist()
        module = torch.get_device_module(device)
        state = module.get_rng_state()
        again = draws()
        module.set_rng_state(state)
        assert draws() == again != first


@pytest.mark.parametrize("draw", [torch.rand, torch.randperm])
def test_generator_of_the_cpu_does_not_draw_on_the_device(draw, device):
    with pytest.raises(RuntimeError, match=f"Expected a '{device.type}' device type for generator but found 'cpu'"):
        draw(3, generator=torch.Generator(), device=device)


def test_autocast_may_be_turned_off(device):
    with torch.autocast(device.type, enabled=False):
        rows = torch.ones(2, 2, device=device) @ torch.ones(2, 2, device=device)
    assert rows.dtype == torch.float32


def test_assertions_of_torch_tell_the_devices_apart(rows):
    torch.testing.assert_close(rows, rows.clone())
    with pytest.raises(AssertionError, match="device"):
        torch.testing.assert_close(rows, rows.cpu())
