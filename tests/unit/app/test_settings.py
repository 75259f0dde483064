"""Settings: four layers, the later one wins; a mistake is one line that names the dotted key."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from app.settings import KEYS, Settings, load_settings
from domain.errors import ConfigError
from domain.features import FeatureSchema, Field, Head


@pytest.fixture(autouse=True)
def no_settings_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("HEADRACE_")]:
        monkeypatch.delenv(name)


@dataclass(frozen=True)
class Given:
    """What is set in each layer."""

    toml: str | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    flags: Sequence[str] = ()


class Loader:
    """Loads settings from a file of its own, the environment and flags."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.path = path
        self._monkeypatch = monkeypatch

    def load(self, given: Given) -> Settings:
        if given.toml is not None:
            self.path.write_text(given.toml, encoding="utf-8")
        for name, text in given.env.items():
            self._monkeypatch.setenv(name, text)
        return load_settings(None if given.toml is None else self.path, given.flags)

    def error(self, given: Given) -> str:
        """Return the message of what is wrong, the file called FILE."""
        with pytest.raises(ConfigError) as caught:
            self.load(given)
        message = str(caught.value)
        assert "\n" not in message
        return message.replace(str(self.path), "FILE")


@pytest.fixture
def loader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Loader:
    return Loader(tmp_path / "my.toml", monkeypatch)


def test_defaults_hold_when_nothing_is_set() -> None:
    assert load_settings() == Settings()
    assert Settings().joiner.policy == "wait"


def test_later_layers_win_key_by_key(loader: Loader) -> None:
    toml = (
        "seed = 1\n[joiner]\nmax_items = 1\nmax_users = 1\nmax_closed = 1\n[ranking]\nhidden = [8]"
    )
    env = {"HEADRACE_JOINER__MAX_USERS": "2", "HEADRACE_JOINER__MAX_CLOSED": "2"}
    settings = loader.load(Given(toml, env, ["joiner.max_closed=3", "ranking.backbone.width=16"]))
    joiner = settings.joiner
    assert (joiner.max_items, joiner.max_users, joiner.max_closed) == (1, 2, 3)
    assert joiner.max_pending == Settings().joiner.max_pending
    assert (settings.seed, settings.ranking.hidden, settings.ranking.backbone.width) == (
        1,
        (8,),
        16,
    )


def test_the_last_of_repeated_flags_wins(loader: Loader) -> None:
    assert loader.load(Given(flags=["seed=1", "seed=2"])).seed == 2


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("SEED", "7", 7),
        ("JOINER__POLICY", "fast", "fast"),
        ("JOINER__POLICY", "'fast'", "fast"),
        ("CHECKPOINT__EVERY_S", "5", 5.0),
        ("CHECKPOINT__EVERY_S", "1e3", 1_000.0),
        ("RECOMMENDER__WAIT_FOR_LOG", "false", False),
        ("RANKING__HIDDEN", "[64, 32]", (64, 32)),
        ("RANKING__BACKBONE__WIDTH", "16", 16),
        ("DRIFT__DETECTORS", '["kswin"]', ("kswin",)),
        ("MEMORY__HALF_LIFE_MS", "none", None),
        ("MEMORY__RESET_EVERY_MS", "60_000", 60_000),
        ("MEMORY__CENTRING", "none", "none"),
        ("DATA__DIR", "2024", "2024"),
        ("DATA__DIR", "true", "true"),
        ("SCHEMA__COUNTED_PAIRS", '[["user", "item"]]', (("user", "item"),)),
    ],
)
def test_texts_of_environment_and_flags_mean_the_same(
    loader: Loader, key: str, text: str, value: object
) -> None:
    dotted = key.lower().replace("__", ".")
    for given in (Given(env={f"HEADRACE_{key}": text}), Given(flags=[f"{dotted}={text}"])):
        found: object = loader.load(given)
        for part in dotted.split("."):
            found = getattr(found, "schema_declared" if part == "schema" else part)
        assert found == value
        assert type(found) is type(value)


