"""What tests of discovery need: cgroups, a FUSE file system, a Kubernetes API, an observer."""
