"""Settings that DeepSpeed drops and our Trainer must restore; FSDP2 itself is in tests/smoke/test_processes.py."""

import pytest
import torch
from transformers import Trainer, TrainingArguments

from src.core.stage import distributed
from src.core.stage.errors import BandwiseError
from src.core.training.parameter_groups import ParameterGroups
from src.core.training.sharding import ShardingMixin
from tests.core.training.test_parameter_groups import fit, make_net, parts


class SmallTrainer(ShardingMixin, Trainer):
    pass


def test_optimizer_and_schedule_survive_a_start_that_lets_go_of_them(tmp_path):
    """deepspeed_init sets them to None; Trainer would make an AdamW at its own rate, without an error."""
    net = make_net()
    optimizer = ParameterGroups(parts(net, "encoder", "head")).optimizer(weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
    args = TrainingArguments(str(tmp_path), use_cpu=True, report_to=[])
    trainer = SmallTrainer(model=net, args=args, optimizers=(optimizer, schedule))
    trainer.optimizer = trainer.lr_scheduler = None
    assert trainer.create_optimizer() is optimizer
    assert trainer.create_scheduler(num_training_steps=3) is schedule


def test_gradients_are_heard_where_they_are_gone_before_the_step(tmp_path, monkeypatch):
    monkeypatch.setattr(distributed, "sharding", lambda: "deepspeed")
    net = make_net()
    fit(tmp_path, net, ParameterGroups(parts(net, "encoder", "head"))).assert_moved()
    groups = ParameterGroups(parts(net, "encoder", "unused", "head"))
    with pytest.raises(BandwiseError, match="group 'unused' is meant to train and gets no gradient"):
        fit(tmp_path / "other", net, groups)
    assert groups.heard == {"encoder": True, "head": True}
