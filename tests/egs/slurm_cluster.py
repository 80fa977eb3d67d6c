"""A Slurm of its own, on this machine and for one test module: munged, slurmctld and two nodes."""

import getpass
import os
import shutil
import socket
import subprocess
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from speecheq.cluster.run_task import free_port

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "scontrol", "sinfo", "srun")
# Far beyond what anything here takes, also on a machine with other work: a test that waits so long has failed.
LIMIT = 240.0
SYSTEM_PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"  # where Debian has the daemons

CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
MessageTimeout=100
MaxArraySize=9
SchedulerParameters=sched_interval=1,sched_min_interval=0,batch_sched_delay=0
SlurmdParameters=config_overrides
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=2 RealMemory=4000
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=2 RealMemory=4000
PartitionName=main Nodes=ALL Default=YES State=UP
PartitionName=closed Nodes=ALL State=DOWN
"""


def wait_until(true, what):
    """Poll ``true`` until it gives something, which is returned; AssertionError that says ``what`` was waited for."""
    end = time.monotonic() + LIMIT
    while time.monotonic() < end:
        found = true()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(f"waited {LIMIT:.0f} s in vain for {what() if callable(what) else what}")


def missing_programs():
    """Those of Slurm that are not installed."""
    return [name for name in PROGRAMS if shutil.which(name, path=SYSTEM_PATH) is None]


class Cluster:
    """Entered, it runs; ``environment`` makes the commands of Slurm speak to it."""

    def __enter__(self):
        self.opened = ExitStack()
        try:
            self._start()
        except BaseException:
            self.opened.close()
            raise
        return self

    def __exit__(self, *_error):
        try:
            self.ask("scancel", "--me")
            wait_until(lambda: not self.queue(), "the last jobs to end")
        finally:
            self.opened.close()

    def _start(self):
        # not pytest's: the name of a socket has room for 107 bytes
        folder = tempfile.TemporaryDirectory(prefix="slurm-", ignore_cleanup_errors=True)
        self.folder = Path(self.opened.enter_context(folder))
        self.environment = {**os.environ, "PATH": SYSTEM_PATH, "SLURM_CONF": str(self.folder / "slurm.conf")}
        (self.folder / "state").mkdir()
        ports = []
        while len(ports) < 3:
            ports += {free_port()} - set(ports)
        values = {"folder": self.folder, "host": socket.gethostname().split(".")[0], "user": getpass.getuser()}
        (self.folder / "slurm.conf").write_text(CONFIGURATION.format(ports=ports, **values))
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(64))
        key.chmod(0o400)
        self._daemon(
            "munged",
            "--foreground",
            "--force",
            f"--socket={self.folder}/munge.socket",
            f"--key-file={key}",
            *(f"--{name}-file={self.folder}/munge.{name}" for name in ("pid", "log", "seed")),
        )
        wait_until((self.folder / "munge.socket").exists, self._logs)
        self._daemon("slurmctld", "-D")
        for node in ("n1", "n2"):
            self._daemon("slurmd", "-D", "-N", node)
        idle = ("sinfo", "--noheader", "--states=idle", "--partition=main", "--format=%D")
        wait_until(lambda: self.ask(*idle, check=False) == "2", self._logs)

    def _daemon(self, *command):
        with open(self.folder / "daemons.out", "a") as output:
            process = subprocess.Popen(
                command,
                env=self.environment,
                stdout=output,
                stderr=output,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        self.opened.callback(self._end, process)

    @staticmethod
    def _end(process):
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _logs(self):
        """The ends of the daemons' logs."""
        paths = [*self.folder.glob("*.log"), *self.folder.glob("*.out")]
        ends = (f"{path.name}: {path.read_text(errors='replace')[-1500:]}" for path in paths)
        return "Slurm to start:\n" + "\n".join(ends)

    def ask(self, *command, check=True):
        """What a command of Slurm prints."""
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True)
        assert not check or done.returncode == 0, done.stderr
        return done.stdout.strip()

    def queue(self, *options):
        """State by ``array job_index`` of what waits or runs."""
        lines = self.ask("squeue", "--me", "--array", "--noheader", "--format=%i %T", *options).splitlines()
        return dict(line.split() for line in lines)
