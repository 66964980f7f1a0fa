"""One thin module per command of `roc4mllm`, each with `run(args) -> int`; `roc4mllm_cli` parses the arguments."""
