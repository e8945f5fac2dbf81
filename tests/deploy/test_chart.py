"""The Helm chart renders valid objects, restricts its Pods, and replaces them without an outage."""

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
from tests.go_programs import BUILD_SECONDS, go_program

from uplift_server import __version__
from uplift_server.config.settings import SETTINGS
from uplift_server.config.sources import load
from uplift_server.core.limits import DRAIN_MS_MAX
from uplift_server.observe.metrics import METRICS

from .chart import CHART, ROOT, VALUES, Objects, helm, pod_specs, render

pytestmark = pytest.mark.timeout(BUILD_SECONDS + 60)
KUBERNETES = ("1.30", "1.37")
"""The oldest version that the chart supports, and the newest one with a schema."""
CUSTOM = {"ServiceMonitor", "ScaledObject"}
"""Kinds that other projects define. Kubernetes does not contain their schemas."""
ACCEPTED = (
    "container-image-pull-policy",  # images have digests or versions
    "deployment-has-host-podantiaffinity",  # Pods have topology spread constraints
    "deployment-replicas",  # Pods with an autoscaler have no fixed number
)
"""Rules of kube-score that do not apply. An option of kube-score disables its rule for CPU limits."""
REFERENCE = re.compile(r'#/\$defs/([^"]+)"')
NAMES = [path.name.removesuffix("-values.yaml") for path in VALUES]
STOP_SECONDS = 20


@pytest.fixture(scope="session")
def rendered() -> Callable[[str], Objects]:
    """Return a function that renders the chart with a values file of `ci/`, only once for each file."""
    known: dict[str, Objects] = {}

    def by_name(name: str) -> Objects:
        if name not in known:
            known[name] = render("--values", CHART / f"ci/{name}-values.yaml")
        return known[name]

    return by_name


