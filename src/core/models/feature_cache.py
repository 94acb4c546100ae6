"""What a frozen vision encoder computes, kept on disk: the hidden states that enter the mergers, by tile and view.

While patch embedding and blocks are frozen, their output for a tile in one of its 8 orientations never changes;
the mergers train and run every time. A miss is always computed one image at a time, because the rounding of a
matrix product depends on its number of rows: so the result is the same whatever the cache holds, how large it is
and which other tiles share the batch, and a resumed or repeated run gives the same bytes.

One file for each process, of records of one size: tile, view, CRC-32 of both and of the data, then the data. It is
read and written with pread and pwrite, because a mapped hole on a full disk kills the process. There is no index
beside it to disagree with, and the checksum, tested at every read, finds what a killed run left half-written.

When the file is full nothing is evicted: every epoch visits every tile, so what was dropped would be asked for
again before what replaced it, and with 8 views at random nothing is known about which comes next.
"""

import errno
import hashlib
import json
import logging
import os
import shutil
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from src.core.stage import distributed
from src.core.stage.errors import BandwiseError, ParamsError, StorageError

logger = logging.getLogger(__name__)
KEY, CHECK = struct.Struct("<qq"), struct.Struct("<Q")  # tile and view; CRC-32


class FeatureCache:
    """Takes the place of the blocks of `visual` (of a Qwen-VL model) while they are frozen.

    Args:
        visual: the vision transformer, without dropout.
        side: px of the square tiles, all of one size.
        folder: scratch of this training; made when the first feature is stored.
        limit_gb: 1e9 bytes on disk, shared evenly by the processes of the run. 0 stores nothing.
        context: what a tile's pixels pass through before the encoder, e.g. the statistics of its front end.
    """

    def __init__(self, visual: nn.Module, side: int, folder: Path, limit_gb: float, context: str):
        self.visual, self.folder, self.context = visual, Path(folder), context
        config = visual.config
        self.grid = (1, side // config.patch_size, side // config.patch_size)
        self.encoder = {name: p for name, p in visual.named_parameters() if "merger" not in name}
        # Qwen3-VL's deep features leave earlier blocks, each through a merger of its own.
        self.taps = [*getattr(visual, "deepstack_visual_indexes", []), len(visual.blocks) - 1]
        self.shape = (len(self.taps), self.grid[1] * self.grid[2], visual.patch_embed.proj.out_channels)
        self.rank, self.processes = distributed.rank(), distributed.count()
        self.limit = int(limit_gb * 1e9 / self.processes)
        self.file: int | None = None
        self.dtype: torch.dtype | None = None
        self.slots: dict[tuple[int, int], int] = {}
        self.used = 0  # records in the file
        self.hits = self.misses = 0
        self._state: list[tuple[int, int]] = []
        self._digest = ""
        _assert_without_dropout(visual)

    def applies(self) -> bool:
        """Whether the encoder is frozen at this moment."""
        return not any(p.requires_grad for p in self.encoder.values())

    def vision_arguments(
        self, model: nn.Module, pixels_of: Callable[[int], torch.Tensor], tiles: Sequence[int], views: Sequence[int]
    ) -> dict:
        """What `model` (the `.model` of a Qwen-VL model, around `visual`) takes in place of `pixel_values`.

        Args:
            pixels_of: row of the batch -> `pixel_values` of that one image; called for misses alone.
            tiles, views: row of the store and orientation (0-7) of each image.

        Returns:
            `mm_encoder_outputs`, through which gradients reach the mergers, and `image_grid_thw` (B, 3).

        Raises:
            BandwiseError: the encoder's weights or the precision are not those of the call before.
            ParamsError: the weights are sharded between processes.
            StorageError: the file cannot be made.
        """
        device = next(iter(self.encoder.values())).device
        self._open(device)
        grid = torch.tensor([self.grid], device=device)
        hidden = torch.empty((len(tiles), *self.shape), dtype=self.dtype)
        for row, key in enumerate(zip(tiles, views, strict=True)):
            if self._read(key, hidden[row]):
                self.hits += 1
                continue
            self.misses += 1
            hidden[row] = encode(self.visual, pixels_of(row), grid)
            self._write(key, hidden[row])
        taps = [tap.flatten(0, 1) for tap in hidden.to(device).unbind(1)]
        return replay(model, dict(zip(self.taps, taps, strict=True)), grid.repeat(len(tiles), 1))

    def remove(self) -> None:
        """Delete what a finished stage no longer needs."""
        if self.file is not None:
            os.close(self.file)
            self.file = None
        shutil.rmtree(self.folder, ignore_errors=True)

    def _open(self, device: torch.device) -> None:
        autocast = torch.is_autocast_enabled(device.type)
        dtype = torch.get_autocast_dtype(device.type) if autocast else next(iter(self.encoder.values())).dtype
        digest = self._weights()
        if self.dtype is not None:
            if (dtype, digest) != (self.dtype, self._digest):
                what = "weights" if digest != self._digest else f"precision ({self.dtype} before, now {dtype})"
                raise BandwiseError(f"feature cache: the {what} of the frozen vision encoder changed in a run")
            return
        self.dtype, self._digest = dtype, digest
        self.bytes = torch.Size(self.shape).numel() * dtype.itemsize
        self.record = KEY.size + CHECK.size + self.bytes
        self.capacity = self.limit // self.record
        if self.capacity == 0:
            return
        # Rounding also depends on what computes, so that is part of the name.
        machine = f"{torch.__version__} {device.type} {torch.get_num_threads()}"
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
        facts = [digest, self.context, str(dtype), self.shape, machine, name, _settings(self.visual)]
        path = self.folder / f"{hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]}-{self.rank}.features"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for other in self.folder.glob(f"*-{self.rank}.features"):
                if other != path:
                    other.unlink()
            self.file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
            self.used = min(os.fstat(self.file).st_size // self.record, self.capacity)
            for slot in range(self.used):
                self.slots[KEY.unpack(os.pread(self.file, KEY.size, slot * self.record))] = slot
        except OSError as error:
            raise StorageError(
                f"{path}: cannot keep features ({error.strerror or error}); choose another checkpoint_root "
                "or set sft.feature_cache_gb to 0"
            ) from error

    def _read(self, key: tuple[int, int], out: torch.Tensor) -> bool:
        """Fill `out` (taps, tokens, width) with what is stored under `key`; False where nothing whole is."""
        slot = self.slots.get(key)
        if slot is None:
            return False
        head, data = bytearray(KEY.size + CHECK.size), _bytes(out)
        if os.preadv(self.file, [head, data], slot * self.record) == self.record and head == _head(key, data):
            return True
        logger.warning("feature of tile %d, view %d is damaged: computed again", *key)
        return False

    def _write(self, key: tuple[int, int], hidden: torch.Tensor) -> None:
        slot = self.slots.get(key, self.used)  # a damaged record is replaced where it lies
        if self.capacity == 0 or slot >= self.capacity:
            return
        data = _bytes(hidden)
        try:
            written = os.pwritev(self.file, [_head(key, data), data], slot * self.record)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise StorageError(f"{self.folder}: cannot write features: {error.strerror}") from error
            written = 0
        if written < self.record:  # a disk that fills up shortens the last record
            logger.warning("%s: no space left, %d features are kept and the others computed", self.folder, self.used)
            self.capacity = self.used
            return
        self.slots[key] = slot
        self.used = max(self.used, slot + 1)

    def _weights(self) -> str:
        """Digest of the frozen weights; hashed again only when one was written to or moved."""
        state = [(p.data_ptr(), p._version) for p in self.encoder.values()]
        if state == self._state:
            return self._digest
        digest = hashlib.sha256()
        for name, p in self.encoder.items():
            if isinstance(p, DTensor) or hasattr(p, "ds_id"):
                # Processes miss at different moments, and each encoding would wait for all of them.
                raise ParamsError(
                    "sft.feature_cache_gb: found an encoder that FSDP or ZeRO-3 shards between processes, expected "
                    "whole weights in each; set it to 0, or use accelerate/ddp.yaml or zero2.yaml"
                )
            digest.update(f"{name} {p.dtype} {tuple(p.shape)}".encode())
            digest.update(_bytes(p.detach().cpu().contiguous()))
        self._state = state
        return digest.hexdigest()


def encode(visual: nn.Module, pixels: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
    """One image through the frozen encoder -> what enters its mergers, (taps, tokens, width) in the encoder's order.

    The mergers themselves do not run: they train, and autocast would keep copies of their weights without gradients.
    """
    deep = [_Recorder(visual) for _ in getattr(visual, "deepstack_visual_indexes", [])]
    last = _Recorder(visual)
    modules = {"merger": last} | ({"deepstack_merger_list": nn.ModuleList(deep)} if deep else {})
    with torch.no_grad(), _replaced(visual, **modules):
        visual(pixels, grid_thw=grid)
    return torch.stack([recorder.seen for recorder in (*deep, last)])


def replay(model: nn.Module, hidden: dict[int, torch.Tensor], grid: torch.Tensor) -> dict:
    """Model arguments from the outputs (tokens of all images, width) of some blocks; the others do nothing.

    The family's own forward runs around stand-ins, so window order, mergers and deep features stay its code.
    """
    visual = model.visual
    blocks = nn.ModuleList(_Replay(hidden.get(index)) for index in range(len(visual.blocks)))
    tokens = next(iter(hidden.values()))
    with _replaced(visual, patch_embed=nn.Identity(), blocks=blocks):
        features = model.get_image_features(tokens.new_zeros(len(tokens), 1), grid, return_dict=True)
    return {"mm_encoder_outputs": {"image": features}, "image_grid_thw": grid}


class _Recorder(nn.Module):
    """In place of a merger: keeps what it is given."""

    def __init__(self, visual: nn.Module):
        super().__init__()
        self.unit = visual.spatial_merge_size**2

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen = x
        return x.unflatten(0, (-1, self.unit)).flatten(1)  # (units, ...), which 2.5 puts back in order


class _Replay(nn.Module):
    """In place of a block: its output from before, or nothing where nobody reads it."""

    def __init__(self, output: torch.Tensor | None):
        super().__init__()
        self.output = output

    def forward(self, hidden_states: torch.Tensor, **kwargs) -> torch.Tensor:
        return hidden_states if self.output is None else self.output


@contextmanager
def _replaced(module: nn.Module, **children: nn.Module) -> Iterator[None]:
    """Submodules of `module` are others inside the block, and themselves again after it."""
    own = {name: getattr(module, name) for name in children}
    try:
        for name, child in children.items():
            setattr(module, name, child)
        yield
    finally:
        for name, child in own.items():
            setattr(module, name, child)


def _assert_without_dropout(visual: nn.Module) -> None:
    for name, module in visual.named_modules():
        rate = module.p if isinstance(module, nn.Dropout) else getattr(module, "attention_dropout", 0.0)
        if rate and "merger" not in name:
            raise ParamsError(
                f"sft.feature_cache_gb: {name} of the vision encoder has dropout {rate}, expected 0, because a "
                "feature on disk stays the same; set sft.feature_cache_gb to 0"
            )


def _settings(visual: nn.Module) -> str:
    return f"{visual.config._attn_implementation} {json.dumps(visual.config.to_dict(), sort_keys=True, default=str)}"


def _head(key: tuple[int, int], data: memoryview) -> bytes:
    packed = KEY.pack(*key)
    return packed + CHECK.pack(zlib.crc32(data, zlib.crc32(packed)))


def _bytes(tensor: torch.Tensor) -> memoryview:
    """The memory of a contiguous tensor on the CPU; numpy has no bfloat16."""
    return memoryview(tensor.flatten().view(torch.uint8).numpy())
