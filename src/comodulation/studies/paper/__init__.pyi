from .calibration_tables import calibration_csv, calibration_rows, calibration_table
from .claims import judge_claims
from .diagnosis import Diagnosis, diagnose
from .figures import draw_figures
from .illustration import illustrate, read_illustration
from .plan import REST_SEEDS, Plan, attributes_plan, cifar100_plan, narrowed
from .report import open_study, write_report
from .reproduction import STUDY, Study, reproduce
from .search_tables import ablation_table, search_table
from .tables import (
    bias_table,
    binary_table,
    comparisons_tables,
    diagnosis_table,
    group_table,
    judged_together,
    main_table,
    mechanism_table,
    methods_table,
    options_table,
    others_table,
    short_table,
    task_table,
)
from .words import interval, mean, shown_name, subtitle_of, title_of

__all__ = [
    "REST_SEEDS",
    "STUDY",
    "Diagnosis",
    "Plan",
    "Study",
    "ablation_table",
    "attributes_plan",
    "bias_table",
    "binary_table",
    "calibration_csv",
    "calibration_rows",
    "calibration_table",
    "cifar100_plan",
    "comparisons_tables",
    "diagnose",
    "diagnosis_table",
    "draw_figures",
    "group_table",
    "illustrate",
    "interval",
    "judge_claims",
    "judged_together",
    "main_table",
    "mean",
    "mechanism_table",
    "methods_table",
    "narrowed",
    "open_study",
    "options_table",
    "others_table",
    "read_illustration",
    "reproduce",
    "search_table",
    "short_table",
    "shown_name",
    "subtitle_of",
    "task_table",
    "title_of",
    "write_report",
]
