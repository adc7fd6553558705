"""Other projects' files of weights: PyTorch's .pth and .pt, numpy pickles, .safetensors.

Which one it is, the first bytes say and not the name. No code in any of them is run.
"""

from __future__ import annotations

import pickletools
import re
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cn2.runtime.errors import ModelFormatError

from .checkpoint import MOST_TENSORS, check_count, read_metadata, read_tensors
from .numpy_pickle import (
    ALLOWED,
    ForbiddenNameError,
    PickledArray,
    PickledType,
    TooManyError,
    load_numpy_pickle,
)

ZIP_START = b"PK\x03\x04"
# A pickle of PyTorch's magic number: torch.save before 1.6 begins with it.
LEGACY_START = re.compile(rb"\x80.\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19\.", re.DOTALL)
LEGACY_PICKLES = ("magic number", "protocol", "system", "values")  # that such a file begins with
PICKLE_LIMIT = 32_000_000  # bytes of the structure in a .pth; that of 139 M parameters is 0.2 MB
DEPTH = 3  # of tables in tables
# Where trainings keep the weights, and the running mean of them.
MODEL_KEYS = ("model", "state_dict", "model_state_dict", "model_state", "module", "net", "blobs")
EMA_KEYS = ("ema_state", "model_ema", "ema", "ema_model", "ema_state_dict", "state_dict_ema")
WRAPPERS = ("module.", "_orig_mod.")  # of DistributedDataParallel and of torch.compile
FORBIDDEN = re.compile(r"GLOBAL (\S+\.\S+)")  # as torch.load says it


@dataclass(frozen=True, kw_only=True)
class WeightsFile:
    """A file's tensors by name; they may be the file itself in memory, so only read them."""

    tensors: dict[str, Tensor]
    used: str
    """The keys that lead to them, such as `model`; "" where the file is just their table."""
    other: str
    """Those of another copy in the file: the running mean beside the weights, or the reverse."""


def read_weights(path: Path, *, ema: bool = False) -> WeightsFile:
    """The table of tensors in a file, without the prefix that wrappers put before all names.

    Args:
        path: of any kind named above.
        ema: take the running mean of the weights where the file has both.
    Raises:
        ModelFormatError: no such file, torn, of another kind, not a table of tensors, or it asks
            for code to be run.
    """
    start = _first_bytes(path)
    if path.suffix == ".safetensors":
        if "cn2.config" in read_metadata(path):
            raise ModelFormatError(f"{path}: is a checkpoint of cn2 already; use it as it is")
        tensors, _ = read_tensors(path)
        return WeightsFile(tensors=_unwrapped(tensors), used="", other="")
    try:
        values = _load(path, start)
    except TooManyError:
        raise ModelFormatError(
            f"{path}: expected at most {MOST_TENSORS} tensors, got more"
        ) from None
    except ForbiddenNameError as error:
        raise _forbidden(path, error.name) from None
    except ModelFormatError:
        raise
    except Exception as error:  # bytes of a stranger: the unpicklers raise nearly anything
        raise _unreadable(path, error) from None
    return _choose(values, path, ema)


def _first_bytes(path: Path) -> bytes:
    if path.is_dir():
        raise ModelFormatError(f"{path}: expected a file of weights, got a folder")
    try:
        with path.open("rb") as stream:
            start = stream.read(16)
    except FileNotFoundError:
        raise ModelFormatError(f"{path}: no such file") from None
    except OSError as error:
        raise ModelFormatError(f"{path}: cannot be read ({error.strerror})") from None
    if not start:
        raise ModelFormatError(f"{path}: expected a file of weights, got an empty file")
    return start


