"""A job from its request to its end, as someone who launches it sees it."""

import itertools
import json
import re
import signal

import pytest

PASS_ROLE = (
    "User: arn:aws:iam::123456789012:user/ada is not authorized to perform: iam:PassRole on "
    "resource: arn:aws:iam::123456789012:role/mrigan"
)
LIMIT = "The account-level service limit 'ml.g5.xlarge for {} usage' is 0 Instances"


def lines_of(*texts, first=1):
    return [(1_800_000_000_000 + number, text) for number, text in enumerate(texts, start=first)]


def test_a_job_that_completes_is_shown_from_request_to_fetch(launch, platform, scenes):
    starting, downloading, training = scenes
    log = lines_of("machine device=cuda", "epoch epoch=1 of\x1b[31m", "see", "epoch epoch=2", "end")
    platform.scene("InProgress", starting)
    platform.scene("InProgress", starting, downloading)
    platform.scene("InProgress", starting, downloading, training, lines={"algo-1-17": log[:2]})
    platform.scene(
        "Completed", starting, downloading, training, ("Completed", "Training job completed"),
        lines={"algo-1-17": log}, TrainingTimeInSeconds=900, BillableTimeInSeconds=300,
    )  # fmt: skip
    ended = launch(epochs=2, job_name="mine")
    assert (ended.status, ended.err) == (0, "")
    told = [re.sub(r"^[\d:]{8} ", "", line) for line in ended.out.splitlines()]
    assert told == [
        "submitted job=mine region=us-east-1 output=s3://runs/first",
        'status status=Starting said="Preparing the instances for training"',
        'status status=Downloading said="Downloading input data"',
        'status status=Training said="Training image download completed. Training in progress."',
        "machine device=cuda",
        "epoch epoch=1 of [31m",
        'status status=Completed said="Training job completed"',
        "see",
        "epoch epoch=2",
        "end",
        "completed job=mine trained_seconds=900 billed_seconds=300",
        'fetch_with command="mrigan fetch s3://runs/first results/first"',
    ]


def test_what_dry_run_shows_is_what_is_sent(launch, platform, scenes):
    platform.scene("Completed", *scenes)
    options = {"epochs": 7, "spot": "true", "tags": "project=mri", "job_name": "mine"}
    shown = json.loads(launch("--dry-run", **options).out)
    assert platform.requests == []
    assert launch("--no-follow", **options).status == 0
    assert platform.requests == [("CreateTrainingJob", shown)]


def test_dry_run_needs_neither_network_nor_credentials_nor_region(mrigan, arguments):
    first, second = (mrigan(*arguments(), "--dry-run") for _ in range(2))
    assert first.status == 0
    request = json.loads(first.out)
    assert request["Environment"]["AWS_REGION"] == "us-east-1"  # the image's
    names = [json.loads(each.out)["TrainingJobName"] for each in (first, second)]
    assert len(set(names)) == 2
    assert all(re.fullmatch(r"mrigan-\d{8}-\d{6}-[0-9a-f]{4}", name) for name in names)


@pytest.mark.parametrize(
    ("reason", "status"),
    [
        ("AlgorithmError: DataError: nothing is there; check INPUT_URI, exit code: 4", 4),
        ("AlgorithmError: DivergedError: the loss is NaN, exit code: 3", 3),
        ("AlgorithmError: , exit code: 137", 1),
        ("InternalServerError: We encountered an internal error.\nPlease retry", 1),
    ],
)
def test_a_failed_job_gives_its_reason_and_its_own_status(launch, platform, scenes, reason, status):
    platform.scene("InProgress", *scenes)
    platform.scene("Failed", *scenes, ("Failed", ""), FailureReason=reason)
    ended = launch(job_name="mine")
    assert ended.status == status
    assert ended.err == f"mrigan: mine failed: {' '.join(reason.split())}\n"
    assert "mrigan fetch s3://runs/first" in ended.out


@pytest.mark.parametrize(
    ("stage", "told"),
    [
        ("MaxRuntimeExceeded", "it ran for as long as --max-run-hours allows; the same command"),
        ("MaxWaitTimeExceeded", "--max-wait-hours ended, capacity was scarce; the same command"),
        ("Stopped", "someone stopped it; the same command again resumes from its checkpoint"),
    ],
)
def test_a_stopped_job_is_no_success(launch, platform, scenes, stage, told):
    platform.scene("Stopping", *scenes, ("Stopping", ""))
    platform.scene("Stopped", *scenes, (stage, ""))
    ended = launch(job_name="mine")
    assert ended.status == 10
    assert ended.err.startswith(f"mrigan: mine {stage}: {told}")


