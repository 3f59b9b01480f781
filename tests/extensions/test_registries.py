"""Loading extensions: what is checked of each part, and what is told of what does not fit."""

import math
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import pytest

from countermark.domain.content import BUILT_IN_CONTENT_TYPES, ContentForm
from countermark.domain.exchange import Exchange, Field
from countermark.domain.signal import Comparison, ContentType, IndexKind, SignalType
from countermark.errors import InvalidInput
from countermark.exchanges.sample import SampleExchange
from countermark.extensions import Manifest, Means
from countermark.extensions.registries import (
    MAX_EXTENSIONS,
    Registries,
    implementation_class,
    load,
    registries,
    verify_extension,
)
from countermark.signals import SIGNAL_TYPES
from countermark.signals.digest import DigestType
from countermark.signals.pdq import PDQ
from countermark.signals.vpdq import VPDQ
from tests.exchanges.memory_reader import MemoryReader
from tests.exchanges.server import quick_transport
from tests.extensions.boxes import BOX, Box
from tests.extensions.letters import LETTER, LETTER_SHA256, Letter
from tests.indexes.small_types import CLIPS, NUMBERS, ODD_BITS, Clips, SmallType, Vectors, vector

TEXT_SHA256 = DigestType(
    name="text_sha256",
    content_types=frozenset({ContentType.TEXT}),
    algorithm="sha256",
    examples=("a" * 64,),
)

Write = Callable[[str], str]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Write:
    """Writes a module and returns its name: one that no other test has, as a process imports a module once."""
    monkeypatch.syspath_prepend(tmp_path)
    made: list[str] = []

    def place(text: str) -> str:
        made.append(f"ext{abs(hash(request.node.nodeid))}_{len(made)}")
        (tmp_path / f"{made[-1]}.py").write_text(text)
        return made[-1]

    return place


def given(monkeypatch: pytest.MonkeyPatch, write: Write, manifest: object, name: str = "COUNTERMARK_MANIFEST") -> str:
    """Make a module that exports an object, and return its name."""
    module = write("")
    __import__(module)
    monkeypatch.setattr(f"{module}.{name}", manifest, raising=False)
    return module


def made(installed: Registries) -> dict[str, Exchange]:
    return installed.exchanges(reader=MemoryReader({}), transport=quick_transport())


class Addresses(SampleExchange):
    """An exchange of another name."""

    kind = "addresses"

    def __init__(self, means: Means) -> None:
        super().__init__(means.signal_types)


def test_without_extensions_there_is_what_countermark_has() -> None:
    installed = registries()
    assert installed.signal_types == SIGNAL_TYPES
    assert list(made(installed)) == ["sample", "local_file", "fb_threatexchange", "ncmec", "stop_ncii", "tat"]


def test_what_an_extension_brings_comes_after_countermarks_own(monkeypatch: pytest.MonkeyPatch, write: Write) -> None:
    module = given(monkeypatch, write, Manifest(signal_types=(TEXT_SHA256,), exchanges=(Addresses,)))
    installed = registries([module, module])
    assert list(installed.signal_types) == [*SIGNAL_TYPES, "text_sha256"]
    assert list(made(installed))[-1] == "addresses"
    assert [each.module for each in installed.extensions] == [module]
    assert implementation_class(TEXT_SHA256) is DigestType


def test_an_exchange_is_given_the_signal_types_of_all_extensions(monkeypatch: pytest.MonkeyPatch, write: Write) -> None:
    first = given(monkeypatch, write, Manifest(exchanges=(Addresses,)))
    second = given(monkeypatch, write, Manifest(signal_types=(TEXT_SHA256,)))
    deltas = made(registries([first, second]))["addresses"].joined({}).fetch(None, credentials=None, now_s=0).deltas
    assert "text_sha256 1" in next(iter(deltas)).changes


@pytest.mark.parametrize("name", ["", "1a", "a.", "a..b", "a-b", "a b", ".a", "a/b"])
def test_what_is_no_name_of_a_module_is_not_imported(name: str) -> None:
    with pytest.raises(InvalidInput, match="is not a module name"):
        load(name)


