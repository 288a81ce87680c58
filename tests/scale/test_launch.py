"""Launch files for Slurm and Kubernetes: their content, and that their command trains on two nodes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from alignment.cli import main
from alignment.launch import cluster as launch

ROOT = Path(__file__).resolve().parents[2]


def documents(recipe, **settings):
    cluster = launch.Cluster(image="image:1", claim="shared", **settings)
    return {
        value["kind"]: value
        for value in yaml.safe_load_all(launch.kubernetes_manifests(recipe, "recipes/r.yaml", cluster))
    }


def test_slurm_script_is_valid_shell_and_requests_what_the_recipe_needs(recipe_with, tmp_path):
    recipe, file = recipe_with("multi_node")
    path, accelerate = launch.write_launch_files(
        recipe, file, launch.Cluster(nodes=2, partition="gpu", time="02:00:00"), "slurm", tmp_path / "out", ROOT
    )
    text = path.read_text()
    subprocess.run(["bash", "-n", str(path)], check=True)
    settings = {line.removeprefix("#SBATCH --") for line in text.splitlines() if line.startswith("#SBATCH")}
    assert {"nodes=2", "gpus-per-node=8", "ntasks-per-node=1", "partition=gpu", "time=02:00:00", "requeue"} <= settings
    written = yaml.safe_load(accelerate.read_text())
    assert (written["num_machines"], written["num_processes"], written["rdzv_backend"]) == (2, 16, "c10d")
    assert written["deepspeed_config"]["deepspeed_multinode_launcher"] == "standard"


def test_kubernetes_manifests_have_a_pod_per_node_and_every_pod_can_find_the_first(recipe_with):
    recipe, _ = recipe_with("zero3")
    manifests = documents(recipe, nodes=4, gpus_per_node=2, namespace="ml")
    job, service, config = manifests["Job"], manifests["Service"], manifests["ConfigMap"]
    assert job["apiVersion"] == "batch/v1" and job["spec"]["completionMode"] == "Indexed"
    assert job["spec"]["completions"] == job["spec"]["parallelism"] == 4
    pod = job["spec"]["template"]["spec"]
    assert pod["restartPolicy"] == "Never" and pod["subdomain"] == service["metadata"]["name"]
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["selector"].items() <= job["spec"]["template"]["metadata"]["labels"].items()
    container = pod["containers"][0]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 2
    name = job["metadata"]["name"]
    assert f"{name}-0.{name}" in container["command"][-1] and "$JOB_COMPLETION_INDEX" in container["command"][-1]
    subprocess.run(["bash", "-n", "-c", container["command"][-1]], check=True)
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["volumes"]}
    assert yaml.safe_load(config["data"]["accelerate.yaml"])["num_processes"] == 8
    assert {value["metadata"]["namespace"] for value in manifests.values()} == {"ml"}


def test_names_are_valid_in_kubernetes(recipe_with):
    recipe, _ = recipe_with("zero3")
    assert documents(recipe)["Job"]["metadata"]["name"] == "some-model-1"


@pytest.mark.parametrize("name", ["2024", "true", "null"])
def test_names_that_yaml_would_read_as_other_values_stay_strings(name, recipe_with):
    recipe, _ = recipe_with("zero3")
    manifests = documents(recipe.model_copy(update={"name": name}), namespace=name)
    assert {value["metadata"]["name"] for value in manifests.values()} == {name}
    assert {value["metadata"]["namespace"] for value in manifests.values()} == {name}


def test_overrides_reach_the_command_with_any_characters():
    cluster = launch.Cluster(overrides=("stages.sft.train.run_name=it's $HOME",))
    line = launch.launch_command("r.yaml", "a.yaml", cluster, rank="0", head="h", port="1")
    done = subprocess.run(["bash", "-c", f"printf '%s\\n' {line}"], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-2:] == ["--set", "stages.sft.train.run_name=it's $HOME"]


@pytest.mark.parametrize(
    ("config", "settings", "words"),
    [
        (None, {}, "names no `launch:` file"),
        ("gpu", {"nodes": 2, "gpus_per_node": 1}, "is for one process"),
        ("zero3", {"nodes": 3}, "can't be divided evenly"),
        ("zero3", {"nodes": 0}, "at least 1"),
    ],
)
def test_a_recipe_that_can_not_be_launched_is_refused_with_the_reason(recipe_with, config, settings, words):
    recipe, _ = recipe_with(config)
    with pytest.raises(ValueError, match=words):
        launch.accelerate_config(recipe, launch.Cluster(**settings))


def test_options_of_the_other_kind_of_cluster_are_refused(recipe_with, capsys):
    _, file = recipe_with("zero3")
    assert main(["launch", str(file), "--slurm", "--image", "x"]) == 1
    assert "--image: not used with --slurm" in capsys.readouterr().err
    assert main(["launch", str(file), "--kubernetes"]) == 1
    assert "needs --image" in capsys.readouterr().err


def test_align_launch_prints_or_writes_the_files(recipe_with, capsys, tmp_path):
    _, file = recipe_with("zero3")
    assert main(["launch", str(file), "--slurm"]) == 0
    assert capsys.readouterr().out.startswith("#!/bin/bash")
    assert main(["launch", str(file), "--slurm", "--nodes", "2", "--out", str(tmp_path / "l")]) == 0
    output = capsys.readouterr().out
    assert "start it with: sbatch" in output and len(list((tmp_path / "l").iterdir())) == 2


# A stand-in for Slurm's srun: runs the command once per node, with the node's number.
SRUN = """#!/bin/bash
for node in 0 1; do SLURM_NODEID=$node bash -c "${@: -1}" > "$LOGS/node$node.log" 2>&1 & pids="$pids $!"; done
status=0; for pid in $pids; do wait "$pid" || status=$?; done; exit "$status"
"""


@pytest.mark.slow
def test_the_slurm_script_trains_on_two_nodes(tmp_path, tiny_tokenizer_dir):
    """Two launchers on one machine stand for two nodes, with one process each, on the CPU."""
    sys.path.insert(0, str(ROOT / "tests" / "chain"))
    import shutil

    import tiny

    shutil.copytree(tiny_tokenizer_dir, tmp_path / "tokenizer")
    tiny.write_rows(tmp_path)
    stages = {"sft": tiny.stages()["sft"]}
    stages["sft"]["train"]["max_steps"] = 2
    file = tiny.write_recipe(tmp_path, stages, launch=str(ROOT / "accelerate_configs" / "ddp.yaml"))
    arguments = ["launch", str(file), "--slurm", "--nodes", "2", "--gpus-per-node", "1", "--python", sys.executable]
    assert main([*arguments, "--out", str(tmp_path / "launch")]) == 0
    tools = tmp_path / "bin"
    tools.mkdir()
    for name, text in {"srun": SRUN, "scontrol": "#!/bin/bash\necho 127.0.0.1\n"}.items():
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    environment = tiny.environment() | {
        "PATH": f"{tools}:{os.environ['PATH']}", "SLURM_JOB_ID": str(os.getpid()), "SLURM_JOB_NODELIST": "a,b",
        "LOGS": str(tmp_path), "PYTHONPATH": str(ROOT),
    }  # fmt: skip
    done = subprocess.run(
        ["bash", str(tmp_path / "launch" / "tiny.sbatch")], capture_output=True, text=True, env=environment, timeout=300
    )
    logs = "\n".join((tmp_path / f"node{node}.log").read_text() for node in (0, 1))
    assert done.returncode == 0, done.stdout + done.stderr + logs
    artifact = json.loads((tmp_path / "runs" / "tiny" / "sft" / "artifact.json").read_text())
    assert artifact["world_size"] == 2 and artifact["metrics"]["steps"] == 2
