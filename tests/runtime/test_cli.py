"""The command `cn2` itself: help, exit codes, one-line errors; commands are faked here."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
import types
from collections.abc import Callable

import pytest
import typer

from cn2.runtime import cli
from cn2.runtime.errors import PictureError

HEAVY = ("torch", "torchvision", "cv2", "onnx", "onnxruntime", "pydantic", "PIL", "rich", "typer")

REPORT_MODULES = f"""
import json, sys
from cn2.runtime.cli import run
code = run(sys.argv[1:])
heavy = [name for name in {HEAVY!r} if name in sys.modules]
commands = [name for name in sys.modules if name.endswith("commands")]
print(json.dumps({{"code": code, "heavy": heavy, "commands": commands}}), file=sys.stderr)
"""

# A command module named as if it were ours: what it raises counts as raised by cn2.
FAKE_COMMANDS = """
import typer

def register(app):
    app.command("detect")(detect)

def detect(
    what: str = typer.Argument(metavar="WHAT"),
    size: int = typer.Option(1, "--size", help="Any number."),
):
    ACTIONS[what]()

def raise_value_error():
    raise ValueError("size: expected HxW, got 7; write 512x512")

def slip():
    int("seven")

def ask_for_torch():
    raise ModuleNotFoundError("No module named 'torch'", name="torch")
"""


def run_cn2(*arguments: str) -> subprocess.CompletedProcess[str]:
    """`cn2` in a process of its own, which reports the modules it holds on stderr's last line."""
    return subprocess.run(
        [sys.executable, "-c", REPORT_MODULES, *arguments],
        capture_output=True,
        text=True,
        check=True,
    )


@pytest.fixture
def actions(monkeypatch: pytest.MonkeyPatch) -> dict[str, Callable[[], None]]:
    """`cn2 detect NAME` calls the function of that name in this dict."""
    module = types.ModuleType("cn2.fake_commands")
    table: dict[str, Callable[[], None]] = {}
    module.__dict__["ACTIONS"] = table
    exec(FAKE_COMMANDS, module.__dict__)
    for name in ("raise_value_error", "slip", "ask_for_torch"):
        table[name] = module.__dict__[name]
    monkeypatch.setitem(sys.modules, "cn2.fake_commands", module)
    for name in ("detect", "train"):
        extra = cli.COMMANDS[name].extra
        fake = cli.Command("cn2.fake_commands", "fake", extra)
        monkeypatch.setitem(cli.COMMANDS, name, fake)
    return table


def raising(error: BaseException) -> Callable[[], None]:
    def action() -> None:
        raise error

    return action


@pytest.mark.parametrize("arguments", [("--help",), ("-h",), ("help",)])
def test_help_lists_every_command_and_imports_nothing_heavy(arguments: tuple[str, ...]) -> None:
    done = run_cn2(*arguments)
    report = json.loads(done.stderr.splitlines()[-1])
    assert report == {"code": 0, "heavy": [], "commands": []}
    for name, command in cli.COMMANDS.items():
        assert f"  {name}" in done.stdout
        assert command.help in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_importing_the_runtime_imports_nothing_heavy() -> None:
    code = f"import sys, cn2, cn2.runtime; print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    import cn2

    assert cli.run(["--version"]) == 0
    assert capsys.readouterr().out == f"cn2 {cn2.__version__}\n"