def test_an_interrupted_spot_job_is_followed_through_its_restart(launch, platform, scenes):
    starting = scenes[0]
    before = lines_of("epoch epoch=1", "interrupted")
    after = lines_of("resumed epoch=1", "epoch epoch=2", first=9)
    lost = ("Interrupted", "Spot capacity was reclaimed")
    platform.scene("InProgress", *scenes, lines={"algo-1-17": before})
    platform.scene("InProgress", *scenes, lost, lines={"algo-1-17": before})
    platform.scene("InProgress", *scenes, lost, starting, lines={"algo-1-17": before})
    platform.scene(
        "Completed", *scenes, lost, *scenes, ("Completed", ""),
        lines={"algo-1-17": before, "algo-1-99": after},
    )  # fmt: skip
    ended = launch(spot="true")
    assert ended.status == 0
    assert re.findall(r"status status=(\w+)", ended.out) == [
        "Starting", "Downloading", "Training", "Interrupted",
        "Starting", "Downloading", "Training", "Completed",
    ]  # fmt: skip
    for _, text in (*before, *after):
        assert ended.out.splitlines().count(text) == 1
    assert ended.out.index("resumed") > ended.out.index("Interrupted")


def test_a_stage_that_goes_on_with_other_words_is_told_once_more(launch, platform):
    for said in ("Launching", "Launching", "Insufficient capacity, trying again"):
        platform.scene("InProgress", ("Starting", said))
    platform.scene("Completed", ("Starting", "done"), ("Completed", ""))
    assert re.findall(r"status=Starting said=\"?([^\"\n]+)", launch().out) == [
        "Launching", "Insufficient capacity, trying again",
    ]  # fmt: skip


def test_lines_of_several_machines_come_in_their_order_with_the_name_of_the_others(
    launch, platform, scenes
):
    streams = {
        "algo-1-17": [(1, "first"), (4, "fourth")],
        "algo-2-17": [(2, "second"), (3, "third")],
    }
    platform.scene("Completed", *scenes, lines=streams)
    told = launch(instance_count=2).out.splitlines()
    start = told.index("first")
    assert told[start : start + 4] == ["first", "algo-2: second", "algo-2: third", "fourth"]


def test_a_json_log_is_json_on_every_line_of_the_launch_too(launch, platform, scenes):
    platform.scene("Completed", *scenes, lines={"algo-1-1": [(1, '{"event": "epoch"}')]})
    ended = launch(log_format="json", job_name="mine")
    lines = [json.loads(line) for line in ended.out.splitlines()]
    assert [line["event"] for line in lines] == [
        "submitted", "status", "status", "status", "log", "completed", "fetch_with",
    ]  # fmt: skip
    assert json.loads(lines[4]["line"]) == {"event": "epoch"}


@pytest.mark.parametrize(
    ("refusal", "options", "told"),
    [
        (
            (400, "ResourceLimitExceeded", LIMIT.format("spot training job")),
            {"spot": "true"},
            "Amazon SageMaker: 'ml.g5.xlarge for spot training job usage'), or choose another",
        ),
        (
            (400, "ResourceLimitExceeded", LIMIT.format("training warm pool")),
            {"keep_alive_minutes": 9},
            "'ml.g5.xlarge for training warm pool usage'",
        ),
        ((400, "AccessDeniedException", PASS_ROLE), {}, "; allow iam:PassRole on the role"),
        (
            (
                400,
                "AccessDeniedException",
                "not authorized to perform: sagemaker:CreateTrainingJob",
            ),
            {},
            "; allow it for these credentials (deploy/iam",
        ),
        ((400, "ResourceInUse", "Training job names must be unique"), {}, "another --job-name"),
        ((400, "ValidationException", "No S3 objects found\nunder it"), {}, "--dry-run shows"),
        ((400, "ExpiredTokenException", "The security token is expired"), {}, "aws sso login"),
        ((400, "UnrecognizedClientException", "The token is invalid"), {}, "aws sso login"),
    ],
)
def test_a_refused_request_is_one_line_with_a_remedy(launch, platform, refusal, options, told):
    platform.refusals["CreateTrainingJob"] = [refusal] * 9
    ended = launch(**options)
    assert (ended.status, ended.out) == (1, "")
    assert ended.err.startswith("mrigan: can't submit the job: ")
    assert told in ended.err
    assert ended.err.count("\n") == 1


