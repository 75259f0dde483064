"""KuaiRand-Pure as published: labels wait for the session, duplicates keep their id."""

from __future__ import annotations

import re
from pathlib import Path

import pyarrow.csv as pa_csv
import pyarrow.parquet as pa_parquet
import pytest

from domain.errors import ConfigError, DatasetError
from domain.events import Event, Feedback, Impression, ItemUpdate, UserUpdate
from replay.datasets import Dataset, DatasetOptions, open_dataset
from replay.kuairand_features import SCHEMA

MINUTE_MS = 60_000
START_MS = 1_650_812_700_000  # 2022-04-24 15:05 UTC

LOG_HEADER = (
    "user_id,video_id,date,hourmin,time_ms,is_click,is_like,is_follow,is_comment,is_forward,"
    "is_hate,long_view,play_time_ms,duration_ms,profile_stay_time,comment_stay_time,"
    "is_profile_enter,is_rand,tab"
)
USER_HEADER = (
    "user_id,user_active_degree,is_lowactive_period,is_live_streamer,is_video_author,"
    "follow_user_num,follow_user_num_range,fans_user_num,fans_user_num_range,friend_user_num,"
    "friend_user_num_range,register_days,register_days_range,"
    + ",".join(f"onehot_feat{index}" for index in range(18))
)
VIDEO_HEADER = (
    "video_id,author_id,video_type,upload_dt,upload_type,visible_status,video_duration,"
    "server_width,server_height,music_id,music_type,tag"
)


def log_row(user: int, video: int, minute: int, *, click: int = 0, tab: int = 1) -> str:
    time_ms = START_MS + minute * MINUTE_MS
    return f"{user},{video},20220424,1500,{time_ms},{click},0,0,0,0,0,0,9,99,0,0,0,0,{tab}"


def user_row(user: int, feat4: str = "1.0") -> str:
    onehot = ",".join(feat4 if index == 4 else str(index) for index in range(18))
    return f'{user},full_active,0,1,1,0,0,7,"[1,10)",3,"[1,5)",799,730+,{onehot}'


def make_folder(
    folder: Path, rows: list[str], *, pure: bool = False, videos: list[str] | None = None
) -> Path:
    """Write a folder as published (`pure`), or with the short names of a part of it."""
    suffix = "_pure" if pure else ""
    folder.mkdir(parents=True, exist_ok=True)
    first = len(rows) // 2 if pure else len(rows)
    names = ("log_standard_4_08_to_4_21_pure.csv", "log_standard_4_22_to_5_08_pure.csv")
    parts = zip(names, (rows[:first], rows[first:]), strict=True) if pure else [("", rows)]
    for name, part in parts:
        (folder / (name or "log_standard.csv")).write_text("\n".join([LOG_HEADER, *part]) + "\n")
    users = [user_row(1), user_row(2, feat4="")]
    (folder / f"user_features{suffix}.csv").write_text("\n".join([USER_HEADER, *users]) + "\n")
    videos = videos or [
        '10,700,NORMAL,2022-04-10,Web,0.0,20000.0,720.0,1280.0,55,9.0,"3,5"',
        "11,701,AD,2022-04-09,Kmovie,0.0,,1280.0,720.0,0,,",
    ]
    name = "video_features_basic_pure.csv" if pure else "video_features.csv"
    (folder / name).write_text("\n".join([VIDEO_HEADER, *videos]) + "\n")
    return folder


def opened(folder: Path, **options: int) -> Dataset:
    return open_dataset("kuairand-pure", folder, DatasetOptions(**options))


def told(event: Event) -> str:
    minute = (event.time_ms - START_MS) / MINUTE_MS
    match event:
        case Impression():
            return f"{minute:g} shows {event.user_id} {event.items[0].item_id}"
        case Feedback():
            return f"{minute:g} {event.user_id} {event.item_id} {event.kind} {event.value:g}"
        case ItemUpdate():
            return f"{minute:g} item {event.item_id}"
        case UserUpdate():
            return f"{minute:g} user {event.user_id}"