def test_a_module_that_is_not_there_is_named() -> None:
    for name in ("ext_missing", "ext_missing.part", "json.ext_missing"):
        with pytest.raises(InvalidInput, match=f"the extension {name}: there is no such module"):
            load(name)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import ext_needed", "it needs a module that is not installed: ext_needed"),
        ("from json import nothing", "it cannot be imported: ImportError: "),
        ("1 / 0", "it cannot be imported: ZeroDivisionError: division by zero"),
        ("def", "it cannot be imported: SyntaxError"),
        ("X = 1", "it exports neither a COUNTERMARK_MANIFEST nor a TX_MANIFEST"),
        ("COUNTERMARK_MANIFEST = {}", "its COUNTERMARK_MANIFEST is a dict, not a countermark.extensions.Manifest"),
        ("TX_MANIFEST = {}", "its TX_MANIFEST has no tuple of classes named signal_types"),
    ],
)
def test_a_module_that_fails_is_named_with_the_reason(write: Write, text: str, message: str) -> None:
    module = write(text)
    with pytest.raises(InvalidInput, match=f"the extension {module}: {message}"):
        load(module)


class Half:
    """A signal type with half of its methods."""

    name = "half"
    content_types = frozenset({ContentType.TEXT})
    index_kind = IndexKind.EXACT
    match_distance = 0
    examples = ("x",)

    def parse(self, text: str) -> str:
        return text


@pytest.mark.parametrize(
    ("signal_type", "message"),
    [
        (Half(), "the signal type Half lacks key, value, compare, hasher, wire_distance"),
        (DigestType, "the signal type DigestType is a class: put an instance into the manifest"),
        (replace(TEXT_SHA256, name="Text-Sha"), "the name of a signal type has 1 to 64 .*, not 'Text-Sha'"),
        (replace(TEXT_SHA256, name="x" * 65), "the name of a signal type has 1 to 64"),
        (replace(TEXT_SHA256, content_types={"text"}), "the content_types of text_sha256 must be a frozenset"),  # type: ignore[arg-type]
        (replace(TEXT_SHA256, index_kind="exact"), "the index_kind of text_sha256 must be an IndexKind, not 'exact'"),  # type: ignore[arg-type]
        (
            replace(TEXT_SHA256, match_distance=-1),
            "the match_distance of text_sha256 must be a whole number, 0 or more, not -1",
        ),
        (replace(TEXT_SHA256, examples=()), "text_sha256 has no examples"),
        (
            replace(TEXT_SHA256, index_kind=IndexKind.FRAMES),
            "text_sha256 has the index_kind FRAMES, but lacks frame_type",
        ),
        (replace(VPDQ, frame_type=TEXT_SHA256), "vpdq has a frame_type whose index_kind is not HAMMING"),  # type: ignore[arg-type]
        (
            replace(TEXT_SHA256, index_kind=IndexKind.VECTOR),
            "text_sha256 has the index_kind VECTOR, but lacks dimension, metric or",
        ),
        (replace(NUMBERS, metric="euclidean"), "numbers needs a Metric as its metric, not 'euclidean'"),  # type: ignore[arg-type]
        (replace(NUMBERS, dimension=0), "numbers needs a dimension of 1 or more, in steps of 1, not 0"),
        (replace(NUMBERS, dimension=1.5), "numbers needs a dimension of 1 or more, in steps of 1, not 1.5"),  # type: ignore[arg-type]
        (replace(ODD_BITS, dimension=12), "odd_bits needs a dimension of 8 or more, in steps of 8, not 12"),
        (replace(NUMBERS, threshold=math.nan), "numbers needs a number as its threshold, not nan"),
        (replace(NUMBERS, threshold="1"), "numbers needs a number as its threshold, not '1'"),  # type: ignore[arg-type]
    ],
)
def test_a_signal_type_that_is_not_as_the_port_has_it_is_refused(
    monkeypatch: pytest.MonkeyPatch, write: Write, signal_type: SignalType, message: str
) -> None:
    module = given(monkeypatch, write, Manifest(signal_types=(signal_type,)))
    with pytest.raises(InvalidInput, match=f"the extension {module}: {message}"):
        load(module)


