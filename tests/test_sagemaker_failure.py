"""The failure file: short, valid, the first word of a start, and never in the way."""

import pytest

from mrigan.errors import DataError, PeerFailedError, SettingsError
from mrigan.sagemaker.failure import clear_failure, describe, write_failure


@pytest.fixture
def failure(tmp_path, monkeypatch):
    monkeypatch.setenv("MRIGAN_ML_ROOT", str(tmp_path))
    return tmp_path / "output" / "failure"


def test_it_holds_class_message_and_remedy_in_one_line(failure):
    write_failure(DataError("nothing under s3://b/x;\ncheck MRIGAN_INPUT_URI"))
    assert failure.read_text() == "DataError: nothing under s3://b/x; check MRIGAN_INPUT_URI"


def test_a_text_is_written_as_it_is(failure):
    write_failure("a rank was killed by SIGKILL")
    assert failure.read_text() == "a rank was killed by SIGKILL"


def test_a_bug_says_where_there_is_more(failure):
    write_failure(KeyError("d_loss"))
    assert failure.read_text() == "KeyError: 'd_loss'; the log of the job shows more"


def test_characters_are_counted_not_bytes_and_the_remedy_stays(failure):
    write_failure(DataError("ß" * 5000 + "; check MRIGAN_INPUT_URI"))
    text = failure.read_bytes().decode()
    assert len(text) == 1024
    assert len(text.encode()) > 1900
    assert text.startswith("DataError: ßßß")
    assert text.endswith("ß; check MRIGAN_INPUT_URI")


def test_what_no_file_can_hold_is_replaced(failure):
    write_failure(DataError("slice-\udcff.png is no slice"))
    assert failure.read_bytes().decode() == "DataError: slice-\\udcff.png is no slice"


def test_several_problems_are_told_whole_as_far_as_there_is_room():
    problems = [f"MRIGAN_NO_{number:02}: {'x' * 90}" for number in range(20)]
    text = describe(SettingsError(*problems))
    assert 900 < len(text) <= 1024
    told, _, more = text.rpartition("; and ")
    assert told == "SettingsError: " + "; ".join(problems[: told.count("MRIGAN_NO_")])
    assert more == f"{20 - told.count('MRIGAN_NO_')} more in the log"


def test_the_first_of_a_start_wins(failure):
    write_failure("first")
    write_failure("second")
    assert failure.read_text() == "first"
    clear_failure()
    assert not failure.exists()
    clear_failure()
    write_failure("of the next start")
    assert failure.read_text() == "of the next start"


def test_who_only_heard_of_a_failure_gives_way_to_who_failed(failure):
    write_failure(PeerFailedError(exit_status=4))
    write_failure(DataError("nothing there"))
    write_failure(PeerFailedError(exit_status=4))
    assert failure.read_text() == "DataError: nothing there"


def test_a_file_that_can_not_be_written_is_only_warned_of(failure, caplog):
    failure.parent.write_text("in the way")
    with caplog.at_level("WARNING", logger="mrigan"):
        write_failure("lost")
        clear_failure()
    assert [record.getMessage() for record in caplog.records] == ["failure_file"] * 2
