"""Study and mapping files that are wrong: the key is named, nothing unexpected comes through."""

import pytest

from fedmedlora.config import load_study
from fedmedlora.corpus.mapping import load_mapping
from fedmedlora.errors import ConfigError
from fedmedlora.schema import DEFAULT_SCHEME
from fedmedlora.study.run_folder import RunFolder

GOOD = """name: toy
methods: [zero-shot]
sites:
  a: {synthetic: {style: icu, train: 1, validation: 1, test: 1}}
"""
#: A thousand bytes that stand for ten thousand million words.
BOMB = "\n".join(
    ["x0: &x0 [a, a, a, a, a, a, a, a, a, a]"]
    + [f"x{n}: &x{n} [{', '.join([f'*x{n - 1}'] * 10)}]" for n in range(1, 10)]
)


def load(tmp_path, text, *overrides):
    file = tmp_path / "study.yaml"
    file.write_text(text, encoding="utf-8")
    return load_study(file, overrides)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("x: " + "[" * 3000, "nested too deep"),
        (BOMB, "with its aliases written out it is too large"),
        ("x: &a [*a]", "with its aliases written out it is too large"),
        ("seed: 2020-13-45", "5:7: not YAML: the value has the form of a timestamp"),
        ("seed: !!int foo", "the form of a int"),
        ("seed: " + "9" * 6000, "the form of a int"),
        ("seed: !!bool foo", "the form of a bool"),
        ("? [a, b]\n: 2", "a key must be a word"),
        ("federation: {<<: 1}", "'<<' is not understood"),
        ("1: 2", "put it in quotes"),
        ("root:", "root: Input should be a valid string"),
        ("root: ~nosuchuser-here/x", "is no path of a folder"),
        ("training:", "training: must be a section"),
        ("training: {batch: yes}", "batch cannot be true or false"),
        ("training: {learning_rate: .inf}", "learning_rate: Input should be a finite number"),
        ("federation: {tau: .inf}", "federation.tau"),
        ("decoding: {open_bias: .nan}", "decoding.open_bias: "),
        ("decoding: {open_biases: []}", "decoding.open_biases"),
        ("adapter: {targets: []}", "adapter.targets"),
        ("adapter: {rank: 1000000000}", "adapter.rank"),
        ("task: {tasks: []}", "task.tasks"),
        ("task: {tasks: [entities, entities]}", "task.tasks: entities is named twice"),
        ("runtime: {threads: 1000000}", "runtime.threads"),
        ("server_validation: ''", "server_validation"),
        ("scheme: {mains: {micro: x}}", "micro names a mean of scores"),
        ("scheme: {mains: {}}", "scheme: a scheme needs at least one"),
        ("cohorts: {b: {test: t.jsonl, annotates: 5}}", "cohorts.b.annotates: must be a mapping"),
        ("cohorts: {../x: {test: t.jsonl}}", "cohorts.../x: a name is 1 to 64"),
    ],
)
def test_a_wrong_line_is_refused_with_its_key(tmp_path, line, says):
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, f"{GOOD}{line}\n")
    told = str(caught.value)
    assert says in told
    assert "\n" not in told
    assert "Input should be a valid dictionary" not in told


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (
            "cohorts: {b: {test: t.jsonl, annotates: [drugs]}}",
            "study.yaml: cohorts.b.annotates: drugs is not in the scheme, whose types are problem,",
        ),
        ("federation: {min_sites: 2}", "study.yaml: federation.min_sites is more than"),
        ("methods: [fed-medlra]", "; did you mean fed-medlora?"),
        ("methods: [nothing-alike]", "fed-medlora"),
        (
            "privacy: {epsilon: 3}",
            "privacy: delta: must be given with epsilon, well below",
        ),
        ("privacy: {epsilon: 3}", "; ledger: must be given with epsilon: "),
        ("privacy: {epsilon: 3, delta: 0.1}", "such as privacy: {epsilon: 3, delta: 1e-5, ledger:"),
    ],
)
def test_a_fault_says_its_own_key_and_what_would_do(tmp_path, line, says):
    text = GOOD.replace("methods: [zero-shot]\n", "") if line.startswith("methods") else GOOD
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, f"{text}{line}\n")
    assert says in str(caught.value)
    assert "the whole file" not in str(caught.value)
    assert ("did you mean" in str(caught.value)) == ("medlra" in line)


def test_a_few_aliases_are_what_they_stand_for(tmp_path):
    text = GOOD.replace("a: {", "a: &a {").replace("train: 1", "train: 3")
    assert load(tmp_path, f"{text}  b: *a\n").sites["b"].synthetic.train == 3


def test_many_or_long_faults_stay_one_short_line(tmp_path):
    with pytest.raises(ConfigError, match=r"and 295 more$") as caught:
        load(tmp_path, GOOD + "".join(f"key{i}: 1\n" for i in range(300)))
    assert len(str(caught.value)) < 500
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, f"{GOOD}seed: {'x' * 10_000}\n")
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("value", ["2020-13-45", "[" * 3000, "!!int x", "{[a]: b}"])
def test_a_value_on_the_command_line_that_is_not_yaml_is_refused(tmp_path, value):
    with pytest.raises(ConfigError, match="--set seed: the value is not YAML"):
        load(tmp_path, GOOD, f"seed={value}")


def test_windows_line_ends_and_a_byte_order_mark_are_read(tmp_path):
    assert load(tmp_path, "\ufeff" + GOOD.replace("\n", "\r\n")).name == "toy"


def test_a_study_file_that_is_a_folder_is_said_to_be_one(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load_study(tmp_path)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("entities: {}\nfoo: 1", "foo: there is no such setting"),
        ("entities: 5", "entities: must be a mapping"),
        ("[" * 3000, "nested too deep"),
        ("entities: 2020-13-45", "the form of a timestamp"),
        ("", "must be a section"),
    ],
)
def test_a_wrong_mapping_is_refused_with_its_key(tmp_path, text, says):
    file = tmp_path / "mapping.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_mapping(file, scheme=DEFAULT_SCHEME)
    assert says in str(caught.value)


def test_a_study_that_failed_before_any_work_does_not_hold_its_folder(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.begin(load(tmp_path, GOOD, "backbone.name=./misspelt"))
    study = load(tmp_path, GOOD)
    folder.begin(study)
    assert folder.study().backbone.name == "embedded"
