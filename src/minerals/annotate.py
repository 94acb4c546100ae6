"""Write conversations about every tile, in the form in which Qwen-VL is fine-tuned.

    python -m src.minerals.annotate --params pipelines/minerals/params.yaml --tiles data/minerals/tiles \\
        --out data/minerals/annotations

Writes train, val and test .json (a list, as Qwen's fine-tuning script reads it) and .jsonl (a line a conversation, for
ms-swift), dataset_info.json (for LLaMA-Factory), metadata.json and tiles_metadata.json. Answers come from the map, as
where no truth is known. Three tasks and two languages a tile; the question's wording is drawn from the tile's name.
"""

import json
import zlib
from collections.abc import Iterator

import pandas as pd

from src.core.stage import files, run
from src.core.stage.errors import DataError
from src.minerals.data import conversations, tile_table
from src.minerals.data.conversations import IMAGE
from src.minerals.mapping.minerals import MINERALS, NAMES
from src.minerals.params import Params

FILES = {"train": "train", "validation": "val", "test": "test"}


def main(params: Params, inputs, out, dry_run: bool = False) -> None:
    table = tile_table.read(inputs.tiles)
    settings = files.read_json(inputs.tiles / "settings.json")
    composite = params.annotate.composite
    if composite not in settings["stretch"]:
        raise DataError(
            f"{inputs.tiles}/images: found {', '.join(settings['stretch']) or 'none'}, no {composite}; "
            "change `composite`"
        )
    items = {role: list(converse(table[table["role"] == role], params, settings)) for role in FILES}
    for role, found in items.items():
        check(found, role)
    print("annotate: " + ", ".join(f"{len(found)} conversations {role}" for role, found in items.items()))
    if dry_run:
        return
    with files.complete_folder(out.out) as folder:
        for role, found in items.items():
            files.write_json(folder / f"{FILES[role]}.json", found)
            lines = (json.dumps(item, ensure_ascii=False) for item in found)
            (folder / f"{FILES[role]}.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        files.write_json(folder / "dataset_info.json", llama_factory())
        files.write_json(folder / "metadata.json", metadata(items, params, settings))
        mapped = [f"map_{name}" for name in (*NAMES, "altered")]
        about = table[["tile", "scene", "block", "role", "top", "left", "valid", *mapped]]
        files.write_json(folder / "tiles_metadata.json", about.to_dict("records"))


def converse(table: pd.DataFrame, params: Params, settings: dict) -> Iterator[dict]:
    """The conversations about the tiles of `table`: id, tile, task, language, image, images, conversations."""
    for row in table.to_dict("records"):
        shares = [row[f"map_{name}"] for name in NAMES]
        image = f"images/{params.annotate.composite}/{row['tile']}.png"
        for task in conversations.TASKS:
            for language in params.annotate.languages:
                questions = conversations.QUESTIONS[task, language]
                name = f"{row['tile']}-{task}-{language}"
                question = questions[zlib.crc32(name.encode()) % len(questions)]
                said = conversations.answer(task, language, shares, settings["altered"], params.annotate.present)
                yield {
                    "id": name, "tile": row["tile"], "task": task, "language": language, "image": image,
                    "images": [image],
                    "conversations": [
                        {"from": "human", "value": f"{IMAGE}\n{question}"}, {"from": "gpt", "value": said}
                    ],
                }  # fmt: skip


def check(items: list[dict], role: str) -> None:
    """Raise DataError unless every item has one image, a question, an answer that parses, and an id of its own."""
    for item in items:
        question, said = (turn["value"] for turn in item["conversations"])
        whole = question.count(IMAGE) == len(item["images"]) == 1 and len(question) > len(IMAGE) + 1
        if not whole or conversations.parse(said, item["task"], item["language"]) is None:
            raise DataError(f"{item['id']}: found {question!r} and {said!r}, which is no conversation of this form")
    if len({item["id"] for item in items}) < len(items) or not items:
        raise DataError(f"{role}: found {len(items)} conversations, expected some, each once; run tiles again")


def llama_factory() -> dict:
    """dataset_info.json: how LLaMA-Factory finds the columns; start it with `dataset_dir` and `media_dir` set."""
    tags = {"role_tag": "from", "content_tag": "value", "user_tag": "human", "assistant_tag": "gpt"}
    form = {"formatting": "sharegpt", "columns": {"messages": "conversations", "images": "images"}, "tags": tags}
    return {f"minerals_{name}": {"file_name": f"{name}.json", **form} for name in FILES.values()}


def metadata(items: dict[str, list], params: Params, settings: dict) -> dict:
    """metadata.json: numbers of conversations, classes, thresholds, and that answers come from the map."""
    return {
        "conversations": {role: len(found) for role, found in items.items()},
        "answers_from": "the mineral map (pseudo-labels)",
        "altered": settings["altered"],
        "present": params.annotate.present,
        "languages": params.annotate.languages,
        "classes": {
            str(1 + number): {"name": mineral.name, "chinese": mineral.chinese, "copper": mineral.copper}
            for number, mineral in enumerate(MINERALS)
        },
    }


if __name__ == "__main__":
    inputs = {"tiles": "tiles"}
    outputs = {"out": "folder for the conversations"}
    run.stage(main, Params, name="minerals.annotate", doc=__doc__, inputs=inputs, outputs=outputs)