def test_without_credentials_nothing_is_sent_and_the_remedy_is_told(launch, platform, monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    ended = launch()
    assert ended.status == 2
    assert ended.err.startswith("mrigan: can't submit the job: no AWS credentials found; set AWS_")
    assert platform.requests == []


def test_without_a_region_following_says_so(mrigan, platform, monkeypatch):
    monkeypatch.delenv("AWS_REGION")
    ended = mrigan("launch", "--attach", "mine")
    assert (ended.status, ended.err) == (
        2, "mrigan: can't follow mine: no region; set AWS_REGION\n",
    )  # fmt: skip


def test_an_answer_lost_on_the_way_is_no_second_job(launch, platform, scenes):
    platform.scene("Completed", *scenes)
    platform.refusals["CreateTrainingJob"] = [
        None,
        (400, "ResourceInUse", "Training job names must be unique"),
    ]
    ended = launch(job_name="mine")
    assert (ended.status, ended.err) == (0, "")
    assert platform.operations.count("CreateTrainingJob") == 1


def test_throttling_and_broken_connections_are_waited_out(launch, platform, scenes):
    throttled = (400, "ThrottlingException", "Rate exceeded")
    platform.scene("InProgress", *scenes, lines={"algo-1-1": lines_of("a", "b", "c", "d", "e")})
    platform.scene("Completed", *scenes, lines={"algo-1-1": lines_of("a", "b", "c", "d", "e")})
    platform.refusals["DescribeTrainingJob"] = [throttled] * 7 + [None] * 6 + [(503, "X", "")] * 6
    platform.refusals["GetLogEvents"] = [(), throttled, throttled, throttled, throttled, throttled]
    ended = launch()
    assert (ended.status, ended.err) == (0, "")
    assert (
        "no answer from AWS (ThrottlingException); trying again, the job keeps running" in ended.out
    )
    assert ended.out.count("trying again") == 1  # once a minute
    assert [line for line in ended.out.splitlines() if line in "abcde"] == list("abcde")


def test_silence_is_given_up_after_a_while(platform, scenes, quick):
    from mrigan.errors import MriganError
    from mrigan.sagemaker.aws import Aws
    from mrigan.sagemaker.events import Notice, follow

    platform.scene("InProgress", *scenes)
    platform.refusals["DescribeTrainingJob"] = [(503, "ServiceUnavailable", "later")] * 999
    now = iter(range(0, 99999, 40))
    events = follow(Aws(), "mine", clock=lambda: next(now))
    told = list(itertools.islice(events, 8))
    assert all(isinstance(event, Notice) for event in told)
    with pytest.raises(
        MriganError, match=r"later; .*; the job keeps running; then: mrigan launch --att"
    ):
        list(events)


@pytest.mark.parametrize("operation", ["DescribeTrainingJob", "GetLogEvents"])
def test_credentials_that_end_meanwhile_leave_the_job_running(launch, platform, scenes, operation):
    platform.scene("InProgress", *scenes, lines={"algo-1-1": lines_of("a")})
    platform.refusals[operation] = [(), (), (400, "ExpiredTokenException", "expired")]
    ended = launch(job_name="mine")
    assert ended.status == 1
    assert "renew them (aws sso login" in ended.err
    assert ended.err.endswith("the job keeps running; then: mrigan launch --attach mine\n")


def test_a_log_that_may_not_be_read_is_said_and_the_job_followed(launch, platform, scenes):
    denied = (400, "AccessDeniedException", "not authorized: logs:DescribeLogStreams")
    platform.refusals["DescribeLogStreams"] = [denied] * 9
    platform.scene("InProgress", *scenes)
    platform.scene("Completed", *scenes)
    ended = launch()
    assert ended.status == 0
    assert ended.out.count("allow logs:DescribeLogStreams and logs:GetLogEvents") == 1


def test_before_the_accounts_first_line_there_is_no_log_to_read(launch, platform, scenes):
    missing = (400, "ResourceNotFoundException", "The specified log group does not exist.")
    platform.refusals["DescribeLogStreams"] = [missing] * 2
    platform.scene("InProgress", *scenes)
    platform.scene("InProgress", *scenes)
    platform.scene("Completed", *scenes, lines={"algo-1-1": lines_of("at last")})
    ended = launch()
    assert (ended.status, ended.err) == (0, "")
    assert "at last" in ended.out


def test_lines_that_reach_the_log_after_the_end_are_shown(launch, platform, scenes, monkeypatch):
    platform.scene("Completed", *scenes, FailureReason="")
    late = lines_of("late")
    asked = []

    def lines():
        asked.append(1)
        return {"algo-1-1": late if len(asked) > 1 else []}

    monkeypatch.setattr(platform, "_lines", lines)
    assert "\nlate\n" in launch().out


def test_no_follow_submits_and_says_how_to_come_back(launch, platform):
    ended = launch("--no-follow", job_name="mine")
    assert (ended.status, platform.operations) == (0, ["CreateTrainingJob"])
    assert 'attach_with command="mrigan launch --attach mine"' in ended.out
    assert 'stop_with command="mrigan launch --stop mine"' in ended.out


def test_attach_follows_a_job_and_knows_its_run(mrigan, platform, scenes, quick):
    platform.created = {
        "TrainingJobName": "mine",
        "OutputDataConfig": {"S3OutputPath": "s3://runs/isolated/sagemaker"},
    }
    platform.scene("Completed", *scenes, lines={"algo-1-1": lines_of("a")})
    ended = mrigan("launch", "--attach", "mine")
    assert ended.status == 0
    assert "mrigan fetch s3://runs/isolated results/isolated" in ended.out
    assert "CreateTrainingJob" not in platform.operations


def test_attach_to_no_job_is_one_line(mrigan, platform, quick):
    platform.refusals["DescribeTrainingJob"] = [
        (400, "ValidationException", "Requested resource not found.")
    ]
    ended = mrigan("launch", "--attach", "mien")
    assert ended.status == 1
    assert ended.err.startswith("mrigan: there is no job mien here (")
    assert "the job goes on" not in ended.err


def test_stop_asks_for_it_and_says_what_has_ended_already(mrigan, platform):
    assert mrigan("launch", "--stop", "mine").status == 0
    assert platform.requests == [("StopTrainingJob", {"TrainingJobName": "mine"})]
    platform.refusals["StopTrainingJob"] = [
        (400, "ValidationException", "The request was rejected because the training job ended.")
    ]
    ended = mrigan("launch", "--stop", "mine")
    assert ended.status == 1
    assert "can't stop mine: ValidationException: The request was rejected" in ended.err


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_detaches_and_the_job_can_be_followed_again(
    spawn, mrigan, platform, scenes, arguments, monkeypatch, number, status
):
    platform.scene("InProgress", *scenes, lines={"algo-1-1": lines_of("epoch epoch=1")})
    process = spawn(*arguments(job_name="mine"))
    while "epoch epoch=1" not in process.stdout.readline():
        assert process.poll() is None
    process.send_signal(number)
    out, err = process.communicate(timeout=200)
    assert (process.returncode, err) == (status, "")
    assert "detached job=mine keeps_running=True" in out
    assert 'attach_with command="mrigan launch --attach mine"' in out
    assert "StopTrainingJob" not in platform.operations
    monkeypatch.setattr("mrigan.sagemaker.events.POLL_SECONDS", 0.0)
    platform.scenes.clear()
    platform.scene("Completed", *scenes, ("Completed", ""))
    assert mrigan("launch", "--attach", "mine").status == 0


def test_a_wrong_line_is_refused_before_anything_is_sent(launch, platform):
    ended = launch("--epoch=3", instance_type="ml.p3.2xlarge")
    assert ended.status == 2
    assert ended.err == "mrigan: --epoch: unknown, did you mean --epochs?\n"
    ended = launch(instance_type="ml.p3.2xlarge")
    assert ended.err.startswith("mrigan: --instance-type ml.p3.2xlarge: its GPU is older than")
    assert launch("--dry-run", "--check").status == 2
    assert platform.requests == []
