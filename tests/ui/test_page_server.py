"""The server of the live page: what it answers, and whom it refuses."""

import json
import os
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
import sample_run

pytest.importorskip("starlette", reason="needs the extra [serve]")

from starlette.testclient import TestClient

from alignment.report.run_folder import read_run
from alignment.ui.page_server import application, asset_files
from alignment.ui.run_library import RunLibrary

HERE = "http://127.0.0.1:8712"


def client_of(folder, **settings):
    return TestClient(application(RunLibrary([folder]), **settings), base_url=HERE)


@pytest.fixture
def run(tmp_path):
    return sample_run.write_run(tmp_path / "runs" / "shop", message="stage 'rl' ended with code 1")


@pytest.fixture
def client(run):
    return client_of(run.parent)


def view(client, name, **parameters):
    response = client.get(f"/api/runs/shop/{name}", params=parameters)
    assert response.status_code == 200, response.text
    return response.json()


def test_the_list_of_runs_says_where_each_run_is(client):
    (run,) = client.get("/api/runs").json()["runs"]
    assert (run["state"], run["done"], run["stages"]) == ("failed", 4, 6)
    assert run["message"] == "stage 'rl' ended with code 1" and run["where"] == "rl, step 3 of 100"


def test_a_stage_with_a_fresh_heartbeat_is_running(client, run):
    beat = sample_run.folder_of(run, "rl") / "heartbeat"
    beat.write_text("1 1")
    assert client.get("/api/runs").json()["runs"][0]["state"] == "running"
    os.utime(beat, (time.time() - 3600,) * 2)
    assert client.get("/api/runs").json()["runs"][0]["state"] == "failed"


def test_the_time_of_a_running_stage_does_not_include_the_time_before_the_run_resumed(run):
    (sample_run.folder_of(run, "rl") / "heartbeat").write_text("1 1")
    record = json.loads((run / "run.json").read_text())
    begun = datetime.now(UTC) + timedelta(seconds=-1)
    (run / "run.json").write_text(json.dumps({**record, "started": begun.isoformat()}))
    stage = read_run(run).stage("rl")
    assert stage.state == "running" and stage.run_began == begun.timestamp()
    assert replace(stage, run_began=time.time() + 1000).seconds() == 0.0


def test_the_overview_has_stages_and_ladder(client):
    titles = {title: json.dumps(tree) for title, tree in view(client, "overview")["sections"]}
    assert list(titles) == ["Stages", "The ladder"]
    assert '"to do"' in titles["Stages"] and "step 3 of 100" in titles["Stages"]
    assert '"75.0 [5.0, 95.0]"' in titles["The ladder"]


def test_curves_grow_with_the_file(client, run):
    assert len(view(client, "curves")["sections"]) == 2
    before = json.dumps(view(client, "curves"))
    sample_run.write_lines(sample_run.folder_of(run, "rl") / "metrics.jsonl", sample_run.metrics(4, 60))
    after = json.dumps(view(client, "curves"))
    assert "at step 60" in after and "at step 60" not in before
    assert "tokens per second" in after and "200 at step 60" in after


def test_an_unchanged_view_is_not_sent_again(client):
    first = client.get("/api/runs/shop/curves")
    again = client.get("/api/runs/shop/curves", headers={"If-None-Match": first.headers["etag"]})
    assert again.status_code == 304 and not again.content


def test_rollouts_are_filtered_and_paged(client):
    whole = view(client, "rollouts", limit=30, offset=190)
    assert (whole["total"], whole["all"], len(whole["rows"])) == (200, 200, 10)
    assert whole["verdicts"] == ["error", "passed", "wrong_answer"] and whole["steps"] == [0, 3]
    assert {row["step"] for row in view(client, "rollouts", step=2)["rows"]} == {2}
    assert {row["reward"] for row in view(client, "rollouts", above=0.4, below=0.6)["rows"]} == {0.5}
    assert {row["reward"] for row in view(client, "rollouts", ungraded=1)["rows"]} == {None}
    assert view(client, "rollouts", task="TASK-49")["total"] == 4
    assert {row["verdict"] for row in view(client, "rollouts", verdict="passed")["rows"]} == {"passed"}


