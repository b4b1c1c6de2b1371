"""The open bias that is chosen: by strict F1, the smallest of equals, of a site's own tasks."""

from fedmedlora.evaluation.open_bias import choose_open_biases
from fedmedlora.schema import DEFAULT_SCHEME, Document, Entity
from fedmedlora.tasks.settings import TaskSettings

NOTE = Document("n", "She has fever today.", (Entity("T1", "problem", 8, 13),))
COVERS = frozenset({"problem", "negation"})
BOTH = ("entities", "modifiers")
CANDIDATES = (1.0, 0.0, 0.5)


def chosen(validation):
    """The biases of a model that finds the fever from a bias of .5 on; and what it was asked."""
    asked = []

    def answers(place, examples, bias):
        asked.extend((place, example.task) for example in examples)
        made = []
        for example in examples:
            text = example.source
            if example.task == "entities" and bias >= 0.5:
                text = text.replace("fever", '<span class="problem">fever</span>')
            made.append(text)
        return made

    found = choose_open_biases(
        validation, answers, candidates=CANDIDATES, scheme=DEFAULT_SCHEME, settings=TaskSettings()
    )
    return found, set(asked)


def test_the_smallest_bias_of_the_best_is_taken():
    found, _ = chosen([((NOTE,), COVERS, BOTH)])
    assert found == {"entities": 0.5, "modifiers": 0.0}


def test_a_site_is_asked_its_own_tasks_alone():
    found, asked = chosen([((NOTE,), COVERS, ("entities",))])
    assert asked == {(0, "entities")}
    assert found["entities"] == 0.5
    _, asked = chosen([((NOTE,), COVERS, ("entities",)), ((NOTE,), COVERS, BOTH)])
    assert asked == {(0, "entities"), (1, "entities"), (1, "modifiers")}
