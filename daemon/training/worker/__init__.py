"""The training child: the only home of torch, transformers, trl and peft."""
