"""gomem: where a running Go process's memory is, who in the runtime holds it, and how much is resident."""

__version__ = "0.2.0"
