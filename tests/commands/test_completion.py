"""What shells complete of a command line, asked of the shells themselves."""

import os
import pty
import select
import shutil
import subprocess
import time

import pytest

from mrigan.settings.models import MODELS

COMMANDS = {
    "train", "doctor", "evaluate", "export", "generate", "interpolate", "compare", "fetch",
    "publish", "phantom", "gamma-sweep", "preview", "launch", "completion",
}  # fmt: skip
# Asks as bash does: the words in COMP_WORDS, the last of them to be completed.
BASH = """
source "$1" && shift || exit 1
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
registered=$(complete -p mrigan) && registered=${registered##*-F }
"${registered% mrigan}" && printf '%s\\n' "${COMPREPLY[@]}"
"""
ZSHRC = """
unsetopt beep list_beep
zstyle ':completion:*' menu no
fpath=("$ZDOTDIR" $fpath)
autoload -Uz compinit && compinit -u -D
PROMPT='ready> '
"""


@pytest.fixture(scope="module")
def written(mrigan, tmp_path_factory):
    """The script for a shell, in a file."""

    def write(shell):
        ended = mrigan("completion", shell)
        assert (ended.status, ended.err) == (0, "")
        path = tmp_path_factory.mktemp("completion") / f"mrigan.{shell}"
        path.write_text(ended.out)
        return path

    return write


@pytest.fixture(scope="module")
def bash(written):
    """What bash offers for the last of some words."""
    script = written("bash")

    def offers(*words):
        command = ["bash", "--norc", "-c", BASH, "bash", str(script), "mrigan", *words]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stderr == ""
        return [line for line in done.stdout.splitlines() if line]

    return offers


@pytest.fixture
def some_files(tmp_path, monkeypatch):
    (tmp_path / "here" / "runs").mkdir(parents=True)
    (tmp_path / "here" / "readme.txt").touch()
    monkeypatch.chdir(tmp_path / "here")


def test_bash_completes_commands(bash):
    assert bash("tr") == ["train"]
    assert set(bash("")) == COMMANDS


def test_bash_completes_options_of_the_command(bash):
    assert bash("train", "--mod") == ["--model"]
    assert bash("train", "--model", "r3-s", "--epo") == ["--epochs"]
    assert bash("launch", "--ro") == ["--role"]
    assert bash("fetch", "--mod") == []


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["train", "--model"], list(MODELS)),
        (["train", "--epochs", "3", "--fit"], ["stretch", "pad", "crop"]),
        (["train", "--compile"], ["true", "false"]),
        (["launch", "--input-mode"], ["File", "FastFile", "pull"]),
        (["generate", "run", "out", "--format"], ["png", "png16", "npy", "npz"]),
        (["generate", "--which"], ["latest", "best"]),
        (["completion"], ["bash", "zsh", "fish"]),
    ],
)
def test_bash_completes_the_values_of_settings_and_choices(bash, words, offered):
    assert bash(*words, "") == offered


def test_bash_completes_a_model_from_its_first_letters(bash):
    assert bash("gamma-sweep", "--model", "r3-t") == ["r3-tiny"]


@pytest.mark.usefixtures("some_files")
@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["generate"], {"runs"}),
        (["generate", "runs"], {"runs"}),
        (["interpolate", "runs"], {"runs", "readme.txt"}),
        (["fetch", "uri"], {"runs"}),
        (["publish"], {"runs"}),
        (["phantom"], {"runs"}),
        (["preview"], {"runs", "readme.txt"}),
        (["phantom", "uri", "--from"], {"runs"}),
        (["train", "--input-uri"], {"runs", "readme.txt"}),
        (["train", "--output-uri"], {"runs"}),
        (["train", "--cache-dir"], {"runs"}),
    ],
)
def test_bash_completes_folders_and_files_where_a_path_is_due(bash, words, offered):
    assert set(bash(*words, "")) == offered


@pytest.mark.skipif(not shutil.which("fish"), reason="no fish here")
def test_fish_completes_the_same(written):
    def offers(line):
        command = ["fish", "--no-config", "-c", 'source $argv[1]; complete -C "$argv[2]"']
        done = subprocess.run(
            [*command, str(written("fish")), line], capture_output=True, text=True, check=True
        )
        return dict(each.split("\t") for each in done.stdout.splitlines())

    assert offers("mrigan tr") == {"train": "the job: slices in, a trained generator out"}
    assert offers("mrigan train --mod").keys() == {"--model"}
    assert offers("mrigan train --model ").keys() == MODELS.keys()


@pytest.mark.skipif(not shutil.which("zsh"), reason="no zsh here")
@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("mrigan tr", "mrigan train "),
        ("mrigan train --mod", "mrigan train --model "),
        ("mrigan train --model r3-t", "mrigan train --model r3-tiny "),
        ("mrigan generate runs out --format npy --wh", "--which "),
    ],
)
def test_zsh_completes_what_is_typed(written, tmp_path, typed, completed):
    (tmp_path / ".zshrc").write_text(ZSHRC)
    written("zsh").rename(tmp_path / "_mrigan")
    terminal, its_end = pty.openpty()
    variables = os.environ | {"ZDOTDIR": str(tmp_path), "TERM": "dumb"}
    streams = dict.fromkeys(("stdin", "stdout", "stderr"), its_end)
    zsh = subprocess.Popen(["zsh", "-i"], env=variables, start_new_session=True, **streams)
    try:
        read_until(terminal, "ready> ")
        os.write(terminal, f"{typed}\t".encode())
        read_until(terminal, completed)
    finally:
        zsh.kill()
        zsh.wait()
        os.close(its_end)
        os.close(terminal)


def read_until(terminal, text, seconds=60):
    said, end = "", time.monotonic() + seconds
    while text not in said:
        assert select.select([terminal], [], [], max(0, end - time.monotonic()))[0], said
        said += os.read(terminal, 4096).decode()


def test_wrong_settings_do_not_keep_a_shell_from_starting(mrigan, monkeypatch):
    monkeypatch.setenv("MRIGAN_EPOCHS", "many")
    assert mrigan("completion", "bash").status == 0


def test_a_shell_that_is_not_known_is_told_which_are(mrigan):
    ended = mrigan("completion", "csh")
    assert ended.status == 2
    assert "choose from 'bash', 'zsh', 'fish'" in ended.err
