"""What a URI and the environment lead to: which folder, bucket, endpoint, region, credentials."""

from pathlib import Path

import boto3
import pytest

from mrigan.errors import StorageError
from mrigan.storage.bucket import Bucket
from mrigan.storage.connection import Connection
from mrigan.storage.location import BucketLocation, parse_uri
from mrigan.storage.store import StoreOptions, open_store

IMPATIENT = StoreOptions(max_retries=0)


@pytest.mark.parametrize(
    ("uri", "normalised"),
    [
        ("s3://bkt", "s3://bkt"),
        ("s3://bkt/", "s3://bkt"),
        ("S3://bkt/a/b/", "s3://bkt/a/b"),
        ("s3://bkt/a b#c?d%20e", "s3://bkt/a b#c?d%20e"),
        ("/abs/x/", "/abs/x"),
        ("/abs/y/../x", "/abs/x"),
        ("file:///abs/x", "/abs/x"),
        ("file://localhost/abs/x%20y", "/abs/x y"),
        ("/abs/100%20", "/abs/100%20"),
    ],
)
def test_a_uri_is_normalised(uri, normalised):
    assert parse_uri(uri).uri == normalised


def test_a_relative_folder_is_taken_from_where_we_are(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert parse_uri("runs/demo").uri == f"{tmp_path}/runs/demo"
    assert parse_uri("~/x").uri == f"{tmp_path}/home/x"


@pytest.mark.parametrize(
    "uri",
    [
        "",
        " ",
        "s3://",
        "s3:///x",
        "s3://b",
        "s3://b k/x",
        "s3://bkt/a//b",
        "s3://bkt/../x",
        "s3://arn:aws:s3:eu-west-1:1:accesspoint/x",
        "s3a://bkt/x",
        "gs://bkt/x",
        "https://bkt.s3.amazonaws.com/x",
        "phantom://9",
        "file://relative/x",
        "a\0b",
    ],
)
def test_a_uri_that_names_no_place_is_refused(uri):
    with pytest.raises(StorageError, match=r"give s3://bucket/prefix|write file:///folder"):
        open_store(uri)


def test_credentials_in_a_uri_are_not_repeated():
    with pytest.raises(StorageError, match="credentials don't belong") as caught:
        open_store("s3://AKIAKEY:wJalr@bkt/x")
    assert "wJalr" not in str(caught.value)
    assert "AKIA" not in str(caught.value)


@pytest.fixture
def aws(monkeypatch):
    """Credentials for AWS itself; nothing here goes there."""

    def set_environ(**variables):
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return set_environ


def reached(bucket="bkt"):
    connection = Connection(bucket, "", IMPATIENT)
    store = connection.open(0)
    assert store.config["endpoint"] == store.config["endpoint_url_s3"]
    return store.config["endpoint"], store.config["region"]


@pytest.mark.parametrize(
    ("variables", "endpoint"),
    [
        ({"AWS_REGION": "eu-west-1"}, "https://bkt.s3.eu-west-1.amazonaws.com"),
        ({"AWS_DEFAULT_REGION": "eu-west-2"}, "https://bkt.s3.eu-west-2.amazonaws.com"),
        (
            {"AWS_REGION": "eu-west-1", "AWS_DEFAULT_REGION": "eu-west-2"},
            "https://bkt.s3.eu-west-1.amazonaws.com",
        ),
        ({"AWS_REGION": "cn-north-1"}, "https://bkt.s3.cn-north-1.amazonaws.com.cn"),
        (
            {"AWS_REGION": "us-gov-west-1", "AWS_USE_FIPS_ENDPOINT": "true"},
            "https://bkt.s3-fips.us-gov-west-1.amazonaws.com",
        ),
        ({"AWS_REGION": "eu-west-1", "AWS_ENDPOINT_URL": "http://own:1/"}, "http://own:1"),
        (
            {"AWS_ENDPOINT_URL_S3": "https://own:2", "AWS_ENDPOINT_URL": "http://other:1"},
            "https://own:2",
        ),
        (
            {
                "AWS_REGION": "eu-west-1",
                "AWS_ENDPOINT_URL_S3": "http://other:1",
                "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true",
            },
            "https://bkt.s3.eu-west-1.amazonaws.com",
        ),
    ],
)
def test_the_environment_names_the_endpoint(aws, variables, endpoint):
    aws(**variables)
    assert reached()[0] == endpoint


def test_an_endpoint_of_one_s_own_needs_no_region(aws):
    aws(AWS_ENDPOINT_URL="http://own:1")
    assert reached() == ("http://own:1", "us-east-1")


def test_a_bucket_with_dots_is_reached_by_path_since_tls_would_fail_otherwise(aws):
    aws(AWS_REGION="eu-west-1")
    assert reached("a.b.c")[0] == "https://s3.eu-west-1.amazonaws.com"


def test_a_profile_names_endpoint_region_and_credentials(monkeypatch, tmp_path):
    config = tmp_path / "config"
    config.write_text(
        "[profile own]\nregion = eu-north-1\nendpoint_url = http://own:3\n"
        "aws_access_key_id = key\naws_secret_access_key = secret\n"
    )
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    monkeypatch.setenv("AWS_PROFILE", "own")
    assert reached() == ("http://own:3", "eu-north-1")


def test_the_identity_tells_endpoints_apart_but_not_regions_of_aws(aws):
    def identity():
        return Bucket(BucketLocation("bkt", "p"), IMPATIENT).identity

    aws(AWS_REGION="eu-west-1")
    first = identity()
    aws(AWS_REGION="eu-west-2")
    assert identity() == first
    aws(AWS_ENDPOINT_URL="http://own:1")
    assert identity() != first


@pytest.mark.parametrize("url", ["localhost:8333", "nonsense", "ftp://x", "http://"])
def test_an_endpoint_that_is_no_url_is_refused(aws, url):
    aws(AWS_ENDPOINT_URL=url, AWS_REGION="us-east-1")
    with pytest.raises(StorageError, match=r"AWS_ENDPOINT_URL is no URL; write it as http"):
        open_store("s3://bkt")


def test_missing_credentials_are_an_error_at_once():
    with pytest.raises(StorageError, match=r"no AWS credentials found; set AWS_ACCESS_KEY_ID"):
        open_store("s3://bkt/x")


def test_a_profile_that_does_not_exist_is_named(monkeypatch):
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(StorageError, match=r"AWS_PROFILE names no profile"):
        open_store("s3://bkt/x")


def test_half_a_credential_is_an_error(monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    with pytest.raises(StorageError, match=r"can't open s3://bkt/x: .*AWS_SECRET_ACCESS_KEY"):
        open_store("s3://bkt/x")


def test_a_credential_with_a_line_s_end_is_refused_without_showing_it(aws):
    aws(AWS_SECRET_ACCESS_KEY="hidden\n", AWS_ENDPOINT_URL="http://own:1")
    with pytest.raises(StorageError, match="a credential holds blanks or line ends") as caught:
        open_store("s3://bkt/x")
    assert "hidden" not in str(caught.value)


def test_a_bundle_of_authorities_that_is_not_there_is_named(aws, tmp_path):
    aws(AWS_CA_BUNDLE=str(tmp_path / "ca.pem"), AWS_ENDPOINT_URL="https://own:1")
    with pytest.raises(StorageError, match=r"ca\.pem"):
        open_store("s3://bkt/x")


def test_a_public_bucket_needs_no_credentials(bucket, s3_server, monkeypatch):
    boto3.client("s3", endpoint_url=s3_server).put_object(
        Bucket=bucket.removeprefix("s3://"), Key="a", Body=b"public", ACL="public-read"
    )
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(StorageError, match="AWS_SKIP_SIGNATURE=true for a public bucket"):
        open_store(bucket)
    monkeypatch.setenv("AWS_SKIP_SIGNATURE", "true")
    assert open_store(bucket).get("a") == b"public"


def test_no_variable_of_obstore_s_own_leads_past_the_endpoint(bucket, monkeypatch):
    elsewhere = "http://127.0.0.1:1"
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", boto3.Session().client("s3").meta.endpoint_url)
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT"):
        monkeypatch.setenv(name, elsewhere)
    for name in ("AWS_VIRTUAL_HOSTED_STYLE_REQUEST", "AWS_S3_EXPRESS"):
        monkeypatch.setenv(name, "false")
    monkeypatch.setenv("AWS_BUCKET", "another")
    store = open_store(bucket, IMPATIENT)
    store.put("a", b"x", create=True)
    assert [info.key for info in store.list()] == ["a"]


def test_markers_and_odd_names_of_others_are_listed_and_read(bucket, s3_server):
    client = boto3.client("s3", endpoint_url=s3_server)
    name = bucket.removeprefix("s3://")
    foreign = {
        "run/": b"",
        "run/folder/": b"",
        "run/folder/a.png": b"1",
        "run/empty": b"",
        "run/two//slashes": b"2",
        "run/./dot": b"3",
    }
    client.put_object(Bucket=name, Key="running/other", Body=b"")
    for key, body in foreign.items():
        client.put_object(Bucket=name, Key=key, Body=body)
    store = open_store(f"{bucket}/run")
    sizes = {info.key: info.size_bytes for info in store.list()}
    assert sizes == {
        "./dot": 1,
        "empty": 0,
        "folder/": 0,
        "folder/a.png": 1,
        "two//slashes": 1,
    }
    for key in sizes:
        assert store.get(key) == foreign[f"run/{key}"]
    for key in ("two//slashes", "./dot"):
        client.delete_object(Bucket=name, Key=f"run/{key}")
    # Without these obstore can list: the markers must still be told from empty objects.
    assert [info.key for info in store.list()] == ["empty", "folder/", "folder/a.png"]
    assert [info.key for info in store.list("folder")] == ["folder/a.png"]


def test_many_empty_objects_and_one_marker_are_told_apart(bucket, s3_server):
    client = boto3.client("s3", endpoint_url=s3_server)
    for number in range(70):
        client.put_object(Bucket=bucket.removeprefix("s3://"), Key=f"e{number:02}", Body=b"")
    client.put_object(Bucket=bucket.removeprefix("s3://"), Key="marker/", Body=b"")
    assert [info.key for info in open_store(bucket).list()][-2:] == ["e69", "marker/"]


def test_a_folder_that_does_not_exist_is_an_error_to_list_and_is_made_by_put(tmp_path):
    store = open_store(str(tmp_path / "not" / "yet"))
    with pytest.raises(StorageError, match=r"not/yet: there is no such folder"):
        store.list()
    with pytest.raises(StorageError, match=r"not/yet: there is no such folder"):
        store.get("a")
    assert store.list("checkpoints") == []
    assert store.head("a") is None
    store.delete("a")
    assert list(tmp_path.iterdir()) == []
    store.put("a", b"x")
    assert (tmp_path / "not" / "yet" / "a").read_bytes() == b"x"


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(StorageError, match=r"file: is a file, not a folder"):
        open_store(str(tmp_path / "file")).list()
    with pytest.raises(StorageError, match="file"):
        open_store(str(tmp_path / "file" / "below")).put("a", b"x")


def test_a_key_below_a_file_is_refused_with_a_remedy(tmp_path):
    store = open_store(str(tmp_path))
    store.put("a", b"x")
    with pytest.raises(StorageError, match=r"a/b: a file and a folder would have one name"):
        store.put("a/b", b"x")
    with pytest.raises(StorageError, match=r"12'?: a file's name can't end in '#' and digits"):
        store.put("scan#12", b"x")


def test_odd_files_of_others_do_not_break_a_folder_s_listing(tmp_path, caplog):
    store = open_store(str(tmp_path))
    store.put("plain/a.png", b"1")
    before = store.list()
    (tmp_path / "tab\there").write_bytes(b"2")
    (tmp_path / "plain" / "circle").symlink_to(tmp_path)
    (tmp_path / "plain" / "broken").symlink_to(tmp_path / "nowhere")
    Path(str(tmp_path) + "/not-\udcff-utf8").write_bytes(b"3")
    assert [info.key for info in store.list()] == ["plain/a.png", "tab\there"]
    assert store.list()[0] == before[0]
    assert [info.key for info in store.list("plain")] == ["plain/a.png"]
    assert store.get("tab\there") == b"2"
    assert {record.message for record in caplog.records} == {"path_not_listed"}


def test_a_full_disk_is_said_to_be_full():
    store = open_store("/dev/full/x")
    with pytest.raises(StorageError, match=r"/dev/full"):
        store.put("a", b"x")
