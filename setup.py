"""Folder X/ installs as cn2.X; runtime/front/ is the package cn2 itself.

Where CMake, a C++20 compiler and ONNX Runtime's headers are (ONNXRUNTIME_ROOT, or what
plugins/fetch_headers.py brought), a wheel also holds the native libraries and is one of this
platform; else it is pure Python. CN2_NATIVE=1: to fail instead; CN2_NATIVE=0: not to try.
CN2_NATIVE=cuda: with CUDA kernels and TensorRT plugins, or fail; nvcc takes minutes.
An editable install has none: `make native` puts them where it looks for them.
"""

import os
import shutil
import subprocess
from pathlib import Path
from typing import ClassVar

from setuptools import Command, find_packages, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
FOLDERS = ("trainer", "export", "runtime", "plugins")
LIBRARY = "lib/libcn2.so"  # without it the rest is of no use
PLUGINS = "lib/libcn2_trt_plugins.so"
# Of the source tree alone.
SCRIPTS = {("cn2.plugins", "fetch_headers"), ("cn2.plugins", "fetch_tensorrt")}


def package_dirs() -> dict[str, str]:
    """Every package's name and the folder it lies in."""
    dirs = {"cn2": "runtime/front"}
    for folder in FOLDERS:
        dirs[f"cn2.{folder}"] = folder
        for name in find_packages(folder, exclude=("front", "front.*")):
            dirs[f"cn2.{folder}.{name}"] = f"{folder}/{name.replace('.', '/')}"
    return dirs


class BuildNative(Command):
    """Build plugins/ and install it below build/; `installed` is where, None without it."""

    description = "build the native libraries"
    user_options: ClassVar[list[tuple[str, str, str]]] = []

    def initialize_options(self) -> None:
        self.installed: Path | None = None

    def finalize_options(self) -> None:
        pass

    def run(self) -> None:
        wish = os.environ.get("CN2_NATIVE", "")
        if wish not in ("", "0", "1", "cuda"):
            raise SystemExit(f"CN2_NATIVE: expected 0, 1, cuda or nothing, got {wish!r}")
        if wish == "0":
            return
        folder = Path(self.get_finalized_command("build").build_base).absolute() / "wheel-native"
        try:
            self.installed = build_native(folder, cuda=wish == "cuda")
        except (OSError, subprocess.CalledProcessError, RuntimeError) as error:
            line = f"no native libraries in this wheel: {error}"
            if wish:
                raise SystemExit(f"CN2_NATIVE={wish}, but {line}") from error
            self.warn(line)


def build_native(folder: Path, *, cuda: bool) -> Path:
    """Build into a folder from scratch; where it was installed.

    Raises:
        OSError, CalledProcessError: no CMake, or it failed.
        RuntimeError: it left libcn2 out, or what `cuda` wants.
    """
    shutil.rmtree(folder, ignore_errors=True)
    cmake = shutil.which("cmake") or "cmake"
    configure = [cmake, "-S", str(ROOT / "plugins"), "-B", str(folder)]
    kernels = "ON" if cuda else "OFF"
    options = ["-DCMAKE_INSTALL_LIBDIR=lib", f"-DCN2_CUDA={kernels}", "-DCN2_TESTS=OFF"]
    subprocess.run([*configure, *options], check=True)
    jobs = str(os.cpu_count() or 1)  # without a number, make starts all at once
    subprocess.run([cmake, "--build", str(folder), "--parallel", jobs], check=True)
    installed = folder / "installed"
    subprocess.run([cmake, "--install", str(folder), "--prefix", str(installed)], check=True)
    for library in (LIBRARY, PLUGINS)[: 1 + cuda]:
        if not (installed / library).is_file():
            raise RuntimeError(f"CMake left {Path(library).stem} out, and said above why")
    return installed


class BuildPy(build_py):
    """Python's files, and beside cn2.plugins what was built."""

    def find_package_modules(self, package: str, package_dir: str) -> list[tuple[str, str, str]]:
        found = super().find_package_modules(package, package_dir)
        return [module for module in found if module[:2] not in SCRIPTS]

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        self.run_command("build_native")
        installed = self.get_finalized_command("build_native").installed
        if installed is not None:
            target = Path(self.build_lib) / "cn2" / "plugins"
            shutil.copytree(installed, target, dirs_exist_ok=True)


class BdistWheel(bdist_wheel):
    """A wheel of this platform where native libraries are in it; any Python 3 runs it."""

    def run(self) -> None:
        self.run_command("build_native")
        if self.get_finalized_command("build_native").installed is not None:
            self.root_is_pure = False
            self.distribution.has_ext_modules = lambda: True
        super().run()

    def get_tag(self) -> tuple[str, str, str]:
        _, _, platform = super().get_tag()
        return "py3", "none", platform


DIRS = package_dirs()

setup(
    packages=list(DIRS),
    package_dir=DIRS,
    cmdclass={"build_native": BuildNative, "build_py": BuildPy, "bdist_wheel": BdistWheel},
)
