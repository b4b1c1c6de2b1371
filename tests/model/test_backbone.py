"""Loading a backbone: what is refused and what to do, and what fingerprints tell apart."""

import json
import shutil

import pytest
import torch
import transformers
from model_toys import byte_tokenizer, tiny_llama, word_tokenizer

from fedmedlora.errors import BackboneError
from fedmedlora.model.backbone import check_name, load_backbone, tokenizer_fingerprint
from fedmedlora.model.decoding import DecodingSettings, EnforcedDecoder
from fedmedlora.model.losses import answer_loss


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("backbone") / "saved"
    tokenizer = word_tokenizer()
    tiny_llama(tokenizer).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "copy")


def test_a_backbone_is_frozen_and_in_evaluation_mode(folder):
    backbone = load_backbone(str(folder))
    assert not any(parameter.requires_grad for parameter in backbone.model.parameters())
    assert not backbone.model.training
    assert {parameter.dtype for parameter in backbone.model.parameters()} == {torch.float32}
    assert (backbone.name, backbone.path, backbone.precision) == (str(folder), str(folder), "fp32")


def test_loading_is_quiet(folder, capfd, caplog, recwarn):
    load_backbone(str(folder))
    assert capfd.readouterr() == ("", "")
    assert not caplog.records
    assert not recwarn.list


def test_bfloat16_computes_on_this_machine(folder):
    backbone = load_backbone(str(folder), precision="bf16")
    assert {parameter.dtype for parameter in backbone.model.parameters()} == {torch.bfloat16}
    ids = torch.tensor([[5, 6, 7, 8]])
    labels = torch.tensor([[-100, -100, 7, 8]])
    loss, count = answer_loss(backbone.model, ids, labels)
    assert count == 2
    assert torch.isfinite(loss)


@pytest.mark.parametrize("name", ["./missing", "/missing/folder", "~/missing-folder-of-a-test"])
def test_a_missing_folder(name):
    with pytest.raises(BackboneError, match=rf"{name}.*no such folder.*check the path"):
        load_backbone(name)


def test_a_file_instead_of_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.bin").write_bytes(b"x")
    with pytest.raises(BackboneError, match=r"no such folder"):
        load_backbone("model.bin")


@pytest.mark.parametrize(("cached", "says"), [(True, r"cached \(OSError"), (False, "from the hub")])
def test_a_model_that_must_be_here_is_not_asked_of_the_hub(monkeypatch, cached, says):
    asked = []

    def nowhere(path, **more):
        asked.append((path, more))
        raise OSError

    monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", nowhere)
    with pytest.raises(BackboneError, match=rf"^backbone.name: 'some/model' is no folder.*{says}"):
        check_name("some/model", key="backbone.name", cached=cached)
    assert asked == [("some/model", {"local_files_only": cached})]


def test_a_folder_without_a_configuration(folder):
    (folder / "config.json").unlink()
    with pytest.raises(BackboneError, match=r"no config\.json.*save_pretrained"):
        load_backbone(str(folder))


def test_a_folder_without_a_tokenizer(folder):
    for file in folder.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(BackboneError, match=r"no tokenizer.*tokenizer\.save_pretrained"):
        load_backbone(str(folder))


@pytest.mark.parametrize("file", ["model.safetensors", "tokenizer.json", "config.json"])
def test_a_broken_file(folder, file):
    path = folder / file
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(BackboneError, match=r"cannot be loaded.*files are whole"):
        load_backbone(str(folder))


def test_missing_weights(folder):
    (folder / "model.safetensors").unlink()
    with pytest.raises(BackboneError, match=r"its model cannot be loaded"):
        load_backbone(str(folder))


def test_weights_without_some_tensors_are_not_filled_up_at_random(folder):
    from safetensors.torch import load_file, save_file

    path = folder / "model.safetensors"
    tensors = load_file(path)
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(BackboneError, match=r"lack 1 tensors \(model\.layers\.1\.mlp\.up_proj"):
        load_backbone(str(folder))


