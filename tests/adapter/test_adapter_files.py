"""Adapters on disk: a saved folder opens with PEFT, a damaged one is refused, none is half."""

import pytest
import torch
from adapter_toys import logits, tiny_llama, trained
from peft import PeftModel
from transformers import LlamaForCausalLM

from fedmedlora.errors import AdapterError, RunError
from fedmedlora.model import adapter_files
from fedmedlora.model.adapter_files import read_adapter, save_adapter


def test_saved_folder_opens_with_peft_and_merges_to_a_plain_model(saved, tmp_path):
    model, adapter = saved
    save_adapter(adapter, tmp_path / "a", base_model="tiny")
    opened = PeftModel.from_pretrained(tiny_llama(), tmp_path / "a").eval()
    assert torch.equal(logits(opened), logits(model))
    merged = opened.merge_and_unload()
    assert type(merged) is LlamaForCausalLM
    assert torch.allclose(logits(merged), logits(model), atol=1e-5)
    merged.save_pretrained(tmp_path / "merged")
    again = LlamaForCausalLM.from_pretrained(tmp_path / "merged").eval()
    assert torch.allclose(logits(again), logits(model), atol=1e-5)


def test_saved_folder_reads_back_bit_for_bit(saved, tmp_path):
    save_adapter(saved[1], tmp_path / "a", base_model="tiny")
    again = read_adapter(tmp_path / "a")
    assert again.manifest == saved[1].manifest
    assert again.sha256 == saved[1].sha256
    assert list(again.tensors) == [name for name, _ in again.manifest.tensors]


def test_flipped_bit_truncation_and_missing_files_are_refused(saved, tmp_path):
    folder = tmp_path / "a"
    save_adapter(saved[1], folder, base_model="tiny")
    file = folder / adapter_files.TENSORS_FILE
    good = file.read_bytes()
    file.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    with pytest.raises(AdapterError, match="hash"):
        read_adapter(folder)
    file.write_bytes(good[:-8])
    with pytest.raises(AdapterError, match="broken"):
        read_adapter(folder)
    file.unlink()
    with pytest.raises(AdapterError, match="adapter_model"):
        read_adapter(folder)
    (folder / adapter_files.MANIFEST_FILE).write_text("{}")
    with pytest.raises(AdapterError, match="broken"):
        read_adapter(folder)


def test_full_disk_leaves_the_adapter_that_was_there(saved, tmp_path, monkeypatch):
    folder = tmp_path / "a"
    save_adapter(saved[1], folder, base_model="tiny")
    write = adapter_files.write_bytes

    def full(path, data):
        if path.name == adapter_files.TENSORS_FILE:
            write(path, data[:100])
            raise OSError(28, "No space left on device")
        write(path, data)

    monkeypatch.setattr(adapter_files, "write_bytes", full)
    with pytest.raises(RunError, match="No space left"):
        save_adapter(trained(seed=5)[1], folder, base_model="tiny")
    assert read_adapter(folder).sha256 == saved[1].sha256
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_saving_over_an_adapter_replaces_it(saved, tmp_path):
    save_adapter(saved[1], tmp_path / "a", base_model="tiny")
    other = trained(seed=5)[1]
    save_adapter(other, tmp_path / "a", base_model="tiny")
    assert read_adapter(tmp_path / "a").sha256 == other.sha256
