"""The recipes of docs/clusters.md for SSH, Slurm and Kubernetes. What is not installed is skipped, and says so."""

import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from outside import TIMEOUT_S, Home, Program, command_line, wait_until
from test_machines import listening, wait_for_workers

import headrace as hr

RECIPES = Path(__file__).parents[2] / "examples" / "clusters"
HEADRACE = command_line()[0]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def accepts(port):
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


# -- SSH ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def ssh(tmp_path):
    """A server of this user at a port of its own; gives the command that reaches it as any of three names."""
    server = shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin:/usr/local/sbin")
    if server is None or shutil.which("ssh") is None:
        pytest.skip("openssh-server is not installed: agents over SSH are NOT TESTED HERE")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # sshd wants it; elsewhere a package's service makes it
    place, port = tmp_path / "ssh", free_port()
    place.mkdir(mode=0o700)
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", place / name], check=True)
    (place / "authorized").write_text((place / "user.pub").read_text())
    (place / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {place}/host\nAuthorizedKeysFile {place}/authorized\n"
        "StrictModes no\nUsePAM no\nPidFile none\nPasswordAuthentication no\nPermitRootLogin prohibit-password\n"
    )
    (place / "ssh_config").write_text(
        f"Host *\nHostName 127.0.0.1\nPort {port}\nUser {getpass.getuser()}\nIdentityFile {place}/user\n"
        f"IdentitiesOnly yes\nUserKnownHostsFile {place}/known\nStrictHostKeyChecking accept-new\nLogLevel ERROR\n"
    )
    with subprocess.Popen([server, "-D", "-e", "-f", place / "sshd_config"], stderr=subprocess.PIPE) as running:
        try:
            wait_until(lambda: accepts(port) or running.poll() is not None)
            if running.poll() is not None:
                pytest.skip(f"sshd does not run: agents over SSH are NOT TESTED HERE: {running.stderr.read().decode()}")
            yield f"ssh -F {place}/ssh_config"
        finally:
            running.kill()