def test_a_rollout_opens_with_prompt_turns_and_verdict(client):
    place = view(client, "rollouts", offset=7, limit=1)["rows"][0]
    row = view(client, "rollout", stage="rl", file=place["file"], offset=place["offset"])["row"]
    assert (
        row["prompt"][0]["content"] == "Add 7."
        and row["turns"][0]["content"] == "x + 7"
        and row["detail"] == "detail 7"
    )


def test_rollouts_that_a_resumed_stage_writes_anew_are_read_anew(client, run):
    assert view(client, "rollouts")["total"] == 200
    path = sample_run.folder_of(run, "rl") / "rollouts" / "rank-0.jsonl"
    kept = path.read_text().splitlines(keepends=True)[:64]
    path.write_text("".join(kept))
    sample_run.write_lines(path, [{**row, "step": 1} for row in sample_run.rollouts(300)])
    assert view(client, "rollouts")["total"] == 364


def test_completions_before_and_after_a_stage(client):
    whole = view(client, "completions")
    assert (whole["before"], whole["after"]) == ("base", "sft")
    assert [row["change"] for row in whole["rows"]] == ["better", "better", "same", "worse"]
    assert [row["task"] for row in view(client, "completions", change="worse")["rows"]] == ["t3"]
    detail = view(client, "completion", stage="sft", benchmark="fim", task="t0", sample=0)["details"]
    assert [item["completion"] for item in detail] == ["by base", "by sft"]
    assert [item["status"] for item in detail] == ["failed", "passed"]


def test_a_log_is_read_in_parts_without_control_characters(client, run):
    first = view(client, "log", stage="rl")
    assert first["text"] == "100%\nstep 1\nstep 2\n"
    with (sample_run.folder_of(run, "rl") / "logs" / "rank0.log").open("a") as file:
        file.write("step 3\nunfinished")
    assert view(client, "log", stage="rl", **{"from": first["next"]})["text"] == "step 3\n"


def test_damaged_files_are_no_error(client, run):
    (sample_run.folder_of(run, "sft") / "artifact.json").write_text("{")
    sample_run.write_lines(sample_run.folder_of(run, "rl") / "rollouts" / "rank-0.jsonl", [{"step": "x"}, [1], None])
    with (sample_run.folder_of(run, "rl") / "metrics.jsonl").open("a") as file:
        file.write('nonsense\n{"step": 4, "loss": NaN}\n{"step": 5')
    for name in ("overview", "curves", "rollouts", "completions"):
        view(client, name)
    assert view(client, "rollouts")["total"] == 200


@pytest.mark.parametrize(
    ("path", "parameters"),
    [
        ("/api/runs/nothing/overview", {}),
        ("/api/runs/shop/nothing", {}),
        ("/api/runs/shop/rollouts", {"stage": "../../etc"}),
        ("/api/runs/shop/rollout", {"stage": "rl", "file": "../metrics.jsonl", "offset": 0}),
        ("/api/runs/shop/rollout", {"stage": "rl", "file": "rank-0.jsonl", "offset": 1}),
        ("/api/runs/shop/log", {"stage": "rl", "file": "../../../run.json"}),
        ("/api/runs/shop/log", {"stage": "../rl"}),
        ("/api/runs/..%2f..%2fetc/log", {"stage": "rl"}),
        ("/assets/..%2fpage_server.py", {}),
        ("/assets/%2fetc%2fpasswd", {}),
        ("/assets/../page_server.py", {}),
        ("/etc/passwd", {}),
    ],
)
def test_paths_outside_of_the_run_are_not_found(client, path, parameters):
    assert client.get(path, params=parameters).status_code == 404


def test_a_filter_that_is_no_number_is_explained(client):
    response = client.get("/api/runs/shop/rollouts", params={"step": "two"})
    assert response.status_code == 400 and response.json()["error"] == "step must be a number, not 'two'"


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8712", "127.0.0.1.evil.example", "localhost@evil.example", "", "["]
)
def test_other_host_names_are_refused(client, host):
    assert client.get("/api/runs", headers={"Host": host}).status_code == 421


