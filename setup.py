"""Folder X/ installs as cn2.X; runtime/front/ is the package cn2 itself."""

from setuptools import find_packages, setup

FOLDERS = ("trainer", "export", "runtime", "plugins")


def package_dirs() -> dict[str, str]:
    """Every package's name and the folder it lies in."""
    dirs = {"cn2": "runtime/front"}
    for folder in FOLDERS:
        dirs[f"cn2.{folder}"] = folder
        for name in find_packages(folder, exclude=("front", "front.*")):
            dirs[f"cn2.{folder}.{name}"] = f"{folder}/{name.replace('.', '/')}"
    return dirs


DIRS = package_dirs()

setup(packages=list(DIRS), package_dir=DIRS)
