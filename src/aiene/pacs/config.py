"""The configuration of `aiene dicom`: a YAML file, checked before anything starts, mistakes by their line."""

from __future__ import annotations

import ipaddress
import re
import ssl
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from aiene.errors import InputError, UsageError

AeTitle = Annotated[
    str,
    Field(
        min_length=1,
        max_length=16,
        pattern=r"^[\x21-\x5b\x5d-\x7e]([\x20-\x5b\x5d-\x7e]*[\x21-\x5b\x5d-\x7e])?$",
    ),
]
Port = Annotated[int, Field(ge=1, le=65535)]
Kind = Literal["dicom-seg", "dicom-sr", "rtstruct", "secondary-capture"]
_PEER = re.compile(r"(?P<title>[^@]+)@(?P<host>\[[0-9A-Fa-f:]+\]|[^:/@]+):(?P<port>\d{1,5})")
_WEB = ("http://", "https://")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ServerTls(_Strict):
    """TLS of a port of ours.

    Parameters
    ----------
    certificate, key : PEM files.
    ca : PEM file; where given, only callers with a certificate of this authority are let in.
    """

    certificate: Path
    key: Path
    ca: Path | None = None

    def context(self) -> ssl.SSLContext:
        """For a server.

        Raises
        ------
        InputError : a file cannot be used.
        """
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        made.minimum_version = ssl.TLSVersion.TLSv1_2
        _load(made, self.certificate, self.key, self.ca)
        if self.ca is not None:
            made.verify_mode = ssl.CERT_REQUIRED
        return made


class PeerTls(_Strict):
    """TLS towards a peer.

    Parameters
    ----------
    ca : PEM file of the authority that signed the peer's certificate; None takes those of the system.
    certificate, key : PEM files of our own, where the peer asks for them.
    check_name : whether the certificate must bear the peer's host name.
    """

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    check_name: bool = True

    def context(self) -> ssl.SSLContext:
        """For a client.

        Raises
        ------
        InputError : a file cannot be used.
        """
        made = ssl.create_default_context()
        made.check_hostname = self.check_name
        _load(made, self.certificate, self.key, self.ca)
        return made


def _load(context: ssl.SSLContext, certificate: Path | None, key: Path | None, ca: Path | None) -> None:
    uses: tuple[tuple[Path | None, Callable[[Path], None], str], ...] = (
        (certificate, lambda file: context.load_cert_chain(file, key), "a certificate with its key"),
        (ca, context.load_verify_locations, "a certificate"),
    )
    for file, use, what in uses:
        try:
            if file is not None:
                use(file)
        except OSError as error:  # ssl.SSLError is one
            problem = f"it is not {what} in PEM format" if file and file.is_file() else "no such file"
            raise InputError(file or "", problem, "correct tls in the configuration") from error


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a port there."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Caller(_Strict):
    """Who may send: an AE title, and from where.

    Parameters
    ----------
    hosts : addresses or networks (10.1.2.3, 10.1.2.0/24); empty is any.
    """

    ae_title: AeTitle
    hosts: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...] = ()

    def allows(self, title: str, address: str) -> bool:
        """Whether this entry lets a caller in."""
        if title != self.ae_title:
            return False
        if not self.hosts:
            return True
        try:
            here = ipaddress.ip_address(address.removeprefix("::ffff:"))
        except ValueError:
            return False
        return any(here in network for network in self.hosts)


class Listen(_Strict):
    """The C-STORE and C-ECHO service.

    Parameters
    ----------
    callers : who may call; may be empty only where no other machine can reach the port.
    max_associations : at once; one more is refused for the moment.
    network_timeout_s : after so long without a byte, a caller is cut off.
    min_free_gb : with less on the disk, new associations are refused for the moment.
    """

    ae_title: AeTitle = "AIENE"
    host: str = "127.0.0.1"
    port: Port = 11112
    callers: tuple[Caller, ...] = ()
    max_associations: int = Field(default=10, ge=1, le=200)
    network_timeout_s: float = Field(default=60, gt=0)
    min_free_gb: float = Field(default=5, ge=0)
    tls: ServerTls | None = None

    @model_validator(mode="after")
    def _closed_to_strangers(self) -> Self:
        if not self.callers and not is_loopback(self.host):
            raise ValueError("name who may call under callers, or listen at 127.0.0.1")
        return self


class WebPort(_Strict):
    """A port for HTTP: the STOW-RS receiver, or the status page.

    Parameters
    ----------
    token_file : file with the word that callers send as `Authorization: Bearer`; None asks for none.
    """

    host: str = "127.0.0.1"
    port: Port
    token_file: Path | None = None
    tls: ServerTls | None = None

    @model_validator(mode="after")
    def _closed_to_strangers(self) -> Self:
        if self.token_file is None and not is_loopback(self.host):
            raise ValueError("name a token_file, or listen at 127.0.0.1")
        return self


class Run(_Strict):
    """How a study is run; the words of `aiene run`."""

    model: str = "default"
    device: str = "auto"
    jobs: int = Field(default=1, ge=1)
    ene_threshold: float | None = Field(default=None, ge=0, le=1)
    include_short_axes: bool = True


class Peer(_Strict):
    """An archive: by its AE title, host and port, or by the address of its DICOMweb service.

    Parameters
    ----------
    url : of DICOMweb, such as http://pacs:8042/dicom-web.
    user, password_file, token_file : how we say who we are to it; secrets come from files.
    commitment : ask it to commit itself to what was sent (storage commitment), where it offers that.
    timeout_s : for a connection, and for an answer.
    """

    ae_title: AeTitle | None = None
    host: str = "127.0.0.1"
    port: Port | None = None
    url: str | None = None
    user: str | None = None
    password_file: Path | None = None
    token_file: Path | None = None
    commitment: bool = False
    timeout_s: float = Field(default=30, gt=0)
    tls: PeerTls | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if (self.url is None) == (self.ae_title is None or self.port is None):
            raise ValueError("give either ae_title, host and port, or url")
        if self.url is not None and not self.url.startswith(_WEB):
            raise ValueError("url begins with http:// or https://")
        return self

    @property
    def address(self) -> str:
        """As a user writes it."""
        return self.url or f"{self.ae_title}@{self.host}:{self.port}"