@pytest.mark.parametrize("host", ["localhost:8712", "127.0.0.1", "[::1]:9000", "LOCALHOST"])
def test_names_of_this_machine_are_accepted_on_any_port(client, host):
    assert client.get("/api/runs", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:9999", "https://localhost:8712"])
def test_requests_of_other_origins_are_refused(client, origin):
    assert client.get("/api/runs", headers={"Origin": origin}).status_code == 403


def test_every_answer_binds_the_browser(client):
    for path in ("/", "/api/runs", "/assets/app.js", "/nothing"):
        policy = client.get(path).headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
    assert client.get("/", headers={"Host": "evil.example"}).headers["x-content-type-options"] == "nosniff"


def test_the_page_names_no_address_outside_of_the_server():
    names = asset_files()
    assert {"index.html", "app.js", "components.css", "components.js"} <= set(names)
    for name, path in names.items():
        text = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert "http://" not in text and "https://" not in text, name
        assert not {"innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("} & set(text.split()), name


def test_another_address_needs_a_token(run):
    with pytest.raises(ValueError, match="a token is needed"):
        client_of(run.parent, host="0.0.0.0").get("/")


def test_the_token_of_the_address_moves_to_a_cookie(run):
    client = client_of(run.parent, host="0.0.0.0", token="secret-token")
    assert client.get("/api/runs").status_code == 401
    assert client.get("/", params={"token": "wrong"}).status_code == 401
    redirect = client.get("/", params={"token": "secret-token"}, follow_redirects=False)
    assert redirect.status_code == 303 and redirect.headers["location"] == "/"
    cookie = redirect.headers["set-cookie"]
    assert "HttpOnly" in cookie and "samesite=strict" in cookie.lower()
    assert client.get("/api/runs").status_code == 200  # the client keeps the cookie
    other = client_of(run.parent, host="0.0.0.0", token="secret-token")
    assert other.get("/api/runs", headers={"Authorization": "Bearer secret-token"}).status_code == 200


def test_runs_that_begin_later_appear(tmp_path):
    client = client_of(tmp_path)
    assert client.get("/api/runs").json() == {"runs": []}
    sample_run.write_run(tmp_path / "later")
    assert [run["id"] for run in client.get("/api/runs").json()["runs"]] == ["later"]


def test_two_folders_of_one_name_have_two_ids(tmp_path):
    folders = [sample_run.write_run(tmp_path / place / "shop") for place in ("a", "b")]
    assert list(RunLibrary(folders).runs()) == ["shop", "shop-2"]


def ask(client, run="shop", headers=None, **body):
    given = {"model": "sft", "messages": [{"role": "user", "content": "hello"}], **body}
    return client.post(f"/api/runs/{run}/chat", json=given, headers={"Origin": HERE, **(headers or {})})


def test_data_has_what_was_removed_and_why(client):
    (section,) = view(client, "data")["sections"]
    text = json.dumps(section)
    assert section[0] == "corpus" and '"too short"' in text and '"28"' in text and '"near duplicate"' in text
    assert '"a.py"' in text and "deduplicate" not in text  # the removed files, and no settings


def test_a_question_of_another_site_is_refused(client):
    body = {"model": "sft", "messages": [{"role": "user", "content": "hello"}]}
    path = "/api/runs/shop/chat"
    assert client.post(path, json=body).status_code == 403  # no Origin
    assert client.post(path, json=body, headers={"Origin": "http://evil.example"}).status_code == 403
    assert client.post(path, json=body, headers={"Origin": HERE, "Sec-Fetch-Site": "cross-site"}).status_code == 403
    plain = {"Origin": HERE, "Content-Type": "text/plain"}
    assert client.post(path, content=json.dumps(body), headers=plain).status_code == 415


@pytest.mark.parametrize(
    "body", [{"max_new_tokens": 10**9}, {"temperature": -1}, {"messages": []}, {"mode": "shell"}, {"path": "/etc"}]
)
def test_a_malformed_question_is_refused(client, body):
    response = ask(client, **body)
    assert response.status_code == 400 and next(iter(body)) in response.json()["error"]


def test_only_models_of_the_run_can_be_asked(client, tmp_path):
    for model in ("rl", "/etc", "../..", "gpt"):
        assert ask(client, model=model).status_code == 404
    assert ask(client, run="nothing").status_code == 404


def test_a_body_that_is_too_large_is_refused(client):
    response = ask(client, messages=[{"role": "user", "content": "x" * (5 << 20)}])
    assert response.status_code == 400 and "at most" in response.json()["error"]
