"""Other projects' files of weights: PyTorch's .pth and .pt, numpy pickles, .safetensors.

Which one it is, the first bytes say and not the name. No code in any of them is run.
"""

from __future__ import annotations

import pickletools
import re
import warnings
import zipfile
from itertools import islice
from pathlib import Path
from typing import Any

import torch

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
from .weights_table import WeightsFile, weights_of

ZIP_START = b"PK\x03\x04"
# A pickle of PyTorch's magic number: torch.save before 1.6 begins with it.
LEGACY_START = re.compile(rb"\x80.\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19\.", re.DOTALL)
LEGACY_PICKLES = ("magic number", "protocol", "system", "values")  # that such a file begins with
# Of a pickle: its protocol, or in protocols 0 and 1 a container, a mark or a reference to a name.
PICKLE_START = re.compile(rb"\x80|[(}\])]|c[\w.]+\n")
PICKLE_LIMIT = 32_000_000  # bytes of the structure in a .pth; that of 139 M parameters is 0.2 MB
FORBIDDEN = re.compile(r"GLOBAL (\S+\.\S+)")  # as torch.load says it


def read_weights(path: Path, *, ema: bool = False) -> WeightsFile:
    """The table of tensors in a file, without the prefix that wrappers put before its names.

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
        return weights_of(tensors, path, ema=ema)
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
    return weights_of(values, path, ema=ema)


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
    elif not PICKLE_START.match(start):
        raise ModelFormatError(
            f"{path}: expected weights by torch.save or a pickle of arrays, got a file that is "
            "not a pickle; is it torn, or of another kind?"
        )
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