def test_a_name_of_64_characters_is_taken(monkeypatch: pytest.MonkeyPatch, write: Write) -> None:
    name = "x" * 64
    module = given(monkeypatch, write, Manifest(signal_types=(replace(TEXT_SHA256, name=name),)))
    assert name in registries([module]).signal_types


def test_a_name_that_is_taken_is_refused(monkeypatch: pytest.MonkeyPatch, write: Write) -> None:
    first = given(monkeypatch, write, Manifest(signal_types=(TEXT_SHA256,)))
    second = given(monkeypatch, write, Manifest(signal_types=(TEXT_SHA256,)))
    own = given(monkeypatch, write, Manifest(signal_types=(PDQ,)))
    with pytest.raises(InvalidInput, match=f"the extension {second}: a signal type 'text_sha256' exists already"):
        registries([first, second])
    with pytest.raises(InvalidInput, match=f"the extension {own}: a signal type 'pdq' exists already"):
        registries([own])


class Named(Addresses):
    """An exchange that is called like one of countermark's own."""

    kind = "ncmec"


class Bare:
    """An exchange with nothing but a kind."""

    kind = "bare"

    def __init__(self, means: Means) -> None:
        del means


def refusing(means: Means) -> Exchange:
    raise InvalidInput("no such list")


def failing(means: Means) -> Exchange:
    raise KeyError("list")


class Dated(Addresses):
    """An exchange with a field of a type that no edge knows."""

    kind = "dated"

    def __init__(self, means: Means) -> None:
        super().__init__(means)
        self.config_fields = [Field(name="since", type="date", required=True, help="the first day")]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (Named, "an exchange 'ncmec' exists already"),
        (Bare, "the exchange Bare lacks config_fields, .*opinions"),
        (refusing, "an exchange cannot be made: no such list"),
        (failing, "an exchange cannot be made: KeyError: 'list'"),
        (Dated, "the type of the field 'since' of dated must be one of str, int, bool, set\\[int\\], not 'date'"),
    ],
)
def test_an_exchange_that_is_not_as_the_port_has_it_is_refused(
    monkeypatch: pytest.MonkeyPatch, write: Write, make: Callable[[Means], Exchange], message: str
) -> None:
    module = given(monkeypatch, write, Manifest(exchanges=(make,)))
    with pytest.raises(InvalidInput, match=f"the extension {module}: {message}"):
        made(registries([module]))


def test_there_are_at_most_so_many_extensions(monkeypatch: pytest.MonkeyPatch, write: Write) -> None:
    modules = [given(monkeypatch, write, Manifest()) for _ in range(MAX_EXTENSIONS + 1)]
    assert len(registries(modules[:-1]).extensions) == MAX_EXTENSIONS
    with pytest.raises(
        InvalidInput, match=f"at most {MAX_EXTENSIONS} extensions are allowed, not {MAX_EXTENSIONS + 1}"
    ):
        registries(modules)


class Odd(DigestType):
    """A type that matches nothing."""

    def compare(self, query: str, banked: str) -> "object":  # type: ignore[override]  # it is to fail
        raise ArithmeticError("odd")


class Keyless(Vectors):
    """Vectors that cannot be had back."""

    def value(self, key: bytes) -> str | None:
        return None


class Backwards(Clips):
    """Frames in the wrong order."""

    def key(self, value: str) -> bytes:
        return b"".join(map(bytes.fromhex, reversed(value.split("."))))


class Cut(Clips):
    """Frames that end early."""

    def key(self, value: str) -> bytes:
        return bytes.fromhex(value.replace(".", "")[:-2])


class Miscounting(Clips):
    """A comparison that its counts do not bear out."""

    def compare(self, query: str, banked: str) -> Comparison:
        return Comparison(matches=True, distance=0)

    def compare_counts(
        self, *, query_similar: int, query_frames: int, banked_similar: int, banked_frames: int
    ) -> Comparison:
        return Comparison(matches=False, distance=0)


def of_same(kind: type[SmallType], signal_type: SmallType) -> SmallType:
    """Return a type of another class with the same fields."""
    return kind(**{field.name: getattr(signal_type, field.name) for field in fields(signal_type)})


