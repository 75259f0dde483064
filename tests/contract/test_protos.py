"""The protos: everything is explained, and nothing that was ever said changes its meaning."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from google.protobuf import descriptor_pb2

ROOT = Path(__file__).parents[2]
FROZEN = Path(__file__).with_name("wire.txt")
Kind = descriptor_pb2.FieldDescriptorProto


@cache
def files() -> tuple[descriptor_pb2.FileDescriptorProto, ...]:
    """Every file of ours, with its comments, as the compiler reads it."""
    names = [path.relative_to(ROOT).as_posix() for path in sorted(ROOT.glob("protos/**/*.proto"))]
    compiled = subprocess.run(
        [
            *(sys.executable, "-m", "grpc_tools.protoc", "-I", "."),
            *("--include_source_info", "--descriptor_set_out=/dev/stdout", *names),
        ],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    return tuple(descriptor_pb2.FileDescriptorSet.FromString(compiled.stdout).file)


def explicable(file: descriptor_pb2.FileDescriptorProto) -> Iterator[tuple[tuple[int, ...], str]]:
    """Yield what needs a comment: where it stands (numbers of descriptor.proto), and its name.

    Requests and responses are explained by their method.
    """
    for index, message in enumerate(file.message_type):
        if not message.name.endswith(("Request", "Response")):
            yield (4, index), message.name
        for number, field in enumerate(message.field):
            yield (4, index, 2, number), f"{message.name}.{field.name}"
    for index, enum in enumerate(file.enum_type):
        yield (5, index), enum.name
        for number, value in enumerate(enum.value):
            yield (5, index, 2, number), value.name
    for index, service in enumerate(file.service):
        yield (6, index), service.name
        for number, method in enumerate(service.method):
            yield (6, index, 2, number), f"{service.name}.{method.name}"


def without_comment(file: descriptor_pb2.FileDescriptorProto) -> list[str]:
    explained = {
        tuple(place.path): bool(place.leading_comments) for place in file.source_code_info.location
    }
    return [name for path, name in explicable(file) if not explained[path]]


def wire(file: descriptor_pb2.FileDescriptorProto) -> Iterator[str]:
    """Yield one line for everything that old callers and old logs rely on."""
    for message in file.message_type:
        for field in message.field:
            kind = field.type_name or Kind.Type.Name(field.type).removeprefix("TYPE_").lower()
            label = "repeated " if field.label == Kind.LABEL_REPEATED else ""
            label = "optional " if field.proto3_optional else label
            yield f"{message.name}.{field.name} = {field.number} {label}{kind}"
    for enum in file.enum_type:
        for value in enum.value:
            yield f"{enum.name}.{value.name} = {value.number}"
    for service in file.service:
        for method in service.method:
            asked, told = (
                f"{'stream ' if is_stream else ''}{name}"
                for is_stream, name in (
                    (method.client_streaming, method.input_type),
                    (method.server_streaming, method.output_type),
                )
            )
            yield f"{service.name}.{method.name}({asked}) returns ({told})"


def test_every_field_value_and_method_says_what_it_is():
    assert [f"{file.name}: {one}" for file in files() for one in without_comment(file)] == []


def test_what_is_on_the_wire_never_changes():
    frozen = FROZEN.read_text(encoding="utf-8").splitlines()
    now = [f"{file.name.rpartition('/')[2]}: {line}" for file in files() for line in wire(file)]
    assert [line for line in frozen if line not in now] == [], "numbers and meanings never change"
    assert [line for line in now if line not in frozen] == [], f"new: add it to {FROZEN.name}"
