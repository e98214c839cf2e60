"""gomem: what is installed. Its rooms are folders of the repository: tracer, bpf, exporters."""