def processes(word):
    found = []
    for name in filter(str.isdecimal, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            if word.encode() in Path(f"/proc/{name}/cmdline").read_bytes():
                found.append(int(name))
    return found


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_agents_over_ssh_leave_with_the_script(ssh, folder, number):
    with Home() as home, listening(home, folder) as (_, address, endpoint), hr.Client(address) as client:
        hosts = [f"{name}-{home.path.name}" for name in ("alpha", "beta")]
        words = ["env", f"HEADRACE={HEADRACE}", f"SSH={ssh}", RECIPES / "over_ssh.sh", endpoint, folder, *hosts]
        with Program(home, *map(str, words)) as script:
            wait_until(lambda: sum(1 for worker in client.statistics().workers if worker.pid) >= 2)
            assert client.call(pow, 2, 10).result(timeout=TIMEOUT_S) == 1024
            secret = next(
                line.split()[1] for line in (folder / "worker.key").read_text().splitlines() if "secret" in line
            )
            agents = [pid for host in hosts for pid in processes(f"\0{host}\0")]
            assert len(agents) >= 2
            assert not any(secret.encode() in Path(f"/proc/{pid}/environ").read_bytes() for pid in agents)
            os.kill(script.pid, number)
            script.process.wait(TIMEOUT_S)
            wait_for_workers(client, 0)
            wait_until(lambda: not any(processes(f"\0{host}\0") for host in hosts))


# -- Slurm -------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def slurm(place):
    """A cluster of this one machine, as (environment for its commands)."""
    needed = {"munged": "munge", "slurmctld": "slurm-wlm", "slurmd": "slurm-wlm", "srun": "slurm-wlm"}
    path = f"{os.environ['PATH']}:/usr/sbin"
    missing = sorted({package for name, package in needed.items() if shutil.which(name, path=path) is None})
    if missing or os.geteuid() != 0:
        pytest.skip(f"{', '.join(missing) or 'root'} is not here: the job for Slurm is NOT TESTED HERE")
    host = socket.gethostname().partition(".")[0]
    place.chmod(0o755)
    key = place / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o600)
    munge = place / "munge"
    munge.mkdir(mode=0o755)
    config = place / "slurm.conf"
    (place / "state").mkdir()
    (place / "spool").mkdir()
    config.write_text(
        f"ClusterName=test\nSlurmctldHost={host}(127.0.0.1)\nSlurmUser=root\nAuthType=auth/munge\n"
        f"AuthInfo=socket={munge}/socket\nCredType=cred/munge\nMpiDefault=none\nProctrackType=proctrack/pgid\n"
        f"TaskPlugin=task/none\nReturnToService=2\nSlurmctldPort={free_port()}\nSlurmdPort={free_port()}\n"
        f"StateSaveLocation={place}/state\nSlurmdSpoolDir={place}/spool\nSlurmctldPidFile={place}/ctld.pid\n"
        f"SlurmdPidFile={place}/slurmd.pid\nSchedulerType=sched/builtin\nSelectType=select/linear\n"
        f"SlurmctldParameters=enable_configless\nJobAcctGatherType=jobacct_gather/none\n"
        f"NodeName={host} NodeAddr=127.0.0.1 CPUs={os.cpu_count()} State=UNKNOWN\n"
        f"PartitionName=all Nodes={host} Default=YES MaxTime=INFINITE State=UP\n"
    )
    environment = os.environ | {"SLURM_CONF": str(config), "PATH": path}
    munged = ["munged", "-F", f"--key-file={key}", f"--socket={munge}/socket", f"--pid-file={munge}/pid", "--force"]
    munged += [f"--log-file={munge}/log", f"--seed-file={munge}/seed"]
    with contextlib.ExitStack() as stack:
        for words in (munged, ["slurmctld", "-D"], ["slurmd", "-D"]):
            log = stack.enter_context(open(place / f"{words[0]}.log", "wb"))
            running = subprocess.Popen(words, env=environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
            stack.callback(running.wait)
            stack.callback(running.kill)
            time.sleep(0.2)

        def is_ready():
            asked = subprocess.run(["sinfo", "-h", "-o", "%T"], env=environment, capture_output=True, text=True)
            return asked.stdout.strip() == "idle"

        until_s = time.monotonic() + 20
        while not is_ready():
            if time.monotonic() > until_s:
                logs = "\n".join(path.read_text(errors="replace")[-1_000:] for path in place.glob("*.log"))
                pytest.skip(f"Slurm does not run here: the job for Slurm is NOT TESTED HERE: {logs}")
            time.sleep(0.1)
        yield environment


PROGRAM = """
import os
import headrace as hr
with hr.Client(os.environ["HEADRACE_ADDRESS"]) as client:
    print(client.call(pow, 2, 10).result(timeout=30), client.call(os.environ.get, "SLURM_PROCID").result(timeout=30))
"""


@pytest.mark.timeout(120)
def test_a_job_of_slurm(tmp_path):
    with slurm(tmp_path) as environment:
        (tmp_path / "program.py").write_text(PROGRAM)
        path = f"{Path(HEADRACE).parent}:{environment['PATH']}"
        words = ["sbatch", "--wait", "--nodes=1", f"--output={tmp_path}/out", RECIPES / "on_slurm.sh"]
        words += [sys.executable, tmp_path / "program.py"]
        more = {"PATH": path, "HEADRACE_JOB_DIR": str(tmp_path)}
        done = subprocess.run(words, env=environment | more, cwd=tmp_path, capture_output=True, text=True, timeout=90)
        output = (tmp_path / "out").read_text()
        assert done.returncode == 0, done.stderr + output
        assert output.splitlines()[-1] == "1024 0" or "1024 0" in output.splitlines(), output
        assert not list(tmp_path.glob("headrace-keys.*")), "the keys go with the job"


# -- Kubernetes --------------------------------------------------------------------------------------------------------


def documents():
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed: the manifest is NOT CHECKED HERE")
    return list(yaml.safe_load_all((RECIPES / "kubernetes.yaml").read_text()))


def test_the_manifest_names_what_there_is():
    """Its options are ours, and what it mounts and selects is defined in it."""
    by_kind = {}
    for document in documents():
        by_kind.setdefault(document["kind"], []).append(document)
    (service,) = by_kind["Service"]
    for deployment in by_kind["Deployment"]:
        template = deployment["spec"]["template"]
        assert deployment["spec"]["selector"]["matchLabels"] == template["metadata"]["labels"]
        volumes = {volume["name"] for volume in template["spec"]["volumes"]}
        (container,) = template["spec"]["containers"]
        ports = {port["name"] for port in container["ports"]}
        for part in (container, *template["spec"]["initContainers"]):
            assert {mount["name"] for mount in part["volumeMounts"]} <= volumes
        for probe in ("readinessProbe", "livenessProbe"):
            assert container[probe]["httpGet"]["port"] in ports
            assert container[probe]["httpGet"]["path"] in ("/live", "/ready")
        options = subprocess.run([HEADRACE, container["command"][1], "--help"], capture_output=True, text=True).stdout
        for argument in container["args"]:
            assert argument.partition("=")[0] in options
        drain_s = next(float(word.partition("=")[2]) for word in container["args"] if word.startswith("--drain-s"))
        assert drain_s < template["spec"]["terminationGracePeriodSeconds"]
    assert service["spec"]["selector"] in [d["spec"]["template"]["metadata"]["labels"] for d in by_kind["Deployment"]]


def test_the_manifest_is_one_of_kubernetes():
    validate = pytest.importorskip(
        "kubernetes_validate", reason="kubernetes-validate is not installed: the manifest's schema is NOT CHECKED HERE"
    )
    for document in documents():
        validate.validate(document, validate.latest_version(), strict=True)