def test_kuairand_reveals_feedback_half_an_hour_after_the_session(tmp_path: Path) -> None:
    rows = [log_row(1, 10, 0, click=1), log_row(2, 10, 5), log_row(1, 11, 20), log_row(1, 10, 51)]
    events = opened(make_folder(tmp_path, rows)).events()
    story = [told(event) for event in events]
    assert [line for line in story if "like" not in line and "long_view" not in line] == [
        "0 user 1",
        "0 item 10",
        "0 shows 1 10",
        "5 user 2",
        "5 shows 2 10",
        "20 item 11",
        "20 shows 1 11",
        "35 2 10 click 0",
        "50 1 10 click 1",
        "50 1 11 click 0",
        "51 shows 1 10",
        "81 1 10 click 0",
    ]
    assert sum("like" in line or "long_view" in line for line in story) == 8


def test_kuairand_gives_a_duplicate_row_the_same_event_ids(tmp_path: Path) -> None:
    rows = [log_row(1, 10, 0), log_row(1, 10, 0), log_row(1, 10, 0, tab=2)]
    events = list(opened(make_folder(tmp_path, rows)).events())
    shown = [event.event_id for event in events if isinstance(event, Impression)]
    done = [event.event_id for event in events if isinstance(event, Feedback)]
    assert len(shown) == 3
    assert shown[0] == shown[1] != shown[2]
    assert (len(done), len(set(done))) == (9, 6)


def test_kuairand_feedback_names_its_impression(tmp_path: Path) -> None:
    events = list(opened(make_folder(tmp_path, [log_row(1, 10, 0, click=1)])).events())
    shown = next(event for event in events if isinstance(event, Impression))
    done = [event for event in events if isinstance(event, Feedback)]
    assert {event.impression_id for event in done} == {shown.event_id}
    assert {event.kind: event.value for event in done} == {
        "click": 1.0,
        "long_view": 0.0,
        "like": 0.0,
    }


def test_kuairand_reads_the_full_download_as_the_same_events(tmp_path: Path) -> None:
    rows = [log_row(1, 10, 0, click=1), log_row(2, 11, 3), log_row(1, 11, 7), log_row(2, 10, 90)]
    part = opened(make_folder(tmp_path / "part", rows))
    full = opened(make_folder(tmp_path / "full" / "data", rows, pure=True).parent)
    assert list(part.events()) == list(full.events())


def test_kuairand_reads_parquet_as_the_same_events(tmp_path: Path) -> None:
    rows = [log_row(1, 10, 0, click=1), log_row(2, 11, 3)]
    from_csv = list(opened(make_folder(tmp_path, rows)).events())
    log = tmp_path / "log_standard.csv"
    pa_parquet.write_table(pa_csv.read_csv(log), tmp_path / "log_standard.parquet")
    log.unlink()
    assert list(opened(tmp_path).events()) == from_csv


def test_kuairand_sorts_rows_of_all_files_by_time(tmp_path: Path) -> None:
    rows = [log_row(1, 10, 9), log_row(2, 11, 3)]
    events = list(opened(make_folder(tmp_path, rows)).events())
    shown = [event.user_id for event in events if isinstance(event, Impression)]
    assert shown == ["2", "1"]


def test_kuairand_features_fit_the_schema(tmp_path: Path) -> None:
    rows = [log_row(1, 10, 0), log_row(2, 11, 60 * 9)]
    for event in opened(make_folder(tmp_path, rows)).events():
        if isinstance(event, UserUpdate):
            SCHEMA.check("user", event.features, "user")
            assert ("onehot_feat4" in event.features) == (event.user_id == "1")
        elif isinstance(event, ItemUpdate):
            SCHEMA.check("item", event.features, "item")
        elif isinstance(event, Impression):
            SCHEMA.check("context", event.context, "context")
            assert event.context["hour"] == ("15" if event.user_id == "1" else "00")