def test_none_switches_off_what_may_be_none_in_a_file_too(loader: Loader) -> None:
    assert loader.load(Given('[memory]\nhalf_life_ms = "none"')).memory.half_life_ms is None
    message = loader.error(Given('[joiner]\nmax_items = "none"'))
    assert message == "joiner.max_items: expected a whole number, got 'none' (in FILE)"


UNKNOWN = [
    (Given("sead = 1"), "sead: unknown setting (in FILE); did you mean seed?"),
    (Given("[joner]\npolicy = 'fast'"), "joner: unknown setting (in FILE); did you mean joiner?"),
    (Given("[joner]"), "joner: unknown setting (in FILE); did you mean joiner?"),
    (
        Given("[joiner]\npolcy = 'fast'"),
        "joiner.polcy: unknown setting (in FILE); did you mean joiner.policy?",
    ),
    (
        Given("[ranking.backbone]\nwidht = 8"),
        "ranking.backbone.widht: unknown setting (in FILE); did you mean ranking.backbone.width?",
    ),
    (
        Given("[ranking.backbones]\nwidth = 8"),
        "ranking.backbones: unknown setting (in FILE); did you mean ranking.backbone?",
    ),
    (Given("policy = 'fast'"), "policy: unknown setting (in FILE); did you mean joiner.policy?"),
    (
        Given("[checkpoint]\nxyz = 1"),
        "checkpoint.xyz: unknown setting (in FILE); known in checkpoint: every_s",
    ),
    (Given(flags=["sead=1"]), "sead: unknown setting; did you mean seed?"),
    (
        Given(flags=["joner.policy=fast"]),
        "joner.policy: unknown setting; did you mean joiner.policy?",
    ),
    (
        Given(flags=["ranking.backbone.widht=8"]),
        "ranking.backbone.widht: unknown setting; did you mean ranking.backbone.width?",
    ),
    (
        Given(flags=["joiner.policy.x=1"]),
        "joiner.policy.x: unknown setting; joiner.policy has no keys below it",
    ),
    (
        Given(env={"HEADRACE_JONER__POLICY": "fast"}),
        "joner.policy: unknown setting (in HEADRACE_JONER__POLICY); did you mean joiner.policy?",
    ),
    (
        Given(env={"HEADRACE_RANKING__BACKBONE__WIDHT": "8"}),
        "ranking.backbone.widht: unknown setting (in HEADRACE_RANKING__BACKBONE__WIDHT); "
        "did you mean ranking.backbone.width?",
    ),
    (
        Given(env={"HEADRACE_SEAD": "8"}),
        "seed: expected environment variable HEADRACE_SEED, got HEADRACE_SEAD",
    ),
    (
        Given(env={"HEADRACE_JOINER_POLICY": "fast"}),
        "joiner.policy: expected environment variable HEADRACE_JOINER__POLICY, "
        "got HEADRACE_JOINER_POLICY",
    ),
]


@pytest.mark.parametrize(("given", "message"), UNKNOWN, ids=lambda value: str(value)[:60])
def test_unknown_key_is_an_error_that_says_what_may_be_meant(
    loader: Loader, given: Given, message: str
) -> None:
    assert loader.error(given) == message


def test_unknown_section_unlike_any_other_lists_what_there_is(loader: Loader) -> None:
    message = loader.error(Given("[zzz]"))
    assert message.startswith("zzz: unknown setting (in FILE); known: batcher, ")
    assert all(section in message for section in KEYS.top)


def test_variables_that_kubernetes_or_the_parent_process_set_are_no_settings(
    loader: Loader,
) -> None:
    env = {
        "HEADRACE_SERVICE_HOST": "10.0.0.1",
        "HEADRACE_PORT": "tcp://10.0.0.1:50051",
        "HEADRACE_SERVER_PORT_50051_TCP_ADDR": "10.0.0.1",
        "HEADRACE_STOP_WITH_PARENT": "1",
        "SCHEMA": "not ours",
        "SEED": "3",
    }
    assert loader.load(Given(env=env)) == Settings()


