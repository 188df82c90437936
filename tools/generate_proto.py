"""Generate the message classes from the .proto files: ``make proto`` (grpcio-tools and
mypy-protobuf are in the dev dependencies)."""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).parents[1] / "src" / "firearrow" / "protocol" / "grpc"
FILES = (
    "apache/rocketmq/v2/definition",
    "apache/rocketmq/v2/service",
    "apache/rocketmq/v2/admin",
    "grpc/health/v1/health",
    "grpc/reflection/v1/reflection",
)
PACKAGES = r"(?:apache\.rocketmq\.v2|grpc\.health\.v1|grpc\.reflection\.v1)"


def main() -> None:
    from grpc_tools import protoc  # type: ignore[import-untyped]

    compile_files: Any = protoc.main
    with tempfile.TemporaryDirectory() as out:
        include = str(Path(protoc.__file__).parent / "_proto")
        files = [f"{name}.proto" for name in FILES]
        arguments = ["", f"-I{HERE / 'proto'}", f"-I{include}", f"--python_out={out}"]
        if compile_files([*arguments, f"--mypy_out={out}", *files]):
            raise SystemExit("protoc failed")
        for name in FILES:
            for suffix in ("_pb2.py", "_pb2.pyi"):
                made = Path(out) / f"{name}{suffix}"
                target = HERE / "pb" / made.name
                shutil.copy(made, target)
                target.write_text(own_pool(target.read_text()))


def own_pool(text: str) -> str:
    """The generated text with our pool and our import paths."""
    text = text.replace("_descriptor_pool.Default()", "POOL")
    text = text.replace(
        "from google.protobuf import descriptor_pool as _descriptor_pool\n",
        "from firearrow.protocol.grpc.pb import POOL\n",
    )
    text = re.sub(rf"from {PACKAGES} import", "from firearrow.protocol.grpc.pb import", text)
    text = re.sub(
        rf"import {PACKAGES}\.(\w+)\n",
        r"from firearrow.protocol.grpc.pb import \1\n",
        text,
    )
    return re.sub(rf"{PACKAGES}\.(\w+_pb2)", r"\1", text)


if __name__ == "__main__":
    main()
