"""`lindyn-jax info`."""

from ._common import configure


def info() -> None:
    """Versions, devices and precision."""
    configure()
    from ..ensemble import describe_environment

    for name, value in describe_environment().items():
        text = ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else value
        print(f"{name:<10} {text}")
