"""One process writes, all come to the end together, and all hold the same opinion."""

import importlib.util
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch.distributed
import tqdm
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils import DeepSpeedPlugin

import accelerate
from src.core.stage import distributed, files, run
from src.core.stage.errors import BandwiseError, DataError
from src.core.stage.params import Section
from tests.together import together

ROOT = Path(__file__).parents[3]


def connect() -> None:
    torch.distributed.init_process_group("gloo")


def write(out: Path) -> None:
    connect()
    with files.complete_folder(out) as folder:
        if distributed.is_main():
            (folder / "weights").write_text("whole")
        else:
            assert not folder.exists() and not out.exists()
    assert (out / "weights").read_text() == "whole", "nobody goes on before the folder is there"


def write_from_the_other(out: Path) -> None:
    connect()
    with files.complete_folder(out) as folder:
        if not distributed.is_main():
            (folder / "weights").write_text("mine")


def fail(out: Path, rank: int) -> None:
    connect()
    with files.complete_folder(out) as folder:
        if distributed.is_main():
            (folder / "weights").write_text("half")
        if distributed.rank() == rank:
            raise DataError("no")


def agree(folder: Path) -> None:
    connect()
    rank = distributed.rank()
    assert distributed.count() == 2 and distributed.gather(rank) == [0, 1]
    assert distributed.from_main(lambda: f"of {rank}") == "of 0"
    distributed.leave()
    assert not torch.distributed.is_initialized()


class Nothing(Section):
    pass


def stage(folder: Path, error: bool) -> None:
    def main(params, inputs, out, dry_run) -> None:
        connect()
        logging.getLogger("src.population.sft").info("three labels")
        for _ in tqdm.tqdm(range(3), desc="bar"):
            distributed.wait()
        if error:
            raise BandwiseError("all of us")

    os.chdir(folder)
    with Path(f"log{distributed.rank()}").open("w") as log:
        sys.stderr = log
        run._die_with_parent = lambda: None
        argv = ["--params", "params.yaml"]
        try:
            run.stage(main, Nothing, name="population.sft", doc="", inputs={}, outputs={}, argv=argv)
        except SystemExit as done:
            log.flush()
            os._exit(done.code)


def test_alone_a_process_is_the_main_one_and_waits_for_nobody(monkeypatch):
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert (distributed.count(), distributed.rank(), distributed.is_main()) == (1, 0, True)
    distributed.wait()
    assert distributed.from_main(lambda: 3) == 3 and distributed.gather("a") == ["a"]


def test_data_stages_do_without_torch():
    program = (
        "import sys\nfrom src.core.stage import files, run\nassert not {'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, timeout=60)


def test_two_processes_agree(tmp_path):
    assert together(2, agree, tmp_path) == [0, 0]


def test_the_main_process_writes_and_the_others_wait_for_it(tmp_path):
    assert together(2, write, tmp_path / "out") == [0, 0]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_what_another_process_writes_is_an_error(tmp_path):
    assert together(2, write_from_the_other, tmp_path / "out")[1] == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("rank", [0, 1])
def test_nothing_is_published_when_one_process_fails(tmp_path, rank):
    codes = together(2, fail, tmp_path / "out", rank)
    assert codes[rank] == DataError.exit_code and codes[1 - rank] != 0, "the other one must not hang or succeed"
    assert list(tmp_path.iterdir()) == []


def test_a_stage_says_things_once_and_writes_one_status(tmp_path):
    (tmp_path / "params.yaml").write_text("{}")
    assert together(2, stage, tmp_path, False) == [0, 0]
    main, other = ((tmp_path / f"log{rank}").read_text() for rank in (0, 1))
    assert "three labels" in main and "bar" in main and other == ""
    assert files.read_json(tmp_path / "logs" / "sft" / "run_status.json")["exit_code"] == 0


def test_an_error_of_another_process_is_told_with_its_number(tmp_path):
    (tmp_path / "params.yaml").write_text("{}")
    assert together(2, stage, tmp_path, True) == [1, 1]
    assert "population.sft: all of us" in (tmp_path / "log0").read_text()
    assert "population.sft, process 1: all of us" in (tmp_path / "log1").read_text()


def test_the_folder_of_launch_configs_does_not_hide_the_package():
    assert str(ROOT) in sys.path and (ROOT / "accelerate").is_dir()
    assert accelerate.__file__ and accelerate.Accelerator


CONFIGS = {"ddp": "MULTI_GPU", "fsdp2": "FSDP", "zero2": "DEEPSPEED", "zero3": "DEEPSPEED"}


@pytest.mark.parametrize(("name", "kind"), CONFIGS.items())
def test_the_launcher_reads_every_config(name, kind):
    path = ROOT / f"accelerate/{name}.yaml"
    assert load_config_from_file(str(path)).distributed_type == kind
    command = launch_command_parser().parse_args(["--config_file", str(path), "-m", "src.population.sft"])
    args, *_ = _validate_launch_command(command)
    assert args.num_processes > 1 and args.module and args.main_process_port == 0
    assert (args.use_fsdp, args.use_deepspeed) == (kind == "FSDP", kind == "DEEPSPEED")
    if kind == "FSDP":
        assert args.fsdp_version == 2 and args.fsdp_state_dict_type == "FULL_STATE_DICT"


@pytest.mark.parametrize("stage", [2, 3])
def test_deepspeed_takes_its_numbers_from_trainer(stage):
    """Every `auto` is one that Trainer fills in; with deepspeed installed it is asked itself."""
    plugin = DeepSpeedPlugin(hf_ds_config=str(ROOT / f"accelerate/zero{stage}.json"))
    config = plugin.deepspeed_config
    assert plugin.zero_stage == stage and config["zero_optimization"]["stage"] == stage
    auto = {name for name, value in config.items() if value == "auto"}
    assert auto == {
        "train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "gradient_clipping",
    }  # fmt: skip
    assert config["bf16"] == {"enabled": "auto"}
    assert stage == 2 or config["zero_optimization"]["stage3_gather_16bit_weights_on_model_save"]
    if importlib.util.find_spec("deepspeed"):
        from deepspeed.runtime.zero.config import DeepSpeedZeroConfig

        assert DeepSpeedZeroConfig(**config["zero_optimization"]).stage == stage
