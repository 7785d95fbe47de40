"""What the terminal is told."""

from comodulation.console import ConsoleProgress


def test_a_message_is_one_line_in_a_log(capsys):
    """However long, and with what looks like markup: whoever reads a log by lines finds it whole."""
    message = "residual, seed 10: [bold] " + 30 * "accuracy 79.1%, " + "2 min left"
    with ConsoleProgress() as progress:
        progress.message(message)
    assert capsys.readouterr().err.splitlines() == [message]
