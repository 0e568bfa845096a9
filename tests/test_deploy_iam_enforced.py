"""A whole run with no more rights than deploy/iam gives it, at a server that enforces them.

moto knows no condition keys, so conditions are left out; test_deploy_iam.py evaluates those.
"""

import json
import os
import string
import subprocess
import sys
import urllib.request
from contextlib import closing
from pathlib import Path

import boto3
import pytest

REPO = Path(__file__).parents[1]
MRIGAN = Path(sys.executable).with_name("mrigan")
PLACES = {"input_bucket": "slices", "input_prefix": "mri", "output_bucket": "ours"}
VALUES = PLACES | {"output_prefix": "runs", "partition": "aws", "region": "x", "account": "x"}
SERVER = """
import sys
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(*server.get_host_and_port(), flush=True)
sys.stdin.read()
server.stop()
"""
SMALL = "--image-height 40 --image-width 32 --epochs 2 --batch-size 3 --accumulation-steps 2"
RETAINING = "--checkpoint-every 1 --keep-checkpoints 1 --device cpu --storage-retries 0"

pytestmark = pytest.mark.slow


@pytest.fixture
def server():
    """A server of its own process: enforcement is a state of the whole of moto."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", SERVER], **pipes) as process:
        host, port = process.stdout.readline().split()
        yield f"http://{host}:{port}"
        process.stdin.close()


def client(server, service):
    keys = {"aws_access_key_id": "admin", "aws_secret_access_key": "admin"}
    return boto3.client(service, endpoint_url=server, region_name="us-east-1", **keys)


def mrigan(server, key, secret, *arguments):
    environment = {
        "PATH": os.environ["PATH"],
        "AWS_ENDPOINT_URL": server,
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": key,
        "AWS_SECRET_ACCESS_KEY": secret,
        "OMP_NUM_THREADS": "1",
    }
    command = [MRIGAN, *arguments]
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=240, check=False
    )


def enforce(server, role, without=""):
    """Let only a user act from now on who has ``role``'s policy; return his key and secret."""
    with closing(client(server, "s3")) as s3:
        for bucket in ("slices", "ours"):
            s3.create_bucket(Bucket=bucket)
    filled_in = string.Template((REPO / f"deploy/iam/{role}.json").read_text())
    document = json.loads(filled_in.substitute(VALUES, repository="x"))
    for statement in document["Statement"]:
        statement.pop("Condition", None)
        actions = (
            [statement["Action"]] if isinstance(statement["Action"], str) else statement["Action"]
        )
        statement["Action"] = [action for action in actions if action != without] or ["none:None"]
    with closing(client(server, "iam")) as iam:
        iam.create_user(UserName="job")
        iam.put_user_policy(UserName="job", PolicyName="p", PolicyDocument=json.dumps(document))
        key = iam.create_access_key(UserName="job")["AccessKey"]
    filled = mrigan(server, "admin", "admin", "phantom", "s3://slices/mri", "--count", "6")
    assert filled.returncode == 0, filled.stderr
    request = urllib.request.Request(f"{server}/moto-api/reset-auth", data=b"0", method="POST")
    request.add_header("Content-Type", "text/plain")
    urllib.request.urlopen(request).close()
    return key["AccessKeyId"], key["SecretAccessKey"]


def train(server, keys, folder):
    places = ["--input-uri", "s3://slices/mri", "--output-uri", "s3://ours/runs/first"]
    settings = [*SMALL.split(), *RETAINING.split(), "--cache-dir", str(folder)]
    return mrigan(server, *keys, "train", *places, *settings)


@pytest.mark.parametrize("role", ["sagemaker-policy", "ec2-policy"])
def test_a_role_s_policy_is_enough_for_a_run(server, tmp_path, role):
    result = train(server, enforce(server, role), tmp_path)
    assert result.returncode == 0, result.stderr
    assert "completed epochs=2" in result.stdout


@pytest.mark.parametrize("action", ["s3:ListBucket", "s3:GetObject", "s3:PutObject"])
def test_no_run_gets_by_without_any_of_these_rights(server, tmp_path, action):
    result = train(server, enforce(server, "sagemaker-policy", without=action), tmp_path)
    assert result.returncode == 5
    assert f"allow {action}" in result.stderr