@pytest.mark.parametrize(
    ("signal_type", "message"),
    [
        (replace(TEXT_SHA256, examples=("A" * 64,)), "text_sha256 has an example that is not canonical"),
        (replace(TEXT_SHA256, examples=("zz",)), "text_sha256 fails on its own examples: a text_sha256 signal is 64"),
        (Odd(name="odd", content_types=frozenset(), algorithm="md5", examples=("a" * 32,)), "ArithmeticError: odd"),
        (replace(NUMBERS, dimension=4), "numbers has keys of 12 bytes, not 16 for its dimension"),
        (replace(NUMBERS, examples=(vector(0, 0, 1), vector(1))), "numbers has keys of several lengths"),
        (of_same(Keyless, NUMBERS), "numbers does not return the value of a key, which an index of vectors needs"),
        (of_same(Backwards, CLIPS), "clips has a key that is not a series of distinct frames of 16 bytes, ascending"),
        (of_same(Cut, CLIPS), "clips has a key that is not a series of distinct frames of 16 bytes, ascending"),
        (of_same(Miscounting, CLIPS), "clips has an example that does not match itself when all frames are similar"),
    ],
)
def test_a_signal_type_that_fails_on_its_examples_is_not_added(
    monkeypatch: pytest.MonkeyPatch, write: Write, signal_type: SignalType, message: str
) -> None:
    extension = load(given(monkeypatch, write, Manifest(signal_types=(signal_type,))))
    with pytest.raises(InvalidInput, match=f"the extension {extension.module}: .*{message}"):
        verify_extension(extension)


class PeerManifest:
    """A manifest of the peer, which is prepared in two steps."""

    signal_types = ()
    content_types = ()
    apis = (object,)
    steps: ClassVar[list[str]] = []

    @classmethod
    def bootstrap(cls) -> None:
        cls.steps.append("bootstrap")

    @classmethod
    def verify(cls) -> None:
        cls.steps.append("verify")
        if len(cls.steps) > 2:
            raise RuntimeError("no model")


def test_an_extension_of_the_peer_is_prepared_when_it_is_added(monkeypatch: pytest.MonkeyPatch, write: Write) -> None:
    extension = load(given(monkeypatch, write, PeerManifest(), name="TX_MANIFEST"))
    assert PeerManifest.steps == []
    verify_extension(extension)
    assert PeerManifest.steps == ["bootstrap", "verify"]
    with pytest.raises(InvalidInput, match="it cannot be prepared: RuntimeError: no model"):
        verify_extension(extension)


def test_an_extension_of_the_peer_that_brings_nothing_is_refused(monkeypatch: pytest.MonkeyPatch, write: Write) -> None:
    bare = SimpleNamespace(signal_types=(), content_types=(), apis=())
    with pytest.raises(InvalidInput, match="it provides no signal types, content types or exchanges"):
        load(given(monkeypatch, write, bare, name="TX_MANIFEST"))


def test_every_signal_type_of_countermark_could_be_an_extensions(monkeypatch: pytest.MonkeyPatch, write: Write) -> None:
    verify_extension(
        load(given(monkeypatch, write, Manifest(signal_types=(*SIGNAL_TYPES.values(), CLIPS, NUMBERS, ODD_BITS))))
    )


def test_content_types_of_extensions_come_after_countermarks_own(monkeypatch: pytest.MonkeyPatch, write: Write) -> None:
    first = given(monkeypatch, write, Manifest(content_types=(Letter(), Box())))
    installed = registries([first])
    assert installed.content_types.names() == (*BUILT_IN_CONTENT_TYPES, "letter", "box")
    assert implementation_class(installed.content_types.forms[LETTER]) is Letter
    assert registries().content_types.names() == BUILT_IN_CONTENT_TYPES


def test_a_signal_type_may_take_what_another_extension_brings(monkeypatch: pytest.MonkeyPatch, write: Write) -> None:
    takes = given(monkeypatch, write, Manifest(signal_types=(LETTER_SHA256,)))
    brings = given(monkeypatch, write, Manifest(content_types=(Letter(),)))
    assert "letter_sha256" in registries([takes, brings]).signal_types
    with pytest.raises(InvalidInput, match=f"{takes}: letter_sha256 hashes letter, which no extension provides"):
        registries([takes])


