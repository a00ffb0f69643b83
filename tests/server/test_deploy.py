"""The examples of camrt/server/deploy, as far as they can be held to anything without a Docker daemon, a cluster and an init."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

import click
import pytest

from tests.conftest import ROOT

yaml = pytest.importorskip("yaml")
pytest.importorskip("fastapi")

from camrt.cli.serve import serve  # noqa: E402
from camrt.server.options import Options  # noqa: E402

FOLDER = ROOT / "camrt" / "server" / "deploy"
DOCKERFILES = ("Dockerfile.cpu", "Dockerfile.cuda")
GRACE = Options().timeout + 5  # seconds in which a server ends that was asked to


def instructions(name: str) -> list[tuple[str, str]]:
    """Return the instructions of a Dockerfile, each with what is behind it."""
    lines = [line for line in (FOLDER / name).read_text().splitlines() if line.strip() and not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines()
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in joined)]


def last(name: str, word: str) -> str:
    """Return an instruction of the final stage."""
    found = instructions(name)
    begins = max(i for i, (what, _) in enumerate(found) if what == "FROM")
    (rest,) = [rest for what, rest in found[begins:] if what == word]
    return rest


def unit() -> dict[str, list[str]]:
    """Return the settings of the systemd unit, whose names are its sections' too."""
    found: dict[str, list[str]] = {}
    for line in (FOLDER / "camrt.service").read_text().splitlines():
        if line and not line.startswith(("#", "[")):
            name, _, value = line.partition("=")
            found.setdefault(name, []).append(value)
    return found


def predictor() -> dict:
    return yaml.safe_load((FOLDER / "inferenceservice.yaml").read_text())["spec"]["predictor"]


def container() -> dict:
    (found,) = predictor()["containers"]
    return found


def command(name: str, credentials: Path) -> list[str]:
    """Return the command line that an example runs."""
    if name in DOCKERFILES:
        return json.loads(last(name, "ENTRYPOINT")) + json.loads(last(name, "CMD"))
    if name == "camrt.service":
        (line,) = unit()["ExecStart"]
        return shlex.split(line.replace("${CREDENTIALS_DIRECTORY}", str(credentials)))
    return container()["command"] + container()["args"]


EXAMPLES = (*DOCKERFILES, "camrt.service", "inferenceservice.yaml")


def parsed(name: str, folder: Path) -> dict:
    (folder / "tokens").write_text("0123456789abcdef\n")
    program, verb, *arguments = command(name, folder)
    assert (Path(program).name, verb) == ("camrt", "serve")
    return serve.make_context("serve", arguments).params


# --- all of them ------------------------------------------------------------------------------------------------------------
def test_every_file_is_one_of_the_examples():
    assert {path.name for path in FOLDER.iterdir()} == set(EXAMPLES)


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_runs_a_command_line_that_serve_takes(name, tmp_path):
    found = parsed(name, tmp_path)
    assert found["port"] == 8080
    assert found["read_only"]
    assert found["host"] == ("127.0.0.1" if name == "camrt.service" else "0.0.0.0")
    assert found["timeout"] == Options().timeout


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_option_that_an_example_names_is_one_of_serve(name):
    known = {option for parameter in serve.params if isinstance(parameter, click.Option) for option in parameter.opts}
    told = set(re.findall(r"(?<![\w-])--[a-z][\w-]*", (FOLDER / name).read_text()))
    others = {"--rm", "--gpus", "--time", "--from", "--no-cache-dir", "--interval", "--timeout", "--start-period"}
    assert told - others <= known


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_has_only_lines_that_can_be_read(name):
    text = (FOLDER / name).read_text()
    assert text.endswith("\n")
    assert "\t" not in text
    assert max(map(len, text.splitlines())) <= 140


# --- Docker -----------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", DOCKERFILES)
def test_images_are_pinned_and_the_user_is_not_root(name):
    images = [rest.split()[0] for word, rest in instructions(name) if word == "FROM"]
    assert all(re.fullmatch(r"\S+:\d+\.\d+-\S+", image) for image in images)
    assert last(name, "USER") == "10001:10001"  # numbers, as runAsNonRoot wants
    assert last(name, "EXPOSE") == "8080"


@pytest.mark.parametrize("name", DOCKERFILES)
def test_pip_leaves_no_cache_and_the_extras_exist(name):
    (line,) = [rest for word, rest in instructions(name) if word == "RUN"]
    assert "pip install --no-cache-dir" in line
    assert f"'.[{'cpu' if name == 'Dockerfile.cpu' else 'gpu'},serve]'" in line