WRONG = [
    (Given("seed = 'x'"), "seed: expected a whole number, got 'x' (in FILE)"),
    (Given("seed = 1.5"), "seed: expected a whole number, got 1.5 (in FILE)"),
    (Given("seed = -1"), "seed must be at least 0, got -1 (in FILE)"),
    (Given("joiner = 3"), "joiner: expected a section [joiner], got 3 (in FILE)"),
    (
        Given("[joiner.policy]\nx = 1"),
        "joiner.policy: expected 'wait' or 'fast', got {'x': 1} (in FILE)",
    ),
    (Given("[ranking]\nhidden = 8"), "ranking.hidden: expected a list, got 8 (in FILE)"),
    (
        Given("[ranking]\nhidden = [8, 'x']"),
        "ranking.hidden[1]: expected a whole number, got 'x' (in FILE)",
    ),
    (Given("[data]\ndir = 3"), "data.dir: expected text, got 3 (in FILE)"),
    (
        Given(flags=["checkpoint.every_s=soon"]),
        "checkpoint.every_s: expected a number, got 'soon'",
    ),
    (
        Given(flags=["recommender.wait_for_log=perhaps"]),
        "recommender.wait_for_log: expected true or false, got 'perhaps'",
    ),
    (Given(flags=["log.format=xml"]), "log.format: expected 'text' or 'json', got 'xml'"),
    (
        Given(flags=["drift.detectors=['adwin','magic']"]),
        "drift.detectors[1]: expected 'adwin', 'page_hinkley' or 'kswin', got 'magic'",
    ),
    (Given(flags=["joiner=3"]), "joiner: expected one of its keys, as in joiner.KEY=VALUE"),
    (Given(flags=["joiner.policy"]), "--set joiner.policy: expected section.key=value"),
    (Given(flags=["=3"]), "--set =3: expected section.key=value"),
    (Given(flags=["joiner..policy=3"]), "--set joiner..policy=3: expected section.key=value"),
    (
        Given(env={"HEADRACE_BATCHER__MAX_EXAMPLES": "many"}),
        "batcher.max_examples: expected a whole number, got 'many' "
        "(in HEADRACE_BATCHER__MAX_EXAMPLES)",
    ),
    (
        Given(env={"HEADRACE_JOINER": "fast"}),
        "joiner: expected one of its keys, as in joiner.KEY=VALUE (in HEADRACE_JOINER)",
    ),
    (
        Given(flags=["batcher.max_examples=0"]),
        "batcher.max_examples must be positive, got 0",
    ),
    (
        Given("[drift.sensitivity]\nkswin_alpha = 2.0"),
        "drift.sensitivity.kswin_alpha must lie in (0, 1), got 2.0 (in FILE)",
    ),
    (
        Given("[prequential_quality.sessions]\nclose_after_ms = 0"),
        "prequential_quality.sessions.close_after_ms must be positive, got 0 (in FILE)",
    ),
    (
        Given(flags=["feature_store.history_length=1_000"]),
        "feature_store.seen_length must be at least history_length (1000), got 256",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("given", "message"), WRONG, ids=lambda value: str(value)[:60])
def test_wrong_value_is_an_error_that_says_what_was_expected_and_where(
    loader: Loader, given: Given, message: str
) -> None:
    assert loader.error(given) == message


def out_of_range() -> list[str]:
    """A flag that cannot be taken for every number that has a lower limit."""
    numbers = [key for key, kind in KEYS.types.items() if kind in (int, float, int | None)]
    unlimited = {"evaluation.freeze_at_ms", "ranking.table.initial_spread"}
    return [f"{key}=-7" for key in numbers if key not in unlimited]


@pytest.mark.parametrize("flag", out_of_range())
def test_value_out_of_range_is_refused_naming_the_dotted_key_once(
    loader: Loader, flag: str
) -> None:
    dotted = flag.partition("=")[0]
    message = loader.error(Given(flags=[flag]))
    key = dotted.rpartition(".")[2]
    section = re.escape(dotted.removesuffix(key))
    # A limit between two keys may name the other one first: "a.x and y must be ordered".
    assert re.match(rf"{section}(\w+ and )?{key} (and \w+ )?must ", message), message
    assert message.count(dotted) <= 1, message
    assert "-7" in message


def test_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.toml: cannot be read: No such file"):
        load_settings(tmp_path / "nowhere.toml")
    with pytest.raises(ConfigError, match=r"cannot be read: Is a directory"):
        load_settings(tmp_path)


@pytest.mark.parametrize("content", [b"seed", b"seed = \n1", b"[joiner\n", b"seed = 1\nseed = 2"])
def test_file_that_is_not_toml_is_refused_with_the_place(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "my.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load_settings(path)
    assert re.fullmatch(rf"{re.escape(str(path))}: not TOML: .*\(at .*\)", str(caught.value))


def test_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "my.toml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"not TOML: .*can't decode"):
        load_settings(path)


def test_schema_tables_declare_the_schema(loader: Loader) -> None:
    assert Settings().schema_declared == FeatureSchema()
    toml = """
        [schema]
        counted_pairs = [["user", "tab"]]
        [[schema.fields]]
        name = "tab"
        entity = "context"
        kind = "categorical"
        [[schema.heads]]
        name = "liked"
        feedback_kind = "rating"
        positive_at = 4
    """
    assert loader.load(Given(toml)).schema_declared == FeatureSchema(
        fields=(Field(name="tab", entity="context", kind="categorical"),),
        heads=(Head(name="liked", feedback_kind="rating", positive_at=4.0),),
        counted_pairs=(("user", "tab"),),
    )


FIELD = "[[schema.fields]]\nname = 'tab'\nentity = 'context'\n"


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ("schema = 3", "schema: expected a section [schema], got 3 (in FILE)"),
        (
            "[schema]\nfeilds = []",
            "schema.feilds: unknown setting (in FILE); did you mean schema.fields?",
        ),
        ("[schema]\nfields = 3", "schema.fields: expected a list, got 3 (in FILE)"),
        (
            "[schema]\nfields = ['tab']",
            "schema.fields[0]: expected a table of keys, got 'tab' (in FILE)",
        ),
        (FIELD, "schema.fields[0].kind is missing (in FILE)"),
        (
            FIELD + "kind = 'category'",
            "schema.fields[0].kind: expected 'categorical', 'multi', 'numeric' or 'dense', "
            "got 'category' (in FILE)",
        ),
        (
            FIELD + "kind = 'categorical'\ncuonted = true",
            "schema.fields[0].cuonted: unknown key (in FILE)",
        ),
        (
            FIELD + "kind = 'dense'",
            "schema.fields[tab].size: a dense field has a positive size, others none (in FILE)",
        ),
        (
            (FIELD + "kind = 'numeric'\n") * 2,
            "schema.fields: 'tab' is declared twice (in FILE)",
        ),
        ("[schema]\nheads = []", "schema.heads: at least one label head is needed (in FILE)"),
        (
            "[[schema.heads]]\nname = 'a'\nfeedback_kind = 'a'\nweight = 'x'",
            "schema.heads[0].weight: expected a number, got 'x' (in FILE)",
        ),
        (
            "[schema]\ncounted_pairs = [['user', 'tab']]",
            "schema.counted_pairs: 'tab' is no categorical or multi field (in FILE)",
        ),
        (
            "[schema]\ncounted_pairs = [['user']]",
            "schema.counted_pairs[0][1] is missing (in FILE)",
        ),
    ],
)
def test_schema_that_contradicts_itself_is_said_at_once(
    loader: Loader, toml: str, message: str
) -> None:
    assert loader.error(Given(toml)) == message
