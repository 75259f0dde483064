"""`headrace replay`: a recorded stream through the real train loop."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, TypeAlias

import typer

from app.dataset_options import (
    ColumnsOption,
    ContextColumnOption,
    ImpressionColumnOption,
    ItemColumnOption,
    KindColumnOption,
    LabelColumnOption,
    LimitOption,
    PathOption,
    PositiveAtOption,
    TimeColumnOption,
    TimeUnitOption,
    UserColumnOption,
    ValueColumnOption,
    open_chosen,
)
from app.errors import EXIT_INTERRUPTED
from app.journal_options import (
    JournalOption,
    LiveDataDirOption,
    LiveLogOption,
    SnapshotOption,
)
from app.options import ConfigOption, SetOption, settings_from
from app.replay_files import ReportFiles
from app.replay_options import (
    FromOption,
    HtmlOption,
    MarkdownOption,
    OutOption,
    ResumeOption,
    RivalsOption,
    UntilOption,
    VariantOption,
    WorkOption,
)
from domain.errors import ConfigError

if TYPE_CHECKING:
    from app.ranker_variants import RankerWish
    from app.replay_checkpoints import ReplayCheckpoints
    from app.replay_start import ReplayStart
    from app.settings import Settings
    from replay.dataset import Dataset

_DatasetOption: TypeAlias = Annotated[
    str | None,
    typer.Option("--dataset", help="Name, see `headrace datasets list`.", metavar="NAME"),
]
_SeedOption: TypeAlias = Annotated[
    int | None, typer.Option("--seed", help="Seed of every generator (seed).", metavar="N")
]

_COLUMNS = ("user", "item", "time", "kind", "value", "label", "impression", "context")


def replay(
    context: typer.Context,
    dataset: _DatasetOption = None,
    path: PathOption = None,
    out: OutOption = None,
    html: HtmlOption = None,
    markdown: MarkdownOption = None,
    from_: FromOption = None,
    until: UntilOption = None,
    resume: ResumeOption = False,
    work: WorkOption = None,
    limit: LimitOption = None,
    seed: _SeedOption = None,
    positive_at: PositiveAtOption = None,
    user_column: UserColumnOption = None,
    item_column: ItemColumnOption = None,
    time_column: TimeColumnOption = None,
    time_unit: TimeUnitOption = None,
    kind_column: KindColumnOption = None,
    value_column: ValueColumnOption = None,
    label_column: LabelColumnOption = None,
    impression_column: ImpressionColumnOption = None,
    context_column: ContextColumnOption = None,
    columns: ColumnsOption = None,
    journal: JournalOption = None,
    snapshot: SnapshotOption = None,
    data_dir: LiveDataDirOption = None,
    log: LiveLogOption = None,
    config: ConfigOption = None,
    set_: SetOption = None,
    variant: VariantOption = None,
    rivals: RivalsOption = False,
) -> None:
    """Replay a recorded stream: every example is scored before it is learned.

    Prints the quality of the online model, with and without the error memory, beside a copy that
    stopped learning half-way and baselines. Instead of a dataset it replays an event log, --log,
    with the schema of --config. With --out, --html or --markdown, Ctrl-C leaves a report on what
    was replayed so far, and the same command with --resume goes on where it was, also after the
    process was killed. See docs/replay.md; `headrace compare` tells two replays apart.

    Each --variant NAME=ranking.KEY=VALUE adds a ranker with other settings, on the same stream;
    --rivals adds boosted trees and a plain network on the same captures.

    With --snapshot alone, goes on from a trainer's snapshot over the rest of its log, beside the
    snapshot as it was; give the --config that the trainer had.

    With --journal, learns again what a trainer learned live, in the same order, and compares the
    bits of everything learned with its snapshot; ends with status 1 when they differ.

    Examples:
    - `headrace replay --dataset kuairand-pure --path DIR --out out.json`
    - `headrace replay --dataset abrupt --out out.json --html out.html`
    - `headrace replay --dataset abrupt --variant "small=ranking.hidden=[32]"`
    - `headrace replay --dataset movielens --path DIR --positive-at 4`
    - `headrace replay --dataset abrupt --limit 5000`
    - `headrace replay --dataset events --path clicks.csv --columns columns.toml`
    - `headrace replay --log sqlite:///./log.sqlite --from 2026-05-01`
    - `headrace replay --snapshot current --data-dir DATA --config my.toml`
    - `headrace replay --journal headrace-data/journal`
    - `headrace replay --journal DATA/journal --log kafka://localhost:9092`
    """
    overrides = list(set_ or ())
    _check_together(context.params)
    if journal is not None:
        data_dir = data_dir or journal.absolute().parent
        settings = settings_from(config, overrides, data_dir=data_dir, log=log)
        raise typer.Exit(_learn_again(settings, journal, snapshot or "current"))
    if seed is not None:
        overrides.append(f"seed={seed}")
    wanted = _wanted(context.params, _command_line(context))
    if snapshot is not None:
        _check_for_snapshot(context.params)
        data_dir = _data_dir(snapshot, data_dir)
        settings = settings_from(config, overrides, data_dir=data_dir, log=log)
        raise typer.Exit(_go_on(settings, snapshot, wanted))
    settings = settings_from(config, overrides, log=log)
    rankers = _rankers(variant or (), config, overrides)
    raise typer.Exit(_measure(settings, _chosen(settings, context.params), wanted, rankers=rankers))


def _check_together(flags: Mapping[str, Any]) -> None:
    """Refuse flags that have no use for each other."""
    journal, snapshot, log = (flags[name] is not None for name in ("journal", "snapshot", "log"))
    if flags["dataset"] is not None and (journal or log):
        raise ConfigError("--dataset: expected no --journal and no --log beside it")
    for name in ("variant", "rivals"):
        if flags[name] and (journal or snapshot):
            raise ConfigError(f"--{name}: expected no --journal and no --snapshot beside it")
    if journal and (flags["resume"] or flags["work"] is not None):
        raise ConfigError("--resume: expected no --journal beside it, which measures nothing")


class _Wanted(NamedTuple):
    """Which part is replayed, what for, in which words it was asked, and whether it is to go on."""

    files: ReportFiles
    from_: str | None
    until: str | None
    command: str
    rivals: bool
    work: Path | None
    resume: bool


def _wanted(flags: Mapping[str, Any], command: str) -> _Wanted:
    return _Wanted(
        ReportFiles(flags["out"], flags["html"], flags["markdown"]),
        flags["from_"],
        flags["until"],
        command,
        flags["rivals"],
        flags["work"],
        flags["resume"],
    )


def _check_for_snapshot(flags: Mapping[str, Any]) -> None:
    if flags["dataset"] is not None:
        raise ConfigError(
            "--snapshot: goes on in the log it was made from, a dataset has none; expected --log "
            "or --data-dir"
        )
    if flags["from_"] is not None:
        raise ConfigError("--from: expected no --snapshot beside it, which says where to begin")


def _data_dir(snapshot: str, given: Path | None) -> Path | None:
    from app.replay_start import data_dir_of

    return given or data_dir_of(snapshot)


def _go_on(settings: Settings, snapshot: str, wanted: _Wanted) -> int:
    from app.replay_start import open_start

    settings, dataset, start = open_start(settings, snapshot)
    return _measure(settings, dataset, wanted, start)


def _measure(
    settings: Settings,
    dataset: Dataset,
    wanted: _Wanted,
    start: ReplayStart | None = None,
    rankers: tuple[RankerWish, ...] = (),
) -> int:
    from rich.console import Console

    from app.replay_files import print_report
    from app.replay_run import ReplayWishes, run_replay

    files = wanted.files
    checkpoints = _checkpoints(wanted, dataset)
    wishes = ReplayWishes(
        keep_partial=any(files),
        command=wanted.command,
        start=start,
        rankers=rankers,
        rivals=wanted.rivals,
        checkpoints=checkpoints,
        write=files.write if any(files) else None,
    )
    dataset = _part(dataset, wanted.from_, wanted.until)
    outcome = run_replay(settings, dataset, Console(stderr=True), wishes)
    print_report(outcome.report, Console())
    files.write(outcome)
    for path in files:
        if path is not None:
            typer.echo(f"Wrote {path}")
    if outcome.counts.interrupted:
        return EXIT_INTERRUPTED
    if checkpoints is not None:
        checkpoints.remove()
    return 0


def _checkpoints(wanted: _Wanted, dataset: Dataset) -> ReplayCheckpoints | None:
    """Return where checkpoints go, with the one to go on from; None without a place for them."""
    from app.replay_checkpoints import ReplayCheckpoints
    from replay.log_dataset import LogDataset

    folder = wanted.work or wanted.files.work
    if folder is None:
        if wanted.resume:
            raise ConfigError("--resume: expected --out, --html, --markdown or --work beside it")
        return None
    log = dataset if isinstance(dataset, LogDataset) else None
    checkpoints = ReplayCheckpoints(folder, None if log is None else log.ends)
    if wanted.resume:
        checkpoints.find()
        if log is not None and checkpoints.log_ends is not None:
            log.end_at(checkpoints.log_ends)
    return checkpoints


def _rankers(
    variants: Sequence[str], config: Path | None, overrides: Sequence[str]
) -> tuple[RankerWish, ...]:
    from app.ranker_variants import ranker_wishes

    return ranker_wishes(variants, lambda more: settings_from(config, [*overrides, *more]))


def _chosen(settings: Settings, flags: Mapping[str, Any]) -> Dataset:
    """Return the dataset or the log that the flags name."""
    named = {name: flags[f"{name}_column"] for name in _COLUMNS}
    named["time_unit"] = flags["time_unit"]
    about_files = {name: flags[name] for name in ("path", "limit", "positive_at", "columns")}
    if flags["dataset"] is not None:
        path = about_files.pop("path")
        return open_chosen(flags["dataset"], path, named=named, **about_files)
    if flags["log"] is None:
        raise ConfigError(
            "--dataset: expected a dataset, a --log, a --snapshot, or the --journal of a live run"
        )
    useless = [name for name, value in (about_files | named).items() if value]
    if useless:
        raise ConfigError(f"--log: has no use for flags about files, got {', '.join(useless)}")
    return _whole_log(settings)


def _part(dataset: Dataset, from_: str | None, until: str | None) -> Dataset:
    from replay.spans import Span, time_of

    if from_ is None and until is None:
        return dataset
    from_ms = None if from_ is None else time_of(from_, "--from")
    return Span(dataset, from_ms, None if until is None else time_of(until, "--until"))


def _whole_log(settings: Settings) -> Dataset:
    from replay.log_dataset import LogDataset
    from stream.open_log import open_log

    url = settings.data.log_url
    return LogDataset(url, settings.schema_declared, lambda: open_log(url, kafka=settings.kafka))


def _command_line(context: typer.Context) -> str:
    """Return the command with the flags that were given, as a shell takes it."""
    words = ["headrace", "replay"]
    for option in context.command.params:
        source = context.get_parameter_source(option.name or "")
        if source is None or source.name != "COMMANDLINE" or option.name == "resume":
            continue
        values = context.params[option.name or ""]
        for value in values if isinstance(values, list | tuple) else (values,):
            words += [option.opts[0], str(value)]
    return shlex.join(words)


def _learn_again(settings: Settings, journal: Path, snapshot: str) -> int:
    from app.journal_run import run_journal_replay

    return run_journal_replay(settings, journal, snapshot)