def test_kuairand_leaves_out_what_is_not_known_of_a_video(tmp_path: Path) -> None:
    events = opened(make_folder(tmp_path, [log_row(1, 10, 0), log_row(1, 11, 0)])).events()
    features = {e.item_id: e.features for e in events if isinstance(e, ItemUpdate)}
    assert features["10"]["tag"] == ("3", "5")
    assert features["10"]["length"] == "15-30s"
    assert features["10"]["format"] == "portrait"
    assert features["11"]["format"] == "landscape"
    assert not {"tag", "length", "log_length_s", "music_type"} & set(features["11"])


def test_kuairand_limit_does_not_look_past_the_last_row_it_takes(tmp_path: Path) -> None:
    rows = [log_row(1, 10, 0), log_row(1, 11, 10), log_row(2, 10, 20)]
    dataset = opened(make_folder(tmp_path, rows), limit=1)
    events = list(dataset.events())
    assert [told(event) for event in events if isinstance(event, Impression)] == ["0 shows 1 10"]
    assert {told(e).split()[0] for e in events if isinstance(e, Feedback)} == {"30"}
    assert dataset.num_events_hint == len(events)


def test_kuairand_hints_at_the_longest_session(tmp_path: Path) -> None:
    rows = [log_row(1, 10, 0), log_row(1, 11, 25), log_row(2, 11, 25)]
    hints = opened(make_folder(tmp_path, rows)).joiner_hints
    assert hints.attribution_window_ms == 55 * MINUTE_MS
    assert hints.explicit_negatives
    assert not hints.organic


@pytest.mark.parametrize("file", ["log_standard.csv", "user_features.csv", "video_features.csv"])
def test_kuairand_names_the_file_that_is_missing(tmp_path: Path, file: str) -> None:
    (make_folder(tmp_path, [log_row(1, 10, 0)]) / file).unlink()
    with pytest.raises(DatasetError, match=re.escape(file.removesuffix(".csv"))):
        opened(tmp_path)


def test_kuairand_names_the_folder_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no such folder"):
        opened(tmp_path / "gone")


def test_kuairand_names_the_line_that_cannot_be_read(tmp_path: Path) -> None:
    bad = log_row(1, 10, 0).replace(",99,", ",99,9,")
    with pytest.raises(DatasetError, match=r"log_standard\.csv:3: expected 19 columns, got 20"):
        opened(make_folder(tmp_path, [log_row(1, 10, 0), bad]))
    bad = log_row(1, 10, 0).replace(str(START_MS), "noon")
    with pytest.raises(DatasetError, match=r"log_standard\.csv:2: column 'time_ms'.*'noon'"):
        opened(make_folder(tmp_path, [bad]))


def test_kuairand_names_the_column_that_is_missing(tmp_path: Path) -> None:
    log = make_folder(tmp_path, [log_row(1, 10, 0)]) / "log_standard.csv"
    log.write_text(log.read_text().replace("is_like", "is_loved"))
    with pytest.raises(DatasetError, match=r"log_standard\.csv: no column 'is_like'"):
        opened(tmp_path)


def test_kuairand_names_the_video_whose_length_is_no_number(tmp_path: Path) -> None:
    videos = ["10,700,NORMAL,2022-04-10,Web,0.0,long,720.0,1280.0,55,9.0,3"]
    folder = make_folder(tmp_path, [log_row(1, 10, 0)], videos=videos)
    with pytest.raises(DatasetError, match=r"video_features\.csv:2: column 'video_duration'"):
        opened(folder)


def test_kuairand_refuses_an_option_that_means_nothing_to_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^dataset\.positive_at: kuairand-pure has no use"):
        opened(make_folder(tmp_path, [log_row(1, 10, 0)]), positive_at=4)
