"""Takes the AWS provider's schema from its generated TypeScript bindings, for what we use of it.

    npm pack @cdktf/provider-aws@21.22.1 && tar xzf cdktf-provider-aws-*.tgz
    python tests/terraform/extract_schema.py package > tests/terraform/aws_schema.json

The result has the form of ``terraform providers schema -json``, which can replace it where the
registry can be reached. Its facts are those of version 6.25.0 of the provider: names, types, what
is required or computed; values that only the provider checks are not among them.
"""

import base64
import json
import re
import sys
from pathlib import Path
from typing import Any

RESOURCES = (
    "ecr_lifecycle_policy",
    "ecr_repository",
    "iam_instance_profile",
    "iam_policy",
    "iam_role",
    "iam_role_policy",
    "iam_role_policy_attachment",
    "s3_bucket",
    "s3_bucket_lifecycle_configuration",
    "s3_bucket_ownership_controls",
    "s3_bucket_policy",
    "s3_bucket_public_access_block",
    "s3_bucket_server_side_encryption_configuration",
    "s3_bucket_versioning",
)
DATA_SOURCES = ("caller_identity", "partition")
_SCALARS = {"string": "string", "number": "number", "boolean": "bool", "any": "dynamic"}
_FLAGS = re.compile(r"// (\w+) - computed: (\w+), optional: (\w+), required: (\w+)")
_GETTER = r"get \w+\(\) \{{\s+return this\.get(\w+)Attribute\('{name}'\)"
_FIELD = re.compile(
    r"(\w+): \{\s+value: .+\s+isBlock: (\w+),\s+type: \"(\w+)\",\s+storageClassType: \"(\w+)\""
)

Schema = dict[str, Any]


def source(folder: Path) -> str:
    """Return the bindings' own source, which their source map carries with its comments."""
    script = (folder / "index.js").read_text()
    encoded = script.rpartition("base64,")[2].strip()
    return str(json.loads(base64.b64decode(encoded))["sourcesContent"][0])


def class_of(text: str, name: str) -> str | None:
    found = re.search(rf"export class {name} extends .*?^\}}", text, re.S | re.M)
    return found and found[0]


def type_of(kind: str, storage: str) -> Any:
    scalar = storage.removesuffix("List").removesuffix("Map")
    base = _SCALARS[scalar]
    return base if kind == "simple" else [kind, base]


def computed_type(body: str, name: str) -> Any:
    found = re.search(_GETTER.format(name=name), body)
    words = re.findall("[A-Z][a-z]+", found[1]) if found else ["Any"]
    base = _SCALARS.get(words[0].lower(), "dynamic")
    return base if len(words) == 1 else [words[-1].lower(), base]


def block(text: str, body: str, fields_of: str) -> Schema:
    """Return one block's schema.

    Args:
        text: The whole source.
        body: Of the class that has a getter, and a comment, for each name.
        fields_of: Source of the function that tells blocks from attributes, and types.
    """
    fields = {name: rest for name, *rest in _FIELD.findall(fields_of)}
    result: Schema = {"attributes": {}, "block_types": {}}
    for name, computed, optional, required in _FLAGS.findall(body):
        is_block, kind, storage = fields.get(name, ("false", "", ""))
        if is_block == "true":
            inner = storage if kind == "struct" else storage.removesuffix("List")
            nested = nested_block(text, inner)
            found = re.search(rf"_{_camel(name)} = new (\w+)\(", body)
            single = kind != "struct" and found and found[1].endswith("OutputReference")
            entry: Schema = {
                "nesting_mode": "single" if kind == "struct" else kind,
                "block": nested,
            }
            entry |= {"max_items": 1} if single else {}
            entry |= {"min_items": 1} if required == "true" else {}
            result["block_types"][name] = entry
            continue
        attribute = {"type": type_of(kind, storage) if kind else computed_type(body, name)}
        flags = {"computed": computed, "optional": optional, "required": required}
        result["attributes"][name] = attribute | {k: True for k, v in flags.items() if v == "true"}
    return result


def nested_block(text: str, name: str) -> Schema:
    function = name[0].lower() + name[1:] + "ToHclTerraform"
    fields = re.search(rf"export function {function}\(.*?^\}}", text, re.S | re.M)
    fields_of = fields[0] if fields else ""
    # Blocks of a provider can't be referred to and have no class; none of theirs is required.
    flags = [f"// {field} - computed: false, optional: true, required: false"
             for field, *_ in _FIELD.findall(fields_of)]  # fmt: skip
    body = class_of(text, f"{name}OutputReference") or "\n".join(flags)
    return block(text, body, fields_of)


def _camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(part.capitalize() for part in rest)


def whole(package: Path, name: str) -> Schema:
    """Return the schema of a resource or data source, named as its folder is."""
    text = source(package / "lib" / name.replace("_", "-"))
    kind = "TerraformProvider|TerraformResource|TerraformDataSource"
    top = re.search(rf"export class (\w+) extends cdktf\.(?:{kind})", text)
    assert top, name
    body = class_of(text, top[1]) or ""
    return {"version": 0, "block": block(text, body, body)}


def main(package: Path) -> None:
    schema = {
        "provider": whole(package, "provider"),
        "resource_schemas": {f"aws_{name}": whole(package, name) for name in RESOURCES},
        "data_source_schemas": {f"aws_{n}": whole(package, f"data_aws_{n}") for n in DATA_SOURCES},
    }
    schema["provider"]["block"]["block_types"].pop("endpoints", None)  # hundreds, none used
    whole_answer = {"provider_schemas": {"registry.terraform.io/hashicorp/aws": schema}}
    json.dump(whole_answer, sys.stdout, indent=1, sort_keys=True)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