def test_a_signal_type_that_takes_one_content_type_that_is_there_is_taken(
    monkeypatch: pytest.MonkeyPatch, write: Write
) -> None:
    both = replace(LETTER_SHA256, content_types=frozenset({LETTER, ContentType.TEXT}))
    assert registries([given(monkeypatch, write, Manifest(signal_types=(both,)))]).signal_types["letter_sha256"] is both


class Stiff(Box):
    """A content type that says once for all what its content holds."""

    parts = ()  # type: ignore[assignment]  # it is to be refused


class Nameless:
    """A content type with nothing but the ends of its files' names."""

    suffixes = frozenset({".x"})


@pytest.mark.parametrize(
    ("form", "message"),
    [
        (Stiff(), "the parts of box must be a method"),
        (Nameless(), "the content type Nameless lacks name, mime_types, starts"),
        (Box, "the content type Box is a class: put an instance into the manifest"),
        (Box(name="box"), "the name of the content type Box must be a ContentType, not 'box'"),  # type: ignore[arg-type]
        (Box(mime_types=("a/b",)), "the mime_types of box must be a frozenset of texts like"),  # type: ignore[arg-type]
        (Box(mime_types=frozenset({"Text/Box"})), "the mime_types of box must be a frozenset of texts like"),
        (Box(mime_types=frozenset({"text/box; x=y"})), "the mime_types of box must be"),
        (Box(suffixes=frozenset({"box"})), "the suffixes of box must be a frozenset of texts like"),
        (Box(suffixes=frozenset({".Box"})), "the suffixes of box must be"),
        (Box(suffixes=frozenset({".tar.gz"})), "the suffixes of box must be"),
        (Box(suffixes=frozenset({""})), "the suffixes of box must be"),
        (Box(starts=(b"",)), "the starts of box must be a tuple of non-empty bytes, not"),
        (Box(starts=b"[["), "the starts of box must be a tuple of non-empty bytes, not"),  # type: ignore[arg-type]
    ],
)
def test_a_content_type_that_is_not_as_the_port_has_it_is_refused(
    monkeypatch: pytest.MonkeyPatch, write: Write, form: ContentForm, message: str
) -> None:
    module = given(monkeypatch, write, Manifest(content_types=(form,)))
    with pytest.raises(InvalidInput, match=f"the extension {module}: {message}"):
        load(module)


def test_a_content_types_name_that_is_taken_is_refused(monkeypatch: pytest.MonkeyPatch, write: Write) -> None:
    first = given(monkeypatch, write, Manifest(content_types=(Box(),)))
    second = given(monkeypatch, write, Manifest(content_types=(Box(),)))
    own = given(monkeypatch, write, Manifest(content_types=(Box(name=ContentType.FILE),)))
    twice = given(monkeypatch, write, Manifest(content_types=(Box(), Box())))
    for modules, name in (([first, second], BOX), ([own], "file"), ([twice], BOX)):
        with pytest.raises(InvalidInput, match=f"{modules[-1]}: a content type '{name}' exists already"):
            registries(modules)


def test_an_extension_of_the_peer_may_bring_nothing_but_content_types(
    monkeypatch: pytest.MonkeyPatch, write: Write
) -> None:
    bare = type("PostContent", (), {"get_name": staticmethod(lambda: "post")})
    module = given(
        monkeypatch, write, SimpleNamespace(signal_types=(), content_types=(bare,), apis=()), name="TX_MANIFEST"
    )
    installed = registries([module])
    assert installed.content_types.names()[-1] == "post"
    verify_extension(*installed.extensions)


def test_the_peers_failure_is_told_with_the_extensions_name(monkeypatch: pytest.MonkeyPatch, write: Write) -> None:
    odd = type("Odd", (), {"get_name": staticmethod(lambda: "a b")})
    module = given(
        monkeypatch, write, SimpleNamespace(signal_types=(), content_types=(odd,), apis=()), name="TX_MANIFEST"
    )
    with pytest.raises(InvalidInput, match=f"the extension {module}: its TX_MANIFEST fails: invalid content type name"):
        load(module)
