"""Writes Kubernetes manifests of a grading service, which runs untrusted programs apart from training.

    align sandbox manifests --image REGISTRY/IMAGE --secret align > grading.yaml

The service's pods hold no data and no credentials but the service's token, and reach no network. Their sandbox needs
user namespaces: the container has neither capabilities nor privileges, but the default seccomp and AppArmor profiles,
which refuse namespaces, are off. With `weaker` the default profiles stay, and programs run without namespaces.
"""

from __future__ import annotations

from dataclasses import dataclass

from alignment.grading.client import PORT, TOKEN
from alignment.launch.cluster import IMAGE_USER, TEMPLATES, check_pod


@dataclass(frozen=True)
class GradingService:
    """Size and place of a grading service in a Kubernetes cluster."""

    image: str
    """Container image with the toolkit's packages."""
    secret: str
    """Name of a Secret that has the service's token under the key ALIGN_TOKEN."""
    namespace: str | None = None
    replicas: int = 1
    cpus: int = 8
    """CPU cores of a pod. A pod grades as many programs at a time."""
    memory: str = "16Gi"
    """Memory of a pod. Each program may use 1 GiB by default."""
    run_as: int = IMAGE_USER
    """User and group of the processes."""
    weaker: bool = False
    """Whether programs run without namespaces, with Landlock, seccomp and rlimits alone."""


def grading_manifests(service: GradingService) -> str:
    """Return YAML with a Deployment, a Service and a NetworkPolicy.

    Raises:
        ValueError: a number is too small, or the user is root.
    """
    if min(service.replicas, service.cpus) < 1:
        raise ValueError("--replicas and --cpus must be at least 1")
    check_pod(service.run_as, service.memory)
    command = ["align", "sandbox", "serve", "--host", "0.0.0.0", "--port", str(PORT), "--workers", str(service.cpus)]
    if service.weaker:
        command.append("--allow-weaker-sandbox")
    return TEMPLATES.get_template("grading.yaml.jinja").render(
        name="align-grading", service=service, command=command, port=PORT, token=TOKEN
    )
