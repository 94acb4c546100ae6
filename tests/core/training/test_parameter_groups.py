"""A group of parameters that is meant to train and does not stops the run."""

import logging
import sys

import pytest
import torch
from torch import nn
from transformers import Trainer, TrainingArguments

from src.core.stage.errors import BandwiseError, DependencyError
from src.core.training.parameter_groups import ParameterGroups
from src.core.training.trainer_arguments import Plan, arguments


class Net(nn.Module):
    """Three parts of which `unused` never reaches the loss."""

    def __init__(self):
        super().__init__()
        self.encoder, self.head, self.unused = nn.Linear(3, 3), nn.Linear(3, 1), nn.Linear(2, 2)

    def forward(self, x, labels):
        return {"loss": ((self.head(torch.tanh(self.encoder(x))) - labels) ** 2).mean()}


class Watch(ParameterGroups):
    """Notes the encoder's weight at the end of every epoch."""

    def on_epoch_end(self, args, state, control, **kwargs):
        super().on_epoch_end(args, state, control, **kwargs)
        self.seen.append(self.groups["encoder"][0][0].detach().clone())


def fit(tmp_path, net: Net, groups: ParameterGroups, epochs: int = 3) -> ParameterGroups:
    random = torch.Generator().manual_seed(0)
    rows = [{"x": torch.randn(3, generator=random), "labels": torch.randn(1, generator=random)} for _ in range(8)]
    settings = arguments(Plan(seed=0, epochs=epochs, batch_size=4), tmp_path)
    settings |= {"eval_strategy": "no", "save_strategy": "no", "disable_tqdm": True, "use_cpu": True}
    optimizer = groups.optimizer(weight_decay=0.0)
    constant = torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
    Trainer(
        model=net,
        args=TrainingArguments(**settings),
        train_dataset=rows,
        optimizers=(optimizer, constant),
        callbacks=[groups],
    ).train()
    return groups


def parts(net: Net, *names: str) -> dict:
    return {name: (list(getattr(net, name).parameters()), 0.01, 0) for name in names}


def make_net() -> Net:
    torch.manual_seed(0)
    return Net()


def test_groups_that_train_pass(tmp_path):
    net = make_net()
    fit(tmp_path, net, ParameterGroups(parts(net, "encoder", "head"))).assert_moved()


def test_a_group_that_no_gradient_reaches_stops_at_its_first_step(tmp_path):
    net = make_net()
    groups = ParameterGroups(parts(net, "encoder", "unused", "head"))
    with pytest.raises(BandwiseError, match="group 'unused' is meant to train and gets no gradient"):
        fit(tmp_path, net, groups)
    assert groups.steps["unused"] == 1


def test_a_group_whose_gradient_stays_zero_stops_at_its_third_step(tmp_path):
    net = make_net()
    groups = ParameterGroups(parts(net, "encoder"))  # the head above it is frozen, at zero
    nn.init.zeros_(net.head.weight).requires_grad_(False)
    with pytest.raises(BandwiseError, match="group 'encoder' is meant to train and gets no gradient"):
        fit(tmp_path, net, groups)
    assert groups.steps["encoder"] == 3


def test_eight_bits_without_bitsandbytes_say_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(DependencyError, match=r"`optimizer_8bit`: bitsandbytes is not installed; run pip"):
        ParameterGroups(parts(make_net(), "head")).optimizer(0.0, eight_bit=True)


def test_a_zero_layer_above_holds_a_group_back_for_one_step_only(tmp_path):
    net = make_net()
    nn.init.zeros_(net.head.weight)  # the encoder's first gradient is exactly zero
    fit(tmp_path, net, ParameterGroups(parts(net, "encoder", "head"))).assert_moved()


def test_a_group_at_rate_zero_has_not_moved(tmp_path):
    net = make_net()
    groups = parts(net, "encoder", "head") | {"head": (list(net.head.parameters()), 0.0, 0)}
    trained = fit(tmp_path, net, ParameterGroups(groups))
    with pytest.raises(BandwiseError, match="group 'head' was meant to train and did not move"):
        trained.assert_moved()


def test_a_group_frozen_until_an_epoch_moves_then_and_not_before(tmp_path):
    net = make_net()
    start = net.encoder.weight.detach().clone()
    groups = Watch(parts(net, "encoder", "head") | {"encoder": (list(net.encoder.parameters()), 0.01, 2)})
    groups.seen = []
    fit(tmp_path, net, groups, epochs=4).assert_moved()
    assert [torch.equal(weight, start) for weight in groups.seen] == [True, True, False, False]


def test_a_group_whose_turn_never_came_is_not_held_to_it_but_named(tmp_path, caplog):
    """Early stopping may end the run while the encoder is still frozen."""
    net = make_net()
    groups = ParameterGroups(parts(net, "encoder", "head") | {"encoder": (list(net.encoder.parameters()), 0.01, 9)})
    fit(tmp_path, net, groups, epochs=2).assert_moved()
    assert "group 'encoder' did not train: it starts in epoch 10, training had 2" in caplog.text
    assert "group 'head' did not" not in caplog.text


def test_weights_put_back_to_an_earlier_epoch_still_count_as_moved(tmp_path):
    net = make_net()
    start = {name: value.clone() for name, value in net.state_dict().items()}
    trained = fit(tmp_path, net, ParameterGroups(parts(net, "encoder", "head")))
    net.load_state_dict(start)  # as load_best_model_at_end may
    trained.assert_moved()


def test_the_optimizer_owns_the_groups_alone_and_decays_matrices_alone():
    net = make_net()
    rates = {"encoder": (list(net.encoder.parameters()), 1e-3, 0), "head": (list(net.head.parameters()), 1e-2, 0)}
    optimizer = ParameterGroups(rates | {"none": ([], 1.0, 0)}).optimizer(0.05)
    owned = {id(p): (group["lr"], group["weight_decay"]) for group in optimizer.param_groups for p in group["params"]}
    assert owned == {
        id(net.encoder.weight): (1e-3, 0.05),
        id(net.encoder.bias): (1e-3, 0.0),
        id(net.head.weight): (1e-2, 0.05),
        id(net.head.bias): (1e-2, 0.0),
    }


def test_the_description_names_counts_rates_and_first_epochs(caplog):
    net = make_net()
    with caplog.at_level(logging.INFO):
        text = ParameterGroups({"encoder": (list(net.encoder.parameters()), 2e-4, 5)}).describe()
    assert "encoder" in text and "12 parameters" in text and "lr 0.0002" in text and "from epoch 6" in text
