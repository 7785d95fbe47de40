from .plan import attributes_plan, cifar100_plan
from .report import open_study, write_report
from .reproduction import Study, reproduce
from .tables import main_table, short_table

__all__ = [
    "Study",
    "attributes_plan",
    "cifar100_plan",
    "main_table",
    "open_study",
    "reproduce",
    "short_table",
    "write_report",
]
