"""Put ONNX Runtime's C header into plugins/third_party/onnxruntime/, for a build from source.

    python3 plugins/fetch_headers.py    # nothing to do where it is there or ONNXRUNTIME_ROOT is

From a package of 85 kB of the Debian mirror that this machine's apt is set up with, else from one
of 150 MB of the npm registry. Each is compared with a known hash. Needs Python alone.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

TARGET = Path(__file__).resolve().parent / "third_party" / "onnxruntime"
HEADER = "onnxruntime_c_api.h"
DEBIAN_PATH = "pool/main/o/onnxruntime/libonnxruntime-dev_1.21.0+dfsg-1_amd64.deb"
DEBIAN_SHA256 = "14f7d959d5deacbcf1504830d4189f91fc67382b399ed9ae9d3aa9c4050ced08"
DEBIAN_FOLDER = "usr/include/onnxruntime"
NPM_PACKAGE = "com.github.asus4.onnxruntime@0.4.9"
NPM_SHA256 = "e59788788818fdde1b2e522e766a21ba0f7d8391de55737abf81e32cc801785d"
NPM_FOLDER = "Plugins/iOS~/onnxruntime.xcframework/ios-arm64/onnxruntime.framework/Headers"
LICENSE = "ONNX Runtime, Copyright (c) Microsoft Corporation, MIT licence\n"
TIMEOUT_S = 60


def main() -> int:
    """Fetch what is missing; the exit code."""
    if os.environ.get("ONNXRUNTIME_ROOT") or (TARGET / HEADER).is_file():
        return 0
    failures = []
    for name, fetch in (("Debian", from_debian), ("npm", from_npm)):
        try:
            write(fetch())
        except (OSError, ValueError, tarfile.TarError, subprocess.SubprocessError) as error:
            failures.append(f"{name}: {error}")
        else:
            print(f"{TARGET}: ONNX Runtime's headers, from {name}")
            return 0
    causes = "; ".join(failures).replace("\n", " ")
    print(f"fetch_headers: error: {causes}; set ONNXRUNTIME_ROOT", file=sys.stderr)
    return 1


def from_debian() -> dict[str, bytes]:
    """The headers, by name, of Debian's package.

    Raises:
        OSError: no mirror has it.
        ValueError: another hash; no header inside.
    """
    failures = []
    for mirror in debian_mirrors():
        try:
            with urllib.request.urlopen(mirror + DEBIAN_PATH, timeout=TIMEOUT_S) as answer:
                package = check(answer.read(), DEBIAN_SHA256)
        except OSError as error:
            failures.append(str(error))
        else:
            with tarfile.open(fileobj=io.BytesIO(deb_data(package))) as tar:
                return headers(tar, DEBIAN_FOLDER)
    raise OSError(", ".join(failures) or "apt names no mirror")


def debian_mirrors() -> list[str]:
    """The addresses of apt's repositories, each ending with a slash."""
    command = ["apt-get", "indextargets", "--format", "$(REPO_URI)"]
    if shutil.which(command[0]) is None:
        return []
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    return sorted({line.rstrip("/") + "/" for line in lines if line.startswith("http")})


def deb_data(package: bytes) -> bytes:
    """The archive of files inside a Debian package, which is an `ar` archive.

    Raises:
        ValueError: there is none.
    """
    offset = len(b"!<arch>\n")
    while offset + 60 <= len(package):
        name, size = package[offset : offset + 16], int(package[offset + 48 : offset + 58])
        offset += 60
        if name.startswith(b"data.tar"):
            return package[offset : offset + size]
        offset += size + size % 2
    raise ValueError("expected data.tar in the package, found none")


def from_npm() -> dict[str, bytes]:
    """The headers, by name, of the npm package.

    Raises:
        OSError, subprocess.SubprocessError: no npm, or it failed.
        ValueError: another hash; no header inside.
    """
    if shutil.which("npm") is None:
        raise OSError("expected the command npm, found none")
    with tempfile.TemporaryDirectory() as folder:
        command = ["npm", "pack", "--silent", NPM_PACKAGE]
        subprocess.run(command, cwd=folder, capture_output=True, check=True, timeout=600)
        package = next(Path(folder).glob("*.tgz")).read_bytes()
    with tarfile.open(fileobj=io.BytesIO(check(package, NPM_SHA256))) as tar:
        return headers(tar, NPM_FOLDER)


def check(package: bytes, sha256: str) -> bytes:
    """The package itself.

    Raises:
        ValueError: it is not the one with this hash.
    """
    found = hashlib.sha256(package).hexdigest()
    if found != sha256:
        raise ValueError(f"expected a package with sha256 {sha256}, got {found}")
    return package


def headers(tar: tarfile.TarFile, folder: str) -> dict[str, bytes]:
    """The .h files that lie in a folder (the end of its path), by name.

    Raises:
        ValueError: the one that is needed is not there.
    """
    found = {PurePosixPath(member.name).name: data for member, data in files_of(tar, folder)}
    if HEADER not in found:
        raise ValueError(f"expected {folder}/{HEADER} in the package, found none")
    return found


def files_of(tar: tarfile.TarFile, folder: str) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
    """Each .h file of a folder with its content."""
    for member in tar:
        path = PurePosixPath(member.name)
        if member.isfile() and path.suffix == ".h" and path.parent.as_posix().endswith(folder):
            data = tar.extractfile(member)
            if data is not None:
                yield member, data.read()


def write(found: dict[str, bytes]) -> None:
    """Into TARGET; the header that the build looks for comes last, so that it is whole."""
    TARGET.mkdir(parents=True, exist_ok=True)
    (TARGET / "LICENSE").write_text(LICENSE, "utf-8")
    for name in sorted(found, key=lambda name: name == HEADER):
        (TARGET / name).write_bytes(found[name])


if __name__ == "__main__":
    sys.exit(main())
