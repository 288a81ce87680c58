"""Kubernetes manifests: valid against the schemas of Kubernetes, and acceptable for clusters with restricted pods."""

import kubernetes_validate
import pytest
import yaml

from alignment.cli import main
from alignment.launch.cluster import Cluster, kubernetes_manifests
from alignment.launch.grading_manifests import GradingService, grading_manifests

VERSIONS = ("1.31", "1.37")
"""Versions of Kubernetes: the first that has all fields in its stable API, and the newest."""
SERVICE = GradingService(image="image:1", secret="align")


def documents(text):
    return {value["kind"]: value for value in yaml.safe_load_all(text)}


def pod_of(manifests):
    return (manifests.get("Job") or manifests["Deployment"])["spec"]["template"]["spec"]


@pytest.fixture
def job(recipe_with):
    """A function that returns the manifests of a recipe by kind."""

    def make(config="zero3", **settings):
        recipe, _ = recipe_with(config)
        cluster = Cluster(image="image:1", claim="shared", **settings)
        return documents(kubernetes_manifests(recipe, "recipes/r.yaml", cluster))

    return make


@pytest.fixture(params=["job", "job on CPUs", "job with namespaces", "grading", "weaker grading"])
def manifests(request, job):
    weaker = GradingService(image="image:1", secret="align", namespace="ml", weaker=True, replicas=2)
    return {
        "job": lambda: job(nodes=2, secret="align", namespace="ml"),
        "job on CPUs": lambda: job("cpu"),
        "job with namespaces": lambda: job(user_namespaces=True, secret="align"),
        "grading": lambda: documents(grading_manifests(SERVICE)),
        "weaker grading": lambda: documents(grading_manifests(weaker)),
    }[request.param]()


@pytest.mark.parametrize("version", VERSIONS)
def test_manifests_are_valid_against_the_schemas_of_kubernetes(manifests, version):
    for document in manifests.values():
        kubernetes_validate.validate(document, version, strict=True)


def test_the_schemas_refuse_a_field_that_does_not_exist(job):
    document = job()["Job"]
    document["spec"]["template"]["spec"]["containers"][0]["securityContext"]["capabilites"] = {"drop": ["ALL"]}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(document, VERSIONS[-1], strict=True)


def test_pods_have_no_rights_that_they_do_not_need(manifests):
    pod = pod_of(manifests)
    assert pod["automountServiceAccountToken"] is False and "hostNetwork" not in pod and "hostPID" not in pod
    assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["runAsUser"] == 10001
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not any("hostPath" in volume for volume in pod["volumes"])
    for container in pod["containers"]:
        security = container["securityContext"]
        assert security["allowPrivilegeEscalation"] is False and security["readOnlyRootFilesystem"] is True
        assert security["capabilities"] == {"drop": ["ALL"]} and "privileged" not in security
        requests, limits = container["resources"]["requests"], container["resources"]["limits"]
        assert set(requests) == {"cpu", "memory"} and requests.items() <= limits.items()
        mounted = {mount["mountPath"] for mount in container["volumeMounts"]}
        assert "/tmp" in mounted, "the root is read-only"
        assert {item["name"]: item.get("value") for item in container["env"]}["HOME"] == "/tmp"


def test_only_pods_that_run_untrusted_programs_have_no_seccomp_profile(job):
    def unconfined(manifests):
        return "seccompProfile" in pod_of(manifests)["containers"][0]["securityContext"]

    weaker = documents(grading_manifests(GradingService(image="i", secret="s", weaker=True)))
    assert unconfined(documents(grading_manifests(SERVICE))) and unconfined(job(user_namespaces=True))
    assert not unconfined(weaker) and not unconfined(job())
    assert "--allow-weaker-sandbox" in pod_of(weaker)["containers"][0]["command"]


def test_secrets_are_named_and_never_written(manifests):
    container = pod_of(manifests)["containers"][0]
    for item in container["env"]:
        if item["name"] in ("ALIGN_TOKEN", "WANDB_API_KEY", "HF_TOKEN"):
            assert "value" not in item and item["valueFrom"]["secretKeyRef"]["name"] == "align"
    assert not any("TOKEN" in word or "KEY" in word for word in container["command"])


def test_a_secret_in_an_override_is_refused_since_the_command_line_would_show_it(recipe_with):
    recipe, _ = recipe_with("zero3")
    key = "hf_" + "aB3dE5fG7hJ9kL1mN3pQ5rS7tU9vW1xY3z"
    cluster = Cluster(image="i", claim="c", overrides=(f"tracking.project={key}",))
    with pytest.raises(ValueError, match=r"--set tracking.project looks like a secret") as error:
        kubernetes_manifests(recipe, "recipes/r.yaml", cluster)
    assert key not in str(error.value)


def test_the_grading_service_is_reached_by_training_pods_alone_and_reaches_nothing(job):
    manifests = documents(grading_manifests(SERVICE))
    policy, service, pods = (
        manifests["NetworkPolicy"],
        manifests["Service"],
        manifests["Deployment"]["spec"]["template"],
    )
    assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"] and policy["spec"]["egress"] == []
    (source,) = policy["spec"]["ingress"][0]["from"]
    labels = job()["Job"]["spec"]["template"]["metadata"]["labels"]
    assert source["podSelector"]["matchLabels"].items() <= labels.items()
    for selector in (policy["spec"]["podSelector"]["matchLabels"], service["spec"]["selector"]):
        assert selector.items() <= pods["metadata"]["labels"].items()
    container = pods["spec"]["containers"][0]
    assert container["readinessProbe"]["httpGet"]["path"] == "/health"
    assert service["spec"]["ports"][0]["port"] == container["ports"][0]["containerPort"] == 8711


@pytest.mark.parametrize(
    ("settings", "words"),
    [({"run_as": 0}, "other than root"), ({"memory": "64"}, "with a unit"), ({"cpus": 0}, "at least 1")],
)
def test_pods_as_root_or_without_resources_are_refused(settings, words, job):
    with pytest.raises(ValueError, match=words):
        job(**settings)
    with pytest.raises(ValueError, match=words):
        grading_manifests(GradingService(**{"image": "i", "secret": "s", **settings}))


def test_align_sandbox_manifests_prints_them(capsys):
    assert main(["sandbox", "manifests", "--image", "image:1", "--secret", "align", "--cpus", "4"]) == 0
    manifests = documents(capsys.readouterr().out)
    container = pod_of(manifests)["containers"][0]
    assert container["image"] == "image:1" and container["command"][-2:] == ["--workers", "4"]


def test_the_command_of_the_grading_pod_is_one_that_the_command_line_knows(capsys):
    """The service itself is started by tests/grading."""
    command = pod_of(documents(grading_manifests(SERVICE)))["containers"][0]["command"]
    assert command[0] == "align"
    with pytest.raises(SystemExit) as stopped:
        main([*command[1:], "--help"])
    assert stopped.value.code == 0 and "--workers" in capsys.readouterr().out