class Settings(_Strict):
    """The whole file.

    Parameters
    ----------
    store : folder for the journal, the queue, the results and the log.
    settle_s : a study is complete when nothing came for it for so long.
    broken_off_wait_s : the same after a sender that broke off, which as a rule tries again.
    keep_days : received images are deleted so long after their study is done; results stay.
    give_up_after_h : an archive that cannot be reached is tried again for so long.
    send_to : names of `peers`; empty leaves the objects in the store.
    """

    store: Path
    listen: Listen = Listen()
    stow: WebPort | None = None
    status: WebPort | None = None
    settle_s: float = Field(default=60, gt=0)
    broken_off_wait_s: float = Field(default=600, gt=0)
    keep_days: float = Field(default=7, ge=0)
    give_up_after_h: float = Field(default=72, gt=0)
    run: Run = Run()
    export: tuple[Kind, ...] = Field(default=("dicom-seg", "dicom-sr", "rtstruct"), min_length=1)
    send_to: tuple[str, ...] = ()
    peers: dict[str, Peer] = {}

    @model_validator(mode="after")
    def _destinations_are_known(self) -> Self:
        unknown = [name for name in self.send_to if name not in self.peers]
        if unknown:
            raise ValueError(f"send_to names {unknown[0]}, which is not among peers")
        return self


def read_config(file: Path) -> Settings:
    """The configuration in a file; relative paths in it are meant below its folder.

    Raises
    ------
    InputError : it cannot be read, or an entry is wrong; the sentence names its line.
    """
    remedy = "correct it; docs/hospital.md explains every entry"
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(file, "it cannot be read", "name the configuration with --config") from error
    try:
        if any(isinstance(token, yaml.AliasToken) for token in yaml.scan(text, Loader=yaml.SafeLoader)):
            raise InputError(file, "it uses YAML's aliases (*)", remedy)
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}: " if mark is not None else ""
        raise InputError(
            file, f"{where}{getattr(error, 'problem', None) or 'it is not YAML'}", remedy
        ) from error
    if not isinstance(content, dict):
        raise InputError(file, "it is not a mapping of entries to values", remedy)
    doubled = _doubled(node)
    if doubled is not None:
        raise InputError(file, f"line {doubled.start_mark.line + 1}: {doubled.value} is there twice", remedy)
    try:
        return Settings.model_validate(_below(content, file.resolve().parent))
    except ValidationError as error:
        first = error.errors()[0]
        place = [part for part in first["loc"] if isinstance(part, str | int)]
        entry = ".".join(str(part) for part in place) or "the file"
        message = first["msg"].removeprefix("Value error, ")
        if first["type"] == "extra_forbidden":
            message = "there is no such entry"
        elif first["type"] == "missing":
            message = "it is missing"
        raise InputError(file, f"line {_line(node, place)}: {entry}: {message}", remedy) from error


_PATHS = frozenset({"store", "certificate", "key", "ca", "token_file", "password_file"})


def _below(content: Any, folder: Path, name: str = "") -> Any:
    if isinstance(content, dict):
        return {key: _below(value, folder, str(key)) for key, value in content.items()}
    if isinstance(content, list):
        return [_below(value, folder) for value in content]
    if name in _PATHS and isinstance(content, str):
        return str(folder / Path(content).expanduser())
    return content


def _line(node: yaml.Node | None, place: Sequence[str | int]) -> int:
    """The line of an entry, or of the nearest entry above it that is there."""
    line = 1 if node is None else node.start_mark.line + 1
    for part in place:
        if isinstance(node, yaml.MappingNode):
            found = next(((k, v) for k, v in node.value if k.value == str(part)), None)
            if found is None:
                return line
            line, node = found[0].start_mark.line + 1, found[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
        else:
            return line
    return line


def _doubled(node: yaml.Node | None) -> yaml.Node | None:
    """An entry that a mapping has twice: YAML would take the later one without a word."""
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if key.value in seen:
                return key  # type: ignore[no-any-return]
            seen.add(key.value)
            below = _doubled(value)
            if below is not None:
                return below
    if isinstance(node, yaml.SequenceNode):
        return next((d for d in map(_doubled, node.value) if d is not None), None)
    return None


def parse_peer(text: str, settings: Settings | None = None) -> Peer:
    """The peer of `--to`, `--from` and `--peer`: a name of the configuration, `AET@HOST:PORT`, or a URL.

    Raises
    ------
    UsageError : it is none of these.
    """
    if settings is not None and text in settings.peers:
        return settings.peers[text]
    try:
        if text.startswith(_WEB):
            return Peer(url=text)
        found = _PEER.fullmatch(text)
        if found is not None:
            return Peer(ae_title=found["title"], host=found["host"].strip("[]"), port=int(found["port"]))
    except ValidationError:
        pass
    known = f", one of {', '.join(settings.peers)}" if settings is not None and settings.peers else ""
    raise UsageError(f"{text}: no peer; give AET@HOST:PORT, a DICOMweb URL{known}.")


def secret(file: Path) -> str:
    """The word in a file.

    Raises
    ------
    InputError : it cannot be read, or is empty.
    """
    try:
        word = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            file, "the secret in it cannot be read", "check the file and its permissions"
        ) from error
    if not word:
        raise InputError(file, "it is empty", "write the secret into it")
    return word