def test_the_image_for_gpus_runs_on_nothing_else(tmp_path):
    assert parsed("Dockerfile.cuda", tmp_path)["providers"] == ("cuda",)
    assert "NVIDIA_DRIVER_CAPABILITIES=compute,utility" in last("Dockerfile.cuda", "ENV")


@pytest.mark.parametrize("name", DOCKERFILES)
def test_what_is_copied_is_enough_to_build_the_package(name, tmp_path):
    for word, rest in instructions(name):
        if word == "COPY" and not rest.startswith("--from"):
            *sources, target = rest.split()
            for source in sources:
                place = tmp_path / "src" / (source if target == "./" else target)
                copy = shutil.copytree if (ROOT / source).is_dir() else shutil.copy
                place.parent.mkdir(parents=True, exist_ok=True)
                copy(ROOT / source, place)
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path / "dist", tmp_path / "src"]
    subprocess.run(build, check=True, capture_output=True)
    assert len([*(tmp_path / "dist").glob("camrt-*.whl")]) == 1


@pytest.mark.parametrize("name", DOCKERFILES)
def test_the_health_check_tells_a_server_that_answers_from_none(name, served):
    _, check = last(name, "HEALTHCHECK").split("CMD ")
    program, *arguments = json.loads(check)
    assert program == "python"
    assert "http://127.0.0.1:8080/v2/health/ready" in arguments[-1]
    for url, code in ((served.url, 0), ("http://127.0.0.1:1", 1)):
        asked = [argument.replace("http://127.0.0.1:8080", url) for argument in arguments]
        assert subprocess.run([sys.executable, *asked], capture_output=True).returncode == code


# --- systemd ----------------------------------------------------------------------------------------------------------------
def test_the_unit_hands_over_its_tokens_and_gives_a_server_time_to_end(tmp_path):
    found = unit()
    assert found["LoadCredential"] == ["tokens:/etc/camrt/tokens"]
    assert parsed("camrt.service", tmp_path)["token_file"] == tmp_path / "tokens"
    assert float(*found["TimeoutStopSec"]) > GRACE
    assert (found["DynamicUser"], found["Restart"]) == (["yes"], ["on-failure"])
    assert int(*found["LimitNOFILE"]) > Options().connections


def test_no_setting_of_the_unit_is_given_twice():
    assert not [name for name, values in unit().items() if len(values) > 1]


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd is not installed")
def test_systemd_takes_the_unit(tmp_path):
    text = (FOLDER / "camrt.service").read_text().replace("/opt/camrt/bin/camrt", shutil.which("true"))
    (tmp_path / "camrt.service").write_text(text)
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", tmp_path / "camrt.service"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


# --- Kubernetes ---------------------------------------------------------------------------------------------------------------
def test_the_service_is_a_custom_predictor_with_its_bundles_from_a_claim(tmp_path):
    found = yaml.safe_load((FOLDER / "inferenceservice.yaml").read_text())
    assert (found["apiVersion"], found["kind"]) == ("serving.kserve.io/v1beta1", "InferenceService")
    assert container()["name"] == "kserve-container"
    assert not container()["image"].endswith(":latest")
    (volume,) = predictor()["volumes"]
    assert volume["persistentVolumeClaim"]["readOnly"]
    (mount,) = container()["volumeMounts"]
    (bundle,) = parsed("inferenceservice.yaml", tmp_path)["bundles"]
    assert mount["name"] == volume["name"]
    assert bundle.partition("=")[2].startswith(mount["mountPath"] + "/")


def test_threads_are_the_limit_of_cores_and_there_is_time_to_end(tmp_path):
    resources = container()["resources"]
    assert parsed("inferenceservice.yaml", tmp_path)["threads"] == int(resources["limits"]["cpu"])
    assert resources["requests"].keys() == resources["limits"].keys() == {"cpu", "memory"}
    assert predictor()["terminationGracePeriodSeconds"] > GRACE


def test_the_pod_is_no_root_and_writes_nothing():
    assert predictor()["securityContext"]["runAsNonRoot"]
    inner = container()["securityContext"]
    assert (inner["allowPrivilegeEscalation"], inner["readOnlyRootFilesystem"]) == (False, True)
    assert inner["capabilities"] == {"drop": ["ALL"]}


def test_the_probes_ask_what_the_server_answers(served):
    found = container()
    (port,) = found["ports"]
    for name in ("startupProbe", "readinessProbe", "livenessProbe"):
        asked = found[name]["httpGet"]
        assert asked["port"] == port["containerPort"] == 8080
        with urlopen(served.url + asked["path"]) as answer:
            assert answer.status == 200
    assert found["readinessProbe"]["httpGet"]["path"] == "/v2/health/ready"
    assert found["livenessProbe"]["httpGet"]["path"] == "/v2/health/live"
