"""One job a file: `python -m pipelines.VERB [file.yaml ...] [key=value ...]`."""
