"""Pretrained weights from a folder or the hub, checked before they are read.

No code of such a folder is run: only JSON, text and safetensors are fetched from the hub, and a config that points to
code, to another model's folder or to pickled weights is an error.
"""

import logging
import re
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, hf_hub_download, try_to_load_from_cache
from safetensors import SafetensorError, safe_open

from src.core.stage.errors import DataError
from src.core.stage.files import read_json
from src.core.stage.model_params import TINY

logger = logging.getLogger(__name__)

CONFIG, SINGLE, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
SMALL = (".json", ".txt", ".jinja", "LICENSE", "README.md")  # config, tokenizer, and whose the weights are
MAX_JSON = 32 * 2**20  # bytes; the index of a 72B model holds 0.1 MiB, Qwen's tokenizer.json 11
ANSWER_TIME = 10  # seconds the hub has; its own client would wait for ever
HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
# Fields of config.json that would make transformers read something else than the weights checked here.
REFUSED = {
    "quantization_config": "use the repository without -AWQ, -GPTQ, -FP8 or -bnb-4bit in its name; "
    "`four_bit` quantises while loading",
    "transformers_weights": "remove the field and name the weights model.safetensors",
}


def fetch(source: str | Path, *, weights: bool = True) -> Path:
    """The folder of `source`: itself, or for a hub id the local copy of config, tokenizer and, if asked, weights.

    Without network (or with HF_HUB_OFFLINE=1) what was fetched before is used. Raises DataError where there is no such
    folder, and no such model within reach.
    """
    if Path(source).is_dir():
        return Path(source)
    if isinstance(source, Path) or not HUB_ID.fullmatch(source):
        raise DataError(f"{source}: no such folder; set `backbone` to a folder, a hub id like Qwen/NAME, or tiny")
    suffixes = (*SMALL, ".safetensors") if weights else SMALL
    try:
        found = HfApi().model_info(source, timeout=ANSWER_TIME)
        logger.info("%s: commit %s", source, found.sha)
        config = hf_hub_download(source, CONFIG, etag_timeout=ANSWER_TIME)  # the first, to note what `main` is
        for name in sorted({sibling.rfilename for sibling in found.siblings or []} - {CONFIG}):
            if "/" not in name and name.endswith(suffixes):
                hf_hub_download(source, name, revision=found.sha, etag_timeout=ANSWER_TIME)
        return Path(config).parent
    except Exception as error:  # of the client's own hierarchies, which have no common root
        known = known_folder(source)
        if known.is_dir():
            logger.warning("%s: the hub does not answer (%s); using %s", source, error, known)
            return known
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(
            f"{source}: found neither a folder of this name nor a model on the hub ({reason}); where the hub can be "
            f"reached, run `hf download {source} --local-dir DIR`, copy DIR here and set `backbone` to it"
        ) from error


def known_folder(source: str) -> Path:
    """`source` itself, or of a hub id the local copy that `fetch` made; no network is asked."""
    config = None if Path(source).is_dir() or not HUB_ID.fullmatch(source) else try_to_load_from_cache(source, CONFIG)
    return Path(config).parent if isinstance(config, str) else Path(source)


def files_of(backbone: str) -> list[Path]:
    """The folder of a pretrained backbone, whose contents DVC does not know; none of a tiny one."""
    return [] if backbone == TINY else [known_folder(backbone)]


def check_config(folder: Path) -> dict[str, Any]:
    """The contents of config.json.

    Raises:
        DataError: config.json is absent or not JSON; a config holds `auto_map` (code to run); the folder is a LoRA
            adapter, for which transformers would load the base that it names; the weights are quantised already.
    """
    if (folder / "adapter_config.json").exists():
        raise DataError(
            f"{folder}/adapter_config.json: found a LoRA adapter, expected a whole model; merge it into its base "
            "(merge_and_unload of peft) and save that to a folder"
        )
    config = _read_object(folder / CONFIG)
    for path in sorted(folder.glob("*config.json")):
        found = _find(_read_object(path), "auto_map")
        if found is not None:
            raise DataError(
                f"{path}: found auto_map ({str(found)[:80]}), expected a model without code of its own; remote code is "
                "never run: use the family's original folder"
            )
    for field, fix in REFUSED.items():
        found = _find(config, field)
        if found is not None:
            raise DataError(f"{folder}/{CONFIG}: {field}: found {str(found)[:80]}, expected no such field; {fix}")
    return config


def has_weights(folder: Path) -> bool:
    """True if `folder` contains weights in any format."""
    return any(file.suffix in (".safetensors", *PICKLES) for file in folder.iterdir()) or (folder / INDEX).exists()


def check_weights(folder: Path) -> None:
    """Raise DataError unless all weights are there, as whole safetensors files. Reads their headers alone."""
    if (folder / SINGLE).exists():
        _names(folder / SINGLE)
    elif (folder / INDEX).exists():
        _check_shards(folder)
    else:
        pickles = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLES)
        if pickles:
            raise DataError(
                f"{folder}: found {pickles[0]}, expected {SINGLE}; a pickle runs what is in it and is never opened: "
                "convert it elsewhere (from_pretrained, then save_pretrained, which writes safetensors)"
            )
        raise DataError(f"{folder}: found no weights, expected {SINGLE} or {INDEX}; copy the folder again")


def _check_shards(folder: Path) -> None:
    index = folder / INDEX
    shards = _read_object(index).get("weight_map")
    if not isinstance(shards, dict) or not shards or not all(isinstance(name, str) for name in shards.values()):
        raise DataError(f"{index}: weight_map: expected a file name for every weight; copy the folder again")
    files = sorted(set(shards.values()))
    strange = [name for name in files if Path(name).name != name or not name.endswith(".safetensors")]
    if strange:
        raise DataError(f"{index}: weight_map: found {strange[0]!r}, expected names of .safetensors files beside it")
    missing = [name for name in files if not (folder / name).is_file()]
    if missing:
        raise DataError(
            f"{index}: {len(missing)} of {len(files)} shards are missing: {', '.join(missing)}; copy them into {folder}"
        )
    for name in files:
        absent = {weight for weight, shard in shards.items() if shard == name} - _names(folder / name)
        if absent:
            raise DataError(
                f"{folder / name}: {len(absent)} weights are missing that {INDEX} promises, e.g. {min(absent)}; "
                "copy index and shards from one place"
            )


def _names(path: Path) -> set[str]:
    """Names of the weights in a safetensors file; opening it compares its length with its header."""
    try:
        with safe_open(path, framework="pt") as weights:
            return set(weights.keys())
    except (OSError, SafetensorError) as error:
        raise DataError(
            f"{path}: {path.stat().st_size:,} bytes are no whole safetensors file ({error}); copy it again"
        ) from error


def _read_object(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise DataError(f"{path}: no such file, expected a folder as Qwen2-VL, Qwen2.5-VL and Qwen3-VL are published")
    if path.stat().st_size > MAX_JSON:
        raise DataError(f"{path}: found {path.stat().st_size:,} bytes, expected at most {MAX_JSON:,}")
    value = read_json(path)
    if not isinstance(value, dict):
        raise DataError(f"{path}: found a JSON {type(value).__name__}, expected an object; copy the folder again")
    return value


def _find(value: Any, field: str) -> Any:
    """Value of `field` in `value` or in any object within it; None if it is absent or null."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    own = value.get(field) if isinstance(value, dict) else None
    return own or next((hit for part in inner if (hit := _find(part, field))), None)
