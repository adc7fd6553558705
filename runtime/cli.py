"""The command `cn2`: calls a command's module by name, and turns errors into exit codes.

Only the standard library is imported before a command is called, so `cn2 --help` is immediate
and works in every install. A command lives in its folder's `commands.py`, whose
`register(app: typer.Typer)` adds it.
"""

from __future__ import annotations

import dis
import errno
import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType

DONE = 0
USER_ERROR = 2
INTERRUPTED = 130  # 128 + SIGINT, as shells report it
BROKEN_PIPE = 141  # 128 + SIGPIPE


@dataclass(frozen=True)
class Command:
    """Where a command lives and what `cn2 --help` says of it."""

    module: str
    help: str
    extra: str | None = None
    """What brings all it needs: pip install 'cn2[extra]'; None: EXTRA_OF_MODULE knows."""


TRAINER = "cn2.trainer.commands"
SCENES = "cn2.trainer.scenes.commands"
CONVERT = "cn2.trainer.convert.commands"
EXPORT = "cn2.export.commands"
BUILD = "cn2.export.engine.commands"
RUNTIME = "cn2.runtime.commands"

COMMANDS: dict[str, Command] = {
    "presets": Command(TRAINER, "list every detector: parts, input, parameters", "train"),
    "scenes": Command(SCENES, "draw synthetic annotated pictures to train on"),
    "train": Command(TRAINER, "train a detector on annotated pictures", "train"),
    "convert": Command(CONVERT, "turn an official checkpoint into one of cn2", "train"),
    "export": Command(EXPORT, "turn a checkpoint into one ONNX file", "export"),
    "build": Command(BUILD, "build a TensorRT engine from an ONNX file", "tensorrt-rtx"),
    "detect": Command(RUNTIME, "find objects in pictures"),
    "eval": Command(RUNTIME, "COCO or LVIS metrics of a model file"),
    "bench": Command(RUNTIME, "latency and throughput of model files, per stage"),
    "info": Command(RUNTIME, "what a model file says of itself, and what can run it"),
    "doctor": Command(RUNTIME, "which backends work here; if not, why, and the fix"),
    "demo": Command(RUNTIME, "the bundled model on the bundled pictures", "cpu,eval,export"),
}

EXTRA_OF_MODULE = {
    "faster_coco_eval": "eval",
    "onnx": "export",
    "onnx_ir": "export",
    "onnxruntime": "cpu",
    "onnxscript": "export",
    "torch": "export",
    "torchvision": "export",
}


def main() -> None:
    """Entry point of the `cn2` command."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Do what the command line says.

    Returns:
        0 done; 2 the user's error, told in one line on stderr; 1 a bug, with its traceback;
        130 after Ctrl-C; 141 when the reader of stdout went away.
    """
    if not arguments:
        print(help_text(), file=sys.stderr)
        return USER_ERROR
    name = arguments[0]
    try:
        if name in ("-h", "--help", "help"):
            print(help_text())
        elif name == "--version":
            from cn2 import __version__

            print(f"cn2 {__version__}")
        elif name in COMMANDS:
            code = _call(name, arguments)
            sys.stdout.flush()
            return code
        else:
            return _fail(_unknown(name))
        sys.stdout.flush()
        return DONE
    except KeyboardInterrupt:
        print("cn2: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # quiet at exit too
        return BROKEN_PIPE
    except Exception as error:
        message = _user_message(error, name)
        if message is None:
            raise  # a bug: Python prints the traceback and exits with 1
        return _fail(message)


def help_text() -> str:
    """What `cn2 --help` prints: every command with one line, at most 80 columns."""
    width = max(len(name) for name in COMMANDS)
    lines = [
        "usage: cn2 COMMAND [ARGUMENTS] [OPTIONS]",
        "",
        "Train CenterNet2, export it to one ONNX file, run that file anywhere.",
        "",
        "commands:",
        *(f"  {name:<{width}}  {command.help}" for name, command in COMMANDS.items()),
        "",
        "options:",
        "  -h, --help  this page; `cn2 COMMAND --help` explains one command",
        "  --version   the version of cn2",
    ]
    return "\n".join(lines)


def _call(name: str, arguments: Sequence[str]) -> int:
    """Import the command's module and run it; only here are typer and the module loaded."""
    import importlib

    import typer

    _log_to_stderr()
    app = typer.Typer(
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_keep_command_names)
    importlib.import_module(COMMANDS[name].module).register(app)
    try:
        command = typer.main.get_command(app)
        with command.make_context("cn2", list(arguments)) as context:
            command.invoke(context)
    except typer.Exit as stop:
        return stop.exit_code
    return DONE


def _keep_command_names() -> None:
    """Without a callback typer drops the name of an app's only command."""


def _log_to_stderr() -> None:
    """Show what cn2's libraries log, notes and warnings, as lines on stderr."""
    handler = logging.StreamHandler()
    handler.setFormatter(_LogFormatter())
    logger = logging.getLogger("cn2")
    logger.handlers[:] = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False


class _LogFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        level = "" if record.levelno <= logging.INFO else f"{record.levelname.lower()}: "
        return f"cn2: {level}{record.getMessage()}"


def _unknown(name: str) -> str:
    import difflib

    if name.startswith("-"):
        return f"expected a command before {name}; `cn2 --help` lists them"
    nearest = difflib.get_close_matches(name, COMMANDS, n=1, cutoff=0.5)
    hint = f"did you mean `cn2 {nearest[0]}`?" if nearest else "`cn2 --help` lists the commands"
    return f"no command {name!r}; {hint}"


def _fail(message: str) -> int:
    print(f"cn2: error: {message}", file=sys.stderr)
    return USER_ERROR


def _user_message(error: Exception, command: str) -> str | None:
    """The one line for an error that the user can mend; None for a bug."""
    from .errors import Cn2Error

    if isinstance(error, Cn2Error):
        return str(error)
    if isinstance(error, ModuleNotFoundError):
        return _missing_extra(error, command)
    if isinstance(error, ValueError) and _raised_by_us(error.__traceback__):
        return str(error)
    if isinstance(error, OSError) and (error.filename is not None or error.errno == errno.ENOSPC):
        return f"{error.filename or 'output'}: {error.strerror}"
    format_message = getattr(error, "format_message", None)  # typer's and click's usage errors
    if format_message is not None:
        return f"{str(format_message()).rstrip('.')}; see `cn2 {command} --help`"
    return None


def _missing_extra(error: ModuleNotFoundError, command: str) -> str | None:
    module = (error.name or "").partition(".")[0]
    if module not in EXTRA_OF_MODULE:
        return None
    extra = COMMANDS[command].extra or EXTRA_OF_MODULE[module]
    return f"`cn2 {command}` needs {module}, which is not installed; pip install 'cn2[{extra}]'"


def _raised_by_us(traceback: TracebackType | None) -> bool:
    """Whether cn2's own `raise` made the error: then it is about input, not a slip in the code.

    A ValueError out of numpy, torch or `int()` ends elsewhere, or on another instruction.
    """
    if traceback is None:
        return False
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    module = str(traceback.tb_frame.f_globals.get("__name__", ""))
    instruction = traceback.tb_frame.f_code.co_code[traceback.tb_lasti]
    return module.startswith("cn2.") and dis.opname[instruction] == "RAISE_VARARGS"


if __name__ == "__main__":
    main()