@pytest.fixture(scope="session")
def schemas(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the schemas of Kubernetes for kubeconform, one subfolder for each version.

    The schemas of kubernetes-validate refer to definitions by web address. Each copy contains its definitions instead.
    """
    packaged = Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema"
    folder = tmp_path_factory.mktemp("schemas")
    for version in KUBERNETES:
        source = packaged / f"v{version}.0-local-strict"
        target = folder / f"v{version}.0"
        target.mkdir()
        definitions = json.loads((source / "_definitions.json").read_text(encoding="utf-8"))["$defs"]
        for path in source.iterdir():
            schema = json.loads(path.read_text(encoding="utf-8"))
            if "x-kubernetes-group-version-kind" in schema:
                del schema["$id"]
                schema["$defs"] = _needed(schema, definitions)
                text = json.dumps(schema).replace('"/api/_definitions.json#', '"#')
                (target / path.name).write_text(text, encoding="utf-8")
    return folder


def _needed(schema: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    """Return the definitions to which a schema refers, including those to which its definitions refer."""
    needed: dict[str, Any] = {}
    names = set(REFERENCE.findall(json.dumps(schema)))
    while names:
        name = names.pop()
        needed[name] = definitions[name]
        names |= set(REFERENCE.findall(json.dumps(needed[name]))) - needed.keys()
    return needed


def test_the_chart_has_the_version_of_the_server() -> None:
    text = (CHART / "Chart.yaml").read_text(encoding="utf-8")
    assert re.findall(r"^(?:version|appVersion): (\S+)$", text, re.MULTILINE) == [__version__] * 2


@pytest.mark.parametrize("name", NAMES)
def test_helm_lint_finds_nothing(name: str) -> None:
    done = helm("lint", "--strict", CHART, "--values", CHART / f"ci/{name}-values.yaml")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("version", KUBERNETES)
@pytest.mark.parametrize("name", NAMES)
def test_objects_match_the_schemas_of_kubernetes(name: str, version: str, schemas: Path) -> None:
    rendered = helm("template", "uplift", CHART, "--values", CHART / f"ci/{name}-values.yaml")
    assert _invalid(rendered.stdout, version, schemas) == []


@pytest.mark.parametrize("version", KUBERNETES)
def test_the_example_database_is_valid(version: str, schemas: Path) -> None:
    text = (CHART.parent / "postgresql.example.yaml").read_text(encoding="utf-8")
    assert _invalid(text, version, schemas) == []
    misspelled = text.replace("replicas:", "replicaz:")
    assert ["replicaz" in each["msg"] for each in _invalid(misspelled, version, schemas)] == [True]


def _invalid(manifests: str, version: str, schemas: Path) -> list[Any]:
    """Return the problems that kubeconform finds in YAML documents. A missing schema is a problem."""
    names = "{{.NormalizedKubernetesVersion}}/{{.ResourceKind}}{{.KindSuffix}}.json"
    command = [go_program("kubeconform"), "-strict", "-output", "json", "-kubernetes-version", f"{version}.0"]
    checked = subprocess.run(
        [*command, "-skip", ",".join(CUSTOM), "-schema-location", f"{schemas}/{names}"],
        input=manifests, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    invalid: list[Any] = json.loads(checked.stdout)["resources"]
    assert (checked.returncode == 0) == (not invalid), checked.stderr
    return invalid


def test_every_optional_object_is_rendered(rendered: Callable[[str], Objects]) -> None:
    minimal, full = (set(rendered(name)) for name in ("minimal", "full"))
    assert minimal < full
    assert {kind for kind, _ in full - minimal} == {
        "HorizontalPodAutoscaler", "ScaledObject", "Service", "ServiceMonitor", "Ingress",
    }  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_pods_have_no_privileges(name: str, rendered: Callable[[str], Objects]) -> None:
    """Pods comply with the profile `restricted` of the Pod Security Standards, and have a read-only file system."""
    specs = pod_specs(rendered(name))
    assert set(specs) == {"uplift-api", "uplift-worker", "uplift-migrate"}
    for spec in specs.values():
        assert spec["automountServiceAccountToken"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
        assert {next(key for key in volume if key != "name") for volume in spec["volumes"]} == {"emptyDir", "projected"}
        for container in spec["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
            }  # fmt: skip
            assert container["resources"]["requests"].keys() == {"cpu", "memory", "ephemeral-storage"}
            assert container["resources"]["limits"].keys() == {"memory", "ephemeral-storage"}


@pytest.mark.parametrize("name", NAMES)
def test_a_policy_checker_finds_nothing(name: str) -> None:
    rendered = helm("template", "uplift", CHART, "--values", CHART / f"ci/{name}-values.yaml")
    command = [go_program("kube-score"), "score", "--output-format", "ci", "--kubernetes-version", f"v{KUBERNETES[0]}"]
    command += [part for each in ACCEPTED for part in ("--ignore-test", each)]
    checked = subprocess.run(
        # A CPU limit would only delay deliveries.
        [*command, "--ignore-container-cpu-limit", "-"],
        input=rendered.stdout, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    found = [line for line in checked.stdout.splitlines() if not line.startswith(("[OK]", "[SKIPPED]"))]
    assert not found
    assert "[OK] uplift-api" in checked.stdout


def test_the_user_is_the_user_of_the_image(rendered: Callable[[str], Objects]) -> None:
    containerfile = (ROOT / "deploy/Containerfile").read_text(encoding="utf-8")
    for spec in pod_specs(rendered("minimal")).values():
        assert f"USER {spec['securityContext']['runAsUser']}\n" in containerfile
        assert f"--gid {spec['securityContext']['fsGroup']} uplift" in containerfile


@pytest.mark.parametrize("name", NAMES)
def test_the_server_accepts_the_environment(
    name: str, rendered: Callable[[str], Objects], tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every variable is a setting, and no setting has two sources, even together with the variables of the image."""
    objects = rendered(name)
    containerfile = (ROOT / "deploy/Containerfile").read_text(encoding="utf-8")
    secrets = {
        "UPLIFT_DATABASE_URL": "postgresql://uplift@postgresql/uplift",
        "UPLIFT_SECRET_KEY": "c2VhbHMgd2hhdCBpcyBzdG9yZWQsIHRlc3RzIG9ubHk=",
        "UPLIFT_OPERATOR_KEY": "op_tests-of-the-chart-know-this-one",
        "UPLIFT_SMTP_URL": "smtp://mail:1025",
        "UPLIFT_METRICS_TOKEN": "a-token-for-the-metrics",
        "UPLIFT_OIDC_CLIENT_SECRET": "a-secret-of-the-provider",
        "UPLIFT_NATS_URL": "nats://nats:4222",
        "UPLIFT_NATS_CREDENTIALS": "credentials",
        "UPLIFT_EGRESS_CA": "certificates",
    }
    for spec in pod_specs(objects).values():
        [container] = spec["containers"]
        [volume] = [each for each in spec["volumes"] if each["name"] == "secrets"]
        mounted = [item["path"] for each in volume["projected"]["sources"] for item in each["secret"]["items"]]
        [settings] = [each["configMapRef"]["name"] for each in container["envFrom"]]
        environ = dict(re.findall(r"\b(UPLIFT_\w+)=(\S+)", containerfile))
        environ |= objects["ConfigMap", settings]["data"]
        for each in container["env"]:
            value = each["value"]
            if value.startswith("/etc/uplift/secrets/"):
                file = value.removeprefix("/etc/uplift/secrets/")
                assert file in mounted
                (tmp_path / file).write_text(secrets[file])
                value = str(tmp_path / file)
            environ[each["name"]] = value
        config = load(environ, ROOT / "deploy/container.toml")
        assert config.database_url == secrets["UPLIFT_DATABASE_URL"]
        assert (config.host, config.port) == ("0.0.0.0", 8420)
        # Kubernetes must not add variables such as UPLIFT_PORT.
        assert spec["enableServiceLinks"] is False


def test_secret_settings_are_only_in_secrets() -> None:
    helpers = (CHART / "templates/_helpers.tpl").read_text(encoding="utf-8")
    listed = re.search(r'"uplift\.secretSettings" -}}\n(.+)\n', helpers)
    assert listed
    assert set(listed[1].split()) == {each.name for each in SETTINGS if each.can_be_file}, "update _helpers.tpl"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["settings.UPLIFT_SECRET_KEY=key"], "settings.UPLIFT_SECRET_KEY can contain a secret"),
        (["settings.UPLIFT_PORT=:9000"], "settings.UPLIFT_PORT cannot be set"),
        (["settings.UPLIFT_PUBLIC_URL=hooks.example.com"], "UPLIFT_PUBLIC_URL"),
        (["image.repository="], "repository"),
        (["image.digest=0.1.2"], "digest"),
        (["api.replica=3"], "replica"),
        (["secrets.UPLIFT_SECRET_KEY=null"], "UPLIFT_SECRET_KEY"),
        (["serviceMonitor.enabled=true"], "secrets.UPLIFT_METRICS_TOKEN is required"),
        (["worker.autoscaling.enabled=true"], "worker.autoscaling.prometheusURL is required"),
        (
            ["api.autoscaling.enabled=true", "api.autoscaling.minReplicas=8"],
            "api.autoscaling.minReplicas (8) is more than api.autoscaling.maxReplicas (6)",
        ),
        (
            ["worker.autoscaling.enabled=true", "worker.autoscaling.minReplicas=7"],
            "worker.autoscaling.minReplicas (7) is more than worker.autoscaling.maxReplicas (6)",
        ),
        (["extraEnv[0].name=UPLIFT_HOST", "extraEnv[0].value=::"], "extraEnv cannot contain UPLIFT_HOST"),
    ],
)
def test_wrong_values_are_rejected(arguments: list[str], message: str) -> None:
    values = [part for each in arguments for part in ("--set", each)]
    done = helm("template", "uplift", CHART, "--values", CHART / "ci/minimal-values.yaml", *values)
    assert done.returncode != 0
    assert message in done.stderr