def test_no_command_prints_help_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run([]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("usage: cn2 COMMAND")


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("trian", "no command 'trian'; did you mean `cn2 train`?"),  # a slip of the finger
        ("detects", "no command 'detects'; did you mean `cn2 detect`?"),
        ("zzz", "no command 'zzz'; `cn2 --help` lists the commands"),  # near to nothing
        ("--score", "expected a command before --score; `cn2 --help` lists them"),
    ],
)
def test_unknown_command_suggests_the_nearest(
    word: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run([word]) == 2
    assert capsys.readouterr().err == f"cn2: error: {message}\n"


@pytest.mark.parametrize("command", sorted(cli.COMMANDS))
def test_the_table_names_a_module_that_registers_the_command(command: str) -> None:
    import importlib

    app = typer.Typer()
    importlib.import_module(cli.COMMANDS[command].module).register(app)
    assert command in {registered.name for registered in app.registered_commands}


@pytest.mark.usefixtures("actions")
def test_help_of_one_command_names_it_in_the_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["detect", "--help"]) == 0
    assert "Usage: cn2 detect [OPTIONS]" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (PictureError("a.jpg: no picture"), "a.jpg: no picture"),
        (
            PermissionError(errno.EACCES, "Permission denied", "/root/x"),
            "/root/x: Permission denied",
        ),
        (OSError(errno.ENOSPC, "No space left on device"), "output: No space left on device"),
    ],
)
def test_a_user_error_is_one_line_and_exit_code_2(
    error: Exception,
    message: str,
    actions: dict[str, Callable[[], None]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    actions["fail"] = raising(error)
    assert cli.run(["detect", "fail"]) == 2
    assert capsys.readouterr().err == f"cn2: error: {message}\n"


@pytest.mark.usefixtures("actions")
def test_a_value_error_of_ours_is_the_users(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["detect", "raise_value_error"]) == 2
    err = capsys.readouterr().err
    assert err == "cn2: error: size: expected HxW, got 7; write 512x512\n"


def test_other_errors_are_bugs_and_keep_their_traceback(
    actions: dict[str, Callable[[], None]],
) -> None:
    actions["key"] = raising(KeyError("boxes"))
    actions["foreign"] = raising(ValueError("raised outside cn2"))
    for name, kind in {"key": KeyError, "foreign": ValueError, "slip": ValueError}.items():
        with pytest.raises(kind):
            cli.run(["detect", name])


@pytest.mark.parametrize(
    ("command", "extra"),
    [("train", "train"), ("detect", "export")],  # detect: a .safetensors runs on torch
)
@pytest.mark.usefixtures("actions")
def test_a_missing_extra_names_the_pip_line(
    command: str, extra: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake = sys.modules["cn2.fake_commands"]
    register = lambda app: app.command(command)(fake.detect)  # noqa: E731
    monkeypatch.setattr(fake, "register", register)
    assert cli.run([command, "ask_for_torch"]) == 2
    assert capsys.readouterr().err == (
        f"cn2: error: `cn2 {command}` needs torch, which is not installed; "
        f"pip install 'cn2[{extra}]'\n"
    )


def test_a_missing_module_of_no_extra_is_a_bug(actions: dict[str, Callable[[], None]]) -> None:
    actions["gone"] = raising(ModuleNotFoundError("No module named 'cn2.x'", name="cn2.x"))
    with pytest.raises(ModuleNotFoundError):
        cli.run(["detect", "gone"])


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["detect"], "Missing argument 'WHAT'"),
        (["detect", "a", "--size", "x"], "Invalid value for '--size'"),
        (["detect", "a", "--sise", "1"], "--size"),  # names the nearest option
    ],
)
@pytest.mark.usefixtures("actions")
def test_a_wrong_option_is_one_line(
    arguments: list[str], part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(arguments) == 2
    err = capsys.readouterr().err
    assert part in err
    assert err.startswith("cn2: error: ")
    assert err.endswith("; see `cn2 detect --help`\n")
    assert err.count("\n") == 1


def test_ctrl_c_is_one_short_line(
    actions: dict[str, Callable[[], None]], capsys: pytest.CaptureFixture[str]
) -> None:
    actions["wait"] = raising(KeyboardInterrupt())
    assert cli.run(["detect", "wait"]) == 130
    assert capsys.readouterr().err == "cn2: interrupted\n"


def test_a_reader_that_leaves_is_no_error() -> None:
    code = "import sys; from cn2.runtime.cli import run; sys.exit(run(['--help']))"
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()  # before the help is written
    err = process.stderr.read()
    process.stderr.close()
    assert process.wait() == 141
    assert err == b""


def test_a_bug_exits_with_1_and_a_traceback() -> None:
    code = (
        "import cn2.runtime.cli as cli; cli._call = lambda *_: {}['x']; "
        "import sys; sys.argv = ['cn2', 'info']; cli.main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "KeyError: 'x'" in done.stderr
