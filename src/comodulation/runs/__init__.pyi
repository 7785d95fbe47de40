from .added_tasks import grow_run
from .answer_columns import stream_answers
from .config import (
    MAX_SEED,
    ControllerSettings,
    HeadSettings,
    RunConfig,
    make_config,
    parse_yaml,
    read_config,
    write_config,
    written_in_full,
)
from .dataset import Labelled, TaskData, deal_images, open_splits, read_family, read_labels
from .decisions import decision_note
from .export import Answers, export_run
from .feature_columns import stream_features
from .fitting import FitResult, fit
from .folder import ADAPTER, HEAD, load_head, run_folders
from .page import run_report
from .predictions_table import PredictionsTable
from .records import Written, checked, metrics_by_task
from .remade import write_run_report
from .run import Run, content_id, describe
from .session import Adapted, Encoded, Session, TuningData, build_head, config_method
from .streaming import Streamed
from .trackers import check_trackers, track
from .values import known_keys, of_method, parse_setting, read_settings, with_settings

__all__ = [
    "ADAPTER",
    "HEAD",
    "MAX_SEED",
    "Adapted",
    "Answers",
    "ControllerSettings",
    "Encoded",
    "FitResult",
    "HeadSettings",
    "Labelled",
    "PredictionsTable",
    "Run",
    "RunConfig",
    "Session",
    "Streamed",
    "TaskData",
    "TuningData",
    "Written",
    "build_head",
    "check_trackers",
    "checked",
    "config_method",
    "content_id",
    "deal_images",
    "decision_note",
    "describe",
    "export_run",
    "fit",
    "grow_run",
    "known_keys",
    "load_head",
    "make_config",
    "metrics_by_task",
    "of_method",
    "open_splits",
    "parse_setting",
    "parse_yaml",
    "read_config",
    "read_family",
    "read_labels",
    "read_settings",
    "run_folders",
    "run_report",
    "stream_answers",
    "stream_features",
    "track",
    "with_settings",
    "write_config",
    "write_run_report",
    "written_in_full",
]
