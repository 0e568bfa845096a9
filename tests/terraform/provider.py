"""An AWS provider that knows its schema and nothing else, for a machine without a registry.

Prints a value for TF_REATTACH_PROVIDERS, by which Terraform finds it, and serves until its input
ends. Terraform speaks its plugin protocol, version 6, with it. That is enough for `terraform
validate`, and for `terraform test` with a mocked provider.
"""

import json
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc

_SOURCE = "registry.terraform.io/hashicorp/aws"
_SCHEMA = Path(__file__).with_name("aws_schema.json")
_NESTING = {"single": 1, "list": 2, "set": 3}


def _varint(number):
    head, rest = number & 0x7F, number >> 7
    return bytes([head | 0x80]) + _varint(rest) if rest else bytes([head])


def _field(number, value):
    """Return one field in protobuf's wire format: a number, or anything that has a length."""
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    payload = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(payload)) + payload


def _attribute(name, schema):
    encoded = _field(1, name) + _field(2, json.dumps(schema["type"]))
    flags = {4: "required", 5: "optional", 6: "computed"}
    return encoded + b"".join(_field(n, 1) for n, flag in flags.items() if schema.get(flag))


def _nested(name, schema):
    encoded = _field(1, name) + _field(2, _block(schema["block"]))
    encoded += _field(3, _NESTING[schema["nesting_mode"]])
    return encoded + _field(4, schema.get("min_items", 0)) + _field(5, schema.get("max_items", 0))


def _block(schema):
    attributes = (_field(2, _attribute(*item)) for item in schema["attributes"].items())
    blocks = (_field(3, _nested(*item)) for item in schema["block_types"].items())
    return b"".join([*attributes, *blocks])


def _schema(schema):
    return _field(2, _block(schema["block"]))


def _entries(number, schemas):
    return b"".join(
        _field(number, _field(1, name) + _field(2, _schema(schema)))
        for name, schema in schemas.items()
    )


def _provider_schema():
    schema = json.loads(_SCHEMA.read_text())["provider_schemas"][_SOURCE]
    resources = _entries(2, schema["resource_schemas"])
    return (
        _field(1, _schema(schema["provider"]))
        + resources
        + _entries(3, schema["data_source_schemas"])
    )


class _Provider(grpc.GenericRpcHandler):
    """Answers with the schema, and to every check that it finds nothing wrong."""

    def __init__(self):
        checks = ("ProviderConfig", "ResourceConfig", "DataResourceConfig")
        answers = {f"Validate{check}": b"" for check in checks}
        answers |= {"GetProviderSchema": _provider_schema(), "ConfigureProvider": b""}
        self._answers = {f"/tfplugin6.Provider/{name}": body for name, body in answers.items()}

    def service(self, details) -> Callable | None:
        answer = self._answers.get(details.method)
        if answer is None:
            return None
        return grpc.unary_unary_rpc_method_handler(lambda request, context: answer)


def main() -> None:
    server = grpc.server(ThreadPoolExecutor(4), handlers=[_Provider()])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    address = {"Network": "tcp", "String": f"127.0.0.1:{port}"}
    found = {"Protocol": "grpc", "ProtocolVersion": 6, "Pid": 1, "Test": True, "Addr": address}
    sys.stdout.write(json.dumps({_SOURCE: found}) + "\n")
    sys.stdout.flush()
    sys.stdin.read()
    server.stop(None).wait()


if __name__ == "__main__":
    main()
