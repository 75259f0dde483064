"""`headrace freshness` against a real server over gRPC."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from app.freshness_probe import HISTORY, ITEM, MARKERS, RANK, FreshnessProbe, ProbeConfig
from app.token_file import add_token
from domain.clock import SystemClock
from domain.errors import ServingError
from domain.events import Feedback, ItemUpdate
from domain.requests import CapturedRequest, RankingScores
from serving.access import AccessConfig
from serving.server import ServerConfig
from serving.tls import TlsConfig
from tests.certificates import Authority
from tests.command_line import Headrace, quiet_surroundings
from tests.unit.serving.running_server import RunningServer
from tests.unit.serving.worlds import CLOCK, NumberRanker, make_models

FAR_FUTURE_MS = 2**52
"""Models that know of everything: no trainer is needed to lead them there."""


class HistoryRanker(NumberRanker):
    """Adds a tenth to every score for each action in the user's history."""

    def capture(self, request: Any) -> CapturedRequest:
        self.actions = len(request.user.history)
        return super().capture(request)

    def predict(self, captured: Any) -> list[RankingScores]:
        bonus = np.float32(0.1 * self.actions)
        return [
            RankingScores(probabilities=one.probabilities + bonus, hidden=one.hidden)
            for one in super().predict(captured)
        ]


@pytest.fixture
def headrace(capsys: pytest.CaptureFixture[str]) -> Headrace:
    return Headrace(capsys)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunningServer]:
    with quiet_surroundings(monkeypatch):
        running = RunningServer(tmp_path)
        running.start()
        ranker = HistoryRanker()
        running.serve("s1", lambda: make_models("s1", event_time_ms=FAR_FUTURE_MS, ranker=ranker))
        yield running
        running.close()


def probe(server: RunningServer, **config: Any) -> FreshnessProbe:
    return FreshnessProbe(server.channel, SystemClock(), ProbeConfig(**config))


def test_every_marker_shows_and_the_items_are_withdrawn_again(server: RunningServer) -> None:
    looking = probe(server)
    for marker in MARKERS * 2:
        took_s = looking.measure(marker)
        assert took_s is not None
        assert took_s < 5.0
    catalog = server.slot.current().retriever.item_ids  # type: ignore[attr-defined]
    assert len(catalog) == 10 + 2
    looking.clean_up()
    assert len(catalog) == 10


def test_a_marker_is_one_event(server: RunningServer) -> None:
    looking = probe(server)
    looking.measure(ITEM)
    looking.measure(HISTORY)
    looking.clean_up()
    new, action, gone = server.stored()
    assert isinstance(new, ItemUpdate)
    assert isinstance(action, Feedback)
    assert isinstance(gone, ItemUpdate)
    assert (gone.item_id, gone.available) == (new.item_id, False)
    assert action.item_id == "i0"
    assert action.user_id.startswith("freshness-probe-")


def test_what_does_not_show_in_time_is_said_to_be_missing(server: RunningServer) -> None:
    looking = probe(server, kind="sneeze", timeout_s=0.2)
    assert looking.measure(ITEM) is not None
    assert looking.measure(HISTORY) is None
    assert looking.measure(RANK) is None


def test_a_server_that_does_not_answer_is_one_line() -> None:
    with grpc.insecure_channel("127.0.0.1:1") as channel:
        looking = FreshnessProbe(channel, SystemClock(), ProbeConfig())
        with pytest.raises(ServingError, match=r"^UNAVAILABLE: "):
            looking.measure(HISTORY)


def test_an_empty_catalog_is_said_to_be_empty(server: RunningServer) -> None:
    gone = [
        ItemUpdate(event_id=f"g{n}", time_ms=CLOCK.now_ms(), item_id=f"i{n}", available=False)
        for n in range(10)
    ]
    server.publish(*gone)
    with pytest.raises(ServingError, match="nothing to recommend"):
        probe(server).measure(ITEM)


def test_command_prints_a_table_and_ends_well(server: RunningServer, headrace: Headrace) -> None:
    ended = headrace("freshness", "--server", server.address, "--rounds", "2", "--pause-s", "0")
    assert ended.code == 0, ended.err
    for said in ("a new item is in Retrieve", "the models know of it", "2 of 2", "50 / 500 ms"):
        assert said in " ".join(ended.out.split())


def test_command_fails_and_says_what_to_look_at(server: RunningServer, headrace: Headrace) -> None:
    ended = headrace(
        "freshness", "--server", server.address, "--rounds", "1", "--kind", "sneeze",
        "--timeout-s", "0.2", "--no-weights",
    )  # fmt: skip
    assert ended.code == 1
    assert "has the schema a label head for 'sneeze'? See --kind" in ended.out


def test_command_shows_its_token_to_a_server_behind_tls(
    tmp_path: Path, headrace: Headrace, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority(tmp_path / "ca")
    certificate, key = authority.sign("server")
    token = add_token(tmp_path / "tokens.txt", "probe", ["read", "publish"])
    (tmp_path / "token").write_text(f"{token}\n")
    config = ServerConfig(
        address="127.0.0.1:0",
        tls=TlsConfig(certificate=str(certificate), key=str(key)),
        access=AccessConfig(tokens=str(tmp_path / "tokens.txt")),
    )
    with quiet_surroundings(monkeypatch):
        server = RunningServer(tmp_path, server=config)
        server.start()
        server.serve("s1", lambda: make_models("s1", ranker=HistoryRanker()))
        words = ("freshness", "--server", server.address, "--rounds", "1", "--no-weights")
        with_token = headrace(
            *words, "--ca", authority.certificate, "--token-file", tmp_path / "token"
        )
        without = headrace(*words, "--ca", authority.certificate)
        server.close()
    assert with_token.code == 0, with_token.err
    assert without.code == 1
    assert without.err.startswith("headrace: UNAUTHENTICATED: ")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--server", "nowhere"), "--server: expected HOST:PORT, got 'nowhere'"),
        (("--token-file", "t.txt"), "--token-file: needs --ca"),
        (("--ca", "missing.pem"), "missing.pem: No such file"),
    ],
)
def test_command_says_in_one_line_what_is_wrong(
    headrace: Headrace, words: tuple[str, ...], said: str
) -> None:
    ended = headrace("freshness", *words)
    assert ended.code in (1, 2)
    assert ended.err.startswith(f"headrace: {said}")