def test_a_tokenizer_without_end_of_sequence(folder):
    _edit(folder / "tokenizer_config.json", eos_token=None)
    with pytest.raises(BackboneError, match=r"no end-of-sequence token.*tokenizer_config\.json"):
        load_backbone(str(folder))


def test_a_tokenizer_without_padding_gets_end_of_sequence_for_it(folder):
    _edit(folder / "tokenizer_config.json", pad_token=None)
    tokenizer = load_backbone(str(folder)).tokenizer
    assert tokenizer.pad_token_id == tokenizer.eos_token_id


def test_a_tokenizer_of_another_model(folder):
    byte_tokenizer(size=420).save_pretrained(folder)
    with pytest.raises(BackboneError, match=r"token ids up to 419.*do not belong together"):
        load_backbone(str(folder))


def _edit(path, **changes):
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, **changes}))


def test_fingerprints_are_the_same_at_every_load(folder, saved):
    one, two, copy = (load_backbone(str(f)) for f in (folder, folder, saved))
    assert one.fingerprint == two.fingerprint == copy.fingerprint
    assert one.tokenizer_fingerprint == two.tokenizer_fingerprint == copy.tokenizer_fingerprint
    assert len(one.fingerprint) == len(one.tokenizer_fingerprint) == 64


def test_fingerprints_change_with_weights_and_with_the_tokenizer(folder):
    before = load_backbone(str(folder))
    model = tiny_llama(word_tokenizer())
    model.lm_head.weight.data[0, 0] += 1e-3
    model.save_pretrained(folder)
    other = load_backbone(str(folder))
    assert other.fingerprint != before.fingerprint
    assert other.tokenizer_fingerprint == before.tokenizer_fingerprint
    word_tokenizer(["another text altogether"]).save_pretrained(folder)
    assert load_backbone(str(folder)).tokenizer_fingerprint != before.tokenizer_fingerprint


def test_using_a_tokenizer_does_not_change_its_fingerprint():
    tokenizer = word_tokenizer()
    before = tokenizer_fingerprint(tokenizer)
    tokenizer(["a", "a b c"], padding=True, truncation=True, max_length=2)
    tokenizer(["</s>"], split_special_tokens=True)
    tokenizer.pad_token = tokenizer.eos_token
    assert tokenizer_fingerprint(tokenizer) == before


def test_four_bits_without_bitsandbytes_says_what_to_install(folder, monkeypatch):
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "bitsandbytes" else find(name)
    )
    with pytest.raises(BackboneError, match=r"pip install 'fedmedlora\[nf4\]'"):
        load_backbone(str(folder), precision="nf4")


@pytest.mark.filterwarnings("error:.*autograd kernel:UserWarning")  # a gradient that is lost
def test_four_bits_train_after_decoding_as_before_it(folder):
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")
    from model_toys import SOURCES, toy_example

    from fedmedlora.model.encoding import encode_examples
    from fedmedlora.model.lora import adapter_of, manifest_of, new_adapter_model
    from fedmedlora.model.training import TrainingSettings, train_adapter

    tiny_llama(word_tokenizer(), hidden=64).save_pretrained(folder)  # its kernels want 32s
    examples = [toy_example(source, number=i) for i, source in enumerate(SOURCES)]
    adapters = []
    for decodes in (False, True):
        backbone = load_backbone(str(folder), precision="nf4")
        tokenizer = backbone.tokenizer
        model = new_adapter_model(
            backbone.model, rank=2, alpha=4, dropout=0.0, targets=["all-linear"], seed=0
        )
        if decodes:
            answers = EnforcedDecoder(model, tokenizer, DecodingSettings()).decode(examples)
            assert len(answers) == len(SOURCES)
        rows, _ = encode_examples(examples, tokenizer, max_tokens=200)
        settings = TrainingSettings(steps=2)
        train_adapter(model, rows, tokenizer=tokenizer, settings=settings, seed=0)
        assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
        adapters.append(adapter_of(model, manifest_of(model, backbone="", tokenizer="", scheme="")))
    assert adapters[0].sha256 == adapters[1].sha256
