"""Progress: what events of several methods at once become."""

import io

from rich.console import Console
from rich.progress import Progress

from fedmedlora.progress import Bars, MethodProgress, done_line, show_progress


def step(method, site, *, number, round=1, steps=30, loss=0.5):
    facts = {"method": method, "site": site, "round": round, "step": number, "steps": steps}
    return "step", {**facts, "loss": loss}


def test_training_says_round_site_and_step_and_counts_the_steps_of_all_rounds():
    shown = MethodProgress("fed-medlora")
    shown.tell("round", {"round": 1, "rounds": 3})
    shown.tell(*step("fed-medlora", "icu", number=30))
    shown.tell(*step("fed-medlora", "ward", number=6))
    assert shown.description == "fed-medlora  round 1/3  ward  step 6/30"
    # Two sites are known: 3 rounds of 2 x 30 steps.
    assert (shown.done, shown.total) == (36, 180)


def test_a_later_round_goes_on_from_the_earlier_ones():
    shown = MethodProgress("fed-medlora")
    for round, number in ((1, 30), (2, 12)):
        shown.tell("round", {"round": round, "rounds": 2})
        shown.tell(*step("fed-medlora", "icu", number=number, round=round, loss=None))
    assert shown.description == "fed-medlora  round 2/2  icu  step 12/30"
    assert (shown.done, shown.total) == (42, 60)


def test_rounds_that_were_complete_before_are_not_counted():
    shown = MethodProgress("fed-medlora")
    shown.tell("round", {"round": 3, "rounds": 4})
    shown.tell(*step("fed-medlora", "icu", number=12, round=3))
    assert shown.description == "fed-medlora  round 3/4  icu  step 12/30"
    # Rounds 3 and 4 are left, of 30 steps each.
    assert (shown.done, shown.total) == (12, 60)


def test_decoding_is_a_stage_of_its_own():
    shown = MethodProgress("zero-shot")
    shown.tell("decoding", {"cohort": "icu", "done": 64, "total": 90})
    assert shown.description == "zero-shot  decoding icu 64/90"
    assert (shown.done, shown.total) == (64, 90)


def test_each_running_method_has_a_bar_and_none_when_it_is_done():
    progress = Progress(console=Console(file=io.StringIO()))
    bars = Bars(progress)
    bars.tell("study", {"methods": ["zero-shot", "single-site/icu"]})
    bars.tell("method", {"method": "zero-shot"})
    bars.tell(*step("single-site/icu", "icu", number=3))
    bars.tell("decoding", {"method": "zero-shot", "cohort": "icu", "done": 1, "total": 2})
    assert [task.description for task in progress.tasks] == [
        "methods done 0/2",
        "zero-shot  decoding icu 1/2",
        "single-site/icu  round 1/1  step 3/30",
    ]
    bars.tell("method-done", {"method": "zero-shot", "seconds": 2})
    assert [task.description.split()[0] for task in progress.tasks] == [
        "methods",
        "single-site/icu",
    ]
    assert (progress.tasks[0].completed, progress.tasks[0].total) == (1, 2)


def test_a_study_with_nothing_left_to_run_has_no_bar():
    progress = Progress(console=Console(file=io.StringIO()))
    Bars(progress).tell("study", {"methods": []})
    assert progress.tasks == []


def test_unknown_events_are_passed_over():
    progress = Progress(console=Console(file=io.StringIO()))
    bars = Bars(progress)
    bars.tell("weather", {"sun": True})
    bars.tell("weather", {"method": "zero-shot"})
    assert len(progress.tasks) == 1


def test_without_a_terminal_a_method_has_a_line_at_its_start_and_its_end(capsys):
    with show_progress() as tell:
        tell("study", {"methods": ["zero-shot"]})
        tell("method", {"method": "zero-shot"})
        tell("decoding", {"method": "zero-shot", "cohort": "icu", "done": 1, "total": 2})
        tell("method-done", {"method": "zero-shot", "seconds": 2.4})
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", "zero-shot: started\nzero-shot: done in 2 s\n")


def test_on_a_terminal_tables_on_stdout_stay_clean(monkeypatch, capsys):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    with show_progress() as tell:
        tell(*step("fed-medlora", "icu", number=3))
        print("a table")  # noqa: T201
        tell("method-done", {"method": "fed-medlora", "seconds": 2})
    printed = capsys.readouterr()
    assert printed.out == "a table\n"
    assert done_line({"method": "fed-medlora", "seconds": 2}) in printed.err
