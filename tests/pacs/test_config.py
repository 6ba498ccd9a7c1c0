"""The configuration: what is wrong is named with its line, before anything starts."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from aiene.cli.app import app
from aiene.errors import InputError, UsageError
from aiene.pacs.config import Caller, Settings, parse_peer, read_config

ROOT = Path(__file__).resolve().parents[2]

GOOD = """\
store: store
listen:
  ae_title: AIENE
  host: 0.0.0.0
  port: 11112
  callers:
    - ae_title: CT1
      hosts: [10.1.2.3, 10.2.0.0/16]
settle_s: 30
run:
  model: default
send_to: [archive]
peers:
  archive:
    ae_title: PACS
    host: pacs
    port: 104
"""


def reading(tmp_path: Path, text: str) -> Settings:
    file = tmp_path / "site.yaml"
    file.write_text(text)
    return read_config(file)


def test_a_sound_file_is_read_and_its_paths_are_below_its_folder(tmp_path: Path) -> None:
    settings = reading(tmp_path, GOOD)
    assert settings.store == tmp_path / "store"
    assert settings.listen.callers[0].allows("CT1", "10.2.9.9")
    assert settings.peers["archive"].address == "PACS@pacs:104"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("port: 11112", "port: eleven"), "line 5: listen.port: "),
        (("port: 11112", "prot: 11112"), "line 5: listen.prot: there is no such entry"),
        (("settle_s: 30", "settle_s: -1"), "line 9: settle_s: "),
        (("10.2.0.0/16", "10.2.0.0/99"), "line 8: listen.callers.0.hosts.1"),
        (("send_to: [archive]", "send_to: [attic]"), "send_to names attic, which is not among peers"),
        (("    port: 104\n", ""), "line 14: peers.archive: give either ae_title, host and port, or url"),
        (("store: store\n", ""), "store: it is missing"),
        (("settle_s: 30", "settle_s: 30\nsettle_s: 40"), "line 10: settle_s is there twice"),
        (("settle_s: 30", "settle_s: [30"), "line 10: "),
        (
            ("  callers:\n    - ae_title: CT1\n      hosts: [10.1.2.3, 10.2.0.0/16]\n", ""),
            "line 2: listen: name who may",
        ),
        (("ae_title: AIENE", "ae_title: THIS-TITLE-IS-TOO-LONG"), "line 3: listen.ae_title"),
    ],
)
def test_a_mistake_is_named_with_its_line(tmp_path: Path, change: tuple[str, str], words: str) -> None:
    assert change[0] in GOOD
    with pytest.raises(InputError) as error:
        reading(tmp_path, GOOD.replace(*change))
    assert words in str(error.value)
    assert str(error.value).startswith("site.yaml: ")


@pytest.mark.parametrize("text", ["", "- a\n", "just words", "store: &a [*a]"])
def test_another_file_is_refused_in_one_sentence(tmp_path: Path, text: str) -> None:
    with pytest.raises(InputError):
        reading(tmp_path, text)


def test_the_command_checks_and_ends(tmp_path: Path) -> None:
    (tmp_path / "site.yaml").write_text(GOOD)
    done = CliRunner().invoke(app, ["dicom", "listen", "--config", str(tmp_path / "site.yaml"), "--check"])
    assert (done.exit_code, done.output) == (0, "site.yaml: in order.\n")
    assert not (tmp_path / "store").exists()
    wrong = CliRunner().invoke(app, ["dicom", "listen", "--config", str(tmp_path / "none.yaml"), "--check"])
    assert wrong.exit_code == 2


@pytest.mark.parametrize(
    ("title", "address", "allowed"),
    [
        ("CT1", "10.1.2.3", True),
        ("CT1", "::ffff:10.1.2.3", True),
        ("CT1", "10.1.2.4", False),
        ("CT2", "10.1.2.3", False),
        ("CT1", "not an address", False),
    ],
)
def test_who_may_call(title: str, address: str, allowed: bool) -> None:
    caller = Caller.model_validate({"ae_title": "CT1", "hosts": ["10.1.2.3"]})
    assert caller.allows(title, address) is allowed


@pytest.mark.parametrize("text", ["PACS", "PACS@host", "PACS@host:99999", "@host:1", "ftp://x", "A\\B@h:1"])
def test_what_is_no_peer(text: str) -> None:
    with pytest.raises(UsageError, match="no peer"):
        parse_peer(text)


def test_the_example_of_the_documentation_and_of_compose_are_sound(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "hospital.md").read_text(encoding="utf-8")
    (example,) = [part for part in page.split("```") if part.startswith("yaml\nstore:")]
    assert reading(tmp_path, example.removeprefix("yaml\n")).send_to == ("archive",)
    (tmp_path / "token").write_text("word")
    assert read_config(ROOT / "integrations" / "orthanc" / "aiene.yaml").send_to == ("orthanc",)


def test_what_stands_in_the_path_of_certificates(tmp_path: Path) -> None:
    wrong = GOOD.replace("  port: 11112", "  port: 11112\n  tls: {certificate: a.pem, key: a.key}")
    settings = reading(tmp_path, wrong)
    assert settings.listen.tls is not None
    with pytest.raises(InputError, match=r"a\.pem: no such file; correct tls"):
        settings.listen.tls.context()
    (tmp_path / "a.pem").write_text("not a certificate")
    with pytest.raises(InputError, match=r"a\.pem: it is not a certificate"):
        settings.listen.tls.context()