def _load(path: Path, start: bytes) -> Any:
    """What the file holds, tensors as such or as `PickledArray`."""
    if start.startswith(ZIP_START):
        _check_archive(path)
    elif LEGACY_START.match(start):
        _check_legacy(path)
    else:
        return load_numpy_pickle(path, MOST_TENSORS)
    stand_ins = [(value, name) for name, value in ALLOWED.items()]
    types = [(PickledType, "cn2.PickledType"), (PickledArray, "cn2.PickledArray")]
    with torch.serialization.safe_globals([*stand_ins, *types]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of old or odd pickles: they are read, or are an error
        return torch.load(
            path, map_location="cpu", weights_only=True, mmap=start.startswith(ZIP_START)
        )


def _check_archive(path: Path) -> None:
    """Refuse an archive that is not as torch.save writes it, before torch unpacks it.

    Raises:
        ModelFormatError: torn, packed (then its size says nothing), or without weights.
    """
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    names = [entry.filename for entry in entries]
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise ModelFormatError(f"{path}: expected an archive by torch.save, got a packed one")
    pickles = [entry for entry in entries if entry.filename.rpartition("/")[2] == "data.pkl"]
    if any("/code/" in name for name in names):
        raise ModelFormatError(f"{path}: expected weights, got a TorchScript program")
    if len(pickles) != 1:
        raise ModelFormatError(f"{path}: expected an archive by torch.save, got another one")
    check_count(sum("/data/" in name for name in names), path)
    if sum(entry.file_size for entry in entries) > path.stat().st_size:
        raise ModelFormatError(f"{path}: expected an archive by torch.save, got overlapping parts")
    if pickles[0].file_size > PICKLE_LIMIT:
        raise ModelFormatError(
            f"{path}: expected at most {PICKLE_LIMIT} bytes beside the tensors, "
            f"got {pickles[0].file_size}"
        )


def _check_legacy(path: Path) -> None:
    """Refuse more tensors than any training has; torch would take its time to read them."""
    with path.open("rb") as stream:
        opcodes = (opcode for _ in LEGACY_PICKLES for opcode, _, _ in pickletools.genops(stream))
        tensors = (opcode for opcode in opcodes if opcode.name == "BINPERSID")
        if sum(1 for _ in islice(tensors, MOST_TENSORS + 1)) > MOST_TENSORS:
            raise TooManyError


def _forbidden(path: Path, name: str) -> ModelFormatError:
    """The error for a pickle that wants more than data."""
    hint = "re-save the weights alone: torch.save(model.state_dict(), ...)"
    if re.match(r"(models|ultralytics|yolox?)\.", name):
        hint = "this is not CenterNet2: it looks like a whole YOLO model"
    return ModelFormatError(
        f"{path}: refused, as it asks for {name!r:.80}, which weights do not need; nothing in it "
        f"was run; {hint}"
    )


def _unreadable(path: Path, error: Exception) -> ModelFormatError:
    """The one line for whatever an unpickler said."""
    text = str(error)
    forbidden = FORBIDDEN.search(text)
    if forbidden:
        return _forbidden(path, forbidden[1])
    reason = next((line.strip() for line in text.splitlines() if line.strip()), "")
    if reason.startswith("Weights only load failed"):
        reason = text.partition("WeightsUnpickler error: ")[2].partition("\n")[0]
    said = f"{type(error).__name__}: {reason}" if reason else type(error).__name__
    return ModelFormatError(
        f"{path}: expected weights by torch.save or a pickle of arrays, cannot read it "
        f"({said:.160}); is it torn, or of another kind?"
    )


def _choose(values: Any, path: Path, ema: bool) -> WeightsFile:
    """The table that was asked for, from all that a training saved."""
    model, averaged = _find(values, MODEL_KEYS), _find(values, EMA_KEYS)
    if ema and averaged is None:
        raise ModelFormatError(f"{path}: expected weights averaged by EMA, found none in it")
    chosen, other = (averaged, model) if ema or model is None else (model, averaged)
    if chosen is None and isinstance(values, Mapping):
        chosen, other = ("", values), None
    table = _tensors(chosen[1], path) if chosen else {}
    if chosen is None or not table:
        raise ModelFormatError(
            f"{path}: expected a table of tensors by name, got {type(values).__name__}; "
            "save model.state_dict()"
        )
    return WeightsFile(
        tensors=_unwrapped(table), used=chosen[0], other=other[0] if other is not None else ""
    )


def _find(values: Any, keys: tuple[str, ...]) -> tuple[str, Mapping[Any, Any]] | None:
    """The first of these keys with a table of tensors, and the table."""
    for key in keys:
        found = values.get(key) if isinstance(values, Mapping) else None
        path = key
        for _ in range(DEPTH):
            if not isinstance(found, Mapping):
                break
            if any(isinstance(value, Tensor | PickledArray) for value in found.values()):
                return path, found
            inner = next((k for k in MODEL_KEYS if isinstance(found.get(k), Mapping)), None)
            if inner is None:
                break
            path, found = f"{path}.{inner}", found[inner]
    return None


def _tensors(table: Mapping[Any, Any], path: Path) -> dict[str, Tensor]:
    """The entries that are tensors; arrays become such, one by one."""
    check_count(len(table), path)
    tensors = {}
    for name, value in table.items():
        if isinstance(value, Tensor):
            tensors[str(name)] = value.detach()
        elif isinstance(value, PickledArray) and value.is_numbers:
            try:
                tensors[str(name)] = value.tensor()
            except ValueError as error:
                raise ModelFormatError(f"{path}: {name}: {error}") from None
    return tensors


def _unwrapped(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Without the prefixes of wrappers, where all names have them."""
    for prefix in WRAPPERS * 2:
        if all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): value for name, value in tensors.items()}
    return tensors
