"""What the terminal is told."""

from comodulation.app.cli.console import ConsoleProgress


def test_a_message_is_one_line_in_a_log(capsys):
    """However long, and with what looks like markup: whoever reads a log by lines finds it whole."""
    message = "residual, seed 10: [bold] " + 30 * "accuracy 79.1%, " + "2 min left"
    with ConsoleProgress() as progress:
        progress.message(message)
    assert capsys.readouterr().err.splitlines() == [message]


def test_names_do_not_reach_the_terminal_as_they_are(capsys):
    """A message keeps its lines; what would move the cursor, or be taken as rich's markup, is shown as it is written."""
    with ConsoleProgress() as progress:
        progress.message("task 'a\x1b[2Jb\x07'\nwarning: [red]c\u202ed")
        progress.extraction("[/]\x1b]0;x", 5, 5)
    said = capsys.readouterr().err
    assert said == "task 'a\\x1b[2Jb\\x07'\nwarning: [red]c\\u202ed\nfeatures, [/]\\x1b]0;x: 5/5\n"
