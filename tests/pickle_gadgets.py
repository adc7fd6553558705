"""Pickles that would make the file at a path if anything in them were run, by family."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path


def call(name: str, *arguments: bytes) -> bytes:
    """Opcodes that call a global, `module name`, with arguments given as opcodes."""
    module, _, attribute = name.rpartition(".")
    return b"c" + f"{module}\n{attribute}\n".encode() + b"(" + b"".join(arguments) + b"tR"


def text(value: str) -> bytes:
    """Opcodes of a text."""
    data = value.encode()
    return b"X" + len(data).to_bytes(4, "little") + data


def made(name: str) -> bytes:
    """Opcodes of a global by itself."""
    module, _, attribute = name.rpartition(".")
    return b"c" + f"{module}\n{attribute}\n".encode()


def _python(canary: Path) -> str:
    return f"open({str(canary)!r}, 'w').close()"


# Family -> opcodes that leave one object, given the file that must not come to be.
FAMILIES: dict[str, Callable[[Path], bytes]] = {
    "os.system": lambda p: call("os.system", text(f"touch {p}")),
    "posix.system": lambda p: call("posix.system", text(f"touch {p}")),
    "subprocess": lambda p: call(
        "subprocess.check_output", b"](" + text("touch") + text(str(p)) + b"e"
    ),
    "eval": lambda p: call("builtins.eval", text(_python(p))),
    "exec": lambda p: call("builtins.exec", text(_python(p))),
    "python 2's eval": lambda p: call("__builtin__.eval", text(_python(p))),
    "open": lambda p: call("builtins.open", text(str(p)), text("w")),
    "getattr": lambda p: (
        call("builtins.getattr", call("builtins.__import__", text("os")), text("system"))
        + b"("
        + text(f"touch {p}")
        + b"tR"
    ),
    "a dotted name": lambda p: (
        b"\x8c\x08builtins\x8c\x04eval\x93(" + text(_python(p)) + b"tR"  # STACK_GLOBAL
    ),
    "INST": lambda p: b"(" + text(f"touch {p}") + b"ios\nsystem\n",
    "OBJ": lambda p: b"(" + made("os.system") + text(f"touch {p}") + b"o",
    "NEWOBJ": lambda p: made("subprocess.Popen") + b"(" + text(f"touch {p}") + b"t\x81",
    "BUILD": lambda p: (
        # an object whose __setstate__ is exec
        made("collections.OrderedDict")
        + b")R}"
        + text("__setstate__")
        + made("builtins.exec")
        + b"sb"
        + text(_python(p))
        + b"b"
    ),
    "copyreg": lambda p: (
        call("copyreg._reconstructor", made("subprocess.Popen"), made("builtins.object"), b"N")
        + call("copyreg.__newobj__", made("subprocess.Popen"), text(f"touch {p}"))
    ),
    "importlib": lambda p: (
        call("importlib.import_module", text("os")) + call("os.system", text(f"touch {p}"))
    ),
    "runpy": lambda p: call("runpy._run_code", text(_python(p)), b"}"),
    "webbrowser": lambda p: (
        call("webbrowser.BackgroundBrowser", text("touch")) + call("os.system", text(f"touch {p}"))
    ),
    "functools.partial": lambda p: (
        call("functools.partial", made("os.system"), text(f"touch {p}")) + b")R"
    ),
    "operator.attrgetter": lambda p: (
        call("operator.attrgetter", text("system"))
        + b"("
        + call("importlib.import_module", text("os"))
        + b"tR("
        + text(f"touch {p}")
        + b"tR"
    ),
    "operator.methodcaller": lambda p: (
        call("operator.methodcaller", text("system"), text(f"touch {p}"))
        + b"("
        + call("builtins.__import__", text("os"))
        + b"tR"
    ),
    "numpy.load": lambda p: call("numpy.load", text(str(p)), b"N", b"\x88"),
    "numpy's own runner": lambda p: call(
        "numpy.testing._private.utils.runstring", text(_python(p)), b"}"
    ),
    "torch.load": lambda p: call("torch.serialization.load", text(str(p))),
    "torch's nested load": lambda p: call("torch.storage._load_from_bytes", b"B" + _nested(p)),
    "pickle.loads": lambda p: call("pickle.loads", b"B" + _nested(p)),
    "marshal": lambda p: (
        call("types.FunctionType", call("marshal.loads", b"C\x01N"), b"}")
        + call("os.system", text(f"touch {p}"))
    ),
    "ctypes": lambda p: (
        call("ctypes.CDLL", text("libc.so.6")) + call("os.system", text(f"touch {p}"))
    ),
    "pty": lambda p: call("pty.spawn", text(f"touch {p}")),
    "code": lambda p: call("code.InteractiveInterpreter") + call("builtins.exec", text(_python(p))),
    "pip": lambda p: call("pip.main", b"](" + text("install") + text(str(p)) + b"e"),
    "an extension code": lambda p: b"\x82\x01" + call("os.system", text(f"touch {p}")),
    "a persistent id": lambda p: text("x") + b"Q" + call("os.system", text(f"touch {p}")),
}


def _nested(canary: Path) -> bytes:
    inner = b"\x80\x04" + call("os.system", text(f"touch {canary}")) + b"."
    return len(inner).to_bytes(4, "little") + inner


def whole_pickle(family: str, canary: Path) -> bytes:
    """A pickle of `{"model": <what the family makes>}`."""
    return b"\x80\x04}" + text("model") + FAMILIES[family](canary) + b"s."


# Families that Python's own unpickler can be let loose on, in a test.
LIVE = (
    "os.system",
    "posix.system",
    "eval",
    "exec",
    "getattr",
    "INST",
    "OBJ",
    "pickle.loads",
)


def runs_in_python(family: str, canary: Path) -> bool:
    """Whether Python's own unpickler makes the file: proof that the pickle is live."""
    with suppress(Exception):  # what it makes is not always sound once it has run
        pickle.loads(whole_pickle(family, canary))
    exists = canary.exists()
    canary.unlink(missing_ok=True)
    return exists