def test_an_upgrade_starts_new_servers_before_old_ones_stop(rendered: Callable[[str], Objects]) -> None:
    objects = rendered("minimal")
    for role in ("api", "worker"):
        deployment = objects["Deployment", f"uplift-{role}"]["spec"]
        spec = deployment["template"]["spec"]
        [container] = spec["containers"]
        assert deployment["replicas"] >= 2
        assert deployment["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
        assert container["args"] == ["serve", "--role", role]
        assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
        assert container["livenessProbe"]["httpGet"] == container["startupProbe"]["httpGet"]
        drain = container.get("lifecycle", {"preStop": {"sleep": {"seconds": 0}}})["preStop"]["sleep"]["seconds"]
        assert spec["terminationGracePeriodSeconds"] - drain > STOP_SECONDS > DRAIN_MS_MAX / 1000
        budget = objects["PodDisruptionBudget", f"uplift-{role}"]["spec"]
        assert budget["maxUnavailable"] == 1
        assert budget["selector"] == deployment["selector"]
        assert budget["selector"]["matchLabels"].items() <= deployment["template"]["metadata"]["labels"].items()
    drained = objects["Deployment", "uplift-api"]["spec"]["template"]["spec"]["containers"][0]["lifecycle"]
    assert drained["preStop"]["sleep"]["seconds"] > 0


@pytest.mark.parametrize("name", NAMES)
def test_the_schema_is_upgraded_first(name: str, rendered: Callable[[str], Objects]) -> None:
    """The objects that the Job needs are hooks with lower weights: Helm creates all hooks before other objects."""
    objects = rendered(name)
    job = objects["Job", "uplift-migrate"]
    weight = _hook_weight(job)
    [container] = job["spec"]["template"]["spec"]["containers"]
    assert container["args"] == ["migrate"]
    needed = [("ConfigMap", container["envFrom"][0]["configMapRef"]["name"])]
    needed += [("ServiceAccount", job["spec"]["template"]["spec"]["serviceAccountName"])]
    needed += [("NetworkPolicy", "uplift-migrate")]
    for each in needed:
        assert _hook_weight(objects[each]) < weight
    assert objects[needed[0]]["data"] == objects["ConfigMap", "uplift"]["data"]
    assert [key for key, each in objects.items() if "helm.sh/hook" in each["metadata"].get("annotations", {})] == [
        key for key in objects if key[1] == "uplift-migrate"
    ]


def _hook_weight(each: Any) -> int:
    annotations = each["metadata"]["annotations"]
    assert annotations["helm.sh/hook"] == "pre-install,pre-upgrade"
    return int(annotations["helm.sh/hook-weight"])


def test_a_changed_setting_replaces_the_pods(rendered: Callable[[str], Objects]) -> None:
    def checksum(objects: Objects) -> str:
        metadata = objects["Deployment", "uplift-api"]["spec"]["template"]["metadata"]
        return str(metadata["annotations"]["checksum/settings"])

    changed = render("--values", CHART / "ci/minimal-values.yaml", "--set", "settings.UPLIFT_RETENTION=7d")
    assert checksum(changed) != checksum(rendered("minimal"))


def test_the_image_is_chosen_by_digest_or_version(rendered: Callable[[str], Objects]) -> None:
    for name, image in (("minimal", f":{__version__}"), ("full", "@sha256:0123456789abcdef")):
        for spec in pod_specs(rendered(name)).values():
            assert spec["containers"][0]["image"].startswith(f"registry.example.com/uplift-webhooks-server{image}")


def test_an_own_autoscaler_sets_the_number_of_pods() -> None:
    objects = render("--values", CHART / "ci/minimal-values.yaml", "--set", "worker.replicas=null")
    assert "replicas" not in objects["Deployment", "uplift-worker"]["spec"]
    assert "replicas" in objects["Deployment", "uplift-api"]["spec"]


def test_workers_reach_the_internet_and_not_the_cluster(rendered: Callable[[str], Objects]) -> None:
    rules = rendered("minimal")["NetworkPolicy", "uplift-worker"]["spec"]["egress"]
    blocks = {rule["to"][0]["ipBlock"]["cidr"]: rule for rule in rules if "ipBlock" in rule.get("to", [{}])[0]}
    assert set(blocks) == {"0.0.0.0/0", "::/0"}
    for rule in blocks.values():
        assert [each["port"] for each in rule["ports"]] == [443, 80]
    blocked = {network for rule in blocks.values() for network in rule["to"][0]["ipBlock"]["except"]}
    assert {"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "fc00::/7", "fe80::/10"} <= blocked
    for role in ("api", "migrate"):
        rules = rendered("minimal")["NetworkPolicy", f"uplift-{role}"]["spec"]["egress"]
        assert sorted(port["port"] for rule in rules for port in rule["ports"]) == [53, 53, 5432]


def test_network_policies_follow_the_values(rendered: Callable[[str], Objects]) -> None:
    objects = rendered("full")
    api, worker = (objects["NetworkPolicy", f"uplift-{role}"]["spec"] for role in ("api", "worker"))
    namespaces = [
        [peer["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"] for peer in each["ingress"][0]["from"]]
        for each in (api, worker)
    ]
    assert namespaces == [["ingress-nginx", "monitoring"], ["monitoring"]]
    ports = [port["port"] for rule in api["egress"] for port in rule["ports"]]
    assert ports == [53, 53, 5432, 25, 465, 587, 4222, 4318, 8443]
    assert all("ports" not in rule for rule in worker["egress"] if "ipBlock" in rule.get("to", [{}])[0])
    migrate = objects["NetworkPolicy", "uplift-migrate"]["spec"]
    assert migrate["policyTypes"] == ["Ingress", "Egress"]
    assert "ingress" not in migrate


def test_network_policies_open_the_ports_of_the_pooler_and_of_an_issuer_over_http() -> None:
    secrets = "secrets.UPLIFT_DATABASE_DIRECT_URL.name=uplift,secrets.UPLIFT_DATABASE_DIRECT_URL.key=direct"
    values = f"networkPolicy.postgresqlPort=6432,settings.UPLIFT_OIDC_ISSUER=http://id.example.com/realms/a,{secrets}"
    objects = render("--values", CHART / "ci/minimal-values.yaml", "--set", values)
    rules = objects["NetworkPolicy", "uplift-api"]["spec"]["egress"]
    assert [port["port"] for rule in rules for port in rule["ports"]] == [53, 53, 6432, 5432, 80]


def test_monitoring_finds_all_servers(rendered: Callable[[str], Objects]) -> None:
    objects = rendered("full")
    service = objects["Service", "uplift-metrics"]
    monitor = objects["ServiceMonitor", "uplift"]["spec"]
    assert monitor["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    for role in ("api", "worker"):
        template = objects["Deployment", f"uplift-{role}"]["spec"]["template"]
        assert service["spec"]["selector"].items() <= template["metadata"]["labels"].items()
        assert template["spec"]["containers"][0]["ports"][0]["name"] == monitor["endpoints"][0]["port"]
    [trigger] = objects["ScaledObject", "uplift-worker"]["spec"]["triggers"]
    query = re.fullmatch(
        r"max\((\w+)\{job=\"(\w+)\",namespace=\"(\w+)\",(\w+)=\"\w+\"\}\)", trigger["metadata"]["query"]
    )
    assert query
    assert {metric.name: metric.label for metric in METRICS}[query[1]] == query[4]
    assert [each["replacement"] for each in monitor["endpoints"][0]["relabelings"]] == [query[2]]
    assert query[3] == "hooks"


def test_the_ingress_has_the_host_of_the_public_url(rendered: Callable[[str], Objects]) -> None:
    objects = rendered("full")
    ingress = objects["Ingress", "uplift"]["spec"]
    [rule], [tls] = ingress["rules"], ingress["tls"]
    assert rule["host"] == tls["hosts"][0] == "hooks.example.com"
    backend = rule["http"]["paths"][0]["backend"]["service"]
    assert backend["port"]["name"] == objects["Service", backend["name"]]["spec"]["ports"][0]["name"]
